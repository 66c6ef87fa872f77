//! Local data, and services that live together.

use super::world::*;
use serde_json::json;
use wharfie_compose::model::{FileObject, FileReference, Service};
use wharfie_core::Stack;
use wharfie_core::schedule::Standing;

fn db(replicas: i64) -> Stack {
    stack([mounting(replicated("db", replicas), "data")])
}

#[test]
fn a_new_volume_is_tied_to_where_its_service_goes() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    let placed = world.explain(&db(3), "");
    let on: Vec<&String> = placed.tasks["db"].values().collect();
    assert!(on.len() == 3 && on.iter().all(|n| *n == on[0]), "{on:?}");
    assert_eq!(
        placed.volumes,
        [("shop_data".to_owned(), on[0].clone())].into()
    );
    // As it is for one that is assigned, or runs, without the volume being known.
    assert_eq!(world.explain(&db(1), "db/1 c").volumes["shop_data"], "id-c");
    world.running = tasks("db/2 b");
    let placed = world.explain(&db(2), "");
    assert_eq!(text(&placed.tasks), "db/1 b, db/2 b");
    assert_eq!(placed.volumes["shop_data"], "id-b");
    // Known is known.
    world
        .volumes
        .insert("shop_data".to_owned(), "id-a".to_owned());
    let placed = world.explain(&db(1), "db/1 c");
    assert_eq!(
        (text(&placed.tasks).as_str(), placed.volumes.len()),
        ("db/1 a", 0)
    );
    assert_eq!(
        world.why(&db(1), "db/1 c"),
        ["db/1 from c to a: its volume shop_data is on a"]
    );
    assert_eq!(
        world.why(&db(1), ""),
        ["db/1 on a: has its volume shop_data"]
    );
}

#[test]
fn a_task_waits_for_its_volume() {
    let mut world = World::of(nodes(["h1", "h2"]));
    world
        .volumes
        .insert("shop_data".to_owned(), "id-h2".to_owned());
    let waits = |world: &World, current| world.why(&db(1), current);
    for (standing, why) in [
        (gone(), "is away since 12:30"),
        (unsure(), "is just away"),
        (
            Standing::Drained,
            "is drained; `wharfie volume move` takes it elsewhere",
        ),
    ] {
        world.nodes[1].standing = standing;
        let text = format!("waits for node h2, which has its volume shop_data: it {why}");
        assert_eq!(waits(&world, "db/1 h2"), [format!("db/1 on h2: {text}")]);
        assert_eq!(waits(&world, ""), [format!("db/1: {text}")]);
    }
    world.nodes.pop();
    assert_eq!(
        waits(&world, "db/1 h2"),
        ["db/1 on h2: waits for a node that is no longer a member, which has its volume shop_data"]
    );
    world.nodes.push(node("h2"));
    world.nodes[1].memory = GIB;
    // One that is there stays, whatever it wants now.
    let big = stack([mounting(reserving("db", 2, 0.0, 3 * GIB / 4), "data")]);
    assert_eq!(
        world.why(&big, "db/1 h2"),
        [
            "db/1 stays on h2",
            "db/2: node h2, which has its volume shop_data, has 256 MiB of memory free, not 768 MiB"
        ]
    );
    let moved = stack([mounting(constrained("db", "node.hostname == h1"), "data")]);
    assert_eq!(world.place(&moved, "db/1 h2"), "db/1 h2");
    assert_eq!(
        world.why(&moved, ""),
        ["db/1: node h2, which has its volume shop_data, does not satisfy node.hostname == h1"]
    );
}

