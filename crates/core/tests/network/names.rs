//! What a container finds by name, and what it does not.

use std::collections::BTreeSet;

use proptest::prelude::*;
use wharfie_compose::model::{Port, ServiceNetwork};
use wharfie_core::network::{Answer, Data, Kind, Networks, Record};
use wharfie_core::{Health, State};

use super::world::{Small, ip, network, stack};

/// Three tiers over three hosts: the front sees the api, the api sees the database.
fn tiers() -> Small {
    let mut s = Small::nodes(&["h1", "h2", "h3"]);
    s.stacks.push(stack(
        "shop",
        &[
            ("web", &["front"]),
            ("api", &["front", "back"]),
            ("db", &["back"]),
        ],
    ));
    s.networks = Networks::from([
        ("shop_front".to_owned(), network("10.1.0.0/18", 1)),
        ("shop_back".to_owned(), network("10.2.0.0/18", 2)),
    ]);
    s.vip("shop_front", "shop", "web", "10.1.63.1");
    s.vip("shop_front", "shop", "api", "10.1.63.2");
    s.vip("shop_back", "shop", "api", "10.2.63.2");
    s.vip("shop_back", "shop", "db", "10.2.63.3");
    s.runs("h1", "shop/web/1", &[("shop_front", "10.1.0.2")]);
    s.runs(
        "h2",
        "shop/api/1",
        &[("shop_front", "10.1.0.66"), ("shop_back", "10.2.0.66")],
    );
    s.runs("h3", "shop/db/1", &[("shop_back", "10.2.0.130")]);
    s
}

fn ok(addresses: &[&str]) -> Result<Vec<String>, Answer> {
    Ok(addresses.iter().map(|a| (*a).to_owned()).collect())
}

#[test]
fn those_who_share_a_network_find_each_other_and_nobody_else() {
    let s = tiers();
    let web = "10.1.0.2";
    for name in ["api", "api.shop", "api.shop.internal", "api.shop_front"] {
        assert_eq!(s.finds(web, name), ok(&["10.1.63.2"]), "{name}");
    }
    for name in [
        "tasks.api",
        "tasks.api.shop.internal",
        "1.api",
        "1.api.shop",
        "shop-api-1",
    ] {
        assert_eq!(s.finds(web, name), ok(&["10.1.0.66"]), "{name}");
    }
    assert_eq!(s.finds(web, "web"), ok(&["10.1.63.1"]));
    // What there is but not for it: neither found nor asked for outside.
    for name in [
        "db",
        "db.shop",
        "db.shop.internal",
        "tasks.db",
        "1.db",
        "nobody.shop.internal",
    ] {
        assert_eq!(s.finds(web, name), Err(Answer::NoName), "{name}");
    }
    for name in [
        "example.org",
        "host",
        "nobody",
        "9.nobody",
        "api.blog",
        "metadata.google.internal",
    ] {
        assert_eq!(s.finds(web, name), Err(Answer::Elsewhere), "{name}");
    }
    assert_eq!(s.finds(web, "internal"), Err(Answer::Nothing));
    assert_eq!(s.finds(web, "9.api"), Err(Answer::NoName));
    // The api is seen by its address on the network that both are on, though h1 looks.
    assert_eq!(s.ask(web, "api", Kind::Aaaa), Answer::Nothing);
    assert_eq!(s.ask(web, "api", Kind::Other), Answer::Nothing);
    assert_eq!(s.ask(web, "db", Kind::Other), Answer::NoName);
}

#[test]
fn the_middle_sees_both_sides() {
    let mut s = tiers();
    s.nodes.rotate_left(1);
    assert_eq!(s.nodes[0].name, "h2");
    for from in ["10.1.0.66", "10.2.0.66"] {
        assert_eq!(s.finds(from, "web"), ok(&["10.1.63.1"]));
        assert_eq!(s.finds(from, "db"), ok(&["10.2.63.3"]));
        // Itself on both of its networks.
        assert_eq!(s.finds(from, "api"), ok(&["10.1.63.2", "10.2.63.2"]));
        assert_eq!(s.finds(from, "api.shop_back"), ok(&["10.2.63.2"]));
    }
}

#[test]
fn somebody_new_sees_the_network_it_is_on_and_strangers_nothing() {
    let s = tiers();
    assert_eq!(s.finds("10.1.9.9", "api"), ok(&["10.1.63.2"]));
    assert_eq!(s.finds("10.1.9.9", "db.shop"), Err(Answer::NoName));
    assert_eq!(s.finds("::ffff:10.1.0.2", "api"), ok(&["10.1.63.2"]));
    assert!(s.catalog().asker(ip("192.0.2.1")).is_none());
}

