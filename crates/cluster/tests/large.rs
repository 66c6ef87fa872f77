//! A cluster in which a link to everybody is too much: nodes keep a few, and tell each other what
//! they hear. Such clusters are large; here a setting makes a small one behave so.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharfie_cluster::mesh::{Mesh, Services, Setup, now_millis};
use wharfie_cluster::roster::{Door, MEMBER, Member};
use wharfie_cluster::transport::memory::Network;
use wharfie_cluster::transport::{BoxFuture, Stream};
use wharfie_cluster::wire::ClusterId;
use wharfie_cluster::{Key, NodeId, Options, Record, Replica, Store};

const NODES: usize = 60;

struct Nothing;

impl Services for Nothing {
    fn serve(&self, _: NodeId, _: String, _: Stream) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

fn id(i: usize) -> NodeId {
    NodeId([u8::try_from(i + 1).unwrap(); 32])
}

fn members() -> Vec<Record> {
    let store = Arc::new(Store::in_memory().unwrap());
    let replica = Replica::open(store, NodeId([255; 32]), now_millis()).unwrap();
    let put = |i: usize| {
        let member = Member {
            name: format!("n{i}"),
            ..Member::default()
        };
        let (value, name) = (serde_json::to_value(&member).unwrap(), id(i).to_string());
        let said = ("test", now_millis());
        let object = (MEMBER, name.as_str());
        replica.put(object, Some(value), said, Options::default(), None)
    };
    (0..NODES).map(|i| put(i).unwrap()).collect()
}

fn start(network: &Network) -> Vec<Arc<Mesh>> {
    let members = members();
    let start = |i: usize| {
        let store = Arc::new(Store::in_memory().unwrap());
        let replica = Replica::open(store, id(i), now_millis()).unwrap();
        replica.merge(members.clone(), now_millis()).unwrap();
        let door = Arc::new(Door::default());
        let transport = Arc::new(network.plug(id(i), door.gate()));
        let setup = Setup {
            cluster: ClusterId([1; 16]),
            full_mesh: 10,
            ..Setup::default()
        };
        Mesh::start(setup, Arc::new(replica), transport, Arc::new(Nothing), door).unwrap()
    };
    (0..NODES).map(start).collect()
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn all_see(nodes: &[Arc<Mesh>], up: usize) {
    let what = format!("all see {up} up");
    eventually(&what, || nodes.iter().all(|m| m.up() == up)).await;
}

async fn put(mesh: &Arc<Mesh>, name: &str) {
    let key = Key::new("stack", name);
    mesh.put(key, Some(1.into()), "test").await.unwrap();
}

async fn all_have(nodes: &[Arc<Mesh>], name: &str) {
    let key = Key::new("stack", name);
    let have = |m: &Arc<Mesh>| m.replica().newest(&key).is_some();
    eventually(name, || nodes.iter().all(have)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_links_are_enough_to_know_all() {
    let network = Network::default();
    let nodes = start(&network);
    all_see(&nodes, NODES).await;
    let links: usize = nodes.iter().map(|m| m.link_count()).sum();
    assert!(links < NODES * NODES / 2, "{links} links");
    put(&nodes[7], "web").await;
    nodes[8].publish(b"seen".to_vec());
    all_have(&nodes, "web").await;
    let reported = |m: &Arc<Mesh>| m.report(id(8)).as_deref() == Some(b"seen");
    eventually("all have the report", || nodes.iter().all(reported)).await;
    network.unplug(id(NODES - 1));
    all_see(&nodes[..NODES - 1], NODES - 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_halves_find_each_other_again() {
    let network = Network::default();
    let nodes = start(&network);
    all_see(&nodes, NODES).await;
    let half = NODES / 2;
    let side = |range: std::ops::Range<usize>| range.map(id).collect::<Vec<_>>();
    network.partition(&[side(0..half), side(half..NODES)]);
    all_see(&nodes, half).await;
    put(&nodes[0], "left").await;
    put(&nodes[half], "right").await;
    network.heal();
    all_have(&nodes, "left").await;
    all_have(&nodes, "right").await;
    all_see(&nodes, NODES).await;
}
