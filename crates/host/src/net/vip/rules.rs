//! The table of services' addresses.
//!
//! `any4` (address → chain) and `ports4` (address . protocol . port → chain) lead to one of some
//! chains whose only rule draws a number and takes the backend from `backends4` (address . number →
//! backend). The same with 6 for IPv6. So a changed backend is a few changed entries of one hash
//! table, and no rule.
//!
//! There are few sets and chains on purpose, however many services: the kernel looks for a set by
//! going through all, and goes through all chains with each transaction. Services that share a
//! chain share its counter, which could go wrong only with clients that ask two in strict turn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::balance;
use super::super::nft::{
    At, Chain, Data, Draw, Edit, End, Field, Hook, Key, Load, NewPort, Reject, Rule, Set, TCP,
    Table, Type, Value, Verdict, concat,
};
use super::{Vip, VipPort};

/// Before Docker's and other rules at -100.
const BEFORE_NAT: i32 = -110;
/// After all of them, but before rules that filter.
const AFTER_NAT: i32 = -90;

/// How many counters there are for each modulus.
const COUNTERS: u64 = 64;

fn version(ipv6: bool) -> u8 {
    if ipv6 { 6 } else { 4 }
}

fn any(ipv6: bool) -> String {
    format!("any{}", version(ipv6))
}

fn ports(ipv6: bool) -> String {
    format!("ports{}", version(ipv6))
}

fn vips(ipv6: bool) -> String {
    format!("vips{}", version(ipv6))
}

/// The chain that draws a number for a service, and changes the port if that is asked for.
fn chain(vip: &Vip, modulus: u32, port: Option<&VipPort>) -> String {
    let version = version(vip.address.is_ipv6());
    let draw = if vip.affinity {
        format!("source{version}_{modulus}")
    } else {
        let counter = balance::mix(0, &prefix(vip.address)) % COUNTERS;
        format!("turn{version}_{modulus}_{counter}")
    };
    match port {
        None => draw,
        Some(port) => format!("{draw}.{}_{}", port.protocol, port.target),
    }
}

fn backends(ipv6: bool) -> String {
    format!("backends{}", version(ipv6))
}

/// What the keys of a service's elements begin with.
fn prefix(address: IpAddr) -> Vec<u8> {
    concat(&[address.into()])
}

/// What one service has of its own in the table.
struct Parts {
    chains: BTreeMap<String, Vec<Rule>>,
    /// Elements of `backends`, `any` and `ports`.
    backends: BTreeMap<Key, Value>,
    any: BTreeMap<Key, Value>,
    ports: BTreeMap<Key, Value>,
}

fn port_key(address: IpAddr, port: &VipPort) -> Key {
    let protocol = port.protocol.number(address.is_ipv6());
    let fields = [
        address.into(),
        Field::Protocol(protocol),
        Field::Port(port.port),
    ];
    concat(&fields).into()
}

fn parts(vip: &Vip, known: Option<&Set>, salt: u64) -> Parts {
    let (address, ipv6) = (vip.address, vip.address.is_ipv6());
    let wanted: BTreeSet<IpAddr> = vip.backends.iter().copied().collect();
    let known = known.map(|set| numbered(set, address)).unwrap_or_default();
    let places = if vip.affinity {
        balance::by_weight(&known, &wanted)
    } else {
        balance::in_turn(&known, &wanted, balance::mix(salt, &prefix(address)))
    };
    let modulus = u32::try_from(places.len()).unwrap_or(u32::MAX);
    let element = |(number, backend): (u32, &IpAddr)| {
        let key = concat(&[address.into(), Field::Mark(number)]);
        (key.into(), Value::Bytes(concat(&[(*backend).into()])))
    };
    let mut parts = Parts {
        chains: BTreeMap::new(),
        backends: (0..modulus).zip(&places).map(element).collect(),
        any: BTreeMap::new(),
        ports: BTreeMap::new(),
    };
    if wanted.is_empty() {
        return parts;
    }
    let draw = if vip.affinity {
        Draw::BySource { modulus, ipv6 }
    } else {
        Draw::InTurn(modulus)
    };
    let to = [Load::Address {
        end: End::Destination,
        ipv6,
    }];
    let dnat = |rule: Rule, port| vec![rule.dnat(&to, draw, &backends(ipv6), ipv6, port)];
    if vip.ports.is_empty() {
        // Without a port to change, any protocol will do: pings are answered by a task.
        let chain = chain(vip, modulus, None);
        parts.any.insert(prefix(address).into(), goto(&chain));
        parts.chains.insert(chain, dnat(Rule::new(), NewPort::Same));
        return parts;
    }
    for port in &vip.ports {
        let changed = (port.port != port.target).then_some(port);
        let chain = chain(vip, modulus, changed);
        let rules = match changed {
            None => dnat(Rule::new(), NewPort::Same),
            Some(port) => {
                let only = Rule::new().protocol(port.protocol.number(ipv6));
                dnat(only, NewPort::Given(port.target))
            }
        };
        parts.ports.insert(port_key(address, port), goto(&chain));
        parts.chains.insert(chain, rules);
    }
    parts
}

/// The backends of a service, by their numbers.
fn numbered(set: &Set, address: IpAddr) -> Vec<IpAddr> {
    let prefix = prefix(address);
    let entries = set.part(&prefix).filter_map(|(key, value)| {
        let number = u32::from_ne_bytes(key.bytes.get(prefix.len()..)?.try_into().ok()?);
        let Value::Bytes(bytes) = value else {
            return None;
        };
        let address = match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
        };
        Some((number, address))
    });
    entries.collect::<BTreeMap<_, _>>().into_values().collect()
}

fn goto(chain: &str) -> Value {
    Value::Verdict(Verdict::Goto(chain.to_owned()))
}

