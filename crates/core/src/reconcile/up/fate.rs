//! What becomes of each container of a service, and why.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_compose::model::{MountKind, Service};

use super::{Fate, Planner, Task};
use crate::reconcile::Refusal;
use crate::seen::{Container, State};
use crate::{labels, names, shared};

impl<'a> Planner<'a> {
    pub(super) fn count(&self, service: &Service) -> Result<u32, Refusal> {
        let asked = self.options.scale.get(&service.name).copied();
        let count = shared::replicas(service, asked);
        let not_scalable = |why: &str| {
            Err(Refusal::NotScalable {
                service: service.name.clone(),
                count,
                why: why.to_owned(),
            })
        };
        if count > 1 && !service.container_name.is_empty() {
            return not_scalable("it has a container_name, and names are unique");
        }
        let fixed = service.networks.values().flatten();
        if count > 1
            && fixed
                .clone()
                .any(|n| !n.ipv4_address.is_empty() || !n.ipv6_address.is_empty())
        {
            return not_scalable("it has a fixed address, and addresses are unique");
        }
        Ok(count)
    }

    /// Numbers of the containers that a service is to have here.
    pub(super) fn numbers(&self, service: &Service) -> Result<BTreeSet<u32>, Refusal> {
        let count = self.count(service)?;
        Ok(match &self.options.share {
            None => (1..=count).collect(),
            Some(share) => share.here(&service.name).collect(),
        })
    }

    /// Whether a service has containers here.
    pub(super) fn is_here(&self, service: &Service) -> bool {
        let share = self.options.share.as_ref();
        share.is_none_or(|s| s.here(&service.name).next().is_some())
    }

