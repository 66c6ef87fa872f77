//! What a replica takes, refuses, remembers and forgets.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use std::sync::Arc;

use common::{NOW, node, put, reconcile, replica, send};
use proptest::prelude::*;
use serde_json::{Value, json};
use wharfie_cluster::{
    Error, GONE, Key, LARGEST_BATCH, LARGEST_VALUE, MAX_AHEAD, Malformed, NodeId, Options, Record,
    Refusal, Replica, Stamp, TOMBSTONE, decode, encode,
};

const HOUR: u64 = 60 * 60 * 1000;

fn ids(replica: &Replica, name: &str) -> Vec<String> {
    let history = replica.history("stack", name).unwrap();
    history.iter().map(wharfie_cluster::Version::id).collect()
}

fn key(name: &str) -> Key {
    Key::new("stack", name)
}

#[test]
fn two_edits_on_both_sides_of_a_partition() {
    let (a, b, c) = (replica(0), replica(1), replica(2));
    let first = put(&a, "shop", Some(json!(1)), NOW);
    send(std::slice::from_ref(&first), &b, NOW);
    send(&[first], &c, NOW);
    // a and c on one side, b on the other.
    let two = put(&a, "shop", Some(json!("a2")), NOW + 1);
    send(std::slice::from_ref(&two), &c, NOW);
    let three = put(&c, "shop", Some(json!("c3")), NOW + 2);
    send(std::slice::from_ref(&three), &a, NOW);
    let winner = put(&b, "shop", Some(json!("b2")), NOW + 3);
    assert_eq!((three.revision, winner.revision), (3, 2));

    // The author of what is lost finds it out; those who are not, too.
    for replica in [&c, &a] {
        let merged = send(std::slice::from_ref(&winner), replica, NOW);
        assert_eq!(merged.applied, [key("shop")]);
        let [lost] = merged.lost.as_slice() else {
            panic!("{merged:?}");
        };
        assert_eq!((lost.stamp.node, lost.revision), (node(2), 3));
        assert_eq!((&lost.key, lost.winner), (&key("shop"), winner.stamp));
        let again = send(std::slice::from_ref(&winner), replica, NOW);
        assert_eq!((again.known, again.lost.len()), (1, 0));
    }
    let (lost_3, lost_2) = (
        format!("3~{}", node(2).short()),
        format!("2~{}", node(0).short()),
    );
    assert_eq!(ids(&a, "shop"), ["2", &lost_3, &lost_2, "1"]);
    assert_eq!(ids(&c, "shop"), ["2", &lost_3, &lost_2, "1"]);
    // It arrives at the winner: there it is in the history as well, and told once.
    let kept = a.version(&key("shop"), three.stamp).unwrap().unwrap();
    assert_eq!(kept, three);
    let merged = send(&[kept], &b, NOW);
    assert_eq!((merged.applied.len(), merged.lost.len()), (0, 1));
    assert_eq!(ids(&b, "shop"), ["2", &lost_3, "1"]);
    // What it was made from was not lost to the winner, but to it.
    let merged = send(&[three, two], &b, NOW);
    assert_eq!((merged.known, merged.lost.len()), (2, 0));
    // The next revision is one that nobody has seen.
    assert_eq!(put(&b, "shop", Some(json!(4)), NOW).revision, 4);
}

#[test]
fn a_later_version_whose_forerunners_did_not_arrive_loses_nothing() {
    let (a, b, c) = (replica(0), replica(1), replica(2));
    let first = put(&a, "shop", Some(json!(1)), NOW);
    send(std::slice::from_ref(&first), &b, NOW);
    let mut last = first.clone();
    for i in 2..6 {
        last = put(&b, "shop", Some(json!(i)), NOW);
    }
    send(std::slice::from_ref(&last), &c, NOW);
    last = put(&c, "shop", Some(json!(6)), NOW);
    assert_eq!(last.older, [first.stamp]);
    let merged = send(&[last], &a, NOW);
    assert_eq!((merged.applied.len(), merged.lost.len()), (1, 0));
    assert_eq!(ids(&a, "shop"), ["6", "1"]);
}

