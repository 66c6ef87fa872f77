//! A stack while it is placed: what stays first, then what has to be chosen.

use std::collections::BTreeMap;

use super::item::{Group, Item};
use super::pinned::Goal;
use super::room::Room;
use super::{Cluster, Placement, Standing, Tasks};
use crate::wanted::Stack;

/// In place of a node: the task has none.
pub(super) const NONE: u32 = u32::MAX;
/// In place of a node: the task is on one that is no member.
pub(super) const UNKNOWN: u32 = u32::MAX - 1;
/// Numbers of tasks of global services beyond this are not kept.
const MOST_SLOTS: u32 = 1 << 20;

pub(super) struct Placer<'p> {
    pub(super) cluster: &'p Cluster<'p>,
    pub(super) stack: &'p Stack,
    pub(super) current: &'p Tasks,
    pub(super) items: Vec<Item<'p>>,
    pub(super) groups: Vec<Group>,
    pub(super) room: Room<'p>,
    /// Where each task of a service was, or is seen running; slot 1 is at 0.
    pub(super) start: Vec<Vec<u32>>,
    /// Where each task is to be.
    pub(super) at: Vec<Vec<u32>>,
    /// Why tasks of a group wait for a node, which lets none of them be chosen anew.
    pub(super) blocked: Vec<Option<String>>,
    /// Reasons, if they are asked for.
    pub(super) reasons: Option<Reasons>,
    /// Whether anything was assigned that is not wanted, or runs without being assigned.
    stray: bool,
    /// Whether a group left its node while nodes were chosen.
    pub(super) left: bool,
}

/// Why: of each task that was chosen (by service and slot), and of each service that waits.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    pub(super) chosen: BTreeMap<(usize, u32), String>,
    pub(super) waits: BTreeMap<usize, String>,
    /// Nodes that a global service lacks, with the reason.
    pub(super) lacks: Vec<(usize, String)>,
}

impl<'p> Placer<'p> {
    pub(super) fn new(
        stack: &'p Stack,
        current: &'p Tasks,
        running: &Tasks,
        cluster: &'p Cluster<'p>,
    ) -> Self {
        let items = Item::all(stack, cluster);
        let groups = Group::all(&items, cluster);
        let none = BTreeMap::new();
        // A service of which nothing is to run has no tasks, and that is right.
        let mut stray = current.iter().any(|(s, tasks)| {
            let item = items.binary_search_by_key(&s.as_str(), |i| i.name);
            item.is_err() && !(tasks.is_empty() && stack.active.contains(s))
        });
        let mut start = Vec::with_capacity(items.len());
        for item in &items {
            let assigned = current.get(item.name).unwrap_or(&none);
            let seen = running.get(item.name).unwrap_or(&none);
            let most = if item.global {
                let highest = |of: &BTreeMap<u32, String>| of.last_key_value().map(|(s, _)| *s);
                let highest = highest(assigned).max(highest(seen)).unwrap_or(0);
                highest.min(MOST_SLOTS)
            } else {
                item.count
            };
            let mut slots = vec![NONE; most as usize];
            let wanted = |slot: u32| slot >= 1 && slot <= most;
            for (slot, id) in assigned {
                if wanted(*slot) {
                    slots[*slot as usize - 1] = cluster.index(id).unwrap_or(UNKNOWN);
                } else {
                    stray = true;
                }
            }
            for (slot, id) in seen.iter().filter(|(s, _)| wanted(**s)) {
                let place = &mut slots[*slot as usize - 1];
                if let (NONE, Some(node)) = (*place, cluster.index(id)) {
                    *place = node;
                    stray = true;
                }
            }
            start.push(slots);
        }
        Self {
            room: Room::new(cluster, &stack.project.name),
            at: start.iter().map(|s| vec![NONE; s.len()]).collect(),
            blocked: vec![None; groups.len()],
            cluster,
            stack,
            current,
            items,
            groups,
            start,
            reasons: None,
            stray,
            left: false,
        }
    }

    /// Whether there is anything to do, once it is settled who stays.
    pub(super) fn has_work(&self) -> bool {
        let moved = self.at != self.start && {
            let groups = self.groups.iter().zip(&self.blocked);
            let mut open = groups.filter(|(_, b)| b.is_none()).map(|(g, _)| g);
            open.any(|g| g.members.iter().any(|i| self.at[*i] != self.start[*i]))
        };
        let lacks = |(group, blocked): (&Group, &Option<String>)| {
            let i = group.members[0];
            if self.items[i].global {
                return self.missing(i).next().is_some();
            }
            let unknown = |(v, external): (&String, &bool)| {
                !external && !self.cluster.volumes.contains_key(v)
            };
            group.volumes.iter().any(unknown)
                || blocked.is_none() && group.members.iter().any(|i| self.at[*i].contains(&NONE))
        };
        self.stray || moved || self.groups.iter().zip(&self.blocked).any(lacks)
    }

