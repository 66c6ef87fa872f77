//! What published ports and addresses on the LAN have in common: the destination of a connection
//! becomes one task after another, and answers find back.
//!
//! `tasks4` (what was asked for . number → task) has the tasks, and chains whose only rule draws a
//! number lead there; a few chains for all, since the kernel goes through all with each
//! transaction. The same with 6 for IPv6.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::balance;
use super::nft::{
    End, Field, Key, Load, Rule, Set, Table, Type, Value, Verdict, concat, range_of, ranges,
};

/// How many counters there are for each modulus.
const COUNTERS: u64 = 1 << COUNTER_BITS;
const COUNTER_BITS: u32 = 6;

/// The name of a family's set.
pub(crate) fn named(what: &str, ipv6: bool) -> String {
    format!("{what}{}", if ipv6 { 6 } else { 4 })
}

/// A family's addresses.
pub(crate) fn kind(ipv6: bool) -> Type {
    if ipv6 { Type::Ip6 } else { Type::Ip4 }
}

/// What the tasks behind one destination take turns by.
pub(crate) struct Turns {
    /// The chain that draws a number, and how many numbers there are.
    pub(crate) chain: String,
    pub(crate) modulus: u32,
    /// The chain's number.
    pub(crate) number: u32,
    /// What leads to it.
    pub(crate) verdict: Value,
    /// The elements of `tasks`.
    pub(crate) tasks: BTreeMap<Key, Value>,
}

impl Turns {
    /// Those of the destination whose elements' keys begin with `own`. Tasks keep the numbers that
    /// they have in the known set. With a port this follows the tasks' addresses.
    pub(crate) fn new(
        own: &[u8],
        wanted: &BTreeSet<IpAddr>,
        port: Option<u16>,
        (known, salt): (Option<&Set>, u64),
        ipv6: bool,
    ) -> Self {
        let known = known
            .map(|set| numbered(set, own, ipv6))
            .unwrap_or_default();
        let places = balance::in_turn(&known, wanted, balance::mix(salt, own));
        let modulus = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let task = |(number, task): (u32, &IpAddr)| {
            let key = [own.to_vec(), concat(&[Field::Mark(number)])].concat();
            let address = Field::Address(*task);
            let value = match port {
                Some(port) => concat(&[address, Field::Port(port)]),
                None => concat(&[address]),
            };
            (key.into(), Value::Bytes(value))
        };
        let counter = balance::mix(0, own) % COUNTERS;
        let chain = format!("{}_{modulus}_{counter}", named("turn", ipv6));
        Self {
            verdict: Value::Verdict(Verdict::Goto(chain.clone())),
            number: modulus << COUNTER_BITS | u32::try_from(counter).unwrap_or(0),
            chain,
            modulus,
            tasks: (0..modulus).zip(&places).map(task).collect(),
        }
    }
}

/// The tasks of a destination, by their numbers.
pub(crate) fn numbered(set: &Set, prefix: &[u8], ipv6: bool) -> Vec<IpAddr> {
    let entries = set.part(prefix).filter_map(|(key, value)| {
        let number = u32::from_ne_bytes(key.bytes.get(prefix.len()..)?.try_into().ok()?);
        let Value::Bytes(bytes) = value else {
            return None;
        };
        // A port may follow.
        let address = match ipv6 {
            false => IpAddr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?),
            true => IpAddr::from(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?),
        };
        Some((number, address))
    });
    entries.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Where the client's address cannot stay: tasks of other hosts from which no way leads back (`lost`),
/// and clients in containers, whose answer would take a shortcut (`subnets`). Makes both sets, and the
/// rules that begin with `led`, which tells the connections that are meant.
pub(crate) fn way_back(
    table: &mut Table,
    subnets: &[IpNet],
    no_way_back: &[IpAddr],
    led: impl Fn(bool) -> Rule,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for ipv6 in [false, true] {
        let own = |address: &IpAddr| address.is_ipv6() == ipv6;
        let lost = no_way_back.iter().filter(|task| own(task));
        let lost = Set::of([kind(ipv6)]).with(lost.map(|task| concat(&[(*task).into()])));
        let near = subnets.iter().filter(|subnet| own(&subnet.addr()));
        let near = ranges(near.map(|subnet| range_of(*subnet)));
        let near = Set::of([kind(ipv6)]).with_ranges(near);
        table.sets.insert(named("lost", ipv6), lost);
        table.sets.insert(named("subnets", ipv6), near);
        let end = |end| [Load::Address { end, ipv6 }];
        let (from, to) = (end(End::Source), end(End::Destination));
        let lost = led(ipv6).in_set(&to, &named("lost", ipv6), true);
        let near = led(ipv6)
            .in_set(&from, &named("subnets", ipv6), true)
            .in_set(&to, &named("subnets", ipv6), true);
        rules.extend([lost.masquerade(), near.masquerade()]);
    }
    rules
}
