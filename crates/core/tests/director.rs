//! Addresses of the surrounding network: who gets which, and which node holds it.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use wharfie_core::director::{
    Address, Addresses, Candidate, Changes, Claim, Director, Families, Lan, Owner, Ranges, Way,
    allot,
};

const DAY: i64 = 24 * 3_600_000;

fn director(ranges: &[&str]) -> Director {
    let ranges = ranges.iter().map(|text| Ranges {
        range: text.parse().unwrap(),
        node: String::new(),
    });
    Director {
        ranges: ranges.collect(),
        ..Director::default()
    }
}

fn lan() -> Lan {
    let nodes = ["n1", "n2"];
    let subnets = ["10.0.0.0/24", "fd00::/64"].map(|s| s.parse().unwrap());
    Lan {
        names: nodes.map(|n| (n.to_owned(), n.to_owned())).into(),
        subnets: nodes.map(|n| (n.to_owned(), subnets.to_vec())).into(),
        ..Lan::default()
    }
}

fn claim(service: &str, asked: &[&str], nodes: &[&str]) -> Claim {
    let candidate = |node: &&str| Candidate {
        node: (*node).to_owned(),
        ready: 1,
        tasks: 1,
        ..Candidate::default()
    };
    Claim {
        owner: Owner::service("shop", service),
        names: vec![service.to_owned()],
        asked: asked.iter().map(|a| a.parse().unwrap()).collect(),
        families: Families::BOTH,
        candidates: nodes.iter().map(candidate).collect(),
    }
}

fn apply(changes: &Changes, all: &mut Addresses) {
    for owner in &changes.delete {
        all.remove(owner);
    }
    all.extend(changes.put.clone());
}

fn given(claims: &[Claim], all: &Addresses, director: &Director, lan: &Lan, now: i64) -> Changes {
    allot(claims, |_| true, all, director, lan, now)
}

fn at(all: &Addresses, service: &str) -> Vec<String> {
    let address = all.get(&Owner::service("shop", service));
    address
        .map(Address::all)
        .into_iter()
        .flatten()
        .map(|a| a.to_string())
        .collect()
}

#[test]
fn a_service_keeps_its_address() {
    let (director, lan) = (
        director(&["10.0.0.11-10.0.0.30", "fd00::11-fd00::30"]),
        lan(),
    );
    let mut all = Addresses::new();
    let claims = [
        claim("web", &[], &["n1"]),
        claim("db", &["10.0.0.15"], &["n2"]),
    ];
    apply(&given(&claims, &all, &director, &lan, 1), &mut all);
    let (web, db) = (at(&all, "web"), at(&all, "db"));
    assert_eq!((web.len(), db[0].as_str()), (2, "10.0.0.15"));
    assert_eq!(all[&Owner::service("shop", "web")].node, "n1");
    assert_eq!(given(&claims, &all, &director, &lan, 2), Changes::default());

    // It moves, and is gone for a while.
    let moved = [
        claim("web", &[], &["n2"]),
        claim("db", &["10.0.0.15"], &["n2"]),
    ];
    apply(&given(&moved, &all, &director, &lan, 3), &mut all);
    assert_eq!(
        (
            at(&all, "web"),
            all[&Owner::service("shop", "web")].node.as_str()
        ),
        (web.clone(), "n2")
    );
    apply(&given(&moved[1..], &all, &director, &lan, 4), &mut all);
    let gone = &all[&Owner::service("shop", "web")];
    assert_eq!((gone.freed, gone.node.as_str()), (Some(4), ""));
    assert_eq!(
        given(&moved[1..], &all, &director, &lan, DAY),
        Changes::default()
    );
    apply(&given(&moved, &all, &director, &lan, DAY), &mut all);
    assert_eq!(at(&all, "web"), web);
    // In the end it is forgotten.
    apply(
        &given(&moved[1..], &all, &director, &lan, 2 * DAY),
        &mut all,
    );
    apply(
        &given(&moved[1..], &all, &director, &lan, 9 * DAY),
        &mut all,
    );
    assert_eq!(at(&all, "web"), Vec::<String>::new());
}

