//! Many nodes in one process, on the in-memory network.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharfie_cluster::mesh::{Mesh, Services, Setup, now_millis};
use wharfie_cluster::roster::{Door, MEMBER, Member};
use wharfie_cluster::swim::Liveness;
use wharfie_cluster::transport::memory::Network;
use wharfie_cluster::transport::{BoxFuture, Stream};
use wharfie_cluster::wire::{self, ClusterId, Opened};
use wharfie_cluster::{Event, Key, NodeId, Options, Replica, Store};

/// Answers what it hears.
struct Echo;

impl Services for Echo {
    fn serve(&self, _peer: NodeId, service: String, mut stream: Stream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let refusal = (service != "echo").then(|| format!("there is no service {service:?}"));
            let refused = refusal.is_some();
            wire::send(&mut stream, &Opened { refusal }).await.unwrap();
            if refused {
                return;
            }
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
    }
}

struct Many {
    network: Network,
    nodes: Vec<Arc<Mesh>>,
}

fn id(i: usize) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(i as u64 + 1).to_be_bytes());
    NodeId(id)
}

fn setup(n: usize) -> Setup {
    Setup {
        cluster: ClusterId([1; 16]),
        reconcile: if n > 200 {
            Duration::from_secs(5)
        } else {
            Duration::from_secs(2)
        },
        ..Setup::default()
    }
}

fn start(network: &Network, i: usize, n: usize, replica: Arc<Replica>) -> Arc<Mesh> {
    let door = Arc::new(Door::default());
    let transport = network.plug(id(i), door.gate());
    Mesh::start(setup(n), replica, Arc::new(transport), Arc::new(Echo), door).unwrap()
}

fn replica(i: usize, n: usize) -> Arc<Replica> {
    let store = Arc::new(Store::in_memory().unwrap());
    let replica = Replica::open(store, id(0), now_millis()).unwrap();
    for m in 0..n {
        let member = Member {
            name: format!("n{m}"),
            ..Member::default()
        };
        let value = serde_json::to_value(&member).unwrap();
        // All have the same: as if all had joined before.
        let options = Options::default();
        let name = id(m).to_string();
        replica
            .put((MEMBER, &name), Some(value), ("test", 1), options, None)
            .unwrap();
    }
    replica.set_me(id(i)).unwrap();
    Arc::new(replica)
}

impl Many {
    fn start(n: usize) -> Self {
        let network = Network::default();
        let nodes = (0..n)
            .map(|i| start(&network, i, n, replica(i, n)))
            .collect();
        Self { network, nodes }
    }

    async fn all_up(&self) {
        let n = self.nodes.len();
        eventually("all are up", || self.nodes.iter().all(|m| m.up() == n)).await;
    }

    async fn all_have(&self, name: &str) {
        let have = |m: &Arc<Mesh>| m.replica().get("stack", name).unwrap().is_some();
        eventually(name, || self.nodes.iter().all(have)).await;
    }

