//! What people say once: the addresses and the zone that IT gave.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Range;
use crate::heal::Millis;
use crate::network::Cidr;

/// Kind of the object that holds a [`Director`]; there is one, called [`SETTINGS`].
pub const DIRECTOR: &str = "director";
/// Its name.
pub const SETTINGS: &str = "settings";
/// How long an address stays with a service that is gone, in milliseconds: a week.
pub const KEEP: Millis = 7 * 24 * 3_600_000;
/// Seconds that an address in the zone may be kept.
const TTL: u32 = 5;
/// Port of DNS (RFC 1035 section 4.2).
pub const DNS_PORT: u16 = 53;

/// Who gets an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum For {
    /// Every service, and every other container on a host.
    All,
    /// Every service of a stack.
    #[default]
    Services,
    /// Who asks for it: by `x-wharfie.address`, or by the label `io.wharfie.address`.
    Labelled,
    /// Nobody.
    None,
}

impl For {
    /// As people say it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Services => "services",
            Self::Labelled => "labelled",
            Self::None => "none",
        }
    }
}

/// Addresses to give away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// The addresses.
    pub range: Range,
    /// Name of the node that holds them; empty if any may.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node.as_str() {
            "" => self.range.fmt(f),
            node => write!(f, "{}@{node}", self.range),
        }
    }
}

/// A key that transfers are signed with (RFC 8945).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TsigKey {
    /// Its name.
    pub name: String,
    /// `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    pub algorithm: String,
    /// In Base64.
    pub secret: String,
}

impl TsigKey {
    /// Whether it has that name; a dot at the end makes no difference, nor do capitals.
    #[must_use]
    pub fn key_is(&self, name: &str) -> bool {
        let plain = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
        plain(&self.name) == plain(name)
    }
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is in no log.
        write!(f, "TsigKey({})", self.name)
    }
}

/// Who may have the whole zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// From which addresses.
    pub from: Cidr,
    /// Signed with which key; empty if it need not be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
}

/// A server that is told of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secondary {
    /// Where it listens.
    pub at: SocketAddr,
    /// The key that it is told with; empty if with none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
}

/// What the director has to give, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Director {
    /// The sub-domain that IT delegates; empty if there is none.
    pub zone: String,
    /// The device on which addresses are, on every node; if it is empty, the one whose subnet they are in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// The same for single nodes, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, String>,
    /// The addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Ranges>,
    /// Addresses in the ranges that are given to nobody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Range>,
    /// Addresses for whoever has a name: a service, or a container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, IpAddr>,
    /// Who gets one, unless it says so itself.
    pub default: For,
    /// How long an address stays with a service that is gone, in milliseconds.
    pub keep: Millis,
    /// Seconds that an address in the zone may be kept by those who asked.
    pub ttl: u32,
    /// Who cares for the zone: an e-mail address for its SOA record; empty for `hostmaster` of the zone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contact: String,
    /// The port that the nodes answer for the zone at.
    pub dns_port: u16,
    /// Networks whose addresses lead back to names; those around the ranges if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reverse: Vec<Cidr>,
    /// Keys of transfers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<TsigKey>,
    /// Who may have the whole zone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transfer: Vec<Transfer>,
    /// Who is told of changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secondaries: Vec<Secondary>,
    /// Networks for which names outside the zone are asked of others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward_for: Vec<Cidr>,
    /// Title of the index page.
    pub title: String,
    /// Port of the nodes that the index page is at; 0 for none.
    pub page: u16,
}

impl Default for Director {
    fn default() -> Self {
        Self {
            zone: String::new(),
            device: String::new(),
            devices: BTreeMap::new(),
            ranges: Vec::new(),
            excluded: Vec::new(),
            reserved: BTreeMap::new(),
            default: For::default(),
            keep: KEEP,
            ttl: TTL,
            contact: String::new(),
            dns_port: DNS_PORT,
            reverse: Vec::new(),
            keys: Vec::new(),
            transfer: Vec::new(),
            secondaries: Vec::new(),
            forward_for: Vec::new(),
            title: "Services".to_owned(),
            page: 80,
        }
    }
}

