//! Networks are kept apart on a host.

use std::net::IpAddr;

use wharfie_host::net::{IsolatedNetwork, Isolation, Isolator};

use crate::lab::{Host, Lan, possible};
use crate::talk::{ask, ask_udp, opens, serve};

fn network(host: &Host, n: u8) -> IsolatedNetwork {
    let number = host.number;
    IsolatedNetwork {
        internal: false,
        bridge: format!("br{n}"),
        gateways: vec![
            [10, n, number, 1].into(),
            format!("fd00:{n}::{number}:1").parse().unwrap(),
        ],
    }
}

#[test]
fn gateways_and_bridges_of_others_are_closed() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let host = lan.host();
    host.space.sysctl("net.ipv6.conf.all.forwarding", "1");
    for n in [1, 2] {
        host.network(n);
    }
    let (a, b) = (host.container(1, 10), host.container(2, 10));
    a.space.ip("route add default via fd00:1::1:1");
    b.space.ip("route add default via fd00:2::1:1");
    serve(&host.space, 53, "host");
    serve(&b.space, 80, "b");
    let [first, second] = [network(&host, 1), network(&host, 2)];
    let (own, other) = (&first.gateways, &second.gateways);
    for address in own.iter().chain(other) {
        assert!(
            opens(&a.space, *address, 53),
            "{address} is open by default"
        );
    }
    assert!(
        opens(&a.space, b.address(), 80),
        "and so is the way to the other network"
    );
    let isolation = Isolation {
        closed: Vec::new(),
        networks: vec![first.clone(), second.clone()],
        ports: vec![4789],
        peers: Vec::new(),
        underlay: None,
        encrypted: Vec::new(),
    };
    let mut isolator = Isolator::open(&host.space.namespace()).unwrap();
    assert!(isolator.apply(&isolation).unwrap());
    assert!(!isolator.apply(&isolation).unwrap());
    for address in own {
        assert!(ask(&a.space, *address, 53).is_ok() && ask_udp(&a.space, *address, 53).is_ok());
        assert!(a.space.reaches(&address.to_string()));
        assert!(opens(&host.space, *address, 53), "the host itself");
    }
    for address in other {
        assert!(!opens(&a.space, *address, 53), "{address}");
        assert!(ask_udp(&a.space, *address, 53).is_err(), "{address}");
        assert!(!a.space.reaches(&address.to_string()), "{address}");
        assert!(
            opens(&b.space, *address, 53),
            "{address} for its own network"
        );
    }
    assert!(!opens(&a.space, b.address(), 80) && !opens(&a.space, b.address6(), 80));
    // The host's own addresses, and what is published there, are reached as with Docker.
    let lan_address = host.address();
    assert!(opens(&a.space, lan_address, 53));
    host.space.nft(&format!(
        "table ip docker {{ chain p {{ type nat hook prerouting priority -100; \
         fib daddr type local tcp dport 8080 dnat to {}:80; }}; }}",
        b.address()
    ));
    assert!(ask(&a.space, lan_address, 8080).unwrap().starts_with("b "));
    assert!(
        !opens(&a.space, other[0], 8080),
        "but not by the other's gateway"
    );
    // A container on both networks reaches both gateways.
    let a = host.attach(a, 2, 10 + 100);
    // Its new port takes a moment on a busy host.
    assert!((0..10).any(|_| opens(&a.space, other[0], 53)));
    host.space.nft("flush set inet wharfie_isolation own4");
    assert!(!isolator.is_intact().unwrap());
    assert!(isolator.apply(&isolation).unwrap());
    isolator.purge().unwrap();
}

/// A packet as a VXLAN device sends it, from a container.
#[test]
fn containers_cannot_make_vxlan_packets() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let (h1, h2, h3) = (lan.host(), lan.host(), lan.host());
    h1.network(1);
    let a = h1.container(1, 10);
    // What containers send out gets the host's address.
    h1.space.nft(
        "table ip docker { chain p { type nat hook postrouting priority 100; \
         ip saddr 10.1.0.0/16 oifname eth0 masquerade; }; }",
    );
    for host in [&h1, &h2] {
        serve(&host.space, 4789, "vxlan");
        serve(&host.space, 4000, "other");
    }
    let peers: Vec<IpAddr> = [&h1, &h2].map(Host::address).into();
    let isolation = Isolation {
        closed: Vec::new(),
        networks: vec![network(&h1, 1)],
        ports: vec![4789],
        peers,
        underlay: None,
        encrypted: Vec::new(),
    };
    let asks =
        |from: &crate::lab::Space, to: &Host, port| ask_udp(from, to.address(), port).is_ok();
    assert!(asks(&a.space, &h1, 4789) && asks(&a.space, &h2, 4789));
    let mut isolators = [&h1, &h2].map(|host| {
        let mut isolator = Isolator::open(&host.space.namespace()).unwrap();
        isolator.apply(&isolation).unwrap();
        isolator
    });
    assert!(!asks(&a.space, &h1, 4789) && !asks(&a.space, &h2, 4789));
    assert!(asks(&a.space, &h1, 4000) && asks(&a.space, &h2, 4000));
    assert!(asks(&h1.space, &h2, 4789), "hosts of the cluster may");
    assert!(!asks(&h3.space, &h2, 4789), "strangers may not");
    // When there is a device for it, nothing is taken from beside.
    let mut by_wireguard = Isolation {
        closed: Vec::new(),
        underlay: Some("wg0".into()),
        ..isolation
    };
    isolators[1].apply(&by_wireguard).unwrap();
    assert!(asks(&h1.space, &h2, 4789), "not all hosts are behind it");
    by_wireguard.encrypted = vec![h1.address()];
    isolators[1].apply(&by_wireguard).unwrap();
    assert!(!asks(&h1.space, &h2, 4789));
}
