//! `wharfie network`: what there is, why somebody is reached or not, and that nothing is left behind.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};

const SHOP: &str = "
x-base: &base
  image: busybox
  init: true
  stop_grace_period: 0s
  command: [sh, -c, 'mkdir /w; hostname >/w/index.html; exec httpd -f -h /w']
services:
  web: {<<: *base, networks: [front], deploy: {placement: {constraints: [node.hostname == h1]}}}
  vault:
    <<: *base
    networks: [front, back]
    deploy: {placement: {constraints: [node.hostname == h2]}}
    x-wharfie:
      firewall:
        log: true
        ingress:
          - {protocol: tcp, ports: [80], service: web}
  db: {<<: *base, networks: [back], deploy: {placement: {constraints: [node.hostname == h2]}}}
networks: {front: {}, back: {internal: true}}
";

/// Asks a server of a service for its page; what it says.
fn get(node: &Node, from: &str, server: &str, port: u16) -> String {
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {server} {port} | tail -n 1");
    let said = node.run(["exec", "-T", from, "sh", "-c", ask.as_str()]);
    said.stdout.trim().to_owned()
}

fn reaches(node: &Node, from: &str, server: &str) -> Result<()> {
    ensure!(
        !get(node, from, server, 80).is_empty(),
        "{from} does not reach {server}"
    );
    Ok(())
}

/// The rows of `network ls` that pass a filter.
fn rows(node: &Node, filter: &str) -> Vec<Value> {
    let filter = format!("network ls --format json --filter {filter}");
    node.ok(filter.as_str()).json_lines()
}

#[test]
fn network_shows_what_all_nodes_have() {
    let Some(cluster) = Cluster::of(2, "shop", SHOP) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| reaches(h2, "web", "vault"));
    h2.ok("network ls")
        .says(["NETWORK", "SCOPE", "SUBNETS", "VNI", "shop_front", "h1, h2"]);
    let listed = soon(|| {
        let listed = rows(h2, "scope=cluster");
        let [back, front] = listed.as_slice() else {
            anyhow::bail!("{listed:?}");
        };
        ensure!(
            front["Containers"] == 2 && back["Containers"] == 2,
            "{listed:?}"
        );
        Ok(listed)
    });
    assert_eq!(listed[0]["Name"], "shop_back");
    assert_eq!(listed[0]["Notes"], json!(["internal"]));
    assert_eq!(listed[0]["Nodes"], json!(["h2"]));
    assert_eq!(listed[1]["Stack"], "shop");
    let quiet = h1.ok("network ls -q --filter name=shop");
    assert_eq!(quiet.lines(), ["shop_back", "shop_front"]);
    // Each node's own are there as well.
    let own = rows(h1, "name=bridge");
    assert_eq!(own.len(), 2, "{own:?}");
    h1.fails(2, "network ls --filter colour=red");

    let found = h2.ok("network inspect shop_front shop_back").json();
    let front = &found[0];
    assert_eq!(front["Driver"], "overlay");
    assert_eq!(
        front["Containers"].as_object().unwrap().len(),
        2,
        "{front:#}"
    );
    let web = front["Containers"].as_object().unwrap().values();
    let web = web.into_iter().find(|c| c["Service"] == "web").unwrap();
    assert_eq!(web["Node"], "h1");
    assert!(text(&web["MacAddress"]).len() == 17, "{web}");
    assert!(
        text(&front["Nodes"]["h1"]["Bridge"]).starts_with("wbr"),
        "{front:#}"
    );
    assert_eq!(front["Services"].as_object().unwrap().len(), 2, "{front:#}");
    assert_eq!(front["Faults"], json!([]));
    assert_eq!(found[1]["Internal"], true);
    let bridge = h1.ok("network inspect bridge").json();
    assert_eq!(bridge.as_array().unwrap().len(), 2);
    h1.fails(1, "network inspect no_such")
        .says(["there is no network no_such"]);

    // What is in use stays, with who uses it.
    h2.fails(1, "network rm shop_front")
        .says(["shop_front stays: stack shop wants it"]);
    let made = h2.ok("network create --subnet 10.77.0.0/16 --internal --label a=b shared");
    assert_eq!(made.stdout.trim(), "shared");
    let shared = soon(|| {
        let found = h1.ok("network inspect shared").json()[0].clone();
        ensure!(!found.is_null());
        Ok(found)
    });
    assert_eq!(shared["IPAM"]["Config"][0]["Subnet"], "10.77.0.0/16");
    assert_eq!(
        (&shared["Labels"]["a"], &shared["Internal"]),
        (&json!("b"), &json!(true))
    );
    h1.fails(1, "network create shared")
        .says(["there is a network shared already"]);
    h1.fails(1, "network create --subnet 10.77.3.0/24 other")
        .says(["overlaps network shared (10.77.0.0/16)"]);
    h1.fails(1, "network create --gateway 10.3.0.1 other")
        .says(["needs `subnet`"]);
    h1.ok("--dry-run network rm shared")
        .says(["remove network shared"]);
    h1.ok("network rm shared").says(["removed shared"]);
    soon(|| {
        ensure!(rows(h2, "name=shared").is_empty());
        Ok(())
    });
    // One of a node's own.
    let body = json!({"Name": "own"});
    h2.host
        .engine()
        .api("POST", "/networks/create", Some(&body))
        .unwrap();
    h1.ok("network rm own").says(["removed own on h2"]);
    assert!(rows(h1, "name=own").is_empty());
    h1.fails(1, "network rm own");
    h1.ok("down -t 0");
    assert!(rows(h1, "scope=cluster").is_empty());
}

