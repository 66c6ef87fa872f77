//! An agent: it starts, hears of things, writes, and looks at everything when there is a reason
//! (the agent's `keeper.rs`, `elsewhere.rs` and `report.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::RngExt;
use serde_json::Value;
use wharfie_cluster::roster::{MEMBER, REMOVED};
use wharfie_cluster::{Key, Record};
use wharfie_core::Stack;
use wharfie_core::assignment::{ASSIGNMENT, Assignment, Assignments, ROLLOUT};
use wharfie_core::reconcile::DownOptions;
use wharfie_core::report::{Report, ReportedContainer};
use wharfie_core::wanted::Definition;
use wharfie_core::{Intent, heal};

use crate::mesh::Frame;
use crate::mutation::Mutation;
use crate::node::{Agent, Slot};
use crate::sim::{Event, Sim};
use crate::stacks::CPUS;
use crate::time::{MS, Micros, SEC};

pub(crate) const STACK: &str = "stack";
pub(crate) const NODE: &str = "node";
pub(crate) const VOLUME: &str = "volume";

/// A later life of a node has an epoch that is greater by so much at least.
const REFUTED: u64 = 10_000;

/// Something that the disk is asked for; nothing else is done meanwhile.
pub(crate) enum Job {
    /// Objects are written here. If somebody asked for it, it is acknowledged then.
    Put {
        puts: Vec<(Key, Option<Value>)>,
        note: &'static str,
        asked: bool,
    },
    /// Objects came from others.
    Merge {
        from: usize,
        records: Arc<Vec<Record>>,
    },
}

impl Sim {
    /// An agent starts on a host.
    pub(crate) fn start_agent(&mut self, node: usize) {
        let millis = self.nodes[node].millis(self.now);
        let (wall, now) = (self.nodes[node].stamp(self.now), self.now);
        let host = &mut self.nodes[node];
        if !host.up || host.removed || host.lost || host.agent.is_some() {
            return;
        }
        host.boots += 1;
        host.disk.epoch = wall.max(host.disk.epoch + REFUTED);
        host.disk.memory.reopen(wall);
        let (boot, epoch) = (host.boots, host.disk.epoch);
        let swim = self.new_swim(node, epoch);
        let mut agent = Agent {
            boot,
            began: millis,
            swim,
            tick_at: None,
            presence: BTreeMap::new(),
            links: BTreeMap::new(),
            reports: BTreeMap::new(),
            report: Arc::default(),
            version: 0,
            members: BTreeSet::new(),
            drained: BTreeSet::new(),
            volumes: BTreeMap::new(),
            away: BTreeMap::new(),
            slots: BTreeMap::new(),
            look_at: None,
            seen: BTreeSet::new(),
            seen_all: true,
            publishing: false,
            writing: false,
            inbox: VecDeque::new(),
        };
        let disk = &self.nodes[node].disk;
        let stored = disk.memory.list(STACK).into_iter().map(|r| r.name);
        let begun = disk.unfinished.keys().cloned();
        for name in stored.chain(begun) {
            let slot = Slot {
                ledger: disk.ledgers.get(&name).cloned().unwrap_or_default(),
                unfinished: disk.unfinished.get(&name).cloned(),
                resumed: self.nodes[node].falls > 0,
                wake: true,
                due: now,
                ..Slot::default()
            };
            agent.slots.insert(name, slot);
        }
        let names: Vec<String> = agent.slots.keys().cloned().collect();
        self.nodes[node].agent = Some(agent);
        for name in names {
            self.read_slot(node, &name);
        }
        self.reread(node);
        self.tell(|| format!("n{node} agent starts"));
        let soon = self.rng.random_range(0..20 * MS);
        self.after(soon, Event::Links { node, boot });
        let soon = self.rng.random_range(SEC..3 * SEC);
        self.after(soon, Event::Sync { node, boot });
        self.publish_soon(node);
        self.look_soon(node, MS);
    }

    /// Has a node look at everything within a time.
    pub(crate) fn look_soon(&mut self, node: usize, pause: Micros) {
        let at = self.now + pause;
        let now = self.now;
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        if agent.look_at.is_some_and(|t| t <= at && t > now) {
            return;
        }
        agent.look_at = Some(at);
        let boot = agent.boot;
        self.at(at, Event::Look { node, boot });
    }

