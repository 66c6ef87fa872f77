//! Nodes on the loopback, over real QUIC: joining, being refused, being removed.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wharfie_cluster::mesh::{Services, now_millis};
use wharfie_cluster::swim::Timing;
use wharfie_cluster::transport::{BoxFuture, Stream};
use wharfie_cluster::wire::{self, Opened};
use wharfie_cluster::{Cluster, Config, Key, NodeId, Replica, State, Store, Token};

struct Nothing;

impl Services for Nothing {
    fn serve(&self, _: NodeId, _: String, mut stream: Stream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = wire::send(&mut stream, &Opened { refusal: None }).await;
        })
    }
}

struct Node {
    dir: TempDir,
    config: Config,
    cluster: Arc<Cluster>,
}

fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

async fn open(config: &Config) -> Arc<Cluster> {
    // Tasks of one that was stopped just now may hold the store for a moment.
    let mut store = Store::open(&config.dir);
    eventually("the store is free", || {
        if store.is_err() {
            store = Store::open(&config.dir);
        }
        store.is_ok()
    })
    .await;
    let store = Arc::new(store.unwrap());
    let replica = Replica::open(store, NodeId::default(), now_millis()).unwrap();
    Cluster::open(config.clone(), Arc::new(replica), Arc::new(Nothing))
        .await
        .unwrap()
}

