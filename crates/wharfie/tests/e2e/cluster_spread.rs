//! Stacks over several hosts: where tasks run, and what becomes of them when hosts go away.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use wharfie_lab::throughout;

use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};

/// Running containers of a stack by name, with the nodes that their Engines say they are on.
pub(crate) fn everywhere(cluster: &Cluster, stack: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for node in cluster.nodes() {
        let Ok(containers) = node.host.engine().api("GET", "/containers/json", None) else {
            continue;
        };
        let prefix = format!("/{stack}-");
        for c in containers.as_array().into_iter().flatten() {
            let name = text(&c["Names"][0]);
            if let Some(short) = name.strip_prefix(&prefix) {
                all.push((short.to_owned(), node.name().to_owned()));
            }
        }
    }
    all.sort();
    all
}

/// Each task runs once, on one of these nodes; where.
fn once(cluster: &Cluster, stack: &str, tasks: &[&str]) -> Result<BTreeMap<String, String>> {
    let all = everywhere(cluster, stack);
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names == tasks, "{all:?}, not {tasks:?}");
    Ok(all.into_iter().collect())
}

/// How many of the tasks each node has.
fn counts(places: &BTreeMap<String, String>, service: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, node) in places.iter().filter(|(task, _)| task.starts_with(service)) {
        *counts.entry(node.clone()).or_default() += 1;
    }
    counts
}

const PAIR: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000, stop_grace_period: 0s, depends_on: [db]}
  db: {image: busybox, init: true, command: sleep 1000, stop_grace_period: 0s}
";

#[test]
fn two_hosts_are_enough() {
    let Some(cluster) = Cluster::of(2, "pair", PAIR) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h2.ok("up -d");
    let both = ["db-1", "web-1"];
    // An ordinary file stays together, where it was brought up.
    let places = once(&cluster, "pair", &both).unwrap();
    assert!(places.values().all(|n| n == "h2"), "{places:?}");

    h2.host.power_off().unwrap();
    soon(|| {
        let places = once(&cluster, "pair", &both)?;
        ensure!(places.values().all(|n| n == "h1"), "{places:?}");
        Ok(())
    });
    h1.ok("status").says(["1 up of 2 nodes", "! node h2"]);
    h1.ok("exec -T web true");
    // It is all there to go on with.
    h1.ok("up -d --scale web=2");
    h2.host.power_on().unwrap();
    h2.start_agent();
    cluster.is_whole();
    // What came up with the host again goes: the others carried on.
    let three = ["db-1", "web-1", "web-2"];
    soon(|| {
        let places = once(&cluster, "pair", &three)?;
        ensure!(places.values().all(|n| n == "h1"), "{places:?}");
        Ok(())
    });
    h2.ok("ps").says(["web-2", "h1"]);
    h2.ok("down");
    soon(|| once(&cluster, "pair", &[]));
}

const SPREAD: &str = "
services:
  app:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    deploy: {replicas: 6}
  mon:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    deploy: {mode: global}
  data:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    volumes: [kept:/data]
    deploy: {placement: {constraints: [node.hostname == h3]}}
volumes:
  kept:
";

const APPS: [&str; 6] = ["app-1", "app-2", "app-3", "app-4", "app-5", "app-6"];

