//! `up`: containers, networks and volumes as the project says.

mod fate;
mod starts;

pub use starts::holds_there;

use std::collections::{BTreeMap, BTreeSet};

use wharfie_compose::model::{Port, Project, Service};
use wharfie_compose::{network_hash, volume_hash};

use super::images;
use super::select::{dependencies_first, selection};
use super::{Refusal, UpOptions};
use crate::labels;
use crate::names;
use crate::network::publish::{self, PublishedPort};
use crate::plan::{Operation, Plan};
use crate::seen::{Container, Seen};
use crate::shared;

/// What becomes of one container number of a service.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    /// It is right as it is.
    Keep { running: bool },
    /// It is not there.
    Create,
    /// It is wrong, or not to be used.
    Recreate { old: String, reason: String },
    /// It is another node's.
    Elsewhere,
}

struct Task<'a> {
    service: &'a Service,
    number: u32,
    name: String,
    fate: Fate,
    seen: Option<&'a Container>,
}

/// Plans `up`.
///
/// # Errors
/// A [`Refusal`] if something outside the plan is missing; then nothing is to be done.
pub fn up(project: &Project, seen: &Seen, options: &UpOptions) -> Result<Plan, Refusal> {
    let services = selection(project, &options.services, options.no_deps)?;
    let mut planner = Planner {
        project,
        seen,
        options,
        plan: Plan::default(),
        changed_networks: BTreeSet::new(),
    };
    planner.orphans();
    let image_steps = planner.images(&services)?;
    planner.find_changed_networks(&services)?;
    let order = dependencies_first(services.keys().copied(), |name| {
        services.get(name).map_or_else(Vec::new, |s| {
            s.depends_on.keys().map(String::as_str).collect()
        })
    });
    let mut tasks: BTreeMap<&str, Vec<Task>> = BTreeMap::new();
    let mut surplus: Vec<&Container> = Vec::new();
    for name in &order {
        let list = planner.tasks(services[name], &tasks, &mut surplus)?;
        tasks.insert(name, list);
    }
    planner.execute(&services, &order, &tasks, &surplus, &image_steps)?;
    Ok(planner.plan)
}

struct Planner<'a> {
    project: &'a Project,
    seen: &'a Seen,
    options: &'a UpOptions,
    plan: Plan,
    /// Names of networks that are made anew: their containers must be, too.
    changed_networks: BTreeSet<&'a str>,
}

impl<'a> Planner<'a> {
    fn orphans(&mut self) {
        let orphans: Vec<&Container> = self
            .seen
            .containers
            .iter()
            .filter(|c| !c.oneoff && self.project.any_service(&c.service).is_none())
            .collect();
        if orphans.is_empty() {
            return;
        }
        if !self.options.remove_orphans {
            let names: Vec<&str> = orphans.iter().map(|c| c.name.as_str()).collect();
            self.plan.notices.push(orphan_notice(&names));
            return;
        }
        for orphan in orphans {
            self.remove(orphan, "its service is not in the project");
        }
    }

    fn remove(&mut self, container: &Container, reason: &str) -> usize {
        self.plan.push(
            Operation::RemoveContainer {
                service: container.service.clone(),
                id: container.id.clone(),
                name: container.name.clone(),
                reason: reason.to_owned(),
                running: container.is_running(),
                volumes: false,
                timeout: self.options.timeout,
            },
            Vec::new(),
        )
    }

