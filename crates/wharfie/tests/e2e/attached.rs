//! `up` without `-d`: the output of all, and Ctrl-C.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::stack::{Stack, soon};

/// Says something, and takes its leave when asked to stop.
const POLITE: &str = "
x-polite: &polite
  image: busybox
  command:
    - sh
    - -c
    - trap 'echo leaving; exit 0' TERM; echo here I am; while :; do sleep 0.1; done
services:
  web: *polite
  database: *polite
";

#[test]
fn the_first_interrupt_stops_gracefully() {
    let Some(stack) = Stack::new("polite", POLITE) else {
        return;
    };
    let mut up = stack.start("up --scale web=2");
    for line in [
        "web-1       | here I am",
        "web-2       | here I am",
        "database-1  | here I am",
    ] {
        up.says(line);
    }
    assert!(up.is_running());
    up.interrupt();
    let up = up.end();
    up.has_code(130).says([
        "Gracefully",
        "web-1       | leaving",
        "web-2       | leaving",
        "database-1  | leaving",
        "Container polite-web-2  Stopped",
        "Container polite-database-1  Stopped",
    ]);
    assert!(
        up.stdout.contains("| leaving"),
        "output of containers belongs on standard output: {up}"
    );
    for container in ["web-1", "web-2", "database-1"] {
        let state = stack.inspect(container)["State"].clone();
        assert!(
            state["Status"] == "exited" && state["ExitCode"] == 0,
            "{state}"
        );
    }
    // They are started again, and the earlier output is not repeated.
    let mut up = stack.start("up --no-log-prefix web");
    up.says("here I am");
    up.interrupt();
    let said = up.end();
    assert_eq!(said.stdout.matches("here I am").count(), 1, "{said}");
    said.never_says("database-1  |");
}

#[test]
fn the_second_interrupt_kills() {
    let compose = "
services:
  stubborn:
    image: busybox
    command: [sh, -c, \"trap '' TERM; echo never; while :; do sleep 0.1; done\"]
    stop_grace_period: 60s
";
    let Some(stack) = Stack::new("stubborn", compose) else {
        return;
    };
    let mut up = stack.start("up");
    up.says("stubborn-1  | never");
    up.interrupt();
    up.says("Stopping");
    let began = Instant::now();
    up.interrupt();
    up.end().has_code(130);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(stack.inspect("stubborn-1")["State"]["ExitCode"], 137);
}

#[test]
fn up_ends_when_all_have_ended() {
    let compose = "
services:
  many: {image: busybox, command: seq 1 5000}
  one: {image: busybox, command: [sh, -c, 'echo fails >&2; exit 3']}
  silent: {image: busybox, command: echo unheard, attach: false}
";
    let Some(stack) = Stack::new("ending", compose) else {
        return;
    };
    let up = stack.ok("up");
    up.says([
        "one-1   | fails",
        "many-1 exited with code 0",
        "one-1 exited with code 3",
    ])
    .never_says("unheard");
    let numbers: Vec<usize> = up
        .stdout
        .lines()
        .filter_map(|l| l.strip_prefix("many-1  | ")?.trim().parse().ok())
        .collect();
    assert!(
        numbers == (1..=5000).collect::<Vec<_>>(),
        "{} lines of 5000",
        numbers.len()
    );
}

#[test]
fn one_end_can_end_all() {
    let compose = "
services:
  server: {image: busybox, init: true, command: sleep 1000}
  test: {image: busybox, command: [sh, -c, 'echo tested; exit 7'], depends_on: [server]}
";
    let Some(stack) = Stack::new("abort", compose) else {
        return;
    };
    for args in [
        "up --exit-code-from test",
        "up --abort-on-container-exit",
        "up --abort-on-container-failure",
    ] {
        stack
            .fails(7, args)
            .says(["tested", "test-1 exited with code 7"]);
        soon(|| {
            let state = stack.inspect("server-1")["State"].clone();
            ensure!(state["Running"] == false, "{state}");
            Ok(())
        });
    }
}

#[test]
fn what_restarts_is_still_heard() {
    let compose = "
services:
  again:
    image: busybox
    restart: on-failure:2
    command: [sh, -c, 'echo attempt; exit 1']
";
    let Some(stack) = Stack::new("restarting", compose) else {
        return;
    };
    let up = stack.ok("up");
    assert_eq!(up.stdout.matches("again-1  | attempt").count(), 3, "{up}");
    assert_eq!(stack.inspect("again-1")["RestartCount"], 2);
}
