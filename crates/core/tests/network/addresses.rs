//! Slices, addresses of containers, static ones, and those of services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use wharfie_compose::model::{IpamPool, ServiceNetwork};
use wharfie_core::network::{
    Claims, Fault, Holder, Layout, Network, Networks, Slice, Vips, choose, claim, fixed, own,
    repairs, stale, vip,
};
use wharfie_core::{Stack, network::Cidr};

use super::world::{ip, network, stack};

fn slice(node: &str, since: i64) -> Slice {
    Slice {
        node: node.to_owned(),
        since,
    }
}

fn none() -> BTreeSet<IpAddr> {
    BTreeSet::new()
}

fn name_of(id: &str) -> String {
    id.to_uppercase()
}

#[test]
fn the_gateway_is_in_the_oldest_slice() {
    let n = network("10.128.0.0/18", 1);
    let claims = Claims::from([(0, slice("a", 9)), (2, slice("a", 5)), (1, slice("b", 1))]);
    let of = |node| own(&n, &claims, node, &none()).unwrap();
    assert_eq!(of("a").gateway.v4.unwrap().to_string(), "10.128.0.129");
    assert_eq!(of("b").own.v4.unwrap().to_string(), "10.128.0.65");
    assert_eq!(own(&n, &claims, "c", &none()), None);
    // A gateway that the file says is everybody's; each has an address of its own as well.
    let mut given = n.clone();
    given.v4.as_mut().unwrap().gateway = Some(ip("10.128.63.254"));
    let a = own(&given, &claims, "a", &none()).unwrap();
    assert_eq!(a.gateway.v4.unwrap().to_string(), "10.128.63.254");
    assert_eq!(a.own.v4.unwrap().to_string(), "10.128.0.129");
}

#[test]
fn addresses_rest_before_they_are_given_again() {
    let n = network("10.128.0.0/24", 1);
    let claims = Claims::from([(0, slice("a", 1))]);
    let mut used = none();
    let mut last = None;
    let mut order = Vec::new();
    for _ in 0..20 {
        let Some(got) = choose(&n, &claims, "a", &none(), &used, last) else {
            break;
        };
        let address = IpAddr::V4(got.v4.unwrap());
        order.push(address.to_string());
        last = Some(address);
        // It is gone at once: the next one is another nevertheless.
    }
    // 16 addresses: less the network's own and the gateway's there are 14, then it goes round.
    assert_eq!(
        (&order[0][..], &order[13][..]),
        ("10.128.0.2", "10.128.0.15")
    );
    assert_eq!(order[14], "10.128.0.2");
    used.extend((2..16).map(|i| ip(&format!("10.128.0.{i}"))));
    assert_eq!(choose(&n, &claims, "a", &none(), &used, last), None);
    used.remove(&ip("10.128.0.7"));
    let got = choose(&n, &claims, "a", &none(), &used, last).unwrap();
    assert_eq!(got.v4.unwrap().to_string(), "10.128.0.7");
    let fixed = BTreeSet::from([ip("10.128.0.7")]);
    assert_eq!(choose(&n, &claims, "a", &fixed, &used, last), None);
    assert_eq!(choose(&n, &claims, "b", &none(), &none(), None), None);
}

#[test]
fn all_slices_taken_is_an_error_with_the_nodes() {
    let n = network("10.128.0.0/28", 1);
    let claims = Claims::from([(0, slice("a", 1)), (1, slice("a", 2)), (2, slice("b", 3))]);
    let error = claim("shop_default", &n, &claims, "c", name_of).unwrap_err();
    assert_eq!(
        error.to_string(),
        "network shop_default: all 3 parts of 10.128.0.0/28 are taken by nodes (A: 2, B: 1); give it a larger subnet"
    );
}

