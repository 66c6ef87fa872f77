use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wharfie_cluster::Options;
use wharfie_compose::model::{Project, Service};
use wharfie_core::Stack;
use wharfie_core::assignment::Assignment;

use super::Cluster;
use crate::agent::keeper::STACK;
use crate::api::{Info, Message, Node, NodeState, Request, StackInfo, What};
use crate::control::Client;

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

/// What the nodes are when the second of them has told of a container. The event alone makes it known:
/// nothing else looks within 30 s.
async fn has_reported(client: &Client, id: &str) -> Vec<Node> {
    for _ in 0..1000 {
        let nodes: Vec<Node> = client.get("/v1/nodes").await.unwrap();
        let report = nodes[1].report.clone().unwrap();
        if report.containers.iter().any(|c| c.id == id) {
            return nodes;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{id} is not reported");
}

#[tokio::test]
async fn every_node_tells_of_all() {
    let cluster = Cluster::begin(&["beta", "alpha"]).await;
    let client = Client::new(cluster.members[0].socket.clone());
    assert_eq!(client.get::<Info>("/v1/info").await.unwrap().nodes, 2);
    cluster.members[1].engine.run("a1", "shop", "web");
    let nodes = has_reported(&client, "a1").await;
    // Oneself first.
    assert_eq!((nodes[0].name.as_str(), nodes[0].me), ("beta", true));
    let report = nodes[1].report.clone().unwrap();
    assert_eq!((report.cpus, report.engine.as_str()), (4, "28.0"));
    let container = report.containers[0].clone();
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

/// Writes down a stack with one service, whose task is on a node, without anybody's doing anything.
fn put(cluster: &Cluster, name: &str, node: &str) {
    let web = Service {
        name: "web".to_owned(),
        image: "busybox".to_owned(),
        ..Service::default()
    };
    let stack = Stack {
        project: Project {
            name: name.to_owned(),
            services: [("web".to_owned(), web)].into(),
            ..Project::default()
        },
        active: ["web".to_owned()].into(),
        home: node.to_owned(),
        ..Stack::default()
    };
    let assignment = Assignment {
        tasks: [(1, node.to_owned())].into(),
        rollout: None,
    };
    let replica = &cluster.members[0].agent.keeper.replica;
    let put = |kind: &str, name: &str, value| {
        let options = Options::default();
        replica
            .put((kind, name), Some(value), ("up", 1), options, None)
            .unwrap();
    };
    let of_web = format!("{name}/web");
    put(STACK, name, serde_json::to_value(&stack).unwrap());
    put(
        "assignment",
        &of_web,
        serde_json::to_value(&assignment).unwrap(),
    );
}

/// The same, and all nodes know of it.
async fn tell(cluster: &Cluster, name: &str, node: &str) {
    put(cluster, name, node);
    for member in &cluster.members {
        member.agent.keeper.renew(name).await.unwrap();
    }
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
        images: Default::default(),
    }
}

#[tokio::test]
async fn a_change_is_carried_out_where_the_tasks_are() {
    // Whoever decides: one of both is asked, and one of both is it.
    for stack in ["shop", "blog", "wiki"] {
        let cluster = Cluster::begin(&["alpha", "beta"]).await;
        cluster.members[1].engine.run("b1", stack, "web");
        tell(&cluster, stack, "beta-id").await;
        for member in &cluster.members {
            let client = Client::new(member.socket.clone());
            let info: StackInfo = client.get(&format!("/v1/stacks/{stack}")).await.unwrap();
            assert_eq!(
                (info.node.as_str(), info.home.as_str()),
                ("beta", "beta-id")
            );
            let all: Vec<StackInfo> = client.get("/v1/stacks").await.unwrap();
            assert_eq!(all.len(), 1);
        }
        let client = Client::new(cluster.members[0].socket.clone());
        let mut steps = 0;
        let heard = |told| steps += usize::from(matches!(told, Message::Step { .. }));
        client.act(stack, &stop(None), heard).await.unwrap();
        assert!(steps > 0);
        let asked = cluster.members[1].engine.asked();
        assert!(
            asked.contains(&"POST /containers/b1/stop".to_owned()),
            "{asked:?}"
        );
        assert!(cluster.members[0].engine.asked().is_empty());
        for member in &cluster.members {
            member.agent.keeper.renew(stack).await.unwrap();
        }
        let info: StackInfo = client.get(&format!("/v1/stacks/{stack}")).await.unwrap();
        assert_eq!(info.halted, ["web/1"]);
        let refused = client.act(stack, &stop(Some("nobody")), |_| {}).await;
        assert!(
            refused.unwrap_err()[0]
                .what
                .contains("no such node: nobody")
        );
    }
}

#[tokio::test]
async fn what_is_asked_of_a_node_that_is_away_is_done_when_it_is_back() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    let client = Client::new(cluster.members[0].socket.clone());
    // The task may be moved before the change comes; the container is beta's either way.
    cluster.members[1].engine.run("b1", "shop", "web");
    has_reported(&client, "b1").await;
    tell(&cluster, "shop", "beta-id").await;
    cluster.net.set("beta", NodeState::Down);
    let mut noted = None;
    let heard = |told| {
        if let Message::Noted { why } = told {
            noted = Some(why);
        }
    };
    client.act("shop", &stop(None), heard).await.unwrap();
    let noted = noted.expect("it is said that it is done later");
    assert!(noted.contains("node beta is away since"), "{noted}");
}

#[tokio::test]
async fn a_request_is_handed_on_once_only() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    tell(&cluster, "shop", "beta-id").await;
    // Both take themselves for the one who decides, as in the middle of a change of the members.
    for member in &cluster.members {
        let body = serde_json::to_string(&stop(None)).unwrap();
        let request = format!(
            "POST /v1/stacks/shop HTTP/1.1\r\nHost: x\r\nx-wharfie-handed-on-by: gamma\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (_, head) = ask(&member.socket, &request).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
}

#[tokio::test]
async fn what_a_node_had_under_another_id_is_still_its_own() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    put(&cluster, "old", "former");
    put(&cluster, "other", "beta-id");
    let keeper = &cluster.members[0].agent.keeper;
    keeper.follow_me("former").await;
    let value = |kind: &str, name: &str| {
        let record = keeper.replica.get(kind, name).unwrap().unwrap();
        record.value.unwrap()
    };
    assert_eq!(value(STACK, "old")["home"], "alpha-id");
    assert_eq!(value(STACK, "other")["home"], "beta-id");
    assert_eq!(value("assignment", "old/web")["tasks"]["alpha-id"][0], 1);
    assert_eq!(value("assignment", "other/web")["tasks"]["beta-id"][0], 1);
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
    tell(&cluster, "shop", "beta-id").await;
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
