//! A model of an Engine, and projects to try on it.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use wharfie_compose::model::{Condition, Dependency, Healthcheck, Project, Service, Volume};
use wharfie_compose::{network_hash, volume_hash};
use wharfie_core::reconcile::{UpOptions, up};
use wharfie_core::{
    Container, Health, Image, Network, Operation, Plan, Seen, State, labels, names, shared,
};

/// A model Engine: it executes operations on what is seen, one by one, and minds their order.
pub struct Model {
    pub seen: Seen,
    next: u32,
}

impl Model {
    pub fn new(seen: Seen) -> Self {
        // Ids of what is there already are not given again.
        let ids = seen.containers.iter().map(|c| &c.id);
        let ids = ids.chain(seen.networks.values().map(|n| &n.id));
        let taken = ids.filter_map(|id| id.strip_prefix("id")?.parse().ok());
        let next = taken.max().unwrap_or(1000);
        Self { seen, next }
    }

    pub fn id(&mut self) -> String {
        self.next += 1;
        format!("id{}", self.next)
    }

    pub fn execute(&mut self, project: &Project, plan: &Plan) {
        for (i, step) in plan.steps.iter().enumerate() {
            assert!(
                step.after.iter().all(|before| *before < i),
                "step {i} comes after a later one: {step:?}"
            );
            self.operation(project, &step.operation);
        }
    }

    pub fn operation(&mut self, project: &Project, operation: &Operation) {
        match operation {
            Operation::PullImage { image, .. } | Operation::BuildImage { image, .. } => {
                let id = self.id();
                self.seen
                    .images
                    .insert(image.clone(), Image { id, tagged: 0 });
            }
            Operation::CreateNetwork { network, name } => {
                let hash = network_hash(&project.networks[network]);
                let labels = labels::resource(
                    &project.name,
                    labels::NETWORK,
                    network,
                    &hash,
                    &BTreeMap::new(),
                );
                let id = self.id();
                assert!(
                    self.seen
                        .networks
                        .insert(name.clone(), Network { id, labels })
                        .is_none(),
                    "{name} twice"
                );
            }
            Operation::RemoveNetwork { name, .. } => {
                assert!(
                    self.seen
                        .containers
                        .iter()
                        .all(|c| !c.is_running() || !c.networks.contains_key(name)),
                    "{name} is in use"
                );
                assert!(
                    self.seen.networks.remove(name).is_some(),
                    "{name} is not there"
                );
            }
            Operation::CreateVolume { volume, name } => {
                let hash = volume_hash(&project.volumes[volume]);
                let labels = labels::resource(
                    &project.name,
                    labels::VOLUME,
                    volume,
                    &hash,
                    &BTreeMap::new(),
                );
                self.seen
                    .volumes
                    .insert(name.clone(), wharfie_core::Volume { labels });
            }
            Operation::RemoveVolume { name } => {
                self.seen.volumes.remove(name);
            }
            Operation::RemoveImage { image } => {
                self.seen.images.remove(image);
            }
            Operation::CreateContainer {
                service,
                number,
                name,
            } => self.create(project, service, *number, name),
            Operation::RecreateContainer {
                service,
                number,
                name,
                old,
                ..
            } => {
                self.remove(old);
                self.create(project, service, *number, name);
            }
            Operation::StartContainer { name, .. } | Operation::RestartContainer { name, .. } => {
                let service = self.named(name).service.clone();
                for dependency in project.services[&service].depends_on.keys() {
                    let others = self
                        .seen
                        .containers
                        .iter()
                        .filter(|c| c.service == *dependency && !c.oneoff);
                    assert!(
                        others.into_iter().all(|c| c.state != State::Created),
                        "{name} is started before {dependency}"
                    );
                }
                let container = self.named(name);
                container.state = State::Running;
                container.health = Health::Healthy;
                container.stranded = false;
            }
            Operation::Wait { name, .. } => assert_eq!(self.named(name).state, State::Running),
            Operation::SignalContainer { name, .. } | Operation::StopContainer { name, .. } => {
                self.named(name).state = State::Exited
            }
            Operation::RemoveContainer { id, .. } => self.remove(id),
        }
    }

    pub fn named(&mut self, name: &str) -> &mut Container {
        self.seen
            .containers
            .iter_mut()
            .find(|c| c.name == name)
            .expect("a container of that name is there")
    }

    pub fn remove(&mut self, id: &str) {
        let before = self.seen.containers.len();
        self.seen.containers.retain(|c| c.id != *id);
        assert_eq!(self.seen.containers.len(), before - 1, "{id} is not there");
    }

    pub fn create(&mut self, project: &Project, service: &str, number: u32, name: &str) {
        assert!(
            self.seen.containers.iter().all(|c| c.name != *name),
            "{name} is taken"
        );
        let id = self.id();
        let service = &project.services[service];
        let networks = service.networks.keys().map(|key| {
            let name = &project.networks[key].name;
            (name.clone(), self.seen.networks[name].id.clone())
        });
        let networks = networks.collect();
        for mount in service.volumes.iter().filter(|m| !m.source.is_empty()) {
            assert!(
                self.seen
                    .volumes
                    .contains_key(&project.volumes[&mount.source].name)
            );
        }
        self.seen.containers.push(Container {
            name: name.to_owned(),
            networks,
            ..container(project, service, number, &id, &self.seen)
        });
    }
}

