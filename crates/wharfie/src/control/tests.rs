//! Commands of one node over the agents of several, joined in memory.

use clap::Parser;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::{Control, ExecOptions, LogOptions};
use crate::agent::tests::{Cluster, until};
use crate::api::{Node, NodeState};
use crate::cli::Cli;
use crate::commands;
use crate::commands::pick;
use crate::context::Context;
use crate::failure::Failure;

/// What a user types on the first node.
fn cli(cluster: &Cluster, words: &[&str]) -> Cli {
    let socket = cluster.members[0].socket.display().to_string();
    let words = words.iter().copied();
    Cli::parse_from(["wharfie", "--socket", &socket].into_iter().chain(words))
}

fn context(cluster: &Cluster, words: &[&str]) -> Context {
    Context::new(cli(cluster, words).global)
}

async fn typed(cluster: &Cluster, words: &[&str]) -> Result<(), Failure> {
    commands::run(cli(cluster, words)).await
}

/// Three nodes; `shop` runs on the last two, and something of no project on the second.
async fn cluster() -> Cluster {
    let cluster = Cluster::begin(&["alpha", "beta", "gamma"]).await;
    cluster.members[1].engine.run("bb11", "shop", "web");
    cluster.members[2].engine.run("cc11", "shop", "db");
    cluster.members[1].engine.run("bb22", "", "lonely");
    cluster
}

#[tokio::test]
async fn containers_are_listed_wherever_they_are() {
    let cluster = cluster().await;
    let control = Control::connect(&context(&cluster, &["ps"])).await.unwrap();
    let names = |containers: Vec<super::Container>| {
        let names = containers
            .into_iter()
            .map(|c| format!("{}@{}", c.name, c.node));
        names.collect::<Vec<_>>()
    };
    let of_shop = control.containers("shop").await.unwrap();
    assert_eq!(names(of_shop), ["shop-db-1@gamma", "shop-web-1@beta"]);
    let all = names(control.list(None, false).await.unwrap());
    assert!(all.contains(&"lonely@beta".to_owned()) && all.len() == 3);
    let projects = control.projects(false).await.unwrap();
    assert_eq!(projects.len(), 1);
    assert_eq!(projects[0].nodes, ["beta", "gamma"]);
    assert_eq!(projects[0].status, "running(2)");
    for words in [
        &["ps", "-A"][..],
        &["-p", "shop", "ps", "--format", "json"],
        &["-p", "shop", "images"],
        &["-p", "shop", "volumes"],
        &["ls"],
        &["inspect", "lonely", "cc"],
    ] {
        typed(&cluster, words).await.unwrap();
    }
}

#[tokio::test]
async fn nodes_that_do_not_answer_hold_nobody_up() {
    let cluster = cluster().await;
    cluster.net.set("gamma", NodeState::Down);
    let control = Control::connect(&context(&cluster, &["ps"])).await.unwrap();
    assert_eq!(control.containers("shop").await.unwrap().len(), 1);
    cluster.net.set("gamma", NodeState::Up);
    cluster.net.stick("gamma");
    let control = Control::connect(&context(&cluster, &["ps"])).await.unwrap();
    assert_eq!(control.containers("shop").await.unwrap().len(), 1);
    // What the user wants of the others goes on.
    typed(&cluster, &["stop", "bb11"]).await.unwrap();
    assert_eq!(
        cluster.members[1].engine.asked(),
        ["POST /containers/bb11/stop"]
    );
}

#[tokio::test]
async fn containers_are_acted_on_by_name_id_and_prefix() {
    let cluster = cluster().await;
    for words in [
        &["stop", "shop-web-1"][..],
        &["kill", "-s", "HUP", "lonely"],
        &["restart", "cc"],
        &["pause", "cc11"],
        &["rm", "-s", "-f", "lonely"],
        &["-p", "shop", "restart", "lonely"],
    ] {
        typed(&cluster, words).await.unwrap();
    }
    assert_eq!(
        cluster.members[1].engine.asked(),
        [
            "POST /containers/bb11/stop",
            "POST /containers/bb22/kill",
            "POST /containers/bb22/stop",
            "DELETE /containers/bb22",
            "POST /containers/bb22/restart",
        ]
    );
    assert_eq!(
        cluster.members[2].engine.asked(),
        [
            "POST /containers/cc11/restart",
            "POST /containers/cc11/pause"
        ]
    );
    assert!(cluster.members[0].engine.asked().is_empty());
    let text = typed(&cluster, &["stop", "nobody"])
        .await
        .unwrap_err()
        .text();
    assert!(text.contains("no such container: nobody"), "{text}");
    let text = typed(&cluster, &["-p", "shop", "stop", "nobody"]).await;
    let text = text.unwrap_err().text();
    assert!(
        text.contains("no such service or container: nobody"),
        "{text}"
    );
}

