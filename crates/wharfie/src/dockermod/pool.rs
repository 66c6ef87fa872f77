//! The nodes that get requests, and which of them gets the next container.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::nodes::Node;

/// What is remembered between requests.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Nodes that were unregistered, by id.
    left_out: Mutex<BTreeSet<String>>,
    /// Containers placed so far.
    placed: AtomicUsize,
}

impl Pool {
    fn left_out(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a node in again, or leaves it out. False if there is no such node.
    pub(super) fn register(&self, nodes: &[Node], hostname: &str, take_in: bool) -> bool {
        let mut left_out = self.left_out();
        // Nodes that are gone for good are not remembered.
        left_out.retain(|id| nodes.iter().any(|n| n.id == *id));
        let named = nodes
            .iter()
            .find(|n| n.id == hostname)
            .or_else(|| nodes.iter().find(|n| n.name == hostname));
        let Some(node) = named else { return false };
        if take_in {
            left_out.remove(&node.id);
        } else {
            left_out.insert(node.id.clone());
        }
        true
    }

    /// The nodes that are up and not left out, in a fixed order.
    pub(super) fn members(&self, nodes: Vec<Node>) -> Vec<Node> {
        let left_out = self.left_out();
        let mut members: Vec<Node> = nodes
            .into_iter()
            .filter(|n| n.up && !left_out.contains(&n.id))
            .collect();
        members.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        members
    }

    /// Where the next `count` containers go, as indices into the members: evenly, going on where
    /// the last request ended.
    pub(super) fn spread(&self, members: usize, count: usize) -> Vec<usize> {
        let start = self.placed.fetch_add(count, Ordering::Relaxed);
        spread(start, members, count)
    }
}

fn spread(start: usize, members: usize, count: usize) -> Vec<usize> {
    if members == 0 {
        return Vec::new();
    }
    (0..count)
        .map(|n| start.wrapping_add(n) % members)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: &str, up: bool) -> Node {
        Node {
            id: id.to_owned(),
            name: name.to_owned(),
            me: false,
            up,
        }
    }

    fn names(members: &[Node]) -> Vec<&str> {
        members.iter().map(|n| n.name.as_str()).collect()
    }

    #[test]
    fn containers_are_spread_evenly_round_and_round() {
        for members in 1..=5_usize {
            for start in 0..7 {
                for count in 0..=12 {
                    let placed = spread(start, members, count);
                    assert_eq!(placed.len(), count);
                    let on = |m: usize| placed.iter().filter(|p| **p == m).count();
                    let counts: Vec<usize> = (0..members).map(on).collect();
                    let most = counts.iter().max().unwrap();
                    let least = counts.iter().min().unwrap();
                    assert!(most - least <= 1, "{count} on {members}: {counts:?}");
                }
            }
        }
        assert!(spread(3, 0, 4).is_empty());
    }

    #[test]
    fn single_requests_go_round_as_well() {
        let pool = Pool::default();
        let placed: Vec<usize> = (0..6).flat_map(|_| pool.spread(3, 1)).collect();
        assert_eq!(placed, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn dead_and_unregistered_nodes_get_nothing() {
        let pool = Pool::default();
        let nodes = vec![
            node("3", "c", true),
            node("1", "a", true),
            node("2", "b", false),
        ];
        assert_eq!(names(&pool.members(nodes.clone())), ["a", "c"]);
        assert!(pool.register(&nodes, "a", false));
        assert_eq!(names(&pool.members(nodes.clone())), ["c"]);
        assert!(!pool.register(&nodes, "z", true));
        assert!(pool.register(&nodes, "1", true));
        assert_eq!(names(&pool.members(nodes)), ["a", "c"]);
    }
}
