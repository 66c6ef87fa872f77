//! What must be so at every moment.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_cluster::{Key, Record, Stamp};
use wharfie_compose::model::Project;
use wharfie_core::assignment::{Assignments, runs_isolated};
use wharfie_core::{Operation, Stack};

use crate::coordinate::Puts;
use crate::engine::serves;
use crate::sim::Sim;
use crate::stacks;
use crate::time::{Micros, SEC};
use crate::view::View;

/// What a fault does to others may show for so long.
pub(crate) const AFTERMATH: Micros = 90 * SEC;
/// After so long without a fault nothing is left of the last one but what it moved.
const CALM: Micros = 40 * SEC;
/// A partition is known to all after so long, and what it asks for is done.
const PARTED: Micros = 25 * SEC;
/// Messages a second that a node may send to each other, and besides.
const MESSAGES: u64 = 40;
/// How long messages are counted.
const WINDOW: Micros = 5 * SEC;

/// What is known of a run beside what its nodes know.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) violation: Option<String>,
    /// Messages are measured, not limited.
    pub(crate) unlimited: bool,
    /// When a fault last happened, whatever it touched.
    pub(crate) disturbed: Micros,
    /// When the network fell into parts.
    pub(crate) parted: Micros,
    /// Changes that whoever asked for them was told to be durable.
    acknowledged: Vec<(Key, Stamp)>,
    /// The same, before they were.
    early: Vec<(usize, u64, Key)>,
    /// The latest versions that were on each disk.
    stamps: BTreeMap<(usize, Key), Stamp>,
    /// When somebody last asked that a node be empty, or not.
    drained: BTreeMap<usize, Micros>,
    /// When somebody last asked for something about a stack.
    asked: BTreeMap<String, Micros>,
    rollouts: Vec<Rollout>,
    counted: Micros,
    /// Services that were placed with nothing in the way, and the time.
    pub(crate) fresh: Vec<(String, String, Micros)>,
}

/// A rollout that began while all was well.
#[derive(Debug)]
struct Rollout {
    stack: String,
    service: String,
    tasks: BTreeSet<u32>,
    may_miss: usize,
    since: Micros,
}

impl Checks {
    pub(crate) fn drained(&mut self, node: usize, now: Micros) {
        self.drained.insert(node, now);
    }

    pub(crate) fn asked(&mut self, stack: &str, now: Micros) {
        self.asked.insert(stack.to_owned(), now);
    }

    /// When somebody last asked for something about a stack.
    pub(crate) fn asked_at(&self, stack: &str) -> Micros {
        self.asked.get(stack).copied().unwrap_or(0)
    }

    /// Somebody was told that something is durable which is not.
    pub(crate) fn acknowledge_early(&mut self, node: usize, boot: u64, puts: &Puts) {
        let keys = puts.iter().map(|(key, _)| (node, boot, key.clone()));
        self.early.extend(keys);
    }
}

impl Sim {
    /// A node has written something; whoever asked for it is told so.
    pub(crate) fn acknowledge(&mut self, node: usize, records: &[Record], asked: bool) {
        self.checks.early.retain(|(n, ..)| *n != node);
        if asked {
            let each = records.iter().map(|r| (r.key(), r.stamp));
            self.checks.acknowledged.extend(each);
        }
        let keys: Vec<Key> = records.iter().map(Record::key).collect();
        self.note_stamps(node, &keys);
    }

    /// Some objects have another version on a disk: none goes back.
    pub(crate) fn note_stamps(&mut self, node: usize, keys: &[Key]) {
        for key in keys {
            let newest = self.nodes[node].disk.memory.newest(key);
            let before = self.checks.stamps.get(&(node, key.clone())).copied();
            if newest < before {
                self.violate(format!("n{node} went back to an earlier version of {key}"));
            }
            if let Some(newest) = newest {
                self.checks.stamps.insert((node, key.clone()), newest);
            }
        }
    }

    /// A disk is lost: what was nowhere else is lost with it.
    pub(crate) fn forgive(&mut self, lost: usize) {
        let nodes = &self.nodes;
        self.checks.acknowledged.retain(|(key, stamp)| {
            let mut others = nodes.iter().filter(|n| !n.lost);
            others.any(|n| n.disk.memory.newest(key).is_some_and(|s| s >= *stamp))
        });
        self.checks.early.retain(|(n, ..)| *n != lost);
    }

