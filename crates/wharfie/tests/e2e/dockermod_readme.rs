//! The requests of DockerMod's README to three nodes, its replies and ours compared key by key.
//! `dockermod_readme.json` has the keys of its examples.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::{Value, json};
use wharfie_lab::{EngineKind, Lab, Request};

use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};

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
    let readme: Value = serde_json::from_str(include_str!("dockermod_readme.json")).unwrap();
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

/// Asks a node as `curl --data` does.
#[track_caller]
fn ask(node: &Node, request: &Value) -> Value {
    let post = Request::new("POST", "/")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(request.to_string());
    let response = node.host.http("http://127.0.0.1:8080/", &post).unwrap();
    let reply = response.json().unwrap();
    assert_eq!(response.status, 200, "{request}: {reply}");
    reply
}

fn list(reply: &Value) -> Vec<Value> {
    let replies = reply["containers"].as_array();
    replies.unwrap_or_else(|| panic!("{reply}")).clone()
}

/// The nodes that answered.
fn instances(replies: &[Value]) -> BTreeSet<String> {
    replies.iter().map(|r| text(&r["dockerInstance"])).collect()
}

#[test]
fn the_readmes_requests_have_the_readmes_replies() {
    // One of them is of another time.
    let builder = Lab::builder().hosts(3).engine_of(3, EngineKind::Sid28);
    let Some(cluster) = Cluster::with(builder, "readme", "services: {}") else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    for node in cluster.nodes() {
        let engine = node.host.engine();
        engine.tag_image("busybox", "ubuntu", "latest").unwrap();
        node.write("wharfie.toml", "dockermod-listen = 8080\n");
        node.ok("reload").says(["dockermod-listen"]);
    }
    h3.write("test.json", &template().to_string());
    h3.ok("template put test test.json");
    // Whoever is told it, all know it.
    soon(|| {
        ensure!(h1.ok("template ls -q").lines() == ["test"], "not yet");
        Ok(())
    });

    let request = json!({"action": "create-container", "template": "test", "instances": 4});
    let made = list(&ask(h1, &request));
    let all = ["h1", "h2", "h3"];
    assert_eq!(made.len(), 4);
    assert!(instances(&made).iter().eq(all), "{made:?}");
    for reply in &made {
        is_like("create", reply);
    }
    let image = json!({"action": "create-container", "image": "ubuntu"});
    let image = ask(h1, &image);
    is_like("create", &image);
    let raw = json!({"action": "create-raw-container", "body": template()});
    is_like("create", &ask(h1, &raw));
    let raw = json!({"action": "create-raw-container", "body": template(), "instances": 3});
    let raw = list(&ask(h1, &raw));
    assert!(instances(&raw).iter().eq(all), "{raw:?}");
    for reply in &raw {
        is_like("create", reply);
    }

    let id = |made: &Value| text(&made["Response"]["Body"]["Id"]);
    // A node that does not run it.
    let other = |made: &Value| match made["dockerInstance"].as_str() {
        Some("h1") => h2,
        Some("h2") => h3,
        _ => h1,
    };
    for made in &made {
        let (id, other) = (id(made), other(made));
        let of = |example: &str, request: Value| {
            let reply = ask(other, &request);
            is_like(example, &reply);
            assert_eq!(reply["dockerInstance"], made["dockerInstance"], "{reply}");
        };
        of("inspect", json!({"action": "inspect-container", "id": id}));
        of(
            "start",
            json!({"action": "start-container", "id": &id[..12]}),
        );
        let restart = json!({"action": "restart-container", "id": id, "timeout": 0});
        of("start", restart);
    }

    is_like(
        "containers",
        &ask(h2, &json!({"action": "list-containers"})),
    );
    is_like("images", &ask(h2, &json!({"action": "list-images"})));
    for (action, example) in [("list-containers", "containers"), ("list-images", "images")] {
        let replies = list(&ask(h2, &json!({"action": action, "all": true})));
        assert_eq!(replies.len(), 3);
        for reply in replies {
            is_like(example, &reply);
        }
    }

    // A stop that waits, one that does not, and one with a removal.
    let [one, two, three] = [0, 1, 2].map(|n| &made[n]);
    let stop = json!({"action": "stop-container", "id": id(one), "timeout": 1});
    is_like("start", &ask(other(one), &stop));
    let kill = json!({"action": "stop-container", "id": id(two), "kill": true});
    is_like("start", &ask(other(two), &kill));
    for made in [one, two] {
        let (id, other) = (id(made), other(made));
        let inspect = json!({"action": "inspect-container", "id": id});
        let reply = ask(other, &inspect);
        let state = &reply["Response"]["Body"]["State"];
        assert_eq!(
            (&state["Running"], &state["ExitCode"]),
            (&json!(false), &json!(137))
        );
        let delete = json!({"action": "delete-container", "id": id});
        is_like("delete", &ask(other, &delete));
        let gone = json!({"status": "timeout or no such id"});
        assert_eq!(ask(other, &inspect), gone);
    }
    let busy = json!({"action": "delete-container", "id": id(three)});
    let busy = ask(other(three), &busy);
    assert_eq!(busy["statusCode"], 409, "{busy}");
    let shutdown = json!({"action": "shutdown-container", "id": id(three), "timeout": 0});
    is_like("delete", &ask(other(three), &shutdown));

    let containers = json!({"action": "list-containers", "all": true});
    for (action, count) in [("unregister", 2), ("register", 3)] {
        let reply = ask(h1, &json!({"action": action, "hostname": "h3"}));
        assert_eq!(reply, json!({"status": "ok"}));
        assert_eq!(list(&ask(h1, &containers)).len(), count);
    }

    // An Engine in the middle that hangs, and then is gone.
    let engine = h2.host.engine();
    for end in [wharfie_lab::Engine::freeze, wharfie_lab::Engine::kill] {
        end(engine).unwrap();
        let replies = list(&ask(h1, &containers));
        let dead = json!({"error": "timeout"});
        assert_eq!((replies.len(), &replies[1]), (3, &dead));
        is_like("containers", &replies[0]);
        is_like("containers", &replies[2]);
    }
    // A node that is away holds nothing up, and goes from the list.
    h3.kill_agent();
    h1.sees(h3, "down");
    assert_eq!(list(&ask(h1, &containers)).len(), 2);
}
