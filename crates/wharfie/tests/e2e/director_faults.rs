//! Addresses of the network around when nodes cannot hear each other, or have no agent: whatever the nodes
//! believe, neighbours must find one machine.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wharfie_lab::{Lab, Machine, eventually};

use crate::asker::who;
use crate::cluster::{Cluster, Node};
use crate::director::{TOOLS, address, line, range};
use crate::stack::soon;

/// The owner that is looked at.
const OWNER: &str = "toolbox/jenkins";

/// A cluster of so many nodes with a service that has an address, and a client on their network.
fn with_an_address(hosts: usize, name: &str) -> Option<(Cluster, Ipv4Addr)> {
    let cluster = Cluster::with(Lab::builder().hosts(hosts).client("user"), name, TOOLS)?;
    let h1 = cluster.node(1);
    h1.ok(format!("director init --range {}", range(h1)).as_str());
    h1.ok("-p toolbox up -d jenkins");
    let at = soon(|| address(h1, OWNER));
    let user = cluster.lab().client("user").unwrap();
    soon(|| who(&user, at, 8080));
    Some((cluster, at))
}

/// The node that holds the address, as another one says.
fn holder(from: &Node) -> Result<String> {
    let node = line(from, OWNER)?["Node"].as_str().map(str::to_owned);
    node.filter(|n| !n.is_empty()).context("nobody holds it")
}

fn named<'c>(cluster: &'c Cluster, name: &str) -> &'c Node {
    let mut nodes = cluster.nodes().iter();
    nodes.find(|n| n.name() == name).unwrap()
}

/// Whether a host has the address on its device.
fn has(node: &Node, at: Ipv4Addr) -> Result<bool> {
    let seen = node.host.machine().run("ip", ["-o", "-4", "addr"])?;
    Ok(seen.contains(&format!(" {at}/32")))
}

/// The hardware addresses that answer a client who asks for the address.
fn answering(user: &Machine, at: Ipv4Addr) -> Result<BTreeSet<String>> {
    let (at, device) = (at.to_string(), user.interface());
    // It fails if nobody answers.
    let asked = user
        .command("busybox")
        .args(["arping", "-b", "-c", "2", "-w", "2", "-I", device, &at])
        .output()?;
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    let macs = said
        .lines()
        .filter_map(|l| l.split_once('[')?.1.split_once(']'));
    Ok(macs.map(|(mac, _)| mac.to_ascii_lowercase()).collect())
}

fn mac(node: &Node) -> Result<String> {
    let machine = node.host.machine();
    let path = format!("/sys/class/net/{}/address", machine.interface());
    let link = machine.run("ip", ["-o", "link", "show", "dev", machine.interface()])?;
    let words: Vec<&str> = link.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "link/ether");
    let mac = at.and_then(|at| words.get(at + 1)).context(path)?;
    Ok((*mac).to_owned())
}

/// Has a host hear nothing of the cluster any more; all else of its network is whole.
fn part_from_cluster(node: &Node) {
    let rules = "add table inet parted; add chain inet parted in { type filter hook input priority 0; }; \
                 add chain inet parted out { type filter hook output priority 0; }; \
                 add rule inet parted in udp dport 7700 drop; add rule inet parted out udp dport 7700 drop";
    node.host.machine().run("nft", [rules]).unwrap();
}

fn mend(node: &Node) {
    let rules = ["delete", "table", "inet", "parted"];
    node.host.machine().run("nft", rules).unwrap();
}

/// One host has the address, neighbours find that one only, it answers, and these nodes agree.
fn is_settled(cluster: &Cluster, at: Ipv4Addr, agree: &[&Node]) -> Result<String> {
    let user = cluster.lab().client("user")?;
    let holders: Vec<String> = agree.iter().map(|n| holder(n)).collect::<Result<_>>()?;
    let one = &holders[0];
    ensure!(holders.iter().all(|h| h == one), "{holders:?}");
    for node in cluster.nodes() {
        let there = has(node, at)?;
        ensure!(
            there == (node.name() == one),
            "{}: {there}, {one}",
            node.name()
        );
    }
    let macs = answering(&user, at)?;
    ensure!(macs == [mac(named(cluster, one))?].into(), "{macs:?}");
    who(&user, at, 8080)?;
    Ok(one.clone())
}

/// Connects again and again while something is done: how often nobody answered.
fn unanswered(user: &Machine, at: Ipv4Addr, during: impl FnOnce()) -> (usize, usize) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let trying = scope.spawn(|| {
            let (mut failed, mut tried) = (0, 0);
            while !over.load(Ordering::SeqCst) {
                tried += 1;
                if let Err(e) = who(user, at, 8080) {
                    failed += 1;
                    eprintln!("unanswered: {e:#}");
                }
            }
            (failed, tried)
        });
        during();
        over.store(true, Ordering::SeqCst);
        trying.join().unwrap()
    })
}

/// A host is cut off and another one takes its address; when it is back it does not get it back, and does
/// not behave as if it had.
#[test]
fn who_comes_back_leaves_the_address_where_it_is() {
    let Some((cluster, at)) = with_an_address(3, "mended") else {
        return;
    };
    let nodes: Vec<&Node> = cluster.nodes().iter().collect();
    let user = cluster.lab().client("user").unwrap();
    for _ in 0..3 {
        let held = holder(nodes[0]).unwrap();
        let away = named(&cluster, &held);
        let rest: Vec<&Node> = nodes.iter().copied().filter(|n| n.name() != held).collect();
        away.host.machine().cut().unwrap();
        let taker = soon(|| {
            let holder = holder(rest[0])?;
            ensure!(holder != held, "{holder} has it");
            who(&user, at, 8080)?;
            Ok(holder)
        });
        let (failed, tried) = unanswered(&user, at, || {
            away.host.machine().heal().unwrap();
            cluster.is_whole();
            assert_eq!(soon(|| is_settled(&cluster, at, &nodes)), taker);
        });
        assert_eq!(failed, 0, "of {tried}, from {held} to {taker}");
    }
}

