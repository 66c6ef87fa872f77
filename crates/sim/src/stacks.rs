//! Stacks that are asked for, and what becomes of their containers.

use rand::RngExt;
use rand::rngs::StdRng;
use wharfie_compose::model::{
    Deploy, Duration, Healthcheck, Mount, MountKind, Project, Service, UpdateConfig, Volume,
};
use wharfie_compose::model::{Number, Resource, Resources};

use crate::time::{MS, Micros, SEC};

/// Processors that each node has.
pub(crate) const CPUS: u32 = 16;

/// What the containers of an image do; its tag says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They serve after some time.
    Serves,
    /// Their check fails.
    Sick,
    /// They end with an error.
    Ends,
    /// None can be made.
    Unmade,
}

impl Fate {
    const BAD: [(&'static str, Self); 3] = [
        ("-sick", Self::Sick),
        ("-ends", Self::Ends),
        ("-unmade", Self::Unmade),
    ];

    pub(crate) fn of(image: &str) -> Self {
        let found = Self::BAD.iter().find(|(end, _)| image.ends_with(end));
        found.map_or(Self::Serves, |(_, fate)| *fate)
    }

    /// How long it is until it shows what becomes of a container that was started.
    pub(crate) fn shows(self, rng: &mut StdRng) -> Micros {
        match self {
            Self::Serves => rng.random_range(200 * MS..2 * SEC),
            Self::Sick => rng.random_range(SEC..3 * SEC),
            Self::Ends | Self::Unmade => rng.random_range(50 * MS..SEC),
        }
    }
}

/// The image of a service in some version, mostly a good one.
pub(crate) fn image(service: &str, version: u32, bad: bool, rng: &mut StdRng) -> String {
    let end = match bad {
        true => Fate::BAD[rng.random_range(0..Fate::BAD.len())].0,
        false => "",
    };
    format!("{service}:{version}{end}")
}

fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        image: format!("{name}:1"),
        restart: "always".to_owned(),
        ..Service::default()
    }
}

fn with(service: Service, setting: serde_json::Value) -> Service {
    Service {
        extensions: [("x-wharfie".to_owned(), setting)].into(),
        ..service
    }
}

/// A service that is rolled out.
fn web(name: &str, rng: &mut StdRng) -> Service {
    let config = |rng: &mut StdRng, actions: &[&str]| UpdateConfig {
        parallelism: Some(rng.random_range(1..=2)),
        failure_action: actions[rng.random_range(0..actions.len())].to_owned(),
        monitor: Duration(rng.random_range(1..=3) * 1_000_000_000),
        order: ["", "start-first"][usize::from(rng.random_bool(0.3))].to_owned(),
        ..UpdateConfig::default()
    };
    let update = config(rng, &["pause", "rollback", "rollback"]);
    let back = UpdateConfig {
        failure_action: String::new(),
        ..config(rng, &[""])
    };
    let reserved = Resource {
        cpus: Number([0.0, 0.5, 1.0][rng.random_range(0..3)]),
        ..Resource::default()
    };
    Service {
        deploy: Some(Deploy {
            replicas: Some(rng.random_range(1..=6)),
            update_config: Some(update),
            rollback_config: Some(back),
            resources: Resources {
                reservations: (reserved.cpus.0 > 0.0).then_some(reserved),
                ..Resources::default()
            },
            ..Deploy::default()
        }),
        healthcheck: Some(Healthcheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            ..Healthcheck::default()
        }),
        ..service(name)
    }
}

/// A service with data on its node.
fn db(name: &str) -> Service {
    Service {
        volumes: vec![Mount {
            kind: MountKind::Volume,
            source: "data".to_owned(),
            target: "/data".to_owned(),
            ..Mount::default()
        }],
        ..service(name)
    }
}

fn replicated(service: Service, mode: &str, replicas: Option<i64>) -> Service {
    Service {
        deploy: Some(Deploy {
            mode: mode.to_owned(),
            replicas,
            ..Deploy::default()
        }),
        ..service
    }
}

/// A stack with some services of all kinds.
pub(crate) fn project(name: &str, rng: &mut StdRng) -> Project {
    let mut services = vec![web("web", rng)];
    if rng.random_bool(0.7) {
        services.push(db("db"));
    }
    if rng.random_bool(0.3) {
        services.push(replicated(service("every"), "global", None));
    }
    if rng.random_bool(0.5) {
        let many = replicated(service("many"), "", Some(rng.random_range(2..=8)));
        services.push(many);
    }
    if rng.random_bool(0.4) {
        let one = replicated(service("single"), "", Some(1));
        services.push(with(one, serde_json::json!({"singleton": true})));
    }
    if rng.random_bool(0.3) {
        let part = replicated(service("shy"), "", Some(rng.random_range(1..=3)));
        services.push(with(part, serde_json::json!({"when-isolated": "stop"})));
    }
    if rng.random_bool(0.3) {
        services.push(service("plain"));
    }
    let data = Volume {
        name: format!("{name}_data"),
        ..Volume::default()
    };
    Project {
        name: name.to_owned(),
        services: services.into_iter().map(|s| (s.name.clone(), s)).collect(),
        volumes: [("data".to_owned(), data)].into(),
        ..Project::default()
    }
}

/// The local volumes of a service, by their names on the Engine.
pub(crate) fn volumes<'p>(project: &'p Project, service: &'p Service) -> Vec<&'p str> {
    let named = service.volumes.iter();
    let named = named.filter_map(|m| project.volumes.get(&m.source));
    named.map(|v| v.name.as_str()).collect()
}

/// Whether a new container of a service runs before the old one goes.
pub(crate) fn starts_first(service: &Service) -> bool {
    let deploy = service.deploy.as_ref();
    let update = deploy.and_then(|d| d.update_config.as_ref());
    update.is_some_and(|u| u.order == "start-first")
}

/// How many tasks of a service may be missing while it is rolled out.
pub(crate) fn may_miss(service: &Service) -> usize {
    let deploy = service.deploy.as_ref();
    let configs = deploy.map(|d| [&d.update_config, &d.rollback_config]);
    let each = configs.into_iter().flatten().flatten();
    let parallelism = each.filter_map(|c| c.parallelism).max();
    usize::try_from(parallelism.unwrap_or(1)).unwrap_or(usize::MAX)
}
