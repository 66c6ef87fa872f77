//! Services have addresses of IPv6 on the network around.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use wharfie_lab::{EngineKind, Lab, Machine};

use crate::asker::{Echo, UDP, serves, who};
use crate::cluster::{Cluster, Node};
use crate::cluster_dns::{It, is_installed};
use crate::director::{docker, line, range};
use crate::stack::soon;

/// `old` is on a network without IPv6.
const TOOLS: &str = concat!(
    serves!("exec httpd -f -h /w -p [::]:8080"),
    "services:
  jenkins:
    <<: *serve
    hostname: jenkins
  artifactory:
    <<: *serve
    hostname: artifactory
    deploy: {replicas: 1, placement: {constraints: [node.hostname != h1]}}
  each:
    <<: *serve
    deploy: {mode: global}
  old:
    <<: *serve
    hostname: old
    networks: [four]
networks:
  default: {enable_ipv6: true}
  four:
"
);

/// What a machine has on the network around.
fn six(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number)
}

/// Gives a machine an address of IPv6 there.
fn has_six(machine: &Machine, number: u16) -> Ipv6Addr {
    let own = six(number);
    let words = ["-6", "addr", "add", &format!("{own}/64"), "dev"];
    machine
        .run(
            "ip",
            words.into_iter().chain([machine.interface(), "nodad"]),
        )
        .unwrap();
    own
}

/// The addresses of a service: IPv4, if it has one, and IPv6.
fn addresses(node: &Node, owner: &str) -> Result<(Option<IpAddr>, Option<IpAddr>)> {
    let line = line(node, owner)?;
    let all = line["Addresses"].as_array().context("no addresses")?;
    let all = all.iter().filter_map(|a| a.as_str()?.parse().ok());
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = all.partition(IpAddr::is_ipv4);
    Ok((v4.first().copied(), v6.first().copied()))
}

fn v6_of(node: &Node, owner: &str) -> Result<IpAddr> {
    let (_, v6) = addresses(node, owner)?;
    v6.with_context(|| format!("{owner} has no address of IPv6"))
}

/// As a URL has it.
fn shown(at: IpAddr) -> String {
    SocketAddr::new(at, 8080).to_string()
}

/// Who answers by TCP, and who he says asks.
fn tcp(from: &Machine, at: IpAddr) -> Result<(String, String)> {
    let url = format!("http://{}/cgi-bin/who", shown(at));
    let (status, said) = from.http_get(&url)?;
    ensure!(status == 200, "{status}: {said}");
    let (asker, name) = said.trim().split_once(' ').context("nobody answers")?;
    let asker = asker.trim_matches(['[', ']']);
    Ok((name.to_owned(), asker.to_owned()))
}

/// Who asks by UDP, as the server says.
pub(crate) fn udp(from: &Machine, at: impl Into<IpAddr>, port: u16) -> Result<String> {
    let at = at.into();
    from.inside(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let to = match at {
            IpAddr::V4(at) => at.to_ipv6_mapped(),
            IpAddr::V6(at) => at,
        };
        socket.send_to(b"who", (to, port))?;
        let mut answer = [0; 100];
        let (length, by) = socket.recv_from(&mut answer)?;
        ensure!(by.ip() == to, "{by} answers for {at}");
        let said = String::from_utf8_lossy(&answer[..length]);
        let asker = said.split_whitespace().next();
        Ok(asker.unwrap_or_default().to_owned())
    })?
}

fn pings(from: &Machine, at: IpAddr) {
    let words = ["ping6", "-c1", "-W2", &at.to_string()];
    from.run("busybox", words).unwrap();
}

#[test]
fn services_have_addresses_of_ipv6_that_follow_them() {
    both_families(EngineKind::Debian);
}

/// This one filters IPv6 as well.
#[test]
fn services_have_addresses_of_ipv6_on_engine_28() {
    both_families(EngineKind::Sid28);
}

