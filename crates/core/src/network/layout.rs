//! How the addresses of a network are divided: slices for nodes, and what is left for services.
//!
//! Both families have one numbering: the address with a number in IPv4 and the one with the same
//! number in IPv6 go together, so that one claim gives both.
//!
//! ```text
//! number  0        64       128                   14336                16383
//!         │ slice 0 │ slice 1 │ …   (nodes)   …   │ … services (1/8) … │
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Cidr, Network, Pool};

/// Bits of a slice at most: 64 addresses.
const SLICE_BITS: u8 = 6;
/// There are 16 slices at least, where there are enough addresses.
const FEWEST_BITS: u8 = 4;
/// A slice of fewer addresses than 4 would have no room beside its gateway.
const LEAST_BITS: u8 = 2;
/// More numbers are not used: it is what an IPv4 network of prefix 8 has.
const MOST_BITS: u8 = 24;

/// How the addresses of a network are divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    v4: Option<Cidr>,
    v6: Option<Cidr>,
    /// There are two to the power of this many numbers.
    bits: u8,
    slice_bits: u8,
    /// Numbers that nobody may have.
    kept: BTreeSet<u32>,
    gateways: (Option<Ipv4Addr>, Option<Ipv6Addr>),
}

/// The addresses that go with one number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4, if the network has it.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, if the network has it.
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// The addresses, IPv4 first.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }
}

impl Layout {
    /// The layout of a network.
    #[must_use]
    pub fn of(network: &Network) -> Self {
        let area = |pool: &Option<Pool>| pool.as_ref().map(|p| p.range.unwrap_or(p.subnet));
        let (v4, v6) = (area(&network.v4), area(&network.v6));
        let free = v4.iter().chain(&v6).map(Cidr::free_bits);
        let bits = free.min().unwrap_or(0).min(MOST_BITS);
        let slice_bits = SLICE_BITS.min(bits.saturating_sub(FEWEST_BITS));
        let mut layout = Self {
            v4,
            v6,
            bits,
            slice_bits: slice_bits.max(LEAST_BITS).min(bits),
            kept: BTreeSet::new(),
            gateways: (None, None),
        };
        let mut kept = BTreeSet::new();
        for pool in network.pools() {
            // The network's own address and broadcast; in IPv6 the first is the routers' anycast
            // address (RFC 4291 section 2.6.1).
            kept.insert(pool.subnet.base());
            if !pool.subnet.is_ipv6() {
                kept.insert(pool.subnet.last());
            }
            kept.extend(pool.gateway);
            kept.extend(pool.kept.values());
            match pool.gateway {
                Some(IpAddr::V4(a)) => layout.gateways.0 = Some(a),
                Some(IpAddr::V6(a)) => layout.gateways.1 = Some(a),
                None => {}
            }
        }
        layout.kept = kept.into_iter().filter_map(|a| layout.number(a)).collect();
        layout
    }

    /// Number of addresses.
    fn size(&self) -> u32 {
        match (self.v4, self.v6) {
            (None, None) => 0,
            _ => 1 << self.bits,
        }
    }

    /// Number of addresses in a slice.
    #[must_use]
    pub fn slice_size(&self) -> u32 {
        1 << self.slice_bits
    }

    fn all_slices(&self) -> u32 {
        self.size() >> self.slice_bits
    }

    /// Number of slices that nodes can claim: their indices are below it.
    #[must_use]
    pub fn slices(&self) -> u32 {
        let all = self.all_slices();
        // The addresses of services are an eighth, and one slice at least if there are two.
        all - (all / 8).max(1).min(all.saturating_sub(1))
    }

    /// Numbers of the addresses of services: first, and the one behind the last.
    #[must_use]
    pub fn services(&self) -> (u32, u32) {
        (self.slices() << self.slice_bits, self.size())
    }

    /// The addresses with a number.
    #[must_use]
    pub fn addresses(&self, number: u32) -> Addresses {
        let at = |area: Option<Cidr>| area.and_then(|a| a.at(u128::from(number)));
        Addresses {
            v4: match at(self.v4) {
                Some(IpAddr::V4(a)) => Some(a),
                _ => None,
            },
            v6: match at(self.v6) {
                Some(IpAddr::V6(a)) => Some(a),
                _ => None,
            },
        }
    }

    /// The number of an address; `None` if it is outside of what is divided.
    #[must_use]
    pub fn number(&self, address: IpAddr) -> Option<u32> {
        let areas = self.v4.iter().chain(&self.v6);
        let place = areas.filter_map(|a| a.offset(address)).next()?;
        u32::try_from(place).ok().filter(|n| *n < self.size())
    }

    /// The index of the slice that a number is in, if nodes can claim it.
    #[must_use]
    pub fn slice(&self, number: u32) -> Option<u32> {
        Some(number >> self.slice_bits).filter(|s| *s < self.slices())
    }

