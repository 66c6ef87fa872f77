//! The store as its user sees it: durable, versioned, whole or not at all.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use redb::{Database, TableDefinition};
use serde_json::json;
use wharfie_cluster::{Error, FORMAT, NodeId, Options, Record, Replica, Stamp, Store};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

fn open(dir: &Path) -> Replica {
    Replica::open(Arc::new(Store::open(dir).unwrap()), NodeId::NONE, 0).unwrap()
}

fn put(replica: &Replica, name: &str, value: serde_json::Value) -> u64 {
    let options = Options { history: 3 };
    replica
        .put(("stack", name), Some(value), ("up", 7), options, None)
        .unwrap()
        .revision
}

#[test]
fn versions_are_kept_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 1..=6 {
        assert_eq!(put(&store, "a", json!(i)), i);
    }
    put(&store, "b", json!("other"));
    let history = store.history("stack", "a").unwrap();
    let revisions: Vec<u64> = history.iter().map(|v| v.record.revision).collect();
    assert_eq!(revisions, [6, 5, 4, 3]);
    let options = Options::default();
    let local = Some(("unfinished/a", Some(b"down".as_slice())));
    store
        .put(("stack", "a"), None, ("down", 8), options, local)
        .unwrap();
    assert_eq!(
        store.store().local("unfinished/a").unwrap().unwrap(),
        b"down"
    );
    let names: Vec<String> = store
        .list("stack")
        .unwrap()
        .into_iter()
        .map(|r| r.name)
        .collect();
    assert_eq!(names, ["b"]);
    let deleted = store.get("stack", "a").unwrap().unwrap();
    assert_eq!((deleted.revision, deleted.value), (7, None));
    let history = store.history("stack", "a").unwrap();
    assert_eq!(history[1].record.value, Some(json!(6)));
}

