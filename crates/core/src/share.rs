//! One node's share of a stack: which tasks are its own to run.

use std::collections::{BTreeMap, BTreeSet};

use crate::seen::Container;

/// Numbers of tasks by service.
pub type Numbers = BTreeMap<String, BTreeSet<u32>>;

/// What of a stack is a node's own affair, and what it has to know of the others'.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Share {
    /// Tasks that are to run here.
    pub here: Numbers,
    /// Tasks whose containers here, if there are any, are left as they are for now: another plan is
    /// about them, or they go once they run elsewhere.
    pub aside: Numbers,
    /// Tasks of other nodes, with their containers as reported last.
    pub elsewhere: BTreeMap<String, BTreeMap<u32, Option<Container>>>,
}

impl Share {
    /// Numbers of a service's tasks that are to run here.
    pub fn here(&self, service: &str) -> impl Iterator<Item = u32> + '_ {
        self.here.get(service).into_iter().flatten().copied()
    }

    /// Whether a task is to run here.
    #[must_use]
    pub fn is_here(&self, service: &str, number: u32) -> bool {
        self.here.get(service).is_some_and(|n| n.contains(&number))
    }

    /// Whether a task's containers here are left as they are.
    #[must_use]
    pub fn is_aside(&self, service: &str, number: u32) -> bool {
        self.aside.get(service).is_some_and(|n| n.contains(&number))
    }

    /// Numbers of all tasks of a service, wherever they are.
    #[must_use]
    pub fn all(&self, service: &str) -> BTreeSet<u32> {
        let sets = [&self.here, &self.aside].into_iter();
        let own = sets.filter_map(|s| s.get(service)).flatten();
        let others = self.elsewhere.get(service).into_iter().flatten();
        own.chain(others.map(|(n, _)| n)).copied().collect()
    }

    /// Whether nothing is to run here, and nothing is left as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let none = |numbers: &Numbers| numbers.values().all(BTreeSet::is_empty);
        none(&self.here) && none(&self.aside)
    }
}
