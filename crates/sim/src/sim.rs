//! A run: what happens when, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use wharfie_cluster::swim::Outgoing;
use wharfie_cluster::{Key, NodeId};

use crate::ask::Ask;
use crate::checks::Checks;
use crate::faults::Fault;
use crate::look::Job;
use crate::mesh::Frame;
use crate::mutation::Mutation;
use crate::network::Network;
use crate::node::Node;
use crate::time::{MS, Micros, SEC, Wall};

/// What of a run is told when something is wrong.
const LAST: usize = 60;

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What decides everything that is left to chance.
    pub seed: u64,
    /// How many nodes there are at first.
    pub nodes: usize,
    /// Whether there are faults.
    pub faults: bool,
    /// For how many seconds people and faults are at work.
    pub seconds: u64,
    /// A fault of the agent that was put in on purpose.
    pub mutation: Option<Mutation>,
    /// Whether to tell everything that happens.
    pub trace: bool,
    /// Whether to count the bytes that are sent.
    pub measure: bool,
}

impl Setup {
    /// A run with faults, but for every eighth seed.
    #[must_use]
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            faults: !seed.is_multiple_of(8),
            seconds: 60,
            mutation: None,
            trace: false,
            measure: false,
        }
    }
}

/// Figures of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events that happened.
    pub events: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// Bytes of them, if they are counted.
    pub bytes: u64,
    /// Changes of the wanted state that were written.
    pub writes: u64,
    /// Tasks that went from one node to another.
    pub moves: u64,
    /// Virtual seconds until everything was quiet after the last fault.
    pub settled: u64,
    /// Stands for everything that happened: two runs of a seed have the same.
    pub digest: u64,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it was run.
    pub setup: Setup,
    /// What was wrong, if anything was.
    pub violation: Option<String>,
    /// What happened last.
    pub last: Vec<String>,
    /// Figures.
    pub stats: Stats,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { seed, nodes, .. } = self.setup;
        let Some(violation) = &self.violation else {
            return write!(f, "seed {seed} with {nodes} nodes: well, {:?}", self.stats);
        };
        for line in &self.last {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {seed} with {nodes} nodes: {violation}")?;
        write!(
            f,
            "again: cargo run --profile sim -p wharfie-sim -- --seed {seed} --nodes {nodes} --trace"
        )?;
        let named = |m: &Mutation| Mutation::ALL.iter().find(|(_, other)| other == m);
        match self.setup.mutation.as_ref().and_then(named) {
            Some((name, _)) => write!(f, " --mutation {name}"),
            None => Ok(()),
        }
    }
}

/// Something that happens at a time.
pub(crate) enum Event {
    /// A failure detector has something to do.
    Tick { node: usize, boot: u64 },
    /// A datagram of a failure detector arrives.
    Datagram { to: usize, datagram: Outgoing },
    /// A message arrives.
    Frame {
        from: usize,
        to: usize,
        frame: Frame,
    },
    /// A node looks after its links.
    Links { node: usize, boot: u64 },
    /// A node compares with another.
    Sync { node: usize, boot: u64 },
    /// A node decides and heals.
    Look { node: usize, boot: u64 },
    /// A node tells what it sees.
    Publish { node: usize, boot: u64 },
    /// Something is on the disk.
    Disk { node: usize, boot: u64, job: Job },
    /// An Engine has done a step of a plan.
    Step {
        node: usize,
        boot: u64,
        stack: String,
    },
    /// It shows what becomes of a container.
    Shows { node: usize, fall: u64, id: String },
    /// A fault begins or ends.
    Fault(Fault),
    /// Somebody asks for something at a node.
    Ask(Ask),
    /// It is looked whether all is well.
    Check,
}

/// A run at work.
pub(crate) struct Sim {
    pub(crate) setup: Setup,
    pub(crate) now: Micros,
    pub(crate) nodes: Vec<Node>,
    /// Numbers of nodes by their ids.
    pub(crate) index: BTreeMap<String, usize>,
    pub(crate) numbers: BTreeMap<NodeId, usize>,
    pub(crate) network: Network,
    pub(crate) rng: StdRng,
    pub(crate) checks: Checks,
    /// Nobody asks for anything any more, and nothing goes wrong.
    pub(crate) over: bool,
    pub(crate) stats: Stats,
    queue: BinaryHeap<Reverse<(Micros, u64)>>,
    events: BTreeMap<u64, Event>,
    serial: u64,
    last: VecDeque<String>,
    base: Instant,
}

impl Sim {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut rng = StdRng::seed_from_u64(setup.seed);
        let mut sim = Self {
            now: SEC,
            nodes: Vec::new(),
            index: BTreeMap::new(),
            numbers: BTreeMap::new(),
            network: Network {
                jitter: MS,
                ..Network::default()
            },
            checks: Checks::default(),
            over: false,
            stats: Stats::default(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            serial: 0,
            last: VecDeque::new(),
            base: Instant::now(),
            rng: StdRng::seed_from_u64(rng.random()),
            setup,
        };
        for _ in 0..sim.setup.nodes {
            sim.add_host();
        }
        let all: Vec<usize> = (0..sim.setup.nodes).collect();
        let first = sim.nodes[0].stamp(sim.now);
        let mut records = Vec::new();
        for node in &all {
            let (key, value) = sim.member(*node);
            let put = sim.nodes[0]
                .disk
                .memory
                .put(&key, Some(value), "join", first);
            records.extend(put.ok());
        }
        for node in &all {
            let wall = sim.nodes[*node].stamp(sim.now);
            sim.nodes[*node].disk.memory.merge(&records, wall, None);
        }
        for node in all {
            sim.start_agent(node);
        }
        sim.after(500 * MS, Event::Check);
        sim
    }

