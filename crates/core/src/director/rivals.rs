//! Two machines say that an address is theirs: which of them has it.
//!
//! In the store only one node holds an address. But a part of a cluster that does not hear a node takes over
//! what it held, and the node does not hear of that. If the network around is whole, neighbours reach both. Then
//! the nodes settle it without a word, each by what it sees: who is among more of the cluster has it; of two
//! equal parts, whose id is lower.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::heal::Millis;

/// How sure a node can be that what it believes to hold is not another's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It is among most of the nodes: nobody else can have taken over.
    Sure,
    /// It is among half of them.
    Half,
    /// It is among less than half.
    Few,
    /// It was so until a moment ago, or was not there: what the others decided may not be known yet.
    Back,
}

/// A node that says that it has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its id.
    pub id: &'a str,
    /// Whether it is there, as far as is known here: then both are about to read the same in the store.
    pub live: bool,
}

/// Whether a node keeps an address that is its own by the store, though another node has it as well.
fn keeps(me: &str, stand: Stand, other: Peer<'_>) -> bool {
    match stand {
        Stand::Sure => true,
        Stand::Back => false,
        Stand::Half => other.live || me < other.id,
        Stand::Few => other.live && me < other.id,
    }
}

/// What to do when somebody else says that he has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It will pass.
    Wait,
    /// Say to all neighbours that it is here.
    Defend,
    /// Leave it to that node, as long as that has it.
    GiveWay,
    /// It is another machine's: its owner gets another address.
    GiveUp,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// He said so by himself, of an address that is in use here.
    No,
    /// He was asked, about one that is in use here.
    Used,
    /// He was asked, about one that is not in use here yet.
    Unused,
}

/// An address is given up if another machine says again within this time that it has it.
const DISPUTE: Millis = 60_000;
/// What is said again within this time is said once. A node that took over says so a few times, and who held
/// it is about to hear why.
const AT_ONCE: Millis = 500;
/// Neighbours are not told more often than this of one address.
const PAUSE: Millis = 1_000;
/// Packets get lost: so often in a row nobody must answer before an address is taken back.
const SILENT: u8 = 2;

/// Who else says to have addresses that a node holds by the store.
#[derive(Debug, Default)]
pub struct Rivals {
    disputes: BTreeMap<IpAddr, Dispute>,
    /// Those that are left to other nodes, and how often in a row nobody answered for them.
    left: BTreeMap<IpAddr, u8>,
}

#[derive(Debug)]
struct Dispute {
    first: Millis,
    last: Millis,
    defended: Option<Millis>,
}

impl Rivals {
    /// Somebody else says that an address is his; `node` is which one it is, if he is a node.
    pub fn claimed(
        &mut self,
        ip: IpAddr,
        asked: Asked,
        (me, stand): (&str, Stand),
        node: Option<Peer<'_>>,
        now: Millis,
    ) -> Verdict {
        let verdict = match node {
            None if asked == Asked::Unused => Verdict::GiveUp,
            None => self.stranger(ip, now),
            Some(node) if !keeps(me, stand, node) => Verdict::GiveWay,
            // Who held it until now has not heard yet that it does no more.
            Some(_) if asked == Asked::Unused => Verdict::Wait,
            Some(_) => self.node(ip, asked, now),
        };
        match verdict {
            Verdict::GiveWay => drop(self.left.insert(ip, 0)),
            _ => drop(self.left.remove(&ip)),
        }
        verdict
    }

    /// Another machine is answered once (RFC 5227 section 2.4).
    fn stranger(&mut self, ip: IpAddr, now: Millis) -> Verdict {
        match self.dispute(ip, now) {
            None => Verdict::Defend,
            // He did not hear the answer yet.
            Some(first) if now - first < AT_ONCE => Verdict::Wait,
            Some(_) => Verdict::GiveUp,
        }
    }

    fn node(&mut self, ip: IpAddr, asked: Asked, now: Millis) -> Verdict {
        let first = self.dispute(ip, now).unwrap_or(now);
        // An answer goes to who asked alone: no neighbour is told of it by that.
        let passes = asked == Asked::No && now - first < AT_ONCE;
        let Some(dispute) = self.disputes.get_mut(&ip).filter(|_| !passes) else {
            return Verdict::Wait;
        };
        match dispute.defended {
            Some(at) if now - at < PAUSE => Verdict::Wait,
            _ => {
                dispute.defended = Some(now);
                Verdict::Defend
            }
        }
    }

    /// Takes note of a dispute; since when it is one, if it is not new.
    fn dispute(&mut self, ip: IpAddr, now: Millis) -> Option<Millis> {
        let known = self.disputes.get_mut(&ip);
        if let Some(dispute) = known.filter(|d| now - d.last < DISPUTE) {
            dispute.last = now;
            return Some(dispute.first);
        }
        let (first, last) = (now, now);
        let defended = None;
        let dispute = Dispute {
            first,
            last,
            defended,
        };
        self.disputes.insert(ip, dispute);
        None
    }

