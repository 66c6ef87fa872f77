//! What must be so once nothing goes wrong any more.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_core::rollout::Phase;
use wharfie_core::schedule;
use wharfie_core::{Container, Stack, shared};

use crate::faults::Fault;
use crate::look::STACK;
use crate::sim::Sim;
use crate::stacks::{self, Fate};
use crate::time::{MS, Micros, SEC};
use crate::view::tasks;

/// Everything is as it should be within this time after the last fault.
const PATIENCE: Micros = 420 * SEC;
/// An hour, in milliseconds.
const HOUR: i64 = 3_600_000;

impl Sim {
    /// All faults end; then everything must come to rest, and stay so.
    pub(crate) fn come_to_rest(&mut self) {
        self.tell(|| "all faults end".to_owned());
        self.over = true;
        self.fault(Fault::Network);
        let ahead = self.nodes.iter().any(|n| n.wall.skew.abs() > HOUR / 2);
        for n in 0..self.nodes.len() {
            self.fault_quietly(n);
            if ahead {
                // Nobody does anything for an hour.
                self.nodes[n].wall.skew += HOUR;
            }
        }
        let began = self.now;
        loop {
            if !self.run_until(self.now + 2 * SEC) {
                return;
            }
            let unrest = self.unrest();
            let Some(why) = unrest else {
                break;
            };
            if self.now - began > PATIENCE {
                return self.violate(format!("there is no rest: {why}"));
            }
        }
        self.stats.settled = (self.now - began) / SEC;
        let moves = self.stats.moves;
        if !self.run_until(self.now + 10 * SEC) {
            return;
        }
        if let Some(why) = self.unrest() {
            return self.violate(format!("there was rest, and then: {why}"));
        }
        if self.stats.moves != moves {
            return self.violate("there was rest, and then tasks moved".to_owned());
        }
        if let Some(why) = self.unevenness() {
            self.violate(why);
        }
    }

    fn fault_quietly(&mut self, n: usize) {
        let host = &mut self.nodes[n];
        host.wall.skew = host.wall.skew.clamp(-HOUR / 2, HOUR / 2);
        host.disk.full = false;
        host.disk.slowness = 3 * MS;
        host.disturbed = self.now;
        if host.lost || host.removed {
            return;
        }
        host.up = true;
        self.set_engine(n, true);
        self.start_agent(n);
    }

    /// Members that can be reached.
    fn live(&self) -> Vec<usize> {
        let all = self.nodes.iter().enumerate();
        let live = all.filter(|(_, n)| n.is_whole());
        live.map(|(i, _)| i).collect()
    }

    /// What is not as it should be yet.
    fn unrest(&mut self) -> Option<String> {
        let live = self.live();
        let first = *live.first()?;
        let summary = |n: usize| {
            let host = &self.nodes[n];
            host.disk.memory.summary(host.stamp(self.now))
        };
        let one = summary(first);
        if let Some(other) = live.iter().find(|n| summary(**n) != one) {
            return Some(format!("n{first} and n{other} want different things"));
        }
        let names: BTreeSet<String> = (self.nodes[first].disk.memory.list(STACK).into_iter())
            .map(|r| r.name)
            .collect();
        let mut expected: BTreeMap<(String, String, u32), usize> = BTreeMap::new();
        for name in &names {
            if let Some(why) = self.unrest_of(name, &live, &mut expected) {
                return Some(why);
            }
        }
        for n in &live {
            for c in self.nodes[*n].engine.containers.iter() {
                let key = (c.project().to_owned(), c.service.clone(), c.number);
                if expected.get(&key) != Some(n) && !self.waits_for_another(c, *n) {
                    return Some(format!("{} is on n{n}, and should not be", c.name));
                }
            }
            let agent = self.nodes[*n].agent.as_ref()?;
            if agent.slots.values().any(|s| s.unfinished.is_some()) {
                return Some(format!("n{n} has something unfinished"));
            }
        }
        None
    }

    /// Whether a container stays until its task serves elsewhere, which it never will.
    fn waits_for_another(&self, c: &Container, node: usize) -> bool {
        let agent = self.nodes[node].agent.as_ref();
        let stack = agent.and_then(|a| a.slots.get(c.project())?.stack.as_ref());
        let service = stack.and_then(|s| s.project.any_service(&c.service));
        service.is_some_and(|s| stacks::starts_first(s) && Fate::of(&s.image) != Fate::Serves)
    }

