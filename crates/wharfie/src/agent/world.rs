//! The world as decisions take it: what is wanted of all stacks, where their tasks are, and which
//! nodes there are for them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::warn;
use wharfie_cluster::Replica;
use wharfie_core::assignment::{ASSIGNMENT, Assignments, ROLLOUT, Reported};
use wharfie_core::director::{ADDRESS, Stand};
use wharfie_core::heal::Millis;
use wharfie_core::network::{NETWORK, SLICE, VIP};
use wharfie_core::report::Report;
use wharfie_core::schedule::{self, Cluster, Port, Standing, Tasks};
use wharfie_core::{Container, Stack};

use super::director::{self, DirectorBook};
use super::keeper::{Keeper, now};
use super::networks::{self, NetworkBook};
use crate::api::{Node, NodeState};
use crate::failure::Failure;

/// Kind of the objects that say what is wanted of a node; their names are the nodes' ids.
pub(super) const NODE: &str = "node";
/// Kind of the objects that say on which node a local volume is.
pub(super) const VOLUME: &str = "volume";

/// Kinds that agents decide by themselves, and anew whenever it is needed.
pub(super) const DECIDED: [&str; 6] = [ASSIGNMENT, ROLLOUT, NETWORK, SLICE, VIP, ADDRESS];

/// A node that others take for away may be about to say that it is not: so long is waited for that,
/// before it is asked whether it answers (`Keeper::is_confirmed`).
const SETTLE: Millis = 100;
/// What a node missed while it was away is known to it, and what it has to the others, after so long.
pub(super) const SETTLED: Millis = 2_000;
/// An agent that ended in order is expected back for so long: its host goes on, or is updated.
const LEAVE: Millis = 60_000;
/// After a start the others are expected for so long: all hosts may have been started at once.
const START: Millis = 10_000;
/// An Engine that went away is expected back for so long.
const ENGINE: Millis = 10_000;

/// What is wanted of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeWanted {
    /// Everything is to go elsewhere.
    pub(super) drained: bool,
}

/// Where a local volume is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct VolumePlace {
    /// Id of the node.
    pub(super) node: String,
    /// The stack it was made for.
    pub(super) stack: String,
}

/// What is wanted of one stack, and where its tasks are.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// What is wanted.
    pub(super) stack: Arc<Stack>,
    /// Where its tasks are.
    pub(super) assignments: Arc<Assignments>,
}

/// What the store says of all stacks, nodes and volumes, read already.
#[derive(Debug, Default)]
pub(super) struct Book {
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    stacks: BTreeMap<String, Entry>,
    /// When stacks were last seen to be wanted no longer.
    ended: BTreeMap<String, Millis>,
    drained: BTreeSet<String>,
    volumes: Arc<BTreeMap<String, VolumePlace>>,
    networks: Arc<NetworkBook>,
    director: Arc<DirectorBook>,
    /// Since when an Engine is seen to be away, by the id of its node.
    away: BTreeMap<String, Millis>,
    /// Ids of nodes that were there at some time of this life.
    met: BTreeSet<String>,
    /// When this life began.
    began: Millis,
    /// Ids of nodes that are away, and since when, when it was last made sure that this node is not the
    /// one.
    confirmed: BTreeSet<(String, Millis)>,
    /// This node is on the smaller side of a cut.
    isolated: bool,
    /// Since when it is not any more.
    regained: Millis,
}

impl Book {
    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what is wanted of a stack.
    pub(super) fn set(&self, name: &str, stack: Option<&Stack>, assignments: &Assignments) {
        let entry = stack.map(|stack| Entry {
            stack: Arc::new(stack.clone()),
            assignments: Arc::new(assignments.clone()),
        });
        let mut read = self.read();
        match entry {
            Some(entry) => drop(read.stacks.insert(name.to_owned(), entry)),
            None => {
                if read.stacks.remove(name).is_some() {
                    read.ended.insert(name.to_owned(), now());
                }
            }
        }
    }

    /// A stack.
    pub(super) fn stack(&self, name: &str) -> Option<Entry> {
        self.read().stacks.get(name).cloned()
    }

    /// All stacks.
    pub(super) fn stacks(&self) -> BTreeMap<String, Entry> {
        self.read().stacks.clone()
    }

    /// Where local volumes are.
    pub(super) fn volumes(&self) -> Arc<BTreeMap<String, VolumePlace>> {
        Arc::clone(&self.read().volumes)
    }

