//! Rules of `up` and `down` one by one, each with the least that shows it.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;

use wharfie_compose::model::{Condition, Dependency, Mount, Project, Service, Volume};
use wharfie_compose::{network_hash, volume_hash};
use wharfie_core::reconcile::{DownOptions, Refusal, UpOptions, down, up};
use wharfie_core::{
    Container, Health, Image, Network, Operation, Plan, Seen, State, labels, shared,
};

fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        image: "image".to_owned(),
        networks: BTreeMap::from([("default".to_owned(), None)]),
        ..Service::default()
    }
}

fn after(mut service: Service, other: &str, dependency: Dependency) -> Service {
    service.depends_on.insert(other.to_owned(), dependency);
    service
}

fn needs(condition: Condition, required: bool) -> Dependency {
    Dependency {
        condition,
        required,
        ..Dependency::default()
    }
}

fn project<const N: usize>(services: [Service; N]) -> Project {
    let mut project = Project {
        name: "demo".to_owned(),
        services: services.into_iter().map(|s| (s.name.clone(), s)).collect(),
        ..Project::default()
    };
    let network = project.networks.entry("default".to_owned()).or_default();
    network.name = "demo_default".to_owned();
    project
}

/// Every service once, running and right.
fn running(project: &Project) -> Seen {
    let id = |service: &str| format!("id-{service}");
    let mut seen = Seen::default();
    for service in project.services.values() {
        let hash = shared::config_hash(service, |other| Some(id(other))).unwrap();
        let image = Image {
            id: "sha".to_owned(),
            tagged: 0,
        };
        seen.images.insert(service.image.clone(), image);
        let named = service.volumes.iter();
        seen.containers.push(Container {
            id: id(&service.name),
            name: format!("demo-{}-1", service.name),
            service: service.name.clone(),
            number: 1,
            state: State::Running,
            config_hash: hash,
            image_id: "sha".to_owned(),
            networks: service
                .networks
                .keys()
                .map(|k| (project.networks[k].name.clone(), format!("net-{k}")))
                .collect(),
            mounts: named
                .map(|m| (project.volumes[&m.source].name.clone(), m.target.clone()))
                .collect(),
            depends_on: service.depends_on.keys().cloned().collect(),
            ..Container::default()
        });
    }
    for (key, network) in &project.networks {
        let hash = network_hash(network);
        let labels = labels::resource("demo", labels::NETWORK, key, &hash, &BTreeMap::new());
        let id = format!("net-{key}");
        seen.networks
            .insert(network.name.clone(), Network { id, labels });
    }
    for (key, volume) in &project.volumes {
        let hash = volume_hash(volume);
        let labels = labels::resource("demo", labels::VOLUME, key, &hash, &BTreeMap::new());
        seen.volumes
            .insert(volume.name.clone(), wharfie_core::Volume { labels });
    }
    seen
}

fn with_volume(mut project: Project, service: &str) -> Project {
    let volume = Volume {
        name: "demo_data".to_owned(),
        ..Volume::default()
    };
    project.volumes.insert("data".to_owned(), volume);
    let service = project.services.get_mut(service).unwrap();
    service.volumes.push(Mount {
        source: "data".to_owned(),
        target: "/data".to_owned(),
        ..Mount::default()
    });
    project
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| s.operation.to_string()).collect()
}

fn plan(project: &Project, seen: &Seen) -> Vec<String> {
    lines(&up(project, seen, &UpOptions::default()).unwrap())
}

/// Whether a step comes after another, directly or not.
fn is_after(plan: &Plan, later: usize, earlier: usize) -> bool {
    plan.steps[later]
        .after
        .iter()
        .any(|&step| step == earlier || is_after(plan, step, earlier))
}

fn at(plan: &Plan, line: &str) -> usize {
    let found = lines(plan).iter().position(|l| l == line);
    found.unwrap_or_else(|| panic!("no {line:?} in {:#?}", lines(plan)))
}

