//! The next steps of rollouts (the agent's `rollouts.rs`).

use std::collections::BTreeMap;

use wharfie_cluster::Key;
use wharfie_core::assignment::Assignment;
use wharfie_core::heal::Millis;
use wharfie_core::rollout::{self, Observed, Rollout};
use wharfie_core::wanted::task;
use wharfie_core::{Health, State};

use crate::coordinate::Assigned;
use crate::look::{Job, STACK};
use crate::mutation::Mutation;
use crate::sim::Sim;
use crate::view::View;

/// What is seen of the tasks of a service, on the nodes that they are assigned to.
fn observed(
    view: &View,
    stack: &str,
    service: &str,
    tasks: &BTreeMap<u32, String>,
) -> BTreeMap<u32, Observed> {
    let each = tasks.iter().map(|(number, id)| {
        let found = view
            .nodes
            .iter()
            .zip(&view.places)
            .find(|(_, p)| p.id == *id);
        let report = found.and_then(|(n, _)| n.report.as_deref());
        let engine = report.is_some_and(|r| r.engine_away.is_none());
        let up = found.is_some_and(|(n, _)| n.may_answer());
        let mut seen = Observed {
            reachable: up && engine,
            ..Observed::default()
        };
        let Some(report) = report else {
            return (*number, seen);
        };
        let own = report.containers.get(stack).into_iter().flatten();
        let own = own.filter(|c| c.service == service && c.number == *number);
        if let Some(c) = own.max_by_key(|c| c.state == State::Running) {
            let revision = c.labels.get(wharfie_core::labels::REVISION);
            seen.revision = revision.cloned().unwrap_or_default();
            seen.running = c.state == State::Running;
            seen.health = c.health;
            seen.exit_code = c.exit_code;
        }
        let key = task(service, *number);
        let troubles = report.troubles.get(stack).into_iter().flatten();
        let trouble = troubles.into_iter().find(|t| t.task == key && t.failed);
        seen.trouble = trouble.map(|t| t.reason.clone());
        (*number, seen)
    });
    each.collect()
}

/// What a coordinator sees that takes everything for well.
fn rosy(tasks: &BTreeMap<u32, String>, rollout: &Rollout) -> BTreeMap<u32, Observed> {
    let well = Observed {
        revision: rollout.revision.clone(),
        running: true,
        health: Health::Healthy,
        reachable: true,
        ..Observed::default()
    };
    tasks.keys().map(|n| (*n, well.clone())).collect()
}

impl Sim {
    /// Takes the next step of a stack's rollouts: whether something is written, and when to look
    /// again.
    pub(crate) fn step_rollouts(
        &mut self,
        node: usize,
        name: &str,
        view: &View,
    ) -> (bool, Option<Millis>) {
        let millis = self.nodes[node].millis(self.now);
        let going = |a: &Assignment| a.rollout.as_ref().is_some_and(|r| !r.is_over());
        let rosy_eyed = self.setup.mutation == Some(Mutation::IgnoresHealth);
        let Some(slot) = self.slot(node, name) else {
            return (false, None);
        };
        let Some(stack) = slot.stack.clone() else {
            return (false, None);
        };
        let current = slot.assignments.clone();
        let mut wake: Option<Millis> = None;
        for (service, assignment) in current.iter().filter(|(_, a)| going(a)) {
            let tasks = match (&assignment.rollout, rosy_eyed) {
                (Some(rollout), true) => rosy(&assignment.tasks, rollout),
                _ => observed(view, name, service, &assignment.tasks),
            };
            let Some(slot) = self.slot(node, name) else {
                break;
            };
            let memory = slot.memories.entry(service.clone()).or_default();
            let step = rollout::step(&stack, service, assignment, &tasks, memory, millis);
            wake = wake.into_iter().chain(step.wake).min();
            if step.change.is_none() && step.restore.is_none() {
                continue;
            }
            let mut assignments = current.clone();
            assignments.extend(step.change.map(|a| (service.clone(), a)));
            let restored = step.restore.map(|stack| *stack);
            if let Some(after) = &restored {
                rollout::begin(Some(&stack), after, &mut assignments, millis);
            }
            let note = step.note.unwrap_or_default();
            self.tell(|| format!("n{node} {name}: {note}"));
            let assigned = Assigned {
                assignments,
                ..Assigned::default()
            };
            let mut puts = self.puts_of(node, name, &current, &assigned, view);
            if let Some(stack) = &restored {
                let value = serde_json::to_value(stack).ok();
                puts.push((Key::new(STACK, name), value));
            }
            self.take_slot(node, name, restored.as_ref(), &assigned.assignments);
            if !puts.is_empty() {
                let job = Job::Put {
                    puts,
                    note: "rollout",
                    asked: false,
                };
                self.write(node, job);
                return (true, None);
            }
        }
        (false, wake)
    }
}
