//! The services of a stack, read for placement, and which of them belong together.

use std::collections::BTreeMap;

use wharfie_compose::model::Service;

use super::Cluster;
use super::constraint::{Constraint, Subject};
use super::hash;
use super::needs::Needs;
use super::ties::Ties;
use crate::wanted::Stack;
use crate::{names, shared};

/// A service with tasks to place.
#[derive(Debug)]
pub(super) struct Item<'s> {
    pub(super) name: &'s str,
    /// Number of tasks; of a global one the nodes decide.
    pub(super) count: u32,
    pub(super) global: bool,
    pub(super) needs: Needs,
    pub(super) rules: Vec<Constraint>,
    /// What is wrong with its constraints.
    pub(super) malformed: Option<String>,
    /// Tasks on one node at most.
    pub(super) most: u32,
    pub(super) spread: Vec<(Subject, &'s str)>,
    /// Whether it says nothing of where it runs: it stays together with others like it.
    pub(super) companion: bool,
    /// Nodes that have its image.
    pub(super) image: &'s [u32],
    pub(super) hash: u64,
    ties: Ties,
    with: Vec<&'s str>,
}

impl<'s> Item<'s> {
    fn of(stack: &'s Stack, name: &'s str, service: &'s Service, cluster: &'s Cluster<'_>) -> Self {
        let project = &stack.project;
        let deploy = service.deploy.as_ref();
        let placement = deploy.map(|d| &d.placement);
        let mut malformed = None;
        let mut rules = Vec::new();
        for text in placement.iter().flat_map(|p| &p.constraints) {
            match Constraint::read(text) {
                Ok(rule) => rules.push(rule),
                Err(wrong) => malformed = malformed.or(Some(wrong)),
            }
        }
        if !service.platform.is_empty() {
            rules.push(Constraint::platform(&service.platform));
        }
        let mut spread = Vec::new();
        for preference in placement.iter().flat_map(|p| &p.preferences) {
            let text = preference.spread.trim();
            match Subject::read(text) {
                Some(subject) => spread.push((subject, text)),
                None if text.is_empty() => {}
                None => {
                    let wrong = format!(
                        "preference {text:?} cannot be read: it is neither node.labels.KEY nor \
                         engine.labels.KEY"
                    );
                    malformed = malformed.or(Some(wrong));
                }
            }
        }
        let most = placement.map_or(0, |p| p.max_replicas);
        let global = deploy.is_some_and(|d| d.mode.starts_with("global"));
        let silent = deploy.is_none_or(|d| {
            let p = &d.placement;
            d.mode.is_empty()
                && d.replicas.is_none()
                && p.constraints.is_empty()
                && p.preferences.is_empty()
                && p.max_replicas == 0
        });
        Self {
            name,
            count: stack.count(name),
            global,
            needs: Needs::of(&stack.project, service, &cluster.kinds),
            rules,
            malformed,
            most: u32::try_from(most)
                .ok()
                .filter(|m| *m > 0)
                .unwrap_or(u32::MAX),
            spread,
            companion: silent,
            image: cluster.with_image(&names::image(project, service)),
            hash: hash::pair(hash::text(&project.name), hash::text(name)),
            ties: if global {
                Ties::default()
            } else {
                Ties::of(project, service)
            },
            with: shared::with(service).collect(),
        }
    }

    /// The services of a stack that have tasks.
    pub(super) fn all(stack: &'s Stack, cluster: &'s Cluster<'_>) -> Vec<Self> {
        let services = stack.active.iter().filter_map(|name| {
            let service = stack.project.any_service(name)?;
            let runs = service.provider.is_none() && stack.count(name) > 0;
            runs.then(|| Self::of(stack, name, service, cluster))
        });
        services.collect()
    }
}

/// Services whose tasks go to one node together, or one that is on its own.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The services; the first is the root, with whom the others live.
    pub(super) members: Vec<usize>,
    /// Local volumes, and whether they are made elsewhere.
    pub(super) volumes: BTreeMap<String, bool>,
    /// Files on the host.
    pub(super) files: Option<String>,
    /// A global service with whose first task they live.
    pub(super) follows: Option<usize>,
}

