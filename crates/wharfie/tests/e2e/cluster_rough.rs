//! Faults that come and go, work one way only, or hit all at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wharfie_lab::{Direction, throughout};

use crate::cluster::{Cluster, Node};
use crate::cluster_spread::everywhere;
use crate::stack::{agent_of, soon};

const SIX: &str = "
services:
  app:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    deploy: {replicas: 6}
";

const APPS: [&str; 6] = ["app-1", "app-2", "app-3", "app-4", "app-5", "app-6"];

fn once(cluster: &Cluster, stack: &str) -> Result<Vec<(String, String)>> {
    let all = everywhere(cluster, stack);
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names == APPS, "{all:?}");
    Ok(all)
}

/// How often tasks were moved, as the agents say.
fn moves(cluster: &Cluster) -> usize {
    let logs = cluster.nodes().iter().map(Node::log);
    logs.map(|log| log.lines().filter(|l| l.contains(" moved ")).count())
        .sum()
}

#[test]
#[allow(clippy::disallowed_methods)] // two seconds of each are what is tested
fn a_flapping_host_makes_no_storm() {
    let Some(cluster) = Cluster::of(3, "flaps", SIX) else {
        return;
    };
    cluster.node(1).ok("up -d");
    let first = soon(|| once(&cluster, "flaps"));
    let machine = cluster.node(3).host.machine();
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        machine.cut().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        machine.heal().unwrap();
        std::thread::sleep(Duration::from_secs(2));
    }
    cluster.is_whole();
    let after = soon(|| once(&cluster, "flaps"));
    // At most those of the host that flapped have moved, once.
    let own = first.iter().filter(|(_, node)| node == "h3").count();
    let moves = moves(&cluster);
    assert!(moves <= own, "{moves} moves: {first:?}, {after:?}");
}

#[test]
fn a_link_that_works_one_way_counts_as_none() {
    let Some(cluster) = Cluster::of(3, "oneway", SIX) else {
        return;
    };
    cluster.node(1).ok("up -d");
    soon(|| once(&cluster, "oneway"));
    let h3 = cluster.node(3);
    // It hears all, and nobody hears it.
    h3.host.machine().cut_one_way(Direction::Out).unwrap();
    soon(|| {
        let all = everywhere(&cluster, "oneway");
        let others = all.iter().filter(|(_, node)| node != "h3");
        let names: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
        ensure!(names == APPS, "{all:?}");
        Ok(())
    });
    h3.host.machine().heal().unwrap();
    cluster.is_whole();
    soon(|| once(&cluster, "oneway"));
}

#[test]
fn an_engine_that_dies_is_left_by_its_tasks() {
    let Some(cluster) = Cluster::of(3, "dead", SIX) else {
        return;
    };
    cluster.node(1).ok("up -d");
    let first = soon(|| once(&cluster, "dead"));
    let h2 = cluster.node(2);
    // One that is soon back is waited for.
    h2.host.engine().restart().unwrap();
    let again = soon(|| once(&cluster, "dead"));
    assert_eq!(again, first);
    h2.host.engine().kill().unwrap();
    soon(|| {
        let all = everywhere(&cluster, "dead");
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        // Its own Engine cannot be asked.
        ensure!(names == APPS, "{all:?}");
        Ok(())
    });
    cluster.node(1).ok("status").says(["h2"]);
    h2.host.engine().start().unwrap();
    let after = soon(|| once(&cluster, "dead"));
    for (task, node) in first.iter().filter(|(_, node)| node != "h2") {
        assert!(
            after.contains(&(task.clone(), node.clone())),
            "{task} left {node}"
        );
    }
}

#[test]
fn each_piece_goes_on_and_all_come_to_one() {
    let Some(cluster) = Cluster::of(3, "pieces", SIX) else {
        return;
    };
    cluster.node(1).ok("up -d");
    let first = soon(|| once(&cluster, "pieces"));
    for node in cluster.nodes() {
        node.host.machine().cut().unwrap();
    }
    soon(|| {
        let all = everywhere(&cluster, "pieces");
        ensure!(all.len() == 3 * APPS.len(), "{all:?}");
        Ok(())
    });
    cluster.lab().heal().unwrap();
    cluster.is_whole();
    // Nobody was on the larger side: all is where it was.
    let after = soon(|| once(&cluster, "pieces"));
    assert_eq!(after, first);
}