    fn equal(&self) -> bool {
        let first = self.nodes[0].replica().summary(now_millis());
        let mut all = self.nodes.iter();
        all.all(|m| m.replica().summary(now_millis()) == first)
    }
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn put(mesh: &Arc<Mesh>, name: &str, value: u64) {
    let key = Key::new("stack", name);
    mesh.put(key, Some(value.into()), "test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_everywhere_and_counted() {
    let many = Many::start(5);
    many.all_up().await;
    let key = Key::new("stack", "web");
    let record = many.nodes[0]
        .put(key, Some(1.into()), "test")
        .await
        .unwrap();
    many.all_have("web").await;
    let again = many.nodes[0]
        .replicate(&[record], 5, Duration::from_secs(10))
        .await;
    assert_eq!(again, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reaches_a_service_and_a_refusal_is_told() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let many = Many::start(3);
    many.all_up().await;
    let mut stream = many.nodes[0].open(id(2), "echo").await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    let refusal = many.nodes[0].open(id(2), "nothing").await.err().unwrap();
    assert!(refusal.to_string().contains("no service"), "{refusal}");
    many.network.unplug(id(2));
    let unreachable = many.nodes[0].open(id(2), "echo").await.err().unwrap();
    assert!(unreachable.to_string().contains("cannot be reached"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_known_everywhere_and_to_those_who_come_later() {
    let many = Many::start(4);
    many.network.partition(&[vec![id(3)]]);
    many.nodes[0].publish(b"one".to_vec());
    many.nodes[0].publish(b"two".to_vec());
    let knows = |i: usize| many.nodes[i].report(id(0)).as_deref() == Some(b"two");
    eventually("1 and 2 know", || knows(1) && knows(2)).await;
    many.network.heal();
    eventually("3 knows", || knows(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_heals_and_the_lost_edit_is_in_the_history() {
    let many = Many::start(4);
    many.all_up().await;
    put(&many.nodes[0], "web", 1).await;
    many.all_have("web").await;
    let mut told = many.nodes[0].events();
    let (left, right) = (vec![id(0), id(1)], vec![id(2), id(3)]);
    many.network.partition(&[left, right]);
    let down = |a: usize, b: usize| {
        let presence = many.nodes[a].presence();
        presence.get(&id(b)).map(|p| p.liveness) == Some(Liveness::Down)
    };
    eventually("sides are down to each other", || down(0, 2) && down(3, 1)).await;
    put(&many.nodes[0], "web", 2).await;
    put(&many.nodes[3], "web", 3).await;
    many.network.heal();
    eventually("all are equal", || many.equal()).await;
    for node in &many.nodes {
        let web = node.replica().get("stack", "web").unwrap().unwrap();
        assert_eq!(web.value, Some(3.into()), "the later one counts");
        let lost = || {
            let history = node.replica().history("stack", "web").unwrap();
            let lost = history.into_iter().filter(|v| v.lost);
            lost.map(|v| v.record.value).collect::<Vec<_>>()
        };
        eventually("the lost edit is in the history", || {
            lost() == [Some(2.into())]
        })
        .await;
    }
    let lost = async {
        loop {
            if let Event::Lost(lost) = told.recv().await.unwrap() {
                return lost;
            }
        }
    };
    let lost = tokio::time::timeout(Duration::from_secs(10), lost)
        .await
        .unwrap();
    assert_eq!(lost[0].stamp.node, id(0), "its author is told");
    many.all_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_learns_of_lost_edits_too() {
    let many = Many::start(3);
    many.all_up().await;
    put(&many.nodes[0], "web", 1).await;
    many.all_have("web").await;
    let apart = |sides: &[&[usize]]| {
        let sides = sides.iter().map(|s| s.iter().map(|i| id(*i)).collect());
        many.network.partition(&sides.collect::<Vec<_>>());
    };
    apart(&[&[0], &[1], &[2]]);
    let down = |a: usize, b: usize| {
        let presence = many.nodes[a].presence();
        presence.get(&id(b)).map(|p| p.liveness) == Some(Liveness::Down)
    };
    eventually("all are down to each other", || down(0, 2) && down(1, 0)).await;
    put(&many.nodes[0], "web", 2).await;
    put(&many.nodes[1], "web", 3).await;
    let lost = |node: usize| {
        let history = many.nodes[node].replica().history("stack", "web").unwrap();
        let lost = history.into_iter().filter(|v| v.lost);
        lost.map(|v| v.record.value).collect::<Vec<_>>()
    };
    apart(&[&[0, 1], &[2]]);
    eventually("one lost, and both know", || {
        lost(0) == [Some(2.into())] && lost(1) == lost(0)
    })
    .await;
    many.network.heal();
    eventually("so does the third", || lost(2) == lost(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_is_cut_off_everywhere() {
    let many = Many::start(4);
    many.all_up().await;
    let mut told = many.nodes[3].events();
    let removed = Key::new(wharfie_cluster::roster::REMOVED, id(3).to_string());
    many.nodes[1]
        .put(removed, Some(true.into()), "test")
        .await
        .unwrap();
    let cut =
        |m: &Arc<Mesh>| !m.is_linked(id(3)) && !m.door().roster().members.contains_key(&id(3));
    eventually("it is cut off", || many.nodes[..3].iter().all(cut)).await;
    let expelled = async { while told.recv().await.unwrap() != Event::Expelled {} };
    tokio::time::timeout(Duration::from_secs(10), expelled)
        .await
        .unwrap();
    put(&many.nodes[0], "secret", 1).await;
    eventually("2 has it", || {
        many.nodes[2]
            .replica()
            .get("stack", "secret")
            .unwrap()
            .is_some()
    })
    .await;
    assert!(many.nodes[3].open(id(0), "echo").await.is_err());
    assert_eq!(
        many.nodes[3].replica().get("stack", "secret").unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_record_stops_nobody() {
    let many = Many::start(3);
    many.all_up().await;
    let store = Arc::new(Store::in_memory().unwrap());
    let ahead = Replica::open(store, id(0), now_millis()).unwrap();
    let options = Options::default();
    let future = now_millis() + 3_600_000;
    let poison = ahead
        .put(
            ("stack", "poison"),
            Some(1.into()),
            ("test", future),
            options,
            None,
        )
        .unwrap();
    many.nodes[0].push(std::slice::from_ref(&poison));
    put(&many.nodes[0], "good", 1).await;
    many.all_have("good").await;
    assert_eq!(
        many.nodes[1].replica().get("stack", "poison").unwrap(),
        None
    );
    // Nor is it durable anywhere, however often it is told.
    let wait = Duration::from_millis(1_500);
    assert_eq!(many.nodes[0].replicate(&[poison], 3, wait).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_heard_is_counted_once_it_is() {
    let many = Many::start(3);
    many.all_up().await;
    many.network.partition(&[vec![id(2)]]);
    eventually("2 is away", || !many.nodes[0].is_linked(id(2))).await;
    let options = Options::default();
    let now = now_millis();
    let written = many.nodes[0].replica().put(
        ("stack", "web"),
        Some(1.into()),
        ("test", now),
        options,
        None,
    );
    let node = Arc::clone(&many.nodes[0]);
    let record = written.unwrap();
    let count = tokio::spawn(async move {
        let patience = Duration::from_secs(30);
        node.replicate(&[record], 3, patience).await
    });
    many.network.heal();
    assert_eq!(count.await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_survive_that_all_call_each_other_at_once() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for _ in 0..10 {
        let many = Many::start(4);
        let mut asked = Vec::new();
        for (from, to) in (0..4).flat_map(|a| (0..4).map(move |b| (a, b))) {
            if from == to {
                continue;
            }
            let node = Arc::clone(&many.nodes[from]);
            asked.push(tokio::spawn(async move {
                let mut stream = node.open(id(to), "echo").await?;
                stream.write_all(b"hello").await.unwrap();
                let mut heard = [0; 5];
                stream.read_exact(&mut heard).await.unwrap();
                Ok::<_, wharfie_cluster::mesh::OpenError>(heard)
            }));
        }
        for one in asked {
            assert_eq!(one.await.unwrap(), Ok(*b"hello"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_cluster_gets_nothing() {
    let network = Network::default();
    let ours = start(&network, 0, 2, replica(0, 2));
    let theirs = {
        let door = Arc::new(Door::default());
        let transport = Arc::new(network.plug(id(1), door.gate()));
        let setup = Setup {
            cluster: ClusterId([2; 16]),
            ..setup(2)
        };
        Mesh::start(setup, replica(1, 2), transport, Arc::new(Echo), door).unwrap()
    };
    put(&ours, "secret", 1).await;
    for _ in 0..5 {
        assert!(theirs.open(id(0), "echo").await.is_err());
    }
    assert_eq!(theirs.replica().get("stack", "secret").unwrap(), None);
    assert_eq!(ours.up(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_makes_no_node_older() {
    let network = Network::default();
    let _other = start(&network, 0, 2, replica(0, 2));
    let of = replica(1, 2);
    let ahead = now_millis() + 3_600_000;
    let store = of.store();
    store
        .set_local("cluster/epoch", Some(&ahead.to_be_bytes()))
        .unwrap();
    let first = start(&network, 1, 2, Arc::clone(&of));
    let before = first.life().epoch;
    assert!(before > ahead);
    first.stop().await;
    let again = start(&network, 1, 2, of);
    assert!(again.life().epoch > before);
    eventually("both are up", || _other.up() == 2 && again.up() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_nodes_agree() {
    let many = Many::start(50);
    many.all_up().await;
    put(&many.nodes[7], "web", 1).await;
    many.all_have("web").await;
    many.network.unplug(id(49));
    eventually("all see that one is gone", || {
        many.nodes[..49].iter().all(|m| m.up() == 49)
    })
    .await;
}

/// `cargo test -p wharfie-cluster --release --test mesh -- --ignored --nocapture` prints figures.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes a minute and two cores"]
async fn five_hundred_nodes_from_a_cold_start() {
    let n = std::env::var("NODES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(500);
    let began = Instant::now();
    let many = Many::start(n);
    println!("{n} nodes made in {:?}", began.elapsed());
    let began = Instant::now();
    many.all_up().await;
    println!("all know all to be up after {:?}", began.elapsed());
    for round in 0..5 {
        let began = Instant::now();
        let name = format!("s{round}");
        put(&many.nodes[round * 7], &name, 1).await;
        many.all_have(&name).await;
        println!("a change is everywhere after {:?}", began.elapsed());
    }
    let sent = |many: &Many| -> u64 {
        let sent = |m: &Arc<Mesh>| m.traffic().sent.load(std::sync::atomic::Ordering::Relaxed);
        many.nodes.iter().map(sent).sum()
    };
    let before = sent(&many);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let rate = (sent(&many) - before) as f64 / 10.0 / n as f64;
    let links: usize = many.nodes.iter().map(|m| m.link_count()).sum();
    println!(
        "idle: {rate:.0} bytes a second and node, {:.1} links a node",
        links as f64 / n as f64
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    println!("{resident}, of {n} nodes");
}
