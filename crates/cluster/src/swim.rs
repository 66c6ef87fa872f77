//! Who is alive: SWIM (foca) without I/O. Datagrams, links and the time go in; datagrams and
//! liveness come out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;
pub use foca::Member;
use foca::{
    AccumulatingRuntime, Config, Foca, Header, Identity, Incarnation, Message, NoCustomBroadcast,
    PeriodicParams, PostcardCodec, State, Timer,
};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::transport::LARGEST_DATAGRAM;

/// A node and one life of it: each start of its agent is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// The node.
    pub node: NodeId,
    /// Grows with every start, and when the node refutes that it is down.
    pub epoch: u64,
}

impl Identity for Life {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self {
            epoch: self.epoch + 1,
            ..*self
        })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.epoch > adversary.epoch
    }
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It answers.
    Up,
    /// It has not answered just now.
    Suspect,
    /// It does not answer, or it has left.
    Down,
}

/// How patient nodes are with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A node that is silent for so long is down.
    pub failure_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            failure_timeout: Duration::from_secs(3),
        }
    }
}

impl Timing {
    /// After so long without a word a link is lost.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.failure_timeout / 2
    }

    /// A suspect has so long to speak up.
    #[must_use]
    pub fn suspicion(&self) -> Duration {
        self.failure_timeout / 3
    }

    fn config(&self) -> Config {
        let some = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        let period = self.failure_timeout / 6;
        let periodic = |frequency, members| {
            Some(PeriodicParams {
                frequency,
                num_members: some(members),
            })
        };
        Config {
            probe_period: period,
            probe_rtt: period / 3,
            num_indirect_probes: some(3),
            max_transmissions: NonZeroU8::new(12).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: self.suspicion(),
            remove_down_after: Some(Duration::from_secs(24 * 3600)),
            max_packet_size: some(LARGEST_DATAGRAM),
            notify_down_members: true,
            periodic_announce: periodic(Duration::from_secs(30), 1),
            periodic_announce_to_down_members: periodic(Duration::from_secs(5), 2),
            periodic_gossip: periodic(period / 2, 3),
        }
    }
}

/// Whether a member is there.
pub fn liveness(member: &Member<Life>) -> Liveness {
    match member.state() {
        State::Alive => Liveness::Up,
        State::Suspect => Liveness::Suspect,
        State::Down => Liveness::Down,
    }
}

type Core = Foca<Life, PostcardCodec, StdRng, NoCustomBroadcast>;

/// In large clusters members are probed so much more rarely: most probes need a link of their own,
/// and a node that is gone is first missed by those to which it had one.
const RARER: u32 = 6;
/// There a suspect has so many times longer to speak up: suspicions and answers go over several
/// links.
const LONGER: u32 = 3;

/// What is to happen at a time.
enum Due {
    Foca(Timer<Life>),
    /// A suspect whose link was lost has had its time.
    Judge(Life, Incarnation),
}

/// The failure detector of one node.
#[allow(missing_debug_implementations)] // foca's state says nothing to people
pub struct Swim {
    foca: Core,
    runtime: AccumulatingRuntime<Life>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    due: BTreeMap<u64, Due>,
    /// What of that was put off already.
    put_off: BTreeSet<u64>,
    serial: u64,
    suspicion: Duration,
    changed: bool,
    large: bool,
    /// Of this life: how often the node has refuted that it is suspect.
    incarnation: Incarnation,
    /// Members as they were when news were last asked for.
    told: HashMap<NodeId, Member<Life>>,
}

/// A datagram for a node.
pub type Outgoing = (NodeId, Bytes);

