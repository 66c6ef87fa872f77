//! What holds of any cluster and any stacks.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;
use wharfie_compose::model::{PlacementPreference, Service};
use wharfie_core::Stack;
use wharfie_core::schedule::{
    Cluster, Node, Placement, Port, Standing, Tasks, needs_placing, place, rebalance,
};

use super::world::{
    GIB, World, gone, mounting, named, node, publishing, text, unsure, with_deploy,
};

/// What a service says, in little.
#[derive(Debug, Clone)]
struct Kind {
    replicas: i64,
    /// Halves of a processor, and of a GiB.
    halves: (u32, u32),
    port: bool,
    most: u64,
    zone: bool,
    spread: bool,
    global: bool,
    /// Says nothing of where it runs.
    plain: bool,
    volume: Option<&'static str>,
    with: Option<usize>,
}

fn kind() -> impl Strategy<Value = Kind> {
    (
        0..7_i64,
        (select(&[0, 0, 1, 3][..]), select(&[0, 0, 1, 2][..])),
        prop::bool::weighted(0.2),
        select(&[0_u64, 0, 0, 1, 2][..]),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.3),
        select(&[None, None, None, Some("data"), Some("logs")][..]),
        prop::option::weighted(0.15, 0..4_usize),
    )
        .prop_map(
            |(replicas, halves, port, most, zone, spread, global, plain, volume, with)| Kind {
                replicas,
                halves,
                port,
                most,
                zone,
                spread,
                global,
                plain,
                volume,
                with,
            },
        )
}

fn made(kind: &Kind, name: usize) -> Service {
    let name = format!("s{name}");
    let mut service = with_deploy(&name, |d| {
        d.replicas = Some(kind.replicas).filter(|_| !kind.global);
        if kind.global {
            d.mode = "global".to_owned();
        }
        d.placement.max_replicas = kind.most;
        if kind.zone {
            d.placement.constraints = vec!["node.labels.zone == x".to_owned()];
        }
        if kind.spread {
            d.placement.preferences.push(PlacementPreference {
                spread: "node.labels.zone".to_owned(),
                ..PlacementPreference::default()
            });
        }
        let reserved = d.resources.reservations.get_or_insert_default();
        #[allow(clippy::cast_precision_loss)] // small
        let cpus = kind.halves.0 as f32 / 2.0;
        reserved.cpus.0 = cpus;
        reserved.memory.0 = i64::from(kind.halves.1) << 29;
    });
    if kind.plain {
        service.deploy = None;
    }
    if kind.port {
        service = publishing(service, "", "80");
    }
    if let Some(volume) = kind.volume {
        service = mounting(service, volume);
    }
    if let Some(other) = kind.with {
        service.network_mode = format!("service:s{other}");
    }
    service
}

fn kinds() -> impl Strategy<Value = [Vec<Kind>; 2]> {
    let one = || prop::collection::vec(kind(), 1..5);
    (one(), one()).prop_map(<[Vec<Kind>; 2]>::from)
}

fn stacks(kinds: &[Vec<Kind>; 2]) -> [Stack; 2] {
    let stack = |name: &str, kinds: &[Kind]| {
        let mut all = named(name, []);
        for (i, kind) in kinds.iter().enumerate() {
            let mut kind = kind.clone();
            // Only of one that comes before: rings are refused by the loader.
            kind.with = kind.with.filter(|with| *with < i);
            let one = named(name, [made(&kind, i)]);
            all.active.extend(one.active);
            all.project.services.extend(one.project.services);
            all.project.volumes.extend(one.project.volumes);
        }
        all.home = "id-n1".to_owned();
        all
    };
    [stack("one", &kinds[0]), stack("two", &kinds[1])]
}

/// Processors, memory, zone, standing, whether the port is taken.
type Spec = (u64, u64, &'static str, u8, bool);

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let one = (
        select(&[0_u64, 1_000, 2_000, 4_000][..]),
        select(&[0_u64, 1, 2, 4][..]),
        select(&["x", "x", "y", ""][..]),
        select(&[0_u8, 0, 0, 0, 0, 1, 2, 3][..]),
        prop::bool::weighted(0.1),
    );
    prop::collection::vec(one, 1..8)
}

fn nodes(specs: &[Spec]) -> Vec<Node> {
    let nodes = specs.iter().enumerate();
    let nodes = nodes.map(|(i, (cpus, memory, zone, standing, port))| Node {
        cpus: *cpus,
        memory: memory * GIB,
        labels: [("zone".to_owned(), (*zone).to_owned())].into(),
        standing: match standing {
            0 => Standing::Ready,
            1 => Standing::Drained,
            2 => unsure(),
            _ => gone(),
        },
        ports: port.then(|| Port::new("", 80, "tcp")).into_iter().collect(),
        ..node(&format!("n{i}"))
    });
    nodes.collect()
}