#[test]
fn what_is_right_needs_nothing() {
    let side = Service {
        network_mode: "service:main".to_owned(),
        volumes_from: vec!["main:ro".to_owned(), "container:else".to_owned()],
        networks: BTreeMap::new(),
        ..service("side")
    };
    let project = with_volume(project([service("main"), side]), "main");
    assert_eq!(plan(&project, &running(&project)), Vec::<String>::new());
}

#[test]
fn a_container_on_a_dead_namespace_is_made_anew() {
    let side = Service {
        network_mode: "service:main".to_owned(),
        networks: BTreeMap::new(),
        ..service("side")
    };
    let project = project([service("main"), side]);
    let mut seen = running(&project);
    // As after `up --no-deps --force-recreate main`.
    seen.containers[0].id = "another".to_owned();
    assert_eq!(
        plan(&project, &seen),
        [
            "recreate container demo-side-1: its configuration changed",
            "start container demo-side-1"
        ]
    );
}

#[test]
fn a_changed_network_is_removed_from_stopped_containers() {
    let mut project = project([service("a"), service("b")]);
    let mut seen = running(&project);
    seen.containers[1].state = State::Exited;
    project.networks.get_mut("default").unwrap().internal = true;
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    let recreate = "recreate container demo-a-1: network demo_default changed";
    assert_eq!(
        lines(&plan)[..5],
        [
            "stop container demo-a-1",
            "remove network demo_default: its configuration changed",
            "create network demo_default",
            recreate,
            "recreate container demo-b-1: network demo_default changed",
        ]
    );
    let (stop, remove, create) = (0, 1, 2);
    assert!(is_after(&plan, remove, stop));
    assert!(is_after(&plan, create, remove));
    assert!(is_after(&plan, at(&plan, recreate), create));
}

#[test]
fn a_changed_network_stays_while_others_are_on_it() {
    let mut project = project([service("a"), service("b")]);
    let mut seen = running(&project);
    project.networks.get_mut("default").unwrap().internal = true;
    let only_a = UpOptions {
        services: vec!["a".to_owned()],
        ..UpOptions::default()
    };
    let kept = up(&project, &seen, &only_a).unwrap();
    assert_eq!(lines(&kept), Vec::<String>::new());
    assert!(kept.notices[0].contains("demo-b-1"), "{:?}", kept.notices);
    // An orphan keeps it too, unless it is to go.
    seen.containers[1].service = "gone".to_owned();
    project.services.remove("b");
    assert_eq!(plan(&project, &seen), Vec::<String>::new());
    let options = UpOptions {
        remove_orphans: true,
        ..UpOptions::default()
    };
    let plan = up(&project, &seen, &options).unwrap();
    let network = at(
        &plan,
        "remove network demo_default: its configuration changed",
    );
    let orphan = at(
        &plan,
        "remove container demo-b-1: its service is not in the project",
    );
    assert!(is_after(&plan, network, orphan));
}

#[test]
fn what_others_made_is_not_taken() {
    let project = with_volume(project([service("a")]), "a");
    let mut seen = running(&project);
    seen.volumes.get_mut("demo_data").unwrap().labels.clear();
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    assert!(plan.is_empty());
    assert!(plan.notices[0].contains("external"), "{:?}", plan.notices);
    seen.networks
        .get_mut("demo_default")
        .unwrap()
        .labels
        .clear();
    assert_eq!(
        up(&project, &seen, &UpOptions::default()).unwrap_err(),
        Refusal::ForeignNetwork {
            key: "default".to_owned(),
            name: "demo_default".to_owned()
        }
    );
    let everything = DownOptions {
        volumes: true,
        ..DownOptions::default()
    };
    assert_eq!(
        lines(&down(Some(&project), &seen, &everything)),
        ["remove container demo-a-1: down"]
    );
}

#[test]
fn a_container_gets_the_volume_it_should_have() {
    let mut project = with_volume(project([service("a")]), "a");
    let mut seen = running(&project);
    let other = Volume {
        name: "demo_other".to_owned(),
        ..Volume::default()
    };
    let volume = seen.volumes["demo_data"].clone();
    seen.volumes.insert(other.name.clone(), volume);
    project.volumes.insert("data".to_owned(), other);
    assert_eq!(
        plan(&project, &seen)[0],
        "recreate container demo-a-1: volume demo_other is not mounted"
    );
}