#[test]
fn what_is_lost_is_put_right() {
    let n = network("10.128.0.0/18", 1);
    let claims = Claims::from([(0, slice("a", 1)), (1, slice("b", 2)), (300, slice("a", 3))]);
    let here: BTreeSet<IpAddr> = [
        "10.128.0.5",   // its own slice
        "10.128.0.70",  // b's
        "10.128.0.130", // nobody's
        "10.128.60.9",  // where services have theirs
        "10.99.0.1",    // outside
        "10.128.0.3",   // its own slice, and somebody else's by a file
    ]
    .map(ip)
    .into();
    let fixed = BTreeSet::from([ip("10.128.0.3")]);
    let found = repairs(&n, &claims, "a", &here, &fixed);
    let moves = ["10.128.0.3", "10.128.0.70", "10.128.60.9", "10.99.0.1"].map(ip);
    assert_eq!(found.moves, moves.into());
    assert_eq!(found.claim, [2].into());
    let members = BTreeSet::from(["a"]);
    assert_eq!(stale(&n, &claims, &members), [1, 300].into());
}

proptest! {
    /// Nodes on both sides of a partition claim and give out addresses; after the merge each moves
    /// what it lost. Then no two containers have one address.
    #[test]
    fn addresses_are_unique_after_any_partition(
        steps in proptest::collection::vec((0_usize..6, any::<bool>()), 1..120),
        prefix in 22_u8..=27,
    ) {
        let n = network(&format!("10.128.0.0/{prefix}"), 1);
        let ids = ["n1", "n2", "n3", "n4", "n5", "n6"];
        let mut sides = [Claims::new(), Claims::new()];
        let mut has: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut clock = 0;
        let give = |claims: &mut Claims, me: &str, own: &BTreeSet<IpAddr>, clock: &mut i64| {
            *clock += 1;
            if let Some(got) = choose(&n, claims, me, &none(), own, None) {
                return got.v4.map(IpAddr::V4);
            }
            let index = claim("net", &n, claims, me, name_of).ok()?;
            claims.insert(index, slice(me, *clock));
            choose(&n, claims, me, &none(), own, None).and_then(|a| a.v4).map(IpAddr::V4)
        };
        for (node, _) in &steps {
            let me = ids[*node];
            let claims = &mut sides[node % 2];
            let own = has.entry(me).or_default().clone();
            if let Some(address) = give(claims, me, &own, &mut clock) {
                prop_assert!(has.get_mut(me).unwrap().insert(address));
            }
        }
        // The last writer wins: the store's merge.
        let [mut merged, other] = sides;
        for (index, theirs) in other {
            match merged.get(&index) {
                Some(mine) if mine.since > theirs.since => {}
                _ => { merged.insert(index, theirs); }
            }
        }
        let mut seen: BTreeMap<IpAddr, &str> = BTreeMap::new();
        let mut left: BTreeMap<&str, usize> = BTreeMap::new();
        for (me, own) in &mut has {
            let repair = repairs(&n, &merged, me, own, &none());
            prop_assert!(repair.claim.is_empty());
            left.insert(me, repair.moves.len());
            for gone in &repair.moves {
                own.remove(gone);
            }
        }
        for (me, own) in &mut has {
            for _ in 0..left[me] {
                match give(&mut merged, me, own, &mut clock) {
                    Some(address) => { own.insert(address); }
                    // The network is full: the container waits.
                    None => prop_assert!(claim("net", &n, &merged, me, name_of).is_err()),
                }
            }
            let gateway = wharfie_core::network::own(&n, &merged, me, &none());
            let gateway = gateway.and_then(|g| g.own.v4).map(IpAddr::V4);
            for address in own.iter().copied().chain(gateway) {
                prop_assert_eq!(seen.insert(address, me), None, "{} twice", address);
            }
            let again = repairs(&n, &merged, me, own, &none());
            prop_assert!(again.moves.is_empty(), "{:?}", again);
        }
    }
}

fn with_static(addresses: &[(&str, &str)], scale: u32) -> Stack {
    let services: Vec<(&str, &[&str])> =
        addresses.iter().map(|(s, _)| (*s, &["net"][..])).collect();
    let mut stack = stack("shop", &services);
    for (service, address) in addresses {
        let attachment = ServiceNetwork {
            ipv4_address: (*address).to_owned(),
            ..ServiceNetwork::default()
        };
        let definition = stack.project.services.get_mut(*service).unwrap();
        definition
            .networks
            .insert("net".to_owned(), Some(attachment));
        stack.scale.insert((*service).to_owned(), scale);
    }
    stack
}

