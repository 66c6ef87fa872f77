//! Images from node to node.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};

const ONLY_ONE_HAS_IT: &str = "
services:
  web: {image: 'only/one:1', init: true, command: sleep 1000, pull_policy: missing}
";

/// Makes an image that no other node has, with so many random bytes in a layer for each of the files.
fn make_image(node: &Node, files: &[&str], bytes: u64) {
    let engine = node.host.engine();
    let mut image = "busybox";
    for file in files {
        let script =
            format!("head -c {bytes} /dev/urandom >/{file}; (echo; echo made here) >>/{file}");
        let body = json!({"Image": image, "Cmd": ["sh", "-c", script]});
        let made = engine.api("POST", "/containers/create?name=maker", Some(&body));
        let id = text(&made.unwrap()["Id"]);
        for call in ["start", "wait"] {
            let target = format!("/containers/{id}/{call}");
            engine.api("POST", &target, None).unwrap();
        }
        let target = format!("/commit?container={id}&repo=only/one&tag=1");
        engine.api("POST", &target, Some(&json!({}))).unwrap();
        engine.remove_container("maker").unwrap();
        image = "only/one:1";
    }
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
    make_image(h1, &["note"], 300_000);
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
}

/// Sizes of the layers that a node has of an image that is not whole, of which each is in work or done.
fn staged(node: &Node) -> Vec<u64> {
    let images = std::fs::read_dir(node.host.dir().join("wharfie/state/images"));
    let files = images.into_iter().flatten().flat_map(|image| {
        std::fs::read_dir(image.unwrap().path())
            .into_iter()
            .flatten()
    });
    // A file may just be renamed.
    let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    // The configuration is not of interest.
    sizes.filter(|size| *size > 10_000).collect()
}

/// Bytes that a node has received.
fn received(node: &Node) -> u64 {
    let table = node.host.run("cat", ["/proc/net/dev"]).unwrap();
    let interface = format!("{}:", node.host.interface());
    let line = table
        .lines()
        .find_map(|l| l.trim().strip_prefix(&interface));
    let count = line.unwrap().split_whitespace().next();
    count.unwrap().parse().unwrap()
}

/// The id of the image, and the digests of its files as a container sees them.
fn content(node: &Node, files: &[&str]) -> (String, String) {
    let engine = node.host.engine();
    let image = engine.api("GET", "/images/only/one:1/json", None).unwrap();
    let command: Vec<&str> = ["sha256sum"].iter().chain(files).copied().collect();
    let ran = engine.run("only/one:1", &command).unwrap();
    assert_eq!(ran.status, 0, "{}", ran.output);
    (text(&image["Id"]), ran.output)
}

#[test]
fn who_gives_an_image_may_die_in_the_middle_of_it() {
    const LAYER: u64 = 8_000_000;
    const FILES: [&str; 3] = ["a", "b", "c"];
    let Some(cluster) = Cluster::of(3, "halved", ONLY_ONE_HAS_IT) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    make_image(h1, &FILES, LAYER);
    knows(h2, &["h1"]);
    h2.ok("image pull only/one:1");
    let right = content(h1, &FILES);
    assert_eq!(content(h2, &FILES), right);
    // So that there is a middle.
    let slow = |node: &Node| node.host.throttle(Some(4_000_000)).unwrap();
    slow(h1);
    slow(h2);

    let ends: [[fn(&Node); 2]; 2] = [
        [Node::kill_agent, Node::start_agent],
        [|n| n.host.cut().unwrap(), |n| n.host.heal().unwrap()],
    ];
    for [end, begin] in ends {
        knows(h3, &["h1", "h2"]);
        let mut pull = h3.start("image pull only/one:1");
        // Each of the two gives a layer.
        soon(|| {
            let staged = staged(h3);
            let begun = |size: &u64| (1_000_000..LAYER).contains(size);
            ensure!(
                staged.iter().filter(|s| begun(s)).count() == 2,
                "{staged:?}"
            );
            Ok(())
        });
        end(h1);
        let all: u64 = staged(h3).iter().sum();
        assert!(all < 2 * LAYER && pull.is_running(), "too late: {all}");
        pull.end().has_code(0).says(["h1: "]);
        assert_eq!(content(h3, &FILES), right);
        assert!(staged(h3).is_empty());
        h3.ok("image rm only/one:1 h3");
        begin(h1);
        slow(h1);
        cluster.is_whole();
    }

    // Nobody else has it.
    h3.ok("image rm only/one:1 h1");
    knows(h3, &["h2"]);
    let pull = h3.start("image pull only/one:1");
    soon(|| {
        let staged = staged(h3);
        ensure!(staged.iter().sum::<u64>() > LAYER * 3 / 2, "{staged:?}");
        Ok(())
    });
    h2.kill_agent();
    let failed = pull.end();
    failed.has_code(1).says([
        "cannot fetch only/one:1: h2: connection lost",
        "the next attempt goes on from there",
    ]);
    assert!(!has(h3));
    let kept: u64 = staged(h3).iter().sum();
    assert!((LAYER * 3 / 2..LAYER * 3).contains(&kept), "{kept}");
    h2.start_agent();
    knows(h3, &["h2"]);
    let before = received(h3);
    h3.ok("image pull only/one:1");
    let came = received(h3) - before;
    // With what QUIC and the talk of the nodes add.
    assert!(came < 3 * LAYER - kept + LAYER / 4, "{came} after {kept}");
    assert_eq!(content(h3, &FILES), right);
}