impl Group {
    /// Whether all tasks go to one node.
    pub(super) fn is_pinned(&self) -> bool {
        self.members.len() > 1 || self.is_tied() || self.follows.is_some()
    }

    /// Whether it has local data.
    pub(super) fn is_tied(&self) -> bool {
        !self.volumes.is_empty() || self.files.is_some()
    }

    /// All groups, those first that have the least choice.
    pub(super) fn all(items: &[Item<'_>], cluster: &Cluster<'_>) -> Vec<Self> {
        let mut parent: Vec<usize> = (0..items.len()).collect();
        fn root(parent: &mut [usize], mut of: usize) -> usize {
            while parent[of] != of {
                parent[of] = parent[parent[of]];
                of = parent[of];
            }
            of
        }
        let mut follows: Vec<Option<usize>> = vec![None; items.len()];
        let mut user: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, item) in items.iter().enumerate().filter(|(_, i)| !i.global) {
            for other in &item.with {
                let Ok(other) = items.binary_search_by_key(other, |i| i.name) else {
                    continue;
                };
                if items[other].global {
                    follows[i] = Some(other);
                } else {
                    let (a, b) = (root(&mut parent, i), root(&mut parent, other));
                    parent[a] = b;
                }
            }
            for (volume, _) in &item.ties.volumes {
                let first = *user.entry(volume).or_insert(i);
                let (a, b) = (root(&mut parent, i), root(&mut parent, first));
                parent[a] = b;
            }
        }
        let mut groups: BTreeMap<usize, Self> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            let group = groups.entry(root(&mut parent, i)).or_default();
            group.members.push(i);
            group.volumes.extend(item.ties.volumes.iter().cloned());
            group.files = group.files.take().or_else(|| item.ties.files.clone());
            group.follows = group.follows.or(follows[i]);
        }
        let mut groups: Vec<Self> = groups.into_values().collect();
        for group in &mut groups {
            // The root lives with nobody; members are in the order of their names.
            group
                .members
                .sort_by_key(|i| (!items[*i].with.is_empty(), *i));
        }
        let most = |f: fn(&super::Node) -> u64| cluster.nodes.iter().map(|n| f(n)).max();
        let (cpus, memory) = (most(|n| n.cpus), most(|n| n.memory));
        let share = |of: u64, most: Option<u64>| {
            u128::from(of) * 1_000_000 / u128::from(most.unwrap_or(0).max(1))
        };
        groups.sort_by_cached_key(|group| {
            let needs = group.needs(items);
            let weight = share(needs.cpus, cpus).max(share(needs.memory, memory));
            let known = |v: &String| cluster.volumes.contains_key(v);
            let class = match items[group.members[0]].global {
                true => 0,
                false if group.volumes.keys().any(known) => 1,
                false if group.is_pinned() => 2,
                false if needs.reserves() => 3,
                false => 4,
            };
            (class, std::cmp::Reverse(weight), group.members[0])
        });
        groups
    }

    /// What all its tasks need together; what one task needs of a service on its own.
    fn needs(&self, items: &[Item<'_>]) -> Needs {
        let mut needs = Needs::default();
        for item in self.members.iter().map(|i| &items[*i]) {
            let count = if self.is_pinned() { item.count } else { 1 };
            needs.join(item.needs.times(count));
        }
        needs
    }

    /// The group as if it were one service with one task.
    pub(super) fn as_one<'s>(&self, items: &[Item<'s>]) -> Item<'s> {
        let root = &items[self.members[0]];
        let members = || self.members.iter().map(|i| &items[*i]);
        Item {
            name: root.name,
            count: 1,
            global: false,
            needs: self.needs(items),
            rules: members().flat_map(|i| i.rules.iter().cloned()).collect(),
            malformed: members().find_map(|i| i.malformed.clone()),
            most: u32::MAX,
            spread: Vec::new(),
            companion: members().any(|i| i.companion),
            image: root.image,
            hash: root.hash,
            ties: Ties::default(),
            with: Vec::new(),
        }
    }
}