#[test]
fn what_a_file_asks_for_is_had_or_refused() {
    let mut director = director(&["10.0.0.11-10.0.0.12"]);
    director.excluded = vec!["10.0.0.12".parse().unwrap()];
    let (lan, mut all) = (lan(), Addresses::new());
    let says = |asked: &str, all: &Addresses| {
        let changes = given(&[claim("web", &[asked], &["n1"])], all, &director, &lan, 1);
        assert_eq!(changes.put, Addresses::new());
        changes.refused.join("\n")
    };
    assert_eq!(
        says("10.0.0.40", &all),
        "services.web.x-wharfie.address: 10.0.0.40 is in none of the director's ranges: 10.0.0.11-10.0.0.12"
    );
    assert_eq!(
        says("10.0.0.12", &all),
        "services.web.x-wharfie.address: 10.0.0.12 is one that the director gives to nobody"
    );
    // Who has it by chance gives way; who asked for it does not.
    let other = Address {
        v4: Some([10, 0, 0, 11].into()),
        node: "n1".to_owned(),
        since: 1,
        ..Address::default()
    };
    let owner = Owner::service("other", "x");
    all.insert(owner.clone(), other.clone());
    let changes = given(
        &[claim("web", &["10.0.0.11"], &["n1"])],
        &all,
        &director,
        &lan,
        5,
    );
    assert_eq!(at(&changes.put, "web"), ["10.0.0.11"]);
    all.insert(
        owner,
        Address {
            asked: true,
            ..other
        },
    );
    let changes = allot(
        &[claim("web", &["10.0.0.11"], &["n1"])],
        |o| o.stack() == Some("shop"),
        &all,
        &director,
        &lan,
        5,
    );
    assert_eq!(
        changes.refused,
        ["services.web.x-wharfie.address: 10.0.0.11 is that of other/x already"]
    );
}

#[test]
fn others_are_made_way_for() {
    let (director, mut lan, mut all) =
        (director(&["10.0.0.11-10.0.0.12"]), lan(), Addresses::new());
    let claims = [claim("web", &[], &["n1"])];
    apply(&given(&claims, &all, &director, &lan, 1), &mut all);
    let first = at(&all, "web");
    lan.taken.insert(first[0].parse().unwrap());
    apply(&given(&claims, &all, &director, &lan, 2), &mut all);
    assert_ne!(at(&all, "web"), first);
    // None is left.
    lan.taken.insert(at(&all, "web")[0].parse().unwrap());
    let changes = given(&claims, &all, &director, &lan, 3);
    assert_eq!(changes.faults.len(), 1, "{changes:?}");
    assert!(
        changes.faults[0].contains("shop/web has no address"),
        "{changes:?}"
    );
    // A node that is not on that network holds none.
    lan.taken.clear();
    lan.subnets.clear();
    let changes = given(&claims, &Addresses::new(), &director, &lan, 3);
    assert!(
        changes.faults[0].contains("no node that answers is on the network"),
        "{changes:?}"
    );
}

#[test]
fn what_is_reserved_for_the_gone_is_given_when_there_is_no_other() {
    let (director, lan, mut all) = (director(&["10.0.0.11-10.0.0.12"]), lan(), Addresses::new());
    let claims: Vec<Claim> = ["a", "b", "c"].map(|s| claim(s, &[], &["n1"])).into();
    apply(&given(&claims[..2], &all, &director, &lan, 1), &mut all);
    let of_a = at(&all, "a");
    apply(&given(&claims[1..2], &all, &director, &lan, 2), &mut all);
    assert_eq!(at(&all, "a"), of_a);
    apply(&given(&claims[1..], &all, &director, &lan, 3), &mut all);
    assert_eq!(at(&all, "c"), of_a);
    // Who comes back gets another one, and there is none.
    let changes = given(&claims, &all, &director, &lan, 4);
    assert!(
        changes.faults[0].contains("shop/a has no address"),
        "{changes:?}"
    );
}

