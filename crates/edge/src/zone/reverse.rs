//! Reverse zones (RFC 1035 section 3.5, RFC 3596 section 2.5): names of addresses, from the records
//! of the zone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::content::{Content, Start};
use super::name::Name;
use super::record::{Data, Record};
use crate::dns::wire::kind;

/// Larger networks are divided into no more zones than this.
const MOST: u32 = 256;

/// The reverse zones of networks, with a name for each address that the zone has there: a node's
/// name before others, a short one before a long one, that of the zone itself last. Servers and times are those of the zone.
#[must_use]
pub fn reverse_zones(zone: &Content, networks: &[IpNet]) -> (Vec<Content>, Vec<String>) {
    let mut words = Vec::new();
    let mut names: BTreeMap<IpAddr, &Record> = BTreeMap::new();
    let servers: Vec<Name> = zone
        .records()
        .iter()
        .filter(|r| r.kind == kind::NS && r.name == zone.start().origin)
        .filter_map(Record::target)
        .collect();
    let rank = |r: &Record| {
        let other = !servers.contains(&r.name);
        let apex = r.name == zone.start().origin;
        (other, apex, r.name.labels().count(), r.name.clone())
    };
    for record in zone.records() {
        let wild = record.name.labels().next() == Some(b"*");
        if let Some(address) = record.address().filter(|_| !wild) {
            let named = names.entry(address).or_insert(record);
            if rank(record) < rank(named) {
                *named = record;
            }
        }
    }
    let mut origins: BTreeMap<Name, IpNet> = BTreeMap::new();
    for network in networks {
        match zones_of(*network) {
            Some(zones) => origins.extend(zones.into_iter().filter_map(|n| Some((origin(n)?, n)))),
            None => words.push(format!(
                "{network} has no reverse zone: it would be more than {MOST} of them; give smaller networks"
            )),
        }
    }
    let zones = origins.into_iter().map(|(origin, network)| {
        let start = Start {
            origin,
            ..zone.start().clone()
        };
        let inside = names.range(first(network)..=last(network));
        let pointer = |(address, record): (&IpAddr, &&Record)| {
            let data = Data::Pointer(record.name.clone());
            Some(Record::new(pointer_name(*address)?, record.ttl, &data))
        };
        let (content, faults) = Content::new(start, &servers, inside.filter_map(pointer).collect());
        words.extend(faults);
        content
    });
    let zones = zones.collect();
    (zones, words)
}

fn first(network: IpNet) -> IpAddr {
    network.network()
}

fn last(network: IpNet) -> IpAddr {
    network.broadcast()
}

/// Zones end at whole bytes of IPv4 and half bytes of IPv6: a network between is several.
fn zones_of(network: IpNet) -> Option<Vec<IpNet>> {
    let step = if network.addr().is_ipv4() { 8 } else { 4 };
    let length = network.prefix_len().div_ceil(step) * step;
    // A single address, or a whole family, is no zone.
    let length = length.clamp(step, network.max_prefix_len() - step);
    let network = match length < network.prefix_len() {
        true => IpNet::new(network.addr(), length).ok()?.trunc(),
        false => network.trunc(),
    };
    let count = 1_u32.checked_shl(u32::from(length - network.prefix_len()))?;
    (count <= MOST).then(|| network.subnets(length).ok().map(Iterator::collect))?
}

fn origin(network: IpNet) -> Option<Name> {
    let step = if network.addr().is_ipv4() { 8 } else { 4 };
    name_of(network.network(), network.prefix_len() / step)
}

/// The name that has the PTR of an address.
#[must_use]
pub(crate) fn pointer_name(address: IpAddr) -> Option<Name> {
    name_of(address, if address.is_ipv4() { 4 } else { 32 })
}

fn name_of(address: IpAddr, parts: u8) -> Option<Name> {
    let (all, end): (Vec<String>, &str) = match address {
        IpAddr::V4(a) => (
            a.octets().iter().map(u8::to_string).collect(),
            "in-addr.arpa",
        ),
        IpAddr::V6(a) => {
            let nibbles = a.octets().into_iter().flat_map(|b| [b >> 4, b & 15]);
            (nibbles.map(|n| format!("{n:x}")).collect(), "ip6.arpa")
        }
    };
    let mut name: Name = end.parse().ok()?;
    for part in all.iter().take(usize::from(parts)) {
        name = name.child(part)?;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::file::{export, import};

    #[test]
    fn addresses_have_names() {
        let origin: Name = "z".parse().unwrap();
        let text = "@ A 10.1.2.3\na A 10.1.2.3\nweb.shop A 10.1.3.4\nweb A 10.1.3.4\n*.w A 10.1.3.5\nns A 10.1.3.4\nb AAAA 2001:db8::1";
        let records = import(text, "f", &origin, 5).unwrap().records;
        let servers = ["ns.z".parse().unwrap()];
        let (content, _) = Content::new(Start::new(origin), &servers, records);
        let networks = [
            "10.1.2.0/23",
            "2001:db8::/32",
            "10.0.0.0/8",
            "10.0.0.0/15",
            "0.0.0.0/0",
        ];
        let networks = networks.map(|n| n.parse().unwrap());
        let (zones, words) = reverse_zones(&content, &networks[..2]);
        assert!(words.is_empty());
        let shown: String = zones
            .iter()
            .map(|z| export(&z.start().origin, None, z.records()).replace('\t', " "))
            .collect();
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0";
        for want in [
            "$ORIGIN 2.1.10.in-addr.arpa.",
            "\n3.2.1.10.in-addr.arpa. 5 IN PTR a.z.",
            "\n4.3.1.10.in-addr.arpa. 5 IN PTR ns.z.",
            "\n3.1.10.in-addr.arpa. 300 IN NS ns.z.",
            &format!("\n{v6}.8.b.d.0.1.0.0.2.ip6.arpa. 5 IN PTR b.z."),
        ] {
            assert!(shown.contains(want), "{want} in\n{shown}");
        }
        assert!(!shown.contains("\n5.3.1.10"));
        assert_eq!(reverse_zones(&content, &networks[2..4]).0.len(), 3);
        assert_eq!(reverse_zones(&content, &networks[4..]).0.len(), 256);
        let one = [
            "10.1.2.3/32".parse().unwrap(),
            "2001:db8::/64".parse().unwrap(),
        ];
        assert_eq!(reverse_zones(&content, &one).0.len(), 2);
    }
}
