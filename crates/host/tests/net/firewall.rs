//! Firewalls in containers' namespaces.

use std::io::ErrorKind;
use std::time::Duration;

use wharfie_host::net::{
    Action, ContainerFirewall, Drops, Firewall, FirewallRule, Hits, Protocol, Way,
};

use crate::lab::{Container, Host, Lan, possible};
use crate::talk::{ask, ask_udp, connect, opens, serve};

struct Setup {
    _lan: Lan,
    _host: Host,
    own: Container,
    peer: Container,
    stranger: Container,
}

/// A container with a firewall to come, and two others; all serve on 80 and 81.
fn setup() -> Setup {
    let mut lan = Lan::new();
    let host = lan.host();
    host.network(1);
    let [own, peer, stranger] =
        [(10, "own"), (20, "peer"), (30, "stranger")].map(|(last, name)| {
            let container = host.container(1, last);
            for port in [53, 80, 81, 1198] {
                serve(&container.space, port, name);
            }
            container
        });
    Setup {
        _lan: lan,
        _host: host,
        own,
        peer,
        stranger,
    }
}

fn open() -> Firewall {
    Firewall {
        name: "demo-own-1".into(),
        ingress: Vec::new(),
        egress: Vec::new(),
        default_ingress: Action::Accept,
        default_egress: Action::Accept,
        log: false,
    }
}

fn closed() -> Firewall {
    Firewall {
        default_ingress: Action::Drop,
        default_egress: Action::Drop,
        ..open()
    }
}

fn any(action: Action) -> FirewallRule {
    FirewallRule {
        protocol: None,
        ports: Vec::new(),
        peers: Vec::new(),
        interface: None,
        action,
    }
}

fn firewall(container: &Container) -> ContainerFirewall {
    ContainerFirewall::open(&container.space.namespace()).unwrap()
}

#[test]
fn defaults_close_and_open() {
    if !possible() {
        return;
    }
    let Setup { own, peer, .. } = &setup();
    let mut wall = firewall(own);
    let (out, into) = (
        || opens(&own.space, peer.address(), 80) && opens(&own.space, peer.address6(), 80),
        || opens(&peer.space, own.address(), 80) || opens(&peer.space, own.address6(), 80),
    );
    assert!(wall.apply(&open()).unwrap());
    assert!(out() && into());
    let mut talk = connect(&peer.space, own.address(), 80).unwrap();
    talk.line().unwrap();
    assert!(wall.apply(&closed()).unwrap());
    assert!(!out() && !into());
    assert_eq!(
        talk.say("still there?").unwrap(),
        "own still there?",
        "what is open stays open"
    );
    // The loopback device, and so Docker's resolver, is none of the firewall's business.
    assert!(opens(&own.space, own.address(), 80) && opens(&own.space, [127, 0, 0, 11].into(), 80));
    wall.apply(&Firewall {
        default_egress: Action::Accept,
        ..closed()
    })
    .unwrap();
    assert!(out() && !into(), "answers come in");
    wall.apply(&Firewall {
        default_ingress: Action::Accept,
        ..closed()
    })
    .unwrap();
    assert!(
        !opens(&own.space, peer.address(), 80) && into(),
        "answers go out"
    );
    wall.purge().unwrap();
    assert!(out() && into());
}

#[test]
fn rules_match_protocol_ports_and_peers_in_order() {
    if !possible() {
        return;
    }
    let Setup {
        own,
        peer,
        stranger,
        ..
    } = &setup();
    let mut wall = firewall(own);
    let peers = vec![
        format!("{}/32", peer.address()).parse().unwrap(),
        "10.99.0.0/16".parse().unwrap(),
        format!("{}/128", peer.address6()).parse().unwrap(),
    ];
    let ports = vec![(80, 80), (1000, 2000)];
    let tcp = FirewallRule {
        protocol: Some(Protocol::Tcp),
        ports,
        peers,
        ..any(Action::Accept)
    };
    let ingress = vec![
        FirewallRule {
            ports: vec![(1198, 1198)],
            ..any(Action::Drop)
        },
        tcp.clone(),
        FirewallRule {
            protocol: Some(Protocol::Udp),
            ports: vec![(81, 90)],
            ..any(Action::Accept)
        },
        FirewallRule {
            protocol: Some(Protocol::Icmp),
            ..any(Action::Accept)
        },
    ];
    wall.apply(&Firewall {
        ingress,
        ..closed()
    })
    .unwrap();
    for address in [own.address(), own.address6()] {
        let tcp = |from: &Container, port| opens(&from.space, address, port);
        assert!(tcp(peer, 80), "allowed to {address}");
        assert!(!tcp(peer, 81), "another port");
        assert!(!tcp(peer, 1198), "dropped by an earlier rule");
        assert!(!tcp(stranger, 80), "another peer");
        let udp = |port| ask_udp(&stranger.space, address, port).is_ok();
        assert!(udp(81) && !udp(80));
        assert!(stranger.space.reaches(&address.to_string()));
    }
    let hits = wall.hits().unwrap();
    let of = |rule: Option<usize>| {
        let found = hits
            .iter()
            .find(|hit| (hit.way, hit.rule) == (Way::Ingress, rule));
        found.map_or(0, |hit: &Hits| hit.packets)
    };
    assert!(of(Some(0)) >= 2 && of(None) >= 6, "{hits:?}");
    assert_eq!(
        (of(Some(1)), of(Some(2)), of(Some(3))),
        (2, 2, 2),
        "{hits:?}"
    );
}