#[test]
fn what_is_written_after_something_seen_is_newer_whatever_the_clocks_say() {
    let (ahead, behind) = (replica(0), replica(1));
    let seen = put(&ahead, "shop", Some(json!(1)), NOW + 4 * 60_000);
    send(&[seen], &behind, NOW);
    let next = put(&behind, "shop", Some(json!(2)), NOW);
    send(&[next], &ahead, NOW);
    assert_eq!(
        ahead.get("stack", "shop").unwrap().unwrap().value,
        Some(json!(2))
    );
    // Also after a restart, though what was seen is gone.
    let last = put(&behind, "other", Some(json!(3)), NOW).stamp;
    let store = Arc::clone(behind.store());
    drop(behind);
    let behind = Replica::open(store, node(1), NOW - HOUR).unwrap();
    assert!(put(&behind, "third", None, NOW - HOUR).stamp > last);
    assert!(behind.ahead(NOW - HOUR) > HOUR);
}

#[test]
fn poison_is_refused_at_the_door_and_stops_nobody() {
    let (a, b) = (replica(0), replica(1));
    let good = put(&a, "shop", Some(json!(1)), NOW);
    let with = |change: &dyn Fn(&mut Record)| {
        let mut record = good.clone();
        record.name = "bad".to_owned();
        change(&mut record);
        record
    };
    let deep = (0..125).fold(json!(1), |inner, _| json!([inner]));
    let mut bad: Vec<(Record, &str)> = vec![
        (
            with(&|r| r.value = Some(json!("x".repeat(LARGEST_VALUE)))),
            "4194304 is the most",
        ),
        (
            with(&|r| r.value = Some(json!(vec![0; 300_000]))),
            "more than 250000 parts",
        ),
        (with(&|r| r.value = Some(deep.clone())), "nested more than"),
        (with(&|r| r.kind = String::new()), "has no kind"),
        (with(&|r| r.name = String::new()), "has no name"),
        (with(&|r| r.kind = "k".repeat(65)), "64 is the most"),
        (with(&|r| r.name = "n".repeat(257)), "256 is the most"),
        (with(&|r| r.note = "n".repeat(4097)), "4096 is the most"),
        (
            with(&|r| r.stamp.millis = NOW + MAX_AHEAD + 61_000),
            "in the future",
        ),
        (with(&|r| r.revision = 0), "revision 0"),
        (with(&|r| r.revision = u64::MAX), "none that can be"),
        (with(&|r| r.stamp.node = NodeId::NONE), "who wrote it"),
        (
            with(&|r| {
                r.parent = Some(Stamp {
                    millis: NOW + 1,
                    ..r.stamp
                })
            }),
            "cannot be",
        ),
    ];
    for (i, (record, _)) in (1..).zip(&mut bad) {
        record.stamp.counter += i;
    }
    for (record, why) in &bad {
        let merged = b
            .merge(vec![record.clone(), good.clone()], NOW + 60_000)
            .unwrap();
        let [(of, refusal)] = merged.refused.as_slice() else {
            panic!("{why}: {merged:?}");
        };
        assert!(refusal.to_string().contains(why), "{refusal}");
        assert!(of.name.len() <= 256 && of.kind.len() <= 64);
        assert!(b.get("stack", "shop").unwrap().is_some());
        // Told of once.
        let again = b.merge(vec![record.clone()], NOW + 60_000).unwrap();
        assert_eq!(again.refused, []);
        // Nor is it asked for again.
        if !matches!(refusal, Refusal::Nameless(_)) {
            let parts: Vec<u8> = (0..=255).collect();
            let theirs = [(record.key(), record.stamp)];
            let want = b.compare(&theirs, &parts, NOW + 60_000).want;
            assert_eq!(want, [], "{why}");
        }
    }
    assert_eq!(b.len(), 1);
    // Through the bytes it is the same, as far as those can be made.
    let all: Vec<Record> = bad[1..].iter().map(|(r, _)| r.clone()).collect();
    let batch = decode(&encode(&[all, vec![good]].concat())).unwrap();
    assert_eq!((batch.records.len(), batch.refused.len()), (3, 10));
    let merged = replica(2).merge(batch, NOW).unwrap();
    assert_eq!((merged.applied.len(), merged.refused.len()), (1, 12));
    // What is from the future is taken when its time has come.
    let future = bad[8].0.clone();
    assert_eq!(
        b.merge(vec![future], NOW + 120_000).unwrap().applied.len(),
        1
    );
}

