//! The ways between nodes.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::time::{MS, Micros};

/// What becomes of what is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network {
    /// Ways, from and to, on which nothing passes.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// The part of the network that each node is in; all are in one if there are none.
    pub(crate) parts: Vec<u8>,
    /// Nodes that nothing reaches or leaves.
    pub(crate) off: BTreeSet<usize>,
    /// Share of messages that are lost, in thousandths.
    pub(crate) loss: u32,
    /// Share of messages that come twice, in thousandths.
    pub(crate) twice: u32,
    /// The longest that a message takes beyond the shortest; what is sent later may arrive earlier.
    pub(crate) jitter: Micros,
}

impl Network {
    /// Whether anything passes from one node to another.
    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        let part = |n: usize| self.parts.get(n).copied().unwrap_or(0);
        !self.cut.contains(&(from, to))
            && part(from) == part(to)
            && !self.off.contains(&from)
            && !self.off.contains(&to)
    }

    /// Whether two nodes hear each other.
    pub(crate) fn is_open_both_ways(&self, a: usize, b: usize) -> bool {
        self.is_open(a, b) && self.is_open(b, a)
    }

    /// How long each copy of a message takes; none arrives if it is lost.
    pub(crate) fn send(&self, from: usize, to: usize, rng: &mut StdRng) -> Vec<Micros> {
        if !self.is_open(from, to) || rng.random_range(0..1000) < self.loss {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.random_range(0..1000) < self.twice);
        let mut one = || MS / 2 + rng.random_range(0..=self.jitter);
        (0..copies).map(|_| one()).collect()
    }

    /// Everything passes again.
    pub(crate) fn heal(&mut self) {
        *self = Self {
            jitter: MS,
            ..Self::default()
        };
    }
}
