use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wharfie_cluster::Options;
use wharfie_core::Stack;

use super::{Cluster, until};
use crate::agent::keeper::STACK;
use crate::api::{Info, Message, Node, NodeState, Request, StackInfo, What};
use crate::control::Client;
use crate::failure::Failure;

/// What a raw request is answered.
async fn ask(socket: &Path, request: &str) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

fn upgrade(node: &str, service: &str) -> String {
    format!(
        "GET /v1/nodes/{node}/{service} HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: wharfie-stream\r\n\r\n"
    )
}

#[tokio::test]
async fn every_node_tells_of_all() {
    let cluster = Cluster::begin(&["beta", "alpha"]).await;
    let client = Client::new(cluster.members[0].socket.clone());
    assert_eq!(client.get::<Info>("/v1/info").await.unwrap().nodes, 2);
    cluster.members[1].engine.run("a1", "shop", "web");
    let mut seen = None;
    for _ in 0..1000 {
        let nodes: Vec<Node> = client.get("/v1/nodes").await.unwrap();
        // Oneself first.
        assert_eq!((nodes[0].name.as_str(), nodes[0].me), ("beta", true));
        let report = nodes[1].report.clone().unwrap();
        if let Some(container) = report.containers.first().cloned() {
            assert_eq!((report.cpus, report.engine.as_str()), (4, "28.0"));
            seen = Some(container);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // The event alone makes it known: nothing else looks within 30 s.
    let container = seen.expect("it is reported");
    assert_eq!(
        (container.name.as_str(), container.project.as_str()),
        ("shop-web-1", "shop")
    );
    assert_eq!(container.addresses["net"], "10.0.0.2");
}

#[tokio::test]
async fn an_engine_is_reached_through_any_agent() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    cluster.members[1].engine.run("b1", "", "lonely");
    for from in &cluster.members {
        for name in ["beta", "beta-id", "bet"] {
            let (mut stream, head) = ask(&from.socket, &upgrade(name, "engine")).await;
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            let get = "GET /containers/json HTTP/1.0\r\n\r\n";
            stream.write_all(get.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("/lonely"), "{answer}");
        }
    }
    let (mut stream, head) = ask(&cluster.members[0].socket, &upgrade("beta", "agent")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
        .write_all(b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(r#""name":"beta","me":true"#), "{answer}");
}

#[tokio::test]
async fn what_leads_nowhere_is_said() {
    let cluster = Cluster::begin(&["alpha", "beta", "gamma"]).await;
    let socket = &cluster.members[0].socket;
    let said = async |node: &str, service: &str| {
        let (mut stream, head) = ask(socket, &upgrade(node, service)).await;
        let length = head.to_lowercase();
        let length = length.split("content-length: ").nth(1).unwrap();
        let length: usize = length.split('\r').next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        (head[9..12].to_owned(), String::from_utf8(body).unwrap())
    };
    let (status, body) = said("delta", "engine").await;
    assert!(
        status == "404" && body.contains("no such node: delta"),
        "{status} {body}"
    );
    let (status, body) = said("beta", "kitchen").await;
    assert!(
        status == "404" && body.contains("kitchen"),
        "{status} {body}"
    );
    cluster.net.set("beta", NodeState::Down);
    let (status, body) = said("beta", "engine").await;
    assert!(
        status == "502" && body.contains("node beta is away since 2026-11-1"),
        "{status} {body}"
    );
    cluster.net.stick("gamma");
    let (status, body) = said("gamma", "engine").await;
    assert!(
        status == "502" && body.contains("node gamma does not answer within 3 s"),
        "{status} {body}"
    );
}

/// Writes down a stack of a node without anybody's doing anything for it.
fn put(cluster: &Cluster, name: &str, home: &str) {
    let stack = Stack {
        project: wharfie_compose::model::Project {
            name: name.to_owned(),
            ..Default::default()
        },
        home: home.to_owned(),
        ..Stack::default()
    };
    let replica = &cluster.members[0].agent.keeper.replica;
    let value = serde_json::to_value(&stack).unwrap();
    let options = Options::default();
    let put = replica.put((STACK, name), Some(value), ("up", 1), options, None);
    put.unwrap();
}

fn stop(on: Option<&str>) -> Request {
    Request {
        what: What::Intent(Box::new(wharfie_core::Intent::Stop {
            services: Vec::new(),
            timeout: None,
            starting: Vec::new(),
        })),
        parallel: 0,
        on: on.map(str::to_owned),
        replicated: None,
    }
}

#[tokio::test]
async fn a_stack_is_answered_for_by_its_home() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    put(&cluster, "shop", "beta-id");
    let beta = &cluster.members[1].agent.keeper;
    beta.renew("shop").await.unwrap();
    cluster.members[0].agent.keeper.renew("shop").await.unwrap();
    cluster.members[1].engine.run("b1", "shop", "web");
    for member in &cluster.members {
        let client = Client::new(member.socket.clone());
        let info: StackInfo = client.get("/v1/stacks/shop").await.unwrap();
        assert_eq!(
            (info.node.as_str(), info.home.as_str()),
            ("beta", "beta-id")
        );
        let all: Vec<StackInfo> = client.get("/v1/stacks").await.unwrap();
        let all: Vec<(&str, &str)> = all
            .iter()
            .map(|s| (s.name.as_str(), s.node.as_str()))
            .collect();
        assert_eq!(all, [("shop", "beta")]);
    }
    // Asked of alpha, done by beta.
    let client = Client::new(cluster.members[0].socket.clone());
    let mut steps = 0;
    let done = client
        .act("shop", &stop(None), |told| {
            steps += usize::from(matches!(told, Message::Step { .. }));
        })
        .await;
    done.unwrap();
    assert!(steps > 0);
    assert_eq!(
        cluster.members[1].engine.asked(),
        ["POST /containers/b1/stop"]
    );
    assert!(cluster.members[0].engine.asked().is_empty());
    // It has a home already.
    let refused = client.act("shop", &stop(Some("alpha")), |_| {}).await;
    let refused = refused.unwrap_err();
    assert!(
        refused[0]
            .what
            .contains("stack shop is on node beta, not on alpha")
    );
}

#[tokio::test]
async fn a_stack_whose_home_is_away_is_listed_and_nothing_else() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    put(&cluster, "shop", "beta-id");
    cluster.net.set("beta", NodeState::Down);
    let client = Client::new(cluster.members[0].socket.clone());
    let all: Vec<StackInfo> = client.get("/v1/stacks").await.unwrap();
    assert_eq!(all.len(), 1);
    let trouble = all[0].trouble.clone().unwrap();
    assert!(
        trouble.contains("node beta is away since 2026-11-1"),
        "{trouble}"
    );
    // What can wait is noted for it; what needs its containers is refused.
    let mut noted = None;
    let heard = |told| {
        if let Message::Noted { home } = told {
            noted = Some(home);
        }
    };
    client.act("shop", &stop(None), heard).await.unwrap();
    let noted = noted.expect("it is said that it is noted");
    assert!(noted.contains("node beta is away since"), "{noted}");
    let restart = Request {
        what: What::Intent(Box::new(wharfie_core::Intent::Restart {
            services: Vec::new(),
            timeout: None,
        })),
        ..stop(None)
    };
    let faults = client.act("shop", &restart, |_| {}).await.unwrap_err();
    let failure = Failure::from(faults[0].clone());
    assert_eq!(failure.code(), 4);
    assert!(failure.text().contains("node beta is away since"));
    // Gone for good: the one who is asked takes it over.
    cluster.net.set("beta", NodeState::Removed);
    client.act("shop", &stop(None), |_| {}).await.unwrap();
    let keeper = &cluster.members[0].agent.keeper;
    until(|| keeper.slots().iter().any(|s| s.name == "shop")).await;
}

#[tokio::test]
async fn a_request_is_handed_on_once_only() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    put(&cluster, "shop", "beta-id");
    let request =
        "GET /v1/stacks/shop HTTP/1.1\r\nHost: x\r\nx-wharfie-handed-on-by: gamma\r\n\r\n";
    let (_, head) = ask(&cluster.members[0].socket, request).await;
    assert!(head.starts_with("HTTP/1.1 409 "), "{head}");
}

#[tokio::test]
async fn what_was_wanted_before_there_were_others_is_kept_here() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    put(&cluster, "old", "");
    put(&cluster, "other", "beta-id");
    let keeper = &cluster.members[0].agent.keeper;
    for name in ["old", "other"] {
        keeper.renew(name).await.unwrap();
    }
    assert!(
        keeper
            .slots()
            .iter()
            .all(|s| s.shown().is_none_or(|s| s.name == "old"))
    );
    keeper.follow_me("").await;
    let slots = keeper.slots();
    let old = slots.iter().find(|s| s.name == "old").unwrap();
    assert_eq!(old.shown().unwrap().home, "alpha-id");
    let home = async |name: &str| keeper.home(name).await.unwrap();
    assert_eq!(home("old").await.as_deref(), Some("alpha-id"));
    assert_eq!(home("other").await.as_deref(), Some("beta-id"));
    assert_eq!(home("none").await, None);
}