#[test]
fn network_trace_says_what_is_so() {
    let Some(cluster) = Cluster::of(2, "ways", SHOP) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| reaches(h2, "web", "vault"));
    // All that is told is held against what happens.
    let told = soon(|| {
        let told = h2.run("network trace web vault --port 80");
        ensure!(told.status.success(), "{told}");
        Ok(told)
    });
    told.says([
        "vault is 10.",
        "the service's own address",
        "leads to task 1 on h2",
        "both are on ways_front",
        "node h1 to h2",
        "x-wharfie.firewall.ingress[0]",
        "accepts 80/tcp",
        "somebody listens at 80/tcp",
        "web reaches vault",
    ]);
    let refused = h1.fails(1, "network trace db vault --port 80");
    refused.says([
        "no rule of ingress matches, and it drops 80/tcp",
        "db does not reach vault",
    ]);
    assert_eq!(get(h1, "db", "vault", 80), "");
    assert!(refused.stderr.is_empty(), "{refused}");
    h1.fails(1, "network trace web db").says([
        "no network in common: ways/web/1 on h1 is on ways_front, ways/db/1 on h2 on ways_back",
    ]);
    assert_eq!(get(h1, "web", "db", 80), "");
    // The vault's own firewall says nothing of what it may reach.
    h1.ok("network trace vault ways/web/1 --port 80")
        .says(["somebody listens"]);
    reaches(h1, "vault", "web").unwrap();
    h2.fails(1, "network trace vault web --port 81")
        .says(["nobody listens at 81/tcp", "it listens at 80"]);
    assert_eq!(get(h1, "vault", "web", 81), "");
    h1.fails(1, "network trace db 192.0.2.1")
        .says(["internal networks only"]);
    h1.ok("network trace web 192.0.2.1 --port 443")
        .says(["192.0.2.1 is outside"]);
    h1.fails(1, "network trace h1 vault --port 22 --protocol udp")
        .says(["it drops 22/udp"]);
    h1.ok("network trace h1 ways/web/1 --port 80")
        .says(["node h1", "it has 10."]);
    h1.fails(1, "network trace web nobody")
        .says(["`nobody` is no container, service, node or address"]);
    let odd = h1.fails(2, "network trace web vault --protocol carp");
    odd.says(["\"carp\" is no protocol"]);
    let json = h2
        .ok("network trace ways-web-1 vault --port 80 --format json")
        .json();
    assert_eq!(json["arrives"], true);
    assert!(json["hops"].as_array().unwrap().len() > 4, "{json}");
    // A task that ends takes its name along.
    h1.ok("stop vault");
    soon(|| {
        let told = h1.run("network trace web vault --port 80");
        ensure!(told.status.code() == Some(1), "{told}");
        let why = "no task of ways/vault is ready";
        ensure!(told.stdout.contains(why), "{told}");
        Ok(())
    });
}

