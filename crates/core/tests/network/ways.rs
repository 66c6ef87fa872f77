//! The way of a packet, hop by hop.

use serde_json::json;
use wharfie_core::network::encrypt::{Plan, Reason};
use wharfie_core::network::firewall::{Compiler, Protocol, Ruleset, firewall};
use wharfie_core::network::trace::{Facts, Question, Way};
use wharfie_core::network::{Attachment, Networks, Node, Running, trace};
use wharfie_core::report::NetworkFault;
use wharfie_core::{Health, State};

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

fn ask(s: &Small, from: &str, to: &str, port: u16, faults: &[(&str, NetworkFault)]) -> Way {
    let plan = |_: &Node, _: &Node| {
        Some(Plan::Encrypted {
            key: String::new(),
            next: None,
            port: 4790,
        })
    };
    ask_with(s, (from, to, port), faults, &plan)
}

fn ask_with(
    s: &Small,
    (from, to, port): (&str, &str, u16),
    faults: &[(&str, NetworkFault)],
    plan: &dyn Fn(&Node, &Node) -> Option<Plan>,
) -> Way {
    let outside = [ip("192.0.2.7")];
    let known = to == "example.org";
    let question = Question {
        from,
        to,
        port: Some((Protocol::Tcp, port)),
        outside: if known { &outside } else { &[] },
    };
    s.look(|w| {
        let rules = |_: &Node, c: &Running| -> Option<Ruleset> {
            let stack = w.stacks.iter().find(|s| s.project.name == c.stack)?;
            let service = stack.project.any_service(&c.service)?;
            let own = firewall(&stack.project, service).unwrap()?;
            Some(Compiler::new(w).compile(&own, stack, &[ip("10.1.0.1")].into()))
        };
        let faults = |node: &Node| {
            let own = faults.iter().filter(|(name, _)| *name == node.name);
            own.map(|(_, fault)| fault.clone()).collect()
        };
        let facts = Facts {
            firewall: &rules,
            plan,
            faults: &faults,
        };
        trace(w, &question, &facts)
    })
}

fn way(s: &Small, from: &str, to: &str, port: u16) -> Way {
    ask(s, from, to, port, &[])
}

fn told(way: &Way) -> String {
    let each = way.hops.iter();
    each.map(|h| format!("{}: {}\n", h.place, h.why)).collect()
}

fn last(way: &Way) -> &str {
    &way.hops.last().unwrap().why
}

#[track_caller]
fn says(way: &Way, parts: &[&str]) {
    let told = told(way);
    for part in parts {
        assert!(told.contains(part), "{told} lacks {part}");
    }
}

#[test]
fn a_way_is_told_hop_by_hop() {
    let mut s = two();
    let good = way(&s, "web", "db", 5432);
    assert!(good.arrives(), "{good:#?}");
    says(
        &good,
        &[
            "names: db is 10.1.63.2, the service's own address",
            "address of shop/db: 10.1.63.2 leads to task 1 on h2",
            "both are on shop_net: 10.1.0.2 to 10.1.0.66",
            "node h1 to h2: VXLAN 42 over 192.168.0.1 to 192.168.0.2, encrypted, to 02:00:00:01:00:42",
            "firewall of shop/db/1, ingress: it is not filtered",
        ],
    );
    let target = good.target.as_ref().unwrap();
    assert_eq!(
        (target.node.as_str(), target.address),
        ("id-h2", ip("10.1.0.66"))
    );
    assert_eq!(
        last(&way(&s, "web", "gone", 1)),
        "`gone` is no container, service, node or address"
    );
    s.node("h2").containers[0]
        .networks
        .get_mut("shop_net")
        .unwrap()
        .mac = None;
    assert!(last(&way(&s, "web", "db", 5432)).contains("has not said its hardware address"));
    s.node("h2").address = None;
    let to_task = |s: &Small| last(&way(s, "web", "shop/db/1", 5432)).to_owned();
    assert_eq!(to_task(&s), "no address of h2 is known");
    s.node("h2").live = false;
    assert_eq!(to_task(&s), "node h2 does not answer");
    s.node("h2").containers[0].state = State::Exited;
    assert_eq!(to_task(&s), "it does not run: it is exited");
    assert_eq!(
        last(&way(&s, "web", "db", 5432)),
        "10.1.63.2 refuses connections: no task of shop/db is ready (1 on h2: node h2 does not answer)"
    );
}

