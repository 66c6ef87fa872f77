//! The coordinator's part: where the tasks of its stacks run. Every node knows whose part it is;
//! if two take it for a moment, their assignments merge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tracing::{info, warn};
use wharfie_cluster::{Key, Record};
use wharfie_core::assignment::{self, Assignment, Assignments, Reported};
use wharfie_core::heal::Millis;
use wharfie_core::schedule::{self, Verdict};
use wharfie_core::{Share, Stack};

use super::keeper::{Keeper, Puts, now};
use super::slot::{Kept, Slot};
use super::world::{self, Entry, Side, VOLUME, View, VolumePlace};
use crate::api::{Node, NodeState};
use crate::failure::Failure;

/// Where tasks are to be from now on, and what must be written for that.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Assigned {
    /// Where they are.
    pub(super) assignments: Assignments,
    /// Local volumes that are on a node from now on.
    pub(super) volumes: BTreeMap<String, String>,
}

impl Keeper {
    /// Whether there are other nodes: then everything is assigned to one.
    pub(super) fn is_alone(&self) -> bool {
        self.fleet.count() < 2
    }

    /// Id of the node that decides for a stack, among those that answer.
    pub(super) fn coordinator(&self, stack: &str) -> Option<String> {
        let nodes = self.fleet.members();
        let fit = able(&nodes, |n| {
            self.fleet.report_of(n).is_some_and(|r| r.unwritable)
        });
        schedule::coordinator(stack, fit.into_iter().map(|n| n.id.as_str())).map(str::to_owned)
    }

    /// Decides where the tasks of a stack run.
    pub(super) fn assign(&self, name: &str, stack: &Stack, current: &Assignments) -> Assigned {
        if self.is_alone() {
            return Assigned {
                assignments: self.all_here(stack, current),
                ..Assigned::default()
            };
        }
        self.assign_in(&self.view(), name, stack, current)
    }

    /// Decides where the tasks of a stack run, among the nodes as they were seen.
    fn assign_in(&self, view: &View, name: &str, stack: &Stack, current: &Assignments) -> Assigned {
        let mut stacks = self.book.stacks();
        let entry = Entry {
            stack: Arc::new(stack.clone()),
            assignments: Arc::new(current.clone()),
        };
        stacks.insert(name.to_owned(), entry);
        let cluster = view.cluster(&stacks);
        let running = view.running(name);
        let tasks = world::tasks(current);
        match schedule::place_if_needed(stack, &tasks, &running, &cluster) {
            Some(placement) => Assigned {
                assignments: assignment::merged(
                    stack,
                    current,
                    &placement.tasks,
                    view.side() == Side::Larger,
                ),
                volumes: placement.volumes,
            },
            None => Assigned {
                assignments: current.clone(),
                ..Assigned::default()
            },
        }
    }

    /// Without others all tasks are here.
    pub(super) fn all_here(&self, stack: &Stack, current: &Assignments) -> Assignments {
        let me = self.fleet.id();
        let others = |a: &Assignment| a.tasks.values().any(|n| *n != me);
        if self.fleet.is_expelled() && current.values().any(others) {
            // They run it, without this node.
            return current.clone();
        }
        let each = stack.active.iter().map(|service| {
            let tasks = (1..=stack.count(service))
                .map(|n| (n, me.clone()))
                .collect();
            let rollout = current.get(service).and_then(|a| a.rollout.clone());
            (service.clone(), Assignment { tasks, rollout })
        });
        each.collect()
    }

    /// What is decided of each task of a stack, and why.
    pub(super) fn explain(&self, name: &str, stack: &Stack) -> Vec<schedule::Decision> {
        let view = self.view();
        let mut stacks = self.book.stacks();
        let current = stacks.get(name).map(|e| Arc::clone(&e.assignments));
        let current = current.unwrap_or_default();
        let entry = Entry {
            stack: Arc::new(stack.clone()),
            assignments: Arc::clone(&current),
        };
        stacks.insert(name.to_owned(), entry);
        let tasks = world::tasks(&current);
        let running = view.running(name);
        schedule::explain(stack, &tasks, &running, &view.cluster(&stacks)).decisions
    }