/// "Only through the VPN": everything by `tun0`, and the way to build it.
#[test]
fn a_container_that_may_only_use_its_vpn() {
    if !possible() {
        return;
    }
    let Setup {
        own,
        peer,
        stranger,
        ..
    } = &setup();
    let to = |protocol, port| FirewallRule {
        protocol,
        ports: vec![(port, port)],
        ..any(Action::Accept)
    };
    let vpn = Firewall {
        egress: vec![
            FirewallRule {
                interface: Some("tun0".into()),
                ..any(Action::Accept)
            },
            to(None, 1198),
            FirewallRule {
                peers: vec![peer.address().into()],
                ..to(None, 53)
            },
        ],
        ..closed()
    };
    let mut wall = firewall(own);
    wall.apply(&vpn).unwrap();
    let tcp = |to: &Container, port| opens(&own.space, to.address(), port);
    assert!(tcp(stranger, 1198) && ask_udp(&own.space, stranger.address(), 1198).is_ok());
    assert!(!tcp(stranger, 80) && !tcp(stranger, 53));
    assert!(
        tcp(peer, 53) && ask_udp(&own.space, peer.address(), 53).is_ok(),
        "the resolver"
    );
    assert!(!tcp(peer, 80));
    // The device may come and go.
    own.space.ip("tuntap add tun0 mode tun");
    own.space.ip("addr add 10.200.0.1/24 dev tun0");
    own.space.ip("link set tun0 up");
    let sent = || own.space.ip("-s link show tun0");
    assert!(!own.space.reaches("10.200.0.2"), "nobody is there");
    assert!(!sent().is_empty());
    let hits = wall.hits().unwrap();
    let tun = hits
        .iter()
        .find(|hit| (hit.way, hit.rule) == (Way::Egress, Some(0)));
    assert!(tun.unwrap().packets > 0, "{hits:?}");
    // A neighbour cannot use it as a router: what is sent on is asked about as well.
    own.space.sysctl("net.ipv4.ip_forward", "1");
    stranger
        .space
        .ip(&format!("route replace 192.0.2.0/24 via {}", own.address()));
    assert!(!stranger.space.reaches("192.0.2.1"));
}

#[test]
fn what_others_break_is_repaired_and_counters_survive_an_agent() {
    if !possible() {
        return;
    }
    let Setup { own, peer, .. } = &setup();
    let rule = FirewallRule {
        protocol: Some(Protocol::Tcp),
        ports: vec![(80, 80)],
        ..any(Action::Accept)
    };
    let wanted = Firewall {
        ingress: vec![rule],
        log: true,
        ..closed()
    };
    let mut wall = firewall(own);
    wall.apply(&wanted).unwrap();
    assert!(!wall.apply(&wanted).unwrap());
    ask(&peer.space, own.address(), 80).unwrap();
    let hits = wall.hits().unwrap();
    // An agent that starts anew leaves what is right.
    let mut again = firewall(own);
    assert!(!again.apply(&wanted).unwrap());
    assert_eq!(again.hits().unwrap(), hits);
    for harm in [
        "flush chain inet wharfie_firewall ingress",
        "chain inet wharfie_firewall input { policy accept; }",
        "delete table inet wharfie_firewall",
    ] {
        own.space.nft(harm);
        assert!(!again.is_intact().unwrap(), "{harm}");
        assert!(again.apply(&wanted).unwrap(), "{harm}");
        assert!(!opens(&peer.space, own.address(), 81), "{harm}");
        assert!(opens(&peer.space, own.address(), 80), "{harm}");
    }
    // An invalid one changes nothing.
    let name = "a-name-that-is-too-long".to_owned();
    let rule = FirewallRule {
        interface: Some(name),
        ..any(Action::Accept)
    };
    assert!(
        again
            .apply(&Firewall {
                egress: vec![rule],
                ..open()
            })
            .is_err()
    );
    assert!(!opens(&peer.space, own.address(), 81));
    let refused = ask(&own.space, peer.address(), 80).unwrap_err().kind();
    assert!(
        matches!(refused, ErrorKind::TimedOut | ErrorKind::WouldBlock),
        "{refused}"
    );
}

#[test]
fn what_is_dropped_is_told_if_asked_for() {
    if !possible() {
        return;
    }
    let Setup { own, peer, .. } = &setup();
    let mut drops = Drops::open(&own.space.namespace()).unwrap();
    let mut wall = firewall(own);
    wall.apply(&closed()).unwrap();
    assert!(!opens(&peer.space, own.address(), 80));
    assert_eq!(drops.wait(Duration::from_millis(50)).unwrap(), []);
    wall.apply(&Firewall {
        log: true,
        ..closed()
    })
    .unwrap();
    assert!(!opens(&peer.space, own.address(), 80));
    // The kernel gathers them for a second.
    let told = drops.wait(Duration::from_secs(10)).unwrap();
    let first = told.first().unwrap();
    assert_eq!(
        (first.rule.as_str(), first.protocol),
        ("demo-own-1 ingress default", 6)
    );
    assert_eq!(first.source.ip(), peer.address());
    assert_eq!(first.destination, (own.address(), 80).into());
}