    /// It was asked who has an address that is left to another node, and nobody answered.
    pub fn silent(&mut self, ip: IpAddr, me: &str) {
        if let Some(times) = self.left.get_mut(&ip) {
            *times += 1;
            // Two that both gave way, as in a cluster of three parts, must not go on in step.
            let more = me
                .bytes()
                .fold(0_u8, |sum, b| sum.wrapping_mul(31).wrapping_add(b))
                % 4;
            if *times >= SILENT + more {
                self.left.remove(&ip);
            }
        }
    }

    /// Only these are held here, by the store.
    pub fn retain(&mut self, held: impl Fn(&IpAddr) -> bool) {
        self.left.retain(|ip, _| held(ip));
        self.disputes.retain(|ip, _| held(ip));
    }

    /// Whether an address is left to another node.
    #[must_use]
    pub fn is_left(&self, ip: &IpAddr) -> bool {
        self.left.contains_key(ip)
    }

    /// Whether any is.
    #[must_use]
    pub fn is_any_left(&self) -> bool {
        !self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn away(id: &str) -> Option<Peer<'_>> {
        Some(Peer { id, live: false })
    }

    fn live(id: &str) -> Option<Peer<'_>> {
        Some(Peer { id, live: true })
    }

    #[test]
    fn another_machine_is_answered_once() {
        let mut rivals = Rivals::default();
        let me = ("b", Stand::Sure);
        let mut says = |asked, now| rivals.claimed(IP, asked, me, None, now);
        assert_eq!(says(Asked::Unused, 0), Verdict::GiveUp);
        assert_eq!(says(Asked::No, 0), Verdict::Defend);
        assert_eq!(
            says(Asked::No, 5),
            Verdict::Wait,
            "it is said twice at once"
        );
        assert_eq!(says(Asked::No, 59_000), Verdict::GiveUp);
        // Long after that it is another matter.
        assert_eq!(says(Asked::Used, 130_000), Verdict::Defend);
    }

    #[test]
    fn the_larger_part_has_it() {
        let mut rivals = Rivals::default();
        let mut says = |stand, node, asked, now| rivals.claimed(IP, asked, ("b", stand), node, now);
        // Who took it over says so a few times at once: the other one hears in the store that it did.
        assert_eq!(says(Stand::Sure, live("a"), Asked::No, 0), Verdict::Wait);
        assert_eq!(says(Stand::Sure, live("a"), Asked::No, 130), Verdict::Wait);
        assert_eq!(
            says(Stand::Sure, live("a"), Asked::No, 2_100),
            Verdict::Defend
        );
        assert_eq!(
            says(Stand::Sure, live("a"), Asked::No, 2_200),
            Verdict::Wait
        );
        assert_eq!(
            says(Stand::Sure, away("a"), Asked::Used, 3_200),
            Verdict::Defend
        );
        assert_eq!(
            says(Stand::Sure, away("a"), Asked::Unused, 3_300),
            Verdict::Wait
        );
        for stand in [Stand::Few, Stand::Back] {
            for asked in [Asked::No, Asked::Used, Asked::Unused] {
                assert_eq!(says(stand, away("a"), asked, 9_000), Verdict::GiveWay);
                assert_eq!(says(stand, away("c"), asked, 9_000), Verdict::GiveWay);
            }
        }
        assert_eq!(
            says(Stand::Half, away("a"), Asked::No, 9_000),
            Verdict::GiveWay
        );
        assert_eq!(
            says(Stand::Half, away("c"), Asked::Used, 90_000),
            Verdict::Defend
        );
    }

    #[test]
    fn what_was_left_is_taken_back_when_nobody_answers() {
        let mut rivals = Rivals::default();
        let few = ("b", Stand::Few);
        rivals.claimed(IP, Asked::No, few, away("a"), 0);
        assert!(rivals.is_left(&IP));
        rivals.silent(IP, "d");
        rivals.claimed(IP, Asked::Unused, few, away("a"), 1_000);
        rivals.silent(IP, "d");
        assert!(rivals.is_left(&IP), "an answer between counts");
        rivals.silent(IP, "d");
        assert!(!rivals.is_left(&IP));
        // Or when both hear each other again and the store says that it is here.
        rivals.claimed(IP, Asked::No, few, away("a"), 0);
        assert_eq!(
            rivals.claimed(IP, Asked::Unused, ("b", Stand::Sure), live("a"), 9_000),
            Verdict::Wait
        );
        assert!(!rivals.is_left(&IP));
    }

    proptest! {
        /// However a cluster is cut in two, of two nodes that do not hear each other exactly one keeps it.
        #[test]
        fn exactly_one_keeps_it(nodes in 2_usize..9, cut in 1_usize..8, a in 0_usize..8, b in 0_usize..8) {
            let cut = 1 + (cut - 1) % (nodes - 1);
            let (a, b) = (a % cut, cut + b % (nodes - cut));
            let stand = |part: usize| match (2 * part).cmp(&nodes) {
                std::cmp::Ordering::Greater => Stand::Sure,
                std::cmp::Ordering::Equal => Stand::Half,
                std::cmp::Ordering::Less => Stand::Few,
            };
            let (name_a, name_b) = (format!("n{a}"), format!("n{b}"));
            let keeps_a = keeps(&name_a, stand(cut), Peer { id: &name_b, live: false });
            let keeps_b = keeps(&name_b, stand(nodes - cut), Peer { id: &name_a, live: false });
            prop_assert!(keeps_a != keeps_b);
        }
    }
}
