//! Rules about nodes and amounts.

use super::world::*;
use wharfie_compose::model::{DiscreteResource, GenericResource, PlacementPreference};
use wharfie_core::schedule::{Port, Standing, coordinator, needs_placing, rebalance};

#[test]
fn tasks_are_spread_and_stay() {
    let world = World::of(nodes(["a", "b", "c"]));
    let web = stack([replicated("web", 7)]);
    let first = world.explain(&web, "");
    let mut counts = std::collections::BTreeMap::new();
    for node in first.tasks["web"].values() {
        *counts.entry(node.clone()).or_insert(0) += 1;
    }
    let mut counts: Vec<i32> = counts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 2, 3]);
    // Never moved for evenness, not even to an empty node.
    assert_eq!(
        world.place(
            &web,
            "web/1 a, web/2 a, web/3 a, web/4 a, web/5 a, web/6 a, web/7 a"
        ),
        "web/1 a, web/2 a, web/3 a, web/4 a, web/5 a, web/6 a, web/7 a"
    );
    // What is new goes where fewest are.
    let two = stack([replicated("web", 2)]);
    let mut world = World::of(nodes(["a", "b"]));
    assert_eq!(
        world.why(&two, "web/1 a"),
        ["web/1 stays on a", "web/2 on b: has fewest tasks of web"]
    );
    // Fewer are wanted: the others are let go of.
    assert_eq!(
        world.place(&two, "web/1 a, web/2 a, web/3 b, old/1 b"),
        "web/1 a, web/2 a"
    );
    world.nodes[0].standing = gone();
    assert_eq!(
        world.why(&two, "web/1 a, web/2 b"),
        [
            "web/1 from a to b: a is away since 12:30",
            "web/2 stays on b"
        ]
    );
}

#[test]
fn standings() {
    let mut world = World::of(nodes(["a", "b"]));
    let two = stack([replicated("web", 2)]);
    world.nodes[0].standing = unsure();
    assert_eq!(world.place(&two, "web/1 a"), "web/1 a, web/2 b");
    world.nodes[0].standing = Standing::Drained;
    assert_eq!(
        world.why(&two, "web/1 a"),
        [
            "web/1 from a to b: a is drained",
            "web/2 on b: is the only one that fits"
        ]
    );
    world.nodes[1].standing = gone();
    assert_eq!(
        world.why(&stack([replicated("web", 1)]), ""),
        ["web/1: no node is ready: a is drained, b is away since 12:30"]
    );
    let nobody = World::default();
    assert_eq!(
        nobody.why(&stack([service("web")]), ""),
        ["web/1: there is no node"]
    );
    // A node that is no member any longer.
    let world = World::of(nodes(["a"]));
    assert_eq!(
        world.why(&stack([replicated("web", 1)]), "web/1 x"),
        ["web/1 from x to a: its node is no longer a member"]
    );
}