/// Two parts of a cluster do not hear each other, and neighbours reach both: the larger one has the address.
#[test]
fn of_two_parts_one_has_the_address() {
    let Some((cluster, at)) = with_an_address(3, "parted") else {
        return;
    };
    let nodes: Vec<&Node> = cluster.nodes().iter().collect();
    let held = holder(nodes[0]).unwrap();
    let away = named(&cluster, &held);
    let rest: Vec<&Node> = nodes.iter().copied().filter(|n| n.name() != held).collect();
    part_from_cluster(away);
    let taker = soon(|| {
        let one = is_settled(&cluster, at, &rest)?;
        ensure!(one != held, "{one} still has it");
        Ok(one)
    });
    soon(|| {
        let said = away.run("director status").stdout;
        ensure!(said.contains(&format!("{at} is at node {taker}")), "{said}");
        Ok(())
    });
    // Who took it is gone as well: what is left of it here is better than nothing.
    let gone = named(&cluster, &taker);
    gone.host.machine().cut().unwrap();
    let user = cluster.lab().client("user").unwrap();
    soon(|| who(&user, at, 8080));
    gone.host.machine().heal().unwrap();
    mend(away);
    cluster.is_whole();
    soon(|| is_settled(&cluster, at, &nodes));
}

/// The same with two equal parts: the nodes come to the same without a word.
#[test]
fn of_two_equal_parts_one_has_the_address() {
    let Some((cluster, at)) = with_an_address(2, "halves") else {
        return;
    };
    let nodes: Vec<&Node> = cluster.nodes().iter().collect();
    let held = holder(nodes[0]).unwrap();
    let id = |node: &Node| -> Result<String> {
        let info = node.ask("/v1/nodes")?;
        let all = info.as_array().context("no nodes")?;
        let found = all.iter().find(|n| n["name"] == node.name());
        Ok(found.context("it is not there")?["id"].to_string())
    };
    let lower = nodes.iter().min_by_key(|n| id(n).unwrap()).unwrap();
    part_from_cluster(named(&cluster, &held));
    let user = cluster.lab().client("user").unwrap();
    for node in &nodes {
        let other = nodes.iter().find(|n| n.name() != node.name()).unwrap();
        node.sees(other, "down");
    }
    // Each believes that it holds it.
    for node in &nodes {
        soon(|| {
            let holder = holder(node)?;
            ensure!(holder == node.name(), "{}: {holder}", node.name());
            Ok(())
        });
    }
    soon(|| {
        for node in &nodes {
            ensure!(
                has(node, at)? == (node.name() == lower.name()),
                "{}",
                node.name()
            );
        }
        ensure!(answering(&user, at)? == [mac(lower)?].into());
        who(&user, at, 8080)
    });
    mend(named(&cluster, &held));
    cluster.is_whole();
    soon(|| is_settled(&cluster, at, &nodes));
}

/// A host goes on without its agent. As long as that is expected back nothing changes; when another node
/// takes the address, the host does not keep it.
#[test]
fn a_host_without_an_agent_gives_the_address_back() {
    let Some((cluster, at)) = with_an_address(3, "agentless") else {
        return;
    };
    let nodes: Vec<&Node> = cluster.nodes().iter().collect();
    let user = cluster.lab().client("user").unwrap();
    let held = holder(nodes[0]).unwrap();
    let away = named(&cluster, &held);
    let rest: Vec<&Node> = nodes.iter().copied().filter(|n| n.name() != held).collect();
    // It is updated: nobody notices.
    let (failed, tried) = unanswered(&user, at, || {
        away.end_agent();
        rest[0].sees(away, "down");
        away.start_agent();
        cluster.is_whole();
        assert_eq!(soon(|| is_settled(&cluster, at, &nodes)), held);
    });
    assert_eq!(failed, 0, "of {tried}");
    // It is killed, and does not come back.
    away.kill_agent();
    let settled = eventually(Duration::from_secs(60), || {
        let one = is_settled(&cluster, at, &rest)?;
        ensure!(one != held, "{one} still has it");
        Ok(one)
    });
    let taker = settled.unwrap();
    away.start_agent();
    cluster.is_whole();
    assert_eq!(soon(|| is_settled(&cluster, at, &nodes)), taker);
}

/// What nobody else would take stays, as its containers do.
#[test]
fn a_host_alone_keeps_its_address_without_an_agent() {
    let Some((cluster, at)) = with_an_address(1, "alone") else {
        return;
    };
    let h1 = cluster.node(1);
    h1.end_agent();
    let shown = h1.host.machine().run("ip", ["addr"]).unwrap();
    let line = shown
        .lines()
        .skip_while(|l| !l.contains(&format!(" {at}/32")));
    let lifetime = line.skip(1).find(|l| l.contains("valid_lft")).unwrap();
    assert!(lifetime.contains("valid_lft forever"), "{lifetime}");
    let user = cluster.lab().client("user").unwrap();
    who(&user, at, 8080).unwrap();
    h1.start_agent();
}
