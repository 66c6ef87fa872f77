//! A node's own part: its share of a stack, and what is done about it (the agent's `keeper.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::RngExt;
use wharfie_compose::model::Project;
use wharfie_core::assignment;
use wharfie_core::heal::{self, Backoff, Ledger};
use wharfie_core::wanted::service_of;
use wharfie_core::{Operation, Share, Stack, State};

use crate::engine;
use crate::mutation::Mutation;
use crate::node::{Slot, Work};
use crate::sim::{Event, Sim};
use crate::stacks::Fate;
use crate::time::{MS, SEC};
use crate::view::View;

/// How often a node looks at what is there though nothing happened, in seconds.
const RESYNC: u64 = 30;

impl Sim {
    /// Heals a stack if there is a reason for it; `seen` says whether something was seen of it.
    pub(crate) fn tend(&mut self, node: usize, name: &str, view: &View, seen: bool) {
        let now = self.now;
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let Some(slot) = agent.slots.get(name).filter(|s| s.work.is_none()) else {
            return;
        };
        let ailing = slot.wake || now >= slot.due;
        if !ailing && !seen {
            return;
        }
        let (stack, assignments) = (slot.stack.as_ref(), &slot.assignments);
        let share = stack.map(|stack| self.share(node, name, stack, assignments, view));
        if !ailing && slot.share == share {
            return;
        }
        let Some(slot) = self.slot(node, name) else {
            return;
        };
        slot.wake = false;
        slot.due = now + RESYNC * SEC;
        if !self.nodes[node].engine.up {
            return;
        }
        self.heal(node, name, share);
    }

    pub(crate) fn slot(&mut self, node: usize, name: &str) -> Option<&mut Slot> {
        self.nodes[node].agent.as_mut()?.slots.get_mut(name)
    }

    /// A node's share of a stack.
    fn share(
        &self,
        node: usize,
        name: &str,
        stack: &Stack,
        assignments: &assignment::Assignments,
        view: &View,
    ) -> Share {
        let (own, mut others) = view.containers(name);
        if self.setup.mutation == Some(Mutation::ForgetsElsewhere) {
            others.clear();
        }
        let me = &self.nodes[node].name;
        let mut share = assignment::share(stack, assignments, me, own, &others);
        if !self.has_majority(view) {
            // On this side it is not to run.
            share
                .here
                .retain(|service, _| assignment::runs_isolated(stack, service));
        }
        share
    }

    /// Heals a stack once.
    fn heal(&mut self, node: usize, name: &str, share: Option<Share>) {
        let millis = self.nodes[node].millis(self.now);
        let (now, mutation) = (self.now, self.setup.mutation);
        let host = &mut self.nodes[node];
        let runs_any = host.engine.containers.iter().any(|c| c.project() == name);
        let Some(slot) = host.agent.as_mut().and_then(|a| a.slots.get_mut(name)) else {
            return;
        };
        if slot.unfinished.is_some() {
            return self.finish(node, name);
        }
        slot.share.clone_from(&share);
        let (Some(stack), Some(share)) = (slot.stack.clone(), share) else {
            return;
        };
        if share.is_empty() && !runs_any {
            return;
        }
        let seen = host.engine.seen(name, Some(&stack.project));
        slot.signs.resumed = slot.resumed;
        slot.signs.fresh = !slot.known;
        let backoff = Backoff::default();
        let whole = (&stack, Some(&share));
        slot.ledger
            .observe(whole, &seen, &slot.signs, &backoff, millis);
        (slot.resumed, slot.known) = (false, true);
        let durable = slot.ledger.durable();
        host.disk.ledgers.insert(name.to_owned(), durable);
        let mut steps = VecDeque::new();
        let mut attempts = BTreeMap::new();
        for part in assignment::parts(&stack, &slot.assignments, &share) {
            let of = (&part.stack, Some(&part.share));
            let Ok(healing) = heal::heal(of, &seen, &slot.ledger, &slot.signs, millis) else {
                slot.due = now + 5 * SEC;
                return;
            };
            let project = Arc::new(part.stack.project);
            let operations = healing.plan.steps.into_iter().map(|s| s.operation);
            steps.extend(operations.map(|o| (Arc::clone(&project), o)));
            attempts.extend(healing.attempts);
        }
        if mutation == Some(Mutation::KeepsDuplicates) {
            steps.retain(|(_, o)| !matches!(o, Operation::RemoveContainer { .. }));
        }
        for (task, reason) in &attempts {
            slot.ledger.attempt(task, reason, &backoff, millis);
        }
        if steps.is_empty() {
            return self.rest(node, name);
        }
        let first: Vec<String> = steps.iter().map(|(_, o)| o.to_string()).collect();
        slot.work = Some(Work {
            steps,
            attempts,
            begun: BTreeSet::new(),
            failed: BTreeMap::new(),
            cancelled: false,
            finishes: false,
        });
        self.tell(|| format!("n{node} heals {name}: {}", first.join(", ")));
        self.next_step(node, name);
    }

