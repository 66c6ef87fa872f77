//! Networks over several hosts.

use std::net::IpAddr;

use wharfie_host::net::{Endpoint, Error, Overlay, Overlays};

use crate::lab::{Container, Host, Lan, possible};
use crate::talk::{ask, ask_udp, opens, serve};

const MTU: u32 = 1450;

fn overlay(host: &Host, n: u8, remote: &[&Container]) -> Overlay {
    Overlay {
        network: format!("demo_net{n}"),
        vni: 0x1000 + u32::from(n),
        bridge: format!("br{n}"),
        mtu: MTU,
        port: 4789,
        local: host.address(),
        endpoints: remote
            .iter()
            .map(|container| container.endpoint())
            .collect(),
    }
}

fn overlays(host: &Host) -> Overlays {
    Overlays::open(&host.space.namespace()).unwrap()
}

/// Two hosts with a network, and a container of it on each.
fn pair() -> (Lan, [Host; 2], [Container; 2]) {
    let mut lan = Lan::new();
    let hosts = [lan.host(), lan.host()];
    let containers = [&hosts[0], &hosts[1]].map(|host| {
        host.network(1);
        host.container(1, 10)
    });
    (lan, hosts, containers)
}

#[test]
fn containers_of_two_hosts_reach_each_other_without_floods() {
    if !possible() {
        return;
    }
    let (_lan, [h1, h2], [a, b]) = &pair();
    // Each is told of both: its own are left out.
    let all = [a, b];
    let (mut o1, mut o2) = (overlays(h1), overlays(h2));
    let changes = o1.apply(&[overlay(h1, 1, &all)]).unwrap();
    assert_eq!(
        (changes.made, changes.added),
        (vec!["wvx1001".to_owned()], 4)
    );
    assert!(!a.space.reaches(&b.address().to_string()), "only one side");
    o2.apply(&[overlay(h2, 1, &all)]).unwrap();
    for address in [b.address(), b.address6()] {
        assert!(a.space.reaches(&address.to_string()), "{address}");
    }
    serve(&b.space, 80, "b");
    for (address, own) in [(b.address(), a.address()), (b.address6(), a.address6())] {
        assert_eq!(ask(&a.space, address, 80).unwrap(), format!("b {own}"));
        assert_eq!(ask_udp(&a.space, address, 80).unwrap(), format!("b {own}"));
    }
    let device = h1.space.ip("-d link show wvx1001");
    for part in [
        "alias wharfie:demo_net1",
        "mtu 1450",
        "nolearning",
        "learning off flood off",
        "mcast_flood off",
        "bcast_flood off",
        "neigh_suppress on",
        "dstport 4789",
        "local 192.0.2.1",
    ] {
        assert!(device.contains(part), "{part}: {device}");
    }
    // Nobody is asked who has an address: all neighbours are known, and nobody else has one.
    let stranger = h2.container(1, 99);
    assert!(
        !a.space.reaches(&stranger.address().to_string()),
        "not told of yet"
    );
    o1.add(0x1001, &stranger.endpoint()).unwrap();
    assert!(
        a.space.reaches(&stranger.address().to_string()) || {
            o2.add(0x1001, &a.endpoint()).unwrap();
            a.space.reaches(&stranger.address().to_string())
        }
    );
    o1.remove(0x1001, &stranger.endpoint()).unwrap();
    assert!(!opens(&a.space, stranger.address(), 80));
    let left = h1.space.bridge("fdb show") + &h1.space.ip("neigh show nud permanent");
    assert!(
        !left.contains(&stranger.endpoint().mac.to_string()),
        "{left}"
    );
    o1.remove(0x1001, &stranger.endpoint()).unwrap();
}