    /// The numbers in a slice that can be given to somebody.
    pub fn numbers(&self, slice: u32) -> impl Iterator<Item = u32> + '_ {
        let first = slice << self.slice_bits;
        let numbers = first..first + self.slice_size();
        numbers.filter(|n| self.is_usable(*n))
    }

    /// Whether somebody can have a number.
    #[must_use]
    pub fn is_usable(&self, number: u32) -> bool {
        !self.kept.contains(&number)
    }

    /// The number that a node has itself in its oldest slice: the second (`.1` in slice 0), or
    /// the first one behind it that can be had and is no task's static address (`fixed`).
    #[must_use]
    pub fn own_number(&self, slice: u32, fixed: &BTreeSet<IpAddr>) -> Option<u32> {
        let first = slice << self.slice_bits;
        let is_fixed = |n: u32| self.addresses(n).all().any(|a| fixed.contains(&a));
        self.numbers(slice).find(|n| *n > first && !is_fixed(*n))
    }

    /// The gateway that the file says for every node.
    #[must_use]
    pub fn gateway(&self) -> Addresses {
        Addresses {
            v4: self.gateways.0,
            v6: self.gateways.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(v4: Option<&str>, v6: Option<&str>) -> Layout {
        let pool = |text: &str| Pool::chosen(text.parse().unwrap());
        Layout::of(&Network {
            v4: v4.map(pool),
            v6: v6.map(pool),
            ..Network::default()
        })
    }

    #[test]
    fn a_usual_network_has_224_slices_of_64() {
        let l = layout(Some("10.128.0.0/18"), None);
        assert_eq!((l.slices(), l.slice_size()), (224, 64));
        assert_eq!(l.services(), (14_336, 16_384));
        let own = |slice| {
            l.addresses(l.own_number(slice, &BTreeSet::new()).unwrap())
                .v4
                .unwrap()
                .to_string()
        };
        assert_eq!(
            (own(0), own(1)),
            ("10.128.0.1".to_owned(), "10.128.0.65".to_owned())
        );
        assert_eq!(l.slice(14_336), None);
        assert!(!l.is_usable(16_383) && l.is_usable(16_382));
    }

    #[test]
    fn small_networks_have_smaller_slices() {
        let of = |text| {
            let l = layout(Some(text), None);
            (l.slices(), l.slice_size(), l.services().1 - l.services().0)
        };
        assert_eq!(of("10.0.0.0/24"), (14, 16, 32));
        assert_eq!(of("10.0.0.0/28"), (3, 4, 4));
        assert_eq!(of("10.0.0.0/29"), (1, 4, 4));
        assert_eq!(of("10.0.0.0/30"), (1, 4, 0));
        assert_eq!(of("10.0.0.0/32"), (1, 1, 0));
        assert_eq!(of("10.0.0.0/8"), (229_376, 64, 2_097_152));
    }

    #[test]
    fn both_families_go_together() {
        let l = layout(Some("10.128.0.0/18"), Some("fd00:1::/64"));
        let both = l.addresses(300);
        assert_eq!(both.v4.unwrap().to_string(), "10.128.1.44");
        assert_eq!(both.v6.unwrap().to_string(), "fd00:1::12c");
        assert_eq!(l.number(both.v6.unwrap().into()), Some(300));
        assert_eq!(l.number("fd00:1::ffff:0".parse().unwrap()), None);
        let six = layout(None, Some("fd00:1::/64"));
        assert_eq!((six.slices(), six.slice_size()), (229_376, 64));
        assert_eq!(layout(None, None).slices(), 0);
    }

    #[test]
    fn what_the_file_keeps_is_not_given_away() {
        let mut pool = Pool::chosen("10.5.0.0/16".parse().unwrap());
        pool.range = Some("10.5.8.0/24".parse().unwrap());
        pool.gateway = Some("10.5.8.1".parse().unwrap());
        pool.kept
            .insert("router".to_owned(), "10.5.8.2".parse().unwrap());
        let network = Network {
            v4: Some(pool),
            ..Network::default()
        };
        let l = Layout::of(&network);
        assert_eq!(l.numbers(0).take(3).collect::<Vec<_>>(), [0, 3, 4]);
        let fixed = |a: &str| BTreeSet::from([a.parse().unwrap()]);
        assert_eq!(l.own_number(0, &BTreeSet::new()), Some(3));
        assert_eq!(l.own_number(0, &fixed("10.5.8.3")), Some(4));
        assert_eq!(l.gateway().v4.unwrap().to_string(), "10.5.8.1");
        assert_eq!(l.number("10.5.9.0".parse().unwrap()), None);
        // The range ends before the subnet does: its last address is no broadcast.
        assert!(l.is_usable(255));
    }
}
