//! Reverse zones (RFC 1035 section 3.5, RFC 3596 section 2.5): names of addresses, from the records
//! of the zone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::content::{Content, Start};
use super::name::Name;
use super::record::{Data, Record};
use crate::dns::wire::kind;

/// Larger networks are divided into no more zones than this.
const MOST: u32 = 256;

/// Addresses from one to another, whose names are the cluster's alone.
pub type Span = RangeInclusive<IpAddr>;

/// A reverse zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub origin: Name,
    /// Its addresses.
    pub network: IpNet,
    /// Zone below it that has the names of the cluster, if others have addresses in it too: those who keep it
    /// lead there address by address (RFC 2317).
    pub below: Option<Name>,
}

/// The reverse zones of networks for a zone; `own` are the cluster's addresses. And in words which networks are
/// too large.
#[must_use]
pub fn parts(zone: &Name, networks: &[IpNet], own: &[Span]) -> (Vec<Part>, Vec<String>) {
    let mut words = Vec::new();
    let mut origins: BTreeMap<Name, IpNet> = BTreeMap::new();
    for network in networks {
        match zones_of(*network) {
            Some(zones) => origins.extend(zones.into_iter().filter_map(|n| Some((origin(n)?, n)))),
            None => words.push(format!(
                "{network} has no reverse zone: it would be more than {MOST} of them; give smaller networks"
            )),
        }
    }
    // No address has such a label, nor another cluster with addresses in the same network.
    let label = zone.labels().next().map(String::from_utf8_lossy);
    let label = format!("cluster-{}", label.unwrap_or_default());
    let parts = origins.into_iter().map(|(origin, network)| {
        let below = || origin.child(&label).or_else(|| origin.child("cluster"));
        Part {
            below: below().filter(|_| !is_whole(network, own)),
            network,
            origin,
        }
    });
    (parts.collect(), words)
}

impl Part {
    /// The name below that stands for the one of an address.
    fn moved(&self, address: IpAddr) -> Option<Name> {
        let below = self.below.as_ref()?;
        Name::read(&pointer_name(address)?.relative(&self.origin)?, below).ok()
    }