/// A cluster with its stacks, placed one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    tasks: Vec<Tasks>,
    volumes: BTreeMap<String, String>,
}

fn place_all(nodes: &[Node], stacks: &[Stack], before: &State) -> State {
    let mut cluster = Cluster::new(nodes, &before.volumes);
    for (stack, tasks) in stacks.iter().zip(&before.tasks) {
        cluster.add(stack, tasks);
    }
    let mut after = State {
        volumes: before.volumes.clone(),
        ..State::default()
    };
    for (i, stack) in stacks.iter().enumerate() {
        let none = Tasks::new();
        let current = before.tasks.get(i).unwrap_or(&none);
        let Placement { tasks, volumes, .. } = place(stack, current, &none, &cluster);
        if tasks != *current || !volumes.is_empty() {
            assert!(needs_placing(stack, current, &none, &cluster));
        }
        cluster.add(stack, &tasks);
        after.tasks.push(tasks);
        after.volumes.extend(volumes);
    }
    after
}

/// Each task with its node.
fn each(state: &State) -> impl Iterator<Item = ((usize, &str, u32), &str)> {
    let stacks = state.tasks.iter().enumerate();
    stacks.flat_map(|(stack, tasks)| {
        tasks.iter().flat_map(move |(service, slots)| {
            let task = move |slot: &u32| (stack, service.as_str(), *slot);
            slots
                .iter()
                .map(move |(slot, id)| (task(slot), id.as_str()))
        })
    })
}

fn reserved(service: &Service) -> (f64, u64) {
    let deploy = service.deploy.as_ref();
    let reserved = deploy.and_then(|d| d.resources.reservations.as_ref());
    reserved.map_or((0.0, 0), |r| {
        (f64::from(r.cpus.0) * 1000.0, r.memory.0 as u64)
    })
}

/// Whether one more task of a service may be on a node, beside what is there.
fn may_be(node: &Node, stacks: &[Stack], state: &State, stack: usize, service: &Service) -> bool {
    let here = || each(state).filter(|(_, id)| *id == node.id);
    let of = |(stack, name, _): (usize, &str, u32)| &stacks[stack].project.services[name];
    let (mut cpus, mut memory) = reserved(service);
    for (task, _) in here() {
        let (c, m) = reserved(of(task));
        cpus += c;
        memory += m;
    }
    let placement = service.deploy.as_ref().map(|d| &d.placement);
    let own = here().filter(|((s, name, _), _)| (*s, *name) == (stack, service.name.as_str()));
    let most = placement.map_or(0, |p| p.max_replicas);
    let constrained = placement.is_some_and(|p| !p.constraints.is_empty());
    (node.cpus == 0 || cpus <= node.cpus as f64)
        && (node.memory == 0 || memory <= node.memory)
        && (most == 0 || (own.count() as u64) < most)
        && (!constrained || node.labels.get("zone").is_some_and(|z| z == "x"))
        && (service.ports.is_empty()
            || node.ports.is_empty() && here().all(|(task, _)| of(task).ports.is_empty()))
}

fn is_global(service: &Service) -> bool {
    service.deploy.as_ref().is_some_and(|d| d.mode == "global")
}

/// Services whose tasks all go to one node.
fn pinned(stack: &Stack) -> BTreeSet<&str> {
    let services = || stack.project.services.values();
    let mut pinned: BTreeSet<&str> = BTreeSet::new();
    for service in services().filter(|s| !is_global(s) && stack.count(&s.name) > 0) {
        if !service.volumes.is_empty() {
            pinned.insert(&service.name);
        }
        if let Some(other) = service.network_mode.strip_prefix("service:")
            && stack.count(other) > 0
        {
            pinned.extend([service.name.as_str(), other]);
        }
    }
    pinned
}

/// Checks that nothing is where it may not be.
fn check(nodes: &[Node], stacks: &[Stack], state: &State) -> Result<(), TestCaseError> {
    for ((stack, name, slot), id) in each(state) {
        let node = nodes.iter().find(|n| n.id == id).unwrap();
        prop_assert_eq!(&node.standing, &Standing::Ready);
        let mut without = state.clone();
        without.tasks[stack].get_mut(name).unwrap().remove(&slot);
        let service = &stacks[stack].project.services[name];
        if !(is_global(service) && service.deploy.as_ref().unwrap().placement.max_replicas > 0) {
            let may = may_be(node, stacks, &without, stack, service);
            prop_assert!(may, "{} {}/{} on {}", stack, name, slot, id);
        }
        if !is_global(service) {
            prop_assert!(slot >= 1 && slot <= stacks[stack].count(name));
        }
    }
    Ok(())
}

