//! In which families of addresses somebody can be reached.
//!
//! What comes to an address of IPv6 is led to a task's address of IPv6: between the families nothing is
//! translated. So an address is only given in a family that leads somewhere.

use wharfie_compose::model::{Project, Service};

use super::Address;
use crate::network::{Attachment, Network};

/// Whether a way leads to somebody by one family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// It does.
    Open,
    /// There is none.
    Closed,
    /// Nobody said so, and it does not run yet.
    Unlikely,
    /// That is known once it runs.
    #[default]
    Unknown,
}

/// In which families a way leads to somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: Way,
    /// IPv6.
    pub v6: Way,
}

impl From<bool> for Way {
    fn from(open: bool) -> Self {
        if open { Self::Open } else { Self::Closed }
    }
}

impl Families {
    /// Both, as the host's own network has them.
    pub const BOTH: Self = Self {
        v4: Way::Open,
        v6: Way::Open,
    };

    /// Those of a network over several nodes.
    #[must_use]
    pub fn of_network(network: &Network) -> Self {
        Self {
            v4: network.v4.is_some().into(),
            v6: network.v6.is_some().into(),
        }
    }

    /// Those of containers on networks of their node: what they have, once one of them runs. The Engine may
    /// give networks IPv6 without being told to by a file, so that nothing else is sure.
    #[must_use]
    pub fn of_local<'a>(
        attachments: impl IntoIterator<Item = (&'a String, &'a Attachment)>,
        said: Self,
    ) -> Self {
        let (mut v4, mut v6) = (false, false);
        for (network, attachment) in attachments {
            if network == "host" {
                return Self::BOTH;
            }
            v4 |= attachment.v4.is_some();
            v6 |= attachment.v6.is_some();
        }
        match v4 || v6 {
            true => Self {
                v4: v4.into(),
                v6: v6.into(),
            },
            false => said,
        }
    }

    /// What a file says of a service's networks, before it runs.
    #[must_use]
    pub fn said(project: &Project, service: &Service) -> Self {
        if service.network_mode == "host" {
            return Self::BOTH;
        }
        let networks = service.networks.keys();
        let networks = networks.filter_map(|key| project.networks.get(key));
        let each = networks.map(|n| match n.enable_ipv6 {
            Some(true) => Way::Open,
            // What it has is somebody else's to say.
            _ if n.external => Way::Unknown,
            _ => Way::Unlikely,
        });
        let each: Vec<Way> = each.collect();
        let any = |way: &Way| each.contains(way).then_some(*way);
        let v6 = [Way::Open, Way::Unknown, Way::Unlikely];
        Self {
            v4: Way::Unknown,
            v6: v6.iter().find_map(any).unwrap_or_default(),
        }
    }

    /// Why no way leads there by a family, in words.
    #[must_use]
    pub fn lacking(ipv6: bool) -> &'static str {
        match ipv6 {
            true => "its network has no IPv6 (`enable_ipv6: true`)",
            false => "its network has no IPv4",
        }
    }

    fn of(self, ipv6: bool) -> Way {
        if ipv6 { self.v6 } else { self.v4 }
    }

    /// Whether an address of a family is of use: as long as nobody knows, for who has one, or of IPv4.
    #[must_use]
    pub fn leads(self, ipv6: bool, before: Option<&Address>) -> bool {
        let had = || before.is_some_and(|a| a.of(ipv6).is_some());
        match self.of(ipv6) {
            Way::Open => true,
            Way::Closed => false,
            Way::Unlikely | Way::Unknown => !ipv6 || had(),
        }
    }

    /// Whether an address of a family that a file asks for would lead nowhere.
    #[must_use]
    pub fn lacks(self, ipv6: bool, before: Option<&Address>) -> bool {
        self.of(ipv6) != Way::Unknown && !self.leads(ipv6, before)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn attached(of: &[(&str, &[&str])]) -> BTreeMap<String, Attachment> {
        let one = |addresses: &[&str]| {
            let mut attachment = Attachment::default();
            for address in addresses {
                match address.parse().unwrap() {
                    std::net::IpAddr::V4(a) => attachment.v4 = Some(a),
                    std::net::IpAddr::V6(a) => attachment.v6 = Some(a),
                }
            }
            attachment
        };
        of.iter()
            .map(|(name, addresses)| ((*name).to_owned(), one(addresses)))
            .collect()
    }

    #[test]
    fn what_runs_is_known_and_what_does_not_stays_as_it_was() {
        let six = Families {
            v6: Way::Open,
            ..Families::default()
        };
        let known = |of: &[(&str, &[&str])]| Families::of_local(&attached(of), six);
        assert_eq!(known(&[("host", &[])]), Families::BOTH);
        assert_eq!(
            known(&[("a", &["10.0.0.2"]), ("b", &["fd00::2"])]),
            Families::BOTH
        );
        let four = known(&[("a", &["10.0.0.2"])]);
        assert!(four.leads(false, None) && four.lacks(true, None) && !four.leads(true, None));
        // It does not run: what its file says.
        assert_eq!(known(&[("a", &[])]), six);
        let had = Address {
            v6: "fd00::7".parse().ok(),
            ..Address::default()
        };
        let unknown = Families::default();
        assert!(unknown.leads(false, None) && !unknown.leads(true, None));
        assert!(unknown.leads(true, Some(&had)) && !unknown.lacks(true, None));
        let unsaid = Families {
            v6: Way::Unlikely,
            ..unknown
        };
        assert!(unsaid.leads(true, Some(&had)) && unsaid.lacks(true, None));
    }
}
