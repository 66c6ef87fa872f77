//! Tables as plain values: what is wanted, and what was written.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;

use super::expr::Verdict;
use super::field::{Field, Type};
use super::rule::Rule;

/// `NFPROTO_*`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    Ip = 2,
    /// Of one device. A chain with a hook has the name of its device.
    Netdev = 5,
    Bridge = 7,
    Ip6 = 10,
}

impl Family {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Inet, Self::Ip, Self::Netdev, Self::Bridge, Self::Ip6];
        all.into_iter().find(|family| *family as u8 == number)
    }
}

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableId<'a> {
    pub(crate) family: Family,
    pub(crate) name: &'a str,
}

impl fmt::Display for TableId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Netdev => "netdev",
            Family::Bridge => "bridge",
            Family::Ip6 => "ip6",
        };
        write!(f, "{family} {}", self.name)
    }
}

/// All that is in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) chains: BTreeMap<String, Chain>,
    pub(crate) sets: BTreeMap<String, Set>,
}

/// A chain: one that packets come through (`hook`), or one that rules lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// `NF_INET_*`; `NF_BR_*` have the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// The kind of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
    /// Routes a packet again if its mark changed.
    Route,
}

/// What becomes of packets that no rule decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Drop = 0,
    Accept = 1,
}

/// Where packets come into a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) kind: ChainKind,
    pub(crate) at: At,
    pub(crate) priority: i32,
    pub(crate) policy: Policy,
}

impl Hook {
    pub(crate) fn filter(at: At, priority: i32) -> Self {
        let (kind, policy) = (ChainKind::Filter, Policy::Accept);
        Self {
            kind,
            at,
            priority,
            policy,
        }
    }

    /// In tables of devices: what comes in by one (`NF_NETDEV_INGRESS` has the number of `Prerouting`).
    pub(crate) fn ingress(priority: i32) -> Self {
        Self::filter(At::Prerouting, priority)
    }

    pub(crate) fn nat(at: At, priority: i32) -> Self {
        let kind = ChainKind::Nat;
        Self {
            kind,
            ..Self::filter(at, priority)
        }
    }

    pub(crate) fn route(at: At, priority: i32) -> Self {
        let kind = ChainKind::Route;
        Self {
            kind,
            ..Self::filter(at, priority)
        }
    }

    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }
}

/// A set, or a map if it has data.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) key: Vec<Type>,
    pub(crate) data: Data,
    /// Whether elements are where ranges begin and end (see [`ranges`]).
    pub(crate) interval: bool,
    /// How many elements the kernel was told to make room for, once it is there. Without, it makes
    /// room as it goes, and when many come at once it cannot keep up, and begins again and again.
    pub(super) room: usize,
    pub(crate) elements: BTreeMap<Key, Value>,
}

/// What a map leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing: it is a set.
    None,
    Fields(Vec<Type>),
    Verdict,
}

/// The key of an element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) bytes: Vec<u8>,
    /// The first that is no longer in a range (`NFT_SET_ELEM_INTERVAL_END`).
    pub(crate) end: bool,
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, end: false }
    }
}

/// What an element of a map leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Bytes(Vec<u8>),
    Verdict(Verdict),
}

impl PartialEq for Set {
    /// How much room there is says nothing about what is in it.
    fn eq(&self, other: &Self) -> bool {
        self.same_kind(other) && self.elements == other.elements
    }
}

impl Eq for Set {}

impl Set {
    pub(crate) fn of(key: impl Into<Vec<Type>>) -> Self {
        Self {
            key: key.into(),
            data: Data::None,
            interval: false,
            room: 0,
            elements: BTreeMap::new(),
        }
    }

    pub(crate) fn map(key: impl Into<Vec<Type>>, data: Data) -> Self {
        Self {
            data,
            ..Self::of(key)
        }
    }

    pub(crate) fn with(mut self, keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let elements = keys.into_iter().map(|key| (Key::from(key), Value::None));
        self.elements.extend(elements);
        self
    }

    pub(crate) fn with_ranges(mut self, ends: Vec<Key>) -> Self {
        self.interval = true;
        self.elements
            .extend(ends.into_iter().map(|key| (key, Value::None)));
        self
    }

