//! Serial numbers (RFC 1982), and how nodes come to the same one without a leader.
//!
//! A zone's content is derived from what is replicated, so nodes that know the same have the same
//! content, but they learn it at different times, and in different steps. The rule:
//!
//! 1. The same content as before keeps its serial.
//! 2. Other content has the time of its newest change (Unix seconds, replicated with the change), or
//!    the serial before plus one if that is not less. Nodes that see the same changes at their own
//!    pace come to the same serial, unless two changes have the same second.
//! 3. Nodes tell each other their serial and digest with what is seen of them. Who has the content of
//!    another takes the greater serial of both. Of two with the same serial and different content the
//!    one with the greater digest goes one further.
//!
//! So a serial never falls; nodes with the same content end up with the same serial; and two contents
//! under one serial do not stay. While they last, a secondary could be given a difference that does
//! not begin at what it has: therefore differences are only given by the node that gave the version
//! which they begin at (`transfer::Given`), anything else is a whole transfer.

use super::content::Content;

/// A version of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its serial.
    pub serial: u32,
    /// [`Content::digest`].
    pub digest: u64,
}

/// Whether a serial is after another (RFC 1982 section 3.2). Two that are half the numbers apart are
/// neither after the other; then the one that is greater as a number is taken.
#[must_use]
pub fn after(a: u32, b: u32) -> bool {
    match a.wrapping_sub(b) {
        0 => false,
        0x8000_0000 => a > b,
        distance => distance < 0x8000_0000,
    }
}

fn later(a: u32, b: u32) -> u32 {
    if after(b, a) { b } else { a }
}

/// The version of a content: `previous` is what this node had, `changed` the Unix seconds of the
/// newest change in it, `peers` what other nodes have.
#[must_use]
pub fn next(
    previous: Option<Version>,
    content: &Content,
    changed: u64,
    peers: &[Version],
) -> Version {
    next_of(previous, content.digest(), changed, peers)
}

pub(crate) fn next_of(
    previous: Option<Version>,
    digest: u64,
    changed: u64,
    peers: &[Version],
) -> Version {
    // Unix seconds of today have 31 bits; what comes after 2106 goes round, as serials do. 0 is
    // taken for no serial by some.
    let time = (changed as u32).max(1);
    let mut serial = match previous {
        None => time,
        Some(previous) if previous.digest == digest => previous.serial,
        Some(previous) => later(previous.serial.wrapping_add(1), time),
    };
    for peer in peers.iter().filter(|p| p.digest == digest) {
        serial = later(serial, peer.serial);
    }
    // One step may lead to the serial of another one.
    while peers
        .iter()
        .any(|p| p.serial == serial && p.digest < digest)
    {
        serial = serial.wrapping_add(1);
    }
    Version { serial, digest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn serials_go_round() {
        assert!(after(2, 1) && !after(1, 2) && !after(1, 1));
        assert!(after(0, u32::MAX) && after(5, 0xffff_fff0) && !after(0xffff_fff0, 5));
        let previous = Version {
            serial: u32::MAX,
            digest: 1,
        };
        assert_eq!(next_of(Some(previous), 2, 7, &[]).serial, 7);
    }

    #[test]
    fn serials_grow_with_the_content() {
        let first = next_of(None, 1, 1000, &[]);
        assert_eq!(first.serial, 1000);
        assert_eq!(next_of(Some(first), 1, 2000, &[]), first);
        assert_eq!(next_of(Some(first), 2, 1000, &[]).serial, 1001);
        assert_eq!(next_of(Some(first), 2, 2000, &[]).serial, 2000);
    }

    proptest! {
        /// Nodes see changes in their own order, with many in one second, then all of them; telling
        /// each other a few times brings them to one version, and no serial ever fell.
        #[test]
        fn nodes_agree(steps in proptest::collection::vec((0_usize..4, 0_u64..6, 1000_u64..1003), 0..30)) {
            let mut nodes: [Option<Version>; 4] = [None; 4];
            let step = |nodes: &mut [Option<Version>; 4], node: usize, digest, changed| {
                let peers: Vec<Version> = (0..4).filter(|n| *n != node).filter_map(|n| nodes[n]).collect();
                let next = next_of(nodes[node], digest, changed, &peers);
                if let Some(before) = nodes[node] {
                    assert!(next == before || after(next.serial, before.serial));
                }
                nodes[node] = Some(next);
            };
            for (node, digest, changed) in steps {
                step(&mut nodes, node, digest, changed);
            }
            for _ in 0..4 {
                for node in 0..4 {
                    step(&mut nodes, node, 99, 1003);
                }
            }
            prop_assert!(nodes.iter().all(|n| *n == nodes[0]));
        }

        #[test]
        fn contents_do_not_share_a_serial_for_long(digests in proptest::array::uniform4(0_u64..5)) {
            let mut nodes = digests.map(|d| next_of(None, d, 1000, &[]));
            for _ in 0..6 {
                for node in 0..4 {
                    let peers: Vec<Version> = (0..4).filter(|n| *n != node).map(|n| nodes[n]).collect();
                    nodes[node] = next_of(Some(nodes[node]), digests[node], 1000, &peers);
                }
            }
            for a in &nodes {
                for b in &nodes {
                    prop_assert_eq!(a.serial == b.serial, a.digest == b.digest);
                }
            }
        }
    }
}
