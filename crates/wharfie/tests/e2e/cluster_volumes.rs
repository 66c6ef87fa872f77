//! Volumes of several hosts: where they are, and how they go from one to another.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Node};
use crate::cluster_spread::everywhere;
use crate::stack::{soon, text};

const KEPT: &str = "
services:
  db:
    image: busybox
    init: true
    command: sh -c 'date >> /data/starts; exec sleep 1000'
    stop_grace_period: 0s
    network_mode: none
    volumes: [data:/data]
  never:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    volumes: [data:/data]
    x-wharfie: {heal: HEAL}
volumes:
  data:
    labels: {for: keeps}
";

/// Tasks that have it; the second is never healed in one of the tests.
const BOTH: [&str; 2] = ["db-1", "never-1"];

/// A volume of a host; none if it has none of that name.
fn volume(node: &Node, name: &str) -> Option<Value> {
    let path = format!("/volumes/{name}");
    node.host.engine().api("GET", &path, None).ok()
}

/// All that is in a volume: files with modes, owners, times and digests, and where links lead.
fn content(node: &Node, name: &str) -> String {
    let path = text(&volume(node, name).unwrap()["Mountpoint"]);
    let script = "cd $0 && find . ! -name starts -printf '%p %M %U:%G %T@ %l %n\\n' | sort \
                  && find . -type f ! -name starts | sort | xargs sha256sum";
    node.program("sh", ["-c", script, &path]).stdout
}

/// Both tasks run, once, on a node.
fn run_on(cluster: &Cluster, stack: &str, node: &Node) -> Result<()> {
    let all = everywhere(cluster, stack);
    let wanted = BOTH.map(|t| (t.to_owned(), node.name().to_owned()));
    ensure!(all == wanted, "{all:?}");
    Ok(())
}

/// Fills the volume through a task.
fn fill(node: &Node, megabytes: u32) {
    node.sh(
        "db",
        &format!(
            "cd /data && mkdir -p a/b && chmod 1777 a && echo one >a/b/one && ln -s a/b/one link \
             && ln a/b/one same && chmod 4751 same && mkfifo pipe && chown 12:34 a/b \
             && head -c {megabytes}000000 /dev/urandom >big && touch -d '2001-02-03 04:05:06' a/b"
        ),
    );
}

#[test]
fn a_volume_goes_with_what_uses_it() {
    let Some(cluster) = Cluster::of(3, "moves", &KEPT.replace("HEAL", "auto")) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| run_on(&cluster, "moves", h1));
    fill(h3, 5);
    let before = content(h1, "moves_data");
    assert!(
        before.contains("./link") && before.lines().count() > 9,
        "{before}"
    );
    let list = h3.ok("volume ls");
    list.says(["VOLUME", "NODE", "TIED"]);
    let line = |list: &[&str]| {
        let of = list.iter().find(|l| l.starts_with("moves_data"));
        of.unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        line(&list.lines()),
        ["moves_data", "h1", "local", "moves", "yes"]
    );

    // What cannot be leaves all as it was.
    h3.fails(1, "volume move no_such h2")
        .says(["no node has a volume no_such"]);
    h3.fails(2, "volume move moves_data h9")
        .says(["no such node: h9"]);
    h3.fails(2, "volume move moves_data h1")
        .says(["on node h1 already"]);
    let make = |node: &Node, name: &str| {
        let body = json!({"Name": name});
        let made = node
            .host
            .engine()
            .api("POST", "/volumes/create", Some(&body));
        text(&made.unwrap()["Mountpoint"])
    };
    let taken = make(h2, "moves_data");
    std::fs::write(format!("{taken}/theirs"), "theirs").unwrap();
    h3.fails(1, "volume move moves_data h2").says([
        "node h2 has a volume moves_data already",
        "volume rm moves_data --node h2",
    ]);
    h3.fails(1, "volume rm moves_data")
        .says(["has volume moves_data"]);
    run_on(&cluster, "moves", h1).unwrap();
    h1.ok("volume rm moves_data --node h2");
    assert!(volume(h2, "moves_data").is_none());
    // An empty one of that name is in nobody's way.
    make(h2, "moves_data");

    h3.ok("volume move moves_data h2").says(["Moved"]);
    soon(|| run_on(&cluster, "moves", h2));
    assert_eq!(content(h2, "moves_data"), before);
    assert!(
        volume(h1, "moves_data").is_none(),
        "the old one is still there"
    );
    let there = volume(h2, "moves_data").unwrap();
    assert_eq!(there["Labels"]["for"], "keeps");
    assert_eq!(
        h1.sh("never", "cat /data/link; wc -l </data/starts"),
        "one\n2\n"
    );
    let inspected = h3.ok("volume inspect moves_data").json();
    assert_eq!(
        inspected[0]["Tied"],
        json!({"Node": "h2", "Stack": "moves"})
    );
    assert_eq!(inspected[0]["Volumes"][0]["Node"], "h2", "{inspected}");
    // It is tied there: it waits if the node goes away, whose volumes are listed all the same.
    h2.host.machine().cut().unwrap();
    h3.sees(h2, "down");
    let list = h3.ok("volume ls");
    list.says(["node h2 is left out"]);
    assert_eq!(
        line(&list.lines()),
        ["moves_data", "h2", "local", "moves", "yes"]
    );
    h3.fails(4, "volume move moves_data h1")
        .says(["node h2 is away"]);
    h2.host.machine().heal().unwrap();
    cluster.is_whole();
    soon(|| run_on(&cluster, "moves", h2));

    // A drained node is left with its data, and the old volume can stay.
    h1.ok("node drain h2");
    h1.ok("volume move --keep moves_data h3");
    soon(|| run_on(&cluster, "moves", h3));
    assert_eq!(content(h3, "moves_data"), before);
    assert_eq!(content(h2, "moves_data"), before);
    h1.ok("volume rm moves_data --node h2");
    h1.ok("node undrain h2");

    // `down -v` forgets where it was.
    h1.ok("down -v");
    soon(|| {
        let tied = h2.ask("/v1/volumes")?;
        ensure!(tied == json!([]), "{tied}");
        ensure!(volume(h3, "moves_data").is_none(), "still there");
        Ok(())
    });

    // One that no stack uses.
    std::fs::write(format!("{}/note", make(h1, "loose")), "mine").unwrap();
    make(h3, "loose");
    h2.fails(2, "volume move loose h2")
        .says(["several nodes", "--from"]);
    h2.ok("volume move --from h1 loose h2");
    assert!(volume(h1, "loose").is_none());
    let path = text(&volume(h2, "loose").unwrap()["Mountpoint"]);
    assert_eq!(
        std::fs::read_to_string(format!("{path}/note")).unwrap(),
        "mine"
    );
    h1.ok("volume rm --node h3 loose");
    h1.ok("volume rm loose");
    assert!(volume(h2, "loose").is_none());
}