/// Both families: TCP, UDP, pings, names, the death of a host.
fn both_families(kind: EngineKind) {
    if !is_installed() {
        return;
    }
    let builder = Lab::builder().hosts(3).engine(kind);
    let builder = builder.client("user").client("it");
    let Some(cluster) = Cluster::with(builder, "toolbox", TOOLS) else {
        return;
    };
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.node(n));
    let user = cluster.lab().client("user").unwrap();
    for (node, number) in cluster.nodes().iter().zip(1..) {
        has_six(node.host.machine(), number);
    }
    let own = has_six(&user, 99);
    h1.ok(format!(
        "director init --zone toolbox.example.org --range {} --range {}-{}",
        range(h1),
        six(0x150),
        six(0x169)
    )
    .as_str());
    h1.ok("up -d");
    let owners = ["jenkins", "artifactory"].map(|n| format!("toolbox/{n}"));
    let at = [0, 1].map(|i| soon(|| v6_of(h3, &owners[i])));
    // Somebody whose network has no IPv6 gets none, and it is said why.
    soon(|| {
        let (v4, v6) = addresses(h2, "toolbox/old")?;
        ensure!(v6.is_none(), "{v6:?}");
        who(&user, v4.context("no address")?, 8080)
    });
    h2.ok("director status")
        .says(["toolbox/old: no IPv6 address: its network has no IPv6 (`enable_ipv6: true`)"]);
    h1.write(
        "asks.yaml",
        &format!(
            "services: {{web: {{image: busybox, command: sleep 1000, x-wharfie: {{address: '{}'}}}}}}\n",
            six(0x160)
        ),
    );
    h1.fails(1, "-p asks -f asks.yaml up -d")
        .says(["leads nowhere: its network has no IPv6"]);

    for (name, at) in ["jenkins", "artifactory"].iter().zip(at) {
        let said = soon(|| tcp(&user, at));
        assert_eq!(said, ((*name).to_owned(), own.to_string()));
        pings(&user, at);
        // From the hosts too, whoever holds it, and from other containers, also from itself.
        for node in [h1, h2, h3] {
            soon(|| tcp(&node.host, at));
        }
        h1.ok(format!("exec jenkins wget -qO- http://{}/cgi-bin/who", shown(at)).as_str())
            .says([*name]);
        h1.ok(format!(
            "exec artifactory wget -qO- http://{}/cgi-bin/who",
            shown(at)
        )
        .as_str())
            .says([*name]);
        // By IPv4 it is the same service.
        let (v4, _) = addresses(h1, &format!("toolbox/{name}")).unwrap();
        let (said, _) = soon(|| who(&user, v4.context("no address")?, 8080));
        assert_eq!(said, *name);
    }
    // Tasks on all hosts take turns, and each sees who asks.
    let each = soon(|| v6_of(h1, "toolbox/each"));
    let mut answered = BTreeSet::new();
    soon(|| {
        let (name, asker) = tcp(&user, each)?;
        assert_eq!(asker, own.to_string());
        answered.insert(name);
        ensure!(answered.len() == 3, "{answered:?}");
        Ok(())
    });
    let held = || {
        let line = line(h1, &owners[1])?;
        let name = line["Node"].as_str().context("nobody holds it")?.to_owned();
        let found = cluster.nodes().iter().find(|n| n.name() == name);
        found.context("an unknown node")
    };
    let dead = held().unwrap();
    {
        let _echo = Echo::begin(dead, "toolbox-artifactory-1", UDP).unwrap();
        assert_eq!(soon(|| udp(&user, at[1], UDP)), own.to_string());
    }

    // Names lead there, and back.
    let it = It::on(&cluster);
    for node in [h1, h2, h3] {
        let server = node.host.address().to_string();
        let name = "artifactory.toolbox.example.org";
        it.hears(&server, &format!("{name} AAAA"), &[at[1].to_string()]);
        it.hears(&server, &format!("-x {}", at[1]), &[format!("{name}.")]);
        it.hears(&server, "old.toolbox.example.org AAAA", &[""; 0]);
    }

    // The host that holds it dies.
    dead.host.machine().cut().unwrap();
    soon(|| tcp(&user, at[1]).with_context(|| format!("{:?}", line(h1, &owners[1]))));
    let alive = held().unwrap();
    assert_ne!(alive.name(), dead.name());
    let said = soon(|| tcp(&user, at[1]));
    assert_eq!(said, ("artifactory".to_owned(), own.to_string()));
    pings(&user, at[1]);
    // Back again, only one has it.
    dead.host.machine().heal().unwrap();
    h1.sees(dead, "up");
    soon(|| {
        let held = dead.host.machine().run("ip", ["-6", "-o", "addr"])?;
        ensure!(!held.contains(&format!(" {}/128", at[1])), "{held}");
        Ok(())
    });
    soon(|| tcp(&user, at[1]));

    h3.ok("director release");
    for node in cluster.nodes() {
        soon(|| {
            let seen = node.host.machine().run("ip", ["-6", "-o", "addr"])?;
            let gone = at.iter().all(|a| !seen.contains(&format!(" {a}/128")));
            ensure!(gone, "{seen}");
            Ok(())
        });
    }
}