    /// The names of the cluster's addresses in it, each with the one below that it has to lead to.
    pub fn aliases<'a>(&'a self, own: &'a [Span]) -> impl Iterator<Item = (Name, Name)> + 'a {
        let (begin, end) = (bits(first(self.network)), bits(last(self.network)));
        let inside = own.iter().filter(|s| is_of_family(s, self.network));
        let each = inside.flat_map(move |s| bits(*s.start()).max(begin)..=bits(*s.end()).min(end));
        let ipv4 = self.network.addr().is_ipv4();
        each.filter_map(move |bits| {
            let address = match ipv4 {
                true => IpAddr::from(Ipv4Addr::from_bits(u32::try_from(bits).ok()?)),
                false => IpAddr::from(Ipv6Addr::from_bits(bits)),
            };
            Some((pointer_name(address)?, self.moved(address)?))
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn is_of_family(span: &Span, network: IpNet) -> bool {
    span.start().is_ipv4() == network.addr().is_ipv4()
}

/// Whether all addresses of a network are in spans, but for the name of one of IPv4 and the address for all.
fn is_whole(network: IpNet, own: &[Span]) -> bool {
    let ends = u128::from(network.addr().is_ipv4());
    let (mut next, last) = (bits(first(network)) + ends, bits(last(network)) - ends);
    let of = own.iter().filter(|s| is_of_family(s, network));
    let mut spans: Vec<(u128, u128)> = of.map(|s| (bits(*s.start()), bits(*s.end()))).collect();
    spans.sort_unstable();
    for (from, to) in spans {
        if from > next {
            return false;
        }
        if to >= last {
            return true;
        }
        next = next.max(to + 1);
    }
    false
}

/// The reverse zones of networks, with a name for each address that the zone has there: a node's name before
/// others, a short one before a long one, that of the zone itself last. Servers and times are those of the zone;
/// of its servers only those that are nodes: nobody said that the others have these zones. See [`parts`].
#[must_use]
pub fn reverse_zones(
    zone: &Content,
    networks: &[IpNet],
    own: &[Span],
) -> (Vec<Content>, Vec<String>) {
    let apex = &zone.start().origin;
    let (parts, mut words) = parts(apex, networks, own);
    let mut names: BTreeMap<IpAddr, &Record> = BTreeMap::new();
    let servers: Vec<Name> = zone
        .records()
        .iter()
        .filter(|r| r.kind == kind::NS && r.name == *apex)
        .filter_map(Record::target)
        .filter(|server| server.is_in(apex))
        .collect();
    let rank = |r: &Record| {
        let other = !servers.contains(&r.name);
        let last = r.name == *apex;
        (other, last, r.name.labels().count(), r.name.clone())
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
    let mut make = |origin: Name, shared, records| {
        let start = Start {
            origin,
            shared,
            ..zone.start().clone()
        };
        let (content, faults) = Content::new(start, &servers, records);
        words.extend(faults);
        content
    };
    let mut zones = Vec::new();
    for part in parts {
        let inside = || names.range(first(part.network)..=last(part.network));
        let pointer = |record: &Record, name: Option<Name>| {
            let data = Data::Pointer(record.name.clone());
            Some(Record::new(name?, record.ttl, &data))
        };
        let whole = inside().filter_map(|(a, r)| pointer(r, pointer_name(*a)));
        zones.push(make(
            part.origin.clone(),
            part.below.is_some(),
            whole.collect(),
        ));
        if let Some(below) = &part.below {
            let ours = inside().filter(|(a, _)| own.iter().any(|s| s.contains(*a)));
            let moved = ours.filter_map(|(a, r)| pointer(r, part.moved(*a)));
            zones.push(make(below.clone(), false, moved.collect()));
        }
    }
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
        let networks: [IpNet; 5] = networks.map(|n| n.parse().unwrap());
        let own = |networks: &[IpNet]| -> Vec<Span> {
            networks.iter().map(|n| first(*n)..=last(*n)).collect()
        };
        let reverse_zones = |content: &Content, networks: &[IpNet]| {
            super::reverse_zones(content, networks, &own(networks))
        };
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
        let one = ["10.1.2.3/32", "2001:db8::/64"].map(|n| n.parse().unwrap());
        // Of the first network others have addresses too.
        assert_eq!(reverse_zones(&content, &one).0.len(), 3);
    }

    #[test]
    fn what_others_have_addresses_in_is_not_taken_from_them() {
        let origin: Name = "apps.example".parse().unwrap();
        let text = "n1 A 10.1.2.3\nweb A 10.1.2.20\nfar A 10.1.3.1\nsix AAAA 2001:db8::10";
        let records = import(text, "f", &origin, 5).unwrap().records;
        let servers = ["n1.apps.example".parse().unwrap()];
        let (content, _) = Content::new(Start::new(origin.clone()), &servers, records);
        let networks = ["10.1.2.0/24", "10.1.3.0/24", "2001:db8::/64"].map(|n| n.parse().unwrap());
        let span = |from: &str, to: &str| from.parse().unwrap()..=to.parse().unwrap();
        let own = [
            span("10.1.2.20", "10.1.2.21"),
            span("10.1.3.128", "10.1.3.254"),
            span("10.1.3.1", "10.1.3.127"),
            span("2001:db8::10", "2001:db8::10"),
        ];
        let (zones, _) = reverse_zones(&content, &networks, &own);
        let shown: Vec<(String, bool)> = zones
            .iter()
            .map(|z| (z.start().origin.to_string(), z.start().shared))
            .collect();
        let v6 = "0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
        let mut want = vec![
            ("2.1.10.in-addr.arpa.".to_owned(), true),
            ("cluster-apps.2.1.10.in-addr.arpa.".to_owned(), false),
            // The first and the last address are nobody's.
            ("3.1.10.in-addr.arpa.".to_owned(), false),
            (v6.to_owned(), true),
            (format!("cluster-apps.{v6}"), false),
        ];
        let mut sorted = shown.clone();
        sorted.sort();
        want.sort();
        assert_eq!(sorted, want);
        let below = zones
            .iter()
            .find(|z| z.start().origin == "cluster-apps.2.1.10.in-addr.arpa".parse().unwrap());
        let below = export(&origin, None, below.unwrap().records());
        assert!(
            below.contains("20.cluster-apps.2.1.10.in-addr.arpa.\t5\tIN\tPTR\tweb.apps.example."),
            "{below}"
        );
        // The node's own name is IT's to say.
        assert!(!below.contains("PTR\tn1"), "{below}");
        let (parts, _) = parts(&origin, &networks, &own);
        let aliases = |part: &Part| -> Vec<String> {
            let each = part.aliases(&own).map(|(from, to)| format!("{from} {to}"));
            each.collect()
        };
        let four = parts.iter().find(|p| p.network == networks[0]).unwrap();
        assert_eq!(
            aliases(four),
            [20, 21]
                .map(|n| format!("{n}.2.1.10.in-addr.arpa. {n}.cluster-apps.2.1.10.in-addr.arpa."))
        );
        let six = parts.iter().find(|p| p.network == networks[2]).unwrap();
        let rest = "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0";
        assert_eq!(
            aliases(six),
            [format!("{rest}.{v6} {rest}.cluster-apps.{v6}")]
        );
    }
}
