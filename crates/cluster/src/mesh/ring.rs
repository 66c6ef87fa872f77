//! Nodes in the order of their ids, as in a ring. In a large cluster those next to each other keep
//! linked and tell each other all: so what goes on reaches everybody, also where chance would
//! leave somebody out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::id::NodeId;

/// All but this node, the nearest behind it first and the nearest before it last.
pub(super) fn around<T>(
    me: NodeId,
    nodes: &BTreeMap<NodeId, T>,
) -> impl DoubleEndedIterator<Item = (&NodeId, &T)> {
    let behind = nodes.range((Bound::Excluded(me), Bound::Unbounded));
    behind.chain(nodes.range(..me))
}

/// The nearest on both sides.
pub(super) fn neighbours<T>(me: NodeId, nodes: &BTreeMap<NodeId, T>) -> BTreeSet<NodeId> {
    let mut around = around(me, nodes).map(|(id, _)| *id);
    let next = around.next();
    next.into_iter().chain(around.next_back()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_no_end() {
        let id = |i: u8| NodeId([i; 32]);
        let near = |me: u8, nodes: &[u8]| {
            let nodes = nodes.iter().map(|i| (id(*i), ())).collect();
            neighbours(id(me), &nodes)
        };
        assert_eq!(near(3, &[]), [].into());
        assert_eq!(near(3, &[3]), [].into());
        assert_eq!(near(3, &[5]), [id(5)].into());
        assert_eq!(near(3, &[1, 2, 3, 4, 5]), [id(2), id(4)].into());
        assert_eq!(near(1, &[1, 2, 4, 5]), [id(5), id(2)].into());
        assert_eq!(near(9, &[1, 2, 4, 5]), [id(5), id(1)].into());
    }
}