/// Only IPv6, on one host: networks are the Engine's own.
#[test]
fn ranges_may_be_of_ipv6_only() {
    let Some(cluster) = Cluster::with(Lab::builder().hosts(1).client("user"), "six", TOOLS) else {
        return;
    };
    let h1 = cluster.node(1);
    let user = cluster.lab().client("user").unwrap();
    has_six(h1.host.machine(), 1);
    let own = has_six(&user, 99).to_string();
    h1.write(
        "compose.yaml",
        &TOOLS.replace("[node.hostname != h1]", "[]").replace(
            "default: {enable_ipv6: true}",
            "default: {enable_ipv6: true, ipam: {config: [{subnet: 'fd98:1::/64'}]}}",
        ),
    );
    let init = format!(
        "director init --default all --range {}-{}",
        six(0x150),
        six(0x169)
    );
    h1.ok(init.as_str());
    h1.ok("up -d");
    for name in ["jenkins", "artifactory"] {
        let at = soon(|| v6_of(h1, &format!("six/{name}")));
        assert_eq!(soon(|| tcp(&user, at)), (name.to_owned(), own.clone()));
        pings(&user, at);
        h1.ok(format!("exec jenkins wget -qO- http://{}/cgi-bin/who", shown(at)).as_str())
            .says([name]);
    }
    soon(|| {
        let said = h1.run("director status");
        let why = "six/old has no address: its network has no IPv6 (`enable_ipv6: true`)";
        ensure!(said.stdout.contains(why), "{said}");
        Ok(())
    });
    // Containers of no stack.
    docker(h1, "run -d --name four busybox httpd -f -p 8080");
    let starts = |name: &str| {
        let server = "--network six_default busybox httpd -f -p [::]:8080";
        docker(h1, &format!("run -d --name {name} {server}"));
    };
    starts("both");
    let both = soon(|| v6_of(h1, "both"));
    soon(|| user.http_get(&format!("http://{}/", shown(both))));
    soon(|| {
        let said = h1.run("director status");
        let why = "four has no address: its network has no IPv6";
        ensure!(said.stdout.contains(why), "{said}");
        Ok(())
    });

    // On a device without IPv6 nobody can be asked who has an address of it: none is used then, and those of IPv4
    // are.
    let machine = h1.host.machine();
    let device = machine.interface();
    let is_off = |off: u8| {
        let setting = format!("net.ipv6.conf.{device}.disable_ipv6={off}");
        machine.run("sysctl", ["-w", &setting]).unwrap();
    };
    is_off(1);
    h1.ok(format!("{init} --device {device} --range {}", range(h1)).as_str());
    starts("late");
    let (v4, v6) = soon(|| match addresses(h1, "late")? {
        (Some(v4), Some(v6)) => Ok((v4, v6)),
        found => bail!("{found:?}"),
    });
    soon(|| user.http_get(&format!("http://{}/", shown(v4))));
    soon(|| {
        let said = h1.run("director status");
        let why = "not used yet, as nobody can be asked who has what";
        let mut lines = said.stdout.lines().filter(|l| l.contains(why));
        ensure!(lines.any(|l| l.contains(&v6.to_string())), "{said}");
        Ok(())
    });
    let has_it = || {
        let seen = machine.run("ip", ["-6", "-o", "addr"]).unwrap();
        seen.contains(&format!(" {v6}/128"))
    };
    assert!(!has_it());
    is_off(0);
    has_six(machine, 1);
    soon(|| user.http_get(&format!("http://{}/", shown(v6))));
    assert!(has_it());
}