#[test]
fn tasks_are_spread_and_move_only_when_they_must() {
    let Some(cluster) = Cluster::of(3, "spread", SPREAD) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    let whole = [&APPS[..], &["data-1", "mon-1", "mon-2", "mon-3"]].concat();
    let first = soon(|| once(&cluster, "spread", &whole));
    assert!(counts(&first, "app").values().all(|n| *n == 2), "{first:?}");
    assert_eq!(counts(&first, "mon").len(), 3, "{first:?}");
    assert_eq!(first["data-1"], "h3");
    let plan = h2.ok("plan");
    plan.says(["task app/1 on", "it stays"]);

    // What has data waits for its host; the rest goes on elsewhere, and nothing else moves.
    h3.host.machine().cut().unwrap();
    soon(|| {
        let all = everywhere(&cluster, "spread");
        let mut apps: Vec<&str> = all
            .iter()
            .filter(|(task, node)| node != "h3" && task.starts_with("app"))
            .map(|(task, _)| task.as_str())
            .collect();
        apps.sort_unstable();
        ensure!(apps == APPS, "{all:?}");
        for (task, node) in first.iter().filter(|(_, node)| *node != "h3") {
            ensure!(
                all.contains(&(task.clone(), node.clone())),
                "{task} left {node}"
            );
        }
        ensure!(
            !all.iter().any(|(t, n)| t == "data-1" && n != "h3"),
            "{all:?}"
        );
        Ok(())
    });
    h2.ok("status")
        .says(["data/1 waits for node h3, which has its volume spread_kept"]);
    h3.host.machine().heal().unwrap();
    cluster.is_whole();
    let after = soon(|| once(&cluster, "spread", &whole));
    assert_eq!(after["data-1"], "h3");
    assert_eq!(counts(&after, "mon").len(), 3, "{after:?}");

    // Drained: all but what has data goes.
    h1.ok("node drain h2");
    let drained = soon(|| {
        let tasks = [&APPS[..], &["data-1", "mon-1", "mon-2", "mon-3"]].concat();
        let tasks: Vec<&str> = tasks
            .into_iter()
            .filter(|t| !t.starts_with("mon") || after[*t] != "h2")
            .collect();
        let places = once(&cluster, "spread", &tasks)?;
        ensure!(!places.values().any(|n| n == "h2"), "{places:?}");
        Ok(places)
    });
    h3.ok("node ls").says(["up, drained"]);
    h1.ok("node undrain h2");
    soon(|| {
        let places = once(&cluster, "spread", &whole)?;
        ensure!(counts(&places, "mon").len() == 3, "{places:?}");
        Ok(())
    });
    // Nothing moves back by itself.
    let now = once(&cluster, "spread", &whole).unwrap();
    assert!(APPS.iter().all(|t| now[*t] == drained[*t]), "{now:?}");
    let would = h2.ok("--dry-run rebalance");
    assert_eq!(would.lines().len(), 2, "{would}");
    h2.ok("rebalance spread");
    soon(|| {
        let places = once(&cluster, "spread", &whole)?;
        let counts = counts(&places, "app");
        ensure!(
            counts.len() == 3 && counts.values().all(|n| *n == 2),
            "{places:?}"
        );
        Ok(())
    });
    h2.ok("--dry-run rebalance").says(["all is even"]);
}

#[test]
fn agents_may_go_without_anything_being_moved() {
    let Some(cluster) = Cluster::of(3, "steady", SPREAD) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    let whole = [&APPS[..], &["data-1", "mon-1", "mon-2", "mon-3"]].concat();
    let first = soon(|| once(&cluster, "steady", &whole));
    // One after the other, as in an upgrade.
    for (node, other) in [(h1, h2), (h2, h3), (h3, h1)] {
        node.end_agent();
        other.sees(node, "down");
        throughout(Duration::from_secs(4), || {
            let places = once(&cluster, "steady", &whole)?;
            ensure!(places == first, "{places:?}, not {first:?}");
            Ok(())
        })
        .unwrap();
        node.start_agent();
        cluster.is_whole();
    }
    // And at once after a crash.
    h2.kill_agent();
    h2.start_agent();
    cluster.is_whole();
    throughout(Duration::from_secs(4), || {
        let places = once(&cluster, "steady", &whole)?;
        ensure!(places == first, "{places:?}, not {first:?}");
        Ok(())
    })
    .unwrap();
}

const POLICIES: &str = "
services:
  one:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    x-wharfie: {singleton: true}
    deploy: {replicas: 1}
  stops:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    x-wharfie: {when-isolated: stop}
    deploy: {replicas: 3}
  keeps:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    deploy: {replicas: 3}
";