    /// Brings to its end what was begun.
    fn finish(&mut self, node: usize, name: &str) {
        let host = &mut self.nodes[node];
        let Some(slot) = host.agent.as_mut().and_then(|a| a.slots.get_mut(name)) else {
            return;
        };
        let Some(intent) = slot.unfinished.clone() else {
            return;
        };
        let project = intent.project();
        let seen = host.engine.seen(name, project.as_ref());
        let plan = intent.plan(slot.stack.as_ref(), project.as_ref(), &seen, None);
        let steps = plan.map(|p| p.steps).unwrap_or_default();
        let project = Arc::new(project.unwrap_or_default());
        let steps = steps
            .into_iter()
            .map(|s| (Arc::clone(&project), s.operation));
        slot.work = Some(Work {
            steps: steps.collect(),
            attempts: BTreeMap::new(),
            begun: BTreeSet::new(),
            failed: BTreeMap::new(),
            cancelled: false,
            finishes: true,
        });
        self.tell(|| format!("n{node} takes down {name}"));
        self.next_step(node, name);
    }

    /// The Engine begins the next step of a plan, or it is over.
    fn next_step(&mut self, node: usize, name: &str) {
        let Some(slot) = self.slot(node, name) else {
            return;
        };
        let Some(work) = slot.work.as_ref() else {
            return;
        };
        let next = work.steps.front().filter(|_| !work.cancelled);
        let Some((_, operation)) = next else {
            return self.end_of_work(node, name);
        };
        let (least, more) = engine::takes(operation);
        let pause = least + self.rng.random_range(0..more);
        if let Some(boot) = self.boot(node) {
            let stack = name.to_owned();
            self.after(pause, Event::Step { node, boot, stack });
        }
    }

    /// The Engine has done a step of a plan.
    pub(crate) fn step(&mut self, node: usize, name: &str) {
        let host = &mut self.nodes[node];
        let Some(slot) = host.agent.as_mut().and_then(|a| a.slots.get_mut(name)) else {
            return;
        };
        let Some(work) = slot.work.as_mut() else {
            return;
        };
        let Some((project, operation)) = work.steps.pop_front() else {
            return self.end_of_work(node, name);
        };
        let container = operation.container();
        let container = container.map(|(s, n)| (s.to_owned(), n.to_owned()));
        if container
            .as_ref()
            .is_some_and(|(_, n)| work.failed.contains_key(n))
        {
            return self.next_step(node, name);
        }
        let done = host.engine.apply(&project, &operation);
        if let Some((service, name)) = container {
            work.begun.insert(service.clone());
            if let Err(why) = &done {
                work.failed.insert(name, (service, why.clone()));
            }
        }
        match done {
            Ok(done) => {
                if let Some(id) = done.made {
                    self.made(node, &project, &operation, &id);
                }
                if let Some(id) = done.started {
                    self.started(node, id);
                }
                self.publish_soon(node);
            }
            Err(why) => self.tell(|| format!("n{node} {operation}: {why}")),
        }
        self.next_step(node, name);
    }

