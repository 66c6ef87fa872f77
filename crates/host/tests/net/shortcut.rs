//! The short way between containers of two hosts.

use std::collections::BTreeSet;
use std::net::IpAddr;

use wharfie_host::net::{self, Cable, Overlay, Overlays, Shortcut, Shortcuts};

use crate::lab::{Container, Host, Lan, possible};
use crate::talk::{ask, ask_udp, serve};

const VNI: u32 = 0x1001;

fn join(host: &Host, remote: &[&Container]) {
    let overlay = Overlay {
        network: "demo".into(),
        vni: VNI,
        bridge: "br1".into(),
        mtu: 1450,
        port: 4789,
        local: host.address(),
        endpoints: remote.iter().map(|c| c.endpoint()).collect(),
    };
    let mut overlays = Overlays::open(&host.space.namespace()).unwrap();
    overlays.apply(&[overlay]).unwrap();
    // All that the host routes is dropped, and what its bridges show it as well.
    host.space.sysctl("net.bridge.bridge-nf-call-iptables", "1");
    host.space
        .sysctl("net.bridge.bridge-nf-call-ip6tables", "1");
    host.space.nft(
        "table inet others { chain forward { type filter hook forward priority 0; counter drop; }; }",
    );
}

fn shortcut(remote: &[&Container]) -> Vec<Shortcut> {
    vec![Shortcut {
        vni: VNI,
        bridge: "br1".into(),
        remote: remote.iter().map(|c| c.endpoint().mac).collect(),
    }]
}

fn cables(containers: &[&Container]) -> BTreeSet<Cable> {
    let each = containers.iter();
    each.flat_map(|c| net::cables(&c.space.namespace()).unwrap())
        .collect()
}

fn open(host: &Host) -> Shortcuts {
    Shortcuts::open(&host.space.namespace()).unwrap()
}

#[test]
fn packets_between_hosts_are_not_shown_to_rules_for_routed_ones() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let hosts = [lan.host(), lan.host()];
    let [a, b] = [&hosts[0], &hosts[1]].map(|host| {
        host.network(1);
        host.container(1, 10)
    });
    let near = hosts[0].container(1, 11);
    join(&hosts[0], &[&b]);
    join(&hosts[1], &[&a, &near]);
    serve(&b.space, 80, "b");
    let reached = |from: &Container, to: &Container| from.space.reaches(&to.address().to_string());
    assert!(!reached(&a, &b), "the host's rules are asked");
    let [mut one, mut two] = [open(&hosts[0]), open(&hosts[1])];
    let mine = cables(&[&a]);
    assert!(one.apply(&shortcut(&[&b]), &mine).unwrap());
    assert!(!reached(&a, &b), "only on one side");
    assert!(two.apply(&shortcut(&[&a, &near]), &cables(&[&b])).unwrap());
    for (to, own) in [(b.address(), a.address()), (b.address6(), a.address6())] {
        assert_eq!(ask(&a.space, to, 80).unwrap(), format!("b {own}"));
        assert_eq!(ask_udp(&a.space, to, 80).unwrap(), format!("b {own}"));
    }
    assert!(reached(&b, &a) && reached(&a, &b));
    // A container whose cable was not given goes by the bridge; so do neighbours on the host.
    assert!(!reached(&near, &b) && !reached(&a, &near));
    // The host itself is reached as ever, from both hosts.
    for gateway in ["10.1.1.1", "fd00:1::1:1"] {
        assert!(a.space.reaches(gateway), "{gateway}");
    }
    assert!(!one.apply(&shortcut(&[&b]), &mine).unwrap());
    // What others break is repaired; what is gone needs nothing.
    hosts[0]
        .space
        .nft("delete chain netdev wharfie_shortcut v1-10");
    assert!(!reached(&a, &b));
    assert!(one.apply(&shortcut(&[&b]), &mine).unwrap());
    assert!(reached(&a, &b));
    let both = cables(&[&a, &near]);
    one.apply(&shortcut(&[&b]), &both).unwrap();
    assert!(reached(&near, &b) && reached(&b, &near));
    hosts[0].space.ip("link del v1-11");
    one.apply(&shortcut(&[&b]), &both).unwrap();
    assert!(reached(&a, &b));
    let listed = hosts[0].space.nft("list table netdev wharfie_shortcut");
    assert!(!listed.contains("v1-11"), "{listed}");
    // Without overlays nothing is left, and purging takes what an agent left.
    one.apply(&[], &mine).unwrap();
    assert!(!hosts[0].space.nft("list tables").contains("shortcut"));
    assert!(!reached(&a, &b));
    let purged = net::purge(&hosts[1].space.namespace()).unwrap();
    let table = "netdev wharfie_shortcut".to_owned();
    assert!(purged.tables.contains(&table), "{purged:?}");
}

/// A container that is started again while nobody watches has another cable, and maybe another
/// hardware address: it is reached as without short ways.
#[test]
fn who_is_started_again_is_reached() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let hosts = [lan.host(), lan.host()];
    let [a, b] = [&hosts[0], &hosts[1]].map(|host| {
        host.network(1);
        host.container(1, 10)
    });
    join(&hosts[0], &[&b]);
    join(&hosts[1], &[&a]);
    let [mut one, mut two] = [open(&hosts[0]), open(&hosts[1])];
    one.apply(&shortcut(&[&b]), &cables(&[&a])).unwrap();
    two.apply(&shortcut(&[&a]), &cables(&[&b])).unwrap();
    for host in &hosts {
        host.space.nft("delete table inet others");
    }
    assert!(a.space.reaches(&b.address().to_string()));
    drop(b);
    let again = hosts[1].container(1, 10);
    // Who talked to the one before may ask for its hardware address first.
    let reaches = |from: &Container, to: IpAddr| {
        let mut tries = 0..10;
        tries.any(|_| from.space.reaches(&to.to_string()))
    };
    for address in [again.address(), again.address6()] {
        assert!(reaches(&a, address), "{address}");
    }
    assert!(reaches(&again, a.address()));
}
