//! Faults that come and go, work one way only, or hit all at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wharfie_lab::{Direction, throughout};

use crate::cluster::{Cluster, Node};
use crate::cluster_spread::everywhere;
use crate::stack::soon;

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
    soon(|| {
        let status = h1.run("status");
        ensure!(
            status.stdout.contains("node h2: its clock is 3"),
            "{status}"
        );
        Ok(())
    });
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
