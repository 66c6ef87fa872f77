//! Firewalls: from the file to plain rules, and what they let pass.

use std::collections::BTreeSet;

use serde_json::json;
use wharfie_core::network::firewall::{
    Action, Compiler, Line, Match, Packet, Protocol, Ruleset, firewall,
};
use wharfie_core::network::{Networks, World};

use super::world::{Small, ip, network, stack};

fn cluster(settings: serde_json::Value) -> Small {
    let mut s = Small::nodes(&["h1", "h2"]);
    s.stacks.push(stack(
        "shop",
        &[("vpn", &["net"]), ("db", &["net", "back"])],
    ));
    s.networks = Networks::from([
        ("shop_net".to_owned(), network("10.1.0.0/18", 1)),
        ("shop_back".to_owned(), network("10.2.0.0/18", 2)),
    ]);
    s.vip("shop_net", "shop", "db", "10.1.63.9");
    s.runs("h1", "shop/vpn/1", &[("shop_net", "10.1.0.2")]);
    s.runs(
        "h2",
        "shop/db/1",
        &[("shop_net", "10.1.0.66"), ("shop_back", "10.2.0.66")],
    );
    let extensions = &mut s.service("shop", "vpn").extensions;
    extensions.insert("x-wharfie".to_owned(), json!({"firewall": settings}));
    s
}

fn compiled(s: &Small) -> Ruleset {
    s.look(|w: &World| {
        let project = &w.stacks[0].project;
        let own = firewall(project, &project.services["vpn"])
            .unwrap()
            .unwrap();
        Compiler::new(w).compile(&own, w.stacks[0], &BTreeSet::from([ip("10.1.0.1")]))
    })
}

