//! Bad input and bad luck: what is said, what is left, and that a second `up` gets over it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use wharfie_lab::{EngineKind, eventually};

use crate::SOON;
use crate::engines::{own, shared};
use crate::stack::{Stack, soon, text};

#[test]
fn a_taken_port_names_who_has_it() {
    let compose =
        "services: {web: {image: busybox, init: true, command: sleep 1000, ports: ['8194:80']}}\n";
    let Some(stack) = Stack::new("ports", compose) else {
        return;
    };
    let engine = stack.host.engine();
    // By a container that is none of ours.
    let settings = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": { "80/tcp": {} },
        "HostConfig": { "Init": true, "PortBindings": { "80/tcp": [{ "HostPort": "8194" }] } },
    });
    engine.start_container("port-holder", &settings).unwrap();
    stack.fails(1, "up -d").says(["8194", "port-holder"]);
    // The agent would take the port as soon as it is free.
    stack.ok("down -t 0");
    engine.remove_container("port-holder").unwrap();

    // By a process of the host.
    let mut listener = stack.host.command("busybox");
    listener.args(["nc", "-ll", "-p", "8194", "-e", "true"]);
    let listener = stack.host.spawn(listener).unwrap();
    soon(|| {
        let address = ("127.0.0.1", 8194);
        stack
            .host
            .tcp_connect(address, Duration::from_secs(1))
            .map(drop)
    });
    let failed = stack.fails(1, "up -d");
    failed.says(["8194", "busybox", &listener.id().to_string()]);
    listener.kill().unwrap();

    // Nothing but the port was missing.
    stack.ok("up -d");
    assert_eq!(stack.names(), ["ports-web-1"]);
    stack.ok("ps").says(["8194->80/tcp"]);

    // By a container of another stack of ours.
    let other = Stack::new("ports2", compose).unwrap();
    other.fails(1, "up -d").says(["8194", "ports-web-1"]);
}

#[test]
fn a_missing_image_is_named() {
    let compose = "services: {web: {image: '127.0.0.1:1/thing:1'}, db: {image: busybox, init: true, command: sleep 1000}}\n";
    let Some(stack) = Stack::new("imageless", compose) else {
        return;
    };
    stack.fails(1, "up -d").says(["127.0.0.1:1/thing:1"]);
    assert!(
        stack.names().is_empty() && stack.resources("networks").is_empty(),
        "something was made"
    );
    stack.fails(1, "pull web").says(["127.0.0.1:1/thing:1"]);

    stack.write(
        "compose.yaml",
        "services: {web: {image: 'mine/never-made:1', pull_policy: never}}\n",
    );
    stack.fails(1, "up -d").says(["mine/never-made:1", "never"]);
    stack
        .fails(1, "run --rm -T web true")
        .says(["mine/never-made:1"]);
    stack.write(
        "compose.yaml",
        "services: {web: {image: busybox, init: true, command: sleep 1000}}\n",
    );
    stack.ok("up -d --pull never");
}

#[test]
fn bad_files_are_refused_before_anything_is_made() {
    let Some(stack) = Stack::new("badfiles", "services: {web: {image: busybox}}") else {
        return;
    };
    let good = "services:\n  ok: {image: busybox, init: true, command: sleep 1000}\n  web:\n    image: busybox\n";
    for (what, addition, said) in [
        (
            "unknown attribute",
            "    colour: red\n",
            &["compose.yaml:5:5", "colour", "colour: red"][..],
        ),
        (
            "wrong type",
            "    init: maybe\n",
            &["compose.yaml:5:11", "init"],
        ),
        (
            "missing variable",
            "    hostname: ${NAMED:?give me a name}\n",
            &["compose.yaml:5:", "NAMED", "give me a name"],
        ),
        (
            "missing env_file",
            "    env_file: [there.env]\n",
            &["compose.yaml:5:", "there.env"],
        ),
        (
            "unknown network",
            "    networks: [nowhere]\n",
            &["compose.yaml:5:", "nowhere"],
        ),
        (
            "unknown volume",
            "    volumes: ['nothing:/x']\n",
            &["compose.yaml:5:", "nothing"],
        ),
        (
            "unknown secret",
            "    secrets: [unheard]\n",
            &["compose.yaml:5:", "unheard"],
        ),
        (
            "unknown dependency",
            "    depends_on: [nobody]\n",
            &["compose.yaml:5:", "nobody"],
        ),
        (
            "dependency cycle",
            "    depends_on: [b]\n  b: {image: busybox, depends_on: [web]}\n",
            &["compose.yaml:", "depends_on: [", "cycle", "web -> b"],
        ),
        (
            "bad port",
            "    ports: ['80:70000']\n",
            &["compose.yaml:5:", "70000"],
        ),
        ("bad YAML", "    labels: {a: b\n", &["compose.yaml:"]),
        (
            "two faults",
            "    colour: red\n    init: maybe\n",
            &["compose.yaml:5:5", "compose.yaml:6:11", "2 faults"],
        ),
        ("bad text", "    hostname: a\u{7}b\n", &["compose.yaml:5:"]),
    ] {
        stack.write("compose.yaml", &format!("{good}{addition}"));
        for command in ["up -d", "plan", "config"] {
            let ran = stack.run(command);
            assert_eq!(ran.status.code(), Some(2), "{what}: {ran}");
            for text in said {
                assert!(
                    ran.stderr.contains(text),
                    "{what}: {text:?} is not said by {ran}"
                );
            }
            assert_eq!(ran.stdout, "", "{what}: {ran}");
        }
        assert!(
            stack.names().is_empty() && stack.resources("networks").is_empty(),
            "{what}: something was made"
        );
    }
    std::fs::write(
        stack.path("compose.yaml"),
        b"services:\n  web:\n    image: b\xffd\n",
    )
    .unwrap();
    stack.fails(2, "up -d").says(["compose.yaml:3:13", "UTF-8"]);
    std::fs::remove_file(stack.path("compose.yaml")).unwrap();
    stack.fails(2, "up -d").says(["compose.yaml"]);
}