#[test]
fn constraints() {
    let mut world = World::of(nodes(["a", "b", "c", "d"]));
    world.nodes[0]
        .labels
        .insert("ssd".to_owned(), "True".to_owned());
    world.nodes[1]
        .engine_labels
        .insert("rack".to_owned(), "r1".to_owned());
    world.nodes[2].arch = "aarch64".to_owned();
    world.nodes[3].os = "windows".to_owned();
    for (constraint, on) in [
        ("node.id == id-b", "b"),
        ("node.hostname==c", "c"),
        ("node.labels.ssd == true", "a"),
        (" node.labels.ssd==TRUE ", "a"),
        ("engine.labels.rack == r1", "b"),
        ("node.platform.os == windows", "d"),
        ("node.platform.arch == arm64", "c"),
        ("node.platform.arch == aarch64", "c"),
    ] {
        let placed = world.place(&stack([constrained("web", constraint)]), "");
        assert_eq!(placed, format!("web/1 {on}"), "{constraint}");
    }
    let everywhere = |constraint: &str| {
        let stack = stack([with_deploy("web", |d| {
            d.mode = "global".to_owned();
            d.placement.constraints = vec![constraint.to_owned()];
        })]);
        world.place(&stack, "").replace("web/", "")
    };
    assert_eq!(everywhere("node.role == manager"), "1 a, 2 b, 3 c, 4 d");
    assert_eq!(everywhere("node.role == worker"), "1 a, 2 b, 3 c, 4 d");
    assert_eq!(everywhere("node.role != manager"), "");
    assert_eq!(everywhere("node.platform.arch == x86_64"), "1 a, 2 b, 3 d");
    assert_eq!(everywhere("node.labels.ssd != true"), "1 b, 2 c, 3 d");

    world.nodes[3].standing = gone();
    let why =
        |world: &World, constraint: &str| world.why(&stack([constrained("web", constraint)]), "");
    assert_eq!(
        why(&world, "node.labels.gpu==yes"),
        ["web/1: no node satisfies node.labels.gpu == yes: a, b, c do not; d is away since 12:30"]
    );
    assert_eq!(
        why(&world, "node.labels.gpu = yes"),
        ["web/1: constraint \"node.labels.gpu = yes\" cannot be read: it has no == or !="]
    );
    assert_eq!(
        why(&world, "node.labels.gpu =="),
        ["web/1: constraint \"node.labels.gpu ==\" cannot be read: it has no value"]
    );
    assert!(why(&world, "node.colour == red")[0].contains("\"node.colour\" is none of node.id,"));

    // A platform is one, too, as far as platforms are known.
    let mut arm = service("web");
    arm.platform = "linux/arm64/v8".to_owned();
    assert_eq!(world.place(&stack([arm.clone()]), ""), "web/1 c");
    arm.platform = "linux/s390x".to_owned();
    assert_eq!(
        world.why(&stack([arm.clone()]), "web/1 a"),
        ["web/1: no node satisfies platform linux/s390x: a, b, c do not; d is away since 12:30"]
    );
    world.nodes[1].arch = String::new();
    assert_eq!(world.place(&stack([arm]), ""), "web/1 b");

    // A label that is taken away moves the task.
    let ssd = stack([constrained("web", "node.labels.ssd == true")]);
    world.nodes[1]
        .labels
        .insert("ssd".to_owned(), "true".to_owned());
    world.nodes[0].labels.clear();
    assert_eq!(
        world.why(&ssd, "web/1 a"),
        ["web/1 from a to b: a does not satisfy node.labels.ssd == true"]
    );
}

#[test]
fn preferences() {
    let mut world = World::of(nodes(["a", "b", "c", "d"]));
    for (node, (zone, rack)) in
        world
            .nodes
            .iter_mut()
            .zip([("x", "1"), ("x", "1"), ("x", "2"), ("y", "1")])
    {
        node.labels.insert("zone".to_owned(), zone.to_owned());
        node.labels.insert("rack".to_owned(), rack.to_owned());
    }
    let spread = |replicas, labels: &[&str]| {
        stack([with_deploy("web", |d| {
            d.replicas = Some(replicas);
            d.placement.preferences = (labels.iter())
                .map(|l| PlacementPreference {
                    spread: (*l).to_owned(),
                    ..PlacementPreference::default()
                })
                .collect();
        })])
    };
    let count = |stack, on: &str| {
        let placed = world.place(&stack, "");
        placed.split(", ").filter(|t| t.ends_with(on)).count()
    };
    // Half of them in the zone with one node.
    assert_eq!(count(spread(6, &["node.labels.zone"]), "d"), 3);
    // And a third of the others in each rack of the other zone.
    let both = ["node.labels.zone", "node.labels.rack"];
    assert_eq!(count(spread(8, &both), "d"), 4);
    assert_eq!(count(spread(8, &both), "c"), 2);
    assert_eq!(
        world.why(&spread(2, &["node.labels.zone"]), "web/1 a")[1],
        "web/2 on d: evens out node.labels.zone"
    );
    assert_eq!(
        world.why(&spread(1, &["zone"]), ""),
        [
            "web/1: preference \"zone\" cannot be read: it is neither node.labels.KEY nor engine.labels.KEY"
        ]
    );
}

#[test]
fn max_replicas_per_node() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    world.nodes[2].standing = Standing::Drained;
    let web = stack([with_deploy("web", |d| {
        d.replicas = Some(5);
        d.placement.max_replicas = 2;
    })]);
    let why = world.why(&web, "web/1 a, web/2 a, web/3 a");
    assert_eq!(
        why[2],
        "web/3 from a to b: a has 2 of its tasks, as many as it may"
    );
    assert_eq!(
        why[4],
        "web/5: max_replicas_per_node is 2: a, b have 2; c is drained"
    );
}