fn packet(protocol: Protocol, port: u16, peer: &str, interface: &'static str) -> Packet<'static> {
    Packet {
        protocol,
        port,
        peer: ip(peer),
        interface,
    }
}

/// The rules of the founding note: a container that talks through its VPN only.
#[test]
fn vpn_only() {
    let s = cluster(json!({
        "egress": [
            {"interface": ["tun0"]},
            {"protocol": ["tcp", "udp"], "ports": ["1198", "53"]},
            {"protocol": "tcp", "ports": 22},
        ],
    }));
    let rules = compiled(&s);
    assert_eq!(rules.ingress, None);
    let chain = rules.egress.unwrap();
    assert!(chain.lines.iter().any(|l| l.matches == Match::Established));
    let out = |protocol, port, interface| {
        chain.verdict(&packet(protocol, port, "203.0.113.1", interface))
    };
    use Protocol::{Icmp, Tcp, Udp};
    assert_eq!(out(Tcp, 443, "eth0"), (Action::Drop, "default"));
    assert_eq!(out(Tcp, 443, "tun0"), (Action::Accept, "egress[0]"));
    assert_eq!(out(Udp, 1198, "eth0"), (Action::Accept, "egress[1]"));
    assert_eq!(out(Tcp, 53, "eth0"), (Action::Accept, "egress[1]"));
    assert_eq!(out(Tcp, 22, "eth0"), (Action::Accept, "egress[2]"));
    assert_eq!(out(Udp, 22, "eth0"), (Action::Drop, "default"));
    assert_eq!(out(Icmp, 22, "eth0"), (Action::Drop, "default"));
    assert_eq!(out(Tcp, 1, "lo"), (Action::Accept, "loopback"));
    let dns = chain.verdict(&packet(Udp, 53, "10.1.0.1", "eth0"));
    assert_eq!(dns, (Action::Accept, "dns"));
}

#[test]
fn services_and_networks_are_addresses() {
    let s = cluster(json!({
        "default": "accept",
        "dns": false,
        "ingress": [
            {"service": "db", "network": "net"},
            {"network": "back", "ports": "8000-8010", "action": "accept"},
            {"cidr": ["192.0.2.0/24", "2001:db8::1"]},
            {"action": "drop"},
        ],
    }));
    let rules = compiled(&s);
    assert_eq!(rules.egress, None);
    let chain = rules.ingress.unwrap();
    use Protocol::{Sctp, Tcp, Udp};
    let from = |protocol, port, peer| chain.verdict(&packet(protocol, port, peer, "eth0")).1;
    assert_eq!(from(Tcp, 1, "10.1.0.66"), "ingress[0]");
    assert_eq!(from(Tcp, 1, "10.1.63.9"), "ingress[0]");
    assert_eq!(from(Tcp, 1, "10.2.0.66"), "ingress[3]");
    assert_eq!(from(Udp, 8010, "10.2.9.9"), "ingress[1]");
    assert_eq!(from(Udp, 8011, "10.2.9.9"), "ingress[3]");
    assert_eq!(from(Sctp, 8010, "10.2.9.9"), "ingress[3]");
    assert_eq!(from(Tcp, 1, "192.0.2.9"), "ingress[2]");
    assert_eq!(from(Tcp, 1, "2001:db8::1"), "ingress[2]");
    assert_eq!(from(Tcp, 1, "2001:db8::2"), "ingress[3]");
}

/// A service without tasks is nobody, not everybody.
#[test]
fn nobody_is_not_everybody() {
    let mut s = cluster(json!({"ingress": [{"service": "db"}]}));
    s.node("h2").containers.clear();
    s.vips.clear();
    let chain = compiled(&s).ingress.unwrap();
    let stranger = packet(Protocol::Tcp, 1, "10.1.0.66", "eth0");
    assert_eq!(chain.verdict(&stranger), (Action::Drop, "default"));
    // One that just starts may connect.
    s.runs("h1", "shop/db/2", &[("shop_net", "10.1.0.66")])
        .health = wharfie_core::Health::Starting;
    let chain = compiled(&s).ingress.unwrap();
    assert_eq!(chain.verdict(&stranger), (Action::Accept, "ingress[0]"));
}

#[test]
fn without_rules_both_directions_are_closed() {
    let rules = compiled(&cluster(json!({})));
    for chain in [rules.ingress.unwrap(), rules.egress.unwrap()] {
        let any = packet(Protocol::Tcp, 443, "203.0.113.1", "eth0");
        assert_eq!(chain.verdict(&any).0, Action::Drop);
    }
    let chain = Ruleset::closed().ingress.unwrap();
    assert_eq!(
        chain.verdict(&packet(Protocol::Tcp, 1, "::1", "lo")).0,
        Action::Drop
    );
}

#[test]
fn interfaces_may_end_with_a_star() {
    let chain = compiled(&cluster(json!({"egress": [{"interface": "wg*"}]})))
        .egress
        .unwrap();
    let by = |interface| {
        chain
            .verdict(&packet(Protocol::Tcp, 1, "203.0.113.1", interface))
            .0
    };
    assert_eq!((by("wg0"), by("eth0")), (Action::Accept, Action::Drop));
}

/// The stack's firewall is not for who is on the network of others: it would be theirs.
#[test]
fn who_has_no_network_of_its_own_has_no_firewall() {
    let mut s = cluster(json!({}));
    for (mode, has) in [
        ("", true),
        ("bridge", true),
        ("host", false),
        ("service:db", false),
        ("container:other", false),
    ] {
        s.service("shop", "vpn").network_mode = mode.to_owned();
        let project = &s.stacks[0].project;
        let own = firewall(project, &project.services["vpn"]).unwrap();
        assert_eq!(own.is_some(), has, "{mode}");
    }
}

#[test]
fn resolvers_may_be_asked_unless_it_is_said() {
    for (settings, may) in [
        (json!({"egress": []}), true),
        (json!({"egress": [], "dns": false}), false),
    ] {
        let rules = compiled(&cluster(settings));
        let asks = |line: &&Line| matches!(&line.matches, Match::Fields { ports, .. } if ports.iter().any(|p| p.first == 53));
        let egress = rules.egress.as_ref().unwrap();
        assert_eq!(egress.lines.iter().any(|l| asks(&l)), may);
    }
}

/// What is not understood is an error, never a rule with less in it.
#[test]
fn what_is_not_understood_is_refused() {
    for bad in [
        json!({"egress": [{"colour": "red"}]}),
        json!({"egress": [{"protocol": "tcpp"}]}),
        json!({"egress": [{"ports": "90-80"}]}),
        json!({"egress": [{"cidr": "10.0.0.0/99"}]}),
        json!({"egress": [{"interface": {}}]}),
        json!({"egress": {}}),
        json!({"default": "reject"}),
        json!({"default": null}),
        json!({"dns": "maybe"}),
        json!([]),
    ] {
        let s = cluster(bad.clone());
        let project = &s.stacks[0].project;
        let own = firewall(project, &project.services["vpn"]);
        assert!(own.is_err(), "{bad}: {own:?}");
    }
    let s = cluster(json!({}));
    let project = &s.stacks[0].project;
    assert_eq!(firewall(project, &project.services["db"]), Ok(None));
}
