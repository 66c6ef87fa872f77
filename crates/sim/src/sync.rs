//! Two nodes compare what they have, and give each other what is missing (`cluster::mesh::sync`).

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IteratorRandom;
use wharfie_cluster::swim::{Life, Member};
use wharfie_cluster::{Key, Record, Stamp, Summary};
use wharfie_core::report::Report;

use crate::look::Job;
use crate::mesh::Frame;
use crate::mutation::Mutation;
use crate::node::{Said, Version};
use crate::sim::{Event, Sim};

/// How often is compared, on average.
const RECONCILE: Duration = Duration::from_secs(3);

/// What the one who begins has, in short.
pub(crate) struct Compare {
    summary: Summary,
    reports: Vec<(usize, Version)>,
    lives: u64,
}

/// Where the other differs.
pub(crate) struct Differences {
    parts: Vec<u8>,
    versions: Vec<(Key, Stamp)>,
    reports: Vec<(usize, Version, Arc<Said>)>,
    wanted: Vec<usize>,
    known: Vec<Member<Life>>,
}

/// What the other lacks, and what is wanted of it.
pub(crate) struct Missing {
    wanted: Vec<Key>,
    records: Vec<Record>,
    reports: Vec<(usize, Version, Arc<Said>)>,
    known: Vec<Member<Life>>,
}

/// Bytes of an id, a version, a stamp and a member on the wire, about.
const ID: usize = 33;
const VERSION: usize = 10;
const STAMP: usize = 42;
const MEMBER: usize = 42;

fn sizes(reports: &[(usize, Version, Arc<Said>)]) -> usize {
    let size = |r: &Report| serde_json::to_vec(r).map_or(0, |b| b.len());
    reports.iter().map(|(.., r)| size(r)).sum()
}

impl Compare {
    pub(crate) fn size(&self) -> usize {
        2_060 + self.reports.len() * (ID + VERSION)
    }
}

impl Differences {
    pub(crate) fn size(&self) -> usize {
        let keys = self.versions.iter();
        let keys = keys.map(|(k, _)| k.kind.len() + k.name.len() + STAMP);
        let known = self.known.len() * MEMBER;
        self.parts.len() + keys.sum::<usize>() + sizes(&self.reports) + known
    }
}

impl Missing {
    pub(crate) fn size(&self) -> usize {
        let keys = self.wanted.iter().map(|k| k.kind.len() + k.name.len());
        let records = wharfie_cluster::encode(&self.records).len();
        let known = self.known.len() * MEMBER;
        keys.sum::<usize>() + records + sizes(&self.reports) + known
    }
}

impl Sim {
    /// A node compares with one of its peers now and then.
    pub(crate) fn compare_with_any(&mut self, node: usize) {
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let boot = agent.boot;
        let peer = agent.links.keys().copied().choose(&mut self.rng);
        let factor = self.rng.random_range(0.5..1.5);
        let pause = Self::pause(RECONCILE.mul_f64(factor));
        self.after(pause, Event::Sync { node, boot });
        if let Some(peer) = peer {
            self.compare_with(node, peer);
        }
    }

    pub(crate) fn compare_with(&mut self, node: usize, peer: usize) {
        if self.setup.mutation == Some(Mutation::NoReconciliation) {
            return;
        }
        let wall = self.nodes[node].stamp(self.now);
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let compare = Compare {
            summary: self.nodes[node].disk.memory.summary(wall),
            reports: {
                let own = (node, (self.nodes[node].disk.epoch, agent.version));
                let others = agent.reports.iter().map(|(of, (v, _))| (*of, *v));
                others.chain([own]).collect()
            },
            lives: agent.swim.digest(),
        };
        self.say(node, peer, &Frame::Compare(Arc::new(compare)));
    }

    /// The answer to a comparison.
    pub(crate) fn differ(&mut self, node: usize, peer: usize, theirs: &Compare) {
        let wall = self.nodes[node].stamp(self.now);
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let memory = &self.nodes[node].disk.memory;
        let parts = memory.summary(wall).differing(&theirs.summary);
        let versions = memory.versions(&parts, wall);
        let version = |of: usize| theirs.reports.iter().find(|(n, _)| *n == of).map(|r| r.1);
        let newer = agent
            .reports
            .iter()
            .filter(|(of, (v, _))| version(**of).is_none_or(|theirs| theirs < *v));
        let mut reports: Vec<_> = newer.map(|(of, (v, r))| (*of, *v, Arc::clone(r))).collect();
        let own = (self.nodes[node].disk.epoch, agent.version);
        if agent.version > 0 && version(node).is_none_or(|theirs| theirs < own) {
            reports.push((node, own, Arc::clone(&agent.report)));
        }
        let wanted = theirs.reports.iter().filter(|(of, v)| {
            let ours = agent.reports.get(of).map(|(v, _)| *v);
            *of != node && ours.is_none_or(|ours| ours < *v)
        });
        let differences = Differences {
            parts,
            versions,
            reports,
            wanted: wanted.map(|(of, _)| *of).collect(),
            known: match agent.swim.digest() == theirs.lives {
                true => Vec::new(),
                false => self.known(node),
            },
        };
        self.say(node, peer, &Frame::Differences(Arc::new(differences)));
    }

    /// The one who began hears where the other differs.
    pub(crate) fn give(&mut self, node: usize, peer: usize, theirs: &Differences) {
        let wall = self.nodes[node].stamp(self.now);
        let known = match theirs.known.is_empty() {
            true => Vec::new(),
            false => self.known(node),
        };
        self.swim_told(node, theirs.known.clone());
        for (of, version, report) in &theirs.reports {
            self.take_report(node, *of, *version, Arc::clone(report), peer);
        }
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let memory = &self.nodes[node].disk.memory;
        let difference = memory.compare(&theirs.versions, &theirs.parts, wall);
        let of = |of: &usize| match *of == node {
            true => Some((
                *of,
                (self.nodes[node].disk.epoch, agent.version),
                Arc::clone(&agent.report),
            )),
            false => (agent.reports.get(of)).map(|(v, r)| (*of, *v, Arc::clone(r))),
        };
        let missing = Missing {
            wanted: difference.want,
            records: memory.records(&difference.have),
            reports: theirs.wanted.iter().filter_map(of).collect(),
            known,
        };
        self.say(node, peer, &Frame::Missing(Arc::new(missing)));
    }

    /// The other gets what it lacks, and gives what is wanted.
    pub(crate) fn get(&mut self, node: usize, peer: usize, theirs: &Missing) {
        self.swim_told(node, theirs.known.clone());
        for (of, version, report) in &theirs.reports {
            self.take_report(node, *of, *version, Arc::clone(report), peer);
        }
        let memory = &self.nodes[node].disk.memory;
        let records = memory.records(&theirs.wanted);
        if !records.is_empty() {
            self.say(node, peer, &Frame::Records(Arc::new(records)));
        }
        if !theirs.records.is_empty() {
            let records = Arc::new(theirs.records.clone());
            self.write(
                node,
                Job::Merge {
                    from: peer,
                    records,
                },
            );
        }
    }
}