    /// Steps that prepare the image of each service, by service.
    fn images(
        &mut self,
        services: &BTreeMap<&'a str, &'a Service>,
    ) -> Result<BTreeMap<&'a str, usize>, Refusal> {
        let mut by_image: BTreeMap<String, usize> = BTreeMap::new();
        let mut steps = BTreeMap::new();
        for (name, service) in services {
            // A service at scale zero needs no image.
            if service.provider.is_some() || self.numbers(service)?.is_empty() {
                continue;
            }
            let Some(operation) = images::prepare(self.project, service, self.seen, self.options)?
            else {
                continue;
            };
            let image = names::image(self.project, service);
            let plan = &mut self.plan;
            let step = *by_image
                .entry(image)
                .or_insert_with(|| plan.push(operation, Vec::new()));
            steps.insert(*name, step);
        }
        Ok(steps)
    }

    fn find_changed_networks(
        &mut self,
        services: &BTreeMap<&'a str, &'a Service>,
    ) -> Result<(), Refusal> {
        let used: BTreeSet<&str> = services
            .values()
            .filter(|s| self.is_here(s))
            .flat_map(|s| s.networks.keys().map(String::as_str))
            .collect();
        for (key, network) in self
            .project
            .networks
            .iter()
            .filter(|(k, _)| used.contains(k.as_str()))
        {
            let seen = self.seen.networks.get(&network.name);
            if network.external {
                // A network of the cluster is made before there is somebody on it.
                let clusters = network.labels.contains_key(labels::RESOLVER);
                if seen.is_none() && !clusters && !is_predefined(&network.name) {
                    return Err(Refusal::NoNetwork {
                        key: key.clone(),
                        name: network.name.clone(),
                    });
                }
                continue;
            }
            let Some(seen) = seen else { continue };
            if !is_predefined(&network.name)
                && seen.labels.get(labels::PROJECT) != Some(&self.project.name)
            {
                return Err(Refusal::ForeignNetwork {
                    key: key.clone(),
                    name: network.name.clone(),
                });
            }
            // Whoever does not know a node's part of a network compares what the file says.
            let local = network.labels.contains_key(labels::RESOLVER);
            let hash = match seen.labels.get(labels::DEFINITION).filter(|_| !local) {
                Some(hash) => Some(hash),
                None => seen.labels.get(labels::CONFIG_HASH),
            };
            if self.options.no_recreate || hash.is_none_or(|h| *h == network_hash(network)) {
                continue;
            }
            match self.bystander(&network.name, services) {
                None => {
                    self.changed_networks.insert(&network.name);
                }
                // It cannot be removed while somebody is on it who is not ours to stop.
                Some(other) => self.plan.notices.push(format!(
                    "network {} has changed, but stays as it is: container {other} is on it, which is left alone",
                    network.name
                )),
            }
        }
        Ok(())
    }

    /// A running container on a network that this plan neither makes anew nor removes.
    fn bystander(&self, network: &str, services: &BTreeMap<&str, &Service>) -> Option<&'a str> {
        let is_ours = |c: &Container| {
            let orphan = self.project.any_service(&c.service).is_none();
            !c.oneoff
                && (services.contains_key(c.service.as_str())
                    || orphan && self.options.remove_orphans)
        };
        self.seen
            .containers
            .iter()
            .find(|c| c.is_running() && c.networks.contains_key(network) && !is_ours(c))
            .map(|c| c.name.as_str())
    }

    fn execute(
        &mut self,
        services: &BTreeMap<&'a str, &'a Service>,
        order: &[&'a str],
        tasks: &BTreeMap<&str, Vec<Task>>,
        surplus: &[&Container],
        image_steps: &BTreeMap<&str, usize>,
    ) -> Result<(), Refusal> {
        // A surplus container may hold the name that a new one is to get.
        let mut removed: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for container in surplus {
            let step = self.remove(container, "more containers than wanted");
            removed.entry(&container.service).or_default().push(step);
        }
        let stopped = self.clear_networks(tasks);
        let networks = self.networks(services);
        let volumes = self.volumes(services)?;
        let mut made: BTreeMap<&str, Vec<Option<usize>>> = BTreeMap::new();
        for &name in order {
            let mut steps = Vec::new();
            for task in &tasks[name] {
                let mut after: Vec<usize> = image_steps.get(name).copied().into_iter().collect();
                after.extend(removed.get(name).into_iter().flatten());
                after.extend(
                    task.service
                        .networks
                        .keys()
                        .filter_map(|k| networks.get(k.as_str())),
                );
                after.extend(
                    task.service
                        .volumes
                        .iter()
                        .filter_map(|m| volumes.get(m.source.as_str())),
                );
                for other in shared::with(task.service).chain(shared::linked(task.service)) {
                    after.extend(made.get(other).into_iter().flatten().flatten());
                }
                steps.push(self.make(task, after, &stopped));
            }
            made.insert(name, steps);
        }
        if !self.options.no_start {
            self.starts(order, tasks, &made);
        }
        Ok(())
    }

    /// A network can be removed once nobody who runs is on it: containers on networks that are
    /// made anew stop first. They stay until they are recreated, so that their anonymous volumes
    /// are taken over. Returns the step by container.
    fn clear_networks(&mut self, tasks: &BTreeMap<&str, Vec<Task>>) -> BTreeMap<String, usize> {
        let mut stopped = BTreeMap::new();
        for container in tasks.values().flatten().filter_map(|t| t.seen) {
            let on = container
                .networks
                .keys()
                .any(|n| self.changed_networks.contains(n.as_str()));
            if on && container.is_running() {
                let operation = Operation::StopContainer {
                    service: container.service.clone(),
                    id: container.id.clone(),
                    name: container.name.clone(),
                    timeout: self.options.timeout,
                };
                let step = self.plan.push(operation, Vec::new());
                stopped.insert(container.id.clone(), step);
            }
        }
        stopped
    }

    fn networks(&mut self, services: &BTreeMap<&str, &Service>) -> BTreeMap<&'a str, usize> {
        let used: BTreeSet<&str> = services
            .values()
            .filter(|s| self.is_here(s))
            .flat_map(|s| s.networks.keys().map(String::as_str))
            .collect();
        let mut steps = BTreeMap::new();
        for (key, network) in &self.project.networks {
            if network.external || !used.contains(key.as_str()) {
                continue;
            }
            let name = network.name.clone();
            let mut after = Vec::new();
            if self.changed_networks.contains(network.name.as_str()) {
                let gone = self.plan.steps.iter().enumerate();
                let gone = gone
                    .filter(|(_, s)| {
                        matches!(
                            s.operation,
                            Operation::StopContainer { .. } | Operation::RemoveContainer { .. }
                        )
                    })
                    .map(|(i, _)| i)
                    .collect();
                let reason = "its configuration changed".to_owned();
                after.push(self.plan.push(
                    Operation::RemoveNetwork {
                        name: name.clone(),
                        reason,
                    },
                    gone,
                ));
            } else if self.seen.networks.contains_key(&network.name) {
                continue;
            }
            let step = self.plan.push(
                Operation::CreateNetwork {
                    network: key.clone(),
                    name,
                },
                after,
            );
            steps.insert(key.as_str(), step);
        }
        steps
    }

    fn volumes(
        &mut self,
        services: &BTreeMap<&str, &Service>,
    ) -> Result<BTreeMap<&'a str, usize>, Refusal> {
        let used: BTreeSet<&str> = services
            .values()
            .filter(|s| self.is_here(s))
            .flat_map(|s| s.volumes.iter().map(|m| m.source.as_str()))
            .collect();
        let mut steps = BTreeMap::new();
        for (key, volume) in self
            .project
            .volumes
            .iter()
            .filter(|(k, _)| used.contains(k.as_str()))
        {
            match self.seen.volumes.get(&volume.name) {
                Some(seen) => {
                    let hash = seen.labels.get(labels::CONFIG_HASH);
                    if !volume.external
                        && seen.labels.get(labels::PROJECT) != Some(&self.project.name)
                    {
                        self.plan.notices.push(format!(
                            "volume {} was not made for this project: declare it `external: true` if it is meant",
                            volume.name
                        ));
                    } else if !volume.external && hash.is_some_and(|h| *h != volume_hash(volume)) {
                        self.plan.notices.push(format!(
                            "volume {} was made with another configuration; it is kept as it is, since it may hold data",
                            volume.name
                        ));
                    }
                }
                None if volume.external => {
                    return Err(Refusal::NoVolume {
                        key: key.clone(),
                        name: volume.name.clone(),
                    });
                }
                None => {
                    let operation = Operation::CreateVolume {
                        volume: key.clone(),
                        name: volume.name.clone(),
                    };
                    steps.insert(key.as_str(), self.plan.push(operation, Vec::new()));
                }
            }
        }
        Ok(steps)
    }

    /// The step that makes a task's container, if it must be made.
    fn make(
        &mut self,
        task: &Task,
        mut after: Vec<usize>,
        stopped: &BTreeMap<String, usize>,
    ) -> Option<usize> {
        let service = task.service.name.clone();
        let name = task.name.clone();
        let number = task.number;
        let operation = match &task.fate {
            Fate::Keep { .. } | Fate::Elsewhere => return None,
            Fate::Create => Operation::CreateContainer {
                service,
                number,
                name,
            },
            Fate::Recreate { old, reason } => {
                after.extend(stopped.get(old));
                Operation::RecreateContainer {
                    service,
                    number,
                    name,
                    old: old.clone(),
                    reason: reason.clone(),
                    renew_volumes: self.options.renew_anonymous_volumes,
                    start_first: starts_first(self.project, task),
                    timeout: self.options.timeout,
                }
            }
        };
        Some(self.plan.push(operation, after))
    }
}

/// Whether the new container runs before the old one goes (`deploy.update_config.order`). What only
/// one container can have at a time stands against it.
fn starts_first(project: &Project, task: &Task) -> bool {
    let service = task.service;
    let clusters = publish::is_clusters(project, service);
    let holds = |p: &Port| !(p.published.is_empty() || clusters && PublishedPort::of(p).is_some());
    let update = service
        .deploy
        .as_ref()
        .and_then(|d| d.update_config.as_ref());
    let fixed = service.ports.iter().any(holds)
        || shared::with(service).next().is_some()
        || service.network_mode == "host"
        || service.networks.values().flatten().any(|n| {
            !n.ipv4_address.is_empty() || !n.ipv6_address.is_empty() || !n.mac_address.is_empty()
        });
    let running = task.seen.is_some_and(Container::is_running);
    running && !fixed && update.is_some_and(|u| u.order == "start-first")
}

/// Networks every Engine has.
fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none" | "default")
}

/// What the user is told of containers that no service explains.
pub(in crate::reconcile) fn orphan_notice(names: &[&str]) -> String {
    format!(
        "orphan containers ({}) for this project: remove them with --remove-orphans if their service was renamed or removed",
        names.join(", ")
    )
}