    /// Has a node heal a stack.
    pub(crate) fn wake(&mut self, node: usize, stack: &str) {
        if let Some(agent) = self.nodes[node].agent.as_mut()
            && let Some(slot) = agent.slots.get_mut(stack)
        {
            slot.wake = true;
            self.look_soon(node, MS);
        }
    }

    pub(crate) fn look(&mut self, node: usize) {
        let now = self.now;
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        if agent.look_at != Some(now) || agent.writing {
            // What was written is looked at.
            return;
        }
        agent.look_at = None;
        let seen = std::mem::take(&mut agent.seen);
        let seen_all = std::mem::take(&mut agent.seen_all);
        let view = self.view(node);
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let names: Vec<String> = agent.slots.keys().cloned().collect();
        for name in names {
            if self.coordinate(node, &name, &view) {
                // It is healed when this is on the disk.
                if let Some(agent) = self.nodes[node].agent.as_mut() {
                    agent.seen_all = true;
                }
                return;
            }
            self.tend(node, &name, &view, seen_all || seen.contains(&name));
        }
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let next = agent.slots.values().map(|s| s.due.min(s.decide)).min();
        let pause = next.map_or(30 * SEC, |at| at.saturating_sub(now).max(10 * MS));
        self.look_soon(node, pause.min(30 * SEC));
    }

    /// Reads the next messages, up to one that has to be written down.
    pub(crate) fn read_inbox(&mut self, node: usize) {
        while let Some(agent) = self.nodes[node].agent.as_mut() {
            if agent.writing {
                return;
            }
            let Some((from, frame)) = agent.inbox.pop_front() else {
                return;
            };
            match frame {
                Frame::Records(records) => self.write(node, Job::Merge { from, records }),
                Frame::Report(of, version, report) => {
                    self.take_report(node, of, version, report, from);
                }
                Frame::Compare(theirs) => self.differ(node, from, &theirs),
                Frame::Differences(theirs) => self.give(node, from, &theirs),
                Frame::Missing(theirs) => self.get(node, from, &theirs),
                Frame::Ask(ask) => self.carry_out(node, ask),
            }
        }
    }

    /// Gives the disk something to do.
    pub(crate) fn write(&mut self, node: usize, job: Job) {
        let slowness = self.nodes[node].disk.slowness;
        let pause = slowness / 3 + self.rng.random_range(0..slowness);
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        agent.writing = true;
        let boot = agent.boot;
        if let (
            Some(Mutation::AcksBeforeSync),
            Job::Put {
                puts, asked: true, ..
            },
        ) = (self.setup.mutation, &job)
        {
            self.checks.acknowledge_early(node, boot, puts);
        }
        self.after(pause, Event::Disk { node, boot, job });
    }

    /// The disk has done what it was asked for, or cannot.
    pub(crate) fn written(&mut self, node: usize, job: Job) {
        if let Some(agent) = self.nodes[node].agent.as_mut() {
            agent.writing = false;
        }
        let full = self.nodes[node].disk.full;
        let mutation = self.setup.mutation;
        let wall = self.nodes[node].stamp(self.now);
        match job {
            Job::Put { puts, .. } if full => {
                self.tell(|| format!("n{node} disk is full"));
                let stacks = puts.iter().filter_map(|(key, _)| stack_of(key));
                let stacks: BTreeSet<String> = stacks.map(str::to_owned).collect();
                for name in stacks {
                    self.read_slot(node, &name);
                }
                self.look_soon(node, SEC);
            }
            Job::Merge { .. } if full => {}
            Job::Put { puts, note, asked } => {
                let mut records = Vec::new();
                for (key, value) in puts {
                    match self.nodes[node].disk.memory.put(&key, value, note, wall) {
                        Ok(record) => records.push(record),
                        Err(e) => self.tell(|| format!("n{node} cannot write {key}: {e}")),
                    }
                }
                self.stats.writes += records.len() as u64;
                let keys: Vec<Key> = records.iter().map(Record::key).collect();
                self.tell(|| format!("n{node} wrote {note}: {}", joined(&keys)));
                self.acknowledge(node, &records, asked);
                // Where tasks are, and what is wanted, go out one by one, and arrive in any order.
                let (stacks, others) = (records.into_iter()).partition(|r| r.kind == STACK);
                for records in [others, stacks] {
                    self.say_to_all(node, None, &Frame::Records(Arc::new(records)));
                }
                self.changed(node, &keys);
            }
            Job::Merge { from, records } => {
                let memory = &self.nodes[node].disk.memory;
                let applied = memory.merge(&records, wall, mutation);
                self.note_stamps(node, &applied);
                if !applied.is_empty() {
                    self.tell(|| format!("n{node} took from n{from}: {}", joined(&applied)));
                    let large =
                        (self.nodes[node].agent.as_ref()).is_some_and(|a| a.members.len() > 200);
                    if large {
                        self.say_to_all(node, Some(from), &Frame::Records(records));
                    }
                    self.changed(node, &applied);
                }
            }
        }
        self.read_inbox(node);
        self.look_soon(node, MS);
    }