    /// Networks that span nodes.
    pub(super) fn networks(&self) -> Arc<NetworkBook> {
        Arc::clone(&self.read().networks)
    }

    /// Addresses of the surrounding network, and the zone.
    pub(super) fn director(&self) -> Arc<DirectorBook> {
        Arc::clone(&self.read().director)
    }

    /// Whether a node is to be empty.
    pub(super) fn is_drained(&self, node: &str) -> bool {
        self.read().drained.contains(node)
    }

    /// Whether it was made sure that just these nodes are away.
    pub(super) fn is_confirmed(&self, away: &BTreeSet<(String, Millis)>) -> bool {
        self.read().confirmed == *away
    }

    /// It is sure that just these nodes are away.
    pub(super) fn confirm(&self, away: BTreeSet<(String, Millis)>) {
        self.read().confirmed = away;
    }

    /// Takes note of which side this node is on.
    fn note_side(&self, side: Side, at: Millis) {
        let mut read = self.read();
        let isolated = side == Side::Smaller;
        if read.isolated && !isolated {
            read.regained = at;
        }
        read.isolated = isolated;
    }

    /// Reads what is wanted of nodes and networks, and where volumes are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn reread(&self, replica: &Replica) -> Result<(), wharfie_cluster::Error> {
        let drained = read_all::<NodeWanted>(replica, NODE)?;
        let drained = drained.into_iter().filter(|(_, wanted)| wanted.drained);
        let drained = drained.map(|(node, _)| node).collect();
        let volumes = Arc::new(read_all(replica, VOLUME)?.into_iter().collect());
        let networks = NetworkBook::read(replica)?;
        let director = DirectorBook::read(replica)?.after(&self.director());
        let mut read = self.read();
        read.drained = drained;
        read.volumes = volumes;
        if *read.networks != networks {
            read.networks = Arc::new(networks);
        }
        if *read.director != director {
            read.director = Arc::new(director);
        }
        Ok(())
    }
}

pub(super) fn read_all<T: serde::de::DeserializeOwned>(
    replica: &Replica,
    kind: &str,
) -> Result<Vec<(String, T)>, wharfie_cluster::Error> {
    let records = replica.list(kind)?.into_iter();
    let read = records.filter_map(|record| {
        let value = serde_json::from_value(record.value?).ok()?;
        Some((record.name, value))
    });
    Ok(read.collect())
}

/// Reads where the tasks of a stack's services are.
///
/// # Errors
/// The store cannot be read.
pub(super) fn assignments(
    replica: &Replica,
    stack: &str,
) -> Result<Assignments, wharfie_cluster::Error> {
    let mut all: Assignments = of_services(replica, ASSIGNMENT, stack)?;
    let mut rollouts = of_services(replica, ROLLOUT, stack)?;
    for (service, assignment) in &mut all {
        assignment.rollout = rollouts.remove(service);
    }
    Ok(all)
}

/// Reads the objects of one kind of a stack's services.
fn of_services<T: serde::de::DeserializeOwned>(
    replica: &Replica,
    kind: &str,
    stack: &str,
) -> Result<BTreeMap<String, T>, wharfie_cluster::Error> {
    let prefix = format!("{stack}/");
    let keys = replica.keys().into_iter();
    let keys = keys.filter(|k| k.kind == kind && k.name.starts_with(&prefix));
    let mut all = BTreeMap::new();
    for key in keys {
        let Some(value) = replica.get(kind, &key.name)?.and_then(|r| r.value) else {
            continue;
        };
        match serde_json::from_value(value) {
            Ok(read) => drop(all.insert(key.name[prefix.len()..].to_owned(), read)),
            Err(e) => warn!("the {kind} of {} cannot be read: {e}", key.name),
        }
    }
    Ok(all)
}

/// The stack of an assignment's name.
pub(super) fn stack_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(stack, _)| stack)
}

/// Which part of a cluster this node is among, should it be cut in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// More than half: where tasks are assigned there counts.
    Larger,
    /// Exactly half.
    Half,
    /// Less than half: what is assigned there for the time being is not written, and no longer counts
    /// when the others are back.
    Smaller,
}

/// All nodes as they are now, with what each said last.
pub(super) struct View {
    /// The nodes, this one too.
    pub(super) nodes: Vec<(Node, Option<Arc<Report>>)>,
    /// The same as placement takes them.
    pub(super) places: Vec<schedule::Node>,
    /// Ids of nodes by the names of local volumes.
    pub(super) volumes: BTreeMap<String, String>,
    /// When stacks were last seen to be wanted no longer.
    ended: BTreeMap<String, Millis>,
    /// Which part of the members answers.
    side: Side,
    /// When this should be looked at again: somebody is expected back until then.
    pub(super) wake: Option<Millis>,
    /// Another node is back since a moment: what it said last may be from before it was away, and what it
    /// knows may not be known here.
    pub(super) unsettled: bool,
}

