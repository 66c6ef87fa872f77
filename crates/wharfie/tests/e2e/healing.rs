//! What the agent keeps as it is wanted, and what it leaves alone.

use anyhow::ensure;
use serde_json::json;
use wharfie_lab::throughout;

use crate::stack::{Stack, soon, text};

/// How long nothing must happen to be sure that it does not.
const LONG_ENOUGH: std::time::Duration = std::time::Duration::from_secs(3);

const PAIR: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000, depends_on: [db], volumes: ['data:/data']}
  db: {image: busybox, init: true, command: sleep 1000}
volumes: {data: }
";

fn running(stack: &Stack, name: &str) -> anyhow::Result<String> {
    let containers = stack.containers();
    let full = format!("/{}-{name}", stack.name);
    let found = containers.iter().find(|c| {
        c["Names"]
            .as_array()
            .is_some_and(|n| n.contains(&json!(full)))
    });
    let Some(container) = found else {
        anyhow::bail!("{name} is not there");
    };
    ensure!(container["State"] == "running", "{container}");
    Ok(text(&container["Id"]))
}

#[test]
fn what_others_break_comes_back() {
    let Some(stack) = Stack::new("broken", PAIR) else {
        return;
    };
    let api = |method: &str, target: &str, body: Option<serde_json::Value>| {
        let engine = stack.host.engine();
        engine.api(method, target, body.as_ref()).unwrap()
    };
    stack.ok("up -d");
    let web = running(&stack, "web-1").unwrap();

    // Killed: the same container, for what it wrote is still in it.
    stack.sh("web", "echo written >/note");
    api("POST", "/containers/broken-web-1/kill", None);
    soon(|| running(&stack, "web-1").map(|id| assert_eq!(id, web)));
    assert_eq!(stack.sh("web", "cat /note").trim(), "written");

    // Stopped by somebody else.
    api("POST", "/containers/broken-web-1/stop?t=1", None);
    soon(|| running(&stack, "web-1").map(|id| assert_eq!(id, web)));

    // Removed: another one, on the same volume.
    stack.sh("web", "echo kept >/data/note");
    api("DELETE", "/containers/broken-web-1?force=1", None);
    let web = soon(|| {
        let id = running(&stack, "web-1")?;
        ensure!(id != web, "not yet removed");
        Ok(id)
    });
    assert_eq!(stack.sh("web", "cat /data/note").trim(), "kept");

    // Changed.
    let limits = json!({"Memory": 50_000_000, "MemorySwap": 50_000_000});
    api("POST", "/containers/broken-web-1/update", Some(limits));
    let web = soon(|| {
        let id = running(&stack, "web-1")?;
        ensure!(id != web, "not yet replaced");
        Ok(id)
    });
    assert_eq!(stack.inspect("web-1")["HostConfig"]["Memory"], 0);

    // Renamed.
    api(
        "POST",
        "/containers/broken-web-1/rename?name=elsewhere",
        None,
    );
    let web = soon(|| {
        let id = running(&stack, "web-1")?;
        ensure!(id != web, "not yet replaced");
        Ok(id)
    });

    // Cut off from its network.
    let body = json!({"Container": "broken-web-1", "Force": true});
    api("POST", "/networks/broken_default/disconnect", Some(body));
    soon(|| {
        let id = running(&stack, "web-1")?;
        ensure!(id != web, "not yet replaced");
        Ok(())
    });
    stack.sh("web", "ping -c 1 -W 2 db");

    // Everything at once, the network too.
    for name in ["web", "db"] {
        api(
            "DELETE",
            &format!("/containers/broken-{name}-1?force=1"),
            None,
        );
    }
    soon(|| {
        running(&stack, "web-1")?;
        running(&stack, "db-1")
    });
    stack.sh("web", "ping -c 1 -W 2 db");
    assert_eq!(stack.names(), ["broken-db-1", "broken-web-1"]);
    stack.ok("up -d").says(["Nothing to do"]);
    stack.ok("down -v -t 0");
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());
}

