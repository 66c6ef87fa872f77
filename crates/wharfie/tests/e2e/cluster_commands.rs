//! From one host to three, and any node answers for all.

use anyhow::ensure;
use serde_json::Value;

use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};
use crate::terminal::{Terminal, there_is_a_terminal};

const SHOP: &str = "
services:
  web:
    image: busybox
    init: true
    ports: ['8080:80']
    command: [sh, -c, 'echo here I am; httpd -h /etc; sleep 1000']
  db: {image: busybox, init: true, command: sleep 1000}
";

#[test]
fn three_commands_make_one_of_three() {
    let Some(cluster) = Cluster::apart(3, "three", SHOP) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    soon(|| {
        let status = h1.ok("status").stdout;
        let alone = status.starts_with("1 up of 1 node") && status.ends_with("All is well\n");
        ensure!(alone, "{status}");
        Ok(())
    });
    // What a host runs already goes on, and is known to all from then on.
    h3.ok("-p before up -d db");

    let made = h1.ok("token");
    made.says(["Good once, for 1h", "wharfie join TOKEN"]);
    let joined = h2.ok(["join", made.stdout.trim()]);
    joined.says(["Joined as h2: the cluster has 2 nodes now"]);
    h3.join(h2);
    cluster.is_whole();

    for node in cluster.nodes() {
        let listed = node.ok("node ls");
        let here = "up (here)";
        assert_eq!(listed.stdout.matches(here).count(), 1, "{listed}");
        listed.says(["h1 ", "h2 ", "h3 ", "10.99.0.1:7700", "10.99.0.3:7700"]);
        soon(|| {
            let status = node.ok("status");
            let wanted = "3 up of 3 nodes; 1 stack; 1 container running\nAll is well\n";
            ensure!(status.stdout == wanted, "{status}");
            Ok(())
        });
        node.ok("-p before ps").says(["before-db-1", "h3"]);
    }

    let has_labels = |node: &Node, wanted: &str| {
        soon(|| {
            let labels = node.ok("node inspect h3").json()["labels"].to_string();
            ensure!(labels == wanted, "{}: {labels}", node.name());
            Ok(())
        });
    };
    h1.ok("node label h3 rack=7 ssd=true");
    has_labels(h2, r#"{"rack":"7","ssd":"true"}"#);
    h2.ok("node label h3 ssd-");
    for node in cluster.nodes() {
        has_labels(node, r#"{"rack":"7"}"#);
    }
    let up = h1.ok("up -d --replicated 3");
    up.says(["Container three-web-1  Started"]);
    for node in [h2, h3] {
        answers_for_all(node, &h1.id("web-1"));
    }
    acts_for_all(h2, h1);
    terminals_go_through(h3);

    // Where a stack is, it stays; where a new one shall be can be said.
    h2.ok("up -d").says(["Container three-db-2  Removed"]);
    h2.ok("up -d").says(["Nothing to do"]);
    h3.fails(2, "up -d --on h3").says(["is on node h1"]);
    h3.ok("-p there up -d --on h2 db");
    h1.ok("-p there ps").says(["there-db-1", "h2"]);
    h1.ok("ls").says(["before", "three", "there"]);
    h2.ok("down -t 0");
    assert!(h1.names().is_empty(), "{:?}", h1.names());
    h1.ok("-p before down -t 0");
    soon(|| {
        let left = h2.ok("ps -Aq");
        ensure!(left.lines().len() == 1, "{left}");
        Ok(())
    });
}

/// Looks at what another node runs, from this one.
fn answers_for_all(node: &Node, web: &str) {
    node.ok("ps").says(["three-web-1", "three-db-1", "h1"]);
    let short = &web[..8];
    for name in ["web", "three-web-1", short] {
        node.ok(["ps", name]).says(["three-web-1"]);
        node.ok(["logs", name]).says(["here I am"]);
        let said = node.ok(["exec", "-T", name, "hostname"]);
        assert!(web.starts_with(said.stdout.trim()), "{said}");
        node.ok(["port", name, "80"]).says(["0.0.0.0:8080"]);
        node.ok(["top", name]).says(["sleep 1000"]);
        let all = node.ok(["inspect", name]).json();
        assert_eq!(text(&all[0]["Id"]), web, "{name}");
    }
    node.ok("images").says(["busybox"]);
    node.ok("stats --no-stream").says(["three-web-1"]);
    node.fails(9, ["exec", "-T", "web", "sh", "-c", "exit 9"]);

    node.write("note", "written on another host");
    node.ok("cp note web:/tmp/note");
    let said = node.ok(["exec", "-T", short, "cat", "/tmp/note"]).stdout;
    assert_eq!(said, "written on another host");
    node.ok(["cp", "three-web-1:/tmp/note", "back"]);
    let back = std::fs::read_to_string(node.path("back")).unwrap();
    assert_eq!(back, "written on another host");
}

/// Stops, starts and follows what another node runs.
fn acts_for_all(node: &Node, home: &Node) {
    let state = |of: &str| text(&home.inspect(of)["State"]["Status"]);
    let mut events = node.start("events");
    let mut logs = node.start("logs -f");
    logs.says("here I am");
    node.ok("stop -t 0 web");
    assert_eq!([state("web-1"), state("db-1")], ["exited", "running"]);
    events.says("three-web-1");
    node.ok("start web");
    assert_eq!(state("web-1"), "running");
    soon(|| {
        let times = logs.stdout().matches("here I am").count();
        ensure!(times == 2, "{}", logs.stdout());
        Ok(())
    });
    node.ok("restart -t 0 db");
    node.ok("up -d --scale db=2");
    assert_eq!(state("db-2"), "running");
    let ran = node.fails(
        7,
        ["run", "--rm", "-T", "db", "sh", "-c", "hostname; exit 7"],
    );
    assert_eq!(ran.stdout.trim().len(), 12, "{ran}");
    let page = cluster_page(home);
    assert!(page.contains("root"), "{page}");
}

/// A page of the stack, asked for on the host that it is on.
fn cluster_page(home: &Node) -> String {
    home.page("http://127.0.0.1:8080/passwd")
}

/// A terminal on one host, the shell on another.
fn terminals_go_through(node: &Node) {
    if !there_is_a_terminal() {
        return;
    }
    let terminal = Terminal::run(node, "exec three-web-1 sh");
    terminal.says("/ #");
    terminal.line("echo a''b");
    terminal.says("\nab\n");
    terminal.resize("77", "22");
    soon(|| {
        terminal.line("stty size");
        let screen = terminal.screen();
        ensure!(screen.contains("22 77"), "{screen}");
        Ok(())
    });
    terminal.line("clear; exit 4");
    terminal.ends_with(4);
}

/// What a node knows of each stack: revision and home.
pub(crate) fn stacks(node: &Node) -> anyhow::Result<Vec<(String, u64, String)>> {
    let all = node.ask("/v1/stacks")?;
    let row = |s: &Value| {
        let revision = s["revision"].as_u64().unwrap_or_default();
        (text(&s["name"]), revision, text(&s["node"]))
    };
    Ok(all.as_array().into_iter().flatten().map(row).collect())
}