#[tokio::test]
async fn a_service_is_acted_on_where_it_is() {
    let cluster = Cluster::begin(&["alpha", "beta"]).await;
    cluster.members[1].engine.run("bb11", "shop", "web");
    // Nobody keeps it: it is where it was seen.
    let fleet = &cluster.members[0].agent.fleet();
    let seen = |nodes: Vec<Node>| {
        nodes.iter().any(|n| {
            n.report
                .as_ref()
                .is_some_and(|r| r.containers.iter().any(|c| c.project == "shop"))
        })
    };
    until(|| seen(fleet.nodes())).await;
    typed(&cluster, &["-p", "shop", "stop", "web"])
        .await
        .unwrap();
    assert_eq!(
        cluster.members[1].engine.asked(),
        ["POST /containers/bb11/stop"]
    );
    let context = context(&cluster, &["ls"]);
    let on = |node: &'static str| Control::acting_for(&context, "new", Some(node));
    assert_eq!(on("beta").await.unwrap().engine().address(), "node beta");
    let text = on("delta").await.unwrap_err().text();
    assert!(text.contains("no such node: delta"), "{text}");
}

#[tokio::test]
async fn a_command_runs_in_a_container_of_another_node() {
    let cluster = cluster().await;
    let context = context(&cluster, &["ps"]);
    let found = pick::one(&context, "cc", None, pick::Taken::Running).await;
    let (control, container) = found.unwrap();
    assert_eq!(container.node, "gamma");
    let options = ExecOptions {
        command: vec!["cat".to_owned()],
        tty: true,
        interactive: true,
        ..ExecOptions::default()
    };
    let session = control.exec(&container.id, &options).await.unwrap();
    let mut session = session.unwrap();
    session.input.write_all(b"over there").await.unwrap();
    session.input.shutdown().await.unwrap();
    let mut said = Vec::new();
    while let Some(piece) = session.output.next().await {
        said.extend_from_slice(&piece.unwrap().bytes);
    }
    assert_eq!(said, b"OVER THERE");
    assert_eq!(session.exit_code().await.unwrap(), 3);
    assert_eq!(cluster.members[2].engine.asked(), ["exec in cc11"]);
}

#[tokio::test]
async fn logs_and_events_come_from_all_nodes() {
    let cluster = cluster().await;
    for (member, id, time, line) in [
        (1, "bb11", "2026-11-21T10:00:00.000000001Z", "first"),
        (2, "cc11", "2026-11-21T10:00:00.000000002Z", "second"),
        (1, "bb11", "2026-11-21T10:00:00.000000003Z", "third"),
    ] {
        cluster.members[member].engine.say(id, time, line);
    }
    typed(&cluster, &["-p", "shop", "logs"]).await.unwrap();
    let control = Control::connect(&context(&cluster, &["logs"]))
        .await
        .unwrap();
    let containers = control.containers("shop").await.unwrap();
    for (container, text) in containers.iter().zip(["second", "first"]) {
        let log = control
            .at(container)
            .logs(&container.id, &LogOptions::default());
        let mut log = Box::pin(log);
        let piece = log.next().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&piece.bytes).contains(text));
    }
    let mut events = control.events("", None, None);
    let mut nodes = Vec::new();
    for member in [1, 2] {
        let engine = &cluster.members[member].engine;
        let mut id = 0;
        let event = loop {
            // The streams may not be open yet.
            id += 1;
            engine.run(&format!("new{id}"), "shop", "late");
            let soon = std::time::Duration::from_millis(50);
            if let Ok(event) = tokio::time::timeout(soon, events.next()).await {
                break event.unwrap().unwrap();
            }
        };
        nodes.push(event.node);
        while tokio::time::timeout(std::time::Duration::from_millis(50), events.next())
            .await
            .is_ok()
        {}
    }
    assert_eq!(nodes, ["beta", "gamma"]);
}