#[test]
fn a_nodes_own_range_is_that_nodes() {
    let mut director = director(&["10.0.0.11-10.0.0.20", "10.0.0.31-10.0.0.40"]);
    director.ranges[0].node = "n1".to_owned();
    director.ranges[1].node = "n2".to_owned();
    let (lan, mut all) = (lan(), Addresses::new());
    for (node, range) in [("n1", 0), ("n2", 1), ("n1", 0)] {
        apply(
            &given(&[claim("web", &[], &[node])], &all, &director, &lan, 1),
            &mut all,
        );
        let ip: IpAddr = at(&all, "web")[0].parse().unwrap();
        assert!(director.ranges[range].range.contains(ip), "{node}: {ip}");
    }
}

/// Between the families nothing is translated: an address without a way behind it is given to nobody.
#[test]
fn addresses_are_of_families_that_lead_somewhere() {
    let (both, lan) = (
        director(&["10.0.0.11-10.0.0.30", "fd00::11-fd00::30"]),
        lan(),
    );
    let four = Families {
        v4: Way::Open,
        v6: Way::Closed,
    };
    let mut all = Addresses::new();
    let old = |asked: &[&str]| Claim {
        families: four,
        ..claim("old", asked, &["n1"])
    };
    apply(&given(&[old(&[])], &all, &both, &lan, 1), &mut all);
    let first = at(&all, "old");
    assert!(
        first.len() == 1 && first[0].starts_with("10.0.0."),
        "{first:?}"
    );
    // Its network gets IPv6, and loses it again; what it had stays.
    let new = [claim("old", &[], &["n1"])];
    apply(&given(&new, &all, &both, &lan, 2), &mut all);
    assert_eq!((at(&all, "old").len(), &at(&all, "old")[0]), (2, &first[0]));
    let unknown = [Claim {
        families: Families::default(),
        ..new[0].clone()
    }];
    assert_eq!(given(&unknown, &all, &both, &lan, 3), Changes::default());
    apply(&given(&[old(&[])], &all, &both, &lan, 4), &mut all);
    assert_eq!(at(&all, "old"), first);
    // Who asks is told, and has no others.
    let refused = given(&[old(&["fd00::20"])], &all, &both, &lan, 5).refused;
    assert!(
        refused[0].contains("fd00::20 leads nowhere: its network has no IPv6"),
        "{refused:?}"
    );
    let mut all = Addresses::new();
    let asked = [claim("web", &["fd00::20"], &["n1"])];
    apply(&given(&asked, &all, &both, &lan, 6), &mut all);
    assert_eq!(at(&all, "web"), ["fd00::20"]);
    let six = director(&["fd00::11-fd00::30"]);
    let faults = given(&[old(&[])], &all, &six, &lan, 7).faults;
    assert!(
        faults[0].contains("shop/old has no address: its network has no IPv6"),
        "{faults:?}"
    );
}

proptest! {
    /// Two sides of a cut give addresses away by themselves; when they meet, each coordinator mends its
    /// own stacks. Then nobody shares an address, all are in the ranges, and nothing is left to do.
    #[test]
    fn sides_come_to_one(
        left in proptest::collection::btree_set(0_u8..20, 0..10),
        right in proptest::collection::btree_set(0_u8..20, 0..10),
    ) {
        let (director, lan) = (director(&["10.0.0.11-10.0.0.30"]), lan());
        let of = |stack: &str, services: &BTreeSet<u8>, node: &str| -> Vec<Claim> {
            let each = services.iter().map(|s| Claim {
                owner: Owner::service(stack, &format!("s{s}")),
                ..claim("x", &[], &[node])
            });
            each.collect()
        };
        let sides = [("left", of("left", &left, "n1")), ("right", of("right", &right, "n2"))];
        let mut all = Addresses::new();
        for (now, (_, claims)) in (1..).zip(&sides) {
            let alone = given(claims, &Addresses::new(), &director, &lan, now);
            prop_assert!(alone.faults.is_empty());
            all.extend(alone.put);
        }
        for now in 10..14 {
            // Both at once, from what they saw.
            let seen = all.clone();
            for (stack, claims) in &sides {
                let mine = |o: &Owner| o.stack() == Some(*stack);
                apply(&allot(claims, mine, &seen, &director, &lan, now), &mut all);
            }
        }
        let mut had: BTreeMap<IpAddr, Owner> = BTreeMap::new();
        for (owner, address) in &all {
            for ip in address.all() {
                prop_assert!(director.ranges[0].range.contains(ip));
                prop_assert!(had.insert(ip, owner.clone()).is_none(), "{ip} twice");
            }
        }
        prop_assert_eq!(had.len(), left.len() + right.len());
        for (stack, claims) in &sides {
            let mine = |o: &Owner| o.stack() == Some(*stack);
            prop_assert_eq!(allot(claims, mine, &all, &director, &lan, 20), Changes::default());
        }
    }
}