    /// A container was begun: in a while it shows what becomes of it.
    fn started(&mut self, node: usize, id: String) {
        let mut containers = self.nodes[node].engine.containers.iter();
        let Some(c) = containers.find(|c| c.id == id) else {
            return;
        };
        let fate = Fate::of(&c.image);
        let pause = fate.shows(&mut self.rng);
        let fall = self.nodes[node].falls;
        self.after(pause, Event::Shows { node, fall, id });
    }

    fn made(&mut self, node: usize, project: &Project, operation: &Operation, id: &str) {
        let first = matches!(
            operation,
            Operation::RecreateContainer {
                start_first: true,
                ..
            }
        );
        let mut containers = self.nodes[node].engine.containers.iter_mut();
        // It runs before the old one goes.
        if let Some(c) = containers.find(|c| c.id == id && first) {
            c.state = State::Running;
            self.started(node, id.to_owned());
        }
        self.check_made(node, project, operation);
    }

    /// It shows what becomes of a container.
    pub(crate) fn shows(&mut self, node: usize, fall: u64, id: &str) {
        let host = &mut self.nodes[node];
        if host.falls != fall || !host.engine.show(id) {
            return;
        }
        let found = host.engine.containers.iter().find(|c| c.id == id);
        let project = found.map(|c| c.project().to_owned()).unwrap_or_default();
        // An Engine that does not answer tells nothing; it is seen when it is back.
        if host.engine.up {
            self.publish_soon(node);
            self.wake(node, &project);
        }
    }

    /// A plan was carried out, or given up.
    fn end_of_work(&mut self, node: usize, name: &str) {
        let now = self.now;
        let host = &mut self.nodes[node];
        let Some(slot) = host.agent.as_mut().and_then(|a| a.slots.get_mut(name)) else {
            return;
        };
        let Some(work) = slot.work.take() else {
            return;
        };
        let renew = std::mem::take(&mut slot.renew);
        if work.finishes {
            if !work.cancelled && work.failed.is_empty() {
                slot.unfinished = None;
                host.disk.unfinished.remove(name);
                if slot.stack.is_none() {
                    slot.ledger = Ledger::default();
                    host.disk.ledgers.remove(name);
                }
            }
            slot.wake = true;
            self.look_soon(node, if work.failed.is_empty() { MS } else { SEC });
            if renew {
                self.renew(node, name);
            }
            return;
        }
        enter(&work, &mut slot.ledger);
        if work.cancelled {
            slot.wake = true;
        } else if !work.failed.is_empty() {
            slot.due = now + SEC;
        }
        self.publish_soon(node);
        self.rest(node, name);
        self.look_soon(node, MS);
        if renew {
            self.renew(node, name);
        }
    }

    /// When something that waits may be tried.
    fn rest(&mut self, node: usize, name: &str) {
        let millis = self.nodes[node].millis(self.now);
        let now = self.now;
        let Some(slot) = self.slot(node, name) else {
            return;
        };
        let waiting = slot.ledger.tasks.values().filter(|r| r.attempts > 0);
        let next = waiting.map(|r| r.next).filter(|n| *n > millis).min();
        if let Some(next) = next {
            let pause = u64::try_from(next - millis).unwrap_or(0);
            slot.due = slot.due.min(now + pause * MS + MS);
        }
    }
}

/// Enters what became of each attempt.
fn enter(work: &Work, ledger: &mut Ledger) {
    let failed = |service: &str| work.failed.values().find(|(s, _)| s == service);
    for task in work.attempts.keys() {
        let service = service_of(task);
        match failed(service) {
            Some((_, why)) => ledger.fail(task, why),
            None if work.begun.contains(service) => ledger.answered([&service.to_owned()]),
            None => ledger.withdraw(task),
        }
    }
}
