//! Networks over several hosts mean the same as on one.

use std::collections::BTreeSet;
use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};

use crate::asker::{Echo, UDP, socket_in};
use crate::cluster::{Cluster, Node};
use crate::stack::{soon, text};

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
    seen_address(node, name, network).unwrap()
}

/// The same of one that may be made anew just now.
fn seen_address(node: &Node, name: &str, network: &str) -> Result<String> {
    let path = format!("/containers/{}-{name}/json", node.stack_name());
    let found = node.host.engine().api("GET", &path, None)?;
    let network = &found["NetworkSettings"]["Networks"][network];
    Ok(network["IPAddress"].as_str().unwrap_or_default().to_owned())
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
    // One that goes on asking by UDP from one port meets another task when its own is not there.
    let tasks = [1, 2, 3].map(|n| format!("vips-web-{n}"));
    let each = |n: &String| {
        cluster
            .nodes()
            .iter()
            .find_map(|h| Echo::begin(h, n, UDP).ok())
    };
    let echoes: Vec<Echo> = tasks.iter().filter_map(each).collect();
    assert_eq!(echoes.len(), 3);
    let at = h1.run(["exec", "-T", "client", "ping", "-c", "1", "web"]);
    let at = at.stdout.split(['(', ')']).nth(1).unwrap().to_owned();
    let client = client_of(h1);
    let talk = soon(|| {
        let socket = socket_in(h1, &client)?;
        ensure!(answer(&socket, &at)? != tasks[0], "this one stays");
        Ok(socket)
    });
    h2.ok("up -d --scale web=1");
    soon(|| {
        let met = met(h1);
        ensure!(met.len() == 1, "{met:?}");
        Ok(())
    });
    soon(|| {
        ensure!(answer(&talk, &at)? == tasks[0], "another is gone");
        Ok(())
    });
}

/// The container of the client on a node.
fn client_of(node: &Node) -> String {
    let all = node.containers();
    let names = all.iter().map(|c| text(&c["Names"][0]));
    let mut clients = names.filter(|n| n.contains("-client-"));
    clients.next().unwrap().trim_start_matches('/').to_owned()
}