    /// A host that is no member yet.
    pub(crate) fn add_host(&mut self) -> usize {
        let mut id = [0; 32];
        self.rng.fill_bytes(&mut id);
        let wall = Wall {
            skew: self.rng.random_range(-200..200),
            drift: self.rng.random_range(-50..50),
        };
        let node = Node::new(NodeId(id), wall, self.now);
        self.index.insert(node.name.clone(), self.nodes.len());
        self.numbers.insert(node.id, self.nodes.len());
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// What makes a node a member.
    pub(crate) fn member(&self, node: usize) -> (Key, serde_json::Value) {
        let key = Key::new(wharfie_cluster::roster::MEMBER, &self.nodes[node].name);
        (key, serde_json::json!({ "name": format!("n{node}") }))
    }

    /// The time as the failure detectors take it.
    pub(crate) fn instant(&self) -> Instant {
        self.base + std::time::Duration::from_micros(self.now)
    }

    /// The virtual time of an instant.
    pub(crate) fn micros(&self, at: Instant) -> Micros {
        u64::try_from((at - self.base).as_micros()).unwrap_or(Micros::MAX)
    }

    pub(crate) fn at(&mut self, at: Micros, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((at.max(self.now), self.serial)));
        self.events.insert(self.serial, event);
    }

    pub(crate) fn after(&mut self, pause: Micros, event: Event) {
        self.at(self.now + pause, event);
    }

    /// Notes what happens.
    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:10.4} {}", self.now as f64 / SEC as f64, line());
        self.digest(&line);
        if self.setup.trace {
            println!("{line}");
        }
        if self.last.len() >= LAST {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn digest(&mut self, line: &str) {
        // FNV-1a.
        for byte in line.bytes() {
            self.stats.digest ^= u64::from(byte);
            self.stats.digest = self.stats.digest.wrapping_mul(0x100_0000_01b3);
        }
    }

    /// Something is wrong. The first thing that is counts.
    pub(crate) fn violate(&mut self, what: String) {
        if self.checks.violation.is_none() {
            let at = self.now as f64 / SEC as f64;
            self.checks.violation = Some(format!("at {at:.3} s: {what}"));
        }
    }

    /// Lets everything happen until then; whether all was well.
    pub(crate) fn run_until(&mut self, end: Micros) -> bool {
        while self.checks.violation.is_none() {
            let Some(Reverse((at, serial))) = self.queue.peek().copied() else {
                break;
            };
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            self.stats.events += 1;
            if let Some(event) = self.events.remove(&serial) {
                self.happen(event);
            }
        }
        self.now = self.now.max(end);
        self.checks.violation.is_none()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { node, boot } => self.swim_tick(node, boot),
            Event::Datagram { to, datagram } => self.swim_heard(to, &datagram),
            Event::Frame { from, to, frame } => self.arrive(from, to, frame),
            Event::Links { node, boot } if self.runs(node, boot) => self.look_after_links(node),
            Event::Sync { node, boot } if self.runs(node, boot) => self.compare_with_any(node),
            Event::Look { node, boot } if self.runs(node, boot) => self.look(node),
            Event::Publish { node, boot } if self.runs(node, boot) => self.publish(node),
            Event::Disk { node, boot, job } if self.runs(node, boot) => self.written(node, job),
            Event::Step { node, boot, stack } if self.runs(node, boot) => self.step(node, &stack),
            Event::Shows { node, fall, id } => self.shows(node, fall, &id),
            Event::Fault(_) | Event::Ask(_) if self.over => {}
            Event::Fault(fault) => self.fault(fault),
            Event::Ask(ask) => self.asked(ask),
            Event::Check => {
                self.check();
                self.after(500 * MS, Event::Check);
            }
            _ => {}
        }
    }

    /// Whether an agent still runs.
    pub(crate) fn runs(&self, node: usize, boot: u64) -> bool {
        let agent = self.nodes[node].agent.as_ref();
        agent.is_some_and(|a| a.boot == boot)
    }

    pub(crate) fn boot(&self, node: usize) -> Option<u64> {
        self.nodes[node].agent.as_ref().map(|a| a.boot)
    }
}

/// The size of the cluster that a seed is run with, if nothing else is said.
#[must_use]
pub fn size(seed: u64) -> usize {
    match seed % 50 {
        49 => 50,
        rest => 3 + usize::try_from(rest * 7 % 18).unwrap_or(0),
    }
}

/// Makes a run.
#[must_use]
pub fn run(setup: &Setup) -> Outcome {
    let mut sim = Sim::new(setup.clone());
    sim.plan();
    let end = sim.now + setup.seconds * SEC;
    if sim.run_until(end) {
        sim.come_to_rest();
    }
    Outcome {
        setup: sim.setup,
        violation: sim.checks.violation,
        last: sim.last.into(),
        stats: sim.stats,
    }
}

/// A cluster with one stack and nothing to do: what it has cost after so many seconds.
pub(crate) fn idle(setup: Setup) -> Stats {
    let end = (setup.seconds + 1) * SEC;
    let mut sim = Sim::new(setup);
    sim.checks.unlimited = true;
    sim.plan_one();
    sim.run_until(end);
    sim.stats
}
