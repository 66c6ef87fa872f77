//! Plans, executed on a model of an Engine: they converge, keep order, and touch nothing else.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod model;

use std::collections::BTreeMap;

use model::{Model, any_project, disturb, images, lines, project, running, service};
use proptest::prelude::*;
use wharfie_compose::model::{Condition, Dependency, Healthcheck, Service};
use wharfie_core::reconcile::{DownOptions, Refusal, UpOptions, down, up};
use wharfie_core::{Container, Plan, Seen, State, labels};

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
fn scaling_down_takes_the_highest_numbers() {
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
        [
            "remove container demo-a-3: more containers than wanted",
            "recreate container demo-a-1: its configuration changed",
            "start container demo-a-1"
        ]
    );
}

#[test]
fn a_number_beyond_those_wanted_is_not_kept_in_place_of_a_missing_one() {
    let mut project = project(vec![Service {
        scale: Some(3),
        ..service("a")
    }]);
    let mut seen = running(&project);
    seen.containers.retain(|c| c.number != 1);
    project.services.get_mut("a").unwrap().scale = Some(2);
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    assert_eq!(
        lines(&plan),
        [
            "remove container demo-a-3: more containers than wanted",
            "create container demo-a-1",
            "start container demo-a-1"
        ]
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
