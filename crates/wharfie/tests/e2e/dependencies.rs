//! `depends_on` with its conditions, health, `--wait`, profiles.

use std::time::{Duration, Instant};

use crate::stack::{Stack, text};

#[test]
fn conditions_are_waited_for() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    depends_on:
      db: {condition: service_healthy}
      setup: {condition: service_completed_successfully}
  setup:
    image: busybox
    command: [sh, -c, sleep 0.5; nc -w 2 db 99]
    depends_on: {db: {condition: service_started}}
  db:
    image: busybox
    init: true
    command: [sh, -c, 'nc -l -p 99 </dev/null; touch /ready; sleep 1000']
    healthcheck: {test: [CMD, test, -f, /ready], interval: 200ms, retries: 50}
";
    let Some(stack) = Stack::new("conditions", compose) else {
        return;
    };
    stack.ok("up -d").says([
        "Container conditions-db-1  Healthy",
        "Container conditions-setup-1  Exited",
        "Container conditions-web-1  Started",
    ]);
    let state = |short: &str| stack.inspect(short)["State"].clone();
    let (web, setup, db) = (state("web-1"), state("setup-1"), state("db-1"));
    assert_eq!(
        (&setup["Status"], &setup["ExitCode"]),
        (&"exited".into(), &0.into())
    );
    assert_eq!(db["Health"]["Status"], "healthy");
    assert!(
        text(&web["StartedAt"]) > text(&setup["FinishedAt"]),
        "{web} {setup}"
    );
    let healthy = db["Health"]["Log"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["ExitCode"] == 0)
        .cloned()
        .unwrap();
    // The Engine notes the times of checks in its own time zone, which is UTC in all likelihood.
    let (start, end) = (text(&web["StartedAt"]), text(&healthy["Start"]));
    assert!(
        start.trim_end_matches('Z')[..19] >= end[..19],
        "{start} {end}"
    );
    assert!(text(&setup["StartedAt"]) > text(&db["StartedAt"]));
}

#[test]
fn a_dependency_that_fails_fails_up() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    depends_on: {setup: {condition: service_completed_successfully}}
  setup: {image: busybox, command: [sh, -c, exit 3]}
";
    let Some(stack) = Stack::new("failing", compose) else {
        return;
    };
    stack
        .fails(1, "up -d")
        .says(["error: container failing-setup-1 ended with code 3"])
        .never_says("failing-web-1  Started");
    assert_eq!(stack.inspect("web-1")["State"]["Status"], "created");

    // What is not required may fail.
    stack.write(
        "compose.yaml",
        &compose.replace("_successfully}", "_successfully, required: false}"),
    );
    stack.ok("up -d");
    assert_eq!(stack.inspect("web-1")["State"]["Running"], true);
}

#[test]
fn an_unhealthy_dependency_fails_up() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    depends_on: {db: {condition: service_healthy}}
  db:
    image: busybox
    init: true
    command: sleep 1000
    healthcheck: {test: ['CMD-SHELL', 'echo no table; false'], interval: 200ms, retries: 2}
";
    let Some(stack) = Stack::new("unhealthy", compose) else {
        return;
    };
    stack
        .fails(1, "up -d")
        .says(["db-1", "unhealthy"])
        .never_says("unhealthy-web-1  Started");
    assert_eq!(stack.inspect("web-1")["State"]["Status"], "created");

    // One that ends cannot become healthy: no waiting for that.
    stack.write(
        "compose.yaml",
        &compose
            .replace(
                "command: sleep 1000\n    healthcheck",
                "command: sleep 0.3\n    healthcheck",
            )
            .replace("retries: 2", "retries: 1000"),
    );
    let began = Instant::now();
    stack
        .fails(1, "up -d")
        .says(["unhealthy-db-1 ended with code 0"]);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn wait_returns_when_all_is_well() {
    let compose = "
services:
  db:
    image: busybox
    init: true
    command: [sh, -c, 'sleep 0.7; touch /ready; sleep 1000']
    healthcheck: {test: [CMD, test, -f, /ready], interval: 200ms, retries: 50}
  plain: {image: busybox, init: true, command: sleep 1000}
";
    let Some(stack) = Stack::new("waiting", compose) else {
        return;
    };
    stack.ok("up --wait");
    assert_eq!(
        stack.inspect("db-1")["State"]["Health"]["Status"],
        "healthy"
    );
    stack.ok("up -d --wait --wait-timeout 10");

    stack.write("compose.yaml", &compose.replace("touch /ready", "true"));
    let began = Instant::now();
    stack
        .fails(3, "up -d --wait --wait-timeout 1")
        .says(["1 s", "wharfie ps"]);
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    // Time is up for the waiting, not for the containers.
    assert_eq!(stack.inspect("db-1")["State"]["Running"], true);

    stack.write(
        "compose.yaml",
        &compose.replace("touch /ready; sleep 1000", "exit 4"),
    );
    stack
        .fails(1, "up -d --wait")
        .says(["waiting-db-1 ended with code 4"]);
}

#[test]
fn only_what_is_meant_is_brought_up() {
    let compose = "
services:
  web: {image: busybox, init: true, command: sleep 1000, depends_on: [db]}
  db: {image: busybox, init: true, command: sleep 1000}
  other: {image: busybox, init: true, command: sleep 1000}
  debug: {image: busybox, init: true, command: sleep 1000, profiles: [debug], depends_on: [other]}
";
    let Some(mut stack) = Stack::new("profiles", compose) else {
        return;
    };
    stack.ok("up -d --no-deps web");
    assert_eq!(stack.names(), ["profiles-web-1"]);
    stack.ok("up -d web");
    assert_eq!(stack.names(), ["profiles-db-1", "profiles-web-1"]);
    stack.ok("up -d");
    assert_eq!(
        stack.names(),
        ["profiles-db-1", "profiles-other-1", "profiles-web-1"]
    );
    stack.ok("--profile debug up -d");
    assert_eq!(stack.names().len(), 4);
    // A service of a profile that is not enabled is no orphan.
    stack.ok("up -d").never_says("orphan");
    stack.ok("--profile debug down");
    assert!(stack.names().is_empty());

    // To name a service is to want it.
    stack.ok("up -d debug");
    assert_eq!(stack.names(), ["profiles-debug-1", "profiles-other-1"]);
    stack.ok("--profile * down");
    stack.env("COMPOSE_PROFILES", "debug");
    stack.ok("up -d --scale web=0 --scale db=0");
    assert_eq!(stack.names(), ["profiles-debug-1", "profiles-other-1"]);
}
