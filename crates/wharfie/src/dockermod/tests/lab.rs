//! The requests of DockerMod's README to three Engines, its replies and ours compared key by key.
//! `readme.json` has the keys of its examples. Needs root: without, it says so and passes, unless
//! `CI` is set.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use wharfie_lab::{EngineKind, Lab, prerequisites};

use super::Kept;
use super::door::{any_port, post};
use crate::dockermod::nodes::{Node, Nodes, Stream};
use crate::dockermod::{Door, Service};

/// Engines by their sockets.
struct Sockets(BTreeMap<String, PathBuf>);

impl Nodes for Sockets {
    fn nodes(&self) -> Vec<Node> {
        let node = |(index, name): (usize, &String)| Node {
            id: name.clone(),
            name: name.clone(),
            me: index == 0,
            up: true,
        };
        self.0.keys().enumerate().map(node).collect()
    }

    fn open<'a>(
        &'a self,
        node: &'a str,
        _service: &'a str,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = UnixStream::connect(&self.0[node]).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// DockerMod's example of a template.
fn template() -> Value {
    json!({
        "Hostname": "TESTNODE", "User": "", "Memory": 0, "MemorySwap": 0, "AttachedStdin": false,
        "AttachStdout": true, "AttachStderr": true, "PortSpecs": ["80", "22"],
        "Privileged": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null,
        "Cmd": ["/bin/sleep", "1000"], "Dns": null, "Image": "ubuntu", "Volumes": {},
        "VolumesFrom": "", "WorkingDir": "", "HostConfig": {"PublishAllPorts": true},
    })
}

/// Keys of the one that the other lacks, as paths.
fn lacks(theirs: &Value, ours: &Value, path: &str, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, theirs) in theirs {
                let path = format!("{path}.{key}");
                match ours.get(key) {
                    Some(ours) => lacks(theirs, ours, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if let (Some(theirs), Some(ours)) = (theirs.first(), ours.first()) {
                lacks(theirs, ours, path, found);
            }
        }
        (Value::Object(_), other) | (Value::Array(_), other) => {
            found.push(format!("{path} is {other}"));
        }
        // Then nothing, now something, or the other way round.
        _ => {}
    }
}

/// What the Engine has dropped from its answers since 2014.
const DROPPED: [&str; 13] = [
    ".Response.Body.Config.CpuShares",
    ".Response.Body.Config.Cpuset",
    ".Response.Body.Config.Memory",
    ".Response.Body.Config.MemorySwap",
    ".Response.Body.Config.NetworkDisabled",
    ".Response.Body.Config.PortSpecs",
    ".Response.Body.Config.SecurityOpt",
    ".Response.Body.ExecDriver",
    ".Response.Body.HostConfig.LxcConf",
    ".Response.Body.NetworkSettings.PortMapping",
    ".Response.Body.Volumes",
    ".Response.Body.VolumesRW",
    // Since API 1.44.
    ".Response.Body.VirtualSize",
];

#[track_caller]
fn is_like(example: &str, reply: &Value) {
    let readme: Value = serde_json::from_str(include_str!("readme.json")).unwrap();
    let mut found = Vec::new();
    lacks(&readme[example], reply, "", &mut found);
    // A long answer comes in chunks.
    let chunked = reply.get("Transfer-Encoding").is_some();
    found.retain(|p| !(DROPPED.contains(&p.as_str()) || chunked && p == ".Content-Length"));
    assert!(
        found.is_empty(),
        "{example}: {found:?} are not in {reply:#}"
    );
    if let Some(status) = readme[example].get("statusCode") {
        assert_eq!(&reply["statusCode"], status, "{reply:#}");
    }
    let engines = |k: &&String| k.chars().next().is_some_and(char::is_uppercase);
    for key in reply.as_object().unwrap().keys().filter(|k| !engines(k)) {
        assert!(
            matches!(key.as_str(), "statusCode" | "dockerInstance"),
            "{key}"
        );
    }
}

fn lab() -> Option<Lab> {
    if let Some(reason) = prerequisites::unavailable() {
        assert!(
            std::env::var_os("CI").is_none(),
            "cannot be tested: {reason}"
        );
        eprintln!("skipped: {reason}");
        return None;
    }
    // One of them is of another time.
    let builder = Lab::builder().hosts(3).engine_of(3, EngineKind::Sid28);
    Some(builder.start().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_requests_have_the_readmes_replies() {
    let Some(lab) = lab() else { return };
    for host in lab.hosts() {
        host.engine()
            .tag_image("busybox", "ubuntu", "latest")
            .unwrap();
    }
    let sockets = lab.hosts().iter();
    let sockets = sockets.map(|h| (h.name().to_owned(), h.engine().socket()));
    let nodes = Arc::new(Sockets(sockets.collect()));
    let kept = Kept::new("lab");
    let body = template().as_object().unwrap().clone();
    kept.1.put("test", body, 5).await.unwrap();
    let door = Door::new(Service::new(nodes, kept.1.clone()));
    door.set(any_port(), None, None).await.unwrap();
    let ask = async |request: Value| {
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        let (status, reply) = post(&door, kind, &request.to_string()).await;
        assert_eq!(status, 200, "{request}: {reply}");
        reply
    };
    let list = |reply: &Value| reply["containers"].as_array().unwrap().clone();

    let request = json!({"action": "create-container", "template": "test", "instances": 4});
    let made = list(&ask(request).await);
    let mut nodes: Vec<&str> = made
        .iter()
        .map(|m| m["dockerInstance"].as_str().unwrap())
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!((made.len(), nodes), (4, vec!["h1", "h2", "h3"]));
    for reply in &made {
        is_like("create", reply);
    }
    is_like(
        "create",
        &ask(json!({"action": "create-container", "image": "ubuntu"})).await,
    );
    let raw = json!({"action": "create-raw-container", "body": template()});
    is_like("create", &ask(raw).await);

    for made in &made {
        let id = made["Response"]["Body"]["Id"].as_str().unwrap();
        let on = |action: &str| json!({"action": action, "id": id});
        let reply = ask(on("inspect-container")).await;
        is_like("inspect", &reply);
        assert_eq!(reply["dockerInstance"], made["dockerInstance"]);
        let reply = ask(json!({"action": "start-container", "id": &id[..12]})).await;
        is_like("start", &reply);
        assert_eq!(reply["dockerInstance"], made["dockerInstance"]);
        let reply = ask(json!({"action": "restart-container", "id": id, "timeout": 0})).await;
        is_like("start", &reply);
    }

    is_like(
        "containers",
        &ask(json!({"action": "list-containers"})).await,
    );
    is_like("images", &ask(json!({"action": "list-images"})).await);
    for (action, example) in [("list-containers", "containers"), ("list-images", "images")] {
        let replies = list(&ask(json!({"action": action, "all": true})).await);
        assert_eq!(replies.len(), 3);
        for reply in replies {
            is_like(example, &reply);
        }
    }

    let ids: Vec<&str> = made
        .iter()
        .map(|m| m["Response"]["Body"]["Id"].as_str().unwrap())
        .collect();
    // A stop that waits, one that does not, and one with a removal.
    let stop = json!({"action": "stop-container", "id": ids[0], "timeout": 1});
    is_like("start", &ask(stop).await);
    let kill = json!({"action": "stop-container", "id": ids[1], "kill": true});
    is_like("start", &ask(kill).await);
    for (id, code) in [(ids[0], 137), (ids[1], 137)] {
        let reply = ask(json!({"action": "inspect-container", "id": id})).await;
        let state = &reply["Response"]["Body"]["State"];
        assert_eq!(
            (&state["Running"], &state["ExitCode"]),
            (&json!(false), &json!(code))
        );
        is_like(
            "delete",
            &ask(json!({"action": "delete-container", "id": id})).await,
        );
        let gone = ask(json!({"action": "inspect-container", "id": id})).await;
        assert_eq!(gone, json!({"status": "timeout or no such id"}));
    }
    let busy = ask(json!({"action": "delete-container", "id": ids[2]})).await;
    assert_eq!(busy["statusCode"], 409, "{busy}");
    let shutdown = json!({"action": "shutdown-container", "id": ids[2], "timeout": 0});
    is_like("delete", &ask(shutdown).await);

    // An Engine in the middle that hangs, and then is gone.
    let engine = lab.host(2).engine();
    for end in [wharfie_lab::Engine::freeze, wharfie_lab::Engine::kill] {
        end(engine).unwrap();
        let replies = list(&ask(json!({"action": "list-containers", "all": true})).await);
        let dead = json!({"error": "timeout"});
        assert_eq!((replies.len(), &replies[1]), (3, &dead));
        is_like("containers", &replies[0]);
        is_like("containers", &replies[2]);
    }
}
