//! Ranges of addresses as IT gives them: from one to another.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::network::Cidr;

/// All addresses from the first to the last, of one family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

impl Range {
    /// From one address to another; none if they are of two families, or in the wrong order.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let good = first.is_ipv4() == last.is_ipv4() && first <= last;
        good.then_some(Self { first, last })
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether the addresses are of IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// What is left of it without the addresses of another one.
    #[must_use]
    pub fn without(self, other: Self) -> Vec<Self> {
        if !(self.contains(other.first) || other.contains(self.first)) {
            return vec![self];
        }
        let place = |address| bits(address).checked_sub(bits(self.first));
        let before = place(other.first).and_then(|p| self.at(p.checked_sub(1)?));
        let after = place(other.last).and_then(|p| self.at(p.checked_add(1)?));
        let before = before.map(|last| Self { last, ..self });
        let after = after.map(|first| Self { first, ..self });
        before.into_iter().chain(after).collect()
    }

    /// Whether any address of a subnet is in it.
    #[must_use]
    pub fn overlaps(&self, subnet: &Cidr) -> bool {
        self.contains(subnet.base()) || subnet.contains(self.first)
    }

    /// How many addresses there are; `u128::MAX` stands for one more.
    #[must_use]
    pub fn count(&self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// The address at a place, from 0; `None` behind the end.
    #[must_use]
    pub fn at(&self, place: u128) -> Option<IpAddr> {
        let bits = bits(self.first).checked_add(place)?;
        let address = match self.first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).ok()?)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        (address <= self.last).then_some(address)
    }
}

impl FromStr for Range {
    type Err = String;

    /// Reads `192.0.2.11-192.0.2.30`, `192.0.2.11-30`, `192.0.2.16/28` or one address. Of a subnet of IPv4
    /// neither the first address, which is its name, nor the last, which is for all, is given to anybody.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no range of addresses such as 192.168.122.11-192.168.122.30, 192.168.122.16/28 or fd00::10-fd00::ff"
            )
        };
        let text = text.trim();
        if text.contains('/') {
            let subnet: Cidr = text.parse().map_err(|_| wrong())?;
            let whole = Self {
                first: subnet.base(),
                last: subnet.last(),
            };
            let inner = || Self::new(whole.at(1)?, whole.at(whole.count() - 2)?);
            return match subnet.is_ipv6() || subnet.free_bits() < 2 {
                true => Ok(whole),
                false => inner().ok_or_else(wrong),
            };
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: IpAddr = first.trim().parse().map_err(|_| wrong())?;
        let last = last.trim();
        let last = match (first, last.parse::<u8>()) {
            // Only what differs.
            (IpAddr::V4(first), Ok(last)) => {
                let [a, b, c, _] = first.octets();
                IpAddr::from([a, b, c, last])
            }
            _ => last.parse().map_err(|_| wrong())?,
        };
        Self::new(first, last).ok_or_else(wrong)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_read_as_people_write_them() {
        let same = range("192.168.122.11-192.168.122.30");
        assert_eq!(range("192.168.122.11 - 30"), same);
        assert_eq!(
            (same.count(), same.to_string().as_str()),
            (20, "192.168.122.11-192.168.122.30")
        );
        assert_eq!(range("10.0.0.0/24"), range("10.0.0.1-254"));
        assert_eq!(range("10.0.0.4/31").count(), 2);
        assert_eq!(range("10.0.0.4").to_string(), "10.0.0.4");
        assert_eq!(range("fd00::10-fd00::1f").count(), 16);
        assert_eq!(range("::/0").count(), u128::MAX);
        for (subnet, overlaps) in [
            ("192.168.122.0/24", true),
            ("192.168.122.16/30", true),
            ("192.168.122.0/29", false),
            ("192.168.122.32/27", false),
            ("fd00::/64", false),
        ] {
            assert_eq!(
                same.overlaps(&subnet.parse().unwrap()),
                overlaps,
                "{subnet}"
            );
        }
        for bad in [
            "",
            "-",
            "10.0.0.9-3",
            "10.0.0.1-fd00::1",
            "10.0.0.1-300",
            "10.0.0.0/33",
            "toolbox",
            "fd00::1-9",
        ] {
            // The last one is an address of IPv4 nowhere, and of IPv6 neither.
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_has_no_address_of_the_other(a in 0_u8..20, b in 0_u8..20, c in 0_u8..20, d in 0_u8..20) {
            let range = |a: u8, b: u8| {
                let at = |last| IpAddr::from([10, 0, 0, last]);
                Range::new(at(a.min(b)), at(a.max(b))).unwrap()
            };
            let (whole, other) = (range(a, b), range(c, d));
            let left = whole.without(other);
            for last in 0..=255 {
                let ip = IpAddr::from([10, 0, 0, last]);
                let wanted = whole.contains(ip) && !other.contains(ip);
                prop_assert_eq!(left.iter().filter(|r| r.contains(ip)).count(), usize::from(wanted));
            }
        }

        #[test]
        fn what_is_at_a_place_is_inside(first: u32, more in 0_u32..1000, place in 0_u128..2000) {
            let at = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
            let range = Range::new(at(first), at(first.saturating_add(more))).unwrap();
            match range.at(place) {
                Some(address) => prop_assert!(range.contains(address) && place < range.count()),
                None => prop_assert!(place >= range.count()),
            }
            prop_assert_eq!(range.to_string().parse::<Range>().unwrap(), range);
        }
    }
}