impl Swim {
    /// The detector of a node in one of its lives.
    #[must_use]
    pub fn new(life: Life, timing: &Timing, rng: StdRng) -> Self {
        Self {
            foca: Foca::new(life, timing.config(), rng, PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            due: BTreeMap::new(),
            put_off: BTreeSet::new(),
            serial: 0,
            suspicion: timing.suspicion(),
            changed: false,
            large: false,
            incarnation: Incarnation::default(),
            told: HashMap::new(),
        }
    }

    /// This life of the node.
    fn life(&self) -> Life {
        *self.foca.identity()
    }

    /// Whether there are too many members for a link to each: then news go over links that stand,
    /// and datagrams, which may need new ones, are few.
    pub fn set_large(&mut self, large: bool) {
        self.large = large;
    }

    fn own(&self) -> Member<Life> {
        Member::new(self.life(), self.incarnation, State::Alive)
    }

    /// All that is known of members, to be told to a peer.
    #[must_use]
    pub fn known(&self, most: usize) -> Vec<Member<Life>> {
        let members = self.foca.iter_membership_state().cloned();
        // Itself too: it may have taken up a new life since its links were made.
        std::iter::once(self.own())
            .chain(members)
            .take(most)
            .collect()
    }

    /// What has become known since this was last asked.
    pub fn news(&mut self) -> Vec<Member<Life>> {
        let own = self.own();
        let members = self.foca.iter_membership_state().cloned();
        let told = &mut self.told;
        let mut news = Vec::new();
        for member in std::iter::once(own).chain(members) {
            let node = member.id().node;
            if told.get(&node) != Some(&member) {
                told.insert(node, member.clone());
                news.push(member);
            }
        }
        news
    }

    /// A datagram came in. What is malformed is dropped.
    pub fn heard(&mut self, datagram: &[u8], now: Instant) -> Vec<Outgoing> {
        let doubts = self.doubts();
        let _ = self.foca.handle_data(datagram, &mut self.runtime);
        self.changed |= doubts != self.doubts();
        self.collect(now)
    }

    /// A link to a peer stands; `known` is what the peer knows of others.
    pub fn linked(&mut self, peer: Life, known: Vec<Member<Life>>, now: Instant) -> Vec<Outgoing> {
        let alive = Member::alive(peer);
        let updates = known.into_iter().filter(|m| m.id().node != peer.node);
        let updates: Vec<_> = std::iter::once(alive).chain(updates).collect();
        self.apply(updates);
        // It answers even if it is thought to be down: then it takes up a new life.
        let _ = self.foca.announce(peer, &mut self.runtime);
        self.collect(now)
    }

    /// A short form of [`Swim::known`]: equal where nodes think alike of all.
    #[must_use]
    pub fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let members = self.foca.iter_membership_state();
        let own = (self.life(), 0_u8);
        let all = members.map(|m| (*m.id(), u8::from(m.state() == State::Down)));
        // The order is not the same everywhere.
        all.chain([own]).fold(0, |sum: u64, of| {
            // Its keys are fixed: all nodes of one version count alike, and others only tell each
            // other more than they must.
            let mut hasher = DefaultHasher::new();
            of.hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        })
    }

    /// What a peer knows of others.
    pub fn told(&mut self, known: Vec<Member<Life>>, now: Instant) -> Vec<Outgoing> {
        // What is as it was is passed over: in a large cluster each hears all from several.
        let as_told = |m: &Member<Life>| self.told.get(&m.id().node) == Some(m);
        let news: Vec<_> = known.into_iter().filter(|m| !as_told(m)).collect();
        if !news.is_empty() {
            self.apply(news);
            self.changed = true;
        }
        self.collect(now)
    }

    /// The link to a peer was lost: unless it speaks up, it is down.
    pub fn lost(&mut self, node: NodeId, now: Instant) -> Vec<Outgoing> {
        let Some(member) = self.member(node) else {
            return Vec::new();
        };
        let (life, incarnation) = (*member.id(), member.incarnation());
        if member.state() == State::Alive {
            self.apply(vec![Member::new(life, incarnation, State::Suspect)]);
            let _ = self.foca.gossip(&mut self.runtime);
            self.changed = true;
            let longer = if self.large { LONGER } else { 1 };
            let judged = now + self.suspicion * longer;
            self.schedule(judged, Due::Judge(life, incarnation));
        }
        self.collect(now)
    }

    /// A peer said that it leaves, or was sent away.
    pub fn left(&mut self, node: NodeId, now: Instant) -> Vec<Outgoing> {
        if let Some(member) = self.member(node) {
            let (life, incarnation) = (*member.id(), member.incarnation());
            self.apply(vec![Member::new(life, incarnation, State::Down)]);
            let _ = self.foca.gossip(&mut self.runtime);
        }
        self.collect(now)
    }

