//! Ports that every host answers.

use std::net::IpAddr;

use wharfie_host::net::{
    Endpoint, Gateway, Overlay, Overlays, Protocol, Published, Publisher, Publishing, Replies,
};

use crate::lab::{Container, Host, Lan, possible};
use crate::talk::{ask, ask_udp, opens, serve};

/// Two hosts that share a network, a task on each, and a client outside.
struct Setup {
    _lan: Lan,
    hosts: [Host; 2],
    tasks: [Container; 2],
    outside: Host,
}

pub(crate) fn gateway(host: &Host) -> Endpoint {
    let line = host.space.ip("-o link show br1");
    let mac = line.split("link/ether ").nth(1).unwrap();
    let n = host.number;
    Endpoint {
        mac: mac.split(' ').next().unwrap().parse().unwrap(),
        addresses: vec![
            [10, 1, n, 1].into(),
            format!("fd00:1::{n}:1").parse().unwrap(),
        ],
        host: host.address(),
    }
}

fn setup() -> Setup {
    let mut lan = Lan::new();
    let (hosts, outside) = ([lan.host(), lan.host()], lan.host());
    let tasks = [(0, "t1"), (1, "t2")].map(|(index, name): (usize, &str)| {
        let host = &hosts[index];
        host.network(1);
        host.space.sysctl("net.ipv6.conf.all.forwarding", "1");
        let task = host.container(1, 10);
        let n = host.number;
        task.space
            .ip(&format!("route add default via fd00:1::{n}:1"));
        serve(&task.space, 80, name);
        task
    });
    let mut endpoints = vec![tasks[0].endpoint(), tasks[1].endpoint()];
    endpoints.extend(hosts.iter().map(gateway));
    for host in &hosts {
        // What containers send out gets the host's address, as with Docker: a wrong way back.
        let n = host.number;
        host.space.nft(&format!(
            "table inet docker {{ chain p {{ type nat hook postrouting priority 100; \
             ip saddr 10.1.0.0/16 oifname eth0 masquerade; \
             ip6 saddr fd00:1::/64 oifname eth0 masquerade; }}; }} # {n}"
        ));
        let overlay = Overlay {
            network: "demo_net".into(),
            vni: 1,
            bridge: "br1".into(),
            mtu: 1450,
            port: 4789,
            local: host.address(),
            endpoints: endpoints.clone(),
        };
        Overlays::open(&host.space.namespace())
            .unwrap()
            .apply(&[overlay])
            .unwrap();
    }
    Setup {
        _lan: lan,
        hosts,
        tasks,
        outside,
    }
}

fn publishing(tasks: &[&Container]) -> Publishing {
    let tasks: Vec<IpAddr> = tasks
        .iter()
        .flat_map(|task| [task.address(), task.address6()])
        .collect();
    let port = |protocol, port| Published {
        protocol,
        port,
        target: 80,
        tasks: tasks.clone(),
    };
    Publishing {
        ports: vec![port(Protocol::Tcp, 8080), port(Protocol::Udp, 8081)],
        subnets: vec![
            "10.1.0.0/16".parse().unwrap(),
            "fd00:1::/64".parse().unwrap(),
        ],
        no_way_back: Vec::new(),
    }
}

fn addresses(host: &Host) -> [IpAddr; 2] {
    [
        host.address(),
        format!("2001:db8::{}", host.number).parse().unwrap(),
    ]
}

#[test]
fn every_host_answers_for_tasks_on_any_and_the_client_is_seen() {
    if !possible() {
        return;
    }
    let Setup {
        hosts,
        tasks,
        outside,
        ..
    } = &setup();
    let [t1, t2] = tasks;
    let mut publishers = hosts.each_ref().map(|host| {
        let mut publisher = Publisher::open(&host.space.namespace()).unwrap();
        assert!(publisher.apply(&publishing(&[t1, t2])).unwrap());
        assert!(!publisher.apply(&publishing(&[t1, t2])).unwrap());
        publisher
    });
    let mut replies = [(t1, &hosts[1]), (t2, &hosts[0])].map(|(task, other)| {
        let Endpoint { mac, addresses, .. } = gateway(other);
        let mut replies = Replies::open(&task.space.namespace()).unwrap();
        let other = [Gateway { mac, addresses }];
        assert!(replies.apply(&other).unwrap());
        assert!(!replies.apply(&other).unwrap());
        replies
    });
    for host in hosts {
        for (address, own) in addresses(host).into_iter().zip(addresses(outside)) {
            let mut said: Vec<String> = (0..4)
                .map(|_| ask(&outside.space, address, 8080).unwrap())
                .collect();
            said.sort();
            let expected = ["t1", "t1", "t2", "t2"].map(|name| format!("{name} {own}"));
            assert_eq!(said, expected, "{address}");
            let said = ask_udp(&outside.space, address, 8081).unwrap();
            assert!(said.ends_with(&format!(" {own}")), "{said}");
        }
        // The host itself, and a container beside the task.
        assert!(ask(&host.space, host.address(), 8080).is_ok());
        for _ in 0..2 {
            assert!(ask(&t1.space, host.address(), 8080).is_ok());
        }
    }
    // A task that is gone is gone from every host; open ports of others stay.
    let only: Vec<IpAddr> = vec![t2.address()];
    let changed = Published {
        tasks: only,
        ..publishing(&[]).ports[0].clone()
    };
    assert!(publishers[0].set(&changed).unwrap());
    for _ in 0..3 {
        assert!(
            ask(&outside.space, hosts[0].address(), 8080)
                .unwrap()
                .starts_with("t2")
        );
    }
    publishers[0].remove(Protocol::Tcp, 8080).unwrap();
    assert!(!opens(&outside.space, hosts[0].address(), 8080));
    assert!(ask_udp(&outside.space, hosts[0].address(), 8081).is_ok());
    // Without its rules a task of another host answers by the wrong way.
    replies[1].purge().unwrap();
    let listed = tasks[1].space.ip("rule") + &tasks[1].space.ip("-6 rule");
    assert!(!listed.contains("fwmark"), "{listed}");
}

#[test]
fn where_no_way_leads_back_the_hosts_address_is_seen() {
    if !possible() {
        return;
    }
    let Setup {
        hosts,
        tasks,
        outside,
        ..
    } = &setup();
    let [t1, t2] = tasks;
    let mut publisher = Publisher::open(&hosts[0].space.namespace()).unwrap();
    let mut wanted = publishing(&[t2]);
    publisher.apply(&wanted).unwrap();
    assert!(
        ask(&outside.space, hosts[0].address(), 8080).is_err(),
        "it cannot answer"
    );
    wanted.no_way_back = vec![t2.address(), t2.address6()];
    assert!(publisher.apply(&wanted).unwrap());
    assert_eq!(
        ask(&outside.space, hosts[0].address(), 8080).unwrap(),
        "t2 10.1.1.1"
    );
    wanted.ports[0].tasks = vec![t1.address()];
    publisher.apply(&wanted).unwrap();
    let own = outside.address();
    assert_eq!(
        ask(&outside.space, hosts[0].address(), 8080).unwrap(),
        format!("t1 {own}")
    );
    hosts[0]
        .space
        .nft("flush chain inet wharfie_published prerouting");
    assert!(!publisher.is_intact().unwrap());
    assert!(publisher.apply(&wanted).unwrap());
    publisher.purge().unwrap();
    assert!(!opens(&outside.space, hosts[0].address(), 8080));
}