#[test]
fn what_others_would_refuse_is_not_written() {
    let a = replica(0);
    let options = Options::default();
    let before = put(&a, "shop", Some(json!(1)), NOW);
    let local = Some(("key", Some(b"value".as_slice())));
    for (name, value, note) in [
        ("shop", json!("x".repeat(LARGEST_VALUE)), "up"),
        ("", json!(1), "up"),
        ("shop", json!(1), "up".repeat(3000).as_str()),
    ] {
        let error = a.put(("stack", name), Some(value), (note, NOW), options, local);
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(error.to_string().contains("cannot be kept: its ") || name.is_empty());
    }
    assert_eq!(a.get("stack", "shop").unwrap(), Some(before));
    assert_eq!(a.store().local("key").unwrap(), None);
}

#[test]
fn deletions_are_forgotten_by_all_and_nothing_comes_back() {
    let (a, b, c) = (replica(0), replica(1), replica(2));
    put(&a, "shop", Some(json!(1)), NOW);
    for other in [&b, &c] {
        reconcile((&a, NOW), (other, NOW));
        other.synced(NOW).unwrap();
    }
    a.synced(NOW).unwrap();
    put(&a, "shop", None, NOW + 1);
    reconcile((&a, NOW), (&b, NOW));
    assert_eq!(b.get("stack", "shop").unwrap().unwrap().value, None);
    let later = NOW + TOMBSTONE + 2;
    // Who has not met others for so long forgets nothing.
    assert_eq!(a.collect(later).unwrap(), 0);
    a.synced(later).unwrap();
    b.synced(later).unwrap();
    assert_eq!(a.collect(NOW + 2).unwrap(), 0);
    assert_eq!(a.collect(later).unwrap(), 1);
    assert_eq!(a.len(), 0);
    // b has not done so yet: nothing is sent to and fro.
    assert_eq!(a.summary(later), b.summary(later));
    assert_eq!(reconcile((&a, later), (&b, later)), 0);
    // And if it is sent all the same, it is not taken.
    let tombstone = b.get("stack", "shop").unwrap().unwrap();
    let merged = send(&[tombstone], &a, later);
    assert_eq!((merged.known, merged.applied.len()), (1, 0));
    // What was deleted can be seen, and brought back, for longer.
    assert_eq!(ids(&a, "shop"), ["2", "1"]);
    assert_eq!(a.get("stack", "shop").unwrap(), None);

    // c was away, and has it still. It is stale, and says so; the others are not.
    assert!(c.is_stale(later) && !a.is_stale(later));
    let edit = put(&c, "own", Some(json!("made alone")), later - HOUR);
    assert_eq!(c.forsake(&[], later).unwrap(), [key("own"), key("shop")]);
    assert!(!c.is_stale(later));
    reconcile((&a, later), (&c, later));
    assert_eq!(c.summary(later), a.summary(later));
    assert_eq!(c.list("stack").unwrap(), []);
    let history = c.history("stack", "own").unwrap();
    assert!(history[0].lost);
    assert_eq!(history[0].record, edit);

    // Much later nothing is left.
    a.synced(NOW + GONE + HOUR).unwrap();
    a.collect(NOW + GONE + HOUR).unwrap();
    assert_eq!(ids(&a, "shop"), [""; 0]);
}

#[test]
fn what_was_forsaken_comes_back_from_the_others_as_it_was() {
    let (a, b) = (replica(0), replica(1));
    put(&a, "shop", Some(json!(1)), NOW);
    put(&a, "blog", Some(json!(1)), NOW);
    reconcile((&a, NOW), (&b, NOW));
    put(&a, "blog", Some(json!(2)), NOW);
    let before = (ids(&b, "shop"), a.history("stack", "blog").unwrap());
    b.forsake(&[], NOW).unwrap();
    assert!(b.is_empty());
    assert_eq!(ids(&b, "shop"), [format!("1~{}", node(0).short())]);
    // A restart in between.
    let b = Replica::open(Arc::clone(b.store()), node(1), NOW).unwrap();
    reconcile((&a, NOW), (&b, NOW));
    assert_eq!(a.summary(NOW), b.summary(NOW));
    assert_eq!(ids(&b, "shop"), before.0);
    assert_eq!(b.history("stack", "blog").unwrap(), before.1);
}

