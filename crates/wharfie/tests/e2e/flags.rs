//! Flags that are asked for seldom.

use crate::stack::{Stack, text};

const TWO: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000}
  old: {image: busybox, init: true, command: sleep 1000}
";
const ONE: &str = "
services:
  web: {image: busybox, init: true, command: sleep 1000}
";

fn state(stack: &Stack, short: &str) -> String {
    text(&stack.inspect(short)["State"]["Status"])
}

#[test]
fn orphans_are_killed_on_request_only() {
    let Some(stack) = Stack::new("killing", TWO) else {
        return;
    };
    stack.ok("up -d");
    stack.ok("run -d --name killing-once web sleep 1000");
    stack.write("compose.yaml", ONE);
    stack
        .ok("kill")
        .says(["killing-web-1  Killed", "killing-once  Killed"])
        .never_says("killing-old-1");
    assert_eq!(state(&stack, "old-1"), "running");
    stack.ok("kill --remove-orphans").says(["old-1  Killed"]);
    assert_eq!(state(&stack, "old-1"), "exited");
    stack.ok("kill").says(["no container to kill"]);
}

#[test]
fn run_takes_variables_from_a_file() {
    let compose = "
services:
  web: {image: busybox, command: env, environment: {A: service, B: service, C: service}}
";
    let Some(stack) = Stack::new("from-file", compose) else {
        return;
    };
    stack.write("vars", "B=file\nC=${B} too\nHOME_IS=${HOME:-unset}\n");
    let ran = stack.ok("run --rm -T --env-from-file vars -e C=typed web");
    for line in ["A=service", "B=file", "C=typed", "HOME_IS=unset"] {
        assert!(ran.lines().contains(&line), "{line} is not in {ran}");
    }
    stack
        .fails(2, "run --rm --env-from-file none web")
        .says(["cannot read none"]);
}

#[test]
fn start_waits_for_health() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    healthcheck: {test: test -e /tmp/well, interval: 200ms, retries: 1000}
";
    let Some(stack) = Stack::new("start-waits", compose) else {
        return;
    };
    stack.ok("create -y");
    stack
        .fails(3, "start --wait --wait-timeout 1")
        .says(["within 1 s"]);
    stack.sh("web", "touch /tmp/well");
    stack
        .ok("start --wait")
        .says(["start-waits-web-1  Running"]);
    let health = stack.inspect("web-1")["State"]["Health"]["Status"].clone();
    assert_eq!(text(&health), "healthy");
}

#[test]
fn up_makes_unused_resources_on_request() {
    let compose = "
services:
  web: {image: busybox, init: true, command: sleep 1000}
networks: {spare: }
volumes: {spare: }
";
    let Some(stack) = Stack::new("spares", compose) else {
        return;
    };
    stack.ok("up -d").never_says("spare\n");
    assert!(stack.resources("volumes").is_empty());
    stack.ok("--all-resources up -d -y");
    assert_eq!(stack.resources("volumes"), ["spares_spare"]);
    assert_eq!(
        stack.resources("networks"),
        ["spares_default", "spares_spare"]
    );
    stack.ok("--all-resources down -v");
    assert!(stack.resources("volumes").is_empty() && stack.resources("networks").is_empty());
}
