//! Which node gives out which addresses of a network, and which address a container gets.
//!
//! A node claims a slice when it needs one, by writing an object. If two write the same one while
//! they cannot see each other, the last writer has it, and the other gives new addresses to its
//! containers ([`repairs`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::layout::{Addresses, Layout};
use super::{Claims, Network};
use crate::schedule::hash;

/// Why a node gets no slice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "network {network}: all {slices} parts of {subnets} are taken by nodes ({users}); give it a larger subnet"
)]
pub struct NoSlice {
    /// The network.
    pub network: String,
    /// Number of slices.
    pub slices: u32,
    /// Its subnets.
    pub subnets: String,
    /// Nodes and how many slices each has.
    pub users: String,
}

/// The index of a slice that a node can claim. The search begins at a hash of its id, so that nodes
/// that claim at the same time rarely meet.
///
/// # Errors
/// [`NoSlice`]; nodes are named by `name_of` an id.
pub fn claim(
    name: &str,
    network: &Network,
    claims: &Claims,
    me: &str,
    name_of: impl Fn(&str) -> String,
) -> Result<u32, NoSlice> {
    let layout = Layout::of(network);
    let slices = layout.slices();
    let start = hash::pair(hash::text(name), hash::text(me)) % u64::from(slices.max(1));
    let start = u32::try_from(start).unwrap_or(0);
    // A slice of which everything is kept is of no use.
    let none = BTreeSet::new();
    let useful = |index: u32| layout.own_number(index, &none).is_some();
    let free = |index: &u32| !claims.contains_key(index) && useful(*index);
    let found = (start..slices).chain(0..start).find(free);
    found.ok_or_else(|| {
        let mut users: BTreeMap<&str, u32> = BTreeMap::new();
        for slice in claims.values() {
            *users.entry(&slice.node).or_default() += 1;
        }
        let users = users.into_iter();
        let users: Vec<_> = users.map(|(n, c)| format!("{}: {c}", name_of(n))).collect();
        let subnets: Vec<_> = network.pools().map(|p| p.subnet.to_string()).collect();
        NoSlice {
            network: name.to_owned(),
            slices,
            subnets: subnets.join(" and "),
            users: users.join(", "),
        }
    })
}

/// The slices of a node, oldest first.
#[must_use]
pub fn slices_of(claims: &Claims, node: &str) -> Vec<u32> {
    let own = claims.iter().filter(|(_, s)| s.node == node);
    let mut own: Vec<(i64, u32)> = own.map(|(index, s)| (s.since, *index)).collect();
    own.sort_unstable();
    own.into_iter().map(|(_, index)| index).collect()
}

/// A node's own addresses on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// What its containers have as gateway: what the file says, or the node's own addresses.
    pub gateway: Addresses,
    /// Addresses of this node alone: what leaves the host for the network comes from them. They are
    /// set on the bridge beside the gateway's, if they differ.
    pub own: Addresses,
}

/// A node's own addresses on a network; `None` if it has no slice of it. `fixed` are the static
/// addresses that files give to tasks.
#[must_use]
pub fn own(
    network: &Network,
    claims: &Claims,
    node: &str,
    fixed: &BTreeSet<IpAddr>,
) -> Option<Own> {
    let layout = Layout::of(network);
    let first = *slices_of(claims, node).first()?;
    let own = layout.addresses(layout.own_number(first, fixed)?);
    let given = layout.gateway();
    Some(Own {
        gateway: Addresses {
            v4: given.v4.or(own.v4),
            v6: given.v6.or(own.v6),
        },
        own,
    })
}

/// Addresses for a container from a node's slices; `None` if all are taken: then another slice is
/// claimed. `fixed` are the static addresses that files give to tasks, `used` all others on the
/// network that are seen, or were given just now; `last` is one that was given before: the search
/// goes on behind it, so that addresses rest before somebody else gets them.
#[must_use]
pub fn choose(
    network: &Network,
    claims: &Claims,
    node: &str,
    fixed: &BTreeSet<IpAddr>,
    used: &BTreeSet<IpAddr>,
    last: Option<IpAddr>,
) -> Option<Addresses> {
    let layout = Layout::of(network);
    let all = used.union(fixed);
    let used: BTreeSet<u32> = all.filter_map(|a| layout.number(*a)).collect();
    let mut slices = slices_of(claims, node);
    let own = layout.own_number(*slices.first()?, fixed);
    slices.sort_unstable();
    let last = last.and_then(|a| layout.number(a));
    let numbers = slices.iter().flat_map(|s| layout.numbers(*s));
    let mut free = numbers.filter(|n| Some(*n) != own && !used.contains(n));
    let first = free.next()?;
    let behind = |last: u32| std::iter::once(first).chain(free).find(|n| *n > last);
    let number = last.and_then(behind).unwrap_or(first);
    Some(layout.addresses(number))
}

/// What a node has to put right on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Slices that nobody has, though this node gives out their addresses: it claims them again.
    pub claim: BTreeSet<u32>,
    /// Addresses of containers here that are another node's by now, or outside of the network:
    /// these containers get new ones.
    pub moves: BTreeSet<IpAddr>,
}

/// What a node has to put right, given the addresses of its own containers on the network (neither its
/// gateways are among them, nor the static addresses of tasks that have theirs) and the static
/// addresses that files give to tasks.
#[must_use]
pub fn repairs(
    network: &Network,
    claims: &Claims,
    node: &str,
    here: &BTreeSet<IpAddr>,
    fixed: &BTreeSet<IpAddr>,
) -> Repairs {
    let layout = Layout::of(network);
    let own = own(network, claims, node, fixed).map(|o| o.own);
    let own = own.and_then(|a| layout.number(a.all().next()?));
    let mut repairs = Repairs::default();
    for address in here {
        if fixed.contains(address) {
            repairs.moves.insert(*address);
            continue;
        }
        let Some(number) = layout.number(*address) else {
            repairs.moves.insert(*address);
            continue;
        };
        match layout.slice(number) {
            Some(slice) => match claims.get(&slice) {
                // The gateway may have moved onto it: a slice that was the oldest is lost.
                Some(s) if s.node == node && Some(number) == own => {
                    repairs.moves.insert(*address);
                }
                Some(s) if s.node == node => {}
                Some(_) => {
                    repairs.moves.insert(*address);
                }
                None => {
                    repairs.claim.insert(slice);
                }
            },
            // Where services have theirs.
            None => {
                repairs.moves.insert(*address);
            }
        }
    }
    repairs
}

/// Slices that can be deleted: of nodes that are no members any longer, and those out of range
/// since the network has other subnets.
#[must_use]
pub fn stale(network: &Network, claims: &Claims, members: &BTreeSet<&str>) -> BTreeSet<u32> {
    let slices = Layout::of(network).slices();
    let gone = |(index, slice): &(&u32, &super::Slice)| {
        **index >= slices || !members.contains(slice.node.as_str())
    };
    claims
        .iter()
        .filter(gone)
        .map(|(index, _)| *index)
        .collect()
}
