//! An address goes from one host to another, and who talks to it goes on.

use std::net::IpAddr;

use wharfie_host::net::{
    Gateway, LanAddress, LanAddresses, Overlay, Overlays, Redirected, Redirecting, Redirector,
    Replies, announce,
};

use super::until;
use crate::lab::{Host, Lan, possible};
use crate::published::gateway;
use crate::talk::{Client, connect, serve};

struct Holder<'a> {
    host: &'a Host,
    addresses: LanAddresses,
    redirector: Redirector,
}

impl Holder<'_> {
    fn take(&mut self, led: &[Redirected]) {
        for one in led {
            self.redirector.set(one).unwrap();
            let (address, device) = (one.address, "eth0".to_owned());
            self.addresses
                .add(&LanAddress {
                    address,
                    device,
                    lasts: None,
                })
                .unwrap();
        }
        let all: Vec<IpAddr> = led.iter().map(|one| one.address).collect();
        announce(&self.host.space.namespace(), "eth0", &all).unwrap();
    }
}

#[test]
fn connections_go_on_by_the_new_host() {
    if possible() {
        go_on("0");
    }
}

/// The task's own host tracks what comes to it by the overlay as well, and takes what comes by the
/// address for something else: TCP ends at once, and clients of UDP notice nothing.
#[test]
fn where_bridges_call_iptables_clients_of_udp_go_on() {
    if possible() {
        go_on("1");
    }
}

fn go_on(calls: &str) {
    let mut lan = Lan::new();
    let (hosts, client) = ([lan.host(), lan.host(), lan.host()], lan.host());
    for host in &hosts {
        host.network(1);
        host.space.sysctl("net.ipv6.conf.all.forwarding", "1");
        for family in ["iptables", "ip6tables"] {
            let name = format!("net.bridge.bridge-nf-call-{family}");
            host.space.sysctl(&name, calls);
        }
        until("a link-local address", || {
            let listed = host.space.ip("-6 addr show dev eth0 scope link");
            listed.contains("fe80") && !listed.contains("tentative")
        });
    }
    // The task is on the second; the others reach it by the overlay.
    let task = hosts[1].container(1, 10);
    task.space.ip("route add default via fd00:1::2:1");
    serve(&task.space, 80, "task");
    let mut endpoints = vec![task.endpoint()];
    endpoints.extend(hosts.iter().map(gateway));
    for host in &hosts {
        let overlay = Overlay {
            network: "demo_net".into(),
            vni: 1,
            bridge: "br1".into(),
            mtu: 1450,
            port: 4789,
            local: host.address(),
            endpoints: endpoints.clone(),
        };
        let mut overlays = Overlays::open(&host.space.namespace()).unwrap();
        overlays.apply(&[overlay]).unwrap();
    }
    // A young bridge loses questions for neighbours.
    for address in [task.address(), task.address6()] {
        until("the task's own host reaches it", || {
            hosts[1].space.reaches(&address.to_string())
        });
    }
    let others = [&hosts[0], &hosts[2]].map(gateway).map(|gateway| Gateway {
        mac: gateway.mac,
        addresses: gateway.addresses,
    });
    let mut replies = Replies::open(&task.space.namespace()).unwrap();
    replies.apply(&others).unwrap();

    let led = [
        ("192.0.2.100", task.address()),
        ("2001:db8::100", task.address6()),
    ];
    let led = led.map(|(address, task)| Redirected {
        address: address.parse().unwrap(),
        tasks: vec![task],
        here: false,
    });
    let mut holders = hosts.each_ref().map(|host| {
        let namespace = host.space.namespace();
        let mut redirector = Redirector::open(&namespace).unwrap();
        let subnets = ["10.1.0.0/16", "fd00:1::/64"].map(|s| s.parse().unwrap());
        let subnets = subnets.to_vec();
        let redirecting = Redirecting {
            subnets,
            ..Redirecting::default()
        };
        redirector.apply(&redirecting).unwrap();
        Holder {
            host,
            addresses: LanAddresses::open(&namespace).unwrap(),
            redirector,
        }
    });
    holders[0].take(&led);
    let clients = [false, true].map(|ipv6| Client::new(&client.space, ipv6));
    let mut open = led
        .each_ref()
        .map(|one| connect(&client.space, one.address, 80).unwrap());
    for ((one, udp), open) in led.iter().zip(&clients).zip(&mut open) {
        assert!(udp.ask(one.address, 80).unwrap().starts_with("task "));
        assert!(open.line().unwrap().starts_with("task "));
    }
    // By the task's own host next, then by another one again; each time the last is cut off.
    for (old, new) in [(0, 1), (1, 2)] {
        if old == 1 {
            // What the task's host has is given back, since the overlay still needs its cable.
            holders[old].addresses.apply(&[]).unwrap();
        } else {
            hosts[old].space.ip("link set eth0 down");
        }
        holders[new].take(&led);
        for ((one, udp), open) in led.iter().zip(&clients).zip(&mut open) {
            let said = udp.ask(one.address, 80);
            assert!(said.is_ok_and(|said| said.starts_with("task ")), "{new}");
            if calls == "0" {
                assert_eq!(open.say("on").unwrap(), "task on");
            }
        }
    }
}
