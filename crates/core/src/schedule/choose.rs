//! The choice of a node for each task that has none.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::hash;
use super::item::Item;
use super::placer::{NONE, Placer, UNKNOWN};
use super::room::Room;
use super::words;
use super::{Standing, hash::Map};

/// What speaks against a node, the most important first; the least is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Companions: fewer there is worse, as is not being the home of the stack.
    pub(super) apart: u32,
    /// Tasks of the service there.
    pub(super) own: u32,
    /// Whether the image is not there.
    pub(super) no_image: bool,
    /// Tasks of all there.
    pub(super) tasks: u32,
    hash: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: Rank,
    node: u32,
}

/// The nodes that have the same values of all labels that are spread over.
struct Branch {
    /// Where the tasks are counted, from the outermost label.
    path: Vec<usize>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Branch {
    fn order(&self, other: &Self, counts: &[u32]) -> Ordering {
        let path = self.path.iter().map(|c| counts[*c]);
        let top = |b: &Self| b.heap.peek().map(|c| c.0);
        path.cmp(other.path.iter().map(|c| counts[*c]))
            .then_with(|| top(self).cmp(&top(other)))
    }
}

/// The nodes by the labels that a service is spread over.
pub(super) struct Branches {
    /// Branch of each node.
    pub(super) of: Vec<usize>,
    /// Counters of each branch.
    pub(super) paths: Vec<Vec<usize>>,
    /// Tasks of the service, by counter.
    pub(super) counts: Vec<u32>,
}

impl Branches {
    pub(super) fn new(item: &Item<'_>, room: &Room<'_>) -> Self {
        let nodes = &room.cluster.nodes;
        let mut branches = Self {
            of: vec![0; nodes.len()],
            paths: vec![Vec::new()],
            counts: Vec::new(),
        };
        for (subject, _) in &item.spread {
            let mut next: Map<(usize, &str), usize> = Map::default();
            let mut paths = Vec::new();
            for (node, branch) in nodes.iter().zip(&mut branches.of) {
                let key = (*branch, subject.of(node));
                let (counts, outer) = (&mut branches.counts, &branches.paths[*branch]);
                *branch = *next.entry(key).or_insert_with(|| {
                    counts.push(0);
                    let mut path = outer.clone();
                    path.push(counts.len() - 1);
                    paths.push(path);
                    paths.len() - 1
                });
            }
            branches.paths = paths;
        }
        branches
    }

    pub(super) fn count(&mut self, node: u32) {
        for counter in &self.paths[self.of[node as usize]] {
            self.counts[*counter] += 1;
        }
    }

    /// Tasks of the service in the branches of a node, from the outermost.
    pub(super) fn counts_of(&self, node: u32) -> impl Iterator<Item = u32> {
        let path = &self.paths[self.of[node as usize]];
        path.iter().map(|c| self.counts[*c])
    }

    /// Tasks in the outermost branches that two nodes do not share.
    pub(super) fn parting(&self, a: u32, b: u32) -> Option<(u32, u32)> {
        let path = |node: u32| self.paths[self.of[node as usize]].iter();
        let parted = path(a).zip(path(b)).find(|(a, b)| a != b);
        parted.map(|(a, b)| (self.counts[*a], self.counts[*b]))
    }

    pub(super) fn uncount(&mut self, node: u32) {
        for counter in &self.paths[self.of[node as usize]] {
            self.counts[*counter] -= 1;
        }
    }
}

impl Placer<'_> {
    /// Chooses nodes for all tasks that have none.
    pub(super) fn choose(&mut self) {
        // A group that finds a better node leaves room that others may wait for.
        for _ in 0..=self.groups.len() {
            self.left = false;
            self.choose_once();
            if !self.left {
                return;
            }
        }
    }

    fn choose_once(&mut self) {
        if let Some(reasons) = &mut self.reasons {
            reasons.lacks.clear();
        }
        for group in 0..self.groups.len() {
            let item = self.groups[group].members[0];
            if self.blocked[group].is_some() {
                // They wait for their node.
            } else if self.groups[group].is_pinned() {
                self.choose_pinned(group);
            } else if self.items[item].malformed.is_some() {
                self.explain_waiting(group, None);
            } else if self.items[item].global {
                self.choose_global(item);
            } else if self.at[item].contains(&NONE) {
                self.choose_free(group, item);
            }
        }
    }

    pub(super) fn rank(&self, node: u32, item: &Item<'_>, own: u32, image: bool) -> Rank {
        let n = node as usize;
        let apart = if item.companion {
            let is_home = self.cluster.node(node).id == self.stack.home;
            u32::MAX - 2 * self.room.companions[n] - u32::from(is_home)
        } else {
            0
        };
        Rank {
            apart,
            own,
            no_image: !image,
            tasks: self.room.taken.tasks[n],
            hash: hash::pair(item.hash, self.cluster.hashes[n]),
        }
    }

