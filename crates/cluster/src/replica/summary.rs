//! What a node has, in two kibibytes: enough for two nodes to see where they differ.
//!
//! The map is cut into 256 parts by a hash of the key; of each part the hashes of all its versions
//! are taken together by exclusive or, so that a change costs the same however large the map is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TOMBSTONE;
use super::record::Key;
use crate::clock::Stamp;

/// Parts of the map.
const PARTS: usize = 256;

/// What a node has, by part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Summary(Vec<u64>);

impl Summary {
    /// The parts in which another node has something else.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<u8> {
        let pairs = self.0.iter().zip(&other.0);
        let parts = pairs.zip(0..=u8::MAX);
        parts
            .filter(|((a, b), _)| a != b)
            .map(|(_, part)| part)
            .collect()
    }
}

impl From<Summary> for Vec<u8> {
    fn from(summary: Summary) -> Self {
        summary.0.iter().flat_map(|n| n.to_be_bytes()).collect()
    }
}

impl TryFrom<Vec<u8>> for Summary {
    type Error = String;

    fn try_from(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() != PARTS * 8 {
            let len = bytes.len();
            return Err(format!("a summary has {} bytes, not {len}", PARTS * 8));
        }
        let number = |b: &[u8]| b.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        Ok(Self(bytes.chunks_exact(8).map(number).collect()))
    }
}

/// What is known of an object without looking at the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) deleted: bool,
}

/// All objects, and their summary.
#[derive(Debug)]
pub(super) struct Index {
    parts: Vec<BTreeMap<Key, Entry>>,
    sums: Vec<u64>,
    /// Deletions that count in the summary.
    fresh: BTreeSet<(Stamp, Key)>,
    /// Deletions that are so old that they do not.
    expired: BTreeSet<(Stamp, Key)>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            parts: vec![BTreeMap::new(); PARTS],
            sums: vec![0; PARTS],
            fresh: BTreeSet::new(),
            expired: BTreeSet::new(),
        }
    }
}

impl Index {
    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.parts[usize::from(part(key))].get(key)
    }

    /// All objects that are not deleted.
    pub(super) fn live(&self) -> impl Iterator<Item = &Key> {
        let all = self.parts.iter().flatten();
        all.filter(|(_, entry)| !entry.deleted).map(|(key, _)| key)
    }

    /// Puts an object in, in place of its former version.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.remove(&key);
        let part = usize::from(part(&key));
        self.sums[part] ^= digest(&key, entry.stamp);
        if entry.deleted {
            self.fresh.insert((entry.stamp, key.clone()));
        }
        self.parts[part].insert(key, entry);
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, key: &Key) {
        let part = usize::from(part(key));
        let Some(former) = self.parts[part].remove(key) else {
            return;
        };
        let deletion = (former.stamp, key.clone());
        let counted = !self.expired.remove(&deletion);
        self.fresh.remove(&deletion);
        if counted {
            self.sums[part] ^= digest(key, former.stamp);
        }
    }

    /// Deletions that have become too old count no more.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((stamp, _)) = self.fresh.first() {
            if !is_expired(*stamp, now) {
                break;
            }
            if let Some((stamp, key)) = self.fresh.pop_first() {
                self.sums[usize::from(part(&key))] ^= digest(&key, stamp);
                self.expired.insert((stamp, key));
            }
        }
    }

    /// Deletions that are too old.
    pub(super) fn expired(&self) -> Vec<Key> {
        self.expired.iter().map(|(_, key)| key.clone()).collect()
    }

    pub(super) fn summary(&self) -> Summary {
        Summary(self.sums.clone())
    }

    /// What counts in some parts.
    pub(super) fn versions(&self, parts: &[u8]) -> impl Iterator<Item = (&Key, Stamp)> {
        let parts: BTreeSet<u8> = parts.iter().copied().collect();
        let entries = parts
            .into_iter()
            .flat_map(|p| self.parts[usize::from(p)].iter());
        let counts = |(key, entry): &(&Key, &Entry)| {
            !entry.deleted || !self.expired.contains(&(entry.stamp, (*key).clone()))
        };
        entries
            .filter(counts)
            .map(|(key, entry)| (key, entry.stamp))
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(BTreeMap::len).sum()
    }
}

/// Whether what was deleted then is forgotten by now.
pub(super) fn is_expired(deleted: Stamp, now: u64) -> bool {
    now.saturating_sub(deleted.millis) > TOMBSTONE
}

/// The part that an object is in.
pub(super) fn part(key: &Key) -> u8 {
    hash(key, None)[0]
}

/// Stands for a version of an object.
fn digest(key: &Key, stamp: Stamp) -> u64 {
    let hash = hash(key, Some(stamp));
    hash[..8].iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn hash(key: &Key, stamp: Option<Stamp>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((key.kind.len() as u64).to_be_bytes());
    hash.update(key.kind.as_bytes());
    hash.update((key.name.len() as u64).to_be_bytes());
    hash.update(key.name.as_bytes());
    if let Some(stamp) = stamp {
        hash.update(stamp.to_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;
    use crate::id::NodeId;
    use proptest::prelude::*;

    fn stamp(millis: u64) -> Stamp {
        Stamp {
            millis,
            counter: 0,
            node: NodeId([1; 32]),
        }
    }

    #[test]
    fn it_is_the_same_on_all_nodes_and_in_all_versions() {
        let mut index = Index::default();
        let key = Key::new("stack", "shop");
        assert_eq!(part(&key), 186);
        let entry = Entry {
            stamp: stamp(7),
            deleted: false,
        };
        index.insert(key.clone(), entry);
        assert_eq!(index.sums[186], digest(&key, stamp(7)));
        assert_eq!(digest(&key, stamp(7)), 0x53cc_edfa_b738_0c9a);
        let summary = index.summary();
        let bytes = postcard::to_allocvec(&summary).unwrap();
        assert_eq!(bytes.len(), 2050);
        assert_eq!(postcard::from_bytes::<Summary>(&bytes).unwrap(), summary);
        assert_eq!(summary.differing(&Index::default().summary()), [186]);
        assert!(Summary::try_from(vec![0; 7]).is_err());
    }

    proptest! {
        #[test]
        fn after_increments_it_is_what_it_would_be_from_scratch(
            steps in prop::collection::vec((0..40_u8, any::<bool>(), 0..4_u8), 0..80)
        ) {
            let mut index = Index::default();
            let mut plain = BTreeMap::new();
            let mut now = 0;
            for (i, (name, deleted, what)) in (1..).zip(steps) {
                let key = Key::new("k", name.to_string());
                now += TOMBSTONE / 20;
                if what == 0 {
                    index.remove(&key);
                    plain.remove(&key);
                } else {
                    let entry = Entry { stamp: stamp(now + i), deleted };
                    index.insert(key.clone(), entry);
                    plain.insert(key, entry);
                }
                if what == 1 {
                    index.expire(now);
                }
            }
            index.expire(now);
            let mut scratch = Index::default();
            for (key, entry) in &plain {
                if !entry.deleted || !is_expired(entry.stamp, now) {
                    scratch.insert(key.clone(), *entry);
                }
            }
            prop_assert_eq!(index.summary(), scratch.summary());
            let all: Vec<u8> = (0..=u8::MAX).collect();
            let of = |index: &Index| index.versions(&all).map(|(k, s)| (k.clone(), s)).collect::<Vec<_>>();
            prop_assert_eq!(of(&index), of(&scratch));
            prop_assert_eq!(index.len(), plain.len());
        }
    }
}