#[test]
fn all_hosts_at_once() {
    let Some(cluster) = Cluster::of(3, "atonce", SIX) else {
        return;
    };
    cluster.node(1).ok("up -d");
    let first = soon(|| once(&cluster, "atonce"));
    for node in cluster.nodes() {
        node.host.power_off().unwrap();
    }
    for node in cluster.nodes() {
        node.host.power_on().unwrap();
        node.begin();
    }
    cluster.is_whole();
    let after = soon(|| once(&cluster, "atonce"));
    assert_eq!(after, first);
    throughout(Duration::from_secs(3), || {
        once(&cluster, "atonce").map(drop)
    })
    .unwrap();
}

/// Debian's libfaketime, wherever the architecture has it.
fn faketime() -> String {
    let found = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = found.map(|d| d.path().join("faketime/libfaketime.so.1"));
    let found = found.find(|p| p.exists());
    found.expect("the package faketime").display().to_string()
}

#[test]
fn a_clock_an_hour_wrong_decides_nothing() {
    let Some(cluster) = Cluster::of(3, "clock", SIX) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    let first = soon(|| once(&cluster, "clock"));
    h2.end_agent();
    let library = faketime();
    h2.begin_with(&[
        ("LD_PRELOAD", &library),
        ("FAKETIME", "+1h"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    cluster.is_whole();
    // All have spoken to each other: whose clock is wrong is told by the larger number.
    for (node, said) in [(h1, &["h2"][..]), (h3, &["h2"]), (h2, &["h1", "h3"])] {
        soon(|| {
            let status = node.run("status");
            for other in said {
                let wrong = format!("node {other}: its clock is 3");
                ensure!(status.stdout.contains(&wrong), "{}: {status}", node.name());
            }
            Ok(())
        });
    }
    assert_eq!(soon(|| once(&cluster, "clock")), first);
    // Nobody waits for the one whose word does not count, and it does its part.
    h3.host.machine().cut().unwrap();
    soon(|| {
        let all = everywhere(&cluster, "clock");
        let others = all.iter().filter(|(_, node)| node != "h3");
        let names: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
        ensure!(names == APPS, "{all:?}");
        Ok(())
    });
    h3.host.machine().heal().unwrap();
    cluster.is_whole();
    soon(|| once(&cluster, "clock"));
    h2.ok("up -d --scale app=3");
    soon(|| {
        let all = everywhere(&cluster, "clock");
        ensure!(all.len() == 3, "{all:?}");
        Ok(())
    });
}

const HALVES: &str = "
services:
  keeps: {image: busybox, init: true, command: sleep 1000, stop_grace_period: 0s, network_mode: none, deploy: {replicas: 2}}
  one:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    x-wharfie: {singleton: true}
    deploy: {replicas: 1}
";

#[test]
fn of_two_halves_one_may_be_named_to_go_on() {
    let Some(cluster) = Cluster::of(2, "halves", HALVES) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h1.ok("up -d");
    let whole = |tasks: &[&str]| {
        soon(|| {
            let all = everywhere(&cluster, "halves");
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            ensure!(names == tasks, "{all:?}");
            Ok(())
        });
    };
    let sides = |h1: &[&str], h2: &[&str]| {
        soon(|| {
            let all = everywhere(&cluster, "halves");
            let side = |node: &str| {
                let own = all.iter().filter(|(_, n)| n == node);
                own.map(|(task, _)| task.as_str()).collect::<Vec<_>>()
            };
            ensure!(side("h1") == h1 && side("h2") == h2, "{all:?}");
            Ok(())
        });
    };
    whole(&["keeps-1", "keeps-2", "one-1"]);
    // Each half goes on with what may run twice; what must run once at most runs nowhere.
    h2.host.machine().cut().unwrap();
    sides(&["keeps-1", "keeps-2"], &["keeps-1", "keeps-2"]);
    h2.host.machine().heal().unwrap();
    cluster.is_whole();
    whole(&["keeps-1", "keeps-2", "one-1"]);
    h1.ok("node label h2 wharfie.tie-breaker=true");
    soon(|| {
        let nodes = h2.ok("node ls").stdout;
        ensure!(nodes.contains("tie-breaker"), "{nodes}");
        Ok(())
    });
    h2.host.machine().cut().unwrap();
    sides(&["keeps-1", "keeps-2"], &["keeps-1", "keeps-2", "one-1"]);
    h2.host.machine().heal().unwrap();
    cluster.is_whole();
    whole(&["keeps-1", "keeps-2", "one-1"]);
}

/// A node's state on a file system of its own, that can be full.
struct SmallDisk {
    path: String,
}

impl SmallDisk {
    /// Moves a node's state there, while its agent is away.
    fn under(node: &Node) -> Self {
        let [_, (_, state)] = agent_of(&node.host);
        let path = state.to_str().unwrap().to_owned();
        node.end_agent();
        let move_ = "mv $0 $0.big && mkdir $0 && mount -t tmpfs -o size=8m,mode=700 tmpfs $0 && cp -a $0.big/. $0";
        node.program("sh", ["-c", move_, &path]).has_code(0);
        node.start_agent();
        Self { path }
    }

    fn fill(&self, node: &Node) {
        let fill = "cat /dev/zero >$0/filler 2>/dev/null; true";
        node.program("sh", ["-c", fill, &self.path]).has_code(0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its agent may still have files open there.
        let _ = std::process::Command::new("umount")
            .args(["-l", &self.path])
            .status();
    }
}

#[test]
fn a_node_whose_disk_is_full_keeps_what_it_has_and_gets_nothing_new() {
    let Some(cluster) = Cluster::of(3, "full", SIX) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    let disk = SmallDisk::under(h2);
    cluster.is_whole();
    h1.ok("up -d");
    soon(|| once(&cluster, "full"));
    disk.fill(h2);
    // What cannot be written there is said; elsewhere it is done.
    h1.fails(1, "up -d --scale app=8")
        .says(["cannot use the state in", "/h2/", "make room"]);
    let there = |node: &str| {
        let all = everywhere(&cluster, "full");
        all.into_iter()
            .filter(|(_, n)| n == node)
            .collect::<Vec<_>>()
    };
    let own = there("h2");
    h1.run("up -d --scale app=6");
    // What is lost goes to who can take it in, and what runs on the other goes on.
    h3.host.machine().cut().unwrap();
    soon(|| {
        let all = everywhere(&cluster, "full");
        let others = all.iter().filter(|(_, node)| node != "h3");
        let names: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
        ensure!(names == APPS, "{all:?}");
        Ok(())
    });
    assert_eq!(there("h2"), own);
    h3.host.machine().heal().unwrap();
    cluster.is_whole();
    soon(|| once(&cluster, "full"));
    // With room again it catches up.
    h2.program("sh", ["-c", "rm -f $0/filler", &disk.path])
        .has_code(0);
    h2.ok("up -d --scale app=2");
    soon(|| {
        let all = everywhere(&cluster, "full");
        ensure!(all.len() == 2, "{all:?}");
        Ok(())
    });
    h2.end_agent();
}

#[test]
fn nodes_whose_addresses_have_all_changed_find_each_other() {
    let Some(cluster) = Cluster::of(2, "moved", SIX) else {
        return;
    };
    cluster.nodes().iter().for_each(Node::end_agent);
    for (number, node) in (1..).zip(cluster.nodes()) {
        let old = node.host.machine().address();
        let new = cluster.lab().subnet().address(150 + number);
        // The second address of a network goes with the first, as do routes through it.
        let change = "d=$(ip -o -4 address show to $0/32 | awk '{print $2; exit}')
            ip address del $0/24 dev $d && ip address add $1/24 dev $d &&
            ip route replace default via $2 && ip address show dev $d";
        let [old, new] = [old, new].map(|a| a.to_string());
        let router = cluster.lab().subnet().router().to_string();
        node.program("sh", ["-c", change, &old, &new, &router])
            .has_code(0)
            .says([new.as_str()]);
    }
    // Neither is where the other knows it to be.
    cluster.nodes().iter().for_each(Node::start_agent);
    cluster.is_whole();
}