#[test]
fn a_move_that_is_cut_short_has_not_been() {
    let Some(cluster) = Cluster::of(3, "halves", &KEPT.replace("HEAL", "never")) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| run_on(&cluster, "halves", h1));
    fill(h3, 20);
    let before = content(h1, "halves_data");
    // So that there is a middle.
    let slow = |node: &Node| node.host.throttle(Some(4_000_000)).unwrap();
    let arriving = || {
        let path = volume(h2, "halves_data").map(|v| text(&v["Mountpoint"]));
        let file = path.map(|p| std::path::Path::new(&p).join("big"));
        let size = file.and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        ensure!(size > 1_000_000, "{size}");
        Ok(size)
    };
    let as_before = || {
        cluster.is_whole();
        soon(|| run_on(&cluster, "halves", h1));
        assert_eq!(content(h1, "halves_data"), before);
        soon(|| {
            ensure!(volume(h2, "halves_data").is_none(), "half of it is left");
            Ok(())
        });
        let tied = h3.ask("/v1/volumes").unwrap();
        let me = h1.ask("/v1/nodes").unwrap();
        let me = me.as_array().unwrap().iter().find(|n| n["me"] == true);
        assert_eq!(tied[0]["node"], me.unwrap()["id"]);
    };
    type Fault<'a> = (&'a dyn Fn(), &'a dyn Fn());
    let cut = |node: &Node| node.host.machine().cut().unwrap();
    let heal = |node: &Node| node.host.machine().heal().unwrap();
    let faults: [Fault<'_>; 4] = [
        (&|| cut(h1), &|| heal(h1)),
        (&|| h1.kill_agent(), &|| h1.start_agent()),
        (&|| cut(h2), &|| heal(h2)),
        (&|| h2.kill_agent(), &|| h2.start_agent()),
    ];
    for (n, (begin, end)) in faults.into_iter().enumerate() {
        slow(h1);
        let moving = h3.start("volume move halves_data h2");
        assert!(soon(arriving) < 20_000_000, "too late");
        assert!(everywhere(&cluster, "halves").is_empty());
        begin();
        let ended = moving.end();
        assert_ne!(ended.status.code(), Some(0), "fault {n}: {}", ended.stderr);
        end();
        as_before();
    }
    // Whoever asked goes away.
    slow(h1);
    let moving = h3.start("volume move halves_data h2");
    soon(arriving);
    moving.interrupt();
    moving.end().has_code(130);
    as_before();
    h1.host.throttle(None).unwrap();
    let moved = h3.ok("volume move halves_data h2");
    moved.says(["never of stack halves is healed never: `wharfie up` starts it on h2"]);
    h1.ok("up -d");
    soon(|| run_on(&cluster, "halves", h2));
    assert_eq!(content(h2, "halves_data"), before);
    assert!(volume(h1, "halves_data").is_none());
}

const TWO: &str = "
services:
  db:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    volumes: [one:/one, two:/two]
  never:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    volumes: [one:/one]
    deploy: {placement: {constraints: [node.hostname != h3]}}
volumes: {one: , two: }
";

#[test]
fn volumes_that_are_used_together_go_together() {
    let Some(cluster) = Cluster::of(3, "couple", TWO) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| run_on(&cluster, "couple", h1));
    h2.fails(1, "volume move couple_one h2").says([
        "couple_two is used together with couple_one",
        "couple_one couple_two h2",
    ]);
    h2.fails(1, "volume move couple_one couple_two h3")
        .says(["never/1", "node.hostname != h3"]);
    run_on(&cluster, "couple", h1).unwrap();
    assert!(volume(h2, "couple_one").is_none());
    h2.ok("volume move couple_one couple_two h2");
    soon(|| run_on(&cluster, "couple", h2));
    for name in ["couple_one", "couple_two"] {
        assert!(
            volume(h1, name).is_none() && volume(h2, name).is_some(),
            "{name}"
        );
    }
}