#[test]
fn network_drops_tells_what_firewalls_drop() {
    let Some(cluster) = Cluster::of(2, "walled", SHOP) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| reaches(h2, "web", "vault"));
    let packets = |rule: &str| {
        let rows = h1.ok("network drops vault --format json").json_lines();
        let row = rows
            .iter()
            .find(|r| r["rule"] == rule && r["direction"] == "ingress");
        row.and_then(|r| r["packets"].as_u64()).unwrap_or_default()
    };
    soon(|| {
        ensure!(packets("ingress[0]") > 0, "nothing is accepted");
        Ok(())
    });
    let before = packets("default");
    let mut follow = h1.start("network drops --follow walled/vault");
    soon(|| {
        assert_eq!(get(h1, "db", "vault", 80), "");
        let told = follow.stdout();
        ensure!(
            told.contains("walled-vault-1  ingress default dropped tcp from 10."),
            "{told:?}"
        );
        Ok(())
    });
    assert!(follow.is_running());
    follow.interrupt();
    follow.end();
    assert!(packets("default") > before);
    h1.ok("network drops")
        .says(["DIRECTION", "walled-vault-1", "ingress[0]", "accept"]);
    h1.fails(1, "network drops db")
        .says(["no container of db runs with a firewall"]);
    assert!(
        h2.log().contains("ingress default dropped tcp"),
        "{}",
        h2.log()
    );
}

/// All of ours in the network namespaces of a host and of its containers.
fn left(node: &Node) -> String {
    let look =
        "nft list tables; ip -o link; ip rule; ip route show table all; ip neigh show proto 134";
    let mut all = node.program("sh", ["-c", look]).stdout;
    let containers = node
        .host
        .engine()
        .api("GET", "/containers/json", None)
        .unwrap();
    for container in containers.as_array().unwrap() {
        let path = format!("/containers/{}/json", text(&container["Id"]));
        let pid = node.host.engine().api("GET", &path, None).unwrap()["State"]["Pid"].to_string();
        let args = ["-t", pid.as_str(), "-n", "nft", "list", "tables"];
        all.push_str(&node.program("nsenter", args).stdout);
    }
    let ours = |line: &&str| line.contains("wharfie") || line.contains("wvx");
    let lines: Vec<&str> = all.lines().filter(ours).collect();
    lines.join("\n")
}

#[test]
fn network_prune_leaves_nothing() {
    let Some(cluster) = Cluster::of(2, "traces", SHOP) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| reaches(h2, "web", "vault"));
    let there = left(h2);
    for part in ["wvx", "wharfie_firewall", "wharfie_vip"] {
        assert!(there.contains(part), "{there}");
    }
    // What is wanted stays.
    h1.ok("network prune --all");
    reaches(h1, "web", "vault").unwrap();
    // A network that is left over goes.
    let body = json!({"Name": "stale", "Labels": {"io.wharfie.resolver": "10.250.0.1"}});
    h2.host
        .engine()
        .api("POST", "/networks/create", Some(&body))
        .unwrap();
    h1.ok("network ls").says(["left over"]);
    h1.ok("--dry-run network prune --node h2")
        .says(["h2: remove network stale"]);
    h1.ok("network prune --node h2")
        .says(["h2: removed network stale"]);
    let quiet = h1.ok("network prune --node h2");
    quiet.says(["nothing is left over"]);

    h2.end_agent();
    h2.fails(2, "network prune")
        .says(["no agent runs here", "--force"]);
    let host = format!("unix://{}", h2.host.engine().socket().display());
    let planned = h2.ok(["-H", &host, "--dry-run", "network", "prune", "--force"]);
    planned.says([
        "device wvx",
        "table inet wharfie_firewall of container traces-vault-1",
    ]);
    assert_eq!(left(h2), there);
    h2.ok(["-H", &host, "network", "prune", "--force"]).says([
        "removed device wvx",
        "kept network traces_front: containers are on it: traces-vault-1",
    ]);
    assert_eq!(left(h2), "");
    // An agent that comes back puts all of it there again.
    h2.start_agent();
    soon(|| reaches(h1, "web", "vault"));
    // And what is taken down leaves nothing by itself.
    h1.ok("down -t 0");
    for node in [h1, h2] {
        soon(|| {
            let left = left(node);
            ensure!(left.is_empty(), "{}: {left}", node.name());
            Ok(())
        });
    }
}