    /// What becomes of each container of a service. `before` has the services it depends on.
    pub(super) fn tasks(
        &self,
        service: &'a Service,
        before: &BTreeMap<&str, Vec<Task>>,
        surplus: &mut Vec<&'a Container>,
    ) -> Result<Vec<Task<'a>>, Refusal> {
        if service.provider.is_some() {
            return Ok(Vec::new());
        }
        let hash = self.hash(service, before);
        let share = self.options.share.as_ref();
        let is_aside = |c: &Container| share.is_some_and(|s| s.is_aside(&c.service, c.number));
        let mut present: Vec<(&Container, Option<String>)> = self
            .seen
            .containers
            .iter()
            .filter(|c| c.service == service.name && !c.oneoff && !is_aside(c))
            .map(|c| (c, self.why_recreate(service, hash.as_deref(), c, before)))
            .collect();
        // Of two with one number, the one that is wrong goes.
        present.sort_by_key(|(c, wrong)| (wrong.is_some(), c.number));
        let wanted = self.numbers(service)?;
        let mut numbers: BTreeSet<u32> = BTreeSet::new();
        let mut tasks = Vec::new();
        for (container, wrong) in present {
            // A task is known by its number: what is beyond those wanted goes, however right.
            if !wanted.contains(&container.number) || !numbers.insert(container.number) {
                surplus.push(container);
                continue;
            }
            let named = names::container(&self.project.name, service, container.number);
            let name = if wrong.is_some() {
                named
            } else {
                // What stays may go by another name.
                container.name.clone()
            };
            let fate = match wrong {
                Some(reason) => Fate::Recreate {
                    old: container.id.clone(),
                    reason,
                },
                None => Fate::Keep {
                    running: container.is_running(),
                },
            };
            tasks.push(Task {
                service,
                number: container.number,
                name,
                fate,
                seen: Some(container),
            });
        }
        let missing = wanted.iter().filter(|n| !numbers.contains(n));
        tasks.extend(missing.map(|&number| Task {
            service,
            number,
            name: names::container(&self.project.name, service, number),
            fate: Fate::Create,
            seen: None,
        }));
        let others = share.and_then(|s| s.elsewhere.get(&service.name));
        tasks.extend(others.into_iter().flatten().map(|(&number, seen)| Task {
            service,
            number,
            name: names::container(&self.project.name, service, number),
            fate: Fate::Elsewhere,
            seen: seen.as_ref(),
        }));
        tasks.sort_by_key(|t| t.number);
        Ok(tasks)
    }

    /// The hash that a container of the service has when it is right; `None` if it shares with
    /// a container that is not there yet.
    pub(super) fn hash(
        &self,
        service: &Service,
        before: &BTreeMap<&str, Vec<Task>>,
    ) -> Option<String> {
        shared::config_hash(service, |other| match before.get(other) {
            Some(tasks) => Some(tasks.first()?.seen?.id.clone()),
            // Not part of this plan: the one there is.
            None => {
                let others = self.seen.containers.iter();
                others
                    .filter(|c| c.service == other && !c.oneoff)
                    .min_by_key(|c| c.number)
                    .map(|c| c.id.clone())
            }
        })
    }

    pub(super) fn why_recreate(
        &self,
        service: &Service,
        hash: Option<&str>,
        container: &Container,
        before: &BTreeMap<&str, Vec<Task>>,
    ) -> Option<String> {
        if matches!(container.state, State::Removing | State::Dead) {
            return Some(format!("it is {}", container.state.as_str()));
        }
        if let Some(reason) = self.options.replace.get(&container.id) {
            return Some(reason.clone());
        }
        if self.options.no_recreate {
            return None;
        }
        let named =
            self.options.services.is_empty() || self.options.services.contains(&service.name);
        if self.options.force_recreate && (named || self.options.always_recreate_deps) {
            return Some("forced".to_owned());
        }
        let revision = container.labels.get(labels::REVISION);
        if hash.is_some_and(|h| container.config_hash != h)
            || revision.is_some_and(|r| *r != shared::revision(self.project, service))
        {
            return Some("its configuration changed".to_owned());
        }
        if container.labels.contains_key(labels::REPLACE)
            && container.name != names::container(&self.project.name, service, container.number)
        {
            return Some("an earlier recreation was interrupted".to_owned());
        }
        if container.name != names::container(&self.project.name, service, container.number) {
            return Some("it has another name".to_owned());
        }
        let image = self.seen.images.get(&names::image(self.project, service));
        if !self.options.keep_images && image.is_some_and(|i| i.id != container.image_id) {
            return Some("its image changed".to_owned());
        }
        if let Some(network) = self.wrong_network(service, container) {
            return Some(network);
        }
        if let Some(volume) = self.missing_volume(service, container) {
            return Some(format!("volume {volume} is not mounted"));
        }
        // A container that lives in another's namespaces does not survive it.
        shared::with(service)
            .find(|other| {
                before
                    .get(other)
                    .and_then(|tasks| tasks.first())
                    .is_some_and(|t| !matches!(t.fate, Fate::Keep { .. } | Fate::Elsewhere))
            })
            .map(|other| {
                format!("it shares namespaces or volumes with {other}, which is made anew")
            })
    }

    pub(super) fn wrong_network(&self, service: &Service, container: &Container) -> Option<String> {
        for key in service.networks.keys() {
            let Some(network) = self.project.networks.get(key) else {
                continue;
            };
            let name = network.name.as_str();
            if self.changed_networks.contains(name) {
                return Some(format!("network {name} changed"));
            }
            let Some(id) = container.networks.get(name) else {
                return Some(format!("it is not on network {name}"));
            };
            let is_other = self.seen.networks.get(name).is_none_or(|n| n.id != *id);
            if is_other && !id.is_empty() {
                return Some(format!("network {name} is not the one it was made for"));
            }
        }
        None
    }

    /// A named volume that a container should have, but has not.
    pub(super) fn missing_volume(
        &self,
        service: &Service,
        container: &Container,
    ) -> Option<&'a str> {
        let named = service
            .volumes
            .iter()
            .filter(|m| m.kind == MountKind::Volume);
        named
            .filter_map(|m| self.project.volumes.get(&m.source))
            .map(|v| v.name.as_str())
            .find(|name| !container.mounts.iter().any(|(source, _)| source == name))
    }
}
