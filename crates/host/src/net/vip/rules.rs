//! The table of services' addresses.
//!
//! `any4` (address → chain) and `ports4` (address . protocol . port → chain) lead to a chain for
//! each service, whose one rule takes the next backend from the service's own numbered map. So
//! a changed backend is a changed entry of a small map, and one rule. The same with 6 for IPv6.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use super::super::balance;
use super::super::nft::{
    At, Chain, Data, Edit, End, Field, Hook, Load, Reject, Rule, Set, TCP, Table, Type, Value,
    Verdict, by_source, concat, round_robin,
};
use super::{Vip, VipPort};

/// Before Docker's and other rules at -100.
const BEFORE_NAT: i32 = -110;
/// After all of them, but before rules that filter.
const AFTER_NAT: i32 = -90;

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

/// The part of names that is the address's. No name begins with another's and a dot.
fn plain(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "_")
}

fn chain_of(address: IpAddr) -> String {
    format!("vip_{}", plain(address))
}

fn chain_of_port(address: IpAddr, port: &VipPort) -> String {
    format!("vip_{}.{}_{}", plain(address), port.protocol, port.port)
}

fn map_of(address: IpAddr) -> String {
    format!("to_{}", plain(address))
}

/// What one service has of its own in the table.
struct Parts {
    backends: Set,
    chains: BTreeMap<String, Vec<Rule>>,
    /// Elements of `any`.
    any: Option<String>,
    /// Elements of `ports`.
    ports: BTreeMap<Vec<u8>, String>,
}

fn port_key(address: IpAddr, port: &VipPort) -> Vec<u8> {
    let protocol = port.protocol.number(address.is_ipv6());
    concat(&[
        address.into(),
        Field::Protocol(protocol),
        Field::Port(port.port),
    ])
}

fn parts(vip: &Vip, known: Option<&Set>, salt: u64) -> Parts {
    let (address, ipv6) = (vip.address, vip.address.is_ipv6());
    let wanted: BTreeSet<IpAddr> = vip.backends.iter().copied().collect();
    let places = if vip.affinity {
        balance::by_weight(&wanted)
    } else {
        let known = known.map(numbered).unwrap_or_default();
        let salt = balance::mix(salt, &concat(&[address.into()]));
        balance::in_turn(&known, &wanted, salt)
    };
    let fields = Data::Fields(vec![Type::address(address)]);
    let mut backends = Set::map([Type::Mark], fields);
    let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
    let places = (0..count).zip(&places).map(|(number, backend)| {
        let backend = Value::Bytes(concat(&[(*backend).into()]));
        (concat(&[Field::Mark(number)]).into(), backend)
    });
    backends.elements = places.collect();

    let number = || {
        if vip.affinity {
            by_source(ipv6, count)
        } else {
            round_robin(count)
        }
    };
    let map = map_of(address);
    let note = format!("{} backends", wanted.len());
    let mut parts = Parts {
        backends,
        chains: BTreeMap::new(),
        any: None,
        ports: BTreeMap::new(),
    };
    if wanted.is_empty() {
        return parts;
    }
    // Without a port to change, any protocol will do: pings are answered by a task.
    let plain = vec![
        Rule::new()
            .dnat(number(), &map, ipv6, None)
            .note(note.clone()),
    ];
    if vip.ports.is_empty() {
        parts.any = Some(chain_of(address));
        parts.chains.insert(chain_of(address), plain);
        return parts;
    }
    for port in &vip.ports {
        let chain = if port.port == port.target {
            parts.chains.insert(chain_of(address), plain.clone());
            chain_of(address)
        } else {
            let only = Rule::new().protocol(port.protocol.number(ipv6));
            let rule = only.dnat(number(), &map, ipv6, Some(port.target));
            let chain = chain_of_port(address, port);
            parts
                .chains
                .insert(chain.clone(), vec![rule.note(note.clone())]);
            chain
        };
        parts.ports.insert(port_key(address, port), chain);
    }
    parts
}