impl Director {
    /// The device that addresses are on, on a node of that name, as far as somebody said it.
    #[must_use]
    pub fn device_of(&self, node: &str) -> Option<&str> {
        let own = self.devices.get(node).map(String::as_str);
        own.or_else(|| Some(self.device.as_str()).filter(|d| !d.is_empty()))
    }

    /// Addresses that a node of that name may hold, of one family.
    pub(super) fn ranges_of(&self, node: &str, ipv6: bool) -> impl Iterator<Item = Range> + '_ {
        let node = node.to_owned();
        let of = self.ranges.iter();
        let of = of.filter(move |r| r.node.is_empty() || r.node == node);
        of.map(|r| r.range).filter(move |r| r.is_ipv6() == ipv6)
    }

    /// Whether a node of that name may hold an address.
    #[must_use]
    pub fn gives(&self, node: &str, address: IpAddr) -> bool {
        let mut ranges = self.ranges_of(node, address.is_ipv6());
        ranges.any(|r| r.contains(address)) && !self.is_excluded(address)
    }

    /// The address that is reserved for one of these names.
    pub(super) fn reserved_for(&self, names: &[String]) -> Option<IpAddr> {
        names
            .iter()
            .find_map(|name| self.reserved.get(name))
            .copied()
    }

    /// Whether an address is reserved for another name.
    pub(super) fn is_reserved(&self, address: IpAddr, names: &[String]) -> bool {
        self.reserved.values().any(|a| *a == address) && self.reserved_for(names) != Some(address)
    }

    /// Whether an address is given to nobody.
    #[must_use]
    pub fn is_excluded(&self, address: IpAddr) -> bool {
        self.excluded.iter().any(|r| r.contains(address))
    }

    /// The networks whose addresses lead back to names: what was said, or those of 256 (IPv4) or 2^64
    /// addresses (IPv6) that the ranges are in.
    #[must_use]
    pub fn reversed(&self) -> Vec<Cidr> {
        if !self.reverse.is_empty() {
            return self.reverse.clone();
        }
        let ends = self.ranges.iter();
        let ends = ends.flat_map(|r| [r.range.first(), r.range.last()]);
        let around = ends.filter_map(|a| Cidr::new(a, if a.is_ipv4() { 24 } else { 64 }));
        let mut around: Vec<Cidr> = around.collect();
        around.sort_unstable();
        around.dedup();
        around
    }

    /// The addresses whose names are the cluster's to say: those of the networks that were said, or else those
    /// that it may give.
    #[must_use]
    pub fn named(&self) -> Vec<Range> {
        if !self.reverse.is_empty() {
            let whole = |c: &Cidr| Range::new(c.base(), c.last());
            return self.reverse.iter().filter_map(whole).collect();
        }
        let mut named: Vec<Range> = self.ranges.iter().map(|r| r.range).collect();
        for excluded in &self.excluded {
            named = named
                .into_iter()
                .flat_map(|r| r.without(*excluded))
                .collect();
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_excluded_addresses_are_somebody_elses() {
        let ranges = ["10.0.0.10-10.0.0.20", "10.0.0.30"].map(|r| Ranges {
            range: r.parse().unwrap(),
            node: String::new(),
        });
        let mut director = Director {
            ranges: ranges.into(),
            excluded: ["10.0.0.15", "10.0.0.30"]
                .map(|r| r.parse().unwrap())
                .into(),
            ..Director::default()
        };
        let named =
            |d: &Director| -> Vec<String> { d.named().iter().map(ToString::to_string).collect() };
        assert_eq!(
            named(&director),
            ["10.0.0.10-10.0.0.14", "10.0.0.16-10.0.0.20"]
        );
        director.reverse = vec!["10.0.0.0/28".parse().unwrap()];
        assert_eq!(named(&director), ["10.0.0.0-10.0.0.15"]);
    }
}