/// Checks that everything runs that can.
fn check_all_run(nodes: &[Node], stacks: &[Stack], state: &State) -> Result<(), TestCaseError> {
    let ready = || nodes.iter().filter(|n| n.standing == Standing::Ready);
    for (i, stack) in stacks.iter().enumerate() {
        let pinned = pinned(stack);
        for (name, service) in &stack.project.services {
            let none = BTreeMap::new();
            let placed = state.tasks[i].get(name).unwrap_or(&none);
            let fits = |node: &&Node| may_be(node, stacks, state, i, service);
            if is_global(service) {
                let has = |node: &&Node| placed.values().any(|id| *id == node.id);
                let lacks = ready().filter(|n| !has(n)).find(fits);
                prop_assert!(lacks.is_none(), "{}/{}", i, name);
            } else if pinned.contains(name.as_str()) {
                let on: BTreeSet<&String> = placed.values().collect();
                prop_assert!(on.len() <= 1, "{}/{}", i, name);
                let here = |n: &&Node| on.contains(&n.id);
                if placed.len() < stack.count(name) as usize && !on.is_empty() {
                    prop_assert!(ready().filter(here).find(fits).is_none(), "{}/{}", i, name);
                }
            } else if placed.len() < stack.count(name) as usize {
                prop_assert!(ready().find(fits).is_none(), "{}/{}", i, name);
            }
        }
        // What lives together is together, on the node of its root's first task.
        for service in stack.project.services.values().filter(|s| !is_global(s)) {
            let other = service.network_mode.strip_prefix("service:");
            let Some(other) = other.filter(|o| stack.count(o) > 0) else {
                continue;
            };
            let first = state.tasks[i].get(other).and_then(|s| s.values().next());
            let own = state.tasks[i].get(&service.name).into_iter().flatten();
            for (_, id) in own.filter(|_| !is_global(&stack.project.services[other])) {
                prop_assert!(first.is_none_or(|first| first == id));
            }
        }
    }
    Ok(())
}

/// Whether a service has no reason to be uneven.
fn is_free(stack: &Stack, name: &str, pinned: &BTreeSet<&str>) -> bool {
    let service = &stack.project.services[name];
    let deploy = service.deploy.as_ref();
    !pinned.contains(name)
        && reserved(service) == (0.0, 0)
        && service.ports.is_empty()
        && deploy.is_some_and(|d| {
            let p = &d.placement;
            d.mode.is_empty()
                && p.constraints.is_empty()
                && p.max_replicas == 0
                && p.preferences.is_empty()
        })
}

