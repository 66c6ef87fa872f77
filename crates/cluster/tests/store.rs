//! The store as its user sees it: durable, versioned, whole or not at all.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use redb::{Database, TableDefinition};
use serde_json::json;
use wharfie_cluster::{Error, FORMAT, Options, Store};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

fn put(store: &Store, name: &str, value: serde_json::Value) -> u64 {
    let options = Options { history: 3 };
    store
        .put(("stack", name), Some(value), ("up", 7), options)
        .unwrap()
}

#[test]
fn versions_are_kept_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for i in 1..=6 {
        assert_eq!(put(&store, "a", json!(i)), i);
    }
    put(&store, "b", json!("other"));
    let revisions: Vec<u64> = store
        .history("stack", "a")
        .unwrap()
        .iter()
        .map(|o| o.revision)
        .collect();
    assert_eq!(revisions, [6, 5, 4, 3]);
    store
        .put(("stack", "a"), None, ("down", 8), Options::default())
        .unwrap();
    let names: Vec<String> = store
        .list("stack")
        .unwrap()
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    assert_eq!(names, ["b"]);
    let deleted = store.get("stack", "a").unwrap().unwrap();
    assert_eq!((deleted.revision, deleted.value), (7, None));
    assert_eq!(
        store.history("stack", "a").unwrap()[1].value,
        Some(json!(6))
    );
}

#[test]
fn it_is_there_after_reopening_and_nobody_else_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, "a", json!({"x": 1}));
    store.set_local("k", Some(b"v")).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::InUse { .. })));
    drop(store);
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
    let store = Store::open(dir.path()).unwrap();
    let shop = store.get("stack", "shop").unwrap().unwrap();
    assert_eq!(
        (shop.revision, shop.value),
        (1, Some(json!({"active": ["web"]})))
    );
    assert_eq!(put(&store, "shop", json!(2)), 2);
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
    let store = Store::open(dir.as_ref()).unwrap();
    loop {
        let next = store.get("stack", "a").unwrap().map_or(0, |o| o.revision) + 1;
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