    fn apply(&mut self, updates: Vec<Member<Life>>) {
        let updates = updates.into_iter();
        let by_datagram = !self.large;
        let _ = self
            .foca
            .apply_many(updates, by_datagram, &mut self.runtime);
    }

    /// This node leaves: its peers are told.
    pub fn leave(&mut self, now: Instant) -> Vec<Outgoing> {
        let _ = self.foca.leave_cluster(&mut self.runtime);
        self.collect(now)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) -> Vec<Outgoing> {
        while let Some(Reverse((at, serial))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            // A node that comes so late was itself away (its machine slept, or has too much to do),
            // and would take its peers for silent: first it hears what they said meanwhile.
            let late = now - at;
            if !self.put_off.remove(&serial) && late > self.suspicion / 2 {
                self.put_off.insert(serial);
                let again = now + late.min(self.suspicion);
                self.timers.push(Reverse((again, serial)));
                continue;
            }
            match self.due.remove(&serial) {
                Some(Due::Foca(timer)) => {
                    let _ = self.foca.handle_timer(timer, &mut self.runtime);
                }
                Some(Due::Judge(life, incarnation)) => self.judge(life, incarnation),
                None => {}
            }
        }
        self.collect(now)
    }

    /// When something is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// All nodes that were ever heard of.
    #[must_use]
    pub fn liveness(&self) -> BTreeMap<NodeId, (Life, Liveness)> {
        let members = self.foca.iter_membership_state();
        members
            .map(|m| {
                let liveness = match m.state() {
                    State::Alive => Liveness::Up,
                    State::Suspect => Liveness::Suspect,
                    State::Down => Liveness::Down,
                };
                (m.id().node, (*m.id(), liveness))
            })
            .collect()
    }

    /// Whether somebody's liveness may have changed since this was last asked.
    pub fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Suspicions come and go, and are refuted before they come, without a notice.
    fn doubts(&self) -> (usize, u64) {
        let members = self.foca.iter_members();
        members.fold((0, 0), |(suspects, refuted), m| {
            let suspect = usize::from(m.state() == State::Suspect);
            (suspects + suspect, refuted + u64::from(m.incarnation()))
        })
    }

    fn member(&self, node: NodeId) -> Option<Member<Life>> {
        let mut members = self.foca.iter_membership_state();
        members.find(|m| m.id().node == node).cloned()
    }

    fn judge(&mut self, life: Life, incarnation: Incarnation) {
        let guilty = self.member(life.node).filter(|m| {
            *m.id() == life && m.incarnation() == incarnation && m.state() == State::Suspect
        });
        if guilty.is_some() {
            self.apply(vec![Member::new(life, incarnation, State::Down)]);
        }
    }

    fn schedule(&mut self, at: Instant, due: Due) {
        self.serial += 1;
        self.timers.push(Reverse((at, self.serial)));
        self.due.insert(self.serial, due);
    }

    fn collect(&mut self, now: Instant) -> Vec<Outgoing> {
        while self.runtime.to_notify().is_some() {
            self.changed = true;
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            let after = match timer {
                Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } if self.large => {
                    after * RARER
                }
                Timer::ChangeSuspectToDown { .. } if self.large => after * LONGER,
                _ => after,
            };
            self.schedule(now + after, Due::Foca(timer));
        }
        let mut outgoing = Vec::new();
        while let Some((to, datagram)) = self.runtime.to_send() {
            let header = postcard::take_from_bytes::<Header<Life>>(&datagram);
            let header = header.ok().map(|(header, _)| header);
            if let Some(header) = &header
                && header.src_incarnation != self.incarnation
            {
                self.incarnation = header.src_incarnation;
                self.changed = true;
            }
            // In a large cluster it would need links; what it says goes over those that stand.
            if !self.large || header.is_none_or(|h| h.message != Message::Gossip) {
                outgoing.push((to.node, datagram));
            }
        }
        outgoing
    }
}

#[cfg(test)]
mod tests;