#[test]
fn ends_are_final_as_the_policy_says() {
    let compose = "
services:
  done: {image: busybox, command: 'true'}
  failed: {image: busybox, command: [sh, -c, exit 3]}
  never: {image: busybox, init: true, command: sleep 1000, restart: 'no'}
  always: {image: busybox, init: true, command: sleep 1000, restart: always}
  deployed:
    image: busybox
    init: true
    command: sleep 1000
    deploy: {restart_policy: {condition: any}}
  twice: {image: busybox, command: [sh, -c, exit 4], restart: 'on-failure:2'}
  again: {image: busybox, command: [sh, -c, sleep 1], x-wharfie: {heal: always}}
  alone: {image: busybox, init: true, command: sleep 1000, x-wharfie: {heal: never}}
";
    let Some(stack) = Stack::new("ends", compose) else {
        return;
    };
    stack.ok("up -d");
    let first = text(&stack.inspect("again-1")["State"]["StartedAt"]);
    soon(|| {
        let now = text(&stack.inspect("again-1")["State"]["StartedAt"]);
        ensure!(now != first, "not started again");
        Ok(())
    });
    for name in ["never", "always", "deployed", "alone"] {
        let target = format!("/containers/ends-{name}-1/kill");
        stack.host.engine().api("POST", &target, None).unwrap();
    }
    soon(|| {
        running(&stack, "always-1")?;
        running(&stack, "deployed-1")
    });
    let state = |name: &str| stack.inspect(name)["State"].clone();
    soon(|| {
        ensure!(
            stack.inspect("twice-1")["RestartCount"] == 2,
            "not yet given up"
        );
        ensure!(state("twice-1")["Status"] == "exited", "not yet given up");
        Ok(())
    });
    throughout(LONG_ENOUGH, || {
        for (name, code) in [
            ("done", 0),
            ("failed", 3),
            ("never", 137),
            ("twice", 4),
            ("alone", 137),
        ] {
            let state = state(&format!("{name}-1"));
            ensure!(
                state["Status"] == "exited" && state["ExitCode"] == code,
                "{state}"
            );
        }
        Ok(())
    })
    .unwrap();

    // A job that is done is not done again because somebody tidies up.
    let engine = stack.host.engine();
    engine.remove_container("ends-done-1").unwrap();
    throughout(LONG_ENOUGH, || {
        ensure!(
            !stack.names().contains(&"ends-done-1".to_owned()),
            "it is there"
        );
        Ok(())
    })
    .unwrap();
    // But it is when it is asked for.
    stack.ok("up -d");
    assert!(stack.names().contains(&"ends-done-1".to_owned()));
}

#[test]
fn what_was_stopped_stays_so() {
    let Some(stack) = Stack::new("halted", PAIR) else {
        return;
    };
    stack.ok("up -d");
    stack.ok("stop -t 1 web");
    let quiet = |what: &str, states: [&str; 2]| {
        throughout(LONG_ENOUGH, || {
            let now: Vec<String> = stack
                .containers()
                .iter()
                .map(|c| text(&c["State"]))
                .collect();
            ensure!(now == states, "{what}: {now:?}");
            Ok(())
        })
        .unwrap();
    };
    quiet("stopped", ["running", "exited"]);
    stack.ok("start web");
    stack.ok("kill web");
    quiet("killed", ["running", "exited"]);
    stack.ok("up -d");
    // A signal that is not meant to end it is no wish for its end.
    stack.ok("kill -s WINCH db");
    quiet("signalled", ["running", "running"]);
    stack.ok("rm -sf web");
    throughout(LONG_ENOUGH, || {
        ensure!(stack.names() == ["halted-db-1"], "{:?}", stack.names());
        Ok(())
    })
    .unwrap();
    stack.ok("pause db");
    throughout(LONG_ENOUGH, || {
        let state = text(&stack.containers()[0]["State"]);
        ensure!(state == "paused", "{state}");
        Ok(())
    })
    .unwrap();
    stack.ok("unpause db");
    // What was created only is not started.
    stack.ok("down -t 0");
    stack.ok("create");
    quiet("created", ["created", "created"]);
}

#[test]
fn the_unhealthy_are_replaced() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: [sh, -c, 'touch /tmp/well; sleep 1000']
    healthcheck: {test: test -f /tmp/well, interval: 300ms, retries: 2}
  left:
    image: busybox
    init: true
    command: sleep 1000
    restart: 'no'
    healthcheck: {test: 'false', interval: 300ms, retries: 1}
