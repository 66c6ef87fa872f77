//! Limits of rates: answers that are alike, to one network. Who forges the address of somebody has
//! him sent few answers; who asks for many names gets all of them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;

use super::answer::{Class, Topic};

/// Kinds of answers that are counted at a time; those that meet in a place take it from each other.
const PLACES: usize = 1 << 16;
/// Bits of a place that say when; the others say whose it is.
const TIME: u64 = (1 << 48) - 1;

/// How many answers that are alike one network gets: a /24, or a /56.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// In a second, and at once; 0 for as many as are asked for.
    pub per_second: u32,
    /// One in so many of those above, by chance, is sent cut off, so that who really asks can ask by TCP; 0 for
    /// none.
    pub slip: u32,
    /// Who is not limited.
    pub exempt: Vec<IpNet>,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            per_second: 200,
            slip: 2,
            exempt: Vec::new(),
        }
    }
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Send,
    CutOff,
    Drop,
}

#[derive(Debug)]
pub(crate) struct Limiter {
    limit: RateLimit,
    hasher: RandomState,
    /// For each kind of answers: whose, and the microsecond until which its share is used up.
    places: Box<[AtomicU64]>,
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        let places = if limit.per_second == 0 { 0 } else { PLACES };
        Self {
            limit,
            hasher: RandomState::new(),
            places: (0..places).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether an answer may go out. `now` is in microseconds from any beginning.
    pub(crate) fn judge(&self, to: IpAddr, name: &[u8], topic: Topic, now: u64) -> Verdict {
        if self.places.is_empty() {
            return Verdict::Send;
        }
        let network = match to.to_canonical() {
            IpAddr::V4(a) => u64::from(a.to_bits() >> 8),
            IpAddr::V6(a) => (a.to_bits() >> 72) as u64 | 1 << 63,
        };
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(network);
        hasher.write_u8(topic.class as u8);
        if topic.class != Class::Fault {
            hasher.write(&name[name.len() - topic.by.min(name.len())..]);
        }
        let hash = hasher.finish();
        let place = &self.places[hash as usize % PLACES];
        let mine = hash & !TIME;
        let value = place.load(Ordering::Relaxed);
        let until = match value & !TIME == mine {
            true => (value & TIME).max(now),
            false => now,
        };
        if until - now >= 1_000_000 {
            if self
                .limit
                .exempt
                .iter()
                .any(|n| n.contains(&to.to_canonical()))
            {
                return Verdict::Send;
            }
            return match self.limit.slip {
                0 => Verdict::Drop,
                // Who asks for two things in turn must not get all of one and nothing of the other.
                slip if rand::random::<u32>().is_multiple_of(slip) => Verdict::CutOff,
                _ => Verdict::Drop,
            };
        }
        // Two threads may count one answer for two: nothing depends on it.
        let next = until + 1_000_000 / u64::from(self.limit.per_second);
        place.store(mine | next & TIME, Ordering::Relaxed);
        Verdict::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Topic = Topic {
        class: Class::Records,
        by: 3,
    };

    fn sent(limiter: &Limiter, to: &str, name: &[u8], now: u64, asked: u32) -> (u32, u32) {
        let to = to.parse().unwrap();
        let mut counts = (0, 0);
        for _ in 0..asked {
            match limiter.judge(to, name, TOPIC, now) {
                Verdict::Send => counts.0 += 1,
                Verdict::CutOff => counts.1 += 1,
                Verdict::Drop => {}
            }
        }
        counts
    }

    #[test]
    fn answers_that_are_alike_are_limited() {
        let limiter = Limiter::new(RateLimit {
            per_second: 100,
            slip: 2,
            exempt: vec!["10.9.0.0/16".parse().unwrap()],
        });
        let (whole, cut_off) = sent(&limiter, "10.0.0.1", b"abc", 1, 1100);
        assert_eq!(whole, 100);
        // Half of a thousand, by ten standard deviations.
        assert!((340..660).contains(&cut_off), "{cut_off}");
        // The same network, another one, another name.
        assert_eq!(sent(&limiter, "10.0.0.2", b"abc", 1, 10).0, 0);
        assert_eq!(sent(&limiter, "10.0.1.1", b"abc", 1, 10), (10, 0));
        assert_eq!(sent(&limiter, "10.0.0.1", b"abd", 1, 10), (10, 0));
        assert_eq!(sent(&limiter, "2001:db8::1", b"abc", 1, 101).0, 100);
        assert_eq!(sent(&limiter, "2001:db8:0:1::1", b"abc", 1, 2).0, 0);
        assert_eq!(sent(&limiter, "10.9.0.1", b"abc", 1, 500), (500, 0));
        // Half a second later there is half of it.
        assert_eq!(sent(&limiter, "10.0.0.1", b"abc", 500_001, 100).0, 50);
    }

    /// Two questions in turn, as of a client that wants both families of addresses.
    #[test]
    fn who_asks_in_turn_gets_cut_off_answers_to_each() {
        let limiter = Limiter::new(RateLimit {
            per_second: 1,
            slip: 2,
            exempt: Vec::new(),
        });
        let to = "10.0.0.1".parse().unwrap();
        let mut cut_off = [0, 0];
        for turn in 0..2000 {
            let verdict = limiter.judge(to, b"abc", TOPIC, 1);
            cut_off[turn % 2] += u32::from(verdict == Verdict::CutOff);
        }
        assert!(cut_off.iter().all(|c| *c > 300), "{cut_off:?}");
    }

    #[test]
    fn none_is_no_limit() {
        let limiter = Limiter::new(RateLimit {
            per_second: 0,
            ..RateLimit::default()
        });
        assert_eq!(sent(&limiter, "10.0.0.1", b"abc", 1, 1000), (1000, 0));
    }
}