#[test]
fn services_that_share_a_volume_are_together() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    let both = stack([
        mounting(replicated("db", 1), "data"),
        mounting(replicated("backup", 2), "data"),
        mounting(global("agent"), "data"),
    ]);
    let placed = world.explain(&both, "").tasks;
    assert!(placed["backup"].values().all(|n| *n == placed["db"][&1]));
    assert_eq!(placed["agent"].len(), 3);
    // Two volumes that are apart.
    let mut two = stack([mounting(mounting(replicated("db", 1), "data"), "logs")]);
    world
        .volumes
        .insert("shop_data".to_owned(), "id-a".to_owned());
    world
        .volumes
        .insert("shop_logs".to_owned(), "id-b".to_owned());
    let text = "waits for its data to be on one node: its volume shop_data is on a, \
                its volume shop_logs on b";
    assert_eq!(world.why(&two, ""), [format!("db/1: {text}")]);
    assert_eq!(world.why(&two, "db/1 b"), [format!("db/1 on b: {text}")]);
    // External ones tie as well, but are not made.
    for volume in two.project.volumes.values_mut() {
        volume.external = true;
    }
    world.volumes.remove("shop_logs");
    assert_eq!(world.place(&two, ""), "db/1 a");
    world.volumes.clear();
    assert!(world.explain(&two, "").volumes.is_empty());
}

#[test]
fn shared_storage_does_not_tie() {
    let mut world = World::of(nodes(["a", "b"]));
    world
        .volumes
        .insert("shop_data".to_owned(), "id-a".to_owned());
    world.nodes[0].standing = gone();
    let with = |driver: &str, options: &[(&str, &str)]| {
        let mut stack = db(1);
        let volume = stack.project.volumes.get_mut("data").unwrap();
        volume.driver = driver.to_owned();
        volume.driver_opts = (options.iter())
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        world.place(&stack, "db/1 a")
    };
    assert_eq!(with("", &[]), "db/1 a");
    assert_eq!(
        with(
            "local",
            &[("type", "none"), ("o", "bind"), ("device", "/srv")]
        ),
        "db/1 a"
    );
    assert_eq!(with("rexray", &[]), "db/1 b");
    assert_eq!(with("", &[("type", "nfs"), ("device", ":/srv")]), "db/1 b");
    assert_eq!(
        with("local", &[("type", "x"), ("o", "rw,addr=10.0.0.1")]),
        "db/1 b"
    );
    // It may also be told to begin anew.
    let mut fresh = db(1);
    fresh
        .project
        .extensions
        .insert("x-wharfie".to_owned(), json!({"volumes": "fresh"}));
    assert_eq!(world.place(&fresh, "db/1 a"), "db/1 b");
    let service = fresh.project.services.get_mut("db").unwrap();
    service
        .extensions
        .insert("x-wharfie".to_owned(), json!({"volumes": "stay"}));
    assert_eq!(world.place(&fresh, "db/1 a"), "db/1 a");
}

#[test]
fn files_tie_to_the_home() {
    let mut world = World::of(nodes(["a", "b"]));
    let at_home = |service: Service| {
        let mut stack = stack([service]);
        stack.home = "id-b".to_owned();
        stack
    };
    let tied = |path: &str, read_only| {
        let stack = at_home(binding(replicated("web", 4), path, read_only));
        world.place(&stack, "") == "web/1 b, web/2 b, web/3 b, web/4 b"
    };
    for path in [
        "/home/me/shop/conf",
        "/home/me/shop",
        "/srv/data",
        "/runner",
        "/var/lib/x",
    ] {
        assert!(tied(path, false), "{path}");
    }
    assert!(tied("/home/me/shop/conf", true));
    assert!(!tied("/home/me/shopping", true));
    for path in [
        "/var/run/docker.sock",
        "/etc/localtime",
        "/",
        "/sys",
        "/tmp/x",
        "/lib/modules",
    ] {
        assert!(!tied(path, false), "{path}");
    }
    // Files of secrets and configs are read on the node.
    let mut web = replicated("web", 4);
    web.secrets.push(FileReference {
        source: "key".to_owned(),
        ..FileReference::default()
    });
    let mut secret = at_home(web);
    let key = FileObject {
        file: "/home/me/shop/key".to_owned(),
        ..FileObject::default()
    };
    secret.project.secrets.insert("key".to_owned(), key);
    assert_eq!(
        world.place(&secret, ""),
        "web/1 b, web/2 b, web/3 b, web/4 b"
    );

    let mut conf = at_home(binding(replicated("web", 1), "/home/me/shop/conf", true));
    assert_eq!(
        world.why(&conf, "web/1 a"),
        ["web/1 from a to b: its path /home/me/shop/conf is on b"]
    );
    world.nodes[1].standing = Standing::Drained;
    assert_eq!(
        world.why(&conf, ""),
        ["web/1: waits for node b, which has its path /home/me/shop/conf: it is drained"]
    );
    // Without a home they are where they are, or anywhere.
    conf.home = "id-x".to_owned();
    assert_eq!(world.place(&conf, ""), "web/1 a");
    world.nodes[0].standing = gone();
    assert_eq!(world.place(&conf, "web/1 a"), "web/1 a");
    let agent = at_home(binding(global("agent"), "/home/me/shop/conf", true));
    world.nodes[0].standing = Standing::Ready;
    assert_eq!(world.place(&agent, ""), "agent/1 a");
}

