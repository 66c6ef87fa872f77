//! Whether packets between two nodes are encrypted, are not, or do not pass. Both nodes decide by
//! what both said, so that they come to the same.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Cidr;

/// Bytes that a packet of a container may have where it may be encrypted, over IPv6 as well: those
/// of Ethernet, less 80 for WireGuard (IPv6, UDP, and 32 bytes of its own) and 70 for VXLAN.
pub const ENCRYPTED_MTU: u16 = 1_350;

/// The next key is told so long before it is used; in milliseconds. Less if keys are short-lived.
const NOTICE: i64 = 60_000;

/// What a node demands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// Packets are encrypted if the other node can, and the two are not on one private link.
    #[default]
    Auto,
    /// Packets are encrypted, or do not pass.
    Always,
    /// Packets are not encrypted.
    Never,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Encryption {
    /// What it demands.
    pub demand: Demand,
    /// Ranges of addresses within which nothing needs to be encrypted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<Cidr>,
    /// Its public key, if it can encrypt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key that it will have soon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// UDP port of encrypted packets.
    pub port: u16,
}

/// What becomes of packets between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// They go as they are.
    Clear,
    /// They are encrypted.
    Encrypted {
        /// The other's key.
        key: String,
        /// The key that it will have soon.
        next: Option<String>,
        /// The other's UDP port.
        port: u16,
    },
    /// They do not pass.
    Blocked(Reason),
}

/// Why packets do not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// This node demands encryption, the other cannot or will not.
    OtherCannot,
    /// The other demands it, this one cannot or will not.
    OwnCannot,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherCannot => {
                "this node demands encryption (`network-encrypt`), and that one has no key for it"
            }
            Self::OwnCannot => {
                "that node demands encryption (`network-encrypt`), and this one has no key for it"
            }
        })
    }
}

impl Encryption {
    /// Whether it wants packets between two addresses to be encrypted.
    fn wants(&self, one: IpAddr, other: IpAddr) -> bool {
        let within = |range: &Cidr| range.contains(one) && range.contains(other);
        match self.demand {
            Demand::Always => true,
            Demand::Auto => !self.private.iter().any(within),
            Demand::Never => false,
        }
    }

    fn key(&self) -> Option<&String> {
        self.key.as_ref().filter(|_| self.demand != Demand::Never)
    }
}

/// What becomes of packets between this node and another: by their addresses, and what they say of
/// themselves. The stricter one is heeded. A node that says nothing is of a version that cannot.
#[must_use]
pub fn plan(
    (own, own_address): (&Encryption, IpAddr),
    (other, other_address): (Option<&Encryption>, IpAddr),
) -> Plan {
    let none = Encryption {
        demand: Demand::Never,
        ..Encryption::default()
    };
    let other = other.unwrap_or(&none);
    let wanted = own.wants(own_address, other_address) || other.wants(own_address, other_address);
    if !wanted {
        return Plan::Clear;
    }
    match (own.key(), other.key()) {
        (Some(_), Some(key)) => Plan::Encrypted {
            key: key.clone(),
            next: other.next.clone(),
            port: other.port,
        },
        (_, None) if own.demand == Demand::Always => Plan::Blocked(Reason::OtherCannot),
        (None, _) if other.demand == Demand::Always => Plan::Blocked(Reason::OwnCannot),
        // Neither of these can be: who demands it has no key itself.
        _ if own.demand == Demand::Always => Plan::Blocked(Reason::OwnCannot),
        _ if other.demand == Demand::Always => Plan::Blocked(Reason::OtherCannot),
        _ => Plan::Clear,
    }
}

/// What is due with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Stay,
    /// The next one is to be made, and told.
    Announce,
    /// The next one is to be used.
    Switch,
}

