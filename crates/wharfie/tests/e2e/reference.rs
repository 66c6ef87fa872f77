//! Docker compose and Wharfie on the same stack. The reference is the program that
//! `WHARFIE_REFERENCE` names, or the compose plugin that came with the newest Engine.

use std::path::PathBuf;

use anyhow::ensure;
use wharfie_lab::EngineKind;

use crate::applications::{example, up};
use crate::stack::{Ran, Stack, soon, text};

#[test]
fn the_reference_works_on_our_stacks() {
    both_ways(EngineKind::Debian);
}

#[test]
fn the_reference_works_on_our_stacks_on_28() {
    both_ways(EngineKind::Sid28);
}

/// The reference, if there is one here.
fn reference() -> Option<String> {
    let plugin = || EngineKind::Sid28.installation().ok()?.compose;
    let found = std::env::var_os("WHARFIE_REFERENCE")
        .map(PathBuf::from)
        .or_else(plugin);
    if found.is_none() {
        eprintln!(
            "skipped: there is no docker compose to compare with; name one in WHARFIE_REFERENCE"
        );
    }
    Some(found?.to_string_lossy().into_owned())
}

fn both_ways(kind: EngineKind) {
    let Some(mut stack) = example(kind, "os-db", "interplay") else {
        return;
    };
    let Some(reference) = reference() else { return };
    // Without it, the reference asks for buildx.
    stack.env("DOCKER_BUILDKIT", "0");
    let compose = |args: &str| -> Ran {
        let words: Vec<&str> = args.split_whitespace().collect();
        let ran = stack.program(&reference, words.as_slice());
        ran.has_code(0);
        ran
    };
    up(&stack, "up -d --scale os=2");
    let ours = stack.ids();

    let listed = compose("ls --format json").json();
    let project = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["Name"] == "interplay")
        .cloned()
        .unwrap();
    assert_eq!(project["Status"], "running(3)");
    assert_eq!(
        text(&project["ConfigFiles"]),
        stack.path("compose.yaml").to_string_lossy()
    );
    assert_eq!(compose("ps -q").stdout, stack.ok("ps -q").stdout);
    assert_same_ps(
        &stack,
        &compose("ps --format json"),
        &stack.ok("ps --format json"),
    );

    // Neither recreates what the other made.
    compose("up -d --scale os=2");
    assert_eq!(stack.ids(), ours, "the reference has made something anew");
    up(&stack, "up -d --scale os=2").says(["Nothing to do"]);
    // What is wanted comes back, whoever takes it down.
    compose("stop -t 0 os");
    soon(|| {
        let containers = stack.containers();
        ensure!(containers.len() == 3, "{containers:?}");
        ensure!(
            containers.iter().all(|c| c["State"] == "running"),
            "{containers:?}"
        );
        Ok(())
    });
    assert_eq!(stack.ids(), ours);
    stack.ok("down -t 0");
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());

    compose("up -d --scale os=2");
    let theirs = stack.ids();
    up(&stack, "up -d --scale os=2").says(["Nothing to do"]);
    assert_eq!(stack.ids(), theirs, "we have made something anew");
    stack.ok("scale os=1");
    stack.ok("down -t 0");
    assert!(stack.names().is_empty() && stack.resources("networks").is_empty());
}

/// Compares the listings of both, but for what differs from one moment to the next.
fn assert_same_ps(stack: &Stack, theirs: &Ran, ours: &Ran) {
    let containers = |ran: &Ran| -> Vec<serde_json::Value> {
        let mut list = ran.json_lines();
        list.sort_by_key(|c| text(&c["Name"]));
        for container in &mut list {
            let fields = container.as_object_mut().unwrap();
            fields.retain(|key, _| {
                ![
                    "RunningFor",
                    "Status",
                    "Labels",
                    "CreatedAt",
                    "Networks",
                    "Mounts",
                ]
                .contains(&key.as_str())
            });
        }
        list
    };
    assert_eq!(
        containers(ours),
        containers(theirs),
        "{}: ps differs",
        stack.name
    );
}

#[test]
fn a_stack_with_much_in_it_is_the_same_to_both() {
    let compose = "
services:
  web:
    image: busybox
    init: true
    command: [sh, -c, 'echo $$HOME; sleep 1000']
    environment: {A: b, C: '${UNSET:-d}'}
    ports: ['8195:80', {target: 81, published: '8196', protocol: udp}]
    volumes: ['data:/data', './here:/here:ro', /anonymous]
    networks: {front: {aliases: [w]}, back: }
    labels: [x=y]
    depends_on: {db: {condition: service_started, restart: true}}
    deploy: {resources: {limits: {memory: 50M}}}
    configs: [{source: text, target: /text}]
    healthcheck: {test: 'true', interval: 2s}
  db: {image: busybox, init: true, command: sleep 1000, networks: [back], scale: 2}
  pod: {image: busybox, init: true, command: sleep 1000, network_mode: 'service:db'}
  reader: {image: busybox, init: true, command: sleep 1000, volumes_from: ['web:ro'], networks: [back]}
networks:
  front: {labels: {a: b}, ipam: {config: [{subnet: 10.77.3.0/24}]}}
  back: {internal: true}
volumes:
  data: {labels: {c: d}}
configs:
  text: {content: 'a text'}
";
    let Some(stack) = Stack::new("muchtoboth", compose) else {
        return;
    };
    let Some(reference) = reference() else { return };
    stack.ok("up -d");
    let ours = stack.ids();
    stack.program(&reference, "up -d").has_code(0);
    assert_eq!(stack.ids(), ours, "the reference has made something anew");
    stack.ok("up -d").says(["Nothing to do"]);
    stack.ok("down -v -t 0");
    assert!(
        stack.names().is_empty()
            && stack.resources("networks").is_empty()
            && stack.resources("volumes").is_empty()
    );

    stack.program(&reference, "up -d").has_code(0);
    let theirs = stack.ids();
    stack.ok("up -d");
    assert_eq!(stack.ids(), theirs, "we have made something anew");
    stack.ok("down -v -t 0");
    assert!(
        stack.names().is_empty()
            && stack.resources("networks").is_empty()
            && stack.resources("volumes").is_empty()
    );
}