    /// Acts on objects that have another version now.
    fn changed(&mut self, node: usize, keys: &[Key]) {
        if (keys.iter()).any(|k| matches!(k.kind.as_str(), MEMBER | REMOVED | NODE | VOLUME)) {
            self.reread(node);
        }
        let stacks = keys.iter().filter_map(stack_of);
        let stacks: BTreeSet<String> = stacks.map(str::to_owned).collect();
        for name in stacks {
            self.renew(node, &name);
        }
        self.look_soon(node, MS);
    }

    /// Reads who the members are, what is wanted of nodes, and where volumes are.
    fn reread(&mut self, node: usize) {
        let memory = &self.nodes[node].disk.memory;
        let removed: BTreeSet<String> = memory.list(REMOVED).into_iter().map(|r| r.name).collect();
        let members = memory.list(MEMBER).into_iter();
        let members: BTreeSet<usize> = members
            .filter(|r| !removed.contains(&r.name))
            .filter_map(|r| self.index.get(&r.name).copied())
            .collect();
        let says = |r: &Record, field: &str| r.value.as_ref().map(|v| v[field].clone());
        let drained = memory.list(NODE).into_iter();
        let drained = drained.filter(|r| says(r, "drained") == Some(Value::Bool(true)));
        let drained = drained.map(|r| r.name).collect();
        let volumes = memory.list(VOLUME).into_iter().filter_map(|r| {
            let node = says(&r, "node")?.as_str()?.to_owned();
            Some((r.name, node))
        });
        let volumes = volumes.collect();
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        let gone: Vec<usize> = agent.members.difference(&members).copied().collect();
        agent.reports.retain(|of, _| members.contains(of));
        agent.seen_all = true;
        (agent.members, agent.drained, agent.volumes) = (members, drained, volumes);
        for other in gone {
            self.unlink(node, other);
            self.swim_left(node, other);
            if self.network.is_open_both_ways(node, other) {
                self.expel(other);
            }
        }
        if removed.contains(&self.nodes[node].name) {
            self.expel(node);
        }
    }

    /// A node hears that it was removed: it is of no cluster any more, and what runs there goes on.
    pub(crate) fn expel(&mut self, node: usize) {
        if !self.nodes[node].removed && self.nodes[node].agent.is_some() {
            self.tell(|| format!("n{node} was removed"));
            self.nodes[node].removed = true;
            self.nodes[node].agent = None;
        }
    }

    /// What is wanted of a stack was written: takes it over, as soon as nobody acts on it here.
    pub(crate) fn renew(&mut self, node: usize, name: &str) {
        if let Some(slot) = self.slot(node, name)
            && let Some(work) = slot.work.as_mut()
        {
            // Healing gives way.
            work.cancelled = true;
            slot.renew = true;
            return;
        }
        let by_report = self.setup.mutation == Some(Mutation::TrustsTheReport);
        let reports = |a: &Agent| a.report.containers.contains_key(name);
        let before = self.nodes[node].agent.as_ref();
        let runs = !by_report || before.is_some_and(reports);
        let old = before.and_then(|a| a.slots.get(name)?.stack.clone());
        if !self.read_slot(node, name) {
            return;
        }
        let host = &mut self.nodes[node];
        let Some(slot) = host.agent.as_mut().and_then(|a| a.slots.get_mut(name)) else {
            return;
        };
        let down = old.as_ref().filter(|_| runs);
        if let Some(down) = down.and_then(|old| surplus_of(old, slot.stack.as_ref())) {
            host.disk.unfinished.insert(name.to_owned(), down.clone());
            slot.unfinished = Some(down);
        }
        slot.wake = true;
    }

