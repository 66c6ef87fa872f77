//! What a cluster does while some of it is away, and when all of it is there again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wharfie_lab::throughout;

use crate::cluster::{Cluster, Node};
use crate::cluster_commands::stacks;
use crate::cluster_spread::everywhere;
use crate::stack::{soon, text};

const PAIR: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000}
  db: {image: busybox, init: true, command: sleep 1000}
";

/// States of a node's containers of the stack, as its Engine tells them.
fn running(node: &Node) -> Vec<(String, String)> {
    let all = node.containers();
    let prefix = format!("/{}-", node.stack_name());
    all.iter()
        .map(|c| {
            let name = text(&c["Names"][0]);
            let short = name.trim_start_matches(&prefix).to_owned();
            (short, text(&c["State"]))
        })
        .collect()
}

#[track_caller]
fn becomes(node: &Node, wanted: &[(&str, &str)]) {
    soon(|| {
        let now = running(node);
        let short = now.iter().map(|(n, s)| (n.as_str(), s.as_str()));
        ensure!(short.eq(wanted.iter().copied()), "{now:?}");
        Ok(())
    });
}

/// All nodes know the same stacks in the same revisions.
fn agree(cluster: &Cluster) -> Result<()> {
    let first = stacks(cluster.node(1))?;
    for node in cluster.nodes() {
        let here = stacks(node)?;
        ensure!(here == first, "{}: {here:?}, h1: {first:?}", node.name());
    }
    Ok(())
}

#[test]
fn agents_die_and_come_back() {
    let Some(cluster) = Cluster::of(3, "dying", PAIR) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    h3.ok("-p side up -d db");

    h3.kill_agent();
    for node in [h1, h2] {
        node.sees(h3, "down");
        let listed = node.ok("ps -A");
        listed.says(["dying-web-1", "node h3 is left out: it is away since"]);
        node.ok("status").says(["2 up of 3 nodes", "! node h3"]);
        node.fails(1, "status -q").says(["node h3"]);
        soon(|| {
            let listed = node.ok("ls").stdout;
            ensure!(
                listed.contains("dying") && listed.contains("side"),
                "{listed}"
            );
            Ok(())
        });
    }
    h2.ok("exec -T web true");
    // What ran there is restored elsewhere: nobody can tell whether it still does.
    soon(|| {
        let listed = h1.run("ps -A");
        ensure!(listed.stdout.contains("side-db-1"), "{listed}");
        Ok(())
    });
    h1.ok("-p side exec -T db true");
    // What others change meanwhile is made good when it is back.
    h2.ok("-p more up -d --on h2 web");
    h2.ok("stop -t 0 db");
    h3.start_agent();
    cluster.is_whole();
    soon(|| agree(&cluster));
    soon(|| {
        let all = everywhere(&cluster, "side");
        ensure!(all.len() == 1 && all[0].1 != "h3", "{all:?}");
        Ok(())
    });
    h3.ok("ps -A")
        .says(["dying-web-1", "side-db-1", "more-web-1"]);
    h3.ok("-p side exec -T db true");

    // All at once: it is the same cluster, and nothing is there twice.
    let known = stacks(h1).unwrap();
    cluster.nodes().iter().for_each(Node::end_agent);
    cluster.nodes().iter().for_each(Node::begin);
    cluster.is_whole();
    soon(|| {
        let now = stacks(h1)?;
        ensure!(now == known, "{now:?}, before {known:?}");
        agree(&cluster)
    });
    becomes(h1, &[("db-1", "exited"), ("web-1", "running")]);
    let all = h2.ok("ps -Aq");
    assert_eq!(all.lines().len(), 3, "{all}");
    h2.ok("start db");
    becomes(h1, &[("db-1", "running"), ("web-1", "running")]);
}

#[test]
fn both_sides_of_a_partition_go_on() {
    let Some(cluster) = Cluster::of(3, "parted", PAIR) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d --replicated 3");
    h2.ok("-p other up -d --replicated 3 web");

    let parted = Instant::now();
    let lab = cluster.lab();
    lab.partition(&[&*h1.host], &[&*h2.host, &*h3.host])
        .unwrap();
    h1.sees(h2, "down");
    h1.sees(h3, "down");
    h2.sees(h1, "down");
    h3.sees(h1, "down");
    // Each side has everything, and may change it.
    soon(|| {
        for stack in ["parted", "other"] {
            let all = everywhere(&cluster, stack);
            let on_h1 = all.iter().filter(|(_, n)| n == "h1").count();
            ensure!(all.len() == 2 * on_h1 && on_h1 > 0, "{all:?}");
        }
        Ok(())
    });
    h1.ok("stop -t 0 web");
    becomes(h1, &[("db-1", "running"), ("web-1", "exited")]);
    h2.ok("up -d --scale db=2 db");
    h3.ok("-p other stop -t 0 web");
    h2.ok("stop -t 0 db");
    becomes(h1, &[("db-1", "running"), ("web-1", "exited")]);
    // Each side may also make something new.
    h1.ok("-p left up -d db");
    h3.ok("-p right up -d db");
    let rest = Duration::from_secs(10).saturating_sub(parted.elapsed());
    throughout(rest, || {
        let states = h1.states()?;
        let down = states.iter().filter(|(_, s)| s == "down").count();
        ensure!(down == 2, "{states:?}");
        Ok(())
    })
    .unwrap();

    lab.heal().unwrap();
    cluster.is_whole();
    soon(|| {
        agree(&cluster)?;
        let all = stacks(h1)?;
        let names: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
        ensure!(names == ["left", "other", "parted", "right"], "{names:?}");
        Ok(())
    });
    // The later edit counts, and the earlier one is not forgotten; who made it is told. What ran twice
    // runs once.
    let runs = |stack: &str, wanted: &[&str]| {
        soon(|| {
            let all = everywhere(&cluster, stack);
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            ensure!(names == wanted, "{all:?}");
            Ok(())
        });
    };
    runs("parted", &["web-1"]);
    runs("other", &[]);
    runs("left", &["db-1"]);
    runs("right", &["db-1"]);
    soon(|| {
        let status = h1.ok("status").stdout;
        ensure!(status.contains("made here was overwritten"), "{status}");
        Ok(())
    });
    h3.ok("start db");
    runs("parted", &["db-1", "db-2", "web-1"]);
    soon(|| {
        let log = h1.log();
        ensure!(
            log.contains("an edit of stack parted") && log.contains("made here was overwritten"),
            "{log}"
        );
        Ok(())
    });
    let lost = |node: &Node| {
        soon(|| {
            let history = node.ok("history parted");
            let lost = history
                .lines()
                .into_iter()
                .filter(|l| l.contains("lost to"));
            let lost: Vec<&str> = lost.collect();
            ensure!(
                lost.len() == 1 && lost[0].contains("stop"),
                "{}: {history}",
                node.name()
            );
            Ok(lost[0]
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned())
        })
    };
    let ids: Vec<String> = cluster.nodes().iter().map(lost).collect();
    assert!(
        ids.iter().all(|id| *id == ids[0]) && ids[0].contains('~'),
        "{ids:?}"
    );
    h3.ok(["undo", "parted", "--to", &ids[0]]);
    runs("parted", &["db-1"]);
}