/// The table that does not depend on which services there are.
fn frame() -> Table {
    let mut table = Table::default();
    let mut nat = Vec::new();
    let mut unanswered = Vec::new();
    for ipv6 in [false, true] {
        let address = if ipv6 { Type::Ip6 } else { Type::Ip4 };
        let load = Load::Address {
            end: End::Destination,
            ipv6,
        };
        let key = [address, Type::Protocol, Type::Port];
        table
            .sets
            .insert(any(ipv6), Set::map([address], Data::Verdict));
        table.sets.insert(ports(ipv6), Set::map(key, Data::Verdict));
        table.sets.insert(vips(ipv6), Set::of([address]));
        let numbers = Set::map([address, Type::Mark], Data::Fields(vec![address]));
        table.sets.insert(backends(ipv6), numbers);

        let three = [load, Load::Protocol, Load::DestinationPort];
        let family = || Rule::new().family(ipv6);
        nat.push(family().verdict_map(&three, &ports(ipv6)));
        nat.push(family().verdict_map(&[load], &any(ipv6)));
        // What still has such an address has no backend, or is for a port that nobody answers.
        let to_vip = || family().in_set(&[load], &vips(ipv6), true);
        unanswered.push(to_vip().protocol(TCP).counter().reject(Reject::TcpReset));
        unanswered.push(to_vip().counter().reject(Reject::PortUnreachable));
    }
    let hook = Some(Hook::nat(At::Output, BEFORE_NAT));
    table
        .chains
        .insert("output".into(), Chain { hook, rules: nat });
    let hook = Some(Hook::filter(At::Output, AFTER_NAT));
    table.chains.insert(
        "unanswered".into(),
        Chain {
            hook,
            rules: unanswered,
        },
    );
    table
}

/// The whole table. Backends keep the numbers they have in the known one.
pub(super) fn table(all: &[Vip], known: Option<&Table>, salt: u64) -> Table {
    let mut table = frame();
    for vip in all {
        let (address, ipv6) = (vip.address, vip.address.is_ipv6());
        let set = known.and_then(|known| known.sets.get(&backends(ipv6)));
        let parts = parts(vip, set, salt);
        for (name, rules) in parts.chains {
            table.chains.insert(name, Chain { hook: None, rules });
        }
        let own = BTreeMap::from([(prefix(address).into(), Value::None)]);
        let all = [
            (vips(ipv6), own),
            (backends(ipv6), parts.backends),
            (any(ipv6), parts.any),
            (ports(ipv6), parts.ports),
        ];
        for (name, elements) in all {
            if let Some(set) = table.sets.get_mut(&name) {
                set.elements.extend(elements);
            }
        }
    }
    table
}

/// Changes one service. Chains that nothing leads to any more stay until the whole table is
/// looked at.
pub(super) fn change(edit: &mut Edit<'_>, vip: &Vip, salt: u64) {
    let (address, ipv6) = (vip.address, vip.address.is_ipv6());
    let parts = parts(vip, edit.table().sets.get(&backends(ipv6)), salt);
    let own = prefix(address);
    for (name, rules) in &parts.chains {
        edit.rules(name, rules);
    }
    edit.put(&vips(ipv6), own.clone(), Value::None);
    edit.part(&backends(ipv6), &own, &parts.backends);
    edit.part(&any(ipv6), &own, &parts.any);
    edit.part(&ports(ipv6), &own, &parts.ports);
}

/// Removes one service.
pub(super) fn remove(edit: &mut Edit<'_>, address: IpAddr) {
    let ipv6 = address.is_ipv6();
    let own = prefix(address);
    for set in [vips(ipv6), any(ipv6), ports(ipv6), backends(ipv6)] {
        edit.part(&set, &own, &BTreeMap::new());
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Protocol;
    use super::*;

    fn vip(last: u8, backends: &[u8]) -> Vip {
        Vip {
            address: [10, 0, 0, last].into(),
            ports: Vec::new(),
            backends: backends
                .iter()
                .map(|last| [10, 0, 1, *last].into())
                .collect(),
            affinity: false,
        }
    }

    #[test]
    fn a_service_has_a_chain_and_numbers() {
        let table = table(&[vip(1, &[1, 2]), vip(2, &[])], None, 7);
        let places = numbered(&table.sets["backends4"], [10, 0, 0, 1].into());
        assert_eq!(places.len(), 12);
        // One without backends is known, and leads nowhere.
        assert_eq!(table.sets["vips4"].elements.len(), 2);
        assert_eq!(table.sets["any4"].elements.len(), 1);
    }

    #[test]
    fn many_services_share_few_chains() {
        let all: Vec<Vip> = (0..=255).map(|last| vip(last, &[1, 2, 3])).collect();
        let table = table(&all, None, 0);
        assert_eq!(table.sets["any4"].elements.len(), 256);
        assert!(
            (50..=66).contains(&table.chains.len()),
            "{}",
            table.chains.len()
        );
    }

    #[test]
    fn what_belongs_to_an_address_is_found_by_it() {
        let port = |port, target| VipPort {
            protocol: Protocol::Tcp,
            port,
            target,
        };
        let with_port = |last| Vip {
            ports: vec![port(80, 8080)],
            ..vip(last, &[1])
        };
        let table = table(&[with_port(1), with_port(10), with_port(11)], None, 0);
        let prefix = prefix([10, 0, 0, 1].into());
        let keys: Vec<_> = table.sets["ports4"].part(&prefix).collect();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].0.bytes, [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
        let chains: Vec<_> = table
            .chains
            .keys()
            .filter(|name| name.contains('.'))
            .collect();
        assert!(
            chains.iter().all(|name| name.ends_with(".tcp_8080")),
            "{chains:?}"
        );
    }
}