#[test]
fn what_the_engine_cannot_do_is_refused_with_its_place() {
    let compose = "
services:
  ok: {image: busybox, init: true, command: sleep 1000}
  web:
    image: busybox
    credential_spec: {file: spec.json}
";
    let Some(stack) = Stack::new("refused", compose) else {
        return;
    };
    stack
        .fails(1, "up -d")
        .says(["compose.yaml:6:5", "credential_spec"]);
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());

    // What an old Engine cannot do, a new one may.
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    healthcheck: {test: [CMD, 'true'], start_interval: 100ms, start_period: 9s, interval: 60s}
";
    stack.write("compose.yaml", compose);
    stack
        .fails(1, "up -d")
        .says(["compose.yaml:7:", "start_interval", "1.44", "1.41"]);
    assert!(stack.names().is_empty());
    let newer = Stack::on(shared(EngineKind::Sid28).unwrap(), "refused", compose);
    newer.ok("up -d --wait");
}

#[test]
fn a_name_that_is_taken_is_said() {
    let compose = "services: {web: {image: busybox, init: true, command: sleep 1000}}\n";
    let Some(stack) = Stack::new("taken", compose) else {
        return;
    };
    let engine = stack.host.engine();
    engine.start_container("taken-web-1", &json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": { "Init": true } })).unwrap();
    stack.fails(1, "up -d").says(["taken-web-1"]);
    stack.ok("down");
    engine
        .api("GET", "/containers/taken-web-1/json", None)
        .expect("what is not ours must stay");
    engine.remove_container("taken-web-1").unwrap();
    stack.ok("up -d");
}

#[test]
fn no_engine_says_how_to_start_one() {
    let Some(host) = own(EngineKind::Debian) else {
        return;
    };
    let stack = Stack::on(
        host,
        "engineless",
        "services: {web: {image: busybox, init: true, command: sleep 1000}}\n",
    );
    stack.host.engine().stop().unwrap();
    for command in ["up -d", "ps", "down", "ls", "logs", "plan"] {
        stack
            .fails(4, command)
            .says(["error: ", "Docker Engine", "systemctl start docker"]);
    }
    stack.ok("config -q");
    stack
        .fails(4, "-H unix:///nowhere/docker.sock ps")
        .says(["/nowhere/docker.sock"]);
    stack
        .fails(4, "-H tcp://127.0.0.1:1 ps")
        .says(["127.0.0.1:1"]);

    stack.host.engine().start().unwrap();
    stack.ok("up -d");
}

/// A dozen services that hang on one that takes its time.
fn many(slow: &str) -> String {
    let mut compose = format!(
        "
services:
  slow:
    image: busybox
    init: true
    command: sleep 1000
    healthcheck: {{test: ['CMD-SHELL', '{slow}'], interval: 200ms, retries: 1000}}
"
    );
    for n in 1..=14 {
        let needs = if n % 2 == 0 {
            "depends_on: {slow: {condition: service_healthy}}"
        } else {
            ""
        };
        compose += &format!(
            "  s{n}:\n    image: busybox\n    init: true\n    command: sleep 1000\n    {needs}\n    volumes: ['data{n}:/data']\n"
        );
    }
    compose += "volumes:\n";
    (1..=14).for_each(|n| compose += &format!("  data{n}:\n"));
    compose
}

/// That each of the fifteen containers is there once and runs, and nothing else is.
#[track_caller]
fn all_there(stack: &Stack) {
    let mut names: Vec<String> = (1..=14).map(|n| format!("{}-s{n}-1", stack.name)).collect();
    names.push(format!("{}-slow-1", stack.name));
    names.sort();
    assert_eq!(stack.names(), names);
    for container in stack.containers() {
        assert_eq!(container["State"], "running", "{container}");
    }
    assert_eq!(
        stack.resources("networks"),
        [format!("{}_default", stack.name)]
    );
    assert_eq!(stack.resources("volumes").len(), 14);
}

#[test]
fn a_second_up_finishes_after_the_engine_was_stopped() {
    engine_lost("stopped", |engine| engine.stop());
}

#[test]
fn a_second_up_finishes_after_the_engine_was_killed() {
    engine_lost("killed", |engine| engine.kill());
}

fn engine_lost(name: &str, lose: impl FnOnce(&wharfie_lab::Engine) -> anyhow::Result<()>) {
    let Some(host) = own(EngineKind::Debian) else {
        return;
    };
    let stack = Stack::on(host, name, &many("test -f /go"));
    let mut up = stack.start("up -d");
    up.says(&format!("Container {name}-slow-1  Waiting"));
    lose(stack.host.engine()).unwrap();
    let ended = eventually(SOON, || {
        ensure!(
            !up.is_running(),
            "it still waits for an Engine that is gone"
        );
        Ok(())
    });
    ended.unwrap();
    let up = up.end();
    up.has_code(4).says(["error: ", "Engine"]);
    assert!(!up.stderr.contains("panicked"), "{up}");
    stack.host.engine().start().unwrap();
    stack.write("compose.yaml", &many("true"));
    stack.ok("up -d");
    all_there(&stack);
    stack.ok("up -d").says(["Nothing to do"]);
    stack.ok("down -v -t 0");
    assert!(
        stack.names().is_empty()
            && stack.resources("networks").is_empty()
            && stack.resources("volumes").is_empty()
    );
}

#[test]
fn two_at_once_do_not_double() {
    let Some(stack) = Stack::new("twice", &many("true")) else {
        return;
    };
    let (one, other) = (stack.start("up -d"), stack.start("up -d"));
    let (one, other) = (one.end(), other.end());
    one.has_code(0);
    other.has_code(0);
    all_there(&stack);
    let down = (stack.start("down -v -t 0"), stack.start("down -v -t 0"));
    down.0.end().has_code(0);
    down.1.end().has_code(0);
    assert!(
        stack.names().is_empty()
            && stack.resources("networks").is_empty()
            && stack.resources("volumes").is_empty()
    );

    // Up and down at once: either may be last, but what is there is whole.
    let (up, down) = (stack.start("up -d"), stack.start("down -v -t 0"));
    up.end().has_code(0);
    down.end().has_code(0);
    if !stack.names().is_empty() {
        all_there(&stack);
    }
}

#[test]
fn an_interrupted_up_is_finished_by_the_next() {
    let Some(stack) = Stack::new("cutshort", &many("test -f /go")) else {
        return;
    };
    let mut up = stack.start("up -d");
    up.says("Container cutshort-slow-1  Waiting");
    up.interrupt();
    up.end().has_code(130).says(["interrupted", "wharfie down"]);
    stack.write("compose.yaml", &many("true"));
    stack.ok("up -d");
    all_there(&stack);

    // And right at the start.
    stack.ok("down -v -t 0");
    let mut up = stack.start("up -d");
    up.says("Creating");
    up.interrupt();
    up.end().has_code(130);
    stack.ok("up -d");
    all_there(&stack);

    // A `down` that is interrupted, likewise.
    let mut down = stack.start("down -v -t 0");
    down.says("Removing");
    down.interrupt();
    down.end().has_code(130);
    stack.ok("down -v -t 0");
    assert!(
        stack.names().is_empty()
            && stack.resources("networks").is_empty()
            && stack.resources("volumes").is_empty()
    );
}

#[test]
fn a_killed_recreation_is_finished_by_the_next() {
    // The old container takes its time to stop, so that the kill falls in between.
    let compose = "
services:
  web:
    image: busybox
    command: [sh, -c, \"trap '' TERM; while :; do sleep 0.1; done\"]
    stop_grace_period: 4s
    environment: [A=1]
    volumes: [/scratch]
";
    let Some(stack) = Stack::new("recreation", compose) else {
        return;
    };
    stack.ok("up -d");
    stack.sh("web", "echo kept >/scratch/note");
    stack.write("compose.yaml", &compose.replace("A=1", "A=2"));
    let mut up = stack.start("up -d");
    up.says("Recreating");
    let there = soon(|| {
        let names = stack.names();
        ensure!(names.len() == 2, "{names:?}");
        Ok(names)
    });
    drop(up); // SIGKILL
    assert_eq!(there.len(), 2);
    stack.ok("up -d -t 0");
    assert_eq!(stack.names(), ["recreation-web-1"]);
    assert_eq!(stack.sh("web", "cat /scratch/note; echo $A"), "kept\n2\n");
    let running = stack.inspect("web-1")["State"]["Running"]
        .as_bool()
        .context("no state")
        .unwrap();
    assert!(running && !text(&stack.inspect("web-1")["Id"]).is_empty());
    stack.ok("up -d").says(["Nothing to do"]);
}