    /// The elements whose keys begin so.
    pub(crate) fn part(&self, prefix: &[u8]) -> impl Iterator<Item = (&Key, &Value)> {
        let from = self.elements.range(Key::from(prefix.to_vec())..);
        from.take_while(move |(key, _)| key.bytes.starts_with(prefix))
    }

    /// Twice what is in it. When it is full it is made anew, with the whole table.
    pub(super) fn with_room(&self) -> Self {
        const LEAST: usize = 64;
        let room = (self.elements.len() * 2).next_power_of_two().max(LEAST);
        Self {
            room,
            ..self.clone()
        }
    }

    /// Of one that was found the room is not known: then the kernel says so.
    pub(super) fn is_too_small_for(&self, wanted: &Self) -> bool {
        !self.interval && self.room > 0 && wanted.elements.len() > self.room
    }

    pub(super) fn same_kind(&self, other: &Self) -> bool {
        (&self.key, &self.data, self.interval) == (&other.key, &other.data, other.interval)
    }
}

/// Ranges, both ends included, as the elements of an interval set: in order, and those that touch
/// each other made one, since the kernel refuses what overlaps.
pub(crate) fn ranges(all: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<Key> {
    let mut sorted: Vec<_> = all.into_iter().collect();
    sorted.sort();
    let mut keys = Vec::new();
    let mut pending: Option<(Vec<u8>, Option<Vec<u8>>)> = None;
    for (low, high) in sorted {
        let after = successor(&high);
        match &mut pending {
            // The end is the first that is not in it; without one it goes to the very end.
            Some((_, end)) if end.as_ref().is_none_or(|end| *end >= low) => {
                if after.is_none() || end.as_ref().is_some_and(|end| Some(end) < after.as_ref()) {
                    *end = end.take().and(after);
                }
            }
            _ => close(&mut keys, pending.replace((low, after))),
        }
    }
    close(&mut keys, pending);
    keys
}

fn close(keys: &mut Vec<Key>, range: Option<(Vec<u8>, Option<Vec<u8>>)>) {
    let Some((low, end)) = range else { return };
    keys.push(low.into());
    keys.extend(end.map(|bytes| Key { bytes, end: true }));
}

/// The next number, in network order; none after the last.
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(next);
        }
    }
    None
}

/// A subnet as a range.
pub(crate) fn range_of(subnet: IpNet) -> (Vec<u8>, Vec<u8>) {
    let bytes = |address| Field::Address(address).bytes();
    (bytes(subnet.network()), bytes(subnet.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(all: &[(u16, u16)]) -> Vec<(u16, bool)> {
        let bytes = |port: u16| port.to_be_bytes().to_vec();
        let keys = ranges(all.iter().map(|(low, high)| (bytes(*low), bytes(*high))));
        let port = |key: Key| (u16::from_be_bytes([key.bytes[0], key.bytes[1]]), key.end);
        keys.into_iter().map(port).collect()
    }

    #[test]
    fn ranges_are_ordered_and_joined() {
        assert_eq!(ports(&[]), []);
        assert_eq!(ports(&[(80, 80)]), [(80, false), (81, true)]);
        let joined = [(10, false), (31, true), (80, false), (82, true)];
        assert_eq!(
            ports(&[(80, 80), (10, 20), (81, 81), (15, 30), (16, 17)]),
            joined
        );
        assert_eq!(ports(&[(1, 65535), (80, 90)]), [(1, false)]);
        assert_eq!(ports(&[(80, 65535), (80, 90), (90, 65535)]), [(80, false)]);
        assert_eq!(ports(&[(80, 90), (85, 65535)]), [(80, false)]);
    }

    #[test]
    fn a_subnet_is_a_range() {
        let (low, high) = range_of("10.1.2.3/16".parse().unwrap());
        assert_eq!((low, high), (vec![10, 1, 0, 0], vec![10, 1, 255, 255]));
        let (_, high) = range_of("::/0".parse().unwrap());
        assert_eq!(successor(&high), None);
    }
}
