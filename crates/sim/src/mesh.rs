//! Between nodes: the failure detector, links, and telling what changes (`cluster::mesh`).

use std::sync::Arc;
use std::time::Duration;

use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use wharfie_cluster::swim::{Life, Liveness, Member, Outgoing, Swim, Timing};
use wharfie_cluster::{NodeId, Record};

use crate::ask::Ask;
use crate::node::{LinkTo, Said, Version};
use crate::sim::{Event, Sim};
use crate::sync::{Compare, Differences, Missing};
use crate::time::{MS, Micros};

/// How often links are looked after.
const LINKS: Micros = 250 * MS;
/// Members of whom a peer is told at most.
const TOLD: usize = 2_000;
/// Up to so many members each has a link to each; above, what changes is told to so many.
const FULL_MESH: usize = 200;
const FANOUT: usize = 6;

/// What nodes say to each other over their links.
#[derive(Clone)]
pub(crate) enum Frame {
    /// Versions of objects.
    Records(Arc<Vec<Record>>),
    /// A node's report.
    Report(usize, Version, Arc<Said>),
    /// The steps of a comparison.
    Compare(Arc<Compare>),
    Differences(Arc<Differences>),
    Missing(Arc<Missing>),
    /// A request that is handed on.
    Ask(Ask),
}

impl Frame {
    /// Bytes on the wire, about.
    fn size(&self) -> usize {
        match self {
            Self::Records(records) => wharfie_cluster::encode(records).len(),
            Self::Report(_, _, report) => serde_json::to_vec(&***report).map_or(0, |b| b.len()),
            Self::Compare(compare) => compare.size(),
            Self::Differences(differences) => differences.size(),
            Self::Missing(missing) => missing.size(),
            Self::Ask(_) => 1_000,
        }
    }
}

impl Sim {
    pub(crate) fn new_swim(&mut self, node: usize, epoch: u64) -> Swim {
        let life = Life {
            node: self.nodes[node].id,
            epoch,
        };
        let seed = self.rng.random();
        Swim::new(
            life,
            &Timing::default(),
            rand::rngs::StdRng::seed_from_u64(seed),
        )
    }

