//! What networks cannot be or do is said, with who is in the way.

use anyhow::ensure;

use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};

const BASE: &str = "
x-base: &base {image: busybox, init: true, stop_grace_period: 0s, command: sleep 1000}
services:
  a: {<<: *base, deploy: {placement: {constraints: [node.hostname == h1]}}}
  b: {<<: *base, deploy: {placement: {constraints: [node.hostname == h2]}}}
";

/// A file with these services and one subnet for all.
fn with_subnet(subnet: &str) -> String {
    format!("{BASE}networks: {{default: {{ipam: {{config: [{{subnet: {subnet}}}]}}}}}}\n")
}

fn pings(node: &Node, from: &str, to: &str) -> anyhow::Result<()> {
    let said = node.run(["exec", "-T", from, "ping", "-c", "1", "-W", "2", to]);
    ensure!(said.status.success(), "{said}");
    Ok(())
}

#[test]
fn network_that_cannot_be_is_refused_with_the_reason() {
    let Some(cluster) = Cluster::of(2, "bad", &with_subnet("10.66.0.0/16")) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    // A route of the other host is in the way.
    let route = [
        "route",
        "add",
        "10.66.7.0/24",
        "dev",
        h2.host.machine().interface(),
    ];
    h2.program("ip", &route[..]).has_code(0);
    soon(|| {
        let known = h1.ask("/v1/nodes")?.to_string();
        ensure!(known.contains("10.66.7.0/24"), "{known}");
        Ok(())
    });
    h1.fails(1, "up -d").says([
        "network bad_default: subnet 10.66.0.0/16 overlaps the route 10.66.7.0/24 dev",
        "on h2; choose another subnet",
    ]);
    h2.program("ip", "route del 10.66.7.0/24").has_code(0);
    assert!(h1.names().is_empty());
    h1.ok("network ls -q --filter scope=cluster")
        .never_says("bad_default");

    // So small that there is one part only: the second host has none.
    h1.write("compose.yaml", &with_subnet("10.67.0.0/29"));
    let refused = h1.run("up -d");
    assert!(!refused.status.success(), "{refused}");
    refused.says([
        "network bad_default: all",
        "of 10.67.0.0/29 are taken by nodes (h",
    ]);
    soon(|| {
        let said = h1.ok("status");
        ensure!(
            said.stdout.contains("of 10.67.0.0/29 are taken by nodes"),
            "{said}"
        );
        Ok(())
    });
    let quiet = h1.fails(1, "status --quiet");
    assert!(!quiet.stderr.is_empty());
    let found = h2.ok("network inspect bad_default").json();
    assert!(
        found[0]["Faults"]
            .to_string()
            .contains("are taken by nodes"),
        "{found:#}"
    );
    h1.ok("down -t 0");
    soon(|| {
        let said = h1.ok("status");
        ensure!(said.stdout.contains("All is well"), "{said}");
        Ok(())
    });
}

#[test]
fn network_faults_of_a_node_are_told_until_they_are_over() {
    let Some(cluster) = Cluster::of(2, "vx", BASE) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h1.ok("up -d");
    soon(|| pings(h1, "a", "b"));
    let row = h1
        .ok("network ls --format json --filter name=vx_default")
        .json();
    let vni = row["VNI"].as_u64().unwrap();
    // Somebody else's device takes the place of ours on one host.
    let script = format!(
        "ip link del $(ip -o link | grep -o 'wvx[0-9a-f]*' | head -1) && \
         ip link add foreign0 type vxlan id {vni} dstport 4789 nolearning && ip link set foreign0 up"
    );
    soon(|| {
        // The agent may be quicker.
        let done = h2.program("sh", ["-c", &script]);
        ensure!(done.status.success(), "{done}");
        Ok(())
    });
    soon(|| {
        let said = h1.ok("status");
        let why = "node h2: network vx_default: the VXLAN device foreign0";
        ensure!(said.stdout.contains(why), "{said}");
        Ok(())
    });
    let faults = h1.ok("network inspect vx_default").json()[0]["Faults"].to_string();
    assert!(faults.contains("foreign0"), "{faults}");
    h1.fails(1, "network trace a b")
        .says(["node h1 to h2", "node h2 says", "foreign0"]);
    // What runs there goes on, and reaches what is there too.
    h2.ok("up -d --scale b=2");
    assert!(h2.ok("ps").stdout.contains("vx-b-1"));
    soon(|| pings(h2, "b", "b"));
    h2.program("ip", "link del foreign0").has_code(0);
    soon(|| pings(h1, "a", "1.b"));
    soon(|| {
        let said = h1.ok("status");
        ensure!(said.stdout.contains("All is well"), "{said}");
        Ok(())
    });
    h1.ok("network trace a b");
}

#[test]
fn network_addresses_that_cannot_be_had_are_told() {
    let file = "
services:
  a: {image: busybox, init: true, stop_grace_period: 0s, command: sleep 1000,
      deploy: {placement: {constraints: [node.hostname == h1]}},
      networks: {default: {ipv4_address: 10.69.0.9}}}
  b: {image: busybox, init: true, stop_grace_period: 0s, command: sleep 1000,
      deploy: {placement: {constraints: [node.hostname == h2]}},
      networks: {default: {ipv4_address: 10.69.0.9}}}
networks: {default: {ipam: {config: [{subnet: 10.69.0.0/16}]}}}
";
    let Some(cluster) = Cluster::of(2, "fixed", file) else {
        return;
    };
    let h2 = cluster.node(2);
    let why = "fixed/b/1 waits: 10.69.0.9 on network fixed_default is fixed/a/1's";
    h2.fails(1, "up -d").says([why]);
    soon(|| {
        let said = h2.ok("status");
        ensure!(said.stdout.contains(why), "{said}");
        Ok(())
    });
    assert!(h2.containers().is_empty(), "{:?}", h2.containers());
    // One without tasks needs no address: the other has it.
    h2.ok("up -d --scale a=0");
    let states = |node: &Node| {
        node.containers()
            .iter()
            .map(|c| text(&c["State"]))
            .collect()
    };
    soon(|| {
        let all: [Vec<String>; 2] = [states(cluster.node(1)), states(h2)];
        ensure!(all == [vec![], vec!["running".to_owned()]], "{all:?}");
        Ok(())
    });
    h2.ok("status");
}

#[test]
fn network_rule_for_an_unknown_service_has_its_place() {
    let file = "
services:
  a:
    image: busybox
    command: sleep 1000
    x-wharfie:
      firewall:
        ingress:
          - {protocol: tcp, ports: [80], service: nobody}
";
    let Some(cluster) = Cluster::of(1, "rule", file) else {
        return;
    };
    let h1 = cluster.node(1);
    let refused = h1.fails(2, "up -d");
    refused.says(["compose.yaml:9:", "nobody"]);
    assert!(h1.names().is_empty());
}