#[test]
fn a_wait_is_as_strict_as_who_waits() {
    let project = project([
        service("db"),
        after(service("x"), "db", needs(Condition::Healthy, false)),
        after(service("y"), "db", needs(Condition::Healthy, true)),
    ]);
    let mut seen = running(&project);
    seen.containers.clear();
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    let waits: Vec<(usize, bool)> = plan
        .steps
        .iter()
        .enumerate()
        .filter_map(|(i, s)| match s.operation {
            Operation::Wait { required, .. } => Some((i, required)),
            _ => None,
        })
        .collect();
    assert_eq!(waits.len(), 2);
    for (wait, required) in waits {
        let start = if required { "y" } else { "x" };
        let start = at(&plan, &format!("start container demo-{start}-1"));
        assert!(plan.steps[start].after.contains(&wait));
    }
}

#[test]
fn waiting_for_all_waits_for_jobs_to_end() {
    let project = project([
        service("job"),
        after(
            service("web"),
            "job",
            needs(Condition::CompletedSuccessfully, true),
        ),
    ]);
    let mut seen = running(&project);
    seen.containers.retain(|c| c.service != "web");
    let options = UpOptions {
        wait: true,
        ..UpOptions::default()
    };
    assert_eq!(
        lines(&up(&project, &seen, &options).unwrap()),
        [
            "create container demo-web-1",
            "wait until container demo-job-1 has ended well",
            "start container demo-web-1",
            "wait until container demo-web-1 runs",
        ]
    );
    // An image may bring a health check that the file does not show.
    let mut seen = running(&project);
    seen.containers[1].health = Health::Starting;
    let waits = lines(&up(&project, &seen, &options).unwrap());
    assert!(waits.contains(&"wait until container demo-web-1 runs".to_owned()));
}

#[test]
fn options_of_recreation() {
    let mut project = project([
        service("db"),
        after(service("web"), "db", needs(Condition::Started, true)),
    ]);
    let seen = running(&project);
    let recreated = |project: &Project, options: UpOptions| {
        let plan = lines(&up(project, &seen, &options).unwrap());
        let names = plan
            .iter()
            .filter_map(|l| l.strip_prefix("recreate container "));
        names.map(str::to_owned).collect::<Vec<_>>().join(", ")
    };
    let force = |services: &[&str], always_recreate_deps| UpOptions {
        force_recreate: true,
        always_recreate_deps,
        services: services.iter().map(|&s| s.to_owned()).collect(),
        ..UpOptions::default()
    };
    assert_eq!(
        recreated(&project, force(&[], false)),
        "demo-db-1: forced, demo-web-1: forced"
    );
    assert_eq!(
        recreated(&project, force(&["web"], false)),
        "demo-web-1: forced"
    );
    assert_eq!(
        recreated(&project, force(&["web"], true)),
        "demo-db-1: forced, demo-web-1: forced"
    );
    project.services.get_mut("db").unwrap().hostname = "new".to_owned();
    let never = UpOptions {
        no_recreate: true,
        ..UpOptions::default()
    };
    assert_eq!(recreated(&project, never), "");
    assert_eq!(
        recreated(&project, UpOptions::default()),
        "demo-db-1: its configuration changed"
    );
}

#[test]
fn an_image_that_changed_changes_its_containers() {
    let project = project([service("a")]);
    let mut seen = running(&project);
    seen.images.get_mut("image").unwrap().id = "newer".to_owned();
    assert_eq!(
        plan(&project, &seen)[0],
        "recreate container demo-a-1: its image changed"
    );
}

#[test]
fn fixed_names_and_addresses_cannot_be_scaled() {
    let mut named = service("a");
    named.container_name = "one".to_owned();
    named.scale = Some(2);
    let refusal = up(&project([named]), &Seen::default(), &UpOptions::default()).unwrap_err();
    assert!(matches!(refusal, Refusal::NotScalable { count: 2, .. }));
}