#[test]
fn the_largest_packets_pass() {
    if !possible() {
        return;
    }
    let (_lan, [h1, h2], [a, b]) = &pair();
    let all = [a, b];
    overlays(h1).apply(&[overlay(h1, 1, &all)]).unwrap();
    overlays(h2).apply(&[overlay(h2, 1, &all)]).unwrap();
    let ping = |size: u32| {
        let size = (size - 28).to_string(); // less the headers of IPv4 and ICMP
        let address = b.address().to_string();
        let mut ping = a.space.command("ping");
        ping.args(["-c1", "-W1", "-Mdo", "-s", &size, &address]);
        ping.output()
            .map(|output| output.status.success())
            .unwrap_or(false)
    };
    for container in all {
        container.space.ip(&format!("link set eth0 mtu {MTU}"));
    }
    // Without the program there is nothing to look at.
    let has_ping = a
        .space
        .command("ping")
        .arg("-V")
        .output()
        .is_ok_and(|output| output.status.success());
    if has_ping {
        assert!(ping(MTU));
        assert!(!ping(MTU + 1));
    }
}

#[test]
fn networks_do_not_meet_even_with_the_same_addresses() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let (h1, h2) = (lan.host(), lan.host());
    let mut first = Vec::new();
    let mut second = Vec::new();
    for (n, list) in [(1, &mut first), (2, &mut second)] {
        for host in [&h1, &h2] {
            host.network(n);
            list.push(host.container(n, 10));
        }
    }
    for host in [&h1, &h2] {
        let all = [
            overlay(host, 1, &first.iter().collect::<Vec<_>>()),
            overlay(host, 2, &second.iter().collect::<Vec<_>>()),
        ];
        overlays(host).apply(&all).unwrap();
    }
    let reaches = |from: &Container, to: IpAddr| from.space.reaches(&to.to_string());
    assert!(reaches(&first[0], first[1].address()));
    assert!(reaches(&second[0], second[1].address()));
    // A container that gives itself an address of the other network stays alone with it.
    first[0].space.ip("addr add 10.2.1.66/16 dev eth0");
    assert!(!reaches(&first[0], second[1].address()));
}

#[test]
fn applying_changes_only_what_differs_and_repairs_what_others_broke() {
    if !possible() {
        return;
    }
    let (_lan, [h1, h2], [a, b]) = &pair();
    let mut o1 = overlays(h1);
    let wanted = [overlay(h1, 1, &[b])];
    o1.apply(&wanted).unwrap();
    overlays(h2).apply(&[overlay(h2, 1, &[a])]).unwrap();
    let index = |host: &Host| {
        host.space
            .ip("-o link show wvx1001")
            .split(':')
            .next()
            .unwrap()
            .to_owned()
    };
    let before = index(h1);
    assert!(o1.apply(&wanted).unwrap().is_empty());
    assert!(
        overlays(h1).apply(&wanted).unwrap().is_empty(),
        "an agent that starts anew"
    );
    let mac = b.endpoint().mac;
    for harm in [
        "ip link set wvx1001 down".to_owned(),
        "ip link set wvx1001 nomaster".into(),
        "ip link set wvx1001 mtu 1400".into(),
        "bridge link set dev wvx1001 neigh_suppress off flood on".into(),
        format!("bridge fdb del {mac} dev wvx1001 self"),
        format!("bridge fdb del {mac} dev wvx1001 master"),
        format!("bridge fdb replace {mac} dev wvx1001 self dst 192.0.2.77"),
        format!("ip neigh del {} dev br1", b.address()),
        format!(
            "ip neigh replace {} dev br1 lladdr 02:00:00:00:00:01 nud permanent",
            b.address6()
        ),
        "bridge fdb append 02:00:00:00:00:07 dev wvx1001 self dst 192.0.2.9 static".into(),
    ] {
        let (program, arguments) = harm.split_once(' ').unwrap();
        match program {
            "ip" => h1.space.ip(arguments),
            _ => h1.space.bridge(arguments),
        };
        let changes = o1.apply(&wanted).unwrap();
        assert!(!changes.is_empty(), "{harm}");
        assert!(o1.apply(&wanted).unwrap().is_empty(), "{harm}");
        assert!(a.space.reaches(&b.address().to_string()), "{harm}");
        assert!(a.space.reaches(&b.address6().to_string()), "{harm}");
    }
    assert_eq!(index(h1), before, "the device stayed");
    // A port with a lower hardware address would give that to the bridge, and the kernel forgets
    // all neighbours of a device whose address changes.
    h1.space
        .ip("link add low address 00:00:00:00:00:01 type veth peer name other");
    h1.space.ip("link set low master br1 up");
    assert!(o1.apply(&wanted).unwrap().is_empty());
    // What cannot be changed takes a new device.
    let moved = Overlay {
        port: 4790,
        ..wanted[0].clone()
    };
    assert!(!o1.apply(&[moved]).unwrap().is_empty());
    assert!(h1.space.ip("-d link show wvx1001").contains("dstport 4790"));
    // One that was removed with everything, and one that is not wanted.
    h1.space.ip("link del wvx1001");
    o1.apply(&wanted).unwrap();
    assert!(a.space.reaches(&b.address().to_string()));
    // Neighbours of others on the same bridge stay.
    h1.space
        .ip("neigh replace 10.1.200.1 dev br1 lladdr 02:00:00:00:00:01 nud permanent");
    let changes = o1.apply(&[]).unwrap();
    assert_eq!(changes.removed, ["wvx1001"]);
    assert!(
        h1.space
            .ip("neigh show nud permanent")
            .contains("10.1.200.1")
    );
    assert!(
        !h1.space
            .ip("neigh show nud permanent")
            .contains(&mac.to_string())
    );
}