#[test]
fn a_static_address_is_one_tasks() {
    let networks = Networks::from([("shop_net".to_owned(), network("10.5.0.0/16", 1))]);
    let of = |stack: &Stack, has: &BTreeMap<(String, IpAddr), Holder>| {
        fixed([stack], &networks, &Vips::new(), &BTreeMap::new(), has)
    };
    let nobody = BTreeMap::new();
    let two = with_static(&[("db", "10.5.0.9")], 2);
    let found = of(&two, &nobody);
    assert_eq!(found.on("shop_net"), [ip("10.5.0.9")].into());
    assert_eq!(found.why_not("shop", "db", 1), None);
    assert_eq!(
        found.why_not("shop", "db", 2).unwrap().to_string(),
        "shop/db/2 waits: 10.5.0.9 on network shop_net is shop/db/1's; a service with a static address can have one task only"
    );
    let none = of(&with_static(&[("db", "10.5.0.9")], 0), &nobody);
    assert!(none.on("shop_net").is_empty() && none.faults.is_empty());
    // Who has it keeps it.
    let holder = Holder {
        stack: "shop".to_owned(),
        service: "db".to_owned(),
        number: 2,
    };
    let has = BTreeMap::from([(("shop_net".to_owned(), ip("10.5.0.9")), holder)]);
    assert!(of(&two, &has).why_not("shop", "db", 1).is_some());
    let shared = with_static(&[("a", "10.5.0.9"), ("b", "10.5.0.9")], 1);
    assert!(matches!(
        of(&shared, &nobody).faults[..],
        [Fault::Taken { .. }]
    ));
    for (bad, why) in [
        (
            "10.6.0.1",
            "not in the subnets of network shop_net (10.5.0.0/16)",
        ),
        ("10.5.255.255", "it is the broadcast address"),
        ("lots", "lots is not in the subnets"),
    ] {
        let found = of(&with_static(&[("db", bad)], 1), &nobody);
        assert!(
            found.faults[0].to_string().contains(why),
            "{:?}",
            found.faults
        );
    }
    let gateways = BTreeMap::from([(("shop_net".to_owned(), ip("10.5.0.1")), "h3".to_owned())]);
    let stack = with_static(&[("db", "10.5.0.1")], 1);
    let found = fixed([&stack], &networks, &Vips::new(), &gateways, &nobody);
    assert!(
        found.faults[0]
            .to_string()
            .contains("it is the address of node h3")
    );
    // A node that comes later leaves it alone.
    let taken = BTreeSet::from([ip("10.5.0.1")]);
    let claims = Claims::from([(0, slice("a", 1))]);
    let own = own(&networks["shop_net"], &claims, "a", &taken).unwrap();
    assert_eq!(own.own.v4.unwrap().to_string(), "10.5.0.2");
}

#[test]
fn services_have_addresses_that_stay() {
    let networks = Networks::from([("shop_net".to_owned(), network("10.5.0.0/24", 1))]);
    let s = stack("shop", &[("web", &["net"]), ("db", &["net"])]);
    let used = BTreeMap::new();
    let first = vip::changes(&s, &networks, &Vips::new(), &used, 1);
    assert_eq!(first.put.len(), 2);
    let end: Cidr = "10.5.0.224/27".parse().unwrap();
    assert!(
        first
            .put
            .values()
            .all(|v| end.contains(v.v4.unwrap().into()))
    );
    assert_eq!(
        vip::changes(&s, &networks, &first.put, &used, 2),
        vip::Changes::default()
    );
    // A service that is gone, or wants none.
    let mut less = s.clone();
    less.active.remove("db");
    let changes = vip::changes(&less, &networks, &first.put, &used, 2);
    assert_eq!(changes.delete.len(), 1);
    // Another subnet: other addresses.
    let networks = Networks::from([("shop_net".to_owned(), network("10.6.0.0/24", 1))]);
    let changes = vip::changes(&s, &networks, &first.put, &used, 3);
    assert_eq!(changes.put.len(), 2);
}

