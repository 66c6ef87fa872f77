//! A hash that is the same on every node and in every version: std's differ between runs.

use std::hash::{BuildHasherDefault, Hasher};

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads the bits of a number over all of it (the end of splitmix64).
pub(crate) fn mix(mut h: u64) -> u64 {
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// The hash of a text.
pub(crate) fn text(text: &str) -> u64 {
    let mut hash = Words::default();
    hash.write(text.as_bytes());
    hash.finish()
}

/// The hash of a pair of hashes.
pub(crate) fn pair(a: u64, b: u64) -> u64 {
    mix(a.wrapping_mul(ODD) ^ b)
}

/// Takes eight bytes at a time: ids of nodes are long and looked up often.
#[derive(Default)]
pub(crate) struct Words(u64);

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        let mut add = |word: u64| self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(ODD);
        for word in words.by_ref() {
            let mut eight = [0; 8];
            eight.copy_from_slice(word);
            add(u64::from_le_bytes(eight));
        }
        let rest = words.remainder();
        let mut eight = [0; 8];
        eight[..rest.len()].copy_from_slice(rest);
        add(u64::from_le_bytes(eight));
        // "a" and "a\0" differ.
        add(bytes.len() as u64);
    }

    fn finish(&self) -> u64 {
        mix(self.0)
    }
}

pub(crate) type Map<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Words>>;

/// The node that places the tasks of a stack and leads its changes: of those that live, the
/// first by rendezvous hash. If it dies, the stacks of all others keep theirs.
#[must_use]
pub fn coordinator<'a>(stack: &str, live: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let stack = text(stack);
    live.max_by_key(|node| (pair(stack, text(node)), std::cmp::Reverse(*node)))
}
