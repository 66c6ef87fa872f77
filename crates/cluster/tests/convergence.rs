//! Whatever happens to messages, all nodes end with the same, and no edit is gone.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{NOW, node, put, reconcile, replica, send};
use proptest::prelude::*;
use serde_json::json;
use wharfie_cluster::{Record, Replica, Stamp};

const NAMES: [&str; 3] = ["shop", "blog", "db"];

#[derive(Debug, Clone)]
enum Step {
    /// A node writes or deletes an object.
    Put {
        node: usize,
        name: usize,
        delete: bool,
    },
    /// A record of any time arrives at a node, perhaps once more; it may be several at once.
    Arrive {
        node: usize,
        first: usize,
        count: usize,
    },
    /// Two nodes reconcile.
    Meet { a: usize, b: usize },
    /// A node's agent starts anew.
    Restart { node: usize },
}

fn steps(nodes: usize) -> impl Strategy<Value = Vec<Step>> {
    let name = 0..NAMES.len();
    let step = prop_oneof![
        4 => (0..nodes, name, prop::bool::weighted(0.2))
            .prop_map(|(node, name, delete)| Step::Put { node, name, delete }),
        4 => (0..nodes, any::<prop::sample::Index>(), 1..4_usize)
            .prop_map(|(node, first, count)| Step::Arrive { node, first: first.index(1000), count }),
        1 => (0..nodes, 0..nodes).prop_map(|(a, b)| Step::Meet { a, b }),
        1 => (0..nodes).prop_map(|node| Step::Restart { node }),
    ];
    prop::collection::vec(step, 1..40)
}

/// Nodes whose clocks differ by up to four minutes.
fn now(node: usize, step: usize) -> u64 {
    [NOW, NOW + 120_000, NOW - 120_000, NOW][node % 4] + step as u64 / 3
}

fn run(nodes: usize, steps: &[Step]) -> (Vec<Replica>, Vec<Record>) {
    let mut replicas: Vec<Replica> = (0..nodes).map(replica).collect();
    let mut written: Vec<Record> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Put { node, name, delete } => {
                let value = (!delete).then(|| json!({"step": i}));
                written.push(put(&replicas[*node], NAMES[*name], value, now(*node, i)));
            }
            Step::Arrive { node, first, count } => {
                if let Some(len) = std::num::NonZero::new(written.len()) {
                    let records: Vec<Record> = (0..*count)
                        .map(|j| written[(first + j * 7) % len].clone())
                        .collect();
                    send(&records, &replicas[*node], now(*node, i));
                }
            }
            Step::Meet { a, b } => {
                reconcile((&replicas[*a], now(*a, i)), (&replicas[*b], now(*b, i)));
            }
            Step::Restart { node: n } => {
                let store = Arc::clone(replicas[*n].store());
                let before = replicas[*n].summary(now(*n, i));
                replicas[*n] = Replica::open(store, node(*n), now(*n, i)).unwrap();
                assert_eq!(replicas[*n].summary(now(*n, i)), before);
            }
        }
    }
    (replicas, written)
}

/// All meet until none has anything new for another.
fn settle(replicas: &[Replica], at: usize) {
    for _ in 0..replicas.len() {
        for a in 0..replicas.len() {
            for b in 0..a {
                reconcile((&replicas[a], now(a, at)), (&replicas[b], now(b, at)));
            }
        }
    }
}

/// The versions that the author of one knew: those that it came after, and by those of its own, which it was
/// told of when they were overwritten; itself included.
fn known(newest: &Record, written: &BTreeMap<Stamp, &Record>) -> BTreeSet<Stamp> {
    let mut known = BTreeSet::new();
    let mut next = vec![newest.stamp];
    while let Some(stamp) = next.pop() {
        if known.insert(stamp) {
            let own = written.values().filter(|r| r.name == newest.name);
            let own = own.map(|r| r.stamp);
            next.extend(own.filter(|s| s.node == stamp.node && *s < stamp));
            next.extend(written[&stamp].parent);
        }
    }
    known
}