#[test]
fn too_many_services_do_without() {
    let networks = Networks::from([("shop_net".to_owned(), network("10.5.0.0/28", 1))]);
    let names: Vec<String> = (0..9).map(|i| format!("s{i}")).collect();
    let services: Vec<(&str, &[&str])> = names.iter().map(|n| (n.as_str(), &["net"][..])).collect();
    let s = stack("shop", &services);
    let changes = vip::changes(&s, &networks, &Vips::new(), &BTreeMap::new(), 1);
    // Four addresses, and the last is the broadcast.
    assert_eq!((changes.put.len(), changes.without.len()), (3, 6));
}

proptest! {
    /// Two coordinators give addresses to services on one network while they cannot see each other;
    /// after the merge each puts its own right, in any order, and all differ.
    #[test]
    fn addresses_of_services_are_unique_after_any_partition(
        left in proptest::collection::btree_set("[a-z]{1,2}", 0..14),
        right in proptest::collection::btree_set("[a-z]{1,2}", 0..14),
        (t1, t2) in (0_i64..3, 0_i64..3),
    ) {
        let networks = Networks::from([("net".to_owned(), network("10.5.0.0/24", 1))]);
        let of = |name: &str, services: &BTreeSet<String>| {
            let services: Vec<(&str, &[&str])> =
                services.iter().map(|s| (s.as_str(), &["=net"][..])).collect();
            stack(name, &services)
        };
        let (a, b) = (of("a", &left), of("b", &right));
        let used = BTreeMap::new();
        let mut all = vip::changes(&a, &networks, &Vips::new(), &used, t1).put;
        all.extend(vip::changes(&b, &networks, &Vips::new(), &used, t2).put);
        // Both see the same, and write at the same time.
        let (x, y) = (vip::changes(&a, &networks, &all, &used, 9), vip::changes(&b, &networks, &all, &used, 9));
        // Of two that have the same just one changes.
        for (key, vip) in &all {
            let same = all.iter().find(|(k, v)| *k != key && v.v4 == vip.v4);
            if let Some((other, _)) = same {
                let changes = |k| x.put.contains_key(k) || y.put.contains_key(k);
                prop_assert!(changes(key) != changes(other));
            }
        }
        for _ in 0..4 {
            let (x, y) = (vip::changes(&a, &networks, &all, &used, 9), vip::changes(&b, &networks, &all, &used, 9));
            all.extend(x.put);
            all.extend(y.put);
        }
        let distinct: BTreeSet<_> = all.values().map(|v| v.v4).collect();
        prop_assert_eq!(distinct.len(), all.len());
    }
}

#[test]
fn the_files_range_bounds_what_is_chosen() {
    let wanted = wharfie_compose::model::Network {
        name: "n".to_owned(),
        ipam: wharfie_compose::model::Ipam {
            config: vec![IpamPool {
                subnet: "10.5.0.0/16".to_owned(),
                ip_range: "10.5.7.0/24".to_owned(),
                gateway: "10.5.0.1".to_owned(),
                aux_addresses: [("nas".to_owned(), "10.5.7.2".to_owned())].into(),
                ..IpamPool::default()
            }],
            ..Default::default()
        },
        ..Default::default()
    };
    let asked = wharfie_core::network::Asked {
        stack: "",
        key: "",
        network: &wanted,
    };
    let settings = wharfie_core::network::Settings::default();
    let n: Network =
        wharfie_core::network::allot(asked, &Networks::new(), &[], &settings, 1).unwrap();
    let layout = Layout::of(&n);
    assert_eq!((layout.slices(), layout.slice_size()), (14, 16));
    let claims = Claims::from([(0, slice("a", 1))]);
    let got = choose(&n, &claims, "a", &none(), &none(), None).unwrap();
    assert_eq!(got.v4.unwrap().to_string(), "10.5.7.0");
    let of = own(&n, &claims, "a", &none()).unwrap();
    assert_eq!(of.gateway.v4.unwrap().to_string(), "10.5.0.1");
    assert_eq!(of.own.v4.unwrap().to_string(), "10.5.7.1");
    let used = BTreeSet::from([ip("10.5.7.0")]);
    let got = choose(&n, &claims, "a", &none(), &used, None).unwrap();
    assert_eq!(got.v4.unwrap().to_string(), "10.5.7.3");
}