#[test]
fn reservations() {
    let mut world = World::of(nodes(["a", "b"]));
    world.nodes[0].memory = 5 * GIB / 4;
    world.nodes[0].cpus = 1_500;
    world.nodes[1].standing = Standing::Drained;
    let memory = stack([reserving("db", 1, 0.0, 4 * GIB)]);
    assert_eq!(
        world.why(&memory, ""),
        ["db/1: no node has 4 GiB of memory free: a has 1.2 GiB, b is drained"]
    );
    let cpus = stack([reserving("db", 1, 2.0, 0)]);
    assert_eq!(
        world.why(&cpus, ""),
        ["db/1: no node has 2 processors free: a has 1.5, b is drained"]
    );
    // Each of several is counted; limits are not.
    let two = stack([reserving("db", 2, 1.0, 0)]);
    assert_eq!(world.place(&two, ""), "db/1 a");
    let limits = stack([with_deploy("db", |d| {
        d.resources.limits.get_or_insert_default().cpus.0 = 64.0;
    })]);
    assert_eq!(world.place(&limits, ""), "db/1 a");
    // What other stacks took counts, and an unknown capacity is no limit.
    world.others.push((
        named("other", [reserving("x", 1, 1.0, GIB)]),
        tasks("x/1 a"),
    ));
    assert_eq!(
        world.why(&stack([reserving("db", 1, 0.5, GIB)]), ""),
        ["db/1: no node has 1 GiB of memory free: a has 256 MiB, b is drained"]
    );
    world.nodes[1].standing = Standing::Ready;
    assert_eq!(world.place(&memory, ""), "db/1 b");
    world.nodes[1].cpus = 1;
    assert_eq!(
        world.why(&stack([reserving("db", 1, 0.5, GIB)]), ""),
        [
            "db/1: no node fits: a has 256 MiB of memory free, not 1 GiB, \
          b has 0.001 processors free, not 0.5"
        ]
    );
}

#[test]
fn a_raise_moves_who_raised() {
    let mut world = World::of(nodes(["a", "b"]));
    world.nodes[0].memory = 4 * GIB;
    world.nodes[1].memory = 4 * GIB;
    let small = named("small", [reserving("x", 1, 0.0, GIB)]);
    let big = named("big", [reserving("y", 1, 0.0, 7 * GIB / 2)]);
    world.others.push((small.clone(), tasks("x/1 a")));
    world.others.push((big.clone(), tasks("y/1 a")));
    assert_eq!(world.place(&small, "x/1 a"), "x/1 a");
    assert_eq!(
        world.why(&big, "y/1 a"),
        ["y/1 from a to b: a has 3 GiB of memory free, not 3.5 GiB"]
    );
    // Its own only as far as needed.
    let three = stack([reserving("web", 3, 0.0, 2 * GIB)]);
    let world = World {
        others: Vec::new(),
        ..world
    };
    assert_eq!(
        world.place(&three, "web/1 a, web/2 a, web/3 a"),
        "web/1 a, web/2 a, web/3 b"
    );
}

#[test]
fn generic_resources_and_devices() {
    let mut world = World::of(nodes(["a", "b"]));
    world.nodes[0].generic.insert("SSD".to_owned(), 2);
    world.nodes[1].generic.insert("gpu".to_owned(), 4);
    let ssd = |replicas, kind: &str, value| {
        stack([with_deploy("db", |d| {
            d.replicas = Some(replicas);
            let reserved = d.resources.reservations.get_or_insert_default();
            let spec = DiscreteResource {
                kind: kind.to_owned(),
                value,
                ..DiscreteResource::default()
            };
            reserved.generic_resources.push(GenericResource {
                discrete_resource_spec: Some(spec),
                ..GenericResource::default()
            });
        })])
    };
    assert_eq!(world.place(&ssd(3, "SSD", 1), ""), "db/1 a, db/2 a");
    assert_eq!(
        world.why(&ssd(1, "SSD", 3), ""),
        ["db/1: no node has 3 SSD free: a has 2, b has 0"]
    );
    assert_eq!(
        world.why(&ssd(1, "FPGA", 1), ""),
        ["db/1: no node has 1 FPGA free: a, b have 0"]
    );
    let gpus = |count| {
        let mut service = replicated("ai", 2);
        service.gpus = vec![
            serde_json::from_value(serde_json::json!({
                "capabilities": ["gpu"], "count": count
            }))
            .unwrap(),
        ];
        stack([service])
    };
    assert_eq!(world.place(&gpus(2), ""), "ai/1 b, ai/2 b");
    assert_eq!(world.place(&gpus(-1), ""), "ai/1 b");
    // If nobody counts them, the Engine decides.
    world.nodes[1].generic.clear();
    assert_eq!(world.explain(&gpus(2), "").tasks["ai"].len(), 2);
}