    /// A coordinator writes where tasks are: none moves without a cause.
    pub(crate) fn tell_moves(
        &mut self,
        node: usize,
        name: &str,
        old: &Assignments,
        new: &Assignments,
        view: &View,
    ) {
        for (service, assignment) in new {
            let before = old.get(service).map(|a| &a.tasks);
            for (number, to) in &assignment.tasks {
                let from = before.and_then(|b| b.get(number));
                let Some(from) = from.filter(|f| *f != to) else {
                    continue;
                };
                let (Some(&f), Some(&t)) = (self.index.get(from), self.index.get(to)) else {
                    continue;
                };
                self.stats.moves += 1;
                self.tell(|| format!("n{node} moves {name} {service}/{number} from n{f} to n{t}"));
                if !self.has_cause(node, f, name, service, view) {
                    self.violate(format!(
                        "n{node} moved {name} {service}/{number} from n{f} to n{t} without a cause"
                    ));
                }
            }
        }
    }

    /// Whether there is a cause for a coordinator to move a task of a service from a node.
    fn has_cause(&self, by: usize, from: usize, name: &str, service: &str, view: &View) -> bool {
        let lately = |at: Micros| at > 0 && self.now - at < AFTERMATH;
        if self.is_troubled(from) || self.is_troubled(by) {
            return true;
        }
        if self.checks.drained.get(&from).copied().is_some_and(lately) {
            return true;
        }
        let Some(agent) = self.nodes[by].agent.as_ref() else {
            return true;
        };
        let id = &self.nodes[from].name;
        let load = view.cluster(agent).load(id);
        let has = view
            .places
            .iter()
            .find(|p| p.id == *id)
            .map_or(0, |p| p.cpus);
        if load.is_none_or(|l| l.cpus > has) || agent.drained.contains(id) {
            return true;
        }
        let stack = agent.slots.get(name).and_then(|s| s.stack.as_ref());
        let project = stack.map(|s| &s.project);
        let tied = project.and_then(|p| Some(stacks::volumes(p, p.any_service(service)?)));
        let mut tied = tied.into_iter().flatten();
        tied.any(|v| agent.volumes.get(v).is_some_and(|on| on != id))
    }

    /// Whether a fault is at work on a node, or was lately.
    fn is_troubled(&self, node: usize) -> bool {
        let host = &self.nodes[node];
        let lately = host.disturbed > 0 && self.now - host.disturbed < AFTERMATH;
        lately
            || host.removed
            || !host.up
            || self.network.off.contains(&node)
            || !self.network.parts.is_empty()
            || self.network.loss > 0
    }

    /// A container was made: one with data nowhere but where its data is.
    pub(crate) fn check_made(&mut self, node: usize, project: &Project, operation: &Operation) {
        let Some((service, name)) = operation.container() else {
            return;
        };
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let me = &self.nodes[node].name;
        let service = project.any_service(service);
        let volumes = service.map(|s| stacks::volumes(project, s));
        let elsewhere = |v: &&str| agent.volumes.get(*v).is_some_and(|on| on != me);
        let wrong = volumes.into_iter().flatten().find(elsewhere);
        if let Some(volume) = wrong.map(str::to_owned) {
            self.violate(format!(
                "n{node} made {name}, and knows that {volume} is on another node"
            ));
        }
    }

    /// Somebody changes a stack: what is to be so while it is rolled out, and in the end.
    pub(crate) fn expect(&mut self, name: &str, before: Option<&Stack>, after: &Stack) {
        for service in &after.active {
            let Some(definition) = after.project.any_service(service) else {
                continue;
            };
            let deploy = definition.deploy.as_ref();
            let Some(before) = before else {
                if deploy.is_some_and(|d| d.replicas.is_some()) && !self.setup.faults {
                    let fresh = (name.to_owned(), service.clone(), self.now);
                    self.checks.fresh.push(fresh);
                }
                continue;
            };
            let rolled = deploy.is_some_and(|d| d.update_config.is_some());
            let old = before.project.any_service(service);
            if !rolled || old.is_none_or(|o| o.image == definition.image) || !self.is_calm() {
                continue;
            }
            let tasks = 1..=before.count(service).min(after.count(service));
            let tasks: BTreeSet<u32> = tasks.collect();
            if self.missing(name, service, &tasks).is_empty() {
                self.checks.rollouts.push(Rollout {
                    stack: name.to_owned(),
                    service: service.clone(),
                    tasks,
                    may_miss: stacks::may_miss(definition),
                    since: self.now,
                });
            }
        }
    }

    fn is_calm(&self) -> bool {
        let last = self.checks.drained.values().copied().max().unwrap_or(0);
        let last = last.max(self.checks.disturbed);
        last == 0 || self.now - last > CALM
    }

    /// Tasks of a service that serve nowhere.
    fn missing(&self, stack: &str, service: &str, tasks: &BTreeSet<u32>) -> BTreeSet<u32> {
        let all = self.nodes.iter().flat_map(|n| &n.engine.containers);
        let own = all.filter(|c| c.project() == stack && c.service == service && serves(c));
        let there: BTreeSet<u32> = own.map(|c| c.number).collect();
        tasks.difference(&there).copied().collect()
    }