/// What is due with a key that was made at a time, and lives for so long; whether the next one was
/// told, and when. In milliseconds. With it, how long until there is something due.
#[must_use]
pub fn turn(made: i64, lifetime: i64, announced: Option<i64>, now: i64) -> (Turn, i64) {
    let notice = NOTICE.min(lifetime / 2);
    let (turn, at) = match announced {
        None => (Turn::Announce, made.saturating_add(lifetime - notice)),
        Some(announced) => (Turn::Switch, announced.saturating_add(notice)),
    };
    // A clock that was set back is no reason to keep a key for ever.
    let left = (at - now).clamp(0, lifetime.max(1));
    (if left == 0 { turn } else { Turn::Stay }, left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn says(demand: Demand, key: bool, private: &[&str]) -> Encryption {
        Encryption {
            demand,
            private: private.iter().map(|p| p.parse().unwrap()).collect(),
            key: key.then(|| "aa".to_owned()),
            next: None,
            port: 4790,
        }
    }

    fn planned(own: &Encryption, other: Option<&Encryption>) -> Plan {
        plan((own, [10, 0, 0, 1].into()), (other, [10, 0, 0, 2].into()))
    }

    fn encrypted() -> Plan {
        Plan::Encrypted {
            key: "aa".to_owned(),
            next: None,
            port: 4790,
        }
    }

    #[test]
    fn who_can_encrypts_unless_the_link_is_private() {
        let auto = says(Demand::Auto, true, &[]);
        assert_eq!(planned(&auto, Some(&auto)), encrypted());
        let private = says(Demand::Auto, true, &["10.1.0.0/16", "10.0.0.0/24"]);
        assert_eq!(planned(&private, Some(&private)), Plan::Clear);
        assert_eq!(
            planned(&private, Some(&auto)),
            encrypted(),
            "it was not told there"
        );
        let apart = says(Demand::Auto, true, &["10.0.0.1/32", "10.0.0.2/32"]);
        assert_eq!(planned(&apart, Some(&apart)), encrypted());
        let always = says(Demand::Always, true, &["10.0.0.0/24"]);
        assert_eq!(planned(&always, Some(&private)), encrypted());
    }

    #[test]
    fn who_demands_it_is_not_sent_anything_in_clear() {
        let always = says(Demand::Always, true, &[]);
        let (never, unable) = (
            says(Demand::Never, true, &[]),
            says(Demand::Auto, false, &[]),
        );
        for other in [Some(&never), Some(&unable), None] {
            assert_eq!(planned(&always, other), Plan::Blocked(Reason::OtherCannot));
        }
        for own in [&never, &unable] {
            assert_eq!(
                planned(own, Some(&always)),
                Plan::Blocked(Reason::OwnCannot)
            );
        }
        let auto = says(Demand::Auto, true, &[]);
        assert_eq!(planned(&auto, Some(&never)), Plan::Clear);
        assert_eq!(planned(&auto, None), Plan::Clear);
    }

    #[test]
    fn keys_are_told_before_they_are_used() {
        let day = 86_400_000;
        assert_eq!(turn(0, day, None, 5), (Turn::Stay, day - NOTICE - 5));
        assert_eq!(turn(0, day, None, day - NOTICE), (Turn::Announce, 0));
        assert_eq!(turn(0, day, Some(day - NOTICE), day - 1), (Turn::Stay, 1));
        assert_eq!(turn(0, day, Some(day - NOTICE), day), (Turn::Switch, 0));
        assert_eq!(turn(0, 1000, None, 500), (Turn::Announce, 0));
        assert_eq!(turn(day, day, None, 0).1, day, "the clock was set back");
    }

    fn any_said() -> impl Strategy<Value = Encryption> {
        let demand = prop_oneof![
            Just(Demand::Auto),
            Just(Demand::Always),
            Just(Demand::Never)
        ];
        (demand, any::<bool>(), any::<bool>()).prop_map(|(demand, key, private)| {
            says(demand, key, if private { &["10.0.0.0/24"] } else { &[] })
        })
    }

    proptest! {
        #[test]
        fn both_come_to_the_same(one in any_said(), other in any_said()) {
            let kind = |plan: &Plan| std::mem::discriminant(plan);
            let (here, there) = (planned(&one, Some(&other)), planned(&other, Some(&one)));
            prop_assert_eq!(kind(&here), kind(&there));
            let demanded = [&one, &other].iter().any(|e| e.demand == Demand::Always);
            prop_assert!(!demanded || here != Plan::Clear);
        }
    }
}
