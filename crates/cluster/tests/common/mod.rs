//! Replicas in memory, and how two of them become equal.
#![allow(dead_code, clippy::unwrap_used)] // each test uses some of it; a panic is how one fails

use std::sync::Arc;

use serde_json::Value;
use wharfie_cluster::{
    LARGEST_BATCH, Merged, NodeId, Options, Record, Replica, Store, decode, encode,
};

/// A time, in milliseconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000_000;

pub(crate) fn node(n: usize) -> NodeId {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&(n as u64 + 1).to_le_bytes());
    NodeId(id)
}

pub(crate) fn replica(n: usize) -> Replica {
    Replica::open(Arc::new(Store::in_memory().unwrap()), node(n), NOW).unwrap()
}

pub(crate) fn put(replica: &Replica, name: &str, value: Option<Value>, now: u64) -> Record {
    let options = Options::default();
    replica
        .put(("stack", name), value, ("up", now), options, None)
        .unwrap()
}

/// What one node sends to another, through the bytes that it sends.
pub(crate) fn send(records: &[Record], to: &Replica, now: u64) -> Merged {
    let batch = decode(&encode(records)).unwrap();
    assert_eq!(batch.refused, []);
    to.merge(batch, now).unwrap()
}

/// One reconciliation of two nodes whose clocks show these times; the records that went over.
pub(crate) fn reconcile((a, now_a): (&Replica, u64), (b, now_b): (&Replica, u64)) -> usize {
    let parts = a.summary(now_a).differing(&b.summary(now_b));
    if parts.is_empty() {
        return 0;
    }
    let theirs = a.versions(&parts, now_a);
    let difference = b.compare(&theirs, &parts, now_b);
    let to_b = a.records(&difference.want, LARGEST_BATCH).unwrap();
    let to_a = b.records(&difference.have, LARGEST_BATCH).unwrap();
    send(&to_b, b, now_b);
    send(&to_a, a, now_a);
    to_b.len() + to_a.len()
}