    /// This node's share of a stack: all of it, if there are no others and nothing is rolled out.
    pub(super) fn share(&self, name: &str, stack: &Stack, assignments: &Assignments) -> Share {
        let view = self.view();
        let (own, others) = view.containers(name);
        let others: Vec<Reported> = others.iter().map(world::There::reported).collect();
        let own_view;
        let assignments = match view.side() {
            _ if self.is_alone() => {
                own_view = self.all_here(stack, assignments);
                &own_view
            }
            // All nodes of this side come to the same.
            Side::Smaller => {
                own_view = self.assign(name, stack, assignments).assignments;
                &own_view
            }
            Side::Larger | Side::Half => assignments,
        };
        let mut share = assignment::share(stack, assignments, &self.fleet.id(), &own, &others);
        if view.side() != Side::Larger {
            // On this side it is not to run.
            share
                .here
                .retain(|service, _| assignment::runs_isolated(stack, service));
        }
        share
    }

    /// What of this node's share may be as the stack says now: what is rolled out comes later.
    pub(super) fn share_now(&self, name: &str, stack: &Stack, assignments: &Assignments) -> Share {
        let whole = self.share(name, stack, assignments);
        // The first part is the stack's own.
        let parts = assignment::parts(stack, assignments, &whole);
        parts.into_iter().next().map_or(whole, |part| part.share)
    }

    /// Does the coordinator's part for a stack, if it is this node's; when to look again.
    pub(super) async fn coordinate(&self, slot: &Slot, kept: &mut Kept) -> Duration {
        let idle = Duration::from_secs(60);
        let Some(stack) = kept.stack.clone() else {
            return idle;
        };
        if self.is_alone() {
            self.mend(&slot.name, &stack, kept, false).await;
            let until = self.step_rollouts(slot, kept).await;
            return until.map_or(idle, pause_until);
        }
        if self.coordinator(&slot.name).as_deref() != Some(&self.fleet.id()) {
            return idle;
        }
        let view = self.view();
        if view.side() == Side::Smaller {
            // The others decide, or have decided.
            return Duration::from_secs(1);
        }
        if kept.assignments.is_empty() && is_silent(&view, &stack.home) {
            return AGAIN;
        }
        let assigned = self.assign_in(&view, &slot.name, &stack, &kept.assignments);
        if assigned.assignments != kept.assignments && !self.is_confirmed(&view).await {
            return AGAIN;
        }
        match self
            .write_assigned(&slot.name, kept, assigned, "schedule")
            .await
        {
            Ok(records) => self.fleet.tell(records),
            Err(e) => {
                // Another node takes over.
                self.set_unwritable(true);
                warn!(stack = slot.name, "{}", e.text());
                return Duration::from_secs(1);
            }
        }
        self.mend(&slot.name, &stack, kept, true).await;
        let stepped = self.step_rollouts(slot, kept).await;
        // Whoever was expected back then counts from then on, not from a moment before.
        let until = stepped.into_iter().chain(view.wake).min();
        until.map_or(idle, pause_until)
    }

    /// Puts right what of a stack's networks and addresses is not as it should be.
    async fn mend(&self, name: &str, stack: &Stack, kept: &Kept, networks: bool) {
        let mut mended = match networks {
            true => self.mend_networks(stack),
            false => Puts::new(),
        };
        let shared = !mended.is_empty();
        let addresses = self.mend_addresses(stack, &kept.assignments);
        // Who is just being cut off must not take what the others hold.
        if !addresses.is_empty() && (self.is_alone() || self.is_confirmed(&self.view()).await) {
            mended.extend(addresses);
        }
        match self.put_networks(mended, "mend").await {
            Ok(records) => {
                if shared {
                    self.wake_all();
                }
                self.fleet.tell(records);
            }
            Err(e) => warn!(stack = name, "{}", e.text()),
        }
    }

