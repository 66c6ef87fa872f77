//! Whether tasks fit on nodes, while a stack is placed.

use super::hash::Map;
use super::item::Item;
use super::needs::Taken;
use super::{Cluster, Port, Standing};

/// Room on all nodes: what other stacks left, less what this one took so far.
#[derive(Debug)]
pub(super) struct Room<'p> {
    pub(super) cluster: &'p Cluster<'p>,
    stack: &'p str,
    /// What other stacks take.
    others: Taken,
    /// What is taken in all.
    pub(super) taken: Taken,
    /// Ports that this stack took, by node and number.
    held: Map<(u32, u16), Vec<Port>>,
    /// Services of the stack on each node that say nothing of where they run.
    pub(super) companions: Vec<u32>,
}

/// Why a task cannot be on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Standing(String),
    Rule(String),
    Most(u32),
    Port(Port),
    /// A resource, how many are free, and how many are needed.
    Generic(String, i64, i64),
    /// Thousandths free.
    Cpus(u64),
    /// Bytes free.
    Memory(u64),
}

impl<'p> Room<'p> {
    pub(super) fn new(cluster: &'p Cluster<'p>, stack: &'p str) -> Self {
        let others = cluster.taken_but(stack);
        Self {
            cluster,
            stack,
            taken: others.clone(),
            others,
            held: Map::default(),
            companions: vec![0; cluster.nodes.len()],
        }
    }

    pub(super) fn take(&mut self, node: u32, item: &Item<'_>, times: u32) {
        if times == 0 {
            return;
        }
        self.taken
            .add(node, &item.needs, times, &self.cluster.declared);
        for port in &item.needs.ports {
            let held = self.held.entry((node, port.number())).or_default();
            held.push(port.clone());
        }
    }

    pub(super) fn give_back(&mut self, node: u32, item: &Item<'_>, times: u32) {
        if times == 0 {
            return;
        }
        self.taken
            .sub(node, &item.needs, times, &self.cluster.declared);
        for port in &item.needs.ports {
            if let Some(held) = self.held.get_mut(&(node, port.number())) {
                let at = held.iter().rposition(|p| p == port);
                at.map(|at| held.remove(at));
            }
        }
    }

    /// Why not one more task of a service with `own` tasks there fits on a node, whatever its
    /// standing and the rules say; the first reason there is.
    fn is_full(&self, node: u32, item: &Item<'_>, own: u32) -> Option<Refusal> {
        let needs = &item.needs;
        if own >= item.most {
            return Some(Refusal::Most(own));
        }
        let taken = |p: &&Port| {
            let held = self.held.get(&(node, p.number()));
            held.is_some_and(|h| h.iter().any(|h| h.clashes(p)))
                || self.cluster.is_held(node, p, self.stack)
        };
        if let Some(port) = needs.ports.iter().find(taken) {
            return Some(Refusal::Port(port.clone()));
        }
        if let Some((kind, amount)) = &needs.unknown {
            return Some(Refusal::Generic(kind.clone(), 0, *amount));
        }
        let declared = &self.cluster.declared;
        for (kind, amount) in &needs.generic {
            if self.taken.times(node, *kind, *amount, declared) < 1 {
                let name = self.cluster.kinds[*kind as usize].to_owned();
                let free = self.taken.free(node, *kind, declared);
                return Some(Refusal::Generic(name, free, *amount));
            }
        }
        let (cpus, memory) = self.free(node);
        if needs.cpus > cpus {
            return Some(Refusal::Cpus(cpus));
        }
        (needs.memory > memory).then_some(Refusal::Memory(memory))
    }

    /// Processors and memory that are free; of what is unknown there is enough.
    fn free(&self, node: u32) -> (u64, u64) {
        let (n, has) = (node as usize, self.cluster.node(node));
        let left = |has: u64, taken: u64| match has {
            0 => u64::MAX,
            _ => has.saturating_sub(taken),
        };
        (
            left(has.cpus, self.taken.cpus[n]),
            left(has.memory, self.taken.memory[n]),
        )
    }

