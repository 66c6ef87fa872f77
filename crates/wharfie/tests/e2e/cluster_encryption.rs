//! What containers on different hosts say to each other is for nobody between.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wharfie_lab::Capture;
use wharfie_tunnel::{Client, PublicKey};

use crate::cluster::{Cluster, Node};
use crate::stack::{agent_of, soon, text};

const SECRET: &str = "nobody-is-to-read-this-word";

const PAIR: &str = "
x-base: &base
  image: busybox
  init: true
  stop_grace_period: 0s
services:
  web:
    <<: *base
    hostname: nobody-is-to-read-this-word
    command: [sh, -c, 'mkdir /w; hostname >/w/index.html; exec httpd -f -h /w']
    deploy: {placement: {constraints: [node.hostname == h1]}}
  client: {<<: *base, command: sleep 1000, deploy: {placement: {constraints: [node.hostname == h2]}}}
";

/// Two UDP ports, as they stand in a header.
fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

/// VXLAN packets of the stack's network (RFC 7348, 5), in hexadecimal.
fn clear(node: &Node, capture: &Capture) -> Vec<String> {
    let found = node.host.engine().api("GET", "/networks", None).unwrap();
    let options = found.as_array().into_iter().flatten();
    let bridge = options.filter_map(|n| n["Options"]["com.docker.network.bridge.name"].as_str());
    let vni = bridge.filter_map(|b| b.strip_prefix("wbr")).next().unwrap();
    let vni = u32::from_str_radix(vni, 16).unwrap().to_be_bytes();
    let packets = capture.those_with(&[8, 0, 0, 0, vni[1], vni[2], vni[3], 0]);
    let hex = |packet: &Vec<u8>| {
        packet
            .iter()
            .take(110)
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    packets.iter().map(hex).collect()
}

/// The client, on the second host, asks the server on the first.
fn asks(node: &Node) -> Result<()> {
    let ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 4 nc -w 2 web 80 | tail -n 1";
    let said = node.run(["exec", "-T", "client", "sh", "-c", ask]);
    ensure!(said.stdout.trim() == SECRET, "{said}");
    Ok(())
}

/// The same by address and without any agent.
fn asks_alone(server: &Node, client: &Node) -> Result<()> {
    let of = |node: &Node, service: &str| {
        let target = format!("/containers/sealed-{service}-1/json");
        node.host.engine().api("GET", &target, None)
    };
    let network = &of(server, "web")?["NetworkSettings"]["Networks"]["sealed_default"];
    let address = network["IPAddress"].as_str().unwrap_or_default();
    let pid = of(client, "client")?["State"]["Pid"].to_string();
    let ask =
        format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 {address} 80 | tail -n 1");
    let mut command = std::process::Command::new("nsenter");
    command.args(["-t", &pid, "-n", "sh", "-c", &ask]);
    let said = command.output()?;
    ensure!(
        String::from_utf8_lossy(&said.stdout).trim() == SECRET,
        "{said:?}"
    );
    Ok(())
}

fn set(cluster: &Cluster, settings: &str) {
    for node in cluster.nodes() {
        node.write("wharfie.toml", settings);
        node.ok("reload");
    }
}

/// Gives a host another address.
fn give(node: &Node, address: &str) {
    let add = format!("address add {address}/32 dev lo");
    node.program("ip", add.as_str()).has_code(0);
}

/// The tunnel of a node.
fn tunnel(node: &Node) -> Client {
    let [(_, socket), _] = agent_of(&node.host);
    Client::at(&socket.with_extension("tunnel"))
}

/// The address that a node says packets come from.
fn underlay(node: &Node) -> String {
    let nodes = node.ask("/v1/nodes").unwrap_or_default();
    let nodes = nodes.as_array().into_iter().flatten();
    let mut own = nodes.filter(|n| n["name"] == node.name());
    own.next()
        .map_or_else(String::new, |n| text(&n["report"]["underlay"]))
}

fn key(node: &Node) -> Result<PublicKey> {
    let state = tunnel(node).get().context("no tunnel")?;
    let key = state.private_key.context("it has no key")?;
    Ok(key.public())
}

#[test]
fn nobody_between_reads_what_containers_say() {
    let Some(cluster) = Cluster::apart(2, "sealed", PAIR) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    // All virtual machines of one kind have an address that leads to none of the others, and that comes
    // before theirs on the network between them.
    for node in cluster.nodes() {
        give(node, "10.0.2.15");
    }
    h2.join(h1);
    cluster.is_whole();
    set(&cluster, "network-encrypt = \"always\"\n");
    let capture = cluster.lab().capture().unwrap();
    h1.ok("up -d");
    soon(|| asks(h2));
    for node in cluster.nodes() {
        node.ok("network trace client web").says(["encrypted, to"]);
    }
    assert!(
        capture.with(&ports(4790, 4790)) > 0,
        "nothing was encrypted"
    );
    assert!(
        clear(h1, &capture).is_empty(),
        "in clear: {:#?}",
        clear(h1, &capture)
    );
    assert_eq!(capture.with(SECRET.as_bytes()), 0, "it was to be read");

    // Without the agents it goes on.
    cluster.nodes().iter().for_each(Node::kill_agent);
    asks_alone(h1, h2).unwrap();
    let keys = [h1, h2].map(|node| key(node).unwrap());
    cluster.nodes().iter().for_each(Node::start_agent);
    cluster.is_whole();
    soon(|| asks(h2));
    assert_eq!(
        [h1, h2].map(|node| key(node).unwrap()),
        keys,
        "they were taken over"
    );

    assert!(
        clear(h1, &capture).is_empty(),
        "in clear: {:#?}",
        clear(h1, &capture)
    );

    // A tunnel that ends is made anew, and meanwhile nothing goes in clear.
    tunnel(h1).stop().unwrap();
    soon(|| asks(h2));
    assert!(
        clear(h1, &capture).is_empty(),
        "in clear: {:#?}",
        clear(h1, &capture)
    );
    assert_eq!(capture.with(SECRET.as_bytes()), 0, "it was to be read");

    let usual = underlay(h2);
    // One that is told to send from an address that it does not have says so.
    let settings = "network-encrypt = \"always\"\nnetwork-address = \"192.0.2.99\"\n";
    h2.write("wharfie.toml", settings);
    h2.ok("reload");
    let why = "`network-address` is 192.0.2.99, which is no address of this host";
    soon(|| {
        let said = h1.run("status");
        ensure!(said.stdout.contains(why), "{said}");
        Ok(())
    });
    h1.fails(1, "network trace web client")
        .says(["node h2 says", why]);

    // A host moves to another address, and back: its key stands for the new one.
    let moved = "192.0.2.1";
    give(h2, moved);
    let via = ["route", "add", moved, "via", &usual];
    h1.program("ip", &via[..]).has_code(0);
    for (at, settings) in [
        (moved, &format!("network-address = {moved:?}\n")[..]),
        (&usual, ""),
    ] {
        h2.write(
            "wharfie.toml",
            &format!("network-encrypt = \"always\"\n{settings}"),
        );
        h2.ok("reload");
        soon(|| {
            ensure!(underlay(h2) == at, "it is at {}", underlay(h2));
            let peers = tunnel(h1).get()?.peers;
            let allowed: Vec<String> = peers
                .iter()
                .flat_map(|p| &p.allowed)
                .map(ToString::to_string)
                .collect();
            ensure!(allowed.iter().any(|a| a.starts_with(at)), "{allowed:?}");
            asks(h2)
        });
    }
    assert!(
        clear(h1, &capture).is_empty(),
        "in clear: {:#?}",
        clear(h1, &capture)
    );

    // One that will not is not spoken with.
    h1.write("wharfie.toml", "network-encrypt = \"never\"\n");
    h1.ok("reload");
    soon(|| {
        ensure!(asks(h2).is_err(), "it is still spoken with");
        let log = h2.log();
        ensure!(log.contains("that one has no key for it"), "{log}");
        Ok(())
    });
    // Whoever is asked says so of both ways.
    for node in cluster.nodes() {
        for (from, to) in [("client", "web"), ("web", "client")] {
            let why = "h2 demands encryption (`network-encrypt`), and h1 has no key for it";
            node.fails(1, ["network", "trace", from, to]).says([why]);
        }
    }
    assert!(
        clear(h1, &capture).is_empty(),
        "in clear: {:#?}",
        clear(h1, &capture)
    );

    // This is how it would be seen.
    set(&cluster, "network-encrypt = \"never\"\n");
    soon(|| asks(h2));
    assert!(!clear(h1, &capture).is_empty() && capture.with(SECRET.as_bytes()) > 0);
    assert!(tunnel(h1).get().is_err(), "nobody needs it any more");
}

#[test]
fn connections_outlive_keys() {
    let Some(cluster) = Cluster::of(2, "keys", PAIR) else {
        return;
    };
    let [h1, h2] = [1, 2].map(|n| cluster.node(n));
    set(
        &cluster,
        "network-encrypt = \"always\"\nnetwork-key-lifetime = \"4s\"\n",
    );
    h1.ok("up -d");
    soon(|| asks(h2));
    let before = [h1, h2].map(|node| key(node).unwrap());
    let listen = "sleep 1000 | nc -l -p 9000 >/w/heard";
    h1.ok(["exec", "-T", "-d", "web", "sh", "-c", listen]);
    let lines = 150;
    let talk = format!(
        "i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); sleep 0.1; done | nc web 9000"
    );
    h2.ok(["exec", "-T", "-d", "client", "sh", "-c", talk.as_str()]);
    wharfie_lab::eventually(Duration::from_secs(90), || {
        let heard = h1.run(["exec", "-T", "web", "cat", "/w/heard"]).stdout;
        let whole = (0..lines).all(|n| heard.lines().nth(n) == Some(&format!("line {n}")));
        ensure!(whole, "{} lines were heard", heard.lines().count());
        Ok(())
    })
    .unwrap();
    let after = [h1, h2].map(|node| key(node).unwrap());
    assert!(
        before[0] != after[0] && before[1] != after[1],
        "keys are the same"
    );
}
