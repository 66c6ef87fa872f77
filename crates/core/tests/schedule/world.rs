//! Small clusters and stacks.

use std::collections::BTreeMap;

use wharfie_compose::model::{
    Deploy, Mount, MountKind, Port as Published, Project, Service, Volume,
};
use wharfie_core::Stack;
use wharfie_core::schedule::{
    Cluster, Node, Placement, Standing, Tasks, Verdict, explain, needs_placing, place,
};

pub(crate) const GIB: u64 = 1 << 30;

/// Ready nodes whose ids are their names with `id-` in front.
pub(crate) fn nodes<const N: usize>(names: [&str; N]) -> Vec<Node> {
    names.iter().map(|name| node(name)).collect()
}

pub(crate) fn node(name: &str) -> Node {
    Node {
        id: format!("id-{name}"),
        name: name.to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        ..Node::default()
    }
}

pub(crate) fn gone() -> Standing {
    Standing::Gone("is away since 12:30".to_owned())
}

pub(crate) fn unsure() -> Standing {
    Standing::Unsure("is just away".to_owned())
}

pub(crate) fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        image: "image".to_owned(),
        ..Service::default()
    }
}

/// A service that says how many it wants, so that it is spread.
pub(crate) fn replicated(name: &str, replicas: i64) -> Service {
    with_deploy(name, |d| d.replicas = Some(replicas))
}

pub(crate) fn with_deploy(name: &str, change: impl FnOnce(&mut Deploy)) -> Service {
    let mut deploy = Deploy {
        replicas: Some(1),
        ..Deploy::default()
    };
    change(&mut deploy);
    Service {
        deploy: Some(deploy),
        ..service(name)
    }
}

pub(crate) fn global(name: &str) -> Service {
    with_deploy(name, |d| {
        d.mode = "global".to_owned();
        d.replicas = None;
    })
}

pub(crate) fn constrained(name: &str, constraint: &str) -> Service {
    with_deploy(name, |d| {
        d.placement.constraints = vec![constraint.to_owned()]
    })
}

pub(crate) fn reserving(name: &str, replicas: i64, cpus: f32, memory: u64) -> Service {
    with_deploy(name, |d| {
        d.replicas = Some(replicas);
        let reserved = d.resources.reservations.get_or_insert_default();
        reserved.cpus.0 = cpus;
        reserved.memory.0 = memory.try_into().unwrap();
    })
}

pub(crate) fn publishing(mut service: Service, ip: &str, published: &str) -> Service {
    service.ports.push(Published {
        host_ip: ip.to_owned(),
        target: 80,
        published: published.to_owned(),
        protocol: "tcp".to_owned(),
        ..Published::default()
    });
    service
}

pub(crate) fn mounting(mut service: Service, volume: &str) -> Service {
    service.volumes.push(Mount {
        source: volume.to_owned(),
        target: "/data".to_owned(),
        ..Mount::default()
    });
    service
}

pub(crate) fn binding(mut service: Service, path: &str, read_only: bool) -> Service {
    service.volumes.push(Mount {
        kind: MountKind::Bind,
        source: path.to_owned(),
        target: "/bound".to_owned(),
        read_only,
        ..Mount::default()
    });
    service
}

pub(crate) fn stack<const N: usize>(services: [Service; N]) -> Stack {
    named("shop", services)
}

pub(crate) fn named<const N: usize>(name: &str, services: [Service; N]) -> Stack {
    let mut project = Project {
        name: name.to_owned(),
        working_dir: "/home/me/shop".into(),
        ..Project::default()
    };
    let mounts = services.iter().flat_map(|s| &s.volumes);
    for mount in mounts.filter(|m| m.kind == MountKind::Volume) {
        let volume = Volume {
            name: format!("{name}_{}", mount.source),
            ..Volume::default()
        };
        project.volumes.insert(mount.source.clone(), volume);
    }
    Stack {
        active: services.iter().map(|s| s.name.clone()).collect(),
        project: Project {
            services: services.into_iter().map(|s| (s.name.clone(), s)).collect(),
            ..project
        },
        ..Stack::default()
    }
}

/// Tasks from `web/1 a, web/2 b`.
pub(crate) fn tasks(text: &str) -> Tasks {
    let mut tasks = Tasks::new();
    for task in text.split(", ").filter(|t| !t.is_empty()) {
        let (task, node) = task.split_once(' ').unwrap();
        let (service, slot) = task.split_once('/').unwrap();
        let slots = tasks.entry(service.to_owned()).or_default();
        slots.insert(slot.parse().unwrap(), format!("id-{node}"));
    }
    tasks
}

/// The other way round.
pub(crate) fn text(tasks: &Tasks) -> String {
    let all = tasks.iter().flat_map(|(service, slots)| {
        let line = move |(slot, id): (&u32, &String)| {
            format!("{service}/{slot} {}", id.trim_start_matches("id-"))
        };
        slots.iter().map(line)
    });
    all.collect::<Vec<_>>().join(", ")
}

/// Nodes and volumes, with stacks that are there already.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) volumes: BTreeMap<String, String>,
    pub(crate) others: Vec<(Stack, Tasks)>,
    pub(crate) running: Tasks,
}

impl World {
    pub(crate) fn of(nodes: Vec<Node>) -> Self {
        Self {
            nodes,
            ..Self::default()
        }
    }

    pub(crate) fn cluster(&self) -> Cluster<'_> {
        let mut cluster = Cluster::new(&self.nodes, &self.volumes);
        for (stack, tasks) in &self.others {
            cluster.add(stack, tasks);
        }
        cluster
    }

    pub(crate) fn explain(&self, stack: &Stack, current: &str) -> Placement {
        let cluster = self.cluster();
        let current = tasks(current);
        let explained = explain(stack, &current, &self.running, &cluster);
        let mut placement = explained.clone();
        placement.decisions.clear();
        assert_eq!(placement, place(stack, &current, &self.running, &cluster));
        let needed = needs_placing(stack, &current, &self.running, &cluster);
        let changes = placement.tasks != current || !placement.volumes.is_empty();
        assert!(needed || !changes, "{}", text(&placement.tasks));
        // What is accounted of the stack itself makes no difference.
        let mut cluster = self.cluster();
        cluster.add(stack, &current);
        assert_eq!(placement, place(stack, &current, &self.running, &cluster));
        explained
    }

    /// Where tasks go: `web/1 a, web/2 b`.
    pub(crate) fn place(&self, stack: &Stack, current: &str) -> String {
        text(&self.explain(stack, current).tasks)
    }

    /// Everything that was decided, line by line.
    pub(crate) fn why(&self, stack: &Stack, current: &str) -> Vec<String> {
        let name = |id: &str| id.trim_start_matches("id-").to_owned();
        let placement = self.explain(stack, current);
        let lines = placement.decisions.iter().map(|d| {
            let task = format!("{}/{}", d.service, d.slot);
            match &d.verdict {
                Verdict::Stays { on } => format!("{task} stays on {}", name(on)),
                Verdict::Chosen { on, why } => format!("{task} on {}: {why}", name(on)),
                Verdict::Moved { from, to, why } => {
                    format!("{task} from {} to {}: {why}", name(from), name(to))
                }
                Verdict::Waits { on: Some(on), why } => format!("{task} on {}: {why}", name(on)),
                Verdict::Waits { on: None, why } => format!("{task}: {why}"),
            }
        });
        lines.collect()
    }
}
