//! Forwarding entries, and tasks behind addresses and published ports.

use wharfie_compose::model::Port;
use wharfie_core::Health;
use wharfie_core::extension::Affinity;
use wharfie_core::network::balance::balance;
use wharfie_core::network::overlay::overlays;
use wharfie_core::network::publish::publish;
use wharfie_core::network::{Attachment, Mac, Networks};

use super::world::{Small, ip, network, stack, v4};

fn two() -> Small {
    let mut s = Small::nodes(&["h1", "h2", "h3"]);
    s.stacks
        .push(stack("shop", &[("web", &["net"]), ("db", &["net"])]));
    s.networks = Networks::from([("shop_net".to_owned(), network("10.1.0.0/18", 42))]);
    s.vip("shop_net", "shop", "db", "10.1.63.2");
    s.runs("h1", "shop/web/1", &[("shop_net", "10.1.0.2")]);
    s.runs("h2", "shop/db/1", &[("shop_net", "10.1.0.66")]);
    s
}

#[test]
fn a_network_of_one_node_needs_no_vxlan() {
    let mut s = two();
    let all = s.look(overlays);
    let overlay = &all["shop_net"];
    assert_eq!(overlay.vni, 42);
    assert_eq!(
        overlay.remote.keys().collect::<Vec<_>>(),
        [&ip("10.1.0.66")]
    );
    assert_eq!(overlay.hosts(), [ip("192.168.0.2")].into());
    // A host that has addresses of its own on it, but no containers, is there as well.
    let own = Attachment {
        v4: Some(v4("10.1.0.129")),
        v6: None,
        mac: Some(Mac([2, 0, 0, 0, 0, 9])),
    };
    s.node("h3").own.insert("shop_net".to_owned(), own);
    assert_eq!(s.look(overlays)["shop_net"].remote.len(), 2);
    assert_eq!(s.look(overlays)["shop_net"].forwarding().len(), 2);
    // A gateway that all share is everybody's own.
    s.networks
        .get_mut("shop_net")
        .unwrap()
        .v4
        .as_mut()
        .unwrap()
        .gateway = Some(ip("10.1.0.129"));
    assert_eq!(s.look(overlays)["shop_net"].remote.len(), 1);
    // What does not answer is kept; what is not here at all needs nothing.
    s.node("h2").live = false;
    assert_eq!(s.look(overlays)["shop_net"].remote.len(), 1);
    s.node("h2").containers.clear();
    assert!(s.look(overlays).is_empty());
    let mut s = two();
    s.node("h1").containers.clear();
    assert!(s.look(overlays).is_empty());
}

#[test]
fn of_two_with_one_address_the_one_that_answers_counts() {
    let mut s = two();
    s.runs("h3", "shop/db/2", &[("shop_net", "10.1.0.66")]);
    for (away, there) in [("h2", "192.168.0.3"), ("h3", "192.168.0.2")] {
        for node in &mut s.nodes {
            node.live = node.name != away;
        }
        let all = s.look(overlays);
        assert_eq!(all["shop_net"].remote[&ip("10.1.0.66")].host, ip(there));
    }
}

#[test]
fn behind_an_address_are_ready_tasks() {
    let mut s = two();
    s.runs("h3", "shop/db/2", &[("shop_net", "10.1.0.130")]);
    let numbers = |s: &Small| {
        let all = s.look(balance);
        assert_eq!(all.len(), 1);
        let one = all.into_values().next().unwrap();
        (
            one.backends.iter().map(|b| b.number).collect::<Vec<_>>(),
            one.affinity,
        )
    };
    assert_eq!(numbers(&s), (vec![1, 2], Affinity::None));
    s.node("h2").containers[0].health = Health::Starting;
    assert_eq!(numbers(&s).0, [2]);
    s.node("h3").drained = true;
    assert_eq!(numbers(&s).0, [2]);
    s.node("h3").live = false;
    assert_eq!(numbers(&s).0, [0; 0]);
    let setting = serde_json::json!({"affinity": "client"});
    s.service("shop", "db")
        .extensions
        .insert("x-wharfie".to_owned(), setting);
    assert_eq!(numbers(&s).1, Affinity::Client);
    s.dnsrr("shop", "db");
    assert!(s.look(balance).is_empty());
}

fn port(published: &str, mode: &str) -> Port {
    Port {
        published: published.to_owned(),
        mode: mode.to_owned(),
        target: 80,
        protocol: "tcp".to_owned(),
        ..Port::default()
    }
}

#[test]
fn ports_are_published_on_every_node() {
    let mut s = two();
    s.service("shop", "db").ports = vec![
        port("8080", "ingress"),
        port("9090", "host"),
        port("", "ingress"),
    ];
    let table = s.look(publish);
    assert_eq!(table.ports.len(), 1);
    let (key, published) = table.ports.iter().next().unwrap();
    assert_eq!((key.port, published.target), (8080, 80));
    assert_eq!(published.network, "shop_net");
    assert_eq!(published.backends[0].v4, Some(v4("10.1.0.66")));
    // A node without any container of it takes part, to reach them.
    s.node("h1").containers.clear();
    assert_eq!(s.look(overlays)["shop_net"].remote.len(), 1);
    s.stacks.push(stack("blog", &[("web", &["=shop_net"])]));
    s.service("blog", "web").ports = vec![port("8080", "ingress"), port("81", "ingress")];
    let table = s.look(publish);
    assert_eq!(table.ports.len(), 2);
    assert_eq!(
        table.clashes,
        ["shop/db: port 8080/tcp is published by blog/web already"]
    );
}
