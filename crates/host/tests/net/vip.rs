//! Services' addresses in the client's namespace.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;

use wharfie_host::net::{Error, Protocol, Vip, VipPort, Vips, forget};

use crate::lab::{Container, Host, Lan, possible};
use crate::talk::{Client, ask, ask_udp, connect, serve};

struct Setup {
    _lan: Lan,
    _host: Host,
    client: Container,
    backends: Vec<Container>,
}

/// A client, and three backends `b1` to `b3` that serve on 80.
fn setup() -> Setup {
    let mut lan = Lan::new();
    let host = lan.host();
    host.network(1);
    let client = host.container(1, 10);
    let backends = (1..=3).map(|n| {
        let backend = host.container(1, 20 + n);
        serve(&backend.space, 80, &format!("b{n}"));
        backend
    });
    let backends = backends.collect();
    Setup {
        _lan: lan,
        _host: host,
        client,
        backends,
    }
}

fn vip(backends: &[&Container]) -> Vip {
    Vip {
        address: [10, 1, 9, 9].into(),
        ports: Vec::new(),
        backends: backends.iter().map(|backend| backend.address()).collect(),
        affinity: false,
    }
}

fn vip6(backends: &[&Container]) -> Vip {
    Vip {
        address: "fd00:1::9:9".parse().unwrap(),
        backends: backends.iter().map(|backend| backend.address6()).collect(),
        ..vip(&[])
    }
}

/// Who answered how often.
fn answers(
    count: usize,
    mut ask: impl FnMut() -> std::io::Result<String>,
) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let answer = ask().unwrap();
        let name = answer.split(' ').next().unwrap().to_owned();
        *answers.entry(name).or_default() += 1;
    }
    answers
}

fn even(each: usize) -> BTreeMap<String, usize> {
    (1..=3).map(|n| (format!("b{n}"), each)).collect()
}

#[test]
fn connections_and_packets_are_shared_evenly_and_the_client_is_seen() {
    if !possible() {
        return;
    }
    let Setup {
        client, backends, ..
    } = &setup();
    let all: Vec<&Container> = backends.iter().collect();
    let mut vips = Vips::open(&client.space.namespace()).unwrap();
    assert!(vips.apply(&[vip(&all), vip6(&all)]).unwrap());
    for (address, own) in [
        (vip(&[]).address, client.address()),
        (vip6(&[]).address, client.address6()),
    ] {
        assert_eq!(
            answers(9, || ask(&client.space, address, 80)),
            even(3),
            "{address}"
        );
        assert_eq!(
            answers(9, || ask_udp(&client.space, address, 80)),
            even(3),
            "{address}"
        );
        let said = ask(&client.space, address, 80).unwrap();
        assert!(said.ends_with(&format!(" {own}")), "{said}: {own} asked");
        assert!(
            client.space.reaches(&address.to_string()),
            "a ping is answered by a task"
        );
    }
    // One UDP client has one backend.
    let one = Client::new(&client.space, false);
    assert_eq!(answers(5, || one.ask(vip(&[]).address, 80)).len(), 1);
}