fn check(replicas: &[Replica], written: &[Record], at: usize) {
    let by_stamp: BTreeMap<Stamp, &Record> = written.iter().map(|r| (r.stamp, r)).collect();
    assert_eq!(by_stamp.len(), written.len(), "stamps are unique");
    for (n, replica) in replicas.iter().enumerate() {
        assert_eq!(replica.summary(now(n, at)), replicas[0].summary(now(0, at)));
    }
    for name in NAMES {
        let of_it = || written.iter().filter(|r| r.name == name);
        let newest = of_it().max_by_key(|r| r.stamp);
        for replica in replicas {
            assert_eq!(replica.get("stack", name).unwrap().as_ref(), newest);
        }
        let Some(newest) = newest else { continue };
        let known = known(newest, &by_stamp);
        for record in of_it() {
            let author = (0..replicas.len()).find(|n| node(*n) == record.stamp.node);
            let history = replicas[author.unwrap()].history("stack", name).unwrap();
            let kept = history.iter().find(|v| v.record.stamp == record.stamp);
            let kept = kept.expect("every edit is in the history where it was made");
            assert_eq!(&kept.record, record);
            if !known.contains(&record.stamp) {
                assert!(
                    kept.lost,
                    "what nobody knew who came after is marked: {record:?}"
                );
            }
            // Whoever looks for it by its name finds it.
            let same = |v: &&wharfie_cluster::Version| v.id() == kept.id();
            assert_eq!(history.iter().filter(same).count(), 1, "{}", kept.id());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn all_become_equal_and_no_edit_is_gone((nodes, steps) in (2..5_usize).prop_flat_map(|n| (Just(n), steps(n)))) {
        let (replicas, written) = run(nodes, &steps);
        settle(&replicas, steps.len());
        check(&replicas, &written, steps.len());
        // Everything once more changes nothing.
        for (n, replica) in replicas.iter().enumerate() {
            let before = replica.summary(now(n, steps.len()));
            let histories = NAMES.map(|name| replica.history("stack", name).unwrap());
            send(&written, replica, now(n, steps.len()));
            let once = NAMES.map(|name| replica.history("stack", name).unwrap());
            let merged = send(&written, replica, now(n, steps.len()));
            prop_assert!(merged.applied.is_empty() && merged.lost.is_empty());
            prop_assert_eq!(merged.known, written.len());
            prop_assert_eq!(replica.summary(now(n, steps.len())), before);
            prop_assert_eq!(NAMES.map(|name| replica.history("stack", name).unwrap()), once.clone());
            for (before, after) in histories.iter().zip(&once) {
                prop_assert_eq!(before.first(), after.first());
            }
        }
    }

    #[test]
    fn the_order_does_not_matter((_, written, order) in (2..5_usize)
        .prop_flat_map(steps_of)
        .prop_map(|(nodes, steps)| { let written = run(nodes, &steps).1; (nodes, written) })
        .prop_flat_map(|(n, written)| {
            let order: Vec<usize> = (0..written.len()).collect();
            (Just(n), Just(written), Just(order).prop_shuffle())
        }))
    {
        let (a, b, c) = (replica(50), replica(51), replica(52));
        send(&written, &a, NOW + 120_000);
        for i in &order {
            send(&written[*i..=*i], &b, NOW + 120_000);
        }
        let (first, second) = written.split_at(written.len() / 2);
        send(second, &c, NOW + 120_000);
        send(first, &c, NOW + 120_000);
        for other in [&b, &c] {
            prop_assert_eq!(a.summary(NOW), other.summary(NOW));
            prop_assert_eq!(a.list("stack").unwrap(), other.list("stack").unwrap());
        }
    }
}

fn steps_of(nodes: usize) -> impl Strategy<Value = (usize, Vec<Step>)> {
    (Just(nodes), steps(nodes))
}

/// Random numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % n
    }
}

/// Many nodes start, each with something of its own; each round every one meets another at random.
fn cold_start(nodes: usize, objects: usize) {
    let replicas: Vec<Replica> = (0..nodes).map(replica).collect();
    for i in 0..objects {
        let value = Some(json!({"n": i}));
        put(&replicas[i * nodes / objects], &format!("s{i}"), value, NOW);
    }
    // Two write the same.
    put(&replicas[0], "same", Some(json!(1)), NOW);
    put(&replicas[nodes - 1], "same", Some(json!(2)), NOW + 1);
    let mut random = Random(nodes as u64 + 88_172_645_463_325_252);
    let bound = 3 * nodes.ilog2() + 5;
    let mut sent = 0;
    for round in 1.. {
        for a in 0..nodes {
            let b = (a + 1 + random.below(nodes - 1)) % nodes;
            sent += reconcile((&replicas[a], NOW), (&replicas[b], NOW));
        }
        let summary = replicas[0].summary(NOW);
        if replicas.iter().all(|r| r.summary(NOW) == summary) {
            println!("{nodes} nodes, {objects} objects: {round} rounds, {sent} records sent");
            break;
        }
        assert!(round < bound, "not equal after {round} rounds");
    }
    assert_eq!(replicas[0].len(), objects + 1);
    for replica in &replicas {
        let same = replica.get("stack", "same").unwrap().unwrap();
        assert_eq!(same.value, Some(json!(2)));
    }
    // Everybody got everything once, but for the few that lost.
    assert!(sent <= (objects + 2) * nodes, "{sent}");
}

#[test]
fn fifty_nodes_become_equal_from_a_cold_start() {
    cold_start(50, 100);
}

#[test]
fn five_hundred_nodes_become_equal_from_a_cold_start() {
    cold_start(500, 60);
}
