//! Rollouts over several hosts.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::Value;

use crate::cluster::{Cluster, Node};
use crate::cluster_spread::everywhere;
use crate::stack::{soon, text};

const APP: &str = r#"
services:
  app:
    image: busybox
    init: true
    command: sleep 1000
    stop_grace_period: 0s
    network_mode: none
    environment: {VERSION: "1"}
    deploy:
      replicas: 6
      update_config: {parallelism: 2, monitor: 1s, failure_action: rollback}
"#;

fn state(node: &Node) -> (String, Value) {
    let rollouts = node.ok("rollout status --format json");
    let lines = rollouts.lines();
    let Some(line) = lines.first() else {
        return (String::new(), Value::Null);
    };
    let rollout: Value = serde_json::from_str(line).unwrap();
    (text(&rollout["phase"]["is"]), rollout)
}

/// What the tasks have in their environment.
fn versions(cluster: &Cluster, stack: &str) -> BTreeSet<String> {
    let mut versions = BTreeSet::new();
    for (task, node) in everywhere(cluster, stack) {
        let node = cluster.nodes().iter().find(|n| n.name() == node).unwrap();
        let path = format!("/containers/{stack}-{task}/json");
        let Ok(inspected) = node.host.engine().api("GET", &path, None) else {
            continue;
        };
        let env = inspected["Config"]["Env"].as_array().cloned();
        let env = env.into_iter().flatten().map(|e| text(&e));
        versions.extend(env.filter(|e| e.starts_with("VERSION=")));
    }
    versions
}

#[test]
fn an_update_goes_step_by_step_and_back_by_itself() {
    let Some(cluster) = Cluster::of(3, "rolled", APP) else {
        return;
    };
    let h1 = cluster.node(1);
    h1.ok("up -d");
    let run = |count: usize| {
        let all = everywhere(&cluster, "rolled");
        ensure!(all.len() == count, "{all:?}");
        Ok(())
    };
    soon(|| run(6));
    assert_eq!(state(h1).0, "");

    h1.write("compose.yaml", &APP.replace("\"1\"", "\"2\""));
    let up = h1.ok("up -d");
    up.says([
        "Rollout app",
        "2 of 6 updated",
        "4 of 6 updated",
        "all 6 updated",
    ]);
    assert_eq!(
        versions(&cluster, "rolled"),
        ["VERSION=2".to_owned()].into()
    );
    assert_eq!(state(cluster.node(2)).0, "completed");

    // One that does not run goes back by itself, and says so.
    let bad = APP
        .replace("\"1\"", "\"3\"")
        .replace("sleep 1000", "sh -c 'exit 7'");
    h1.write("compose.yaml", &bad);
    let up = h1.fails(1, "up -d");
    up.says(["the rollout of app was taken back", "ended with code 7"]);
    soon(|| {
        ensure!(versions(&cluster, "rolled") == ["VERSION=2".to_owned()].into());
        run(6)
    });
    assert_eq!(state(h1).0, "rolled-back");
    h1.ok("history").says(["rollback"]);
}

#[test]
fn a_rollout_waits_goes_on_and_outlives_who_drives_it() {
    let slow = APP
        .replace("monitor: 1s", "monitor: 1s, delay: 2s")
        .replace("parallelism: 2", "parallelism: 1");
    let Some(cluster) = Cluster::of(3, "driven", &slow) else {
        return;
    };
    let [h1, h2, _] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| {
        let all = everywhere(&cluster, "driven");
        ensure!(all.len() == 6, "{all:?}");
        Ok(())
    });
    h1.write("compose.yaml", &slow.replace("\"1\"", "\"2\""));
    std::thread::scope(|scope| {
        let up = scope.spawn(|| h1.run("up -d"));
        soon(|| {
            let (phase, rollout) = state(h2);
            ensure!(
                phase == "updating" && rollout["updated"].as_u64() >= Some(1),
                "{rollout}"
            );
            Ok(())
        });
        h2.ok("rollout pause");
        let up = up.join().unwrap();
        up.has_code(1);
        up.says(["came to a halt", "it was asked to pause"]);
    });
    assert_eq!(state(h1).0, "paused");
    soon(|| {
        let versions = versions(&cluster, "driven");
        ensure!(versions.len() == 2, "{versions:?}");
        Ok(())
    });
    h1.ok("rollout resume app");
    // Whoever drives it goes, one after the other: it goes on all the same.
    for node in cluster.nodes() {
        node.kill_agent();
        node.start_agent();
        cluster.is_whole();
    }
    soon(|| {
        let (phase, rollout) = state(h2);
        ensure!(phase == "completed", "{rollout}");
        let versions = versions(&cluster, "driven");
        ensure!(versions == ["VERSION=2".to_owned()].into(), "{versions:?}");
        Ok(())
    });
    h1.fails(1, "rollout undo app").says(["is over"]);
}

/// A server that takes nothing new after SIGTERM, and ends what it has begun; and a client that tries
/// the service's addresses one after the other, as HTTP clients do.
const SERVED: &str = r#"
services:
  web:
    image: busybox
    init: true
    command: [sh, -c, 'trap "kill $$P; sleep 1; exit 0" TERM; sleep 1; mkdir /w; echo 1 >/w/index.html; httpd -f -h /w & P=$$!; wait; wait']
    stop_grace_period: 5s
    healthcheck: {test: "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 127.0.0.1 80 | grep -q '200 OK'", interval: 300ms, retries: 30}
    environment: {VERSION: "1"}
    deploy:
      replicas: 3
      update_config: {parallelism: 1, monitor: 500ms, order: start-first}
  client:
    image: busybox
    init: true
    stop_grace_period: 0s
    command:
      - sh
      - -c
      - |
        good=0; bad=0
        while true; do
          got=no
          for address in $$(nslookup web 127.0.0.11 2>/dev/null | awk '/^Address/ {print $$NF}' | grep -v :53); do
            if printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 3 $$address 80 | grep -q '200 OK'; then got=yes; break; fi
          done
          if [ $$got = yes ]; then good=$$((good+1)); else bad=$$((bad+1)); fi
          echo $$good $$bad >/count.new; mv /count.new /count
        done
"#;

#[test]
fn an_update_loses_no_request() {
    let Some(cluster) = Cluster::apart(1, "served", SERVED) else {
        return;
    };
    let h1 = cluster.node(1);
    h1.ok("up -d --wait web");
    h1.ok("up -d client");
    let count = || -> anyhow::Result<(u64, u64)> {
        let said = h1.run("exec -T client cat /count");
        let numbers: Vec<u64> = said
            .stdout
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        ensure!(numbers.len() == 2, "{said}");
        Ok((numbers[0], numbers[1]))
    };
    let before = soon(|| {
        let (good, bad) = count()?;
        ensure!(good > 20 && bad == 0, "{good} good, {bad} bad");
        Ok(good)
    });
    h1.write("compose.yaml", &SERVED.replace("\"1\"}", "\"2\"}"));
    h1.ok("up -d web").says(["all 3 updated"]);
    let (good, bad) = count().unwrap();
    assert_eq!(bad, 0, "{good} good");
    assert!(good > before + 20, "{before} before, {good} after");
    assert_eq!(
        versions(&cluster, "served"),
        ["VERSION=2".to_owned()].into()
    );
}