/// What a node that comes back hears, one after the other, in any order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Heard {
    /// The address was taken over by `n2`.
    Address,
    /// The task is on `n2`.
    Assignment,
    /// It runs there.
    Report,
    /// The task that ran here in isolation has ended.
    Ended,
}

proptest! {
    /// A node was cut off, and another one took over its address and its task. Back again it may be the
    /// one that decides, and hears of all that piece by piece. What it would write is newer than what the other
    /// one wrote, and would count: so it writes nothing until it has heard all of it, and then nothing is left to
    /// do. The address is where it was taken to.
    #[test]
    fn who_comes_back_takes_nothing_back(
        order in Just(vec![Heard::Address, Heard::Assignment, Heard::Report, Heard::Ended]).prop_shuffle(),
        reaches: bool,
    ) {
        let (director, lan) = (director(&["10.0.0.11-10.0.0.30"]), lan());
        let mut all = Addresses::new();
        apply(&given(&[claim("web", &[], &["n1"])], &all, &director, &lan, 1), &mut all);
        let owner = Owner::service("shop", "web");
        let taken_over = Address { node: "n2".to_owned(), ..all[&owner].clone() };
        let settling = Lan { waited_for: ["n1", "n2"].map(str::to_owned).into(), ..lan.clone() };
        let claims = |heard: &[Heard]| {
            let has = |what| heard.contains(&what);
            let node = |node: &str, ready: bool, tasks: bool, reaches: bool| Candidate {
                node: node.to_owned(),
                ready: usize::from(ready),
                tasks: usize::from(tasks),
                reaches,
                drained: false,
            };
            let moved = has(Heard::Assignment);
            let here = node("n1", !has(Heard::Ended), !moved, true);
            let there = node("n2", has(Heard::Report), moved, reaches || has(Heard::Report));
            vec![Claim { candidates: vec![here, there], ..claim("web", &[], &[]) }]
        };
        let mut flaps = false;
        for step in 0..=order.len() {
            let heard = &order[..step];
            if heard.last() == Some(&Heard::Address) {
                all.insert(owner.clone(), taken_over.clone());
            }
            prop_assert_eq!(given(&claims(heard), &all, &director, &settling, 5), Changes::default());
            flaps |= !given(&claims(heard), &all, &director, &lan, 5).put.is_empty();
        }
        // This is what it is for: the address came before what explains it.
        if order[0] == Heard::Address && !reaches {
            prop_assert!(flaps);
        }
        prop_assert_eq!(given(&claims(&order), &all, &director, &lan, 6), Changes::default());
        prop_assert_eq!(&all[&owner].node, "n2");
    }
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let (director, lan) = (director(&["10.0.0.11-10.0.0.12"]), lan());
    let lan = Lan {
        unreadable: [Owner::service("shop", "web")].into(),
        taken: ["10.0.0.11".parse().unwrap()].into(),
        ..lan
    };
    let claims = ["web", "db"].map(|s| claim(s, &[], &["n1"]));
    let changes = given(&claims, &Addresses::new(), &director, &lan, 1);
    assert_eq!(changes.put.len(), 1, "{changes:?}");
    assert_eq!(at(&changes.put, "db"), ["10.0.0.12"]);
    assert!(
        changes.delete.is_empty() && changes.faults.is_empty(),
        "{changes:?}"
    );
}