impl Node {
    async fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = free_port();
        let config = Config {
            dir: dir.path().to_owned(),
            name: name.to_owned(),
            listen: address,
            advertise: vec![address],
            discover: false,
            timing: Timing::default(),
            software: "test".to_owned(),
        };
        let cluster = open(&config).await;
        Self {
            dir,
            config,
            cluster,
        }
    }

    async fn put(&self, name: &str, value: u64) {
        let key = Key::new("stack", name);
        self.cluster
            .put(key, Some(value.into()), "test")
            .await
            .unwrap();
    }

    fn has(&self, name: &str) -> bool {
        let object = self.cluster.replica().get("stack", name).unwrap();
        object.is_some_and(|o| o.value.is_some())
    }

    async fn token(&self) -> Token {
        self.cluster.token(Duration::from_secs(60)).await.unwrap()
    }

    async fn refused(&self, token: &Token) -> String {
        let error = self.cluster.join(token, None, false).await.unwrap_err();
        assert!(!self.has("of-a"), "nothing is learned");
        error.to_string()
    }

    fn sees(&self, name: &str) -> Option<State> {
        let nodes = self.cluster.nodes();
        nodes
            .iter()
            .find(|n| n.member.name == name)
            .map(|n| n.state)
    }
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "not within half a minute: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn pair() -> (Node, Node) {
    let (a, b) = (Node::new("a").await, Node::new("b").await);
    b.cluster.join(&a.token().await, None, false).await.unwrap();
    eventually("both are up", || {
        a.sees("b") == Some(State::Up) && b.sees("a") == Some(State::Up)
    })
    .await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_what_each_had() {
    let (a, b) = (Node::new("a").await, Node::new("b").await);
    a.put("of-a", 1).await;
    b.put("of-b", 1).await;
    b.cluster.join(&a.token().await, None, false).await.unwrap();
    eventually("each has both", || a.has("of-b") && b.has("of-a")).await;
    eventually("both are up", || {
        a.sees("b") == Some(State::Up) && b.sees("a") == Some(State::Up)
    })
    .await;
    a.put("later", 1).await;
    eventually("b has it", || b.has("later")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_one_node_once() {
    let (a, b, c) = (
        Node::new("a").await,
        Node::new("b").await,
        Node::new("c").await,
    );
    a.put("of-a", 1).await;
    let token = a.token().await;
    b.cluster.join(&token, None, false).await.unwrap();
    let text = c.refused(&token).await;
    assert!(text.contains("was used by node"), "{text}");
    let forged = Token {
        secret: [3; 16],
        ..a.token().await
    };
    let text = c.refused(&forged).await;
    assert!(text.contains("not known here"), "{text}");
    let past = a.cluster.token(Duration::ZERO).await.unwrap();
    let text = c.refused(&past).await;
    assert!(text.contains("expired"), "{text}");
    let stretched = Token {
        expires: past.expires + 600,
        ..past
    };
    let text = c.refused(&stretched).await;
    assert!(text.contains("expired"), "the issuer remembers: {text}");
    let wrong_issuer = Token {
        issuer: b.cluster.me(),
        ..a.token().await
    };
    let text = c.refused(&wrong_issuer).await;
    assert!(
        text.contains("does not answer") || text.contains("broke off"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_stacks_are_not_taken_twice() {
    let (a, b, c) = (
        Node::new("a").await,
        Node::new("a").await,
        Node::new("c").await,
    );
    a.put("of-a", 1).await;
    a.put("web", 1).await;
    let text = b.refused(&a.token().await).await;
    assert!(text.contains("name \"a\" is taken"), "{text}");
    c.put("web", 2).await;
    let text = c.refused(&a.token().await).await;
    assert!(
        text.contains("both the new node and the cluster have stack web"),
        "{text}"
    );
    let value = |n: &Node| {
        n.cluster
            .replica()
            .get("stack", "web")
            .unwrap()
            .unwrap()
            .value
    };
    assert_eq!((value(&a), value(&c)), (Some(1.into()), Some(2.into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_do_not_merge() {
    let (a, b) = pair().await;
    let c = Node::new("c").await;
    c.put("of-a", 1).await;
    let error = b
        .cluster
        .join(&c.token().await, None, false)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("two clusters do not merge"),
        "{error}"
    );
    assert!(!b.has("of-a"));
    let own = a.token().await;
    for member in [&a, &b] {
        let error = member.cluster.join(&own, None, false).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("in the cluster of this token already"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_machine_is_not_let_in() {
    let (a, b) = pair().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(b.dir.path().join("node.key"), copy.path().join("node.key")).unwrap();
    let address = free_port();
    let config = Config {
        dir: copy.path().to_owned(),
        name: "copy".to_owned(),
        listen: address,
        advertise: vec![address],
        ..b.config.clone()
    };
    let twin = open(&config).await;
    assert_eq!(twin.me(), b.cluster.me());
    let error = twin.join(&a.token().await, None, false).await.unwrap_err();
    assert!(
        error.to_string().contains("a member already, as \"b\""),
        "{error}"
    );
    twin.join(&a.token().await, None, true).await.unwrap();
    assert_ne!(twin.me(), b.cluster.me());
    eventually("it is a node of its own", || {
        a.sees("copy") == Some(State::Up)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_stays_out_until_it_gets_a_new_key() {
    let (a, b) = pair().await;
    let b_id = b.cluster.me();
    a.cluster.remove(b_id).await.unwrap();
    eventually("b goes on alone", || b.cluster.mesh().is_none()).await;
    assert_eq!(a.sees("b"), None);
    a.put("of-a", 1).await;
    assert!(!b.has("of-a"));
    // It comes back with the same key, as if it had not heard.
    b.cluster.stop().await;
    drop(b.cluster);
    let error = {
        let again = open(&b.config).await;
        again.replica().store().set_local("cluster", None).unwrap();
        let error = again.join(&a.token().await, None, false).await.unwrap_err();
        assert!(again.replica().get("stack", "of-a").unwrap().is_none());
        again.join(&a.token().await, None, true).await.unwrap();
        assert_ne!(again.me(), b_id);
        eventually("it is back", || a.sees("b") == Some(State::Up)).await;
        error
    };
    assert!(
        error.to_string().contains("was removed from the cluster"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_is_back_with_what_it_missed() {
    let (a, b) = pair().await;
    b.cluster.stop().await;
    eventually("b is down at once", || a.sees("b") == Some(State::Down)).await;
    a.put("meanwhile", 1).await;
    drop(b.cluster);
    let b = open(&b.config).await;
    let has = || b.replica().get("stack", "meanwhile").unwrap().is_some();
    eventually("b has what it missed", has).await;
    eventually("b is up", || a.sees("b") == Some(State::Up)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_one_node_also_if_two_come_at_once() {
    let a = Node::new("a").await;
    for round in 0..5 {
        let (b, c) = (
            Node::new(&format!("b{round}")).await,
            Node::new(&format!("c{round}")).await,
        );
        let token = a.token().await;
        let (one, other) = tokio::join!(
            b.cluster.join(&token, None, false),
            c.cluster.join(&token, None, false)
        );
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_as_before() {
    let (a, b, c) = (
        Node::new("a").await,
        Node::new("b").await,
        Node::new("c").await,
    );
    let own = b.token().await;
    let (me, cluster) = (b.cluster.me(), b.cluster.mesh().unwrap().cluster());
    let forged = Token {
        secret: [3; 16],
        ..a.token().await
    };
    for new_key in [false, true] {
        let error = b.cluster.join(&forged, None, new_key).await.unwrap_err();
        assert!(error.to_string().contains("not known here"), "{error}");
        assert_eq!(b.cluster.me(), me);
        assert_eq!(b.cluster.mesh().unwrap().cluster(), cluster);
    }
    c.cluster.join(&own, None, false).await.unwrap();
    eventually("c is up", || b.sees("c") == Some(State::Up)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_cluster_that_was_given_up_is_good_no_more() {
    let (a, b, c) = (
        Node::new("a").await,
        Node::new("b").await,
        Node::new("c").await,
    );
    let former = b.token().await;
    b.cluster.join(&a.token().await, None, false).await.unwrap();
    b.token().await;
    let text = c.refused(&former).await;
    assert!(text.contains("not known here"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_comes_back_with_what_it_has() {
    let (a, b) = pair().await;
    a.put("of-a", 1).await;
    b.put("of-b", 1).await;
    eventually("each has both", || a.has("of-b") && b.has("of-a")).await;
    a.cluster.remove(b.cluster.me()).await.unwrap();
    eventually("b goes on alone", || b.cluster.mesh().is_none()).await;
    b.cluster.join(&a.token().await, None, false).await.unwrap();
    eventually("it is back", || a.sees("b") == Some(State::Up)).await;
    assert!(a.has("of-a") && b.has("of-a"));
    // What was changed on both sides meanwhile is somebody's to decide.
    a.cluster.remove(b.cluster.me()).await.unwrap();
    eventually("b goes on alone", || b.cluster.mesh().is_none()).await;
    a.put("of-b", 2).await;
    b.put("of-b", 3).await;
    let error = b.cluster.join(&a.token().await, None, false).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("have stack of-b"), "{text}");
}
