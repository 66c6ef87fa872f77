//! Subnets and identifiers: chosen, refused, and put right after a partition.

use std::collections::BTreeSet;

use proptest::prelude::*;
use wharfie_compose::model::{IpamPool, Network as Wanted};
use wharfie_core::network::{
    Asked, Cidr, Clash, Network, Networks, Refusal, Route, Settings, allot, conflicts, renumber,
};

use super::world::network;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.to_owned(),
        ..Wanted::default()
    }
}

fn given(name: &str, subnet: &str) -> Wanted {
    let mut wanted = wanted(name);
    wanted.ipam.config.push(IpamPool {
        subnet: subnet.to_owned(),
        ..IpamPool::default()
    });
    wanted
}

fn route(to: &str) -> Route {
    Route {
        node: "h2".to_owned(),
        to: cidr(to),
        device: "eth1".to_owned(),
    }
}

fn ask(wanted: &Wanted, others: &Networks, routes: &[Route]) -> Result<Network, Refusal> {
    with(wanted, others, routes, &Settings::default(), 1)
}

fn with(
    wanted: &Wanted,
    others: &Networks,
    routes: &[Route],
    settings: &Settings,
    now: i64,
) -> Result<Network, Refusal> {
    let asked = Asked {
        stack: "shop",
        key: "default",
        network: wanted,
    };
    allot(asked, others, routes, settings, now)
}

#[test]
fn a_network_gets_a_subnet_of_the_pool_and_keeps_it() {
    let mut networks = Networks::new();
    let first = ask(&wanted("shop_default"), &networks, &[]).unwrap();
    let subnet = first.v4.as_ref().unwrap().subnet;
    assert!(cidr("10.128.0.0/9").covers(&subnet) && subnet.prefix() == 18);
    assert!(first.vni > 0 && first.vni < 1 << 24 && first.v6.is_none());
    networks.insert("shop_default".to_owned(), first.clone());
    // A route that came later does not move it, nor does time.
    let later = [route("10.128.0.0/9")];
    let again = with(
        &wanted("shop_default"),
        &networks,
        &later,
        &Settings::default(),
        99,
    );
    assert_eq!(again, Ok(first.clone()));
    let mut six = wanted("shop_default");
    six.enable_ipv6 = Some(true);
    let six = ask(&six, &networks, &[]).unwrap();
    assert_eq!((six.vni, &six.v4), (first.vni, &first.v4));
    assert_eq!(six.v6.unwrap().subnet.to_string().get(..2), Some("fd"));
}

#[test]
fn what_the_file_says_is_taken_or_refused_with_the_reason() {
    let others = Networks::from([("blog_default".to_owned(), network("10.7.0.0/16", 5))]);
    let ok = ask(&given("n", "10.8.0.0/16"), &others, &[]).unwrap();
    assert_eq!(
        ok.v4.map(|p| (p.subnet, p.given)),
        Some((cidr("10.8.0.0/16"), true))
    );
    let refused = ask(&given("n", "10.7.4.0/24"), &others, &[]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "network n: subnet 10.7.4.0/24 overlaps network blog_default (10.7.0.0/16); choose another subnet"
    );
    let routes = [route("0.0.0.0/0"), route("0.0.0.0/1"), route("10.8.9.0/24")];
    let refused = ask(&given("n", "10.8.0.0/16"), &others, &routes).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "network n: subnet 10.8.0.0/16 overlaps the route 10.8.9.0/24 dev eth1 on h2; choose another subnet"
    );
    let why = |wanted: &Wanted| ask(wanted, &others, &[]).unwrap_err().to_string();
    assert!(why(&given("n", "10.8.0.0/33")).contains("no range of addresses"));
    let mut pools = given("n", "10.8.0.0/16");
    pools.ipam.config[0].ip_range = "10.9.0.0/24".to_owned();
    assert!(why(&pools).contains("`ip_range` 10.9.0.0/24 is not in subnet 10.8.0.0/16"));
    pools.ipam.config[0].ip_range.clear();
    pools.ipam.config[0].gateway = "10.9.0.1".to_owned();
    assert!(why(&pools).contains("`gateway` 10.9.0.1 is not in subnet"));
    pools.ipam.config[0].gateway.clear();
    pools
        .ipam
        .config
        .push(given("n", "10.9.0.0/16").ipam.config[0].clone());
    assert!(why(&pools).contains("two subnets of one family"));
    let mut neither = wanted("n");
    neither.enable_ipv4 = Some(false);
    assert!(why(&neither).contains("neither IPv4 nor IPv6"));
}

#[test]
fn an_exhausted_pool_says_who_uses_it() {
    let settings = Settings {
        pools: vec![cidr("10.200.0.0/22")],
        prefix: 24,
        ..Settings::default()
    };
    let routes = [route("10.200.1.0/25")];
    let mut networks = Networks::new();
    for name in ["a", "b", "c"] {
        let network = with(&wanted(name), &networks, &routes, &settings, 1).unwrap();
        assert!(!network.v4.as_ref().unwrap().subnet.overlaps(&routes[0].to));
        networks.insert(name.to_owned(), network);
    }
    let refused = with(&wanted("d"), &networks, &routes, &settings, 1).unwrap_err();
    let text = refused.to_string();
    for part in [
        "no subnet of prefix 24 is left in 10.200.0.0/22",
        "route 10.200.1.0/25 dev eth1 on h2",
        "network a has 10.200.",
        "network-pool",
    ] {
        assert!(text.contains(part), "{text} does not contain {part}");
    }
}

