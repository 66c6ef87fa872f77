//! Figures: what placement costs in large clusters, and how state and traffic grow.

use std::collections::BTreeMap;
use std::time::Instant;

use wharfie_compose::model::{Deploy, Project, Service};
use wharfie_core::assignment::{self, Assignment, Assignments, Reported};
use wharfie_core::schedule::{self, Cluster, Node, Standing, Tasks};
use wharfie_core::{Container, Stack, State};

use crate::sim::{Setup, idle};

/// Services of a stack, and tasks of a service.
const SERVICES: usize = 10;
const REPLICAS: usize = 100;

/// Prints figures; with traffic, that of clusters of several sizes too.
pub fn print(nodes: usize, tasks: usize, traffic: bool) {
    placement(nodes, tasks);
    if !traffic {
        return;
    }
    println!("\nnodes  messages/node/s  bytes/node/s  (at rest; one stack)");
    for nodes in [10, 100, 1_000] {
        let at_rest = |seconds| {
            let setup = Setup {
                faults: false,
                seconds,
                measure: true,
                ..Setup::new(8, nodes)
            };
            let stats = idle(setup);
            (stats.messages, stats.bytes)
        };
        let (early, late) = (at_rest(40), at_rest(50));
        let each = |a: u64, b: u64| (b.saturating_sub(a)) as f64 / 10.0 / nodes as f64;
        let messages = each(early.0, late.0);
        println!("{nodes:5}  {messages:15.1}  {:12.0}", each(early.1, late.1));
    }
}

fn stack(i: usize) -> Stack {
    let service = |s: usize| Service {
        name: format!("svc{s}"),
        image: format!("svc{s}:1"),
        deploy: Some(Deploy {
            replicas: i64::try_from(REPLICAS).ok(),
            ..Deploy::default()
        }),
        ..Service::default()
    };
    let services = (0..SERVICES).map(service);
    let project = Project {
        name: format!("s{i}"),
        services: services.map(|s| (s.name.clone(), s)).collect(),
        ..Project::default()
    };
    Stack {
        active: project.services.keys().cloned().collect(),
        project,
        ..Stack::default()
    }
}

/// Places what needs it, as the coordinators of all stacks together; how many tasks went elsewhere.
fn place_all(stacks: &[Stack], at: &mut BTreeMap<String, Tasks>, nodes: &[Node]) -> usize {
    let (volumes, none) = (BTreeMap::new(), Tasks::new());
    let mut cluster = Cluster::new(nodes, &volumes);
    for stack in stacks {
        let tasks = at.get(&stack.project.name).unwrap_or(&none);
        cluster.add(stack, tasks);
    }
    let mut moved = 0;
    for stack in stacks {
        let name = &stack.project.name;
        let before = at.get(name).cloned().unwrap_or_default();
        if !schedule::needs_placing(stack, &before, &none, &cluster) {
            continue;
        }
        let placed = schedule::place(stack, &before, &none, &cluster).tasks;
        cluster.add(stack, &placed);
        for (service, tasks) in &placed {
            let old = before.get(service);
            let same = |(n, id): &(&u32, &String)| old.and_then(|o| o.get(*n)) == Some(*id);
            moved += tasks.iter().filter(|t| !same(t)).count();
        }
        at.insert(name.clone(), placed);
    }
    moved
}

fn spread(at: &BTreeMap<String, Tasks>, nodes: &[Node]) -> (usize, usize) {
    let ready = nodes.iter().filter(|n| n.standing == Standing::Ready);
    let mut counts: BTreeMap<&str, usize> = ready.map(|n| (n.id.as_str(), 0)).collect();
    for id in at
        .values()
        .flat_map(|t| t.values())
        .flat_map(|t| t.values())
    {
        *counts.entry(id).or_default() += 1;
    }
    let least = counts.values().min().copied().unwrap_or(0);
    (least, counts.values().max().copied().unwrap_or(0))
}

fn placement(nodes: usize, tasks: usize) {
    let stacks: Vec<Stack> = (0..tasks.div_ceil(SERVICES * REPLICAS))
        .map(stack)
        .collect();
    let mut all: Vec<Node> = (0..nodes)
        .map(|i| Node {
            id: format!(
                "{:064x}",
                (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ),
            name: format!("n{i}"),
            cpus: 64_000,
            ..Node::default()
        })
        .collect();
    println!(
        "{nodes} nodes, {} stacks of {SERVICES} services with {REPLICAS} tasks",
        stacks.len()
    );
    let mut at = BTreeMap::new();
    let mut step = |what: &str, all: &[Node]| {
        let began = Instant::now();
        let moved = place_all(&stacks, &mut at, all);
        let took = began.elapsed().as_secs_f64();
        let (least, most) = spread(&at, all);
        println!(
            "{what}: {moved} tasks placed in {took:.2} s by one core, {least} to {most} a node"
        );
        at.clone()
    };
    let first = step("from nothing", &all);
    step("again, nothing changed", &all);
    all[0].standing = Standing::Gone("is away".to_owned());
    step("one node lost", &all);
    for node in &mut all[..nodes / 2] {
        node.standing = Standing::Gone("is away".to_owned());
    }
    step("half of the nodes lost", &all);
    state(&stacks, &first, &all[nodes - 1].id);
}

/// What all of it is on the disk of each node, and what a node's own part costs it.
fn state(stacks: &[Stack], at: &BTreeMap<String, Tasks>, me: &str) {
    let (mut bytes, mut largest, mut objects) = (0, 0, 0);
    let mut shares = std::time::Duration::ZERO;
    for stack in stacks {
        let size = |v: Result<Vec<u8>, _>| v.map_or(0, |b: Vec<u8>| b.len());
        let mut count = |size: usize| {
            bytes += size;
            largest = largest.max(size);
            objects += 1;
        };
        count(size(serde_json::to_vec(stack)));
        let Some(tasks) = at.get(&stack.project.name) else {
            continue;
        };
        let mut assignments = Assignments::new();
        let mut containers = Vec::new();
        for (service, tasks) in tasks {
            let assignment = Assignment {
                tasks: tasks.clone(),
                rollout: None,
            };
            count(size(serde_json::to_vec(&assignment)));
            assignments.insert(service.clone(), assignment);
            let running = tasks.iter().map(|(number, node)| {
                let container = Container {
                    service: service.clone(),
                    number: *number,
                    state: State::Running,
                    ..Container::default()
                };
                (node.clone(), container)
            });
            containers.extend(running);
        }
        let others = containers.iter().filter(|(node, _)| node != me);
        let others: Vec<Reported<'_>> = others
            .map(|(node, container)| Reported {
                node,
                live: true,
                container,
            })
            .collect();
        let began = Instant::now();
        let share = assignment::share(stack, &assignments, me, &[], &others);
        shares += began.elapsed();
        drop(share);
    }
    println!("state: {objects} objects, {bytes} bytes, {largest} at most");
    println!(
        "one node's share of all stacks: {:.3} s",
        shares.as_secs_f64()
    );
}
