//! Plans, executed on a model of an Engine: they converge, keep order, and touch nothing else.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use wharfie_compose::model::{Condition, Dependency, Healthcheck, Project, Service, Volume};
use wharfie_compose::{network_hash, volume_hash};
use wharfie_core::reconcile::{DownOptions, Refusal, UpOptions, down, up};
use wharfie_core::{
    Container, Health, Image, Network, Operation, Plan, Seen, State, labels, names, shared,
};

/// A model Engine: it executes operations on what is seen, one by one, and minds their order.
struct Model {
    seen: Seen,
    next: u32,
}

impl Model {
    fn new(seen: Seen) -> Self {
        Self { seen, next: 1000 }
    }

    fn id(&mut self) -> String {
        self.next += 1;
        format!("id{}", self.next)
    }

    fn execute(&mut self, project: &Project, plan: &Plan) {
        for (i, step) in plan.steps.iter().enumerate() {
            assert!(
                step.after.iter().all(|before| *before < i),
                "step {i} comes after a later one: {step:?}"
            );
            self.operation(project, &step.operation);
        }
    }

    fn operation(&mut self, project: &Project, operation: &Operation) {
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
            }
            Operation::Wait { name, .. } => assert_eq!(self.named(name).state, State::Running),
            Operation::SignalContainer { name, .. } | Operation::StopContainer { name, .. } => {
                self.named(name).state = State::Exited
            }
            Operation::RemoveContainer { id, .. } => self.remove(id),
        }
    }

    fn named(&mut self, name: &str) -> &mut Container {
        self.seen
            .containers
            .iter_mut()
            .find(|c| c.name == name)
            .expect("a container of that name is there")
    }

    fn remove(&mut self, id: &str) {
        let before = self.seen.containers.len();
        self.seen.containers.retain(|c| c.id != *id);
        assert_eq!(self.seen.containers.len(), before - 1, "{id} is not there");
    }

    fn create(&mut self, project: &Project, service: &str, number: u32, name: &str) {
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

fn container(
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

fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        image: format!("image-{name}"),
        networks: BTreeMap::from([("default".to_owned(), None)]),
        ..Service::default()
    }
}