    /// Whether one more task fits, whatever the standing of the node and the rules say.
    pub(super) fn has(&self, node: u32, item: &Item<'_>, own: u32) -> bool {
        let needs = &item.needs;
        let simple = needs.ports.is_empty() && needs.generic.is_empty() && needs.unknown.is_none();
        if simple && own < item.most {
            let (cpus, memory) = self.free(node);
            return needs.cpus <= cpus && needs.memory <= memory;
        }
        self.is_full(node, item, own).is_none()
    }

    /// How many more tasks fit, up to a number.
    pub(super) fn how_many(&self, node: u32, item: &Item<'_>, own: u32, wanted: u32) -> u32 {
        if wanted == 0 || !self.has(node, item, own) {
            return 0;
        }
        let needs = &item.needs;
        let mut most = u64::from(wanted.min(item.most - own));
        if !needs.ports.is_empty() {
            most = most.min(1);
        }
        for (kind, amount) in &needs.generic {
            let declared = &self.cluster.declared;
            let times = self.taken.times(node, *kind, *amount, declared);
            most = most.min(u64::try_from(times).unwrap_or(0));
        }
        let (cpus, memory) = self.free(node);
        most = most.min(cpus.checked_div(needs.cpus).unwrap_or(most));
        most = most.min(memory.checked_div(needs.memory).unwrap_or(most));
        u32::try_from(most).unwrap_or(wanted)
    }

    /// Why a node cannot take one more new task; none if it can.
    pub(super) fn refusal(&self, node: u32, item: &Item<'_>, own: u32) -> Option<Refusal> {
        let standing = self.cluster.node(node).standing.why_not();
        let standing = standing.map(|why| Refusal::Standing(why.to_owned()));
        let rule = || self.broken(node, item).map(|r| Refusal::Rule(r.to_owned()));
        standing
            .or_else(rule)
            .or_else(|| self.is_full(node, item, own))
    }

    /// The first rule of a service that a node does not meet.
    pub(super) fn broken<'i>(&self, node: u32, item: &'i Item<'_>) -> Option<&'i str> {
        let has = self.cluster.node(node);
        let broken = item.rules.iter().find(|r| !r.holds(has));
        broken.map(|r| r.text.as_str())
    }

    /// Whether a new task of a service with `own` tasks there may go to a node.
    pub(super) fn may_come(&self, node: u32, item: &Item<'_>, own: u32) -> bool {
        self.cluster.is_ready(node)
            && self.has(node, item, own)
            && self.broken(node, item).is_none()
    }

    /// Whether a task that is on a node may stay there. `share` gives what all tasks of this
    /// stack that are there need.
    pub(super) fn may_stay(
        &self,
        node: u32,
        item: &Item<'_>,
        own: u32,
        share: impl Fn() -> (u64, u64),
    ) -> bool {
        let (has, needs) = (self.cluster.node(node), &item.needs);
        if matches!(has.standing, Standing::Drained | Standing::Gone(_))
            || own >= item.most
            || !item.rules.is_empty() && self.broken(node, item).is_some()
        {
            return false;
        }
        // A port that something else has now is no reason to leave: it may be let go of again.
        let lost = |p: &Port| {
            let held = self.held.get(&(node, p.number()));
            held.is_some_and(|h| h.iter().any(|h| h.clashes(p)))
                || self.cluster.is_held_before(node, p, self.stack)
        };
        if needs.ports.iter().any(lost) {
            return false;
        }
        if !needs.reserves() {
            return true;
        }
        let declared = &self.cluster.declared;
        let lacks =
            |(kind, amount): &(u32, i64)| self.taken.times(node, *kind, *amount, declared) < 1;
        if needs.generic.iter().any(lacks) {
            return false;
        }
        let (cpus, memory) = self.free(node);
        if needs.cpus <= cpus && needs.memory <= memory {
            return true;
        }
        // Together the stacks take too much. Do those before us and we?
        let n = node as usize;
        let others = self.cluster.smaller_shares(node, self.stack, share());
        let fits = |has: u64, others: u64, all: u64, others_all: u64, more: u64| {
            has == 0 || others.saturating_add(all - others_all).saturating_add(more) <= has
        };
        let (taken, rest) = (&self.taken, &self.others);
        fits(has.cpus, others.0, taken.cpus[n], rest.cpus[n], needs.cpus)
            && fits(
                has.memory,
                others.1,
                taken.memory[n],
                rest.memory[n],
                needs.memory,
            )
    }
}