    /// Looks whether all is as it must be.
    pub(crate) fn check(&mut self) {
        self.check_acknowledged();
        self.check_rollouts();
        self.check_doubles();
        self.check_parts();
        self.check_messages();
    }

    fn check_acknowledged(&mut self) {
        let early = self.checks.early.iter();
        let mut early = early.filter(|(n, boot, _)| self.boot(*n) != Some(*boot));
        if let Some((n, _, key)) = early.next() {
            let what = format!("{key} was acknowledged by n{n}, and is on no disk");
            return self.violate(what);
        }
        let lost = self.checks.acknowledged.iter().find(|(key, stamp)| {
            let mut disks = self.nodes.iter().filter(|n| !n.lost);
            !disks.any(|n| n.disk.memory.newest(key).is_some_and(|s| s >= *stamp))
        });
        if let Some((key, _)) = lost {
            self.violate(format!("{key} was acknowledged, and is lost"));
        }
    }

    fn check_rollouts(&mut self) {
        let calm = self.is_calm();
        let checks = &mut self.checks;
        let asked = &checks.asked;
        checks
            .rollouts
            .retain(|r| calm && asked.get(&r.stack).is_none_or(|at| *at <= r.since));
        for r in &self.checks.rollouts {
            let missing = self.missing(&r.stack, &r.service, &r.tasks);
            if missing.len() > r.may_miss {
                let what = format!(
                    "{} {}: {missing:?} do not serve, and a rollout may take {} at a time",
                    r.stack, r.service, r.may_miss
                );
                return self.violate(what);
            }
        }
    }

    /// While all is well no task runs twice, unless it is to start before it ends elsewhere.
    fn check_doubles(&mut self) {
        if self.checks.disturbed > 0 && self.now - self.checks.disturbed < CALM {
            return;
        }
        let mut on: BTreeMap<(&str, &str, u32), usize> = BTreeMap::new();
        for (n, host) in self.nodes.iter().enumerate().filter(|(_, h)| !h.removed) {
            for c in host.engine.containers.iter().filter(|c| c.is_running()) {
                let first = |a: &crate::node::Agent| {
                    let stack = a.slots.get(c.project())?.stack.as_ref()?;
                    Some(stacks::starts_first(stack.project.any_service(&c.service)?))
                };
                let first = host.agent.as_ref().and_then(first).unwrap_or(true);
                let other = on.insert((c.project(), &c.service, c.number), n);
                if let Some(other) = other.filter(|_| !first) {
                    let what = format!(
                        "{} {}/{} runs on n{other} and on n{n}",
                        c.project(),
                        c.service,
                        c.number
                    );
                    return self.violate(what);
                }
            }
        }
    }

    /// On the smaller side of a partition what is not to run there does not.
    fn check_parts(&mut self) {
        let parts = &self.network.parts;
        let since = self.checks.parted;
        if parts.is_empty() || self.checks.disturbed > since || self.now - since < PARTED {
            return;
        }
        let members = self.nodes.iter().filter(|n| !n.removed).count();
        let part = |n: usize| parts.get(n).copied().unwrap_or(0);
        let size = |of: u8| {
            let in_it = |(n, host): &(usize, &crate::node::Node)| part(*n) == of && host.is_whole();
            self.nodes.iter().enumerate().filter(in_it).count()
        };
        let sizes = [size(0), size(1)];
        for (n, host) in self.nodes.iter().enumerate() {
            let smaller = 2 * sizes[usize::from(part(n).min(1))] <= members;
            let Some(agent) = host.agent.as_ref().filter(|_| smaller && host.engine.up) else {
                continue;
            };
            for c in host.engine.containers.iter().filter(|c| c.is_running()) {
                let slot = agent.slots.get(c.project());
                let stack = slot.and_then(|s| s.stack.as_ref());
                if stack.is_some_and(|s| !runs_isolated(s, &c.service)) {
                    let what = format!("{} runs on n{n}, which sees no majority", c.name);
                    return self.violate(what);
                }
            }
        }
    }

    fn check_messages(&mut self) {
        if self.now - self.checks.counted < WINDOW {
            return;
        }
        let seconds = (self.now - self.checks.counted) / SEC;
        self.checks.counted = self.now;
        let most = seconds * MESSAGES * (self.nodes.len() as u64 + 4);
        let sent: Vec<u64> = (self.nodes.iter_mut())
            .map(|n| std::mem::take(&mut n.sent))
            .collect();
        let over = sent.iter().position(|s| *s > most);
        if let Some(n) = over.filter(|_| !self.checks.unlimited) {
            let what = format!("n{n} sent {} messages in {seconds} s", sent[n]);
            self.violate(what);
        }
    }
}
