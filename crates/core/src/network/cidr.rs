//! Ranges of addresses in CIDR notation (RFC 4632, RFC 4291 section 2.3), both families alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A range of addresses: all that begin with the same bits. Bits behind the prefix are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// All bits of an address, right-aligned.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// Number of bits of an address of that family.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Cidr {
    /// The range that an address is in; `None` if the prefix is longer than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let rest = width(address).checked_sub(prefix)?;
        let mask = u128::MAX.checked_shl(u32::from(rest)).unwrap_or(0);
        let base = like(address, bits(address) & mask);
        Some(Self { base, prefix })
    }

    /// Just one address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let prefix = width(address);
        Self {
            base: address,
            prefix,
        }
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        let mask = u128::MAX.checked_shl(u32::from(self.free_bits()));
        like(self.base, bits(self.base) | !mask.unwrap_or(0))
    }

    /// Number of bits that all addresses have in common.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Number of bits that differ.
    #[must_use]
    pub fn free_bits(&self) -> u8 {
        width(self.base) - self.prefix
    }

    /// Whether the addresses are of IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.base.is_ipv6()
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.offset(address).is_some()
    }

    /// Whether all of another range is in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base)
    }

    /// Whether any address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The address at a place, from 0; `None` behind the end.
    #[must_use]
    pub fn at(&self, place: u128) -> Option<IpAddr> {
        let free = u32::from(self.free_bits());
        let fits = free == 128 || place >> free == 0;
        fits.then(|| like(self.base, bits(self.base) | place))
    }

    /// The place of an address, from 0; `None` if it is not in the range.
    #[must_use]
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        if address.is_ipv4() != self.base.is_ipv4() {
            return None;
        }
        let free = u32::from(self.free_bits());
        let differing = bits(address) ^ bits(self.base);
        let same = free == 128 || differing >> free == 0;
        same.then_some(differing)
    }

    /// The range of a longer prefix at a place, from 0; `None` behind the end, or if the prefix
    /// is not longer.
    #[must_use]
    pub fn part(&self, prefix: u8, place: u128) -> Option<Self> {
        let more = prefix.checked_sub(self.prefix)?;
        let rest = width(self.base).checked_sub(prefix)?;
        if more < 128 && place >> more != 0 {
            return None;
        }
        let first = place.checked_shl(u32::from(rest)).unwrap_or(0);
        Self::new(self.at(first)?, prefix)
    }
}

/// An address of the same family as another.
fn like(family: IpAddr, bits: u128) -> IpAddr {
    match family {
        #[allow(clippy::cast_possible_truncation)] // an IPv4 address has 32 bits
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// Reads `10.1.0.0/16`; bits behind the prefix are passed over, as the Engine does.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of addresses such as 10.1.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        // A sign or a leading zero is more likely a slip than meant.
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = digits.then(|| prefix.parse().ok()).flatten();
        Self::new(address, prefix.ok_or_else(wrong)?).ok_or_else(wrong)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn is_read_and_written() {
        assert_eq!(cidr("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(cidr("fd00::1/64").to_string(), "fd00::/64");
        assert_eq!(cidr("0.0.0.0/0").last().to_string(), "255.255.255.255");
        assert_eq!(cidr("::/0").free_bits(), 128);
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "x/8",
            "10.0.0.0/-1",
            "10.0.0.0/+1",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn families_never_mix() {
        assert!(!cidr("::/0").contains("10.0.0.1".parse().unwrap()));
        assert!(!cidr("0.0.0.0/0").overlaps(&cidr("::/0")));
    }

    #[test]
    fn has_parts() {
        let pool = cidr("10.128.0.0/9");
        assert_eq!(pool.part(18, 1), Some(cidr("10.128.64.0/18")));
        assert_eq!(pool.part(18, 511), Some(cidr("10.255.192.0/18")));
        assert_eq!(pool.part(18, 512), None);
        assert_eq!(pool.part(8, 0), None);
        assert_eq!(
            cidr("::/0").part(128, u128::MAX).map(|c| c.prefix()),
            Some(128)
        );
    }

    proptest! {
        #[test]
        fn a_place_leads_back(base: u128, prefix in 0_u8..=128, place: u128) {
            let range = Cidr::new(Ipv6Addr::from_bits(base).into(), prefix).unwrap();
            if let Some(address) = range.at(place) {
                prop_assert!(range.contains(address));
                prop_assert_eq!(range.offset(address), Some(place));
            }
        }

        #[test]
        fn overlap_is_a_common_address(a: u32, pa in 0_u8..=32, b: u32, pb in 0_u8..=32) {
            let range = |a: u32, p| Cidr::new(Ipv4Addr::from_bits(a).into(), p).unwrap();
            let (a, b) = (range(a, pa), range(b, pb));
            let common = a.base().max(b.base()) <= a.last().min(b.last());
            prop_assert_eq!(a.overlaps(&b), common);
        }
    }
}