/// Says when it is dropped.
struct Guard(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(());
        }
    }
}

#[tokio::test]
async fn who_goes_away_ends_the_work_on_the_other_node() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    put(&cluster, "shop", "beta-id");
    let (tell, told) = tokio::sync::oneshot::channel();
    let guard = std::sync::Arc::new(std::sync::Mutex::new(Some(Guard(Some(tell)))));
    // In place of beta's agent: it begins to answer, and never ends.
    let answer = move || {
        let guard = guard.lock().unwrap().take();
        async move {
            let first = futures_util::stream::once(async {
                Ok::<_, std::io::Error>("{\"is\":\"waiting\"}\n")
            });
            let rest = futures_util::stream::pending();
            let guarded = futures_util::StreamExt::map(
                futures_util::StreamExt::chain(first, rest),
                move |piece| {
                    let _guard = &guard;
                    piece
                },
            );
            axum::body::Body::from_stream(guarded)
        }
    };
    let router = axum::Router::new().fallback(answer);
    crate::agent::tunnel::offer_agent(cluster.members[1].agent.fleet(), router);
    let client = Client::new(cluster.members[0].socket.clone());
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let work = tokio::spawn(async move {
        let request = stop(None);
        let heard = |_| {
            let _ = begun.send(());
        };
        client.act("shop", &request, heard).await
    });
    has_begun.recv().await.unwrap();
    work.abort();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), told).await;
    ended.expect("the work on beta ends").unwrap();
}