    fn unrest_of(
        &mut self,
        name: &str,
        live: &[usize],
        expected: &mut BTreeMap<(String, String, u32), usize>,
    ) -> Option<String> {
        let ids = live.iter().map(|n| self.nodes[*n].name.as_str());
        let who = schedule::coordinator(name, ids).and_then(|id| self.index.get(id).copied())?;
        let view = self.view(who);
        let agent = self.nodes[who].agent.as_ref()?;
        let slot = agent.slots.get(name)?;
        let stack = slot.stack.as_ref()?;
        let (mut current, running) = (tasks(&slot.assignments), view.running(name));
        current.retain(|_, tasks| !tasks.is_empty());
        let placement = schedule::place(stack, &current, &running, &view.cluster(agent));
        if placement.tasks != current || !placement.volumes.is_empty() {
            return Some(format!("tasks of {name} are to go elsewhere by n{who}"));
        }
        for service in &stack.active {
            let Some(assignment) = slot.assignments.get(service) else {
                return Some(format!("{name} {service} is assigned to nobody"));
            };
            let rollout = assignment.rollout.as_ref();
            let halted = |p: &Phase| matches!(p, Phase::Paused(_));
            let going = rollout.filter(|r| !r.is_over() && !halted(&r.phase));
            if let Some(going) = going {
                return Some(format!("{name} {service} is rolled out: {:?}", going.phase));
            }
            let tied = self.is_tied_away(stack, service, live, &agent.volumes);
            let global = is_global(stack, service);
            let count = stack.count(service);
            for number in 1..=count {
                if !global && !tied && !assignment.tasks.contains_key(&number) {
                    return Some(format!("{name} {service}/{number} is on no node"));
                }
            }
            for (number, id) in &assignment.tasks {
                let n = *self.index.get(id)?;
                if !live.contains(&n) {
                    continue;
                }
                expected.insert((name.to_owned(), service.clone(), *number), n);
                let held = rollout.and_then(|r| r.held(*number));
                let of = held.map_or(stack, |v| &v.stack);
                if let Some(why) = self.unrest_of_task(n, of, service, *number) {
                    return Some(why);
                }
            }
        }
        None
    }

    fn unrest_of_task(&self, n: usize, of: &Stack, service: &str, number: u32) -> Option<String> {
        let definition = of.project.any_service(service)?;
        let name = &of.project.name;
        let task = format!("{name} {service}/{number}");
        let containers = self.nodes[n].engine.containers.iter();
        let own = containers
            .filter(|c| c.project() == name && c.service == service && c.number == number);
        let own: Vec<_> = own.collect();
        if own.len() > 1 {
            return Some(format!("{task} is there {} times", own.len()));
        }
        if Fate::of(&definition.image) != Fate::Serves {
            return None;
        }
        let revision = shared::revision(&of.project, definition);
        let right = |c: &&&wharfie_core::Container| {
            crate::engine::serves(c)
                && c.labels.get(wharfie_core::labels::REVISION) == Some(&revision)
        };
        match own.iter().any(|c| right(&c)) {
            true => None,
            false => Some(format!("{task} does not run on n{n}")),
        }
    }

    /// Whether a service's data is on a node that cannot be reached.
    fn is_tied_away(
        &self,
        stack: &Stack,
        service: &str,
        live: &[usize],
        volumes: &BTreeMap<String, String>,
    ) -> bool {
        let project = &stack.project;
        let Some(definition) = project.any_service(service) else {
            return false;
        };
        let mut own = stacks::volumes(project, definition).into_iter();
        own.any(|v| {
            let on = volumes.get(v).and_then(|id| self.index.get(id));
            on.is_some_and(|n| !live.contains(n))
        })
    }

    /// A service that was placed while nothing was in the way, and unevenly.
    fn unevenness(&self) -> Option<String> {
        let live = self.live();
        let agent = self.nodes[*live.first()?].agent.as_ref()?;
        if !agent.drained.is_empty() {
            return None;
        }
        for (name, service, at) in &self.checks.fresh {
            if self.checks.asked_at(name) > *at || self.stats.moves > 0 {
                continue;
            }
            let slot = agent.slots.get(name)?;
            let Some(assignment) = slot.assignments.get(service) else {
                continue;
            };
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for n in &live {
                counts.insert(&self.nodes[*n].name, 0);
            }
            for id in assignment.tasks.values() {
                *counts.entry(id).or_default() += 1;
            }
            let (least, most) = (counts.values().min()?, counts.values().max()?);
            if most - least > 1 {
                return Some(format!("{name} {service} is uneven: {least} to {most}"));
            }
        }
        None
    }
}

fn is_global(stack: &Stack, service: &str) -> bool {
    let definition = stack.project.any_service(service);
    let deploy = definition.and_then(|s| s.deploy.as_ref());
    deploy.is_some_and(|d| d.mode == "global")
}
