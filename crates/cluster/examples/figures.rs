//! Figures of clusters in one process: `cargo run --release --example figures -- quic 3`.
//!
//! `figures TRANSPORT NODES` with `quic` (real sockets on the loopback, stores on the disk) or
//! `memory` prints how long a cold start takes, a change until it is on the disks of all, an idle
//! node's traffic and memory, and how long it takes until all is equal again after 15 s of partition
//! (in memory only).
#![allow(clippy::unwrap_used, missing_docs)] // it is a measurement: whatever fails ends it

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use wharfie_cluster::mesh::{Mesh, Services, Setup, now_millis};
use wharfie_cluster::roster::{Door, MEMBER, Member};
use wharfie_cluster::swim::Timing;
use wharfie_cluster::transport::memory::Network;
use wharfie_cluster::transport::{BoxFuture, Listen, QuicTransport, Stream, Transport};
use wharfie_cluster::wire::ClusterId;
use wharfie_cluster::{Event, Identity, Key, NodeId, Options, Record, Replica, Store};

struct Nothing;

impl Services for Nothing {
    fn serve(&self, _: NodeId, _: String, _: Stream) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

struct Planned {
    identity: Identity,
    id: NodeId,
    member: Member,
    store: Store,
    /// Keeps the port until the node takes it.
    socket: UdpSocket,
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "not within two minutes: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn equal(nodes: &[Arc<Mesh>]) -> bool {
    let first = nodes[0].replica().summary(now_millis());
    let mut others = nodes[1..].iter();
    others.all(|m| m.replica().summary(now_millis()) == first)
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |p: usize| times[(times.len() * p / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    let (p50, p99) = (at(50), at(99));
    format!("p50 {p50:.1} ms, p99 {p99:.1} ms, of {}", times.len())
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let transport = arguments.next().unwrap_or_else(|| "memory".to_owned());
    let n: usize = arguments.next().map_or(3, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let quic = transport == "quic";
    let planned: Vec<Planned> = (0..n).map(|i| plan(i, quic, dir.path())).collect();
    let members: Vec<(NodeId, Member)> = planned.iter().map(|p| (p.id, p.member.clone())).collect();
    let before = resident();
    let network = Network::default();
    let began = Instant::now();
    let members = records(&members);
    let mut nodes = Vec::new();
    for plan in planned {
        nodes.push(begin(plan, &members, quic, &network).await);
    }
    println!(
        "{n} nodes over {transport}, made in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    until("all are up", || nodes.iter().all(|m| m.up() == n)).await;
    until("all are equal", || equal(&nodes)).await;
    println!(
        "cold start: all know all to be up, and are equal, after {:.2} s",
        began.elapsed().as_secs_f64()
    );
    println!(
        "a change until it is on all disks: {}",
        changes(&nodes).await
    );
    idle(&nodes, before).await;
    if !quic {
        partition(&network, &nodes).await;
    }
}

fn plan(i: usize, quic: bool, dir: &std::path::Path) -> Planned {
    let identity = Identity::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    Planned {
        id: identity.id(),
        identity,
        member: Member {
            name: format!("n{i}"),
            addresses: vec![socket.local_addr().unwrap()],
            ..Member::default()
        },
        store: if quic {
            Store::open(&dir.join(i.to_string())).unwrap()
        } else {
            Store::in_memory().unwrap()
        },
        socket,
    }
}

/// All have the same members, as if all had joined before.
fn records(members: &[(NodeId, Member)]) -> Vec<Record> {
    let store = Arc::new(Store::in_memory().unwrap());
    let replica = Replica::open(store, NodeId([7; 32]), now_millis()).unwrap();
    let put = |(id, member): &(NodeId, Member)| {
        let (value, name) = (serde_json::to_value(member).unwrap(), id.to_string());
        let (options, now) = (Options::default(), now_millis());
        let put = replica.put(
            (MEMBER, &name),
            Some(value),
            ("figures", now),
            options,
            None,
        );
        put.unwrap()
    };
    members.iter().map(put).collect()
}

async fn begin(plan: Planned, members: &[Record], quic: bool, network: &Network) -> Arc<Mesh> {
    let replica = Arc::new(Replica::open(Arc::new(plan.store), plan.id, now_millis()).unwrap());
    replica.merge(members.to_vec(), now_millis()).unwrap();
    let door = Arc::new(Door::default());
    let transport: Arc<dyn Transport> = if quic {
        let listen = Listen {
            address: plan.member.addresses[0],
            silence: Timing::default().silence(),
            discover: false,
        };
        drop(plan.socket);
        let bound = QuicTransport::bind(plan.identity.secret(), &listen, door.gate()).await;
        Arc::new(bound.unwrap())
    } else {
        Arc::new(network.plug(plan.id, door.gate()))
    };
    let setup = Setup {
        cluster: ClusterId([1; 16]),
        ..Setup::default()
    };
    Mesh::start(setup, replica, transport, Arc::new(Nothing), door).unwrap()
}

/// How long changes take, one after the other, each written at another node.
async fn changes(nodes: &[Arc<Mesh>]) -> String {
    let (heard, mut hears) = mpsc::unbounded_channel();
    for (i, node) in nodes.iter().enumerate() {
        let (mut events, heard) = (node.events(), heard.clone());
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                if let Event::Changed(keys) = event {
                    let at = Instant::now();
                    for key in keys {
                        let _ = heard.send((i, key, at));
                    }
                }
            }
        });
    }
    let mut times = Vec::new();
    for round in 0..200 {
        let writer = round % nodes.len();
        let key = Key::new("stack", format!("s{round}"));
        let value = serde_json::json!({ "text": "x".repeat(2_000) });
        let began = Instant::now();
        nodes[writer]
            .put(key.clone(), Some(value), "figures")
            .await
            .unwrap();
        let mut missing: BTreeSet<usize> = (0..nodes.len()).filter(|i| *i != writer).collect();
        while !missing.is_empty() {
            let (i, of, at) = hears.recv().await.unwrap();
            if of == key && missing.remove(&i) && missing.is_empty() {
                times.push(at - began);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    percentiles(times)
}

async fn idle(nodes: &[Arc<Mesh>], before: u64) {
    let sent = || -> u64 {
        let sent = nodes
            .iter()
            .map(|m| m.traffic().sent.load(Ordering::Relaxed));
        sent.sum()
    };
    // In a large cluster links that are not needed any more go after ten seconds.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let (start, began) = (sent(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let rate = (sent() - start) as f64 / began.elapsed().as_secs_f64() / nodes.len() as f64;
    let links: usize = nodes.iter().map(|m| m.link_count()).sum();
    let memory = (resident() - before) as f64 / nodes.len() as f64;
    println!(
        "idle: {rate:.0} bytes a second sent by each node, {:.1} links each, {memory:.0} KiB resident each",
        links as f64 / nodes.len() as f64
    );
}

/// Two sides for 15 s, a change on each: how long until all is equal again.
async fn partition(network: &Network, nodes: &[Arc<Mesh>]) {
    let (left, right) = nodes.split_at(nodes.len() / 2);
    let ids = |side: &[Arc<Mesh>]| side.iter().map(|m| m.me()).collect::<Vec<_>>();
    network.partition(&[ids(left), ids(right)]);
    tokio::time::sleep(Duration::from_secs(15)).await;
    for (side, name) in [(left, "left"), (right, "right")] {
        let key = Key::new("stack", name);
        side[0].put(key, Some(1.into()), "figures").await.unwrap();
    }
    network.heal();
    let began = Instant::now();
    until("all are equal", || equal(nodes)).await;
    println!(
        "after 15 s of partition: all is equal after {:.2} s",
        began.elapsed().as_secs_f64()
    );
    until("all are up", || nodes.iter().all(|m| m.up() == nodes.len())).await;
    println!(
        "and all know all to be up after {:.2} s",
        began.elapsed().as_secs_f64()
    );
}