    /// Puts a task on a node.
    pub(super) fn put(&mut self, item: usize, slot: usize, node: u32) {
        self.at[item][slot] = node;
        if node < UNKNOWN {
            self.room.take(node, &self.items[item], 1);
        }
    }

    /// What is the tasks' own of a stack on a node, as it was.
    pub(super) fn share(&self, node: u32) -> (u64, u64) {
        let mut share = (0_u64, 0_u64);
        for (item, slots) in self.items.iter().zip(&self.start) {
            let here = slots.iter().filter(|n| **n == node).count() as u64;
            share.0 = share.0.saturating_add(item.needs.cpus.saturating_mul(here));
            share.1 = share
                .1
                .saturating_add(item.needs.memory.saturating_mul(here));
        }
        share
    }

    /// Decides which tasks stay where they are. All of them before any is chosen: nobody has to
    /// make room for what is new.
    pub(super) fn settle(&mut self) {
        for group in 0..self.groups.len() {
            let item = self.groups[group].members[0];
            if self.groups[group].is_pinned() {
                self.settle_pinned(group);
            } else if self.items[item].malformed.is_some() {
                // Nowhere.
            } else if self.items[item].global {
                self.settle_global(item);
            } else {
                self.settle_free(item);
            }
            for i in 0..self.groups[group].members.len() {
                let item = self.groups[group].members[i];
                if self.items[item].companion {
                    for node in self.nodes_of(item) {
                        self.room.companions[node as usize] += 1;
                    }
                }
            }
        }
    }

    /// The nodes that a service has tasks on.
    fn nodes_of(&self, item: usize) -> Vec<u32> {
        let nodes = self.at[item].iter().copied();
        let mut nodes: Vec<u32> = nodes.filter(|n| *n < UNKNOWN).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn settle_free(&mut self, item: usize) {
        let mut own = vec![0_u32; self.cluster.nodes.len()];
        for slot in 0..self.start[item].len() {
            let node = self.start[item][slot];
            if node >= UNKNOWN {
                continue;
            }
            let here = &mut own[node as usize];
            let share = || self.share(node);
            if self.room.may_stay(node, &self.items[item], *here, share) {
                *here += 1;
                self.put(item, slot, node);
            }
        }
    }

    fn settle_global(&mut self, item: usize) {
        let mut has = vec![false; self.cluster.nodes.len()];
        for slot in 0..self.start[item].len() {
            let node = self.start[item][slot];
            if node >= UNKNOWN || has[node as usize] {
                continue;
            }
            let broken = self.room.broken(node, &self.items[item]).is_some();
            let share = || self.share(node);
            let stays = match self.cluster.node(node).standing {
                // It comes back to its number.
                Standing::Gone(_) | Standing::Unsure(_) => !broken,
                _ => self.room.may_stay(node, &self.items[item], 0, share),
            };
            if stays {
                has[node as usize] = true;
                self.put(item, slot, node);
            }
        }
    }

    /// The nodes that should have a task of a global service and have none.
    pub(super) fn missing(&self, item: usize) -> impl Iterator<Item = u32> + '_ {
        let mut has = vec![false; self.cluster.nodes.len()];
        for node in self.nodes_of(item) {
            has[node as usize] = true;
        }
        let wanted = &self.items[item];
        (0..).zip(has).filter_map(move |(node, has)| {
            let should = !has
                && wanted.malformed.is_none()
                && self.cluster.is_ready(node)
                && self.room.broken(node, wanted).is_none();
            should.then_some(node)
        })
    }

    /// What came of it.
    pub(super) fn outcome(self) -> Placement {
        let mut placement = Placement::default();
        for (group, g) in self.groups.iter().enumerate() {
            let tasks = g.members.iter().flat_map(|i| &self.at[*i]);
            let Some(node) = tasks.copied().find(|n| *n < UNKNOWN) else {
                continue;
            };
            if matches!(self.goal(group), Goal::Lost(_)) {
                continue;
            }
            for (volume, external) in &g.volumes {
                if !external && !self.cluster.volumes.contains_key(volume) {
                    let id = self.cluster.node(node).id.clone();
                    placement.volumes.insert(volume.clone(), id);
                }
            }
        }
        for (item, slots) in self.items.iter().zip(&self.at) {
            let before = self.current.get(item.name);
            let tasks = (1..).zip(slots).filter_map(|(slot, node)| {
                let id = match *node {
                    NONE => return None,
                    UNKNOWN => before?.get(&slot)?,
                    node => &self.cluster.node(node).id,
                };
                Some((slot, id.clone()))
            });
            let tasks: BTreeMap<u32, String> = tasks.collect();
            if !tasks.is_empty() {
                placement.tasks.insert(item.name.to_owned(), tasks);
            }
        }
        if self.reasons.is_some() {
            placement.decisions = self.decisions();
        }
        placement
    }
}