#[test]
fn host_ports() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    world.nodes[1].ports.insert(Port::new("0.0.0.0", 80, ""));
    world.nodes[2].standing = Standing::Drained;
    let web = stack([publishing(replicated("web", 2), "", "80")]);
    assert_eq!(
        world.why(&web, ""),
        [
            "web/1 on a: is the only one that fits",
            "web/2: no node has port 80/tcp free: a, b have it taken; c is drained"
        ]
    );
    // Other stacks hold ports as well; two addresses do not clash, all addresses do.
    world.others.push((
        named("other", [publishing(service("x"), "10.0.0.1", "90")]),
        tasks("x/1 a"),
    ));
    let port = |ip, port| world.place(&stack([publishing(replicated("web", 1), ip, port)]), "");
    assert_eq!(port("", "90"), "web/1 b");
    assert_eq!(port("::", "90"), "web/1 b");
    assert_eq!(port("10.0.0.1", "90"), "web/1 b");
    assert_eq!(port("10.0.0.2", "80"), "web/1 a");
    let many = |published| {
        let stack = stack([publishing(replicated("web", 9), "10.0.0.2", published)]);
        world.explain(&stack, "").tasks["web"].len()
    };
    assert_eq!(many("90"), 2);
    assert_eq!(many("8000-8010"), 9);
    assert_eq!(many(""), 9);
    // Two stacks that both got it: one leaves.
    let held = |name| named(name, [publishing(service("x"), "", "70")]);
    world.others = vec![(held("one"), tasks("x/1 a")), (held("two"), tasks("x/1 a"))];
    assert_eq!(world.place(&held("one"), "x/1 a"), "x/1 a");
    assert_eq!(
        world.why(&held("two"), "x/1 a"),
        ["x/1 from a to b: a has port 70/tcp taken"]
    );
}

#[test]
fn global_services() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    world.nodes[1].standing = Standing::Drained;
    let agent = stack([global("agent")]);
    assert_eq!(
        world.why(&agent, ""),
        [
            "agent/1 on a: every node has one",
            "agent/2 on c: every node has one"
        ]
    );
    // A new node gets the lowest free number, a node that is away keeps its own.
    world.nodes[0].standing = gone();
    world.nodes[1].standing = Standing::Ready;
    assert_eq!(
        world.why(&agent, "agent/1 a, agent/3 c"),
        [
            "agent/1 on a: waits for its node, which is away since 12:30",
            "agent/2 on b: every node has one",
            "agent/3 stays on c"
        ]
    );
    // One on each; members only.
    assert_eq!(
        world.place(&agent, "agent/1 x, agent/2 c, agent/3 c, agent/9 a"),
        "agent/1 b, agent/2 c, agent/9 a"
    );
    world.nodes[2].memory = GIB;
    let big = stack([with_deploy("agent", |d| {
        d.mode = "global".to_owned();
        d.resources.reservations.get_or_insert_default().memory.0 = 2 << 30;
    })]);
    assert_eq!(
        world.why(&big, ""),
        [
            "agent/1 on b: every node has one",
            "agent/2: c has 1 GiB of memory free, not 2 GiB"
        ]
    );
    let mut none = agent.clone();
    none.scale.insert("agent".to_owned(), 0);
    assert_eq!(world.place(&none, "agent/1 b"), "");
}

#[test]
fn what_runs_already_is_adopted() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    world.running = tasks("web/1 c, web/2 b");
    world.nodes[1].standing = Standing::Drained;
    let web = stack([replicated("web", 2)]);
    assert_eq!(
        world.why(&web, ""),
        [
            "web/1 on c: it runs there",
            "web/2 on a: has fewest tasks of web"
        ]
    );
    assert_eq!(world.place(&web, "web/1 a, web/2 a"), "web/1 a, web/2 a");
}

#[test]
fn services_that_say_nothing_keep_together() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    let mut shop = stack([service("db"), service("web"), replicated("api", 3)]);
    shop.home = "id-b".to_owned();
    let placed = world.place(&shop, "");
    assert!(placed.ends_with("db/1 b, web/1 b"), "{placed}");
    for node in ["a", "b", "c"] {
        assert_eq!(
            placed
                .split(", ")
                .filter(|t| t.starts_with("api") && t.ends_with(node))
                .count(),
            1
        );
    }
    shop.scale.insert("web".to_owned(), 3);
    assert!(
        world
            .place(&shop, "")
            .ends_with("db/1 b, web/1 b, web/2 b, web/3 b")
    );
    assert!(
        world
            .place(&shop, "db/1 c")
            .ends_with("db/1 c, web/1 c, web/2 c, web/3 c")
    );
    // The home is a wish only.
    world.nodes[1].standing = gone();
    let pair = stack([service("db"), service("web")]);
    let together = world.explain(&pair, "").tasks;
    assert_eq!(together["db"], together["web"]);
    world.nodes[0].images.insert("image:latest".to_owned());
    assert_eq!(
        world.why(&pair, ""),
        [
            "db/1 on a: has the image",
            "web/1 on a: keeps the stack together"
        ]
    );
}