/// Three replicas of an api that has no address of its own.
fn replicas() -> Small {
    let mut s = tiers();
    s.dnsrr("shop", "api");
    s.runs("h1", "shop/api/2", &[("shop_front", "10.1.0.3")]);
    s.runs("h3", "shop/api/3", &[("shop_front", "10.1.0.131")]);
    s
}

const WEB: &str = "10.1.0.2";

#[test]
fn only_ready_tasks_are_answered() {
    let mut s = replicas();
    assert_eq!(
        s.finds(WEB, "api"),
        ok(&["10.1.0.3", "10.1.0.66", "10.1.0.131"])
    );
    let task = |s: &mut Small, change: &dyn Fn(&mut wharfie_core::network::Running)| {
        let all = s.nodes.iter_mut().flat_map(|n| &mut n.containers);
        change(
            all.into_iter()
                .find(|c| c.service == "api" && c.number == 3)
                .unwrap(),
        );
    };
    let left = ok(&["10.1.0.3", "10.1.0.66"]);
    for (health, state, dying) in [
        (Health::Unhealthy, State::Running, false),
        (Health::Starting, State::Running, false),
        (Health::Healthy, State::Running, true),
        (Health::None, State::Exited, false),
        (Health::None, State::Paused, false),
        (Health::None, State::Created, false),
    ] {
        task(&mut s, &|c| {
            (c.health, c.state, c.dying) = (health, state, dying)
        });
        assert_eq!(s.finds(WEB, "api"), left, "{health:?} {state:?} {dying}");
        // One task is found as long as it runs.
        let one = s.finds(WEB, "3.api");
        match state {
            State::Running => assert_eq!(one, ok(&["10.1.0.131"])),
            _ => assert_eq!(one, Err(Answer::Nothing)),
        }
    }
    task(&mut s, &|c| {
        (c.health, c.state, c.dying) = (Health::Healthy, State::Running, false)
    });
    assert_eq!(
        s.finds(WEB, "healthy.api.shop.internal"),
        ok(&["10.1.0.131"])
    );
    s.node("h3").live = false;
    assert_eq!(s.finds(WEB, "api"), left);
    assert_eq!(s.finds(WEB, "3.api"), Err(Answer::Nothing));
    assert_eq!(s.finds(WEB, "healthy.api"), Err(Answer::Nothing));
    s.node("h2").drained = true;
    assert_eq!(s.finds(WEB, "api"), ok(&["10.1.0.3"]));
    // If it is the last one it still serves.
    s.node("h1").containers.retain(|c| c.service != "api");
    assert_eq!(s.finds(WEB, "api"), ok(&["10.1.0.66"]));
    s.node("h2").containers.clear();
    // The name is there, and leads nowhere for now.
    assert_eq!(s.finds(WEB, "api"), Err(Answer::Nothing));
}

#[test]
fn nearest_is_the_own_node_then_the_own_place() {
    let mut s = replicas();
    assert_eq!(s.finds(WEB, "nearest.api"), ok(&["10.1.0.3"]));
    s.node("h1").containers.retain(|c| c.service != "api");
    let all = ok(&["10.1.0.66", "10.1.0.131"]);
    assert_eq!(s.finds(WEB, "nearest.api.shop"), all);
    s.node("h1").zone = "north".to_owned();
    assert_eq!(s.finds(WEB, "nearest.api"), all);
    s.node("h3").zone = "north".to_owned();
    assert_eq!(s.finds(WEB, "nearest.api"), ok(&["10.1.0.131"]));
}

#[test]
fn a_task_that_is_not_ready_finds_itself() {
    let mut s = replicas();
    let own = s
        .node("h1")
        .containers
        .iter_mut()
        .find(|c| c.service == "api");
    own.unwrap().health = Health::Starting;
    assert_eq!(
        s.finds("10.1.0.3", "api"),
        ok(&["10.1.0.3", "10.1.0.66", "10.1.0.131"])
    );
    assert_eq!(s.finds(WEB, "api"), ok(&["10.1.0.66", "10.1.0.131"]));
}