#[test]
fn large_objects_go_in_several_batches() {
    let (a, b) = (replica(0), replica(1));
    let value = || Some(json!("x".repeat(LARGEST_VALUE - 2)));
    for i in 0..5 {
        put(&a, &format!("s{i}"), value(), NOW);
    }
    let mut rounds = 0;
    while reconcile((&a, NOW), (&b, NOW)) > 0 {
        rounds += 1;
    }
    assert_eq!((rounds, b.len()), (5, 5));
    let keys: Vec<Key> = (0..5).map(|i| key(&format!("s{i}"))).collect();
    assert_eq!(a.records(&keys, 1).unwrap().len(), 1);
    assert_eq!(a.records(&[key("none")], 1).unwrap(), []);
}

fn any_record() -> impl Strategy<Value = Record> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    });
    let names = ("[a-z]{1,64}", ".{1,60}", ".{0,50}");
    let stamps = any::<(u64, u32, [u8; 32], Option<u32>)>();
    (names, 1..u64::MAX / 2, stamps, prop::option::of(value)).prop_map(
        |((kind, name, note), revision, (millis, counter, id, parent), value)| {
            let stamp = Stamp {
                millis,
                counter,
                node: NodeId(id),
            };
            let parent = parent.and_then(|p| {
                Some(Stamp {
                    millis: millis.checked_sub(u64::from(p) + 2)?,
                    ..stamp
                })
            });
            let older = parent.map(|p| Stamp {
                millis: p.millis.saturating_sub(1),
                counter: 0,
                node: NodeId([0; 32]),
            });
            Record {
                kind,
                name,
                revision,
                stamp,
                parent,
                older: older.into_iter().filter(|o| Some(*o) < parent).collect(),
                note,
                value,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn records_arrive_as_they_were_sent(records in prop::collection::vec(any_record(), 0..6)) {
        let bytes = encode(&records);
        let batch = decode(&bytes).unwrap();
        prop_assert_eq!(batch.refused, []);
        prop_assert_eq!(&batch.records, &records);
        for record in &records {
            let one = postcard::to_allocvec(record).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<Record>(&one).unwrap(), record);
            // Where people read, no value and the value null look alike.
            if record.value != Some(Value::Null) {
                let text = serde_json::to_string(record).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Record>(&text).unwrap(), record);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000), small in any::<u8>()) {
        let _ = decode(&bytes);
        let mut of_our_form = vec![1, small % 20];
        of_our_form.extend(&bytes);
        if let Ok(batch) = decode(&of_our_form) {
            // No more comes out than went in.
            prop_assert!((batch.records.len() + batch.refused.len()) * 36 <= bytes.len());
        }
        let _ = postcard::from_bytes::<Record>(&bytes);
        let _ = postcard::from_bytes::<wharfie_cluster::Summary>(&bytes);
        let _ = serde_json::from_slice::<Record>(&bytes);
    }

    #[test]
    fn damaged_records_are_read_or_refused(
        records in prop::collection::vec(any_record(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&records);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let receiver = replica(0);
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(batch) = decode(bytes) {
                // Whatever comes through is merged or refused, and can be read again.
                let all = batch.records.len() + batch.refused.len();
                let merged = receiver.merge(batch, u64::MAX / 2).unwrap();
                prop_assert!(merged.applied.len() + merged.known + merged.refused.len() <= all);
                for key in merged.applied {
                    receiver.history(&key.kind, &key.name).unwrap();
                }
            }
        }
    }
}

#[test]
fn what_is_announced_is_not_believed() {
    // Four thousand million records, then a text of as many bytes, then as many stamps.
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let announced = |before: &[u8]| decode(&[before, &huge].concat()).unwrap_err();
    assert!(matches!(announced(&[1]), Malformed::Many(_)));
    assert!(matches!(announced(&[1, 1]), Malformed::Damaged(_)));
    let mut stamps = vec![1, 1, 1, b'k', 1, b'n', 1, 0, 0];
    stamps.extend([7; 32]);
    stamps.push(0);
    assert!(matches!(announced(&stamps), Malformed::Damaged(_)));
    assert_eq!(decode(&[2, 0]).unwrap_err(), Malformed::Newer(2));
    assert!(matches!(decode(&[]), Err(Malformed::Damaged(_))));
    assert!(matches!(decode(&[1, 0, 0]), Err(Malformed::Damaged(_))));
    let large = vec![1; LARGEST_BATCH + 1];
    assert!(matches!(decode(&large), Err(Malformed::Large(_))));
    assert_eq!(decode(&encode(&[])).unwrap().records, []);
}

#[test]
fn records_are_sent_in_the_form_that_was_agreed_on() {
    let record = Record {
        kind: "stack".to_owned(),
        name: "shop".to_owned(),
        revision: 300,
        stamp: Stamp {
            millis: 1,
            counter: 2,
            node: NodeId([3; 32]),
        },
        parent: None,
        older: Vec::new(),
        note: "up".to_owned(),
        value: Some(json!({"a": [1]})),
    };
    let mut bytes = b"\x01\x01\x05stack\x04shop\xac\x02\x01\x02".to_vec();
    bytes.extend([3; 32]);
    bytes.extend(b"\x00\x00\x02up\x01\x09{\"a\":[1]}");
    assert_eq!(encode(&[record]), bytes);
}

#[test]
fn what_is_kept_of_one_kind_is_not_the_bound_of_another() {
    let (a, b) = (replica(0), replica(1));
    let edits = [1, 2, 3].map(|n| put(&a, "shop", Some(json!(n)), NOW + n));
    let brief = Options { history: 1 };
    let id = ("assignment", "shop/web");
    let moves: [Record; 3] = [4, 5, 6].map(|n| {
        let note = ("schedule", NOW + n);
        a.put(id, Some(json!(n)), note, brief, None).unwrap()
    });
    b.set_history("assignment", 1);
    send(&moves, &b, NOW);
    send(&edits, &b, NOW);
    // Taking in more does not let go more.
    let four = put(&b, "shop", Some(json!(4)), NOW + 7);
    send(&[four], &a, NOW);
    for replica in [&a, &b] {
        assert_eq!(ids(replica, "shop"), ["4", "3", "2", "1"]);
        let moves = replica.history(id.0, id.1).unwrap();
        assert_eq!(moves.len(), 2);
    }
}

/// Many at once are there all, or none is; each is as if it had been written alone.
#[test]
fn several_objects_are_written_in_one() {
    let (a, b) = (replica(0), replica(1));
    put(&a, "first", Some(json!(1)), NOW);
    let all = |names: &[&str]| names.iter().map(|n| (key(n), Some(json!(2)))).collect();
    let options = Options { history: 1 };
    let written = a.put_all(all(&["first", "second"]), ("note", NOW + 1), options);
    let written = written.unwrap();
    assert_eq!(
        written.iter().map(|r| r.revision).collect::<Vec<_>>(),
        [2, 1]
    );
    assert!(written[0].stamp < written[1].stamp);
    assert_eq!(send(&written, &b, NOW + 1).applied.len(), 2);
    assert_eq!(a.summary(NOW + 1), b.summary(NOW + 1));
    // A version that must not be written: neither is the one before it.
    let large = Value::String("x".repeat(LARGEST_VALUE));
    let mut puts: Vec<(Key, Option<Value>)> = all(&["third"]);
    puts.push((key("fourth"), Some(large)));
    let refused = a.put_all(puts, ("note", NOW + 2), options);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert_eq!(a.get("stack", "third").unwrap(), None);
    assert_eq!(a.summary(NOW + 2), b.summary(NOW + 2));
    // Deletions too, and again nothing at all.
    let gone = vec![(key("first"), None), (key("second"), None)];
    a.put_all(gone, ("note", NOW + 3), options).unwrap();
    assert!(a.list("stack").unwrap().is_empty());
    assert!(
        a.put_all(Vec::new(), ("note", NOW + 4), options)
            .unwrap()
            .is_empty()
    );
}