#[test]
fn each_side_does_as_the_policy_says() {
    let Some(cluster) = Cluster::of(3, "policy", POLICIES) else {
        return;
    };
    cluster.node(1).ok("up -d");
    let whole = [
        "keeps-1", "keeps-2", "keeps-3", "one-1", "stops-1", "stops-2", "stops-3",
    ];
    let first = soon(|| once(&cluster, "policy", &whole));
    let alone = cluster
        .nodes()
        .iter()
        .find(|n| n.name() == first["one-1"])
        .unwrap();
    alone.host.machine().cut().unwrap();
    soon(|| {
        let all = everywhere(&cluster, "policy");
        let side = |of_alone: bool| {
            let own = all.iter().filter(|(_, n)| (n == alone.name()) == of_alone);
            own.map(|(task, _)| task.as_str()).collect::<Vec<_>>()
        };
        // The larger side has everything; the smaller one what may run twice.
        ensure!(side(false) == whole, "{all:?}");
        ensure!(side(true) == ["keeps-1", "keeps-2", "keeps-3"], "{all:?}");
        Ok(())
    });
    alone.host.machine().heal().unwrap();
    cluster.is_whole();
    soon(|| once(&cluster, "policy", &whole));
}

const ACROSS: &str = r#"
services:
  db:
    image: busybox
    init: true
    command: sh -c 'sleep 3; touch /ready; sleep 1000'
    stop_grace_period: 0s
    network_mode: none
    healthcheck: {test: "test -e /ready", interval: 500ms, retries: 20}
    deploy: {placement: {constraints: [node.hostname == h1]}}
  job:
    image: busybox
    init: true
    command: sh -c 'sleep 1; exit 0'
    network_mode: none
    restart: "no"
    deploy: {placement: {constraints: [node.hostname == h2]}}
  web:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    depends_on:
      db: {condition: service_healthy}
      job: {condition: service_completed_successfully}
    deploy: {placement: {constraints: [node.hostname == h3]}}
"#;

#[test]
fn conditions_hold_across_hosts() {
    let Some(cluster) = Cluster::of(3, "across", ACROSS) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h2.ok("up -d");
    let at = |node: &Node, name: &str, field: &str| {
        let path = format!("/containers/across-{name}-1/json");
        let inspected = node.host.engine().api("GET", &path, None).unwrap();
        text(&inspected["State"][field])
    };
    let started = at(h3, "web", "StartedAt");
    let inspected = h1
        .host
        .engine()
        .api("GET", "/containers/across-db-1/json", None);
    let log = inspected.unwrap()["State"]["Health"]["Log"].clone();
    let good = log.as_array().into_iter().flatten();
    let good: Vec<String> = good
        .filter(|l| l["ExitCode"] == 0)
        .map(|l| text(&l["End"]))
        .collect();
    assert!(
        good.iter().any(|end| *end < started),
        "web at {started}, db was well at {good:?}"
    );
    assert!(at(h2, "job", "FinishedAt") < started);
    assert_eq!(at(h2, "job", "Status"), "exited");
    h1.ok("down");
    soon(|| once(&cluster, "across", &[]));
}

#[test]
fn a_task_that_fits_nowhere_says_why() {
    let big = "
services:
  big:
    image: busybox
    command: sleep 1000
    network_mode: none
    deploy:
      resources: {reservations: {memory: 900G}}
  picky:
    image: busybox
    command: sleep 1000
    network_mode: none
    stop_grace_period: 0s
    deploy: {placement: {constraints: [node.labels.ssd == true]}}
";
    let Some(cluster) = Cluster::of(2, "fits", big) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    let plan = h1.ok("plan");
    plan.says(["task big/1 nowhere: waits: no node has 900 GiB of memory free"]);
    plan.says(["task picky/1 nowhere: waits: no node satisfies node.labels.ssd == true"]);
    h1.ok("up -d");
    h2.ok("status")
        .says(["stack fits", "no node has 900 GiB of memory free"]);
    // As soon as it can it runs.
    h1.ok("node label h2 ssd=true");
    soon(|| {
        let places = once(&cluster, "fits", &["picky-1"])?;
        ensure!(places["picky-1"] == "h2", "{places:?}");
        Ok(())
    });
}
