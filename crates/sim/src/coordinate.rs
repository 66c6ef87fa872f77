//! The coordinator's part (the agent's `coordinate.rs`).

use std::collections::{BTreeMap, BTreeSet};

use wharfie_core::Stack;
use wharfie_core::assignment::{self, Assignments};
use wharfie_core::schedule::{self, Standing, Tasks};

use crate::look::{Job, VOLUME};
use crate::mutation::Mutation;
use crate::sim::Sim;
use crate::time::{MS, Micros, SEC};
use crate::view::{View, tasks};
use wharfie_cluster::Key;

/// Objects that are to be written.
pub(crate) type Puts = Vec<(Key, Option<serde_json::Value>)>;

/// Where tasks are to be from now on, and local volumes that are on a node from now on.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    pub(crate) assignments: Assignments,
    pub(crate) volumes: BTreeMap<String, String>,
}

impl Sim {
    /// The node that decides for a stack, among those that answer one.
    pub(crate) fn coordinator(&self, stack: &str, view: &View) -> Option<usize> {
        let live = view.nodes.iter().zip(&view.places);
        let live = live.filter(|(n, _)| n.may_answer());
        let id = schedule::coordinator(stack, live.map(|(_, p)| p.id.as_str()))?;
        self.index.get(id).copied()
    }

    /// Does the coordinator's part for a stack, if it is this node's; whether something has to be
    /// written first.
    pub(crate) fn coordinate(&mut self, node: usize, name: &str, view: &View) -> bool {
        let millis = self.nodes[node].millis(self.now);
        let until = |at: i64, now: Micros| {
            let pause = u64::try_from((at - millis).max(10)).unwrap_or(0);
            now + pause * MS
        };
        let now = self.now;
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return false;
        };
        let Some(slot) = agent.slots.get_mut(name) else {
            return false;
        };
        slot.decide = now + 60 * SEC;
        // Whoever carries out a plan holds the stack.
        if slot.work.is_some() || self.coordinator(name, view) != Some(node) {
            return false;
        }
        let Some(slot) = self.slot(node, name) else {
            return false;
        };
        let Some(stack) = slot.stack.clone() else {
            return false;
        };
        let current = slot.assignments.clone();
        let assigned = self.assign(node, name, &stack, &current, view);
        let puts = self.puts_of(node, name, &current, &assigned, view);
        if !puts.is_empty() {
            self.take_slot(node, name, None, &assigned.assignments);
            self.write(
                node,
                Job::Put {
                    puts,
                    note: "schedule",
                    asked: false,
                },
            );
            return true;
        }
        let (written, wake) = self.step_rollouts(node, name, view);
        if written {
            return true;
        }
        let wakes = [wake, view.wake].into_iter().flatten();
        if let Some(agent) = self.nodes[node].agent.as_mut()
            && let Some(slot) = agent.slots.get_mut(name)
            && let Some(at) = wakes.min()
        {
            slot.decide = slot.decide.min(until(at, now));
        }
        false
    }

    /// Decides where the tasks of a stack run.
    pub(crate) fn assign(
        &mut self,
        node: usize,
        name: &str,
        stack: &Stack,
        current: &Assignments,
        view: &View,
    ) -> Assigned {
        let same = || Assigned {
            assignments: current.clone(),
            ..Assigned::default()
        };
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return same();
        };
        let mut cluster = view.cluster(agent);
        let (mut running, mut old) = (view.running(name), tasks(current));
        cluster.add(stack, &old);
        let mut of = stack.clone();
        match self.setup.mutation {
            Some(Mutation::NotSticky) => (running, old) = (Tasks::new(), Tasks::new()),
            Some(Mutation::TiedMoves) if is_away(view, stack) => {
                let fresh = serde_json::json!({"volumes": "fresh"});
                of.project.extensions.insert("x-wharfie".to_owned(), fresh);
            }
            _ => {}
        }
        if !schedule::needs_placing(&of, &old, &running, &cluster) {
            return same();
        }
        let placement = schedule::place(&of, &old, &running, &cluster);
        let majority = self.has_majority(view);
        Assigned {
            assignments: assignment::merged(stack, current, &placement.tasks, majority),
            volumes: placement.volumes,
        }
    }

    /// What must be written so that tasks are where they are to be.
    pub(crate) fn puts_of(
        &mut self,
        node: usize,
        name: &str,
        old: &Assignments,
        assigned: &Assigned,
        view: &View,
    ) -> Puts {
        let new = &assigned.assignments;
        let mut puts = Puts::new();
        let services: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for service in services {
            let key = format!("{name}/{service}");
            let changes = assignment::changes(old.get(service), new.get(service));
            puts.extend(
                changes
                    .into_iter()
                    .map(|(kind, v)| (Key::new(kind, &key), v)),
            );
        }
        for (volume, on) in &assigned.volumes {
            let value = serde_json::json!({ "node": on, "stack": name });
            puts.push((Key::new(VOLUME, volume), Some(value)));
        }
        if !puts.is_empty() {
            self.tell_moves(node, name, old, new, view);
        }
        puts
    }

    /// From now on this is what is wanted here; it is being written.
    pub(crate) fn take_slot(
        &mut self,
        node: usize,
        name: &str,
        stack: Option<&Stack>,
        assignments: &Assignments,
    ) {
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        let slot = agent.slots.entry(name.to_owned()).or_default();
        slot.assignments = assignments.clone();
        if let Some(stack) = stack {
            slot.stack = Some(stack.clone());
        }
        slot.wake = true;
    }

    /// Whether this side of the cluster is the larger one, as far as nodes care.
    pub(crate) fn has_majority(&self, view: &View) -> bool {
        self.setup.mutation == Some(Mutation::IgnoresIsolation) || view.has_majority()
    }
}

/// Whether a node that has a volume of the stack takes nothing.
fn is_away(view: &View, stack: &Stack) -> bool {
    let own = stack.project.volumes.values();
    let on = own.filter_map(|v| view.volumes.get(&v.name));
    on.into_iter().any(|id| {
        let place = view.places.iter().find(|p| p.id == *id);
        place.is_some_and(|p| p.standing != Standing::Ready)
    })
}
