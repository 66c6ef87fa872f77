//! Moves that even out where tasks are, for who asks for them: placement itself never moves a
//! task for evenness.

use super::choose::Branches;
use super::placer::{NONE, Placer, UNKNOWN};
use super::{Cluster, Move, Tasks};
use crate::wanted::Stack;

/// The fewest moves that even out where the tasks of a stack are. What is tied does not move,
/// nor do services that keep together.
#[must_use]
pub fn rebalance(stack: &Stack, current: &Tasks, cluster: &Cluster<'_>) -> Vec<Move> {
    let none = Tasks::new();
    let mut placer = Placer::new(stack, current, &none, cluster);
    placer.settle();
    let mut moves = Vec::new();
    for group in 0..placer.groups.len() {
        let item = placer.groups[group].members[0];
        let wanted = &placer.items[item];
        if !(placer.groups[group].is_pinned() || wanted.global || wanted.companion) {
            placer.even_out(item, &mut moves);
        }
    }
    moves
}

impl Placer<'_> {
    fn even_out(&mut self, item: usize, moves: &mut Vec<Move>) {
        let mut branches = Branches::new(&self.items[item], &self.room);
        let mut own = vec![0_u32; self.cluster.nodes.len()];
        for node in self.at[item].iter().filter(|n| **n < UNKNOWN) {
            own[*node as usize] += 1;
            branches.count(*node);
        }
        let open = |node: u32| {
            self.cluster.is_ready(node) && self.room.broken(node, &self.items[item]).is_none()
        };
        let open: Vec<bool> = (0..own.len() as u32).map(open).collect();
        // Each move makes the differences smaller, so this ends.
        while let Some((from, to)) = self.best_move(item, &own, &branches, &open) {
            let slots = &mut self.at[item];
            let Some(slot) = slots.iter().rposition(|n| *n == from) else {
                return;
            };
            slots[slot] = NONE;
            self.room.give_back(from, &self.items[item], 1);
            self.put(item, slot, to);
            own[from as usize] -= 1;
            own[to as usize] += 1;
            branches.uncount(from);
            branches.count(to);
            self.note(moves, item, slot, from, to);
        }
    }

    /// Adds a move; one more of the same task lengthens the first.
    fn note(&self, moves: &mut Vec<Move>, item: usize, slot: usize, from: u32, to: u32) {
        let (service, slot) = (self.items[item].name, slot as u32 + 1);
        let id = |node: u32| self.cluster.node(node).id.clone();
        let same = |m: &&mut Move| m.service == service && m.slot == slot;
        match moves.iter_mut().find(same) {
            Some(first) => first.to = id(to),
            None => moves.push(Move {
                service: service.to_owned(),
                slot,
                from: id(from),
                to: id(to),
            }),
        }
    }

    /// The move of one task of a service that helps most; none if none helps. `open` says which
    /// nodes are ready and meet its rules.
    fn best_move(
        &self,
        item: usize,
        own: &[u32],
        branches: &Branches,
        open: &[bool],
    ) -> Option<(u32, u32)> {
        let wanted = &self.items[item];
        let tasks = |node: u32| self.room.taken.tasks[node as usize];
        let here = |node: u32| own[node as usize];
        // How much a node has of the service: in its branches, itself, and tasks of all.
        let order = |a: u32, b: u32| {
            let counts = branches.counts_of(a).cmp(branches.counts_of(b));
            counts.then_with(|| (here(a), tasks(a)).cmp(&(here(b), tasks(b))))
        };
        let helps = |from: u32, to: u32| match branches.parting(from, to) {
            Some((a, b)) => a > b + 1,
            None => {
                here(from) > here(to) + 1
                    || here(from) == here(to) + 1 && tasks(from) > tasks(to) + 1
            }
        };
        // The fullest and the emptiest of all, and of each branch.
        let mut ends: Vec<(Option<u32>, Option<u32>)> =
            vec![(None, None); branches.paths.len() + 1];
        let nodes = (0..).zip(open).filter(|(_, open)| **open);
        for (node, _) in nodes {
            for end in [0, branches.of[node as usize] + 1] {
                let (most, least) = &mut ends[end];
                if here(node) > 0 && most.is_none_or(|m| order(node, m).is_gt()) {
                    *most = Some(node);
                }
                if least.is_none_or(|l| order(node, l).is_lt())
                    && self.room.has(node, wanted, here(node))
                {
                    *least = Some(node);
                }
            }
        }
        let mut pairs = ends.into_iter().filter_map(|(from, to)| from.zip(to));
        pairs.find(|(from, to)| helps(*from, *to))
    }
}