impl View {
    /// Which part of all members answers, this node counted. With exactly half of them, the one that
    /// breaks the tie counts, if there is one.
    pub(super) fn side(&self) -> Side {
        self.side
    }

    pub(super) fn side_of(nodes: &[Node], is_live: impl Fn(&Node) -> bool) -> Side {
        let live = nodes.iter().filter(|n| is_live(n)).count();
        let all = nodes.len();
        let breaks = |n: &&Node| n.labels.get(TIE_BREAKER).is_some_and(|v| v != "false");
        let breaker = nodes.iter().filter(breaks);
        let breaker = breaker.min_by(|a, b| a.id.cmp(&b.id));
        let with_us = breaker.map(is_live);
        match (2 * live).cmp(&all) {
            Ordering::Greater => Side::Larger,
            Ordering::Less => Side::Smaller,
            Ordering::Equal => match with_us {
                Some(true) => Side::Larger,
                Some(false) => Side::Smaller,
                None => Side::Half,
            },
        }
    }

    /// The cluster with the tasks of all stacks on it.
    pub(super) fn cluster(&self, stacks: &BTreeMap<String, Entry>) -> Cluster<'_> {
        let mut cluster = Cluster::new(&self.places, &self.volumes);
        for entry in stacks.values() {
            cluster.add(&entry.stack, &tasks(&entry.assignments));
        }
        cluster
    }

    /// Where containers of a stack's tasks run, as is reported. What was said before the stack was last
    /// taken down is about containers that are about to go, or gone.
    pub(super) fn running(&self, stack: &str) -> Tasks {
        let ended = self.ended.get(stack).copied().unwrap_or(Millis::MIN);
        let mut running = Tasks::new();
        for (node, report) in &self.nodes {
            let report = report.as_ref().filter(|r| {
                let ahead = node.skew.unwrap_or(0);
                node.me || r.time.saturating_sub(ahead) > ended
            });
            let containers = report.iter().flat_map(|r| &r.containers);
            let own = |c: &&wharfie_core::report::ReportedContainer| {
                c.project == stack && !c.oneoff && c.number > 0 && c.is_running()
            };
            for c in containers.filter(own) {
                let of = running.entry(c.service.clone()).or_default();
                of.entry(c.number).or_insert_with(|| node.id.clone());
            }
        }
        running
    }

    /// Containers of a stack by the nodes that report them: this node's, and the others'.
    pub(super) fn containers(&self, stack: &str) -> (Vec<Container>, Vec<There>) {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for (node, report) in &self.nodes {
            let containers = report.iter().flat_map(|r| &r.containers);
            let of = containers.filter(|c| c.project == stack);
            if node.me {
                own.extend(of.map(Container::from));
                continue;
            }
            let engine = report.as_ref().is_some_and(|r| r.engine_away.is_none());
            let live = node.may_answer() && engine;
            others.extend(of.map(|c| There {
                node: node.id.clone(),
                live,
                container: Container {
                    node: node.name.clone(),
                    ..Container::from(c)
                },
            }));
        }
        (own, others)
    }
}

/// A container of another node.
#[derive(Debug, Clone)]
pub(super) struct There {
    /// Id of the node.
    pub(super) node: String,
    /// Whether the node answers.
    pub(super) live: bool,
    /// The container.
    pub(super) container: Container,
}

impl There {
    /// As decisions take it.
    pub(super) fn reported(&self) -> Reported<'_> {
        Reported {
            node: &self.node,
            live: self.live,
            container: &self.container,
        }
    }
}

/// Label of the node that decides which half goes on, if a cluster is cut into two equal ones.
pub(super) const TIE_BREAKER: &str = "wharfie.tie-breaker";

/// The tasks of assignments.
pub(super) fn tasks(assignments: &Assignments) -> Tasks {
    let each = assignments.iter();
    each.map(|(service, a)| (service.clone(), a.tasks.clone()))
        .collect()
}

