//! When something was written, in an order that all nodes agree on: a hybrid logical clock
//! (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! It shows the time of the machine, unless something newer was seen: then it counts on from there.
//! So whoever writes after having seen a version writes a newer one, whatever the clocks say.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// How far in the future, in milliseconds, a stamp of others may lie. Clocks differ; one that is
/// wrong by more must not drag those of all others with it.
pub const MAX_AHEAD: u64 = 5 * 60 * 1000;

/// When and by whom a version was written. Later ones are greater; no two are the same.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub millis: u64,
    /// Tells apart what was written within a millisecond, or while the clock stood still.
    pub counter: u32,
    /// The author.
    pub node: NodeId,
}

/// Length of [`Stamp::to_bytes`].
pub(crate) const STAMP: usize = 44;

impl Stamp {
    /// Bytes in the same order as the stamps.
    pub(crate) fn to_bytes(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        bytes[..8].copy_from_slice(&self.millis.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.counter.to_be_bytes());
        bytes[12..].copy_from_slice(&self.node.0);
        bytes
    }

    /// From [`Stamp::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8; STAMP]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, node @ ..] = *bytes;
        Self {
            millis: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            counter: u32::from_be_bytes([i, j, k, l]),
            node: NodeId(node),
        }
    }
}

/// The clock of a node. What the machine's clock shows comes in as an argument, in milliseconds
/// since 1970.
#[derive(Debug, Clone)]
pub struct Clock {
    me: NodeId,
    millis: u64,
    counter: u32,
}

impl Clock {
    /// A clock that has shown nothing yet.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            millis: 0,
            counter: 0,
        }
    }

    /// Whose clock it is.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The newest that it has shown or seen.
    #[must_use]
    pub fn last(&self) -> Stamp {
        Stamp {
            millis: self.millis,
            counter: self.counter,
            node: self.me,
        }
    }

    /// It will show only what comes after this.
    pub fn prime(&mut self, stamp: Stamp) {
        (self.millis, self.counter) =
            (self.millis, self.counter).max((stamp.millis, stamp.counter));
    }

    /// A new stamp, later than all that were shown or seen.
    pub fn tick(&mut self, now: u64) -> Stamp {
        (self.millis, self.counter) = if now > self.millis {
            (now, 0)
        } else {
            match self.counter.checked_add(1) {
                Some(counter) => (self.millis, counter),
                None => (self.millis.saturating_add(1), 0),
            }
        };
        self.last()
    }

    /// Follows a stamp of another node, unless it lies too far in the future: then it says by how
    /// many milliseconds.
    ///
    /// # Errors
    /// It is more than [`MAX_AHEAD`] in the future.
    pub fn witness(&mut self, stamp: Stamp, now: u64) -> Result<(), u64> {
        let ahead = stamp.millis.saturating_sub(now);
        if ahead > MAX_AHEAD {
            return Err(ahead);
        }
        self.prime(stamp);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_never_goes_back(steps in prop::collection::vec((0..4_u8, 0..2_000_000_u64, any::<u32>()), 1..60)) {
            let (me, other) = (NodeId([1; 32]), NodeId([2; 32]));
            let mut clock = Clock::new(me);
            let mut last = Stamp::default();
            for (what, time, counter) in steps {
                let stamp = Stamp { millis: time, counter, node: other };
                match what {
                    // The machine's clock is set at will.
                    0 => {}
                    // A restart.
                    1 => {
                        let saved = clock.last();
                        clock = Clock::new(me);
                        clock.prime(saved);
                    }
                    _ => if clock.witness(stamp, time / 2).is_ok() {
                        last = last.max(stamp);
                    },
                }
                let next = clock.tick(time);
                prop_assert!(next > last && next.node == me);
                last = next;
            }
        }

        #[test]
        fn bytes_are_in_order(a in any::<(u64, u32, [u8; 32])>(), b in any::<(u64, u32, [u8; 32])>()) {
            let stamp = |(millis, counter, node)| Stamp { millis, counter, node: NodeId(node) };
            let (a, b) = (stamp(a), stamp(b));
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert_eq!(Stamp::from_bytes(&a.to_bytes()), a);
        }
    }

    #[test]
    fn it_does_not_follow_into_the_future() {
        let mut clock = Clock::new(NodeId([1; 32]));
        let stamp = |millis| Stamp {
            millis,
            ..Stamp::default()
        };
        assert_eq!(clock.witness(stamp(1000 + MAX_AHEAD), 1000), Ok(()));
        assert_eq!(
            clock.witness(stamp(1001 + MAX_AHEAD), 1000),
            Err(MAX_AHEAD + 1)
        );
        assert_eq!(clock.tick(2000).millis, 1000 + MAX_AHEAD);
    }

    #[test]
    fn a_full_counter_goes_on() {
        let mut clock = Clock::new(NodeId::NONE);
        clock.prime(Stamp {
            millis: 5,
            counter: u32::MAX,
            node: NodeId::NONE,
        });
        assert_eq!(clock.tick(1).millis, 6);
        clock.prime(Stamp {
            millis: u64::MAX,
            counter: 1,
            node: NodeId::NONE,
        });
        assert_eq!(clock.tick(1).counter, 2);
    }
}