    /// Reads what is wanted of a stack and where its tasks are; whether that has changed.
    pub(crate) fn read_slot(&mut self, node: usize, name: &str) -> bool {
        let memory = &self.nodes[node].disk.memory;
        let Some(record) = memory.get(STACK, name) else {
            return false;
        };
        let prefix = format!("{name}/");
        let keys = memory.keys().into_iter();
        let keys = keys.filter(|k| k.kind == ASSIGNMENT && k.name.starts_with(&prefix));
        let mut assignments = Assignments::new();
        for key in keys {
            let value = memory.get(ASSIGNMENT, &key.name).and_then(|r| r.value);
            let read = value.map(serde_json::from_value::<Assignment>);
            if let Some(Ok(mut assignment)) = read {
                let rollout = memory.get(ROLLOUT, &key.name).and_then(|r| r.value);
                assignment.rollout = rollout.and_then(|v| serde_json::from_value(v).ok());
                assignments.insert(key.name[prefix.len()..].to_owned(), assignment);
            }
        }
        let value = record.value.map(serde_json::from_value::<Stack>);
        let stack = value.and_then(Result::ok);
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return false;
        };
        let slot = agent.slots.entry(name.to_owned()).or_default();
        let same = slot.revision == record.revision
            && slot.stack == stack
            && slot.assignments == assignments;
        (slot.stack, slot.revision, slot.assignments) = (stack, record.revision, assignments);
        !same
    }

    /// Tells the others what is seen, after a moment.
    pub(crate) fn publish_soon(&mut self, node: usize) {
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        if !agent.publishing {
            agent.publishing = true;
            let boot = agent.boot;
            let pause = self.rng.random_range(5 * MS..30 * MS);
            self.after(pause, Event::Publish { node, boot });
        }
    }

    pub(crate) fn publish(&mut self, node: usize) {
        let millis = self.nodes[node].millis(self.now);
        let host = &mut self.nodes[node];
        let Some(agent) = host.agent.as_mut() else {
            return;
        };
        agent.publishing = false;
        let mut report = match host.engine.up {
            true => Report {
                time: millis,
                cpus: CPUS,
                engine: "sim".to_owned(),
                containers: (host.engine.containers.iter().cloned())
                    .map(ReportedContainer::from)
                    .collect(),
                ..Report::default()
            },
            false => Report {
                engine_away: Some("it does not answer".to_owned()),
                ..Report::clone(&agent.report)
            },
        };
        let troubles = agent.slots.iter();
        let troubles = troubles.map(|(name, s)| (name.clone(), heal::troubles(&s.ledger)));
        report.troubles = troubles.filter(|(_, t)| !t.is_empty()).collect();
        if agent.version > 0 && report.says_the_same(&agent.report) {
            return;
        }
        self.send_report(node, report);
    }

    pub(crate) fn send_report(&mut self, node: usize, report: Report) {
        let epoch = self.nodes[node].disk.epoch;
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        agent.version += 1;
        agent.report = Arc::new(report.into());
        let said = Arc::clone(&agent.report);
        agent.see(&said);
        let frame = Frame::Report(node, (epoch, agent.version), Arc::clone(&agent.report));
        self.say_to_all(node, None, &frame);
        self.look_soon(node, MS);
    }
}

/// The stack that an object is about.
fn stack_of(key: &Key) -> Option<&str> {
    match key.kind.as_str() {
        STACK => Some(&key.name),
        ASSIGNMENT | ROLLOUT => key.name.split_once('/').map(|(stack, _)| stack),
        _ => None,
    }
}

/// What takes down the services that are wanted no longer.
fn surplus_of(old: &Stack, new: Option<&Stack>) -> Option<Intent> {
    let wanted: BTreeSet<String> = new.map(|n| n.active.clone()).unwrap_or_default();
    let services: Vec<String> = old.active.difference(&wanted).cloned().collect();
    if services.is_empty() && new.is_some() {
        return None;
    }
    Some(Intent::Down {
        project: Some(Box::new(Definition::from(&old.project))),
        options: DownOptions {
            services: if new.is_some() { services } else { Vec::new() },
            ..DownOptions::default()
        },
    })
}

/// Objects in words.
fn joined(keys: &[Key]) -> String {
    let names = keys.iter().map(|k| match k.kind.as_str() {
        MEMBER | REMOVED | NODE => k.kind.clone(),
        _ => k.to_string(),
    });
    names.collect::<Vec<_>>().join(", ")
}