/// Which task answers by UDP.
fn answer(socket: &UdpSocket, at: &str) -> Result<String> {
    let at: std::net::Ipv4Addr = at.parse()?;
    socket.send_to(b"who", (at.to_ipv6_mapped(), UDP))?;
    let mut said = [0; 100];
    let (length, _) = socket.recv_from(&mut said)?;
    let said = String::from_utf8_lossy(&said[..length]);
    let task = said.split_whitespace().nth(1).context("it says nothing")?;
    Ok(task.to_owned())
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

const ALONE: &str = "
services:
  one: {image: busybox, init: true, stop_grace_period: 0s, command: sleep 1000, deploy: {placement: {constraints: [node.hostname == NODE]}}}
";

/// The subnet of a stack's default network on a node's Engine.
fn subnet(node: &Node, stack: &str) -> Result<String> {
    let path = format!("/networks/{stack}_default");
    let found = node.host.engine().api("GET", &path, None)?;
    let subnet = found["IPAM"]["Config"][0]["Subnet"].as_str();
    Ok(subnet.unwrap_or_default().to_owned())
}

/// What both sides of a cut choose for themselves may be the same: then one of them changes.
#[test]
fn networks_that_chose_the_same_are_parted_after_a_cut() {
    let Some(cluster) = Cluster::of(2, "parted", ALONE) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    for node in [h1, h2] {
        node.write("wharfie.toml", "network-pool = \"10.200.0.0/16\"\n");
        node.ok("reload");
        node.write(
            "compose.yaml",
            &ALONE.replace(
                "NODE",
                &format!("h{}", if std::ptr::eq(node, h1) { 1 } else { 2 }),
            ),
        );
    }
    // Four subnets are in the pool. Each side is alone with its half, and brings up stacks until it has
    // chosen what the other has.
    h1.host.cut().unwrap();
    h1.sees(h2, "down");
    h2.sees(h1, "down");
    h2.ok("-p theirs up -d");
    let theirs = subnet(h2, "theirs").unwrap();
    let names = ["a", "b", "c", "d"].map(|n| format!("parted-{n}"));
    let same = names.iter().find(|name| {
        h1.ok(format!("-p {name} up -d").as_str());
        subnet(h1, name).unwrap() == theirs
    });
    let same = same.unwrap();
    for name in names.iter().filter(|name| *name != same) {
        h1.run(format!("-p {name} down -t 0").as_str());
    }
    h1.host.heal().unwrap();
    cluster.is_whole();
    soon(|| {
        let (ours, theirs) = (subnet(h1, same)?, subnet(h2, "theirs")?);
        ensure!(!ours.is_empty() && ours != theirs, "{ours} and {theirs}");
        for (node, stack) in [(h1, same.as_str()), (h2, "theirs")] {
            let ps = node.run(format!("-p {stack} ps --format json").as_str());
            ensure!(ps.stdout.contains("\"running\""), "{}", ps.stdout);
        }
        Ok(())
    });
}

/// Two nodes that could not see each other gave out the same part of a network: each then has its own.
#[test]
fn addresses_that_two_nodes_gave_out_are_given_anew() {
    // Three parts each, so that both choose the same of some.
    let nets = 0..8;
    let defined: String = nets
        .clone()
        .map(|n| format!("  n{n}: {{ipam: {{config: [{{subnet: 10.77.{n}.0/24}}]}}}}\n"))
        .collect();
    let on: Vec<String> = nets.clone().map(|n| format!("n{n}")).collect();
    let service = |host: &str| {
        format!(
            "{{image: busybox, init: true, stop_grace_period: 0s, command: sleep 1000, networks: [{}], \
             deploy: {{placement: {{constraints: [node.hostname == {host}]}}}}}}",
            on.join(", ")
        )
    };
    let compose = format!(
        "services:\n  a: {}\n  b: {}\nnetworks:\n{defined}",
        service("h1"),
        service("h2")
    );
    let Some(cluster) = Cluster::of(2, "given", &compose) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    // The networks are there, and nobody is on them.
    h1.ok("node drain h1 h2");
    h1.ok("up -d")
        .says(["task a/1 waits: ", "task b/1 waits: "]);
    h1.host.cut().unwrap();
    h1.sees(h2, "down");
    h2.sees(h1, "down");
    let runs = |node: &Node, service: &str| {
        soon(|| {
            let ps = node.run("ps --format json").stdout;
            let line = ps
                .lines()
                .find(|l| l.contains(&format!("given-{service}-1")));
            ensure!(line.is_some_and(|l| l.contains("\"running\"")), "{ps}");
            Ok(())
        });
    };
    for (node, name, service) in [(h1, "h1", "a"), (h2, "h2", "b")] {
        node.ok(format!("node undrain {name}").as_str());
        runs(node, service);
    }
    h1.host.heal().unwrap();
    cluster.is_whole();
    soon(|| {
        for n in nets.clone() {
            let network = format!("given_n{n}");
            let a = seen_address(h1, "a-1", &network)?;
            let b = seen_address(h2, "b-1", &network)?;
            ensure!(!a.is_empty() && a != b, "{network}: {a} and {b}");
        }
        // By name, and by each of the networks: a container may be made anew meanwhile.
        let each = nets
            .clone()
            .map(|n| seen_address(h2, "b-1", &format!("given_n{n}")));
        for to in each.chain([Ok("b".to_owned())]) {
            let to = to?;
            let ping = h1.run(["exec", "-T", "a", "ping", "-c", "1", "-W", "2", to.as_str()]);
            ensure!(
                ping.stdout.contains("1 packets received"),
                "{to}: {}",
                ping.stdout
            );
        }
        Ok(())
    });
}

const SIX: &str = "
x-base: &base
  image: busybox
  init: true
  stop_grace_period: 0s
  command: [sh, -c, 'mkdir /w; hostname >/w/index.html; exec httpd -f -h /w -p [::]:80']
services:
  web: {<<: *base, hostname: on-web, deploy: {placement: {constraints: [node.hostname == h1]}}}
  db: {<<: *base, hostname: on-db, deploy: {placement: {constraints: [node.hostname == h2]}}}
networks: {default: {enable_ipv6: true}}
";

/// The IPv6 address that a name has for a container, as its own resolver says.
fn six(node: &Node, from: &str, name: &str) -> String {
    let said = node.run(["exec", "-T", from, "nslookup", "-type=AAAA", name]);
    let addresses = said
        .stdout
        .lines()
        .filter_map(|l| l.strip_prefix("Address: "));
    let mut found = addresses.filter(|a| a.starts_with("fd")).map(str::to_owned);
    found.next().unwrap_or_default()
}

#[test]
fn networks_of_ipv6_are_as_those_of_ipv4() {
    let Some(cluster) = Cluster::of(2, "six", SIX) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    h1.ok("up -d");
    // The name leads to the service's address, and a task's name to its own.
    soon(|| {
        for name in ["db", "1.db"] {
            let address = six(h1, "web", name);
            ensure!(!address.is_empty(), "{name} has no IPv6 address");
            says(h1, "web", &format!("[{address}]"), "on-db")?;
        }
        says(h1, "web", "db", "on-db")
    });
    assert_ne!(six(h1, "web", "db"), six(h1, "web", "1.db"));
    soon(|| says(h2, "db", &format!("[{}]", six(h2, "db", "web")), "on-web"));
}

const OWNER: &str = "
services:
  api:
    image: busybox
    init: true
    stop_grace_period: 0s
    hostname: on-api
    command: [sh, -c, 'mkdir /w; hostname >/w/index.html; exec httpd -f -h /w']
    networks: [backbone]
    deploy: {placement: {constraints: [node.hostname == h1]}}
networks: {backbone: {name: backbone, attachable: true}}
";

const GUEST: &str = "
services:
  web:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: sleep 1000
    networks: [backbone]
    deploy: {placement: {constraints: [node.hostname == HOST]}}
networks: {backbone: {external: true}}
";

/// A stack uses a network of another one, on hosts where the other is not; and a host that joins later,
/// or leaves.
#[test]
fn a_network_of_another_stack_is_there_on_every_host() {
    let Some(cluster) = Cluster::apart(3, "owner", OWNER) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    h2.join(h1);
    h1.sees(h2, "up");
    h2.sees(h1, "up");
    h1.ok("up -d");
    h2.write("guest.yaml", &GUEST.replace("HOST", "h2"));
    h2.ok("-p guest -f guest.yaml up -d");
    let get = |node: &Node, name: &str| {
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {name} 80 | tail -n 1");
        let said = node.run(["-p", "guest", "exec", "-T", "web", "sh", "-c", ask.as_str()]);
        said.stdout.trim().to_owned()
    };
    for name in ["api", "api.owner", "api.owner.internal"] {
        soon(|| {
            let said = get(h2, name);
            ensure!(said == "on-api", "{name}: {said:?}");
            Ok(())
        });
    }

    h3.join(h1);
    cluster.is_whole();
    h2.write("guest.yaml", &GUEST.replace("HOST", "h3"));
    h2.ok("-p guest -f guest.yaml up -d");
    soon(|| {
        let said = get(h2, "api");
        ensure!(said == "on-api", "{said:?}");
        Ok(())
    });
    // Its stack may end while others are on it: it stays for them, and for when it comes again.
    h1.ok("down -t 0")
        .says(["network backbone stays: containers that are not of this stack are on it"]);
    h1.ok("network ls").says(["backbone"]);
    h1.ok("up -d");
    soon(|| {
        let said = get(h2, "api");
        ensure!(said == "on-api", "{said:?}");
        Ok(())
    });
    // Where nobody is on it any longer it may stay; where its stack ends it goes.
    h2.ok("-p guest -f guest.yaml down -t 0");
    h1.ok("down -t 0");
    for node in cluster.nodes() {
        soon(|| {
            let networks = node.host.engine().api("GET", "/networks", None)?;
            ensure!(!networks.to_string().contains("backbone"), "{networks}");
            Ok(())
        });
    }
    // A network that nobody has is refused as before.
    h2.fails(1, "-p guest -f guest.yaml up -d")
        .says(["network backbone is declared as external, but it does not exist"]);
}