";
    let Some(stack) = Stack::new("sick", compose) else {
        return;
    };
    stack.ok("up -d");
    let (before, left) = (stack.id("web-1"), stack.id("left-1"));
    soon(|| {
        let health = text(&stack.inspect("web-1")["State"]["Health"]["Status"]);
        ensure!(health == "healthy", "{health}");
        Ok(())
    });
    stack.sh("web", "rm /tmp/well");
    soon(|| {
        let now = running(&stack, "web-1")?;
        ensure!(now != before, "not yet replaced");
        let health = text(&stack.inspect("web-1")["State"]["Health"]["Status"]);
        ensure!(health == "healthy", "{health}");
        Ok(())
    });
    stack.ok("ps").says(["web/1 was not well: it is unhealthy"]);
    assert_eq!(stack.id("left-1"), left, "its policy says never");
}

#[test]
fn what_cannot_be_healed_is_tried_with_pauses_and_says_why() {
    let compose = "
services:
  web: {image: busybox, init: true, command: sleep 1000, ports: ['8251:80'], restart: always}
  other: {image: busybox, init: true, command: sleep 1000}
";
    let Some(stack) = Stack::new("hopeless", compose) else {
        return;
    };
    stack.ok("up -d");
    // Somebody takes the port while it is down.
    stack.ok("stop -t 0 web");
    let settings = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"Init": true, "PortBindings": {"80/tcp": [{"HostPort": "8251"}]}}
    });
    let engine = stack.host.engine();
    let thief = engine.start_container("hopeless-thief", &settings).unwrap();
    stack.fails(1, "start web").says(["8251", "hopeless-thief"]);
    soon(|| {
        let said = stack.run("ps -a");
        ensure!(
            said.stderr.contains("web/1 was not well")
                && said.stderr.contains("8251")
                && said.stderr.contains("attempts to heal it: 3"),
            "{}",
            said.stderr
        );
        Ok(())
    });
    // The others are healed all the same.
    let before = stack.id("other-1");
    engine.remove_container("hopeless-other-1").unwrap();
    soon(|| {
        let id = running(&stack, "other-1")?;
        ensure!(id != before, "not yet");
        Ok(())
    });
    engine.remove_container(&thief).unwrap();
    soon(|| running(&stack, "web-1"));
}

#[test]
fn history_and_undo() {
    let Some(stack) = Stack::new("undone", PAIR) else {
        return;
    };
    stack.ok("up -d");
    stack
        .fails(1, "history of-nobody")
        .says(["nothing was ever wanted"]);
    stack.ok("up -d").says(["Nothing to do"]);
    let first = stack.ids();
    stack.write(
        "compose.yaml",
        &PAIR
            .replace(
                "volumes: {data: }",
                "  third: {image: busybox, init: true, command: sleep 9}\nvolumes: {data: }",
            )
            .replace("sleep 1000, depends_on", "sleep 2000, depends_on"),
    );
    stack.ok("up -d");
    stack.ok("scale db=2");
    let said = stack.ok("history").stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(
        lines[1].starts_with('3') && lines[1].contains("db scaled from 1 to 2"),
        "{said}"
    );
    assert!(lines[2].contains("third added, web changed"), "{said}");
    assert!(lines[3].contains("db added, web added"), "{said}");
    assert_eq!(stack.ok("history undone -q").stdout, "3\n2\n1\n");

    stack
        .ok("undo")
        .says(["Stack undone is as it was, as revision 4"]);
    assert_eq!(
        stack.names(),
        ["undone-db-1", "undone-third-1", "undone-web-1"]
    );
    stack.ok("undo undone --to 1");
    assert_eq!(stack.names(), ["undone-db-1", "undone-web-1"]);
    let now = stack.ids();
    assert_eq!(now[0], first[0], "db never changed");
    assert_ne!(now[1], first[1]);
    let command = &stack.inspect("web-1")["Config"]["Cmd"];
    assert_eq!(*command, json!(["sleep", "1000"]));
    stack
        .fails(2, "undo --to 77")
        .says(["no revision 77", "wharfie history"]);

    // Also after it was taken down.
    stack.ok("down -t 0");
    assert!(stack.ok("history").stdout.contains("taken down"));
    stack.ok("undo");
    assert_eq!(stack.names(), ["undone-db-1", "undone-web-1"]);
}