#[test]
fn gaps_are_filled_and_numbers_stick() {
    let mut project = project([service("a")]);
    let mut seen = running(&project);
    seen.containers[0].number = 2;
    seen.containers[0].name = "demo-a-2".to_owned();
    project.services.get_mut("a").unwrap().scale = Some(3);
    assert_eq!(
        plan(&project, &seen),
        [
            "create container demo-a-1",
            "create container demo-a-3",
            "start container demo-a-1",
            "start container demo-a-3",
        ]
    );
}

#[test]
fn one_off_containers_and_other_services_are_left_alone() {
    let project = project([service("a")]);
    let mut seen = running(&project);
    let mut run = seen.containers[0].clone();
    run.id = "run".to_owned();
    run.name = "demo-a-run-1".to_owned();
    run.oneoff = true;
    run.config_hash = "other".to_owned();
    seen.containers.push(run);
    assert_eq!(plan(&project, &seen), Vec::<String>::new());
    // `down` takes them along: the network could not go otherwise.
    let plan = down(Some(&project), &seen, &DownOptions::default());
    assert_eq!(
        lines(&plan),
        [
            "remove container demo-a-1: down",
            "remove container demo-a-run-1: down",
            "remove network demo_default: down"
        ]
    );
}

#[test]
fn down_stops_dependents_first_and_names_orphans() {
    let project = project([
        service("db"),
        after(service("web"), "db", needs(Condition::Started, true)),
    ]);
    let mut seen = running(&project);
    let mut orphan = seen.containers[0].clone();
    orphan.service = "gone".to_owned();
    orphan.name = "demo-gone-1".to_owned();
    orphan.id = "gone".to_owned();
    seen.containers.push(orphan);
    let plan = down(Some(&project), &seen, &DownOptions::default());
    let web = at(&plan, "remove container demo-web-1: down");
    let db = at(&plan, "remove container demo-db-1: down");
    assert!(is_after(&plan, db, web));
    assert!(plan.notices[0].contains("demo-gone-1"));
    // The orphan is still on the network.
    assert!(!lines(&plan).iter().any(|l| l.contains("network")));
    // Without the file all of it goes.
    let all = down(None, &seen, &DownOptions::default());
    assert_eq!(all.steps.len(), 4);
}

#[test]
fn what_is_linked_to_is_made_first() {
    let mut web = service("a-web");
    web.links = vec!["db:store".to_owned()];
    let web = after(web, "db", needs(Condition::Started, true));
    let project = project([service("db"), web]);
    let mut seen = running(&project);
    seen.containers.clear();
    let plan = up(&project, &seen, &UpOptions::default()).unwrap();
    let web = at(&plan, "create container demo-a-web-1");
    assert!(is_after(
        &plan,
        web,
        at(&plan, "create container demo-db-1")
    ));
}

#[test]
fn another_mode_of_shared_volumes_is_another_configuration() {
    let side = Service {
        volumes_from: vec!["main:ro".to_owned()],
        ..service("side")
    };
    let mut project = project([service("main"), side]);
    let mut seen = running(&project);
    let revision = shared::revision(&project, &project.services["side"]);
    seen.containers[1]
        .labels
        .insert(labels::REVISION.to_owned(), revision);
    assert_eq!(plan(&project, &seen), Vec::<String>::new());
    project.services.get_mut("side").unwrap().volumes_from = vec!["main".to_owned()];
    assert_eq!(
        plan(&project, &seen)[0],
        "recreate container demo-side-1: its configuration changed"
    );
}

#[test]
fn changed_content_of_a_config_makes_containers_anew() {
    let mut service = service("a");
    service.configs = vec![wharfie_compose::model::FileReference {
        source: "c".to_owned(),
        ..Default::default()
    }];
    let mut project = project([service]);
    let content = |text: &str| wharfie_compose::model::FileObject {
        content: text.to_owned(),
        ..Default::default()
    };
    project.configs.insert("c".to_owned(), content("old"));
    let before = shared::revision(&project, &project.services["a"]);
    assert_eq!(before, shared::revision(&project, &project.services["a"]));
    project.configs.insert("c".to_owned(), content("new"));
    assert_ne!(before, shared::revision(&project, &project.services["a"]));
}
