//! Services whose tasks are all on one node: those that live together, and those with local data.

use std::cmp::Reverse;

use super::placer::{NONE, Placer, Reasons, UNKNOWN};
use super::{Standing, words};

/// The node that a group has to be on.
pub(super) enum Goal {
    /// A node, and what is there, for people.
    Node(u32, String),
    /// No node that there is; why they wait, for people.
    Lost(String),
    /// Any one.
    Any,
}

impl Placer<'_> {
    /// The tasks of a group, as indices of services and slots; the root's first.
    pub(super) fn tasks_of(&self, group: usize) -> Vec<(usize, usize)> {
        let members = self.groups[group].members.iter();
        members
            .flat_map(|i| (0..self.start[*i].len()).map(move |slot| (*i, slot)))
            .collect()
    }

    /// The node that a group was on: its first task's that has one.
    pub(super) fn was_on(&self, group: usize) -> Option<(usize, usize)> {
        let mut tasks = self.tasks_of(group).into_iter();
        tasks.find(|(i, slot)| self.start[*i][*slot] != NONE)
    }

    /// Where a group has to be, given where it was and what ties it.
    pub(super) fn goal(&self, group: usize) -> Goal {
        let g = &self.groups[group];
        let mut ties: Vec<(&str, String)> = Vec::new();
        for name in g.volumes.keys() {
            if let Some(id) = self.cluster.volumes.get(name) {
                ties.push((id, format!("its volume {name}")));
            }
        }
        let files = g.files.as_ref().map(|path| format!("its path {path}"));
        if let Some(files) = &files
            && self.cluster.index(&self.stack.home).is_some()
        {
            ties.push((&self.stack.home, files.clone()));
        }
        if let Some(other) = g.follows.filter(|_| !g.is_tied()) {
            let there = |n: &&u32| {
                **n < UNKNOWN && !matches!(self.cluster.node(**n).standing, Standing::Gone(_))
            };
            if let Some(node) = self.at[other].iter().find(there) {
                let what = format!("the service {}", self.items[other].name);
                ties.push((&self.cluster.node(*node).id, what));
            }
        }
        if ties.is_empty() && g.is_tied() {
            let Some((item, slot)) = self.was_on(group) else {
                return Goal::Any;
            };
            let volume = g.volumes.keys().next().map(|v| format!("its volume {v}"));
            let what = volume.or(files).unwrap_or_default();
            return match self.start[item][slot] {
                UNKNOWN => Goal::Lost(format!(
                    "waits for a node that is no longer a member, which has {what}"
                )),
                node => Goal::Node(node, what),
            };
        }
        let Some((id, what)) = ties.first() else {
            return Goal::Any;
        };
        let name = |id: &str| self.cluster.index(id).map(|n| &self.cluster.node(n).name);
        if let Some((other, which)) = ties.iter().find(|(other, _)| other != id) {
            let name = |id| name(id).map_or("a node that is no longer a member", |n| n);
            return Goal::Lost(format!(
                "waits for its data to be on one node: {what} is on {}, {which} on {}",
                name(id),
                name(other)
            ));
        }
        match self.cluster.index(id) {
            Some(node) => Goal::Node(node, what.clone()),
            None => Goal::Lost(format!(
                "waits for a node that is no longer a member, which has {what}"
            )),
        }
    }

    pub(super) fn settle_pinned(&mut self, group: usize) {
        if self.groups[group].follows.is_some() && !self.groups[group].is_tied() {
            // It is not known yet where whom they follow is.
            return;
        }
        let tasks = self.tasks_of(group);
        let stay = match self.goal(group) {
            Goal::Node(node, _) if self.cluster.is_ready(node) => {
                // Tied tasks never move: also if they no longer fit.
                for (item, slot) in tasks {
                    if self.start[item][slot] == node {
                        self.put(item, slot, node);
                    }
                }
                return;
            }
            Goal::Node(node, what) => {
                let has = self.cluster.node(node);
                let why = has.standing.why_not().unwrap_or_default();
                let mut text = format!("waits for node {}, which has {what}: it {why}", has.name);
                if has.standing == Standing::Drained && !self.groups[group].volumes.is_empty() {
                    text += "; `wharfie volume move` takes it elsewhere";
                }
                text
            }
            Goal::Lost(why) => why,
            Goal::Any => {
                let Some((item, slot)) = self.was_on(group) else {
                    return;
                };
                let node = self.start[item][slot];
                if node == UNKNOWN {
                    return;
                }
                let has = self.cluster.node(node);
                match &has.standing {
                    Standing::Unsure(why) => {
                        let task = format!("{}/{}", self.items[item].name, slot + 1);
                        format!("waits for node {}, which has {task}: it {why}", has.name)
                    }
                    Standing::Ready if self.all_fit(group, node) => {
                        for (item, slot) in tasks {
                            self.put(item, slot, node);
                        }
                        return;
                    }
                    Standing::Ready => {
                        self.settle_part(group, node);
                        return;
                    }
                    _ => return,
                }
            }
        };
        for (item, slot) in tasks {
            let node = self.start[item][slot];
            if node != NONE {
                self.put(item, slot, node);
            }
        }
        self.blocked[group] = Some(stay);
    }

    /// Keeps what fits of a group on its node: nobody else gets that room, until it is known
    /// whether more of it fits elsewhere.
    fn settle_part(&mut self, group: usize, node: u32) {
        for (item, slot) in self.tasks_of(group) {
            let wanted = &self.items[item];
            let own = self.at[item].iter().filter(|n| **n == node).count() as u32;
            let share = || self.share(node);
            if self.start[item][slot] == node
                && wanted.malformed.is_none()
                && self.room.may_stay(node, wanted, own, share)
            {
                self.put(item, slot, node);
            }
        }
    }

    fn all_fit(&mut self, group: usize, node: u32) -> bool {
        let wanted = self.groups[group]
            .members
            .iter()
            .map(|i| self.items[*i].count);
        let wanted: u32 = wanted.sum();
        self.fitting(group, node) == wanted
    }

    /// How many tasks of a group can be on a node, those that are there already included; none if
    /// no task of the root can.
    pub(super) fn fitting(&mut self, group: usize, node: u32) -> u32 {
        let members = &self.groups[group].members;
        let mut fit = Vec::with_capacity(members.len());
        let mut all = 0;
        for i in members {
            let item = &self.items[*i];
            let own = self.at[*i].iter().filter(|n| **n == node).count() as u32;
            let rules = item.malformed.is_none() && self.room.broken(node, item).is_none();
            let times = match rules {
                true => self.room.how_many(node, item, own, item.count - own),
                false => 0,
            };
            if all + own + times == 0 {
                // The root comes first.
                return 0;
            }
            self.room.take(node, item, times);
            fit.push(times);
            all += own + times;
        }
        for (i, times) in members.iter().zip(&fit) {
            self.room.give_back(node, &self.items[*i], *times);
        }
        all
    }

    /// Takes the tasks of a group from the node they are on.
    pub(super) fn take_back(&mut self, group: usize) {
        for (item, slot) in self.tasks_of(group) {
            let node = std::mem::replace(&mut self.at[item][slot], NONE);
            if node < UNKNOWN {
                self.room.give_back(node, &self.items[item], 1);
                if self.items[item].companion && !self.at[item].contains(&node) {
                    self.room.companions[node as usize] -= 1;
                }
            }
        }
    }

    pub(super) fn choose_pinned(&mut self, group: usize) {
        let tasks = self.tasks_of(group);
        if tasks.iter().all(|(i, slot)| self.at[*i][*slot] != NONE) {
            return;
        }
        let (node, why) = match self.goal(group) {
            Goal::Node(node, what) => (node, format!("has {what}")),
            Goal::Lost(_) => return,
            Goal::Any => match self.best_for(group) {
                Some(found) => found,
                None => return self.explain_waiting(group, None),
            },
        };
        if tasks
            .iter()
            .any(|(i, slot)| !matches!(self.at[*i][*slot], n if n == NONE || n == node))
        {
            self.take_back(group);
            self.left = true;
        }
        if self.cluster.is_ready(node) {
            self.fill(group, node, &why);
        } else {
            for (item, slot) in &tasks {
                let start = self.start[*item][*slot];
                if start == node {
                    self.put(*item, *slot, start);
                }
            }
        }
        if tasks.iter().any(|(i, slot)| self.at[*i][*slot] == NONE) {
            let root = &self.items[self.groups[group].members[0]];
            let why = match self.goal(group) {
                Goal::Node(..) => why,
                _ => format!("has {}/1", root.name),
            };
            self.explain_waiting(group, Some((node, why)));
        }
    }

    /// Puts as many tasks of a group on a node as fit there.
    fn fill(&mut self, group: usize, node: u32, why: &str) {
        for i in 0..self.groups[group].members.len() {
            let item = self.groups[group].members[i];
            let mut own = self.at[item].iter().filter(|n| **n == node).count() as u32;
            let wanted = &self.items[item];
            if wanted.malformed.is_some() || self.room.broken(node, wanted).is_some() {
                continue;
            }
            for slot in 0..self.at[item].len() {
                if self.at[item][slot] != NONE {
                    continue;
                }
                if !self.room.has(node, &self.items[item], own) {
                    break;
                }
                if self.items[item].companion && own == 0 {
                    self.room.companions[node as usize] += 1;
                }
                own += 1;
                self.put(item, slot, node);
                if let Some(Reasons { chosen, .. }) = &mut self.reasons {
                    chosen.insert((item, slot as u32 + 1), why.to_owned());
                }
            }
        }
    }

    /// The node for a group that can be anywhere: where most of it fits, best where it is.
    fn best_for(&mut self, group: usize) -> Option<(u32, String)> {
        let was = self.was_on(group).map(|(i, slot)| self.start[i][slot]);
        let one = self.groups[group].as_one(&self.items);
        let images = self.images(&one);
        let mut ranked = Vec::new();
        for node in 0..self.cluster.nodes.len() as u32 {
            if !self.cluster.is_ready(node) {
                continue;
            }
            let fitting = self.fitting(group, node);
            if fitting > 0 {
                let rank = self.rank(node, &one, 0, images[node as usize]);
                ranked.push((Reverse(fitting), was != Some(node), rank, node));
            }
        }
        let best = *ranked.iter().min()?;
        let mut why = String::new();
        if self.reasons.is_some() {
            let others = ranked.iter().filter(|r| r.3 != best.3);
            why = match others.min() {
                None => "is the only one that fits".to_owned(),
                Some(next) if next.0 != best.0 => "has room for most of it".to_owned(),
                Some(next) if next.1 != best.1 => "has it already".to_owned(),
                Some(next) => words::rank(best.2, next.2, one.name),
            };
        }
        Some((best.3, why))
    }
}