#[test]
fn images_and_load_decide_between_equals() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    world.others.push((
        named("other", [replicated("x", 3)]),
        tasks("x/1 a, x/2 b, x/3 b"),
    ));
    let web = stack([replicated("web", 1)]);
    assert_eq!(world.why(&web, ""), ["web/1 on c: has fewest tasks"]);
    let mut there = web.clone();
    there.project.services.get_mut("web").unwrap().image = "docker.io/library/nginx".to_owned();
    world.nodes[1].images.insert("nginx:latest".to_owned());
    assert_eq!(world.why(&there, ""), ["web/1 on b: has the image"]);
}

#[test]
fn services_that_do_not_run() {
    let world = World::of(nodes(["a"]));
    let mut outside = service("outside");
    outside.provider = Some(Default::default());
    let mut shop = stack([service("off"), service("web"), outside]);
    shop.active.remove("off");
    assert_eq!(world.place(&shop, "off/1 a, outside/1 a"), "web/1 a");
    let cluster = world.cluster();
    assert!(!needs_placing(
        &shop,
        &tasks("web/1 a"),
        &tasks(""),
        &cluster
    ));
    assert!(needs_placing(
        &shop,
        &tasks("web/1 a, off/1 a"),
        &tasks(""),
        &cluster
    ));
    assert!(needs_placing(
        &shop,
        &tasks(""),
        &tasks("web/1 a"),
        &cluster
    ));
}

#[test]
fn moves_that_even_out() {
    let moves = |world: &World, stack, current: &str| {
        let moves = rebalance(stack, &tasks(current), &world.cluster());
        let text = moves.iter().map(|m| {
            let (from, to) = (&m.from[3..], &m.to[3..]);
            format!("{}/{} {from} {to}", m.service, m.slot)
        });
        text.collect::<Vec<_>>().join(", ")
    };
    let mut world = World::of(nodes(["a", "b", "c"]));
    let web = stack([replicated("web", 4)]);
    let all_on_a = "web/1 a, web/2 a, web/3 a, web/4 a";
    let moved = moves(&world, &web, all_on_a);
    assert_eq!(moved.split(", ").count(), 2, "{moved}");
    assert!(moved.starts_with("web/4 a "));
    assert_eq!(
        moves(&world, &web, "web/1 a, web/2 a, web/3 b, web/4 c"),
        ""
    );
    world.nodes[2].standing = Standing::Drained;
    assert_eq!(moves(&world, &web, all_on_a), "web/4 a b, web/3 a b");
    // Services with one task each are evened out together.
    let many = stack([
        replicated("u", 1),
        replicated("v", 1),
        replicated("w", 1),
        replicated("x", 1),
    ]);
    let mut cluster = world.cluster();
    let current = tasks("u/1 a, v/1 a, w/1 a, x/1 a");
    cluster.add(&many, &current);
    assert_eq!(rebalance(&many, &current, &cluster).len(), 2);
    // What is tied stays, and so does what keeps together.
    let tied = stack([
        mounting(replicated("db", 2), "data"),
        service("x"),
        service("y"),
    ]);
    assert_eq!(moves(&world, &tied, "db/1 a, db/2 a, x/1 a, y/1 a"), "");
}

#[test]
fn each_stack_has_one_coordinator() {
    let nodes: Vec<String> = (0..10).map(|n| format!("node{n}")).collect();
    let of = |stack: &str, but: &str| {
        let live = nodes.iter().map(String::as_str).filter(|n| *n != but);
        coordinator(stack, live).unwrap().to_owned()
    };
    // The same in every version: nodes of two versions must agree.
    assert_eq!(of("shop", ""), "node6");
    assert_eq!(
        coordinator("shop", nodes.iter().rev().map(String::as_str)),
        Some("node6")
    );
    assert_eq!(coordinator("shop", [].into_iter()), None);
    let mut led = std::collections::BTreeMap::new();
    for stack in (0..1000).map(|n| format!("stack{n}")) {
        let first = of(&stack, "");
        *led.entry(first.clone()).or_insert(0) += 1;
        // Only stacks of the node that is lost get another.
        if first != "node5" {
            assert_eq!(of(&stack, "node5"), first);
        }
    }
    assert!(led.values().all(|n| (60..140).contains(n)), "{led:?}");
}
