//! What placement costs:
//! `cargo run --release -p wharfie-core --example placement [nodes] [stacks] [tasks]`
#![allow(clippy::unwrap_used)] // a wrong argument may end it

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wharfie_compose::model::{Deploy, Project, Service};
use wharfie_core::Stack;
use wharfie_core::schedule::{
    Cluster, Node, Standing, Tasks, needs_placing, place, place_if_needed, rebalance,
};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u32>().unwrap());
    let mut number = |default| numbers.next().unwrap_or(default);
    let (nodes, stacks, tasks) = (number(1_000), number(100), number(100_000));
    println!("{nodes} nodes, {stacks} stacks, {tasks} tasks; best and median of 7");
    let mut nodes: Vec<Node> = (0..nodes).map(node).collect();
    let stacks: Vec<Stack> = (0..stacks).map(|i| stack(i, tasks / stacks)).collect();
    let volumes = BTreeMap::new();
    let none = Tasks::new();

    let mut placed = BTreeMap::new();
    measure("place everything from nothing", || {
        let mut cluster = Cluster::new(&nodes, &volumes);
        placed.clear();
        let start = Instant::now();
        for stack in &stacks {
            let placement = place(stack, &none, &none, &cluster);
            cluster.add(stack, &placement.tasks);
            placed.insert(stack.project.name.clone(), placement.tasks);
        }
        start.elapsed()
    });
    let all: usize = placed
        .values()
        .flat_map(Tasks::values)
        .map(BTreeMap::len)
        .sum();
    println!("  {all} tasks placed");

    measure("account all tasks anew", || {
        let start = Instant::now();
        std::hint::black_box(account(&nodes, &volumes, &stacks, &placed));
        start.elapsed()
    });
    let cluster = account(&nodes, &volumes, &stacks, &placed);
    measure("see that nothing is to do", || {
        let start = Instant::now();
        let needs = |s: &&Stack| needs_placing(s, &placed[&s.project.name], &none, &cluster);
        assert_eq!(stacks.iter().filter(needs).count(), 0);
        start.elapsed()
    });
    drop(cluster);

    nodes[7].standing = Standing::Gone("is away".to_owned());
    measure("one node is gone: place its tasks again", || {
        replace(&nodes, &volumes, &stacks, &placed).0
    });
    let (_, moved, placed) = replace(&nodes, &volumes, &stacks, &placed);
    println!("  {moved} tasks moved");

    for node in nodes.iter_mut().step_by(2) {
        node.standing = Standing::Gone("is away".to_owned());
    }
    measure("half of the nodes are gone", || {
        replace(&nodes, &volumes, &stacks, &placed).0
    });
    let (_, moved, placed) = replace(&nodes, &volumes, &stacks, &placed);
    let (_, again, _) = replace(&nodes, &volumes, &stacks, &placed);
    println!("  {moved} tasks moved, {again} more in a second pass");

    for node in &mut nodes {
        node.standing = Standing::Ready;
    }
    let mut cluster = account(&nodes, &volumes, &stacks, &placed);
    let start = Instant::now();
    let mut moved = 0;
    for stack in &stacks {
        let mut tasks = placed[&stack.project.name].clone();
        for step in rebalance(stack, &tasks, &cluster) {
            moved += 1;
            let slots = tasks.get_mut(&step.service).unwrap();
            slots.insert(step.slot, step.to);
        }
        cluster.add(stack, &tasks);
    }
    println!(
        "all are back, even out: {:.1?}, {moved} moves",
        start.elapsed()
    );
}

/// Places again whatever needs it: time, tasks that moved, where all are.
fn replace(
    nodes: &[Node],
    volumes: &BTreeMap<String, String>,
    stacks: &[Stack],
    placed: &BTreeMap<String, Tasks>,
) -> (Duration, usize, BTreeMap<String, Tasks>) {
    let mut cluster = account(nodes, volumes, stacks, placed);
    let mut changed = BTreeMap::new();
    let none = Tasks::new();
    let start = Instant::now();
    for stack in stacks {
        let current = &placed[&stack.project.name];
        if let Some(placement) = place_if_needed(stack, current, &none, &cluster) {
            cluster.add(stack, &placement.tasks);
            changed.insert(stack.project.name.clone(), placement.tasks);
        }
    }
    let time = start.elapsed();
    let mut moved = 0;
    let mut after = placed.clone();
    for (stack, tasks) in changed {
        for (service, slots) in &tasks {
            let before = &placed[&stack][service];
            moved += slots
                .iter()
                .filter(|(s, n)| before.get(s) != Some(n))
                .count();
        }
        after.insert(stack, tasks);
    }
    (time, moved, after)
}

fn account<'a>(
    nodes: &'a [Node],
    volumes: &'a BTreeMap<String, String>,
    stacks: &[Stack],
    placed: &BTreeMap<String, Tasks>,
) -> Cluster<'a> {
    let mut cluster = Cluster::new(nodes, volumes);
    for stack in stacks {
        cluster.add(stack, &placed[&stack.project.name]);
    }
    cluster
}

fn measure(what: &str, mut run: impl FnMut() -> Duration) {
    let mut times: Vec<Duration> = (0..7).map(|_| run()).collect();
    times.sort();
    println!("{what}: {:.1?}, {:.1?}", times[0], times[3]);
}

/// A node with an id as long as a public key, twenty images and sixteen processors.
fn node(i: u32) -> Node {
    Node {
        id: format!(
            "{:016x}",
            u64::from(i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )
        .repeat(4),
        name: format!("node{i}"),
        labels: [("zone".to_owned(), format!("z{}", i % 3))].into(),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        cpus: 16_000,
        memory: 64 << 30,
        images: (0..20)
            .map(|n| format!("image{}:latest", (i + n) % 40))
            .collect(),
        ..Node::default()
    }
}

/// A stack with one service, which reserves, spreads over zones or has a constraint in turn.
fn stack(i: u32, tasks: u32) -> Stack {
    let mut deploy = Deploy {
        replicas: Some(tasks.into()),
        ..Deploy::default()
    };
    match i % 4 {
        0 => {
            let reserved = deploy.resources.reservations.get_or_insert_default();
            reserved.cpus.0 = 0.05;
            reserved.memory.0 = 64 << 20;
        }
        1 => {
            deploy.placement.preferences.push(Default::default());
            deploy.placement.preferences[0].spread = "node.labels.zone".to_owned();
        }
        2 => deploy.placement.constraints = vec!["node.platform.os == linux".to_owned()],
        _ => {}
    }
    let service = Service {
        name: "web".to_owned(),
        image: format!("image{}", i % 40),
        deploy: Some(deploy),
        ..Service::default()
    };
    Stack {
        project: Project {
            name: format!("stack{i}"),
            services: [("web".to_owned(), service)].into(),
            ..Project::default()
        },
        active: ["web".to_owned()].into(),
        ..Stack::default()
    }
}