    /// Whether as many nodes answer as are taken for live, if others are away. Who is cut off loses the
    /// others one by one: before the first that is lost costs anything, the rest is asked.
    async fn is_confirmed(&self, view: &View) -> bool {
        let nodes: Vec<Node> = view.nodes.iter().map(|(node, _)| node.clone()).collect();
        let away = nodes.iter().filter(|n| !n.me && !n.may_answer());
        // Who is away once more is another case.
        let away: BTreeSet<(String, Millis)> = away.map(|n| (n.id.clone(), n.since)).collect();
        if away.is_empty() || self.book.is_confirmed(&away) {
            return true;
        }
        let live = nodes.iter().filter(|n| !n.me && n.may_answer());
        let asked: Vec<&Node> = live.take(ASKED).collect();
        let is_away = |n: &Node| away.iter().any(|(id, _)| *id == n.id);
        let gone = nodes.iter().filter(|n| is_away(n)).take(ASKED);
        let answers = join_all(asked.iter().map(|n| self.fleet.answers(n, ANSWER))).await;
        // Only then: if it was this node that was cut off, and is back since, all of them are.
        let back = join_all(gone.map(|n| self.fleet.answers(n, KNOCK))).await;
        if back.contains(&true) {
            // It is just about to be seen as well.
            return false;
        }
        let silent = asked
            .iter()
            .zip(&answers)
            .filter(|(_, answered)| !**answered);
        let silent: BTreeSet<&str> = silent.map(|(node, _)| node.id.as_str()).collect();
        // Of many only some are asked, and stand for the rest.
        let rest = 2 * silent.len() < asked.len();
        let answers = |n: &Node| match asked.iter().any(|a| a.id == n.id) {
            true => !silent.contains(n.id.as_str()),
            false => n.me || (n.may_answer() && rest),
        };
        let now = self.fleet.members();
        let mut now = now.iter().filter(|n| n.state != NodeState::Removed);
        if !now.all(|n| is_away(n) != (n.me || n.may_answer())) {
            return false;
        }
        let confirmed = View::side_of(&nodes, answers) == view.side();
        match confirmed {
            true => self.book.confirm(away),
            false => info!(?silent, "not decided: others do not answer either"),
        }
        confirmed
    }

    /// Writes where tasks are, as far as it is new; what was written.
    pub(super) async fn write_assigned(
        &self,
        name: &str,
        kept: &mut Kept,
        assigned: Assigned,
        note: &'static str,
    ) -> Result<Vec<Record>, Failure> {
        let alone = self.is_alone();
        let records = self.put_assigned(name, kept, &assigned, note).await?;
        if kept.assignments != assigned.assignments && !alone {
            self.tell_moves(name, &kept.assignments, &assigned.assignments);
        }
        kept.assignments = assigned.assignments;
        self.book.set(name, kept.stack.as_ref(), &kept.assignments);
        if !assigned.volumes.is_empty() {
            self.reread()?;
        }
        Ok(records)
    }

    async fn put_assigned(
        &self,
        name: &str,
        kept: &Kept,
        assigned: &Assigned,
        note: &'static str,
    ) -> Result<Vec<Record>, Failure> {
        let old = &kept.assignments;
        let new = &assigned.assignments;
        // Where there are no others everything is here: only rollouts have to be written.
        let alone = self.is_alone();
        let said = |a: &&Assignment| !alone || a.rollout.is_some();
        let services: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let mut puts = Puts::new();
        for service in services {
            let (old, new) = (old.get(service), new.get(service));
            if old.filter(said).is_some() || new.filter(said).is_some() {
                let key = format!("{name}/{service}");
                let changes = assignment::changes(old.filter(said), new);
                puts.extend(
                    changes
                        .into_iter()
                        .map(|(kind, v)| (Key::new(kind, &key), v)),
                );
            }
        }
        for (volume, node) in &assigned.volumes {
            let place = VolumePlace {
                node: node.clone(),
                stack: name.to_owned(),
            };
            let value = serde_json::to_value(place).ok();
            puts.push((Key::new(VOLUME, volume), value));
        }
        self.put_all(puts, note).await
    }

    /// Says which tasks go where.
    fn tell_moves(&self, name: &str, old: &Assignments, new: &Assignments) {
        let called = |id: &String| self.fleet.by_id(id).map_or_else(|| id.clone(), |n| n.name);
        for (service, assignment) in new {
            for (number, node) in &assignment.tasks {
                let before = old.get(service).and_then(|a| a.tasks.get(number));
                match before {
                    Some(before) if before == node => {}
                    Some(before) => info!(
                        stack = name,
                        task = format!("{service}/{number}"),
                        from = called(before),
                        to = called(node),
                        "moved"
                    ),
                    None => info!(
                        stack = name,
                        task = format!("{service}/{number}"),
                        to = called(node),
                        "placed"
                    ),
                }
            }
        }
    }