#[test]
fn it_is_there_after_reopening_and_nobody_else_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(dir.path());
    put(&replica, "a", json!({"x": 1}));
    replica.store().set_local("k", Some(b"v")).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::InUse { .. })));
    drop(replica);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(
        store.get("stack", "a").unwrap().unwrap().value,
        Some(json!({"x": 1}))
    );
    assert_eq!(store.local("k").unwrap().unwrap(), b"v");
    store.set_local("kind/a", Some(b"1")).unwrap();
    let kinds = store.locals("kind/").unwrap();
    assert_eq!(kinds, [("a".to_owned(), b"1".to_vec())]);
    store.set_local("k", None).unwrap();
    assert!(store.local("k").unwrap().is_none());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let file = dir.path().join("state.redb");
    let database = Database::create(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert("format", FORMAT + 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let before = std::fs::read(&file).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
    // Opening and closing touch the file's header, not what it holds.
    assert_eq!(before.len(), std::fs::read(&file).unwrap().len());
}

#[test]
fn format_1_is_migrated() {
    const STACKS: TableDefinition<&str, &[u8]> = TableDefinition::new("stacks");
    let dir = tempfile::tempdir().unwrap();
    let database = Database::create(dir.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert("format", 1)
        .unwrap();
    transaction
        .open_table(STACKS)
        .unwrap()
        .insert("shop", br#"{"active":["web"]}"#.as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let store = open(dir.path());
    let shop = store.get("stack", "shop").unwrap().unwrap();
    assert_eq!(
        (shop.revision, shop.value),
        (1, Some(json!({"active": ["web"]})))
    );
    assert_eq!(put(&store, "shop", json!(2)), 2);
}

#[test]
fn format_2_is_migrated_with_its_history() {
    const OBJECTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("objects");
    const HISTORY: TableDefinition<(&str, &str, u64), &[u8]> = TableDefinition::new("history");
    const LOCAL: TableDefinition<&str, &[u8]> = TableDefinition::new("local");
    let old = |revision: u64, time: i64, value: serde_json::Value| {
        let note = if value.is_null() { "down" } else { "up" };
        let object = json!({"revision": revision, "time": time, "note": note, "value": value});
        serde_json::to_vec(&object).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let database = Database::create(dir.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", 2).unwrap();
        let mut objects = transaction.open_table(OBJECTS).unwrap();
        let mut history = transaction.open_table(HISTORY).unwrap();
        let mut local = transaction.open_table(LOCAL).unwrap();
        local.insert("boot", b"id".as_slice()).unwrap();
        let mut insert = |name, versions: &[(u64, i64, serde_json::Value)]| {
            let (newest, older) = versions.split_last().unwrap();
            for (revision, time, value) in older {
                let bytes = old(*revision, *time, value.clone());
                history
                    .insert(("stack", name, *revision), bytes.as_slice())
                    .unwrap();
            }
            let bytes = old(newest.0, newest.1, newest.2.clone());
            objects.insert(("stack", name), bytes.as_slice()).unwrap();
        };
        // Between the second and the third the clock was set back.
        insert(
            "shop",
            &[
                (4, 1000, json!("four")),
                (5, 2000, json!("five")),
                (6, 1500, json!("six")),
                (7, 1500, json!("seven")),
            ],
        );
        insert("gone", &[(1, -5, json!(1)), (2, 9, json!(null))]);
    }
    transaction.commit().unwrap();
    drop(database);

    let replica = open(dir.path());
    let (zero, me) = (NodeId::NONE, NodeId([9; 32]));
    let check = |replica: &Replica, node: NodeId| {
        let history = replica.history("stack", "shop").unwrap();
        let records: Vec<&Record> = history.iter().map(|v| &v.record).collect();
        let revisions: Vec<u64> = records.iter().map(|r| r.revision).collect();
        assert_eq!(revisions, [7, 6, 5, 4]);
        let stamps: Vec<(u64, u32)> = records
            .iter()
            .map(|r| (r.stamp.millis, r.stamp.counter))
            .collect();
        assert_eq!(stamps, [(2000, 2), (2000, 1), (2000, 0), (1000, 0)]);
        assert!(records.iter().all(|r| r.stamp.node == node));
        let parents: Vec<Option<Stamp>> = records.iter().map(|r| r.parent).collect();
        let stamps: Vec<Option<Stamp>> = records.iter().map(|r| Some(r.stamp)).collect();
        assert_eq!(parents[..3], stamps[1..]);
        assert_eq!(parents[3], None);
        assert_eq!(records[1].value, Some(json!("six")));
        assert!(history.iter().all(|v| !v.lost));
        let gone = replica.get("stack", "gone").unwrap().unwrap();
        assert_eq!(
            (gone.revision, gone.value, gone.note.as_str()),
            (2, None, "down")
        );
        assert_eq!(replica.list("stack").unwrap().len(), 1);
        assert_eq!(replica.store().local("boot").unwrap().unwrap(), b"id");
    };
    check(&replica, zero);
    drop(replica);
    // The key comes later.
    let replica = open(dir.path());
    check(&replica, zero);
    let before = replica.summary(0);
    replica.set_me(me).unwrap();
    check(&replica, me);
    assert_eq!(before.differing(&replica.summary(0)).len(), 2);
    drop(replica);
    let replica = open(dir.path());
    check(&replica, me);
    replica.set_me(me).unwrap();
    assert_eq!(put(&replica, "shop", json!("eight")), 8);
    let newest = replica.get("stack", "shop").unwrap().unwrap();
    assert_eq!((newest.stamp.millis, newest.stamp.node), (2000, me));
}

#[test]
fn what_is_no_store_is_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.redb");
    std::fs::write(&file, b"this is no database, but somebody's notes").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
    assert!(std::fs::read(&file).unwrap().starts_with(b"this is no"));
}

/// Writes without end and says after each write what it wrote; run by the test below.
#[test]
#[ignore = "only as the child of another test"]
fn writer_that_will_be_killed() {
    let Some(dir) = std::env::var_os("STORE_TEST_DIR") else {
        return;
    };
    let store = open(dir.as_ref());
    loop {
        let next = store.get("stack", "a").unwrap().map_or(0, |r| r.revision) + 1;
        let filler = "x".repeat(usize::try_from(next * 37 % 9000).unwrap());
        let written = put(&store, "a", json!({"n": next, "filler": filler}));
        println!("written {written}");
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..20_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer_that_will_be_killed", "--ignored", "--nocapture"])
            .env("STORE_TEST_DIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Another moment in each round: after a number of writes that have been told.
        let mut told = 0;
        while told <= round * 3 % 17 {
            let line = lines.next().unwrap().unwrap();
            if let Some(n) = line.strip_prefix("written ") {
                acknowledged = n.parse().unwrap();
                told += 1;
            }
        }
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("written ").and_then(|n| n.parse().ok()) {
                acknowledged = n;
            }
        }
        child.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let object = store.get("stack", "a").unwrap().unwrap();
        // The one in flight may have been completed before it could be told.
        assert!(
            object.revision == acknowledged || object.revision == acknowledged + 1,
            "revision {} after {acknowledged} was acknowledged",
            object.revision
        );
        assert_eq!(object.value.unwrap()["n"], json!(object.revision));
    }
}