    /// Lets a node's failure detector do something.
    fn swim(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut Swim, std::time::Instant) -> Vec<Outgoing>,
    ) {
        let now = self.instant();
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        let outgoing = act(&mut agent.swim, now);
        let (boot, next) = (agent.boot, agent.swim.next());
        let changed = agent.swim.has_changed();
        let next = next.map(|at| self.micros(at).max(self.now + 1));
        if let Some(agent) = self.nodes[node].agent.as_mut()
            && let Some(at) = next
            && agent.tick_at.is_none_or(|t| t > at || t <= self.now)
        {
            agent.tick_at = Some(at);
            self.at(at, Event::Tick { node, boot });
        }
        for datagram in outgoing {
            let Some(to) = self.number(datagram.0) else {
                continue;
            };
            self.count(node, datagram.1.len());
            for pause in self.network.send(node, to, &mut self.rng) {
                let datagram = datagram.clone();
                self.after(pause, Event::Datagram { to, datagram });
            }
        }
        if changed {
            self.note_presence(node);
        }
    }

    fn number(&self, id: NodeId) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    fn count(&mut self, node: usize, bytes: usize) {
        self.nodes[node].sent += 1;
        self.stats.messages += 1;
        self.stats.bytes += bytes as u64;
    }

    pub(crate) fn swim_tick(&mut self, node: usize, boot: u64) {
        let due = self.nodes[node].agent.as_ref();
        if due.is_some_and(|a| a.boot == boot && a.tick_at == Some(self.now)) {
            self.swim(node, |swim, now| swim.tick(now));
        }
    }

    pub(crate) fn swim_heard(&mut self, node: usize, datagram: &Outgoing) {
        self.swim(node, |swim, now| swim.heard(&datagram.1, now));
    }

    pub(crate) fn swim_told(&mut self, node: usize, known: Vec<Member<Life>>) {
        self.swim(node, |swim, now| swim.told(known, now));
    }

    pub(crate) fn swim_left(&mut self, node: usize, who: usize) {
        let who = self.nodes[who].id;
        self.swim(node, |swim, now| swim.left(who, now));
    }

    /// The agent of a node ends in order, and says so.
    pub(crate) fn swim_leave(&mut self, node: usize) {
        self.swim(node, |swim, now| swim.leave(now));
    }

    pub(crate) fn known(&self, node: usize) -> Vec<Member<Life>> {
        let agent = self.nodes[node].agent.as_ref();
        agent.map_or_else(Vec::new, |a| a.swim.known(TOLD))
    }

    /// Who is there may have changed for a node.
    fn note_presence(&mut self, node: usize) {
        let millis = self.nodes[node].millis(self.now);
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let liveness = agent.swim.liveness();
        let before = agent.presence.clone();
        let mut presence = std::collections::BTreeMap::new();
        for (id, (_, state)) in liveness {
            let Some(index) = self.number(id) else {
                continue;
            };
            let same = before.get(&index).filter(|(was, _)| *was == state);
            let since = same.map_or(millis, |(_, since)| *since);
            presence.insert(index, (state, since));
        }
        if presence == before {
            return;
        }
        for (index, (state, _)) in &presence {
            let was = before.get(index).map(|(was, _)| *was);
            if was != Some(*state) && (*state == Liveness::Down || was == Some(Liveness::Down)) {
                self.tell(|| format!("n{node} takes n{index} for {state:?}"));
            }
        }
        if let Some(agent) = self.nodes[node].agent.as_mut() {
            agent.presence = presence;
            agent.seen_all = true;
        }
        self.look_soon(node, 10 * MS);
    }

    /// Links come and go with the ways between nodes.
    pub(crate) fn look_after_links(&mut self, node: usize) {
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let (boot, members, links) = (agent.boot, agent.members.clone(), agent.links.clone());
        self.after(LINKS, Event::Links { node, boot });
        let silence = u64::try_from(Timing::default().silence().as_micros()).unwrap_or(0);
        let large = members.len() > FULL_MESH;
        let mut lacking = FANOUT.saturating_sub(links.len());
        let mut peers: Vec<usize> = members.into_iter().filter(|p| *p != node).collect();
        if large {
            // Others are linked to as they are needed.
            let linked = links.keys().copied();
            let some = peers.iter().copied().sample(&mut self.rng, lacking);
            peers = linked.chain(some).collect();
        }
        for peer in peers {
            let boot = self.boot(peer);
            let hears = self.network.is_open_both_ways(node, peer) && boot.is_some();
            match links.get(&peer) {
                Some(link) if hears && boot == Some(link.boot) => {
                    let now = self.now;
                    if let Some(link) = self.link(node, peer) {
                        link.heard = now;
                    }
                }
                Some(link) if self.now - link.heard > silence => {
                    self.unlink(node, peer);
                    self.note_link_lost(node, peer);
                    let id = self.nodes[peer].id;
                    self.swim(node, |swim, now| swim.lost(id, now));
                }
                Some(link) if hears && boot != Some(link.boot) => self.meet(node, peer),
                None if hears && (!large || lacking > 0) => {
                    lacking = lacking.saturating_sub(1);
                    self.meet(node, peer);
                }
                _ => {}
            }
        }
    }

    fn link(&mut self, node: usize, peer: usize) -> Option<&mut LinkTo> {
        self.nodes[node].agent.as_mut()?.links.get_mut(&peer)
    }

    pub(crate) fn unlink(&mut self, node: usize, peer: usize) {
        if let Some(agent) = self.nodes[node].agent.as_mut() {
            agent.links.remove(&peer);
        }
    }

    /// As long as the link stood the peer was not taken for down.
    fn note_link_lost(&mut self, node: usize, peer: usize) {
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        let known = agent.presence.get(&peer).map(|(state, _)| *state);
        if known == Some(Liveness::Down) {
            agent.seen_all = true;
            self.look_soon(node, MS);
        }
    }

    /// Two nodes get a link, greet each other, and compare what they have.
    fn meet(&mut self, node: usize, peer: usize) {
        let is_member = |a: &crate::node::Agent| a.members.contains(&node);
        if !self.nodes[peer].agent.as_ref().is_some_and(is_member) {
            let of = &self.nodes[node].name;
            let removed = wharfie_cluster::roster::REMOVED;
            if self.nodes[peer].disk.memory.get(removed, of).is_some() {
                self.expel(node);
            }
            return;
        }
        for (one, other) in [(node, peer), (peer, node)] {
            let known = self.known(other);
            let epoch = self.nodes[other].disk.epoch;
            let life = Life {
                node: self.nodes[other].id,
                epoch,
            };
            let Some(boot) = self.boot(other) else {
                return;
            };
            let heard = self.now;
            if let Some(agent) = self.nodes[one].agent.as_mut() {
                agent.links.insert(other, LinkTo { boot, heard });
            }
            self.swim(one, |swim, now| swim.linked(life, known, now));
        }
        self.compare_with(node, peer);
    }

    /// Says something to a peer, if there is a link.
    pub(crate) fn say(&mut self, from: usize, to: usize, frame: &Frame) {
        let agent = self.nodes[from].agent.as_ref();
        if !agent.is_some_and(|a| a.links.contains_key(&to)) {
            return;
        }
        let bytes = if self.setup.measure { frame.size() } else { 0 };
        self.count(from, bytes);
        for pause in self.network.send(from, to, &mut self.rng) {
            let frame = frame.clone();
            self.after(pause, Event::Frame { from, to, frame });
        }
    }

    /// Says something to all peers, in a large cluster to some.
    pub(crate) fn say_to_all(&mut self, from: usize, but: Option<usize>, frame: &Frame) {
        let Some(agent) = self.nodes[from].agent.as_ref() else {
            return;
        };
        if matches!(frame, Frame::Records(records) if records.is_empty()) {
            return;
        }
        let peers = agent.links.keys().copied().filter(|p| Some(*p) != but);
        let chosen: Vec<usize> = match agent.members.len() > FULL_MESH {
            true => peers.sample(&mut self.rng, FANOUT),
            false => peers.collect(),
        };
        for peer in chosen {
            self.say(from, peer, frame);
        }
    }

    /// A message arrives.
    pub(crate) fn arrive(&mut self, from: usize, to: usize, frame: Frame) {
        let Some(agent) = self.nodes[to].agent.as_mut() else {
            return;
        };
        if agent.members.contains(&from) {
            agent.inbox.push_back((from, frame));
            self.read_inbox(to);
        }
    }

    /// A node's report came in.
    pub(crate) fn take_report(
        &mut self,
        node: usize,
        of: usize,
        version: Version,
        report: Arc<Said>,
        from: usize,
    ) {
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        let known = agent.reports.get(&of).map(|(v, _)| *v);
        if of == node || !agent.members.contains(&of) || known.is_some_and(|v| v >= version) {
            return;
        }
        let large = agent.members.len() > FULL_MESH;
        agent.see(&report);
        let before = agent.reports.insert(of, (version, Arc::clone(&report)));
        if let Some((_, before)) = before {
            agent.see(&before);
        }
        if large {
            self.say_to_all(node, Some(from), &Frame::Report(of, version, report));
        }
        self.look_soon(node, 10 * MS);
    }

    /// How long a pause of the real mesh is here.
    pub(crate) fn pause(pause: Duration) -> Micros {
        u64::try_from(pause.as_micros()).unwrap_or(Micros::MAX)
    }
}
