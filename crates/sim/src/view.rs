//! The world as a node sees it (the agent's `world.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use wharfie_cluster::swim::Liveness;
use wharfie_core::Container;
use wharfie_core::assignment::{Assignments, Reported};
use wharfie_core::heal::Millis;
use wharfie_core::report::Report;
use wharfie_core::schedule::{self, Cluster, Standing, Tasks};

use crate::mutation::Mutation;
use crate::node::{Agent, Said};
use crate::sim::Sim;

/// A node that others take for away may be about to say that it is not.
const SETTLE: Millis = 400;
/// An agent that ended in order is expected back for so long.
const LEAVE: Millis = 60_000;
/// An Engine that went away is expected back for so long.
const ENGINE: Millis = 10_000;
/// There was no time yet to hear of a member: it, or this agent, came just now.
const NEW: Millis = 3_000;

/// A node as another sees it.
pub(crate) struct Seen {
    pub(crate) index: usize,
    pub(crate) me: bool,
    pub(crate) state: Liveness,
    since: Millis,
    pub(crate) report: Option<Arc<Said>>,
}

impl Seen {
    /// Whether it is worth trying to reach it.
    pub(crate) fn may_answer(&self) -> bool {
        self.me || self.state != Liveness::Down
    }
}

/// All nodes as one of them sees them.
pub(crate) struct View {
    pub(crate) nodes: Vec<Seen>,
    /// The same as placement takes them.
    pub(crate) places: Vec<schedule::Node>,
    pub(crate) volumes: BTreeMap<String, String>,
    /// When this should be looked at again.
    pub(crate) wake: Option<Millis>,
}

impl Sim {
    /// The nodes as one of them sees them now.
    pub(crate) fn view(&mut self, me: usize) -> View {
        let at = self.nodes[me].millis(self.now);
        let mutation = self.setup.mutation;
        let mut taken = self.nodes[me].agent.take();
        let view = self.view_of(me, at, mutation, taken.as_mut());
        self.nodes[me].agent = taken;
        view
    }

    fn view_of(
        &self,
        me: usize,
        at: Millis,
        mutation: Option<Mutation>,
        agent: Option<&mut Agent>,
    ) -> View {
        let Some(agent) = agent else {
            return View {
                nodes: Vec::new(),
                places: Vec::new(),
                volumes: BTreeMap::new(),
                wake: None,
            };
        };
        let mut view = View {
            nodes: Vec::new(),
            places: Vec::new(),
            volumes: agent.volumes.clone(),
            wake: None,
        };
        let members = agent.members.clone();
        for index in members {
            let known = agent.presence.get(&index);
            let state = match known {
                _ if index == me => Liveness::Up,
                // Others say so who do not reach it, or did not a moment ago; this one does.
                Some((Liveness::Down, _)) if agent.links.contains_key(&index) => Liveness::Suspect,
                Some((state, _)) => *state,
                None if at - agent.began < NEW => Liveness::Suspect,
                None => Liveness::Down,
            };
            let report = match index == me {
                true => Some(Arc::clone(&agent.report)),
                false => agent.reports.get(&index).map(|(_, r)| Arc::clone(r)),
            };
            let seen = Seen {
                index,
                me: index == me,
                state,
                since: known.map_or(agent.began, |(_, since)| *since),
                report,
            };
            let id = &self.nodes[index].name;
            let (standing, until) = standing(agent, &seen, id, at, mutation);
            view.wake = view.wake.into_iter().chain(until).min();
            view.places.push(place(
                id,
                seen.report.as_ref().map(|said| &***said),
                standing,
            ));
            view.nodes.push(seen);
        }
        view
    }
}

fn standing(
    agent: &mut Agent,
    node: &Seen,
    id: &str,
    at: Millis,
    mutation: Option<Mutation>,
) -> (Standing, Option<Millis>) {
    let report: Option<&Report> = node.report.as_ref().map(|said| &***said);
    let since = match report.map(|r| r.engine_away.is_some()) {
        Some(true) => Some(*agent.away.entry(node.index).or_insert(at)),
        _ => agent.away.remove(&node.index).and(None),
    };
    let grace = |millis| match mutation {
        Some(Mutation::NoGrace) => 0,
        _ => millis,
    };
    let expected = |until: Millis, why: &str| match at < until {
        true => (Standing::Unsure(why.to_owned()), Some(until)),
        false => (Standing::Gone(why.to_owned()), None),
    };
    if !node.me && node.state == Liveness::Down {
        let leaving = report.is_some_and(|r| r.leaving);
        let wait = grace(if leaving { LEAVE } else { SETTLE });
        return expected(node.since + wait, "is away");
    }
    if agent.drained.contains(id) {
        return (Standing::Drained, None);
    }
    let silent = || Standing::Unsure("has not said what it has".to_owned());
    match (report, since) {
        (_, Some(since)) => expected(since + grace(ENGINE), "has no Engine that answers"),
        (None, None) => (silent(), None),
        (Some(r), None) if r.engine.is_empty() => (silent(), None),
        (Some(_), None) => (Standing::Ready, None),
    }
}

fn place(id: &str, report: Option<&Report>, standing: Standing) -> schedule::Node {
    schedule::Node {
        id: id.to_owned(),
        name: id.to_owned(),
        cpus: report.map_or(0, |r| u64::from(r.cpus) * 1_000),
        standing,
        ..schedule::Node::default()
    }
}

impl View {
    /// Whether more than half of all members answer, this node counted. Nobody breaks ties.
    pub(crate) fn has_majority(&self) -> bool {
        let live = self.nodes.iter().filter(|n| n.may_answer()).count();
        2 * live > self.nodes.len()
    }

    /// The cluster with the tasks of all stacks on it.
    pub(crate) fn cluster(&self, agent: &Agent) -> Cluster<'_> {
        let mut cluster = Cluster::new(&self.places, &self.volumes);
        for slot in agent.slots.values() {
            if let Some(stack) = &slot.stack {
                cluster.add(stack, &tasks(&slot.assignments));
            }
        }
        cluster
    }

    /// Where containers of a stack's tasks run, as is reported.
    pub(crate) fn running(&self, stack: &str) -> Tasks {
        let mut running = Tasks::new();
        for (node, place) in self.nodes.iter().zip(&self.places) {
            let containers = node.report.iter().filter_map(|r| r.containers.get(stack));
            for c in containers.flatten().filter(|c| c.is_running()) {
                let of = running.entry(c.service.clone()).or_default();
                of.entry(c.number).or_insert_with(|| place.id.clone());
            }
        }
        running
    }

    /// Containers of a stack: this node's, and the others'.
    pub(crate) fn containers(&self, stack: &str) -> (&[Container], Vec<Reported<'_>>) {
        let (mut own, mut others): (&[Container], _) = (&[], Vec::new());
        for (node, place) in self.nodes.iter().zip(&self.places) {
            let Some(said) = node.report.as_ref() else {
                continue;
            };
            let Some(of) = said.containers.get(stack) else {
                continue;
            };
            if node.me {
                own = of;
                continue;
            }
            let live = node.may_answer() && said.engine_away.is_none();
            others.extend(of.iter().map(|container| Reported {
                node: &place.id,
                live,
                container,
            }));
        }
        (own, others)
    }
}

/// The tasks of assignments.
pub(crate) fn tasks(assignments: &Assignments) -> Tasks {
    let each = assignments.iter();
    each.map(|(service, a)| (service.clone(), a.tasks.clone()))
        .collect()
}
