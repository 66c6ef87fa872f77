//! Networks over several hosts mean the same as on one.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, Node};
use crate::stack::soon;

const TIERS: &str = "
x-base: &base
  image: busybox
  init: true
  stop_grace_period: 0s
  command: [sh, -c, 'mkdir /w; hostname >/w/index.html; exec httpd -f -h /w']
services:
  web: {<<: *base, hostname: on-web, networks: [front], deploy: {placement: {constraints: [node.hostname == h1]}}}
  app: {<<: *base, networks: [front, back], deploy: {placement: {constraints: [node.hostname == h2]}}}
  db:
    <<: *base
    hostname: on-db
    deploy: {placement: {constraints: [node.hostname == h3]}}
    networks: {back: {aliases: [store]}}
networks: {front: {}, back: {}}
";

/// What a server says to a container of a service.
fn get(node: &Node, from: &str, server: &str) -> String {
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {server} 80 | tail -n 1");
    let said = node.run(["exec", "-T", from, "sh", "-c", ask.as_str()]);
    said.stdout.trim().to_owned()
}

fn says(node: &Node, from: &str, server: &str, word: &str) -> Result<()> {
    let said = get(node, from, server);
    ensure!(said == word, "{from} hears {said:?} of {server}");
    Ok(())
}

/// The address of a service's first task on a network.
fn address(node: &Node, name: &str, network: &str) -> String {
    let found = node.inspect(name);
    let network = &found["NetworkSettings"]["Networks"][network];
    network["IPAddress"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn three_tiers_on_three_hosts_are_as_on_one() {
    let Some(cluster) = Cluster::of(3, "tiers", TIERS) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    let app = h1.ok("exec -T app hostname").stdout.trim().to_owned();
    soon(|| says(h1, "web", "app", &app));
    soon(|| says(h1, "app", "db", "on-db"));
    soon(|| says(h1, "db", "app", &app));
    for name in [
        "app.tiers",
        "app.tiers.internal",
        "1.app",
        "tasks.app",
        "tiers-app-1",
    ] {
        says(h1, "web", name, &app).unwrap();
    }
    says(h1, "app", "store", "on-db").unwrap();
    says(h1, "app", "web", "on-web").unwrap();
    // What shares no network is not there, by name or by address.
    for (from, server) in [
        ("web", "db"),
        ("db", "web"),
        ("web", "store"),
        ("web", "db.tiers"),
    ] {
        assert_eq!(get(h1, from, server), "", "{from} to {server}");
    }
    let (db, web) = (
        address(h3, "db-1", "tiers_back"),
        address(h1, "web-1", "tiers_front"),
    );
    assert!(!db.is_empty() && !web.is_empty());
    says(h1, "app", &db, "on-db").unwrap();
    assert_eq!(get(h1, "web", &db), "");
    assert_eq!(get(h1, "db", &web), "");

    // A service's address stands for all of its tasks, wherever they are.
    h1.ok("up -d --scale app=1");
    h2.ok("down -t 0");
    for node in cluster.nodes() {
        let left = node.host.engine().api("GET", "/networks", None).unwrap();
        let left: Vec<&str> = left
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|n| n["Name"].as_str())
            .filter(|n| n.starts_with("tiers"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

const MANY: &str = "
services:
  web:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: [sh, -c, 'mkdir /w; hostname >/w/index.html; exec httpd -f -h /w']
    deploy: {replicas: 3}
  client: {image: busybox, init: true, stop_grace_period: 0s, command: sleep 1000, deploy: {mode: global}}
";

#[test]
fn an_address_stands_for_all_tasks() {
    let Some(cluster) = Cluster::of(3, "vips", MANY) else {
        return;
    };
    let [h1, h2, _] = [1, 2, 3].map(|n| cluster.node(n));
    h1.ok("up -d");
    let ask = "for i in 1 2 3 4 5 6 7 8 9; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 web 80 | tail -n 1; done";
    let met = |node: &Node| -> BTreeSet<String> {
        let said = node.run(["exec", "-T", "client", "sh", "-c", ask]);
        said.stdout.lines().map(str::to_owned).collect()
    };
    soon(|| {
        let met = met(h1);
        ensure!(met.len() == 3, "{met:?}");
        Ok(())
    });
    h2.ok("up -d --scale web=1");
    soon(|| {
        let met = met(h1);
        ensure!(met.len() == 1, "{met:?}");
        Ok(())
    });
}

const WALLS: &str = "
x-base: &base
  image: busybox
  init: true
  stop_grace_period: 0s
  command: [sh, -c, 'mkdir /w; hostname >/w/index.html; httpd -p 81 -h /w; exec httpd -f -h /w']
services:
  vault:
    <<: *base
    hostname: on-vault
    deploy: {placement: {constraints: [node.hostname == h1]}}
    x-wharfie:
      firewall:
        ingress:
          - {protocol: tcp, ports: [80], service: friend}
        egress:
          - {protocol: tcp, ports: [80], network: default}
  friend: {<<: *base, hostname: on-friend, deploy: {placement: {constraints: [node.hostname == h2]}}}
  foe: {<<: *base, hostname: on-foe, deploy: {placement: {constraints: [node.hostname == h2]}}}
";

#[test]
fn a_firewall_lets_through_what_it_says_and_no_more() {
    let Some(cluster) = Cluster::of(2, "walls", WALLS) else {
        return;
    };
    let h1 = cluster.node(1);
    h1.ok("up -d");
    soon(|| says(h1, "friend", "vault", "on-vault"));
    soon(|| says(h1, "vault", "friend", "on-friend"));
    soon(|| says(h1, "foe", "friend", "on-friend"));
    let get_81 = |from: &str, server: &str| {
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {server} 81 | tail -n 1");
        let said = h1.run(["exec", "-T", from, "sh", "-c", ask.as_str()]);
        said.stdout.trim().to_owned()
    };
    assert_eq!(get_81("foe", "friend"), "on-friend");
    assert_eq!(get(h1, "foe", "vault"), "");
    assert_eq!(get_81("friend", "vault"), "");
    assert_eq!(get_81("vault", "friend"), "");
    // What a task may be asked by follows its tasks, wherever they go.
    h1.ok("up -d --scale friend=2");
    soon(|| {
        for name in ["1.friend", "2.friend"] {
            says(h1, "vault", name, "on-friend")?;
        }
        let ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 vault 80 | tail -n 1";
        let said = h1.run(["exec", "-T", "--index", "2", "friend", "sh", "-c", ask]);
        ensure!(said.stdout.trim() == "on-vault", "{said}");
        Ok(())
    });
    h1.ok("down -t 0");
}
