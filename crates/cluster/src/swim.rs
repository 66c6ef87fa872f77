//! Who is alive: SWIM (foca) without I/O. Datagrams, links and the time go in; datagrams and
//! liveness come out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foca::{
    AccumulatingRuntime, Config, Foca, Identity, Incarnation, Member, NoCustomBroadcast,
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

type Core = Foca<Life, PostcardCodec, StdRng, NoCustomBroadcast>;

/// What is to happen at a time.
enum Due {
    Foca(Timer<Life>),
    /// A suspect whose link was lost has had its time.
    Judge(Life, Incarnation),
}

/// The failure detector of one node.
pub(crate) struct Swim {
    foca: Core,
    runtime: AccumulatingRuntime<Life>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    due: BTreeMap<u64, Due>,
    serial: u64,
    suspicion: Duration,
    changed: bool,
}

/// A datagram for a node.
pub(crate) type Outgoing = (NodeId, Bytes);

impl Swim {
    pub(crate) fn new(life: Life, timing: &Timing, rng: StdRng) -> Self {
        Self {
            foca: Foca::new(life, timing.config(), rng, PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            due: BTreeMap::new(),
            serial: 0,
            suspicion: timing.suspicion(),
            changed: false,
        }
    }

    /// This life of the node.
    fn life(&self) -> Life {
        *self.foca.identity()
    }

    /// All that is known of members, to be told to a peer.
    pub(crate) fn known(&self, most: usize) -> Vec<Member<Life>> {
        let members = self.foca.iter_membership_state();
        members.take(most).cloned().collect()
    }

    /// A datagram came in. What is malformed is dropped.
    pub(crate) fn heard(&mut self, datagram: &[u8], now: Instant) -> Vec<Outgoing> {
        let suspects = self.suspects();
        let _ = self.foca.handle_data(datagram, &mut self.runtime);
        self.changed |= suspects != self.suspects();
        self.collect(now)
    }

    /// A link to a peer stands; `known` is what the peer knows of others.
    pub(crate) fn linked(
        &mut self,
        peer: Life,
        known: Vec<Member<Life>>,
        now: Instant,
    ) -> Vec<Outgoing> {
        let alive = Member::alive(peer);
        let updates = known.into_iter().filter(|m| m.id().node != peer.node);
        let updates = std::iter::once(alive).chain(updates);
        let _ = self.foca.apply_many(updates, true, &mut self.runtime);
        // It answers even if it is thought to be down: then it takes up a new life.
        let _ = self.foca.announce(peer, &mut self.runtime);
        self.collect(now)
    }

    /// A short form of [`Swim::known`]: equal where nodes think alike of all.
    pub(crate) fn digest(&self) -> u64 {
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
    pub(crate) fn told(&mut self, known: Vec<Member<Life>>, now: Instant) -> Vec<Outgoing> {
        let _ = self
            .foca
            .apply_many(known.into_iter(), true, &mut self.runtime);
        self.changed = true;
        self.collect(now)
    }

    /// The link to a peer was lost: unless it speaks up, it is down.
    pub(crate) fn lost(&mut self, node: NodeId, now: Instant) -> Vec<Outgoing> {
        let Some(member) = self.member(node) else {
            return Vec::new();
        };
        let (life, incarnation) = (*member.id(), member.incarnation());
        if member.state() == State::Alive {
            let suspect = Member::new(life, incarnation, State::Suspect);
            let updates = std::iter::once(suspect);
            let _ = self.foca.apply_many(updates, true, &mut self.runtime);
            let _ = self.foca.gossip(&mut self.runtime);
            self.changed = true;
            self.schedule(now + self.suspicion, Due::Judge(life, incarnation));
        }
        self.collect(now)
    }

    /// A peer said that it leaves, or was sent away.
    pub(crate) fn left(&mut self, node: NodeId, now: Instant) -> Vec<Outgoing> {
        if let Some(member) = self.member(node) {
            let down = Member::new(*member.id(), member.incarnation(), State::Down);
            let updates = std::iter::once(down);
            let _ = self.foca.apply_many(updates, true, &mut self.runtime);
            let _ = self.foca.gossip(&mut self.runtime);
        }
        self.collect(now)
    }

    /// This node leaves: its peers are told.
    pub(crate) fn leave(&mut self, now: Instant) -> Vec<Outgoing> {
        let _ = self.foca.leave_cluster(&mut self.runtime);
        self.collect(now)
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Outgoing> {
        while let Some(Reverse((at, serial))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
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
    pub(crate) fn next(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Whether somebody's liveness may have changed since this was last asked.
    pub(crate) fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// All nodes that were ever heard of.
    pub(crate) fn liveness(&self) -> BTreeMap<NodeId, (Life, Liveness)> {
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

    /// Suspicions come and go without a notice.
    fn suspects(&self) -> usize {
        let members = self.foca.iter_members();
        members.filter(|m| m.state() == State::Suspect).count()
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
            let down = Member::new(life, incarnation, State::Down);
            let updates = std::iter::once(down);
            let _ = self.foca.apply_many(updates, true, &mut self.runtime);
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
            self.schedule(now + after, Due::Foca(timer));
        }
        let mut outgoing = Vec::new();
        while let Some((to, datagram)) = self.runtime.to_send() {
            outgoing.push((to.node, datagram));
        }
        outgoing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn swims(n: u8) -> Vec<Swim> {
        (1..=n)
            .map(|i| {
                let life = Life {
                    node: NodeId([i; 32]),
                    epoch: 1,
                };
                Swim::new(
                    life,
                    &Timing::default(),
                    StdRng::seed_from_u64(u64::from(i)),
                )
            })
            .collect()
    }

    /// Runs all nodes but the dead for a while, in steps of 10 ms of their own time.
    fn run(swims: &mut [Swim], dead: &[usize], now: &mut Instant, millis: u64) {
        let end = *now + Duration::from_millis(millis);
        while *now < end {
            *now += Duration::from_millis(10);
            let mut mail: Vec<Outgoing> = Vec::new();
            for (i, swim) in swims.iter_mut().enumerate() {
                if !dead.contains(&i) {
                    mail.extend(swim.tick(*now));
                }
            }
            while let Some((to, datagram)) = mail.pop() {
                let i = swims.iter().position(|s| s.life().node == to).unwrap();
                if !dead.contains(&i) {
                    mail.extend(swims[i].heard(&datagram, *now));
                }
            }
        }
    }

    fn meet(swims: &mut [Swim], now: Instant) {
        for i in 0..swims.len() {
            for j in 0..swims.len() {
                if i != j {
                    let peer = swims[j].life();
                    swims[i].linked(peer, Vec::new(), now);
                }
            }
        }
    }

    #[test]
    fn those_who_think_alike_have_one_digest() {
        let mut swims = swims(3);
        let now = Instant::now();
        let (b, c) = (swims[1].life(), swims[2].life());
        swims[0].linked(b, Vec::new(), now);
        swims[0].linked(c, Vec::new(), now);
        assert_ne!(swims[0].digest(), swims[1].digest());
        let known = swims[0].known(10);
        let a = swims[0].life();
        swims[1].linked(a, known, now);
        assert_eq!(swims[0].digest(), swims[1].digest());
        swims[1].left(c.node, now);
        assert_ne!(swims[0].digest(), swims[1].digest());
        let known = swims[1].known(10);
        swims[0].told(known, now);
        assert_eq!(swims[0].digest(), swims[1].digest());
        assert_eq!(state(&swims[0], 3), Some(Liveness::Down));
    }

    fn state(swim: &Swim, of: u8) -> Option<Liveness> {
        swim.liveness().get(&NodeId([of; 32])).map(|(_, l)| *l)
    }

    #[test]
    fn the_silent_are_down_and_come_back() {
        let mut swims = swims(5);
        let mut now = Instant::now();
        meet(&mut swims, now);
        run(&mut swims, &[], &mut now, 3_000);
        for swim in &swims {
            assert!(swim.liveness().values().all(|(_, l)| *l == Liveness::Up));
        }
        run(&mut swims, &[4], &mut now, 20_000);
        for swim in &swims[..4] {
            assert_eq!(state(swim, 5), Some(Liveness::Down));
        }
        run(&mut swims, &[], &mut now, 20_000);
        for swim in &swims[..4] {
            assert_eq!(state(swim, 5), Some(Liveness::Up), "{:?}", swim.liveness());
        }
    }

    #[test]
    fn a_lost_link_is_a_suspicion_and_one_that_speaks_up_is_not_down() {
        let mut swims = swims(3);
        let mut now = Instant::now();
        meet(&mut swims, now);
        run(&mut swims, &[], &mut now, 1_000);
        swims[0].lost(NodeId([3; 32]), now);
        assert_eq!(state(&swims[0], 3), Some(Liveness::Suspect));
        run(&mut swims, &[], &mut now, 3_000);
        assert_eq!(state(&swims[0], 3), Some(Liveness::Up));
        swims[0].lost(NodeId([3; 32]), now);
        run(&mut swims, &[2], &mut now, 1_100);
        assert_eq!(state(&swims[0], 3), Some(Liveness::Down));
        assert_eq!(state(&swims[1], 3), Some(Liveness::Down));
    }

    #[test]
    fn who_leaves_is_down_at_once() {
        let mut swims = swims(3);
        let mut now = Instant::now();
        meet(&mut swims, now);
        run(&mut swims, &[], &mut now, 1_000);
        swims[0].left(NodeId([2; 32]), now);
        assert_eq!(state(&swims[0], 2), Some(Liveness::Down));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_in_makes_it_panic(bytes: Vec<u8>) {
            let mut swim = swims(1).remove(0);
            swim.heard(&bytes, Instant::now());
        }
    }
}
