//! Telling others what changes, and hearing on how many disks it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use rand::seq::IteratorRandom;
use tokio::sync::watch;

use super::{Event, FANOUT, Mesh, now_millis};
use crate::clock::Stamp;
use crate::id::NodeId;
use crate::replica::{Key, Record};
use crate::swim::Liveness;
use crate::wire::{self, Records, Report};

/// Pause before a version is written once more to those that have not said that they have it.
const ONCE_MORE: Duration = Duration::from_millis(500);

/// Somebody waits for answers; nobody does when it is dropped.
struct Waiting<'a> {
    mesh: &'a Mesh,
    last: Stamp,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.mesh.acks().remove(&self.last);
    }
}

impl Mesh {
    /// Tells peers of what was written here.
    pub fn push(&self, records: &[Record]) {
        let bytes = Records(crate::replica::encode(records));
        self.broadcast(&bytes, None);
    }

    /// The same, to those that have not answered.
    fn push_to_others(&self, records: &[Record], heard: &BTreeSet<NodeId>) {
        let bytes = Records(crate::replica::encode(records));
        let Ok(frame) = wire::encode(&bytes).map(Arc::new) else {
            return;
        };
        for (_, peered) in self.links().iter().filter(|(id, _)| !heard.contains(id)) {
            let _ = peered.outbox.try_send(Arc::clone(&frame));
        }
    }

    /// Sends a frame to all peers, in a large cluster to some.
    pub(super) fn broadcast(&self, said: &impl wire::Said, except: Option<NodeId>) {
        let frame = match wire::encode(said) {
            Ok(bytes) => Arc::new(bytes),
            Err(e) => return tracing::error!("it cannot be told to others: {e}"),
        };
        let large = self.is_large();
        let links = self.links();
        let all = links.keys().filter(|id| Some(**id) != except);
        let chosen: BTreeSet<NodeId> = if large {
            // Some at random make it fast, and the neighbours that nobody is left out.
            let random = all.sample(&mut super::rng(), FANOUT).into_iter().copied();
            random
                .chain(super::ring::neighbours(self.me, &links))
                .collect()
        } else {
            all.copied().collect()
        };
        for peered in chosen.iter().filter_map(|id| links.get(id)) {
            // One that does not keep up is told when the two compare what they have.
            let _ = peered.outbox.try_send(Arc::clone(&frame));
        }
    }

    /// In a large cluster those who hear something new tell others.
    pub(super) async fn forward(&self, keys: &[Key], from: NodeId) {
        if !self.is_large() {
            return;
        }
        let keys = keys.to_vec();
        let read = self.with_replica(move |r| r.records(&keys, wire::LARGEST_FRAME / 2));
        if let Some(Ok(records)) = read.await {
            let bytes = Records(crate::replica::encode(&records));
            self.broadcast(&bytes, Some(from));
        }
    }

    /// What this node says of itself from now on.
    pub fn publish(&self, body: Vec<u8>) {
        let report = {
            let mut reports = self.reports();
            let before = reports.get(&self.me).map_or(0, |r| r.version.1);
            let report = Report {
                node: self.me,
                version: (self.life.epoch, before + 1),
                body,
            };
            reports.insert(self.me, report.clone());
            report
        };
        self.broadcast(&report, None);
        self.tell(Event::Report(self.me));
    }

    /// A node's report came in.
    pub(super) fn take_report(&self, report: Report, from: Option<NodeId>) {
        let node = report.node;
        if node == self.me || !self.door.roster().members.contains_key(&node) {
            return;
        }
        {
            let mut reports = self.reports();
            let known = reports.get(&node).map(|r| r.version);
            if known.is_some_and(|v| v >= report.version) {
                return;
            }
            reports.insert(node, report.clone());
        }
        if self.is_large() {
            self.broadcast(&report, from);
        }
        self.tell(Event::Report(node));
    }

    /// A peer has versions on its disk.
    pub(super) fn acknowledge(&self, peer: NodeId, stamps: &[Stamp]) {
        let acks = self.acks();
        for stamp in stamps {
            if let Some(waiting) = acks.get(stamp) {
                waiting.send_modify(|nodes| {
                    nodes.insert(peer);
                });
            }
        }
    }

    /// Writes versions that were put here to all others, and waits until as many nodes as wanted
    /// have them on their disks, this one counted, or the time is over; how many have.
    pub async fn replicate(&self, records: &[Record], wanted: usize, patience: Duration) -> usize {
        let Some(last) = records.last().map(|r| r.stamp) else {
            return 1;
        };
        let (count, mut counted) = watch::channel(BTreeSet::new());
        self.acks().insert(last, count);
        let _waiting = Waiting { mesh: self, last };
        self.push(records);
        let enough = async {
            loop {
                let enough = counted.wait_for(|nodes| nodes.len() + 1 >= wanted);
                if tokio::time::timeout(ONCE_MORE, enough).await.is_ok() {
                    return;
                }
                // A link may have come since, or somebody did not keep up and got it otherwise:
                // only an answer counts.
                let heard = counted.borrow().clone();
                self.push_to_others(records, &heard);
            }
        };
        let _ = tokio::time::timeout(patience, enough).await;
        counted.borrow().len() + 1
    }

    fn acks(&self) -> MutexGuard<'_, BTreeMap<Stamp, watch::Sender<BTreeSet<NodeId>>>> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many members are up, this one counted.
    #[must_use]
    pub fn up(&self) -> usize {
        let roster = self.door.roster();
        let presence = self.presence();
        let others = roster.members.keys().filter(|id| **id != self.me);
        let up = others.filter(|id| {
            let known = presence.get(id);
            known.is_some_and(|p| p.liveness != Liveness::Down)
        });
        up.count() + 1
    }

    /// Since when the node is synchronous with others is remembered.
    pub(super) async fn synced(&self) {
        if let Some(Err(e)) = self.with_replica(|r| r.synced(now_millis())).await {
            tracing::warn!("{e}");
        }
    }
}