    /// Whether each node has the image of a service.
    pub(super) fn images(&self, item: &Item<'_>) -> Vec<bool> {
        let mut has = vec![false; self.cluster.nodes.len()];
        for node in item.image {
            has[*node as usize] = true;
        }
        has
    }

    fn choose_free(&mut self, group: usize, item: usize) {
        let wanted = &self.items[item];
        let mut own = vec![0_u32; self.cluster.nodes.len()];
        let mut branches = Branches::new(wanted, &self.room);
        for node in self.at[item].iter().filter(|n| **n < UNKNOWN) {
            own[*node as usize] += 1;
            branches.count(*node);
        }
        let images = self.images(wanted);
        let mut candidates = vec![Vec::new(); branches.paths.len()];
        for (node, own) in (0..).zip(&own) {
            if self.room.may_come(node, wanted, *own) {
                let rank = self.rank(node, wanted, *own, images[node as usize]);
                let candidate = Reverse(Candidate { rank, node });
                candidates[branches.of[node as usize]].push(candidate);
            }
        }
        let mut open: Vec<Branch> = (branches.paths.iter().cloned().zip(candidates))
            .filter(|(_, candidates)| !candidates.is_empty())
            .map(|(path, candidates)| Branch {
                path,
                heap: candidates.into(),
            })
            .collect();
        for slot in 0..self.at[item].len() {
            if self.at[item][slot] != NONE {
                continue;
            }
            let counts = &branches.counts;
            let best = match open.len() {
                0 => break,
                1 => 0,
                n => (0..n)
                    .min_by(|a, b| open[*a].order(&open[*b], counts))
                    .unwrap_or(0),
            };
            if let Some(reasons) = &mut self.reasons {
                let why = why_best(&open, best, counts, &self.items[item]);
                reasons.chosen.insert((item, slot as u32 + 1), why);
            }
            let Branch { path, heap } = &mut open[best];
            let Some(mut top) = heap.peek_mut() else {
                break;
            };
            let node = top.0.node;
            let n = node as usize;
            let wanted = &self.items[item];
            self.room.take(node, wanted, 1);
            self.at[item][slot] = node;
            for counter in path.iter() {
                branches.counts[*counter] += 1;
            }
            if wanted.companion && own[n] == 0 {
                self.room.companions[n] += 1;
            }
            own[n] += 1;
            if self.room.has(node, wanted, own[n]) {
                top.0.rank = self.rank(node, wanted, own[n], images[n]);
            } else {
                PeekMut::pop(top);
                if heap.is_empty() {
                    open.remove(best);
                }
            }
        }
        if !self.at[item].contains(&NONE) {
            return;
        }
        self.explain_waiting(group, None);
        for slot in 0..self.at[item].len() {
            let start = self.start[item][slot];
            if self.at[item][slot] == NONE
                && start < UNKNOWN
                && matches!(self.cluster.node(start).standing, Standing::Unsure(_))
            {
                // Better where it may run than nowhere.
                self.put(item, slot, start);
            }
        }
    }

    fn choose_global(&mut self, item: usize) {
        let mut missing: Vec<u32> = self.missing(item).collect();
        missing.sort_by_key(|n| &self.cluster.node(*n).name);
        let mut slot = 0;
        for node in missing {
            let wanted = &self.items[item];
            if !self.room.has(node, wanted, 0) {
                let refusal = self.room.refusal(node, wanted, 0);
                let name = &self.cluster.node(node).name;
                if let (Some(reasons), Some(refusal)) = (&mut self.reasons, refusal) {
                    let why = format!("{name} {}", words::refused(&refusal, &wanted.needs));
                    reasons.lacks.push((item, why));
                }
                continue;
            }
            while self.at[item].get(slot).is_some_and(|n| *n != NONE) {
                slot += 1;
            }
            if slot == self.at[item].len() {
                self.at[item].push(NONE);
                self.start[item].push(NONE);
            }
            self.put(item, slot, node);
            if let Some(reasons) = &mut self.reasons {
                let why = "every node has one".to_owned();
                reasons.chosen.insert((item, slot as u32 + 1), why);
            }
        }
    }
}

/// Why the best candidate is preferred to the next, for people.
fn why_best(open: &[Branch], best: usize, counts: &[u32], item: &Item<'_>) -> String {
    let path = |b: &Branch| b.path.iter().map(|c| counts[*c]).collect::<Vec<_>>();
    let all = open.iter().enumerate();
    let others = all.flat_map(|(i, b)| b.heap.iter().map(move |c| (path(b), c.0, i)));
    let Some(top) = open[best].heap.peek().map(|c| c.0) else {
        return String::new();
    };
    let Some(next) = others.filter(|(_, c, _)| *c != top).min() else {
        return "is the only one that fits".to_owned();
    };
    let differ = path(&open[best])
        .iter()
        .zip(&next.0)
        .position(|(a, b)| a != b);
    match differ {
        Some(level) => format!("evens out {}", item.spread[level].1),
        None => words::rank(top.rank, next.1.rank, item.name),
    }
}