#[test]
fn a_container_that_moves_is_found_at_its_new_host() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let (h1, h2, h3) = (lan.host(), lan.host(), lan.host());
    for host in [&h1, &h2, &h3] {
        host.network(1);
    }
    let (a, b, c) = (
        h1.container(1, 10),
        h2.container(1, 10),
        h3.container(1, 10),
    );
    let all = [&a, &b, &c];
    let mut made = [&h1, &h2, &h3].map(|host| {
        let mut own = overlays(host);
        own.apply(&[overlay(host, 1, &all)]).unwrap();
        own
    });
    assert!(a.space.reaches(&b.address().to_string()));
    // It takes its addresses along: only the host differs.
    let moved = Endpoint {
        host: h3.address(),
        ..b.endpoint()
    };
    h2.space.ip("link del v1-10");
    h3.space.ip(&format!(
        "link add v1-77 type veth peer name eth0 address {} netns {}",
        moved.mac,
        b.space.name()
    ));
    h3.space.ip("link set v1-77 master br1 up");
    b.space.ip(&format!("addr add {}/16 dev eth0", b.address()));
    b.space.ip("link set eth0 up");
    for (own, host) in made.iter_mut().zip([&h1, &h2, &h3]) {
        if host.address() == moved.host {
            own.remove(0x1001, &b.endpoint()).unwrap();
        } else {
            own.add(0x1001, &moved).unwrap();
        }
    }
    assert!(a.space.reaches(&b.address().to_string()));
    assert!(c.space.reaches(&b.address().to_string()));
}

#[test]
fn what_is_in_the_way_is_named() {
    if !possible() {
        return;
    }
    let (_lan, [h1, _], [_, b]) = &pair();
    let mut o1 = overlays(h1);
    h1.space
        .ip("link add flannel.1 type vxlan id 4097 local 192.0.2.1 dstport 4789");
    let error = o1.apply(&[overlay(h1, 1, &[b])]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("flannel.1 (VNI 4097, UDP port 4789)"),
        "{error}"
    );
    h1.space.ip("link del flannel.1");
    h1.space.ip("link add wvx1001 type bridge");
    let error = o1.apply(&[overlay(h1, 1, &[b])]).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    h1.space.ip("link del wvx1001");
    // Cut off in the middle of making it: no mark yet, and not up.
    h1.space
        .ip("link add wvx1001 type vxlan id 4097 local 192.0.2.1 dstport 4789 nolearning");
    o1.apply(&[overlay(h1, 1, &[b])]).unwrap();
    // A missing bridge keeps nothing else back.
    h1.network(2);
    let missing = Overlay {
        bridge: "br9".into(),
        vni: 9,
        ..overlay(h1, 1, &[])
    };
    let error = o1.apply(&[missing, overlay(h1, 2, &[])]).unwrap_err();
    assert_eq!(
        error,
        Error::NoBridge {
            bridge: "br9".into(),
            vni: 9
        }
    );
    assert!(h1.space.ip("link show wvx1002").contains("UP"));
    let twice = [overlay(h1, 1, &[]), overlay(h1, 1, &[])];
    assert!(matches!(o1.apply(&twice), Err(Error::Invalid(_))));
}