impl Keeper {
    /// The nodes as they are now.
    pub(super) fn view(&self) -> View {
        let at = now();
        let stacks = self.book.stacks();
        let mut wake: Option<Millis> = None;
        let mut nodes = Vec::new();
        let mut places = Vec::new();
        let members = self.fleet.remaining();
        let side = View::side_of(&members, |n| n.me || n.may_answer());
        // Who is cut off loses the others one by one, and must not decide about the first of them with
        // those that it is about to lose.
        let surely = View::side_of(&members, |n| n.me || n.state == NodeState::Up);
        let sure = surely == side;
        self.book.note_side(side, at);
        let back = members.iter().filter(|n| is_back(n, at));
        let settled = back.map(|n| n.since + SETTLED).max();
        wake = wake.into_iter().chain(settled).min();
        for node in members {
            let report = self.fleet.report_of(&node);
            let (standing, until) = match self.standing(&node, report.as_deref(), at) {
                // Whoever is suspected may just be forgotten.
                (Standing::Gone(why), _) if !sure => (Standing::Unsure(why), Some(at + SETTLE)),
                known => known,
            };
            wake = wake.into_iter().chain(until).min();
            places.push(place(&node, report.as_deref(), standing, &stacks));
            nodes.push((node, report));
        }
        let volumes = self.book.volumes();
        let volumes = volumes.iter().map(|(k, v)| (k.clone(), v.node.clone()));
        View {
            nodes,
            places,
            volumes: volumes.collect(),
            ended: self.book.read().ended.clone(),
            side,
            wake,
            unsettled: settled.is_some(),
        }
    }

    /// Ids of the other nodes that are back since a moment: what they said last may be from before.
    pub(super) fn back(&self) -> BTreeSet<String> {
        let (members, at) = (self.fleet.members().into_iter(), now());
        members.filter(|n| is_back(n, at)).map(|n| n.id).collect()
    }

    /// How sure this node can be that what it believes to hold is not another's.
    pub(super) fn stand(&self) -> Stand {
        let at = now();
        let members = self.fleet.remaining();
        if members.len() < 2 {
            return Stand::Sure;
        }
        let side = View::side_of(&members, |n| n.me || n.may_answer());
        self.book.note_side(side, at);
        let (began, regained) = {
            let mut read = self.book.read();
            if read.began == 0 {
                read.began = at;
            }
            (read.began, read.regained)
        };
        match side {
            Side::Larger if is_lately(began.max(regained), at) => Stand::Back,
            Side::Larger => Stand::Sure,
            Side::Half => Stand::Half,
            Side::Smaller => Stand::Few,
        }
    }

    /// Whether a node takes tasks, and until when it is expected back.
    fn standing(
        &self,
        node: &Node,
        report: Option<&Report>,
        at: Millis,
    ) -> (Standing, Option<Millis>) {
        let engine = report.map(|r| r.engine_away.is_some());
        let since = {
            let mut read = self.book.read();
            match engine {
                Some(true) => Some(*read.away.entry(node.id.clone()).or_insert(at)),
                _ => {
                    read.away.remove(&node.id);
                    None
                }
            }
        };
        let expected = |until: Millis, why: String| match at < until {
            true => (Standing::Unsure(why), Some(until)),
            false => (Standing::Gone(why), None),
        };
        let (met, began) = {
            let mut read = self.book.read();
            if node.state != NodeState::Down && !read.met.contains(&node.id) {
                read.met.insert(node.id.clone());
            }
            if read.began == 0 {
                read.began = at;
            }
            (read.met.contains(&node.id), read.began)
        };
        if !node.me && node.state == NodeState::Down {
            let why = node.away();
            let why = why.strip_prefix(&format!("node {} ", node.name));
            let why = why.unwrap_or("is away").to_owned();
            return match report.is_some_and(|r| r.leaving) {
                true => expected(node.since + LEAVE, why),
                false => {
                    // What was believed in isolation is no evidence: it takes as long once more.
                    let timeout = self.settings.borrow().cluster.failure_timeout;
                    let timeout = Millis::try_from(timeout.as_millis()).unwrap_or(0);
                    let regained = self.book.read().regained;
                    let since = node.since.max(regained + timeout);
                    let start = if met { 0 } else { began + START };
                    expected((since + SETTLE).max(start), why)
                }
            };
        }
        if self.book.is_drained(&node.id) {
            return (Standing::Drained, None);
        }
        match (report, since) {
            (_, Some(since)) => expected(since + ENGINE, "has no Engine that answers".to_owned()),
            (None, None) => (
                Standing::Unsure("has not said what it has".to_owned()),
                None,
            ),
            (Some(r), None) if r.engine.is_empty() => (
                Standing::Unsure("has not said what it has".to_owned()),
                None,
            ),
            // What is assigned to it it would not take in.
            (Some(r), None) if r.unwritable => (
                Standing::Unsure("cannot write its state: its disk is full, or fails".to_owned()),
                None,
            ),
            (Some(_), None) => (Standing::Ready, None),
        }
    }

