//! A host, and the agent on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use wharfie_cluster::NodeId;
use wharfie_cluster::swim::{Liveness, Swim};
use wharfie_compose::model::Project;
use wharfie_core::assignment::Assignments;
use wharfie_core::heal::{Ledger, Millis, Signs};
use wharfie_core::report::Report;
use wharfie_core::rollout::Memory as RolloutMemory;
use wharfie_core::{Container, Intent, Operation, Share, Stack};

use crate::engine::Engine;
use crate::memory::Memory;
use crate::mesh::Frame;
use crate::time::{MS, Micros, Wall};

/// A host. What is in it outlives the agent; what the disk holds outlives the host's fall.
pub(crate) struct Node {
    /// Its id, also as text.
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// Whether the host is up.
    pub(crate) up: bool,
    /// It is gone for good: its disk too.
    pub(crate) lost: bool,
    /// It was removed from the cluster.
    pub(crate) removed: bool,
    /// Counts the falls of the host.
    pub(crate) falls: u64,
    pub(crate) engine: Engine,
    pub(crate) disk: Disk,
    pub(crate) wall: Wall,
    pub(crate) agent: Option<Agent>,
    /// Counts the starts of agents.
    pub(crate) boots: u64,
    /// When a fault last touched it.
    pub(crate) disturbed: Micros,
    /// Messages that it has sent since the last count.
    pub(crate) sent: u64,
}

/// What is durable on a host.
pub(crate) struct Disk {
    /// What all nodes bring to the same content.
    pub(crate) memory: Memory,
    /// What the node remembers of its tasks, by stack.
    pub(crate) ledgers: BTreeMap<String, Ledger>,
    /// What was begun and must come to its end, by stack.
    pub(crate) unfinished: BTreeMap<String, Intent>,
    /// Epoch of the last life.
    pub(crate) epoch: u64,
    /// How long a write takes at most.
    pub(crate) slowness: Micros,
    /// Nothing can be written.
    pub(crate) full: bool,
}

impl Node {
    pub(crate) fn new(id: NodeId, wall: Wall, now: Micros) -> Self {
        let millis = wall.millis(now).unsigned_abs();
        Self {
            id,
            name: id.to_string(),
            up: true,
            lost: false,
            removed: false,
            falls: 0,
            engine: Engine::new(),
            disk: Disk {
                memory: Memory::new(id, millis),
                ledgers: BTreeMap::new(),
                unfinished: BTreeMap::new(),
                epoch: 0,
                slowness: 3 * MS,
                full: false,
            },
            wall,
            agent: None,
            boots: 0,
            disturbed: 0,
            sent: 0,
        }
    }

    /// What its clock shows, in milliseconds since 1970.
    pub(crate) fn millis(&self, now: Micros) -> Millis {
        self.wall.millis(now)
    }

    /// The same, as stamps count.
    pub(crate) fn stamp(&self, now: Micros) -> u64 {
        self.wall.millis(now).unsigned_abs()
    }

    /// Whether it is of the cluster and its host, agent and Engine work.
    pub(crate) fn is_whole(&self) -> bool {
        self.up && !self.removed && self.agent.is_some() && self.engine.up
    }
}

/// What an agent knows; it goes with the agent.
pub(crate) struct Agent {
    pub(crate) boot: u64,
    /// When it began, by its host's clock.
    pub(crate) began: Millis,
    pub(crate) swim: Swim,
    /// When the failure detector has something to do.
    pub(crate) tick_at: Option<Micros>,
    /// Who is there, and since when, by this host's clock.
    pub(crate) presence: BTreeMap<usize, (Liveness, Millis)>,
    pub(crate) links: BTreeMap<usize, LinkTo>,
    /// What each said last, with its version.
    pub(crate) reports: BTreeMap<usize, (Version, Arc<Said>)>,
    /// What this node says of itself.
    pub(crate) report: Arc<Said>,
    pub(crate) version: u64,
    pub(crate) members: BTreeSet<usize>,
    pub(crate) drained: BTreeSet<String>,
    /// Ids of nodes by the names of local volumes.
    pub(crate) volumes: BTreeMap<String, String>,
    /// Since when Engines are away, by the ids of their nodes.
    pub(crate) away: BTreeMap<usize, Millis>,
    pub(crate) slots: BTreeMap<String, Slot>,
    /// When it looks at everything next.
    pub(crate) look_at: Option<Micros>,
    /// Stacks of which something was seen since it last looked; all of them if that is set.
    pub(crate) seen: BTreeSet<String>,
    pub(crate) seen_all: bool,
    /// It tells what is seen soon.
    pub(crate) publishing: bool,
    /// It waits for its disk.
    pub(crate) writing: bool,
    pub(crate) inbox: VecDeque<(usize, Frame)>,
}

impl Agent {
    /// Notes which stacks a new report is about.
    pub(crate) fn see(&mut self, report: &Said) {
        let stacks = report.containers.keys();
        self.seen.extend(stacks.cloned());
    }
}

/// A report, with the containers in it by their stacks, as decisions take them.
#[derive(Debug, Default)]
pub(crate) struct Said {
    report: Report,
    pub(crate) containers: BTreeMap<String, Vec<Container>>,
}

impl From<Report> for Said {
    fn from(report: Report) -> Self {
        let mut containers: BTreeMap<String, Vec<Container>> = BTreeMap::new();
        for c in &report.containers {
            let of = containers.entry(c.project.clone()).or_default();
            of.push(Container::from(c));
        }
        Self { report, containers }
    }
}

impl std::ops::Deref for Said {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.report
    }
}

/// Which of a node's reports: the epoch of its life, and a number.
pub(crate) type Version = (u64, u64);

/// A link to a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkTo {
    /// The peer's agent.
    pub(crate) boot: u64,
    /// When both heard each other last.
    pub(crate) heard: Micros,
}

/// What an agent knows of a stack.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) stack: Option<Stack>,
    pub(crate) revision: u64,
    pub(crate) assignments: Assignments,
    pub(crate) memories: BTreeMap<String, RolloutMemory>,
    /// The share as it was healed last.
    pub(crate) share: Option<Share>,
    pub(crate) ledger: Ledger,
    pub(crate) signs: Signs,
    pub(crate) unfinished: Option<Intent>,
    pub(crate) resumed: bool,
    pub(crate) known: bool,
    /// Something may have to be healed, at once or then.
    pub(crate) wake: bool,
    pub(crate) due: Micros,
    /// When there is something to decide.
    pub(crate) decide: Micros,
    pub(crate) work: Option<Work>,
    /// What others wrote of it is taken over when that is done.
    pub(crate) renew: bool,
}

/// A plan that is carried out.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) steps: VecDeque<(Arc<Project>, Operation)>,
    /// Tasks that it is an attempt at.
    pub(crate) attempts: BTreeMap<String, String>,
    /// Services of which something was begun, and containers with which something failed: their
    /// services, and why.
    pub(crate) begun: BTreeSet<String>,
    pub(crate) failed: BTreeMap<String, (String, String)>,
    /// It is given up after the step that is being done.
    pub(crate) cancelled: bool,
    /// It is the end of what was begun.
    pub(crate) finishes: bool,
}