pub fn container(
    project: &Project,
    service: &Service,
    number: u32,
    id: &str,
    seen: &Seen,
) -> Container {
    let image = names::image(project, service);
    Container {
        id: id.to_owned(),
        name: names::container(&project.name, service, number),
        service: service.name.clone(),
        number,
        config_hash: shared::config_hash(service, |other| {
            let others = seen.containers.iter().filter(|c| c.service == other);
            others.min_by_key(|c| c.number).map(|c| c.id.clone())
        })
        .expect("what it shares with is there"),
        mounts: service
            .volumes
            .iter()
            .filter_map(|m| {
                Some((
                    project.volumes.get(&m.source)?.name.clone(),
                    m.target.clone(),
                ))
            })
            .collect(),
        image_id: seen
            .images
            .get(&image)
            .map(|i| i.id.clone())
            .unwrap_or_default(),
        depends_on: service.depends_on.keys().cloned().collect(),
        ..Container::default()
    }
}

pub fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        image: format!("image-{name}"),
        networks: BTreeMap::from([("default".to_owned(), None)]),
        ..Service::default()
    }
}

pub fn project(services: Vec<Service>) -> Project {
    let mut project = Project {
        name: "demo".to_owned(),
        ..Project::default()
    };
    for service in services {
        for key in service.networks.keys() {
            let network = project.networks.entry(key.clone()).or_default();
            network.name = format!("demo_{key}");
        }
        for mount in &service.volumes {
            let volume = Volume {
                name: format!("demo_{}", mount.source),
                ..Volume::default()
            };
            project.volumes.insert(mount.source.clone(), volume);
        }
        project.services.insert(service.name.clone(), service);
    }
    project
}

pub fn images(project: &Project) -> Seen {
    let images = project.services.values().map(|s| {
        (
            names::image(project, s),
            Image {
                id: format!("sha-{}", s.name),
                tagged: 0,
            },
        )
    });
    Seen {
        images: images.collect(),
        ..Seen::default()
    }
}

/// What is there after `up` with these options, from nothing.
pub fn running(project: &Project) -> Seen {
    let mut model = Model::new(images(project));
    let plan = up(project, &model.seen, &UpOptions::default()).expect("a plan");
    model.execute(project, &plan);
    model.seen
}

pub fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| s.operation.to_string()).collect()
}

prop_compose! {
    pub fn any_project()(
        shape in proptest::collection::vec((0_i64..4, any::<u8>(), 0_u8..3, any::<bool>(), any::<bool>()), 1..6)
    ) -> Project {
        let services = shape.iter().enumerate().map(|(i, &(replicas, deps, nets, volume, health))| {
            let mut s = service(&format!("s{i}"));
            s.scale = Some(replicas);
            s.depends_on = (0..i).filter(|j| deps >> j & 1 == 1).map(|j| {
                let condition = if shape[j].4 { Condition::Healthy } else { Condition::Started };
                (format!("s{j}"), Dependency { condition, required: true, restart: j % 2 == 0, ..Dependency::default() })
            }).collect();
            s.networks = (0..=nets).map(|n| (format!("n{n}"), None)).collect();
            if volume {
                s.volumes = vec![wharfie_compose::model::Mount { source: "data".to_owned(), target: "/d".to_owned(), ..Default::default() }];
            }
            if health {
                s.healthcheck = Some(Healthcheck { test: vec!["CMD".to_owned(), "true".to_owned()], ..Healthcheck::default() });
            }
            if i > 0 && deps & 128 != 0 {
                s.networks.clear();
                s.network_mode = format!("service:s{}", i - 1);
                s.depends_on.insert(format!("s{}", i - 1), Dependency { required: true, ..Dependency::default() });
            }
            s
        });
        // A pod needs somebody to join.
        let mut project = project(services.collect());
        let joined: BTreeSet<String> = project.services.values().filter_map(|s| s.network_mode.strip_prefix("service:")).map(str::to_owned).collect();
        for name in joined {
            let service = project.services.get_mut(&name).expect("it was just made");
            service.scale = service.scale.map(|n| n.max(1));
        }
        project
    }
}

/// Some containers of the project as they might be found: wrong, stopped, missing, too many.
pub fn disturb(seen: &mut Seen, choices: &[u8]) {
    for (container, choice) in seen.containers.iter_mut().zip(choices) {
        match choice % 6 {
            0 => container.config_hash = "other".to_owned(),
            1 => container.state = State::Exited,
            2 => container.image_id = "older".to_owned(),
            3 => container.networks.clear(),
            _ => {}
        }
    }
    let mut i = 0;
    seen.containers.retain(|_| {
        i += 1;
        choices.get(i).is_none_or(|c| c % 6 != 5)
    });
}