#[test]
fn a_node_without_its_device_holds_nothing() {
    let mut director = director(&["10.0.0.11-10.0.0.30"]);
    director.device = "ens3".to_owned();
    let devices = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let mut lan = lan();
    lan.devices = [
        ("n1".to_owned(), devices(&["ens3"])),
        ("n2".to_owned(), devices(&["eth0"])),
    ]
    .into();
    // Its task is on the one, which the other reaches.
    let far = |reaches| {
        let mut claim = claim("web", &[], &["n1", "n2"]);
        claim.candidates[0].ready = 0;
        claim.candidates[0].tasks = 0;
        claim.candidates[0].reaches = reaches;
        [claim]
    };
    let mut all = Addresses::new();
    let owner = Owner::service("shop", "web");
    apply(&given(&far(true), &all, &director, &lan, 1), &mut all);
    assert_eq!(all[&owner].node, "n1");
    // It says nothing of its devices: the one that people said counts.
    lan.devices.remove("n2");
    apply(&given(&far(false), &all, &director, &lan, 2), &mut all);
    assert_eq!(all[&owner].node, "n2");
    // Its cable is pulled. As long as nobody else leads to the task it stays.
    lan.devices.insert("n2".to_owned(), devices(&[]));
    let changes = given(&far(false), &all, &director, &lan, 3);
    assert_eq!(changes, Changes::default());
    apply(&given(&far(true), &all, &director, &lan, 3), &mut all);
    assert_eq!(all[&owner].node, "n1");
    // Who has only that node gets none.
    let alone = given(&[claim("db", &[], &["n2"])], &all, &director, &lan, 4);
    assert!(
        alone.faults[0].contains("by a device that is up"),
        "{alone:?}"
    );
}

#[test]
fn nobody_gets_the_ends_of_a_subnet() {
    let (lan, mut all) = (lan(), Addresses::new());
    for range in ["10.0.0.253-10.0.0.255", "10.0.0.0-10.0.0.2"] {
        let director = director(&[range]);
        let claims: Vec<Claim> = ["a", "b", "c"].map(|s| claim(s, &[], &["n1"])).into();
        let changes = given(&claims, &Addresses::new(), &director, &lan, 1);
        assert_eq!(changes.put.len(), 2, "{changes:?}");
        let had: BTreeSet<IpAddr> = changes.put.values().flat_map(Address::all).collect();
        assert!(!had.contains(&"10.0.0.255".parse().unwrap()), "{had:?}");
        assert!(!had.contains(&"10.0.0.0".parse().unwrap()), "{had:?}");
    }
    let director = director(&["10.0.0.250-10.0.0.255"]);
    let asked = [claim("web", &["10.0.0.255"], &["n1"])];
    assert_eq!(
        given(&asked, &all, &director, &lan, 1).refused,
        [
            "services.web.x-wharfie.address: 10.0.0.255 is an end of 10.0.0.0/24: no machine can have it"
        ]
    );
    // Who has one from before gets another.
    let owner = Owner::service("shop", "web");
    let old = Address {
        v4: Some([10, 0, 0, 255].into()),
        node: "n1".to_owned(),
        ..Address::default()
    };
    all.insert(owner, old);
    apply(
        &given(&[claim("web", &[], &["n1"])], &all, &director, &lan, 2),
        &mut all,
    );
    assert_ne!(at(&all, "web"), ["10.0.0.255"]);
}