#[test]
fn answers_begin_with_another_each_time() {
    let s = replicas();
    let catalog = s.catalog();
    let asker = catalog.asker(ip(WEB)).unwrap();
    let first: BTreeSet<String> = (0..3)
        .map(|spin| match catalog.lookup(&asker, "api", Kind::A, spin) {
            Answer::Found { records, ttl, .. } => {
                assert_eq!((records.len(), ttl), (3, 0));
                format!("{:?}", records[0])
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(first.len(), 3);
}

#[test]
fn ports_have_names() {
    let mut s = replicas();
    let port = |name: &str, app: &str, target| Port {
        name: name.to_owned(),
        app_protocol: app.to_owned(),
        target,
        protocol: "tcp".to_owned(),
        ..Port::default()
    };
    s.service("shop", "api").ports = vec![port("Rest", "http", 8080), port("", "", 9000)];
    s.service("shop", "api").expose = vec!["7000-7001/udp".to_owned()];
    let found = |name: &str| match s.ask(WEB, name, Kind::Srv) {
        Answer::Found { records, more, .. } => (records, more),
        other => panic!("{name}: {other:?}"),
    };
    let (records, more) = found("_rest._tcp.api");
    let target = |n: u32| format!("{n}.api.shop.internal");
    let srv = |n| Data::Srv {
        port: 8080,
        target: target(n),
    };
    assert_eq!(records, [srv(1), srv(2), srv(3)]);
    let address = Record {
        name: target(2),
        data: Data::A("10.1.0.3".parse().unwrap()),
    };
    assert!(more.contains(&address), "{more:?}");
    for name in [
        "_http._tcp.api.shop.internal",
        "_8080._tcp.tasks.api",
        "_9000._tcp.api.shop",
    ] {
        assert_eq!(found(name).0.len(), 3, "{name}");
    }
    assert_eq!(found("_7001._udp.1.api").0.len(), 1);
    for name in ["_7001._tcp.api", "_nope._tcp.api", "_http._tcp.db"] {
        assert_eq!(s.ask(WEB, name, Kind::Srv), Answer::NoName, "{name}");
    }
    assert_eq!(s.ask(WEB, "_http._tcp.api", Kind::A), Answer::Nothing);
    assert_eq!(s.ask(WEB, "api", Kind::Srv), Answer::Nothing);
    assert_eq!(
        s.ask(WEB, "_ldap._tcp.example.org", Kind::Srv),
        Answer::Elsewhere
    );
    // With an address of its own a service is one host.
    s.service("shop", "api").deploy = None;
    let Answer::Found { records, more, .. } = s.ask(WEB, "_http._tcp.api", Kind::Srv) else {
        panic!("it is found");
    };
    let target = "api.shop.internal".to_owned();
    assert_eq!(
        records,
        [Data::Srv {
            port: 8080,
            target: target.clone()
        }]
    );
    assert_eq!(
        more,
        [Record {
            name: target,
            data: Data::A("10.1.63.2".parse().unwrap())
        }]
    );
}

#[test]
fn addresses_have_names_for_those_who_see_them() {
    let s = replicas();
    let name = |from: &str, of: &str| match s.ask(from, of, Kind::Ptr) {
        Answer::Found { records, .. } => Ok(records),
        other => Err(other),
    };
    let ptr = |text: &str| Ok(vec![Data::Ptr(text.to_owned())]);
    assert_eq!(
        name(WEB, "66.0.1.10.in-addr.arpa"),
        ptr("1.api.shop.internal")
    );
    assert_eq!(
        name(WEB, "1.63.1.10.in-addr.arpa"),
        ptr("web.shop.internal")
    );
    // The names lead back.
    assert_eq!(s.finds(WEB, "1.api.shop.internal"), ok(&["10.1.0.66"]));
    assert_eq!(name(WEB, "130.0.2.10.in-addr.arpa"), Err(Answer::NoName));
    assert_eq!(name(WEB, "99.0.1.10.in-addr.arpa"), Err(Answer::NoName));
    for outside in [
        "8.8.8.8.in-addr.arpa",
        "8.8.8.in-addr.arpa",
        "08.8.8.8.in-addr.arpa",
        "x.ip6.arpa",
    ] {
        assert_eq!(name(WEB, outside), Err(Answer::Elsewhere), "{outside}");
    }
    assert_eq!(
        s.ask(WEB, "66.0.1.10.in-addr.arpa", Kind::A),
        Answer::Nothing
    );
}

#[test]
fn ipv6_is_answered_beside_ipv4() {
    let mut s = replicas();
    for (i, node) in (1_u16..).zip(&mut s.nodes) {
        for at in node
            .containers
            .iter_mut()
            .filter_map(|c| c.networks.get_mut("shop_front"))
        {
            at.v6 = Some(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, i));
        }
    }
    let Answer::Found { records, .. } = s.ask(WEB, "1.api", Kind::Aaaa) else {
        panic!("it is found");
    };
    assert_eq!(records, [Data::Aaaa("fd00::2".parse().unwrap())]);
    let Answer::Found { records, .. } = s.ask(WEB, "1.api", Kind::Any) else {
        panic!("it is found");
    };
    assert_eq!(records.len(), 2);
    let zeros = "0.".repeat(24);
    let reverse = format!("2.0.0.0.{zeros}0.0.d.f.ip6.arpa");
    let Answer::Found { records, .. } = s.ask(WEB, &reverse, Kind::Ptr) else {
        panic!("it is found");
    };
    assert_eq!(records, [Data::Ptr("1.api.shop.internal".to_owned())]);
}

#[test]
fn aliases_hold_on_their_network_only() {
    let mut s = tiers();
    let aliased = ServiceNetwork {
        aliases: vec!["Storage".to_owned(), "s3.example.org".to_owned()],
        ..ServiceNetwork::default()
    };
    s.attach("shop", "api", "back", aliased);
    s.nodes.rotate_left(2);
    assert_eq!(s.nodes[0].name, "h3");
    let db = "10.2.0.130";
    for name in ["storage", "s3.example.org", "storage.shop.internal"] {
        assert_eq!(s.finds(db, name), ok(&["10.2.63.2"]), "{name}");
    }
    s.nodes.rotate_left(1);
    for name in ["storage", "s3.example.org"] {
        assert_eq!(s.finds(WEB, name), Err(Answer::Elsewhere), "{name}");
    }
}

proptest! {
    /// Whatever is on whatever networks: nobody is ever given an address on a network that it is not
    /// on, by any name.
    #[test]
    fn nothing_leaks(
        places in proptest::collection::vec((0_usize..3, 0_usize..3, 1_usize..8), 1..12),
        names in proptest::collection::vec(
            "(tasks\\.|healthy\\.|nearest\\.|[1-4]\\.|_80\\._tcp\\.)?(s[0-3]|a|x-s[0-3]-[1-3]|x_n[0-2])(\\.x|\\.y|\\.x_n[0-2])?(\\.internal)?",
            1..20,
        ),
        vips: bool,
    ) {
        let mut s = Small::nodes(&["h1", "h2", "h3"]);
        let keys = ["n0", "n1", "n2"];
        let on = |bits: usize| keys.iter().enumerate().filter(move |(i, _)| bits >> i & 1 == 1);
        let mut services: Vec<(String, Vec<&str>)> = Vec::new();
        for (i, (_, _, bits)) in places.iter().enumerate().take(4) {
            services.push((format!("s{i}"), on(*bits).map(|(_, k)| *k).collect()));
        }
        let services: Vec<(&str, &[&str])> =
            services.iter().map(|(n, k)| (n.as_str(), k.as_slice())).collect();
        s.stacks.push(stack("x", &services));
        for (i, _) in keys.iter().enumerate() {
            let subnet = format!("10.{i}.0.0/16");
            s.networks.insert(format!("x_n{i}"), network(&subnet, i as u32 + 1));
        }
        for (task, (node, _, _)) in places.iter().enumerate() {
            let (service, bits) = (task % 4, places[task % 4].2);
            if service >= services.len() {
                continue;
            }
            let at: Vec<(String, String)> = on(bits)
                .map(|(i, k)| (format!("x_{k}"), format!("10.{i}.0.{}", task + 2)))
                .collect();
            let at: Vec<(&str, &str)> = at.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            s.runs(["h1", "h2", "h3"][*node], &format!("x/s{service}/{}", task / 4 + 1), &at);
            if vips {
                for (i, k) in on(bits) {
                    s.vip(&format!("x_{k}"), "x", &format!("s{service}"), &format!("10.{i}.255.{service}"));
                }
            }
        }
        let catalog = s.catalog();
        let here = s.nodes[0].containers.clone();
        for asker in &here {
            let own: BTreeSet<u8> = asker.networks.values().map(|a| a.v4.unwrap().octets()[1]).collect();
            for source in asker.networks.values().map(|a| a.v4.unwrap()) {
                let who = catalog.asker(source.into()).unwrap();
                for name in &names {
                    for kind in [Kind::A, Kind::Srv, Kind::Any, Kind::Ptr] {
                        let Answer::Found { records, more, .. } = catalog.lookup(&who, name, kind, 7) else {
                            continue;
                        };
                        let all = records.iter().chain(more.iter().map(|m| &m.data));
                        for data in all {
                            if let Data::A(a) = data {
                                prop_assert!(own.contains(&a.octets()[1]), "{name} gives {a} to {source}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn any_question_has_an_answer(name in "[a-z0-9_.-]{0,80}", spin: u32) {
        let s = replicas();
        let catalog = s.catalog();
        let asker = catalog.asker(ip(WEB)).unwrap();
        for kind in [Kind::A, Kind::Aaaa, Kind::Srv, Kind::Ptr, Kind::Any, Kind::Other] {
            let _ = catalog.lookup(&asker, &name, kind, spin);
        }
    }
}