#[test]
fn the_rule_that_decides_is_named() {
    let mut s = two();
    let rules = json!({"firewall": {"ingress": [{"ports": ["5432"], "service": ["web"]}]}});
    let db = s.service("shop", "db");
    db.extensions.insert("x-wharfie".to_owned(), rules);
    let accepted = way(&s, "shop-web-1", "db", 5432);
    assert!(accepted.arrives());
    says(
        &accepted,
        &[
            "x-wharfie.firewall.ingress[0] (tcp, udp; ports 5432; 10.1.0.2/32) accepts 5432/tcp from 10.1.0.2",
        ],
    );
    let dropped = way(&s, "web", "db", 22);
    assert_eq!(
        last(&dropped),
        "the default of x-wharfie.firewall: no rule of ingress matches, and it drops 22/tcp from 10.1.0.2"
    );
    assert_eq!(
        dropped.stopped().unwrap().place,
        "firewall of shop/db/1, ingress"
    );
}

#[test]
fn a_service_is_its_ready_tasks() {
    let mut s = two();
    s.runs("h3", "shop/db/2", &[("shop_net", "10.1.0.130")])
        .health = Health::Unhealthy;
    // A name that leads to others does not keep a packet from an address.
    let direct = way(&s, "web", "db/2", 80);
    assert!(direct.arrives());
    says(
        &direct,
        &["db does not lead to it: it is unhealthy; 2.db leads to it"],
    );
    s.runs("h3", "shop/db/3", &[("shop_net", "10.1.0.131")]);
    let fault = NetworkFault {
        network: "shop_net".to_owned(),
        what: "somebody else's VXLAN is in the way".to_owned(),
        ..NetworkFault::default()
    };
    let partly = ask(&s, "web", "db", 80, &[("h3", fault)]);
    assert!(partly.arrives());
    says(&partly, &["leads to 2 tasks in turn: 1 on h2, 3 on h3"]);
    assert_eq!(partly.notes.len(), 2);
    assert_eq!(
        partly.notes[1],
        "shop/db/3 is not reached: node h1 to h3: node h3 says: somebody else's VXLAN is in the way"
    );
    // Without an address of its own the name stands for those that are ready.
    s.dnsrr("shop", "db");
    s.vips.clear();
    for node in ["h2", "h3"] {
        s.node(node)
            .containers
            .iter_mut()
            .for_each(|c| c.health = Health::Starting);
    }
    let none = way(&s, "web", "db", 80);
    assert!(!none.arrives());
    says(
        &none,
        &[
            "names: db is answered without an address: no task of it is ready (1 on h2: its health check has not passed yet",
        ],
    );
}