    /// Reads again what is wanted of nodes and where volumes are.
    pub(super) fn reread(&self) -> Result<(), Failure> {
        self.book.reread(&self.replica)?;
        self.fleet.hide(self.book.director().given());
        self.wake_planes();
        Ok(())
    }
}

/// Whether something was so short a time ago that not all have heard of each other yet. A clock that was set
/// back makes nothing last longer.
fn is_lately(since: Millis, at: Millis) -> bool {
    (0..SETTLED).contains(&at.saturating_sub(since))
}

/// Whether another node is back since a moment.
fn is_back(node: &Node, at: Millis) -> bool {
    !node.me && node.may_answer() && is_lately(node.since, at)
}

/// A node as placement takes it.
fn place(
    node: &Node,
    report: Option<&Report>,
    standing: Standing,
    stacks: &BTreeMap<String, Entry>,
) -> schedule::Node {
    let none = Report::default();
    let report = report.unwrap_or(&none);
    let is_task = |c: &&wharfie_core::report::ReportedContainer| {
        !c.oneoff && c.number > 0 && stacks.contains_key(&c.project)
    };
    let others = report.containers.iter().filter(|c| !is_task(c));
    let ports = others.filter(|c| c.is_running()).flat_map(|c| &c.ports);
    schedule::Node {
        id: node.id.clone(),
        name: node.name.clone(),
        labels: node.labels.clone(),
        engine_labels: report.engine_labels.clone(),
        os: report.os.clone(),
        arch: report.arch.clone(),
        cpus: u64::from(report.cpus) * 1_000,
        memory: report.memory,
        generic: report.generic.clone(),
        standing,
        images: report.images.iter().flat_map(|i| i.tags.clone()).collect(),
        ports: ports
            .filter_map(|p| Some(Port::new(&p.ip, p.public?, &p.protocol)))
            .collect(),
    }
}

/// Whether a record says something of nodes or volumes.
pub(super) fn is_of_the_book(kind: &str) -> bool {
    kind == NODE
        || kind == VOLUME
        || networks::is_of_networks(kind)
        || director::is_of_director(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: NodeState) -> Node {
        Node {
            id: name.to_owned(),
            name: name.to_owned(),
            me: name == "me",
            state,
            ..Node::nobody()
        }
    }

    fn side(nodes: &[Node]) -> Side {
        View::side_of(nodes, |n| n.me || n.may_answer())
    }

    #[test]
    fn the_side_is_that_of_most_members() {
        use NodeState::{Down, Suspect, Up};
        let of = |states: &[NodeState]| {
            let others = states.iter().enumerate();
            let mut nodes = vec![node("me", Up)];
            nodes.extend(others.map(|(i, state)| node(&format!("n{i}"), *state)));
            side(&nodes)
        };
        assert_eq!(of(&[]), Side::Larger);
        assert_eq!(of(&[Down]), Side::Half);
        assert_eq!(of(&[Up, Down]), Side::Larger);
        assert_eq!(of(&[Suspect, Down]), Side::Larger);
        assert_eq!(of(&[Down, Down]), Side::Smaller);
        assert_eq!(of(&[Up, Down, Down]), Side::Half);
    }

    #[test]
    fn one_node_breaks_the_tie() {
        let breaker = |name: &str, state| {
            let mut node = node(name, state);
            node.labels
                .insert(TIE_BREAKER.to_owned(), "true".to_owned());
            node
        };
        let me = || node("me", NodeState::Up);
        let down = NodeState::Down;
        assert_eq!(side(&[me(), node("other", down)]), Side::Half);
        assert_eq!(side(&[me(), breaker("other", down)]), Side::Smaller);
        assert_eq!(
            side(&[breaker("me", NodeState::Up), node("other", down)]),
            Side::Larger
        );
        // It does not make a larger side of a smaller one.
        let two = [
            breaker("me", NodeState::Up),
            node("a", down),
            node("b", down),
        ];
        assert_eq!(side(&two), Side::Smaller);
        let mut off = breaker("me", NodeState::Up);
        off.labels
            .insert(TIE_BREAKER.to_owned(), "false".to_owned());
        assert_eq!(side(&[off, node("other", down)]), Side::Half);
    }
}