#[test]
fn a_changed_backend_leaves_connections_open() {
    if !possible() {
        return;
    }
    let Setup {
        client, backends, ..
    } = &setup();
    let [first, second, third] = &backends[..] else {
        panic!()
    };
    let address = vip(&[]).address;
    let mut vips = Vips::open(&client.space.namespace()).unwrap();
    vips.set(&vip(&[first, second])).unwrap();
    let mut open: Vec<_> = (0..4)
        .map(|_| connect(&client.space, address, 80).unwrap())
        .collect();
    let names: Vec<String> = open
        .iter_mut()
        .map(|one| one.line().unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    assert!(
        names.contains(&"b1".into()) && names.contains(&"b2".into()),
        "{names:?}"
    );

    assert!(vips.set(&vip(&[second, third])).unwrap());
    assert!(
        !vips.set(&vip(&[third, second])).unwrap(),
        "the order says nothing"
    );
    for (one, name) in open.iter_mut().zip(&names) {
        assert_eq!(
            one.say("still there?").unwrap(),
            format!("{name} still there?")
        );
    }
    let now = answers(6, || ask(&client.space, address, 80));
    assert_eq!(now, BTreeMap::from([("b2".into(), 3), ("b3".into(), 3)]));
    // The same with a table that is written as a whole, as by an agent that starts anew.
    let mut others = Vips::open(&client.space.namespace()).unwrap();
    others.apply(&[vip(&[third])]).unwrap();
    for (one, name) in open.iter_mut().zip(&names) {
        assert_eq!(one.say("and now?").unwrap(), format!("{name} and now?"));
    }
    assert_eq!(answers(3, || ask(&client.space, address, 80)).len(), 1);
}

#[test]
fn a_udp_client_of_a_dead_backend_is_helped() {
    if !possible() {
        return;
    }
    let Setup {
        client, backends, ..
    } = &setup();
    let address = vip(&[]).address;
    let namespace = client.space.namespace();
    let mut vips = Vips::open(&namespace).unwrap();
    vips.set(&vip(&[&backends[0]])).unwrap();
    let one = Client::new(&client.space, false);
    assert_eq!(
        answers(2, || one.ask(address, 80)).keys().next().unwrap(),
        "b1"
    );
    vips.set(&vip(&[&backends[1]])).unwrap();
    assert_eq!(
        answers(2, || one.ask(address, 80)).keys().next().unwrap(),
        "b1",
        "drained"
    );
    assert_eq!(
        forget(&namespace, &[backends[0].address()].into(), Protocol::Udp).unwrap(),
        1
    );
    assert_eq!(
        answers(2, || one.ask(address, 80)).keys().next().unwrap(),
        "b2"
    );
    assert_eq!(
        forget(&namespace, &[backends[0].address()].into(), Protocol::Udp).unwrap(),
        0
    );
}

#[test]
fn a_task_that_meets_itself_is_answered() {
    if !possible() {
        return;
    }
    let Setup { backends, .. } = &setup();
    let own = &backends[0];
    let mut vips = Vips::open(&own.space.namespace()).unwrap();
    vips.apply(&[vip(&[own]), vip6(&[own])]).unwrap();
    for address in [vip(&[]).address, vip6(&[]).address] {
        let said = ask(&own.space, address, 80).unwrap();
        assert!(said.starts_with("b1 "), "{said}");
        assert!(ask_udp(&own.space, address, 80).unwrap().starts_with("b1 "));
    }
}

/// The kernel tells a sender of UDP at once, as soon as the packet is dropped on its way out.
fn is_refused_udp(answer: &std::io::Result<String>) -> bool {
    matches!(answer, Err(error) if error.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn ports_are_answered_if_given_and_refused_if_not() {
    if !possible() {
        return;
    }
    let Setup {
        client, backends, ..
    } = &setup();
    let space = &client.space;
    let all: Vec<&Container> = backends.iter().collect();
    let port = |protocol, port, target| VipPort {
        protocol,
        port,
        target,
    };
    let tcp = Protocol::Tcp;
    let ports = vec![
        port(tcp, 80, 80),
        port(tcp, 8080, 80),
        port(Protocol::Udp, 5353, 80),
    ];
    let service = Vip { ports, ..vip(&all) };
    let address = service.address;
    let other = IpAddr::from([10, 1, 9, 99]);
    let mut vips = Vips::open(&space.namespace()).unwrap();
    vips.apply(&[
        service.clone(),
        Vip {
            address: other,
            ..vip(&all[..1])
        },
    ])
    .unwrap();
    assert_eq!(answers(6, || ask(space, address, 80)), even(2));
    assert_eq!(answers(6, || ask(space, address, 8080)), even(2));
    assert_eq!(answers(6, || ask_udp(space, address, 5353)), even(2));
    let refused = |port| ask(space, address, port).unwrap_err().kind();
    assert_eq!(refused(81), ErrorKind::ConnectionRefused);
    assert!(is_refused_udp(&ask_udp(space, address, 80)));
    // Less ports, other ports: what is left over is taken away, and the other service is kept.
    vips.set(&Vip {
        ports: vec![port(tcp, 81, 80)],
        ..service.clone()
    })
    .unwrap();
    assert_eq!(refused(8080), ErrorKind::ConnectionRefused);
    assert_eq!(answers(6, || ask(space, address, 81)), even(2));
    assert!(ask(space, other, 80).unwrap().starts_with("b1"));
    let listed = space.nft("list table inet wharfie_vip");
    assert!(
        !listed.contains(". 8080") && !listed.contains(". udp"),
        "{listed}"
    );
    vips.remove(address).unwrap();
    assert!(
        !space
            .nft("list table inet wharfie_vip")
            .contains("10.1.9.9 ")
    );
    let twice = Vip {
        ports: vec![port(tcp, 80, 80), port(tcp, 80, 81)],
        ..service
    };
    assert!(matches!(vips.set(&twice), Err(Error::Invalid(_))));
}

#[test]
fn an_address_without_backends_refuses_at_once() {
    if !possible() {
        return;
    }
    let Setup {
        client, backends, ..
    } = &setup();
    let mut vips = Vips::open(&client.space.namespace()).unwrap();
    vips.apply(&[vip(&[]), vip6(&[])]).unwrap();
    for address in [vip(&[]).address, vip6(&[]).address] {
        let refused = |result: std::io::Result<String>| result.unwrap_err().kind();
        assert_eq!(
            refused(ask(&client.space, address, 80)),
            ErrorKind::ConnectionRefused
        );
        assert!(is_refused_udp(&ask_udp(&client.space, address, 80)));
    }
    vips.set(&vip(&[&backends[1]])).unwrap();
    assert!(
        ask(&client.space, vip(&[]).address, 80)
            .unwrap()
            .starts_with("b2")
    );
}

#[test]
fn affinity_keeps_a_client_at_its_backend() {
    if !possible() {
        return;
    }
    let Setup {
        client, backends, ..
    } = &setup();
    let all: Vec<&Container> = backends.iter().collect();
    let mut vips = Vips::open(&client.space.namespace()).unwrap();
    for one in [vip(&all), vip6(&all)] {
        let sticky = Vip {
            affinity: true,
            ..one
        };
        vips.set(&sticky).unwrap();
        let met = answers(6, || ask(&client.space, sticky.address, 80));
        assert_eq!(met.len(), 1, "{met:?}");
        // The others come and go.
        let mut backends = sticky.backends.clone();
        let name = met.keys().next().unwrap();
        let index = name[1..].parse::<usize>().unwrap() - 1;
        let gone = backends.remove((index + 1) % 3);
        let fewer = Vip {
            backends,
            ..sticky.clone()
        };
        vips.set(&fewer).unwrap();
        assert_eq!(
            answers(4, || ask(&client.space, sticky.address, 80))
                .keys()
                .next(),
            Some(name)
        );
        assert!(!fewer.backends.contains(&gone));
    }
}

#[test]
fn what_others_break_is_noticed_and_repaired() {
    if !possible() {
        return;
    }
    let Setup {
        client, backends, ..
    } = &setup();
    let all: Vec<&Container> = backends.iter().collect();
    let space = &client.space;
    let wanted = [vip(&all), vip6(&all[..1])];
    let mut vips = Vips::open(&space.namespace()).unwrap();
    assert!(vips.apply(&wanted).unwrap());
    assert!(!vips.apply(&wanted).unwrap(), "nothing to do");
    assert!(vips.is_intact().unwrap());
    for harm in [
        "delete table inet wharfie_vip",
        "flush chain inet wharfie_vip output",
        "insert rule inet wharfie_vip output accept",
        "delete element inet wharfie_vip vips4 { 10.1.9.9 }",
        "add chain inet wharfie_vip more",
        "flush map inet wharfie_vip any4",
        "add set inet wharfie_vip more { type ipv4_addr; }",
        "add element inet wharfie_vip backends4 { 10.1.9.9 . 99 : 10.9.9.9 }",
    ] {
        space.nft(harm);
        assert!(!vips.is_intact().unwrap(), "{harm}");
        assert!(vips.apply(&wanted).unwrap(), "{harm}");
        assert!(vips.is_intact().unwrap(), "{harm}");
        assert_eq!(
            answers(3, || ask(space, wanted[0].address, 80)),
            even(1),
            "{harm}"
        );
    }
    // Changes of others elsewhere are none of ours.
    space.nft("add table ip other");
    assert!(vips.is_intact().unwrap());
    assert!(!vips.apply(&wanted).unwrap());
    // A change of one service that meets a broken table repairs all of it.
    space.nft("delete table inet wharfie_vip");
    assert!(vips.set(&vip(&all[..2])).unwrap());
    assert!(ask(space, wanted[1].address, 80).unwrap().starts_with("b1"));
    // An agent that starts anew finds the table as it is.
    let mut again = Vips::open(&space.namespace()).unwrap();
    assert!(
        !again.apply(&[vip(&all[..2]), vip6(&all[..1])]).unwrap() || again.is_intact().unwrap()
    );
    // One that is not ours is left alone.
    space.nft("delete table inet wharfie_vip");
    space.nft("add table inet wharfie_vip");
    let mut third = Vips::open(&space.namespace()).unwrap();
    assert!(matches!(third.apply(&wanted), Err(Error::Foreign { .. })));
}