#[test]
fn nodes_that_send_each_other_nothing_are_told() {
    let s = two();
    let on = |from: &str, to: &str, plan: Plan| {
        let plan = |a: &Node, b: &Node| {
            Some(plan.clone()).filter(|_| (&a.name[..], &b.name[..]) == (from, to))
        };
        ask_with(&s, ("web", "db", 80), &[], &plan)
    };
    says(&on("h1", "h2", Plan::Clear), &["in clear"]);
    for (reason, why) in [
        (
            Reason::OtherCannot,
            "h1 demands encryption (`network-encrypt`), and h2 has no key",
        ),
        (
            Reason::OwnCannot,
            "h2 demands encryption (`network-encrypt`), and h1 has no key",
        ),
    ] {
        let way = on("h1", "h2", Plan::Blocked(reason));
        assert!(!way.arrives());
        says(&way, &[&format!("node h1 to h2: {why}")]);
    }
    let between = NetworkFault {
        between: true,
        what: "it is nowhere".to_owned(),
        ..NetworkFault::default()
    };
    let way = ask(&s, "web", "db", 80, &[("h2", between)]);
    assert!(!way.arrives());
    says(&way, &["node h1 to h2: node h2 says: it is nowhere"]);
    let mut s = two();
    let same = s.node("h1").address;
    s.node("h2").address = same;
    let way = ask(&s, "web", "db", 80, &[]);
    assert!(!way.arrives());
    says(&way, &["node h1 to h2: both nodes say that"]);
}

#[test]
fn addresses_are_whoever_has_them() {
    let mut s = two();
    assert!(way(&s, "10.1.0.2", "10.1.0.66", 80).arrives());
    says(
        &way(&s, "web", "10.1.63.2", 80),
        &["address of shop/db: 10.1.63.2 leads to task 1"],
    );
    let out = way(&s, "web", "example.org", 443);
    assert!(out.arrives());
    says(&out, &["192.0.2.7 is outside"]);
    assert!(!way(&s, "192.0.2.7", "web", 80).arrives());
    // The asker's own stack goes first.
    s.stacks.push(stack("blog", &[("db", &["=shop_net"])]));
    s.runs("h1", "blog/db/1", &[("shop_net", "10.1.0.3")]);
    says(&way(&s, "web", "db", 80), &["10.1.0.2 to 10.1.0.66"]);
    says(
        &way(&s, "web", "blog/db", 80),
        &["db.blog is 10.1.0.3", "10.1.0.2 to 10.1.0.3"],
    );
    s.networks.get_mut("shop_net").unwrap().internal = true;
    assert_eq!(
        last(&way(&s, "web", "example.org", 443)),
        "shop/web/1 on h1 is on internal networks only, which have no way out: shop_net"
    );
}

#[test]
fn hosts_reach_what_they_have_a_part_of() {
    let mut s = two();
    let own = |address| Attachment {
        v4: Some(v4(address)),
        ..Attachment::default()
    };
    s.node("h1").own = [("shop_net".to_owned(), own("10.1.0.1"))].into();
    let there = way(&s, "h1", "db", 80);
    assert!(there.arrives());
    says(
        &there,
        &["node h1: it has 10.1.0.1 on shop_net: to 10.1.0.66"],
    );
    assert!(last(&way(&s, "h3", "db", 80)).contains("no part of a network"));
    says(&way(&s, "web", "host", 80), &["10.1.0.1 is its own host"]);
    says(
        &way(&s, "web", "h2", 80),
        &["it leaves h1 as that host's, to 192.168.0.2"],
    );
    s.runs("h2", "agent", &[("host", "0.0.0.0")]);
    assert!(way(&s, "web", "agent", 80).arrives());
}

#[test]
fn who_shares_no_network_is_told_which_they_are_on() {
    let mut s = two();
    s.runs("h1", "probe", &[("other", "10.3.0.2")]);
    let none = way(&s, "probe", "db", 1);
    assert_eq!(
        last(&none),
        "no network in common: probe on h1 is on other, shop/db/1 on h2 on shop_net"
    );
    // One that is only each node's own is not in common.
    s.runs("h2", "probe2", &[("other", "10.3.0.2")]);
    assert!(last(&way(&s, "probe", "probe2", 1)).contains("other is each node's own"));
    // Who joins a container is where that is.
    let id = s.node("h1").containers[0].id.clone();
    s.runs("h1", "side", &[]).joined = id;
    assert!(way(&s, "side", "db", 1).arrives());
    assert!(last(&way(&s, "side", "web", 1)).contains("127.0.0.1"));
}