#[test]
fn what_is_reserved_for_a_name_is_nobody_elses() {
    let mut director = director(&["10.0.0.11-10.0.0.12"]);
    let ip: IpAddr = "10.0.0.11".parse().unwrap();
    director.reserved = [("web".to_owned(), ip)].into();
    let (mut lan, mut all) = (lan(), Addresses::new());
    let says = |claims: &[Claim], all: &Addresses, lan: &Lan| given(claims, all, &director, lan, 5);
    // Neither is it given to others, nor may they ask for it.
    let others = ["a", "b"].map(|s| claim(s, &[], &["n1"]));
    let changes = says(&others, &all, &lan);
    assert_eq!((changes.put.len(), changes.faults.len()), (1, 1));
    let asked = [claim("db", &["10.0.0.11"], &["n1"])];
    assert_eq!(
        says(&asked, &all, &lan).refused,
        ["services.db.x-wharfie.address: 10.0.0.11 is reserved for web"]
    );
    // Its name has it, by itself or because the file says so.
    for asked in [&[][..], &["10.0.0.11"]] {
        let changes = says(&[claim("web", asked, &["n1"])], &all, &lan);
        assert_eq!(at(&changes.put, "web"), ["10.0.0.11"]);
        assert_eq!(changes.faults, Vec::<String>::new());
    }
    // Somebody has it from before the reservation: he gives way, and meanwhile it is said.
    let old = Address {
        v4: Some([10, 0, 0, 11].into()),
        node: "n1".to_owned(),
        since: 1,
        ..Address::default()
    };
    all.insert(Owner::service("shop", "a"), old);
    let both = [claim("web", &[], &["n1"]), claim("a", &[], &["n1"])];
    let changes = says(&both, &all, &lan);
    let why = "shop/web does not have 10.0.0.11, which is reserved for its name: shop/a has it";
    assert_eq!(changes.faults[0], why, "{changes:?}");
    apply(&says(&both[1..], &Addresses::new(), &lan), &mut all);
    apply(&says(&both, &all, &lan), &mut all);
    assert_eq!(at(&all, "web"), ["10.0.0.11"]);
    assert_eq!(says(&both, &all, &lan), Changes::default());
    // Another machine has it.
    lan.taken.insert(ip);
    let changes = says(&both[..1], &Addresses::new(), &lan);
    assert_eq!(at(&changes.put, "web"), ["10.0.0.12"]);
    assert!(
        changes.faults[0].ends_with("another machine of the network uses it"),
        "{changes:?}"
    );
}

#[test]
fn who_is_gone_keeps_nothing_that_others_have() {
    let (director, lan, mut all) = (director(&["10.0.0.11"]), lan(), Addresses::new());
    // Each is seen to be gone before the next one takes what it had.
    for (now, service) in [(1, "a"), (2, "b"), (3, "b"), (4, "c"), (5, "c"), (6, "c")] {
        let claims = [claim(service, &[], &["n1"])];
        apply(&given(&claims, &all, &director, &lan, now), &mut all);
    }
    assert_eq!(
        (all.len(), at(&all, "c")),
        (1, vec!["10.0.0.11".to_owned()])
    );
    // Nobody else took it: it is kept.
    apply(&given(&[], &all, &director, &lan, 10), &mut all);
    assert_eq!(given(&[], &all, &director, &lan, 11), Changes::default());
    assert_eq!(at(&all, "c"), ["10.0.0.11"]);
}

#[test]
fn ranges_that_change_are_followed() {
    let (mut director, lan, mut all) =
        (director(&["10.0.0.11-10.0.0.12"]), lan(), Addresses::new());
    let claims = [claim("web", &[], &["n1"])];
    apply(&given(&claims, &all, &director, &lan, 1), &mut all);
    let first = at(&all, "web");
    director.excluded = vec![first[0].parse().unwrap()];
    apply(&given(&claims, &all, &director, &lan, 2), &mut all);
    let second = at(&all, "web");
    assert_ne!(second, first);
    director.ranges[0].range = "10.0.0.20".parse().unwrap();
    apply(&given(&claims, &all, &director, &lan, 3), &mut all);
    assert_eq!(at(&all, "web"), ["10.0.0.20"]);
}
