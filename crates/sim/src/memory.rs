//! The replicated state of a node, on a disk of its own that outlives the agent.

use std::sync::Arc;

use serde_json::Value;
use wharfie_cluster::{Difference, Key, NodeId, Options, Record, Replica, Stamp, Store, Summary};

use crate::mutation::Mutation;

/// Bytes of records that are sent together.
const BATCH: usize = 4 << 20;

/// A replica as agents have it, kept in memory.
pub(crate) struct Memory {
    store: Arc<Store>,
    replica: Replica,
}

impl Memory {
    pub(crate) fn new(me: NodeId, wall: u64) -> Self {
        // Nothing but the lack of memory can go wrong.
        #[allow(clippy::expect_used)]
        let store = Arc::new(Store::in_memory().expect("a store in memory"));
        let replica = Self::open(&store, me, wall);
        Self { store, replica }
    }

    fn open(store: &Arc<Store>, me: NodeId, wall: u64) -> Replica {
        #[allow(clippy::expect_used)] // it is in memory
        Replica::open(Arc::clone(store), me, wall).expect("the store can be read")
    }

    /// Another agent opens what the last one left.
    pub(crate) fn reopen(&mut self, wall: u64) {
        self.replica = Self::open(&self.store, self.replica.me(), wall);
    }

    /// Writes a version, or says why not.
    pub(crate) fn put(
        &self,
        key: &Key,
        value: Option<Value>,
        note: &str,
        wall: u64,
    ) -> Result<Record, String> {
        let options = Options {
            history: if matches!(key.kind.as_str(), "assignment" | "rollout") {
                1
            } else {
                50
            },
        };
        let id = (key.kind.as_str(), key.name.as_str());
        let put = self.replica.put(id, value, (note, wall), options, None);
        put.map_err(|e| e.to_string())
    }

    /// Takes what others wrote; what changed.
    pub(crate) fn merge(
        &self,
        records: &[Record],
        wall: u64,
        mutation: Option<Mutation>,
    ) -> Vec<Key> {
        let mut records = records.to_vec();
        if mutation == Some(Mutation::OlderWins) {
            let known = |r: &Record| self.replica.newest(&r.key()).is_some();
            records.retain(|r| !known(r));
        }
        match self.replica.merge(records, wall) {
            Ok(merged) => merged.applied,
            Err(_) => Vec::new(),
        }
    }

    pub(crate) fn newest(&self, key: &Key) -> Option<Stamp> {
        self.replica.newest(key)
    }

    /// The newest version of an object.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Record> {
        self.replica.get(kind, name).ok().flatten()
    }

    pub(crate) fn list(&self, kind: &str) -> Vec<Record> {
        self.replica.list(kind).unwrap_or_default()
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.replica.keys()
    }

    pub(crate) fn summary(&self, wall: u64) -> Summary {
        self.replica.summary(wall)
    }

    pub(crate) fn versions(&self, parts: &[u8], wall: u64) -> Vec<(Key, Stamp)> {
        self.replica.versions(parts, wall)
    }

    pub(crate) fn compare(&self, theirs: &[(Key, Stamp)], parts: &[u8], wall: u64) -> Difference {
        self.replica.compare(theirs, parts, wall)
    }

    /// As many versions as are sent together.
    pub(crate) fn records(&self, keys: &[Key]) -> Vec<Record> {
        self.replica.records(keys, BATCH).unwrap_or_default()
    }
}