    /// Why tasks of a stack wait for a node, if some do; a line for each.
    pub(super) fn waiting(&self, name: &str, stack: &Stack) -> Vec<String> {
        if self.is_alone() {
            return Vec::new();
        }
        let decisions = self.explain(name, stack).into_iter();
        let waits = decisions.filter_map(|d| match d.verdict {
            Verdict::Waits { why, .. } => Some(format!("{}/{} {}", d.service, d.slot, waits(&why))),
            _ => None,
        });
        waits.collect()
    }
}

/// Whether a node is there, and has not said yet what runs on it. What a node that has just joined ran
/// before goes on there.
fn is_silent(view: &View, node: &str) -> bool {
    let mut nodes = view.nodes.iter();
    nodes.any(|(n, report)| {
        let said = report.as_ref().is_some_and(|r| !r.engine.is_empty());
        n.id == node && !n.me && n.may_answer() && !said
    })
}

/// Why a task waits, with its verb.
pub(super) fn waits(why: &str) -> String {
    match why.starts_with("waits ") {
        true => why.to_owned(),
        false => format!("waits: {why}"),
    }
}

/// The time until then.
fn pause_until(at: Millis) -> Duration {
    Duration::from_millis((at - now()).max(10).unsigned_abs())
}

/// So many nodes are asked before tasks are taken from one that is away, and so long is waited for
/// them; and for the one that is away, which may be back this moment.
const ASKED: usize = 9;
const ANSWER: Duration = Duration::from_secs(1);
const KNOCK: Duration = Duration::from_millis(300);
/// The pause if they do not answer.
const AGAIN: Duration = Duration::from_millis(200);

/// A clock that is off by so much makes what its node writes refused, or win for too long; in
/// milliseconds.
const SKEW: i64 = 60_000;

/// Of the nodes that answer those that can decide: that can write, and whose clocks are right. Whose are
/// not is told by the larger number of all; those that answer will have to do, if nobody is left.
fn able(nodes: &[Node], is_unwritable: impl Fn(&Node) -> bool) -> Vec<&Node> {
    let live = |n: &&Node| n.me || n.may_answer();
    let skewed = |n: &&Node| n.skew.is_some_and(|s| s.abs() > SKEW);
    let others = nodes.iter().filter(skewed).count();
    // From a clock that is wrong all others are.
    let mine = 2 * others > nodes.len();
    let right = |n: &&Node| match mine {
        true => !n.me,
        false => !skewed(n),
    };
    let fit = |n: &&Node| live(n) && right(n) && !is_unwritable(n);
    let fit: Vec<&Node> = nodes.iter().filter(fit).collect();
    match fit.is_empty() {
        true => nodes.iter().filter(live).collect(),
        false => fit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, skew: Option<i64>) -> Node {
        Node {
            id: name.to_owned(),
            me: name == "me",
            state: crate::api::NodeState::Up,
            skew,
            ..Node::nobody()
        }
    }

    fn able_of(nodes: &[Node], full: &[&str]) -> Vec<String> {
        let able = able(nodes, |n| full.contains(&n.id.as_str()));
        able.into_iter().map(|n| n.id.clone()).collect()
    }

    #[test]
    fn who_cannot_write_or_has_a_wrong_clock_does_not_decide() {
        let hour = Some(3_600_000);
        let three = [node("me", None), node("a", Some(20)), node("b", hour)];
        assert_eq!(able_of(&three, &[]), ["me", "a"]);
        assert_eq!(able_of(&three, &["a"]), ["me"]);
        // The others agree that it is this one.
        let back = Some(-3_600_000);
        let wrong = [node("me", None), node("a", back), node("b", back)];
        assert_eq!(able_of(&wrong, &[]), ["a", "b"]);
        // Also while one of them is away.
        let mut wrong = wrong;
        wrong[2].state = crate::api::NodeState::Down;
        assert_eq!(able_of(&wrong, &[]), ["a"]);
        // Of two nobody can tell.
        let two = [node("me", None), node("a", hour)];
        assert_eq!(able_of(&two, &[]), ["me"]);
        assert_eq!(able_of(&two, &["me"]), ["me", "a"]);
    }
}