fn beside(name: &str, replicas: i64, other: &str) -> Service {
    Service {
        network_mode: format!("service:{other}"),
        ..replicated(name, replicas)
    }
}

#[test]
fn pods_are_on_one_node() {
    let mut world = World::of(nodes(["a", "b", "c"]));
    let mut logs = replicated("logs", 1);
    logs.volumes_from = vec!["web:ro".to_owned()];
    let pod = stack([beside("proxy", 2, "web"), replicated("web", 1), logs]);
    let on = |placed: &wharfie_core::schedule::Tasks| {
        let mut nodes: Vec<String> = placed.values().flat_map(|s| s.values().cloned()).collect();
        nodes.dedup();
        nodes
    };
    let placed = world.explain(&pod, "").tasks;
    assert_eq!(on(&placed).len(), 1);
    assert_eq!(placed.values().map(|s| s.len()).sum::<usize>(), 4);
    // They follow the root's first task.
    assert_eq!(
        world.place(&pod, "proxy/1 a, web/1 b"),
        "logs/1 b, proxy/1 b, proxy/2 b, web/1 b"
    );
    world.nodes[1].standing = unsure();
    assert_eq!(
        world.place(&pod, "proxy/1 b, web/1 b"),
        "proxy/1 b, web/1 b"
    );
    world.nodes[1].standing = gone();
    let placed = world.explain(&pod, "proxy/1 b, web/1 b").tasks;
    assert!(on(&placed).len() == 1 && on(&placed)[0] != "id-b");
    // What they need is summed, and where all of it fits is better.
    world.nodes[1].standing = Standing::Ready;
    for (node, memory) in world.nodes.iter_mut().zip([3, 4, 3]) {
        node.memory = memory * GIB;
    }
    let mut proxy = beside("proxy", 1, "web");
    proxy.deploy = reserving("proxy", 1, 0.0, 2 * GIB).deploy;
    let pod = stack([proxy, reserving("web", 1, 0.0, 2 * GIB)]);
    assert_eq!(world.place(&pod, ""), "proxy/1 b, web/1 b");
    assert_eq!(
        world.place(&pod, "proxy/1 a, web/1 a"),
        "proxy/1 b, web/1 b"
    );
    world.nodes[1].standing = Standing::Drained;
    let why = world.why(&pod, "web/1 a");
    assert_eq!(
        why,
        [
            "proxy/1: node a, which has web/1, has 1 GiB of memory free, not 2 GiB",
            "web/1 stays on a"
        ]
    );
    world.nodes.truncate(1);
    world.nodes[0].memory = GIB;
    assert_eq!(
        world.why(&pod, ""),
        [
            "proxy/1: no node has 4 GiB of memory free: a has 1 GiB",
            "web/1: no node has 4 GiB of memory free: a has 1 GiB"
        ]
    );
}

#[test]
fn a_pod_with_a_global_service() {
    let world = World::of(nodes(["a", "b"]));
    let pod = stack([global("agent"), beside("proxy", 2, "agent")]);
    assert_eq!(
        world.place(&pod, ""),
        "agent/1 a, agent/2 b, proxy/1 a, proxy/2 a"
    );
    assert_eq!(
        world.place(&pod, "agent/1 b, agent/2 a"),
        "agent/1 b, agent/2 a, proxy/1 b, proxy/2 b"
    );
}
