//! Images from node to node, and DockerMod's protocol over three nodes.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::{Value, json};
use wharfie_lab::Request;

use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};

const ONLY_ONE_HAS_IT: &str = "
services:
  web: {image: 'only/one:1', init: true, command: sleep 1000, pull_policy: missing}
";

/// Makes an image that no other node has, with a file in a layer of its own.
fn make_image(node: &Node, file: &str) {
    let engine = node.host.engine();
    let script = format!("head -c 300000 /dev/urandom >/{file}; (echo; echo made here) >>/{file}");
    let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script]});
    let made = engine.api("POST", "/containers/create?name=maker", Some(&body));
    let id = text(&made.unwrap()["Id"]);
    for call in ["start", "wait"] {
        let target = format!("/containers/{id}/{call}");
        engine.api("POST", &target, None).unwrap();
    }
    let target = format!("/commit?container={id}&repo=only/one&tag=1");
    engine.api("POST", &target, Some(&json!({}))).unwrap();
    engine.remove_container("maker").unwrap();
}

fn has(node: &Node) -> bool {
    let image = node
        .host
        .engine()
        .api("GET", "/images/only/one:1/json", None);
    image.is_ok()
}

/// Waits until it is known here which nodes have the image.
#[track_caller]
fn knows(node: &Node, having: &[&str]) {
    soon(|| {
        let images = node.ok("image ls --format json").json();
        let images = images.as_array().cloned().unwrap_or_default();
        let named = |i: &&Value| i["Names"].to_string().contains("only/one:1");
        let nodes: BTreeSet<String> = images
            .iter()
            .filter(named)
            .flat_map(|i| i["Nodes"].as_array().cloned().unwrap_or_default())
            .map(|n| text(&n))
            .collect();
        ensure!(nodes.iter().eq(having), "{nodes:?}");
        Ok(())
    });
}

#[test]
fn an_image_of_one_is_for_all() {
    let Some(cluster) = Cluster::of(3, "given", ONLY_ONE_HAS_IT) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    make_image(h1, "note");
    knows(h2, &["h1"]);
    h2.fails(1, "image pull no/such:1");
    assert!(!has(h2));
    h2.ok("image pull only/one:1");
    knows(h1, &["h1", "h2"]);
    knows(h3, &["h1", "h2"]);
    h2.ok("image rm only/one:1 h2");
    knows(h1, &["h1"]);
    h1.ok("image push only/one:1 h2");
    knows(h3, &["h1", "h2"]);
    // What a node lacks is taken from those that have it, before any registry is asked.
    h1.ok("up -d --on h3").says(["only/one:1"]);
    knows(h2, &["h1", "h2", "h3"]);
    let said = h1.ok("exec -T web tail -n 1 /note");
    assert_eq!(said.stdout, "made here\n");
    h1.fails(1, "image rm only/one:1").says(["h3"]);
    h1.ok("down -t 0");
    h2.ok("image rm only/one:1 h3");
    knows(h1, &[]);
    dockermod_has_three(&cluster);
}

/// What DockerMod's protocol does over three nodes, one of which listens.
fn dockermod_has_three(cluster: &Cluster) {
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h2.write("wharfie.toml", "dockermod-listen = 8080\n");
    h2.ok("reload").says(["dockermod-listen"]);
    let post = |body: Value| {
        let request = Request::new("POST", "/").body(body.to_string());
        let reply = h2.host.http("http://127.0.0.1:8080/", &request).unwrap();
        reply.json().unwrap()
    };
    // A template is known to all, whoever is told it.
    h3.write(
        "idle.json",
        r#"{"Image": "busybox", "Cmd": ["sleep", "1000"]}"#,
    );
    h3.ok("template put idle idle.json");
    soon(|| {
        ensure!(h2.ok("template ls -q").lines() == ["idle"], "not yet");
        Ok(())
    });
    let create = json!({"action": "create-container", "instances": 3, "template": "idle"});
    let reply = post(create);
    let made = reply["containers"].as_array().unwrap();
    let on: BTreeSet<String> = made.iter().map(|c| text(&c["dockerInstance"])).collect();
    assert!(on.iter().eq(["h1", "h2", "h3"]), "{reply}");
    for made in made {
        let id = text(&made["Response"]["Body"]["Id"]);
        let started = post(json!({"action": "start-container", "id": &id[..10]}));
        assert_eq!(started["statusCode"], 204, "{started}");
        assert_eq!(started["dockerInstance"], made["dockerInstance"]);
    }
    let list = post(json!({"action": "list-containers", "all": true}));
    let lists = list["containers"].as_array().unwrap();
    assert_eq!(lists.len(), 3, "{list}");
    for each in lists {
        let running = each["Response"]["Body"].as_array().unwrap();
        assert_eq!(running.len(), 1, "{list}");
    }
    let images = post(json!({"action": "list-images", "all": true}));
    assert_eq!(
        images["containers"].as_array().unwrap().len(),
        3,
        "{images}"
    );
    // One that is away holds nothing up.
    h3.kill_agent();
    h2.sees(h3, "down");
    let list = post(json!({"action": "list-containers", "all": true}));
    assert_eq!(list["containers"].as_array().unwrap().len(), 2, "{list}");
    assert_eq!(h1.ok("ps -Aq").lines().len(), 2);
}