fn check_even(nodes: &[Node], stacks: &[Stack], state: &State) -> Result<(), TestCaseError> {
    for (i, stack) in stacks.iter().enumerate() {
        let pinned = pinned(stack);
        for (name, slots) in &state.tasks[i] {
            if !is_free(stack, name, &pinned) {
                continue;
            }
            let ready = nodes.iter().filter(|n| n.standing == Standing::Ready);
            let counts: Vec<usize> = ready
                .map(|n| slots.values().filter(|id| **id == n.id).count())
                .collect();
            let ends = counts.iter().max().zip(counts.iter().min());
            prop_assert!(
                ends.is_some_and(|(most, least)| most - least <= 1),
                "{counts:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn from_nothing(
        specs in specs(),
        kinds in kinds(),
        seed in any::<u64>(),
    ) {
        let (nodes, stacks) = (nodes(&specs), stacks(&kinds));
        let placed = place_all(&nodes, &stacks, &State::default());
        check(&nodes, &stacks, &placed)?;
        check_all_run(&nodes, &stacks, &placed)?;
        check_even(&nodes, &stacks, &placed)?;
        // Once more changes nothing.
        prop_assert_eq!(&place_all(&nodes, &stacks, &placed), &placed);
        // In whatever order nodes are told.
        let mut shuffled = nodes.clone();
        let order = |n: &Node| seed.wrapping_mul(n.name.as_bytes()[1].into()) % 11;
        shuffled.sort_by_key(order);
        prop_assert_eq!(&place_all(&shuffled, &stacks, &State::default()), &placed);
    }

    #[test]
    fn a_node_comes(
        specs in specs(),
        kinds in kinds(),
    ) {
        let (mut nodes, stacks) = (nodes(&specs), stacks(&kinds));
        let before = place_all(&nodes, &stacks, &State::default());
        nodes.push(node("new"));
        let after = place_all(&nodes, &stacks, &before);
        let on: BTreeMap<_, _> = each(&after).collect();
        for (task, id) in each(&before) {
            // Those that live together and are not all there may find room for all.
            let apart = pinned(&stacks[task.0]).contains(task.1);
            prop_assert!(apart || on.get(&task) == Some(&id), "{task:?}");
        }
        check(&nodes, &stacks, &after)?;
        check_all_run(&nodes, &stacks, &after)?;
    }

    #[test]
    fn a_node_goes(
        specs in specs(),
        kinds in kinds(),
        which in any::<prop::sample::Index>(),
        how in select(vec![gone(), Standing::Drained, unsure()]),
    ) {
        let (mut nodes, stacks) = (nodes(&specs), stacks(&kinds));
        let before = place_all(&nodes, &stacks, &State::default());
        let lost = which.index(nodes.len());
        let (id, is_unsure) = (nodes[lost].id.clone(), how == unsure());
        nodes[lost].standing = how;
        let after = place_all(&nodes, &stacks, &before);
        let on: BTreeMap<_, _> = each(&after).collect();
        for (task, was) in each(&before) {
            let service = &stacks[task.0].project.services[task.1];
            let follows_global = service.network_mode.strip_prefix("service:");
            let follows_global = follows_global
                .is_some_and(|o| is_global(&stacks[task.0].project.services[o]));
            if was != id || is_unsure {
                prop_assert!(follows_global || on.get(&task) == Some(&was), "{task:?}");
            } else if !service.volumes.is_empty() && !is_global(service) {
                // Tied: it waits.
                prop_assert_eq!(on.get(&task), Some(&was));
            }
        }
        prop_assert_eq!(&place_all(&nodes, &stacks, &after), &after);
        // It comes back: nothing that found another place returns.
        nodes[lost].standing = Standing::Ready;
        let back = place_all(&nodes, &stacks, &after);
        check_all_run(&nodes, &stacks, &back)?;
    }

    #[test]
    fn moves_even_out(
        specs in specs(),
        kinds in kinds(),
    ) {
        let (mut nodes, stacks) = (nodes(&specs), stacks(&kinds));
        let mut state = place_all(&nodes, &stacks, &State::default());
        nodes.push(node("new"));
        let before = state.clone();
        let cluster_of = |state: &State| {
            let mut cluster = Cluster::new(&nodes, &before.volumes);
            for (stack, tasks) in stacks.iter().zip(&state.tasks) {
                cluster.add(stack, tasks);
            }
            cluster
        };
        for (i, stack) in stacks.iter().enumerate() {
            let pinned = pinned(stack);
            for step in rebalance(stack, &state.tasks[i].clone(), &cluster_of(&state)) {
                prop_assert!(!pinned.contains(step.service.as_str()));
                let slots = state.tasks[i].get_mut(&step.service).unwrap();
                prop_assert_eq!(slots.insert(step.slot, step.to), Some(step.from));
            }
        }
        check(&nodes, &stacks, &state)?;
        check_even(&nodes, &stacks, &state)?;
        // Nobody has anything against the new places.
        let none = Tasks::new();
        let cluster = cluster_of(&state);
        for (stack, tasks) in stacks.iter().zip(&state.tasks) {
            let after = place(stack, tasks, &none, &cluster).tasks;
            for (service, slots) in tasks.iter().filter(|(s, _)| !pinned(stack).contains(s.as_str())) {
                let stays = |(slot, id): (&u32, &String)| after[service].get(slot) == Some(id);
                prop_assert!(slots.iter().all(stays), "{service}");
            }
        }
    }

    #[test]
    fn from_anything(
        specs in specs(),
        kinds in kinds(),
        before in prop::collection::vec((0..2_usize, 0..4_usize, 1..9_u32, 0..9_usize), 0..30),
        running in prop::collection::vec((0..4_usize, 1..9_u32, 0..9_usize), 0..5),
        volume in prop::option::of(0..9_usize),
    ) {
        let (nodes, stacks) = (nodes(&specs), stacks(&kinds));
        let mut state = State { tasks: vec![Tasks::new(); 2], ..State::default() };
        for (stack, service, slot, node) in before {
            let slots = state.tasks[stack].entry(format!("s{service}")).or_default();
            slots.insert(slot, format!("id-n{node}"));
        }
        let volume = volume.map(|node| ("one_data".to_owned(), format!("id-n{node}")));
        state.volumes.extend(volume);
        let mut world = World { nodes, volumes: state.volumes.clone(), ..World::default() };
        for (service, slot, node) in running {
            let slots = world.running.entry(format!("s{service}")).or_default();
            slots.insert(slot, format!("id-n{node}"));
        }
        world.others.push((stacks[1].clone(), state.tasks[1].clone()));
        // Asserts that the ways to ask agree.
        let once = world.explain(&stacks[0], &text(&state.tasks[0]));
        world.volumes.extend(once.volumes);
        world.running.clear();
        let again = world.explain(&stacks[0], &text(&once.tasks));
        prop_assert_eq!(text(&again.tasks), text(&once.tasks));
        prop_assert!(again.volumes.is_empty());
    }
}