fn project(services: Vec<Service>) -> Project {
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

fn images(project: &Project) -> Seen {
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
fn running(project: &Project) -> Seen {
    let mut model = Model::new(images(project));
    let plan = up(project, &model.seen, &UpOptions::default()).expect("a plan");
    model.execute(project, &plan);
    model.seen
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| s.operation.to_string()).collect()
}

prop_compose! {
    fn any_project()(
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
fn disturb(seen: &mut Seen, choices: &[u8]) {
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

proptest! {
    #[test]
    fn up_converges_from_anything(project in any_project(), choices in proptest::collection::vec(any::<u8>(), 0..20)) {
        let mut model = Model::new(running(&project));
        disturb(&mut model.seen, &choices);
        let foreign = Container { id: "f".to_owned(), name: "other-x-1".to_owned(), service: "gone".to_owned(), number: 1, state: State::Running, ..Container::default() };
        model.seen.containers.push(foreign.clone());
        let plan = up(&project, &model.seen, &UpOptions::default()).unwrap();
        model.execute(&project, &plan);
        for service in project.services.values() {
            let mut numbers: Vec<u32> = model.seen.containers.iter().filter(|c| c.service == service.name).map(|c| c.number).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers.len() as i64, service.replicas(), "{}", service.name);
            numbers.dedup();
            prop_assert_eq!(numbers.len() as i64, service.replicas(), "{} has a number twice", service.name);
        }
        let again = up(&project, &model.seen, &UpOptions::default()).unwrap();
        prop_assert_eq!(lines(&again), Vec::<String>::new());
        prop_assert!(model.seen.containers.contains(&foreign), "an orphan was touched");
        prop_assert!(again.notices[0].contains("other-x-1"));
    }

    #[test]
    fn what_is_right_is_not_touched(project in any_project(), more in 0_u32..4) {
        let seen = running(&project);
        let before: BTreeMap<String, String> = seen.containers.iter().map(|c| (c.name.clone(), c.id.clone())).collect();
        let mut model = Model::new(seen);
        let options = UpOptions { scale: BTreeMap::from([("s0".to_owned(), more.max(1))]), ..UpOptions::default() };
        let plan = up(&project, &model.seen, &options).unwrap();
        model.execute(&project, &plan);
        for container in &model.seen.containers {
            if let Some(id) = before.get(&container.name) {
                prop_assert_eq!(&container.id, id, "{} was made anew", &container.name);
            }
        }
    }

    #[test]
    fn down_leaves_nothing(project in any_project(), choices in proptest::collection::vec(any::<u8>(), 0..20)) {
        let mut model = Model::new(running(&project));
        disturb(&mut model.seen, &choices);
        let options = DownOptions { volumes: true, ..DownOptions::default() };
        let plan = down(Some(&project), &model.seen, &options);
        model.execute(&project, &plan);
        prop_assert!(model.seen.containers.is_empty());
        prop_assert!(model.seen.networks.is_empty());
        prop_assert!(model.seen.volumes.is_empty());
    }
}

#[test]
fn the_first_up_makes_everything_in_order() {
    let db = Service {
        healthcheck: Some(Healthcheck {
            test: vec!["CMD".to_owned()],
            ..Healthcheck::default()
        }),
        ..service("db")
    };
    let mut web = service("web");
    web.depends_on.insert(
        "db".to_owned(),
        Dependency {
            condition: Condition::Healthy,
            required: true,
            ..Dependency::default()
        },
    );
    let project = project(vec![db, web]);
    let plan = up(&project, &images(&project), &UpOptions::default()).unwrap();
    assert_eq!(
        lines(&plan),
        [
            "create network demo_default",
            "create container demo-db-1",
            "create container demo-web-1",
            "start container demo-db-1",
            "wait until container demo-db-1 is healthy",
            "start container demo-web-1",
        ]
    );
}

#[test]
fn scaling_down_takes_what_is_wrong_first() {
    let mut project = project(vec![Service {
        scale: Some(3),
        ..service("a")
    }]);
    let mut seen = running(&project);
    seen.containers
        .iter_mut()
        .find(|c| c.number == 1)
        .unwrap()
        .config_hash = "old".to_owned();
    project.services.get_mut("a").unwrap().scale = Some(2);
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    assert_eq!(
        lines(&plan),
        ["remove container demo-a-1: more containers than wanted"]
    );
}

#[test]
fn a_changed_network_is_made_anew_with_its_containers() {
    let mut project = project(vec![service("a"), service("b")]);
    let seen = running(&project);
    project.networks.get_mut("default").unwrap().internal = true;
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    let mut model = Model::new(seen);
    model.execute(&project, &plan);
    assert!(
        lines(&plan).contains(&"remove network demo_default: its configuration changed".to_owned())
    );
    assert!(
        up(&project, &model.seen, &UpOptions::default())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn what_shares_a_namespace_follows() {
    let mut side = Service {
        network_mode: "service:main".to_owned(),
        ..service("side")
    };
    side.networks.clear();
    side.depends_on.insert(
        "main".to_owned(),
        Dependency {
            required: true,
            restart: true,
            ..Dependency::default()
        },
    );
    let mut project = project(vec![service("main"), side]);
    let seen = running(&project);
    project.services.get_mut("main").unwrap().hostname = "new".to_owned();
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    assert_eq!(
        lines(&plan)[..2],
        [
            "recreate container demo-main-1: its configuration changed",
            "recreate container demo-side-1: it shares namespaces or volumes with main, which is made anew",
        ]
    );
}

#[test]
fn restart_true_restarts_dependents() {
    let mut web = service("web");
    web.depends_on.insert(
        "db".to_owned(),
        Dependency {
            required: true,
            restart: true,
            ..Dependency::default()
        },
    );
    let mut project = project(vec![service("db"), web]);
    let seen = running(&project);
    project.services.get_mut("db").unwrap().hostname = "new".to_owned();
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    assert_eq!(
        lines(&plan).last().unwrap(),
        "restart container demo-web-1: db, which it depends on, was recreated"
    );
}

#[test]
fn named_services_bring_what_they_depend_on() {
    let mut web = service("web");
    web.depends_on.insert(
        "db".to_owned(),
        Dependency {
            required: true,
            ..Dependency::default()
        },
    );
    let project = project(vec![service("db"), web, service("other")]);
    let options = |no_deps| UpOptions {
        services: vec!["web".to_owned()],
        no_deps,
        ..UpOptions::default()
    };
    let made = |plan: &Plan| {
        lines(plan)
            .into_iter()
            .filter(|l| l.starts_with("create container"))
            .collect::<Vec<_>>()
    };
    let with = up(&project, &images(&project), &options(false)).unwrap();
    assert_eq!(
        made(&with),
        ["create container demo-db-1", "create container demo-web-1"]
    );
    let without = up(&project, &images(&project), &options(true)).unwrap();
    assert_eq!(made(&without), ["create container demo-web-1"]);
    let gone = UpOptions {
        services: vec!["nobody".to_owned()],
        ..UpOptions::default()
    };
    assert_eq!(
        up(&project, &images(&project), &gone).unwrap_err(),
        Refusal::NoSuchService("nobody".to_owned())
    );
}

#[test]
fn images_by_policy() {
    let decide = |policy: &str, present: bool, build: bool, options: UpOptions| {
        let mut s = service("a");
        s.pull_policy = policy.to_owned();
        s.build = build.then(Default::default);
        let project = project(vec![s]);
        let seen = if present {
            images(&project)
        } else {
            Seen::default()
        };
        up(&project, &seen, &options).map(|p| lines(&p).into_iter().next().unwrap_or_default())
    };
    let none = UpOptions::default;
    let pull = "pull image image-a for a";
    let build = "build image image-a for a";
    assert_eq!(decide("", false, false, none()).unwrap(), pull);
    assert_ne!(decide("", true, false, none()).unwrap(), pull);
    assert_eq!(decide("always", true, false, none()).unwrap(), pull);
    assert_eq!(
        decide(
            "daily",
            true,
            false,
            UpOptions {
                now: 90_000,
                ..none()
            }
        )
        .unwrap(),
        pull
    );
    assert_ne!(
        decide(
            "daily",
            true,
            false,
            UpOptions {
                now: 80_000,
                ..none()
            }
        )
        .unwrap(),
        pull
    );
    assert_eq!(
        decide("every_10s", true, false, UpOptions { now: 11, ..none() }).unwrap(),
        pull
    );
    assert_eq!(decide("", false, true, none()).unwrap(), build);
    assert_ne!(decide("", true, true, none()).unwrap(), build);
    assert_eq!(decide("build", true, true, none()).unwrap(), build);
    assert_eq!(
        decide(
            "",
            true,
            true,
            UpOptions {
                build: true,
                ..none()
            }
        )
        .unwrap(),
        build
    );
    assert!(matches!(
        decide("never", false, false, none()),
        Err(Refusal::NoImage { .. })
    ));
    let no_build = || UpOptions {
        no_build: true,
        ..none()
    };
    assert_eq!(decide("", false, true, no_build()).unwrap(), pull);
    assert!(matches!(
        decide("never", false, true, no_build()),
        Err(Refusal::NoImage { .. })
    ));
}

#[test]
fn an_interrupted_recreation_is_repaired() {
    let project = project(vec![service("a")]);
    let mut seen = running(&project);
    // The old container was to be replaced, and both were left.
    let mut new = seen.containers[0].clone();
    seen.containers[0].config_hash = "old".to_owned();
    new.id = "new".to_owned();
    new.name = "0123456789ab_demo-a-1".to_owned();
    new.state = State::Created;
    new.labels
        .insert(labels::REPLACE.to_owned(), "old".to_owned());
    seen.containers.push(new);
    let mut model = Model::new(seen);
    let plan = up(&project, &model.seen, &UpOptions::default()).unwrap();
    model.execute(&project, &plan);
    let names: Vec<&str> = model
        .seen
        .containers
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["demo-a-1"]);
}

#[test]
fn what_must_exist_is_asked_for() {
    let mut project = project(vec![service("a")]);
    project.networks.get_mut("default").unwrap().external = true;
    let refusal = up(&project, &images(&project), &UpOptions::default()).unwrap_err();
    assert_eq!(refusal.path().as_deref(), Some("networks.default"));
    assert!(
        refusal
            .to_string()
            .contains("docker network create demo_default")
    );
}