#[test]
fn a_conflict_has_one_loser() {
    let mut networks = Networks::from([
        ("a".to_owned(), network("10.128.0.0/18", 5)),
        ("b".to_owned(), network("10.128.0.0/18", 5)),
        ("c".to_owned(), network("10.1.0.0/16", 6)),
    ]);
    networks.get_mut("a").unwrap().since = 9;
    networks.get_mut("b").unwrap().since = 3;
    let found = conflicts(&networks);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|c| c.stays == "b" && c.other == "a"));
    let changed = renumber(&networks, &[], &Settings::default(), 20);
    assert_eq!(changed.keys().collect::<Vec<_>>(), ["a"]);
    assert_ne!(changed["a"].vni, 5);
    networks.extend(changed);
    assert_eq!(conflicts(&networks), []);
    // What a file says comes first, however young, and is never changed.
    let mut mine = network("10.128.0.0/17", 77);
    mine.since = 100;
    mine.v4.as_mut().unwrap().given = true;
    networks.insert("d".to_owned(), mine.clone());
    let changed = renumber(&networks, &[], &Settings::default(), 200);
    assert!(
        changed.contains_key("b") && !changed.contains_key("d"),
        "{changed:?}"
    );
    networks.extend(changed);
    assert_eq!(conflicts(&networks), []);
    networks.insert("e".to_owned(), Network { vni: 78, ..mine });
    let found = conflicts(&networks);
    assert!(
        matches!(found[..], [ref c] if matches!(c.what, Clash::Given(_))),
        "{found:?}"
    );
    assert!(renumber(&networks, &[], &Settings::default(), 300).is_empty());
}

/// Whoever is larger, and whichever begins first.
#[test]
fn any_overlap_is_a_conflict() {
    for (older, younger) in [
        ("10.128.64.0/18", "10.128.0.0/17"),
        ("10.128.0.0/17", "10.128.64.0/18"),
        ("10.128.0.0/18", "10.128.0.0/17"),
        ("10.128.0.0/17", "10.128.0.0/18"),
    ] {
        let mut young = network(younger, 6);
        young.since = 5;
        let networks = Networks::from([
            ("z".to_owned(), network(older, 5)),
            ("a".to_owned(), young),
            ("m".to_owned(), network("10.129.0.0/18", 7)),
        ]);
        let found = conflicts(&networks);
        assert!(
            matches!(&found[..], [c] if c.stays == "z" && c.other == "a"),
            "{found:?}"
        );
        let mut after = networks.clone();
        after.extend(renumber(&networks, &[], &Settings::default(), 9));
        assert_eq!(conflicts(&after), []);
    }
}

proptest! {
    /// Whatever is taken, a free subnet is found as long as there is one, and never one that is not.
    #[test]
    fn the_last_free_subnet_is_found(
        taken in proptest::collection::btree_set((0_u8..16, 1_u8..4), 0..20),
        name in "[a-z]{1,8}",
    ) {
        let settings = Settings {
            pools: vec![cidr("10.200.0.0/20")],
            prefix: 24,
            ..Settings::default()
        };
        // Each covers 1, 2 or 4 parts, beginning at a place.
        let routes: Vec<Route> = taken
            .iter()
            .map(|(place, size)| route(&format!("10.200.{}.0/{}", place, 25 - size)))
            .collect();
        let free = (0..16_u8).filter(|place| {
            let part = cidr(&format!("10.200.{place}.0/24"));
            !routes.iter().any(|r| r.to.overlaps(&part))
        });
        match with(&wanted(&name), &Networks::new(), &routes, &settings, 1) {
            Ok(network) => {
                let subnet = network.v4.unwrap().subnet;
                prop_assert!(routes.iter().all(|r| !r.to.overlaps(&subnet)));
                prop_assert_eq!(subnet.prefix(), 24);
            }
            Err(Refusal::Exhausted { .. }) => prop_assert_eq!(free.count(), 0),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// Two halves of a cluster allot whatever they like; after the merge all nodes renumber the same
    /// networks, and no conflict is left.
    #[test]
    fn partitions_are_put_right(
        left in proptest::collection::btree_set("[a-h]", 0..8),
        right in proptest::collection::btree_set("[a-h]", 0..8),
        six: bool,
    ) {
        let settings = Settings {
            pools: vec![cidr("10.200.0.0/19")],
            prefix: 24,
            ..Settings::default()
        };
        let side = |names: &BTreeSet<String>, now: i64| {
            let mut networks = Networks::new();
            for (i, name) in (0..).zip(names) {
                let mut w = wanted(&format!("{now}{name}"));
                w.enable_ipv6 = Some(six);
                let network = with(&w, &networks, &[], &settings, now + i).unwrap();
                // Both sides search from places that meet.
                let network = Network { vni: network.vni % 4 + 1, ..network };
                networks.insert(w.name, network);
            }
            networks
        };
        let mut merged = side(&left, 10);
        merged.extend(side(&right, 20));
        let mut networks = merged.clone();
        networks.extend(renumber(&merged, &[], &settings, 30));
        prop_assert_eq!(conflicts(&networks), []);
        prop_assert!(renumber(&networks, &[], &settings, 40).is_empty());
        // Who has no conflict keeps everything.
        let losers: BTreeSet<_> = conflicts(&merged).into_iter().map(|c| c.other).collect();
        for (name, network) in &networks {
            prop_assert!(losers.contains(name) || merged.get(name) == Some(network));
        }
    }
}