/// The backends of a map, by their numbers.
fn numbered(set: &Set) -> Vec<IpAddr> {
    let entries = set.elements.iter().filter_map(|(key, value)| {
        let number = u32::from_ne_bytes(key.bytes.as_slice().try_into().ok()?);
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
        let set = known.and_then(|known| known.sets.get(&map_of(address)));
        let parts = parts(vip, set, salt);
        table.sets.insert(map_of(address), parts.backends);
        for (name, rules) in parts.chains {
            table.chains.insert(name, Chain { hook: None, rules });
        }
        let key = concat(&[address.into()]);
        let mut put = |set: String, key: Vec<u8>, value: Value| {
            let set = table.sets.get_mut(&set);
            set.map(|set| set.elements.insert(key.into(), value));
        };
        put(vips(ipv6), key.clone(), Value::None);
        if let Some(chain) = &parts.any {
            put(any(ipv6), key, goto(chain));
        }
        for (key, chain) in &parts.ports {
            put(ports(ipv6), key.clone(), goto(chain));
        }
    }
    table
}

/// What a service has in a table now: keys of `ports`, and chains.
fn present(table: &Table, address: IpAddr) -> (Vec<Vec<u8>>, Vec<String>) {
    let mut low = concat(&[address.into()]);
    low.resize(low.len().next_multiple_of(4), 0);
    let mut keys = Vec::new();
    if let Some(set) = table.sets.get(&ports(address.is_ipv6())) {
        let from = set
            .elements
            .range(super::super::nft::Key::from(low.clone())..);
        let own = from.take_while(|(key, _)| key.bytes.starts_with(&low));
        keys.extend(own.map(|(key, _)| key.bytes.clone()));
    }
    let chain = chain_of(address);
    let mut chains: Vec<String> = table
        .chains
        .contains_key(&chain)
        .then(|| chain.clone())
        .into_iter()
        .collect();
    // A slash comes right after a dot.
    let bounds = (
        Bound::Included(format!("{chain}.")),
        Bound::Excluded(format!("{chain}/")),
    );
    chains.extend(table.chains.range(bounds).map(|(name, _)| name.clone()));
    (keys, chains)
}

/// Changes one service.
pub(super) fn change(edit: &mut Edit<'_>, vip: &Vip, salt: u64) {
    let (address, ipv6) = (vip.address, vip.address.is_ipv6());
    let key = concat(&[address.into()]);
    let known = edit.table().sets.get(&map_of(address));
    let parts = parts(vip, known, salt);
    let (keys, chains) = present(edit.table(), address);

    edit.put(&vips(ipv6), key.clone(), Value::None);
    edit.set(&map_of(address), &parts.backends);
    for (name, rules) in &parts.chains {
        edit.rules(name, rules);
    }
    match &parts.any {
        Some(chain) => edit.put(&any(ipv6), key, goto(chain)),
        None => edit.take(&any(ipv6), key),
    }
    for (key, chain) in &parts.ports {
        edit.put(&ports(ipv6), key.clone(), goto(chain));
    }
    for key in keys
        .into_iter()
        .filter(|key| !parts.ports.contains_key(key))
    {
        edit.take(&ports(ipv6), key);
    }
    for chain in chains
        .iter()
        .filter(|chain| !parts.chains.contains_key(*chain))
    {
        edit.drop_chain(chain);
    }
}

/// Removes one service.
pub(super) fn remove(edit: &mut Edit<'_>, address: IpAddr) {
    let ipv6 = address.is_ipv6();
    let key = concat(&[address.into()]);
    let (keys, chains) = present(edit.table(), address);
    edit.take(&vips(ipv6), key.clone());
    edit.take(&any(ipv6), key);
    for key in keys {
        edit.take(&ports(ipv6), key);
    }
    for chain in chains {
        edit.drop_chain(&chain);
    }
    edit.drop_set(&map_of(address));
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
    fn a_service_has_a_map_and_a_chain_of_its_own() {
        let table = table(&[vip(1, &[1, 2]), vip(2, &[])], None, 7);
        assert_eq!(numbered(&table.sets["to_10_0_0_1"]).len(), 2);
        assert!(table.chains.contains_key("vip_10_0_0_1"));
        // One without backends is known, and leads nowhere.
        assert!(!table.chains.contains_key("vip_10_0_0_2"));
        assert_eq!(table.sets["vips4"].elements.len(), 2);
        assert_eq!(table.sets["any4"].elements.len(), 1);
    }

    #[test]
    fn what_belongs_to_an_address_is_not_mixed_up_with_a_longer_one() {
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
        let (keys, chains) = present(&table, [10, 0, 0, 1].into());
        assert_eq!(chains, ["vip_10_0_0_1.tcp_80"]);
        assert_eq!(keys, [[10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]]);
    }
}
