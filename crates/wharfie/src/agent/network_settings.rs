//! The settings of networks over several hosts.

use std::net::IpAddr;

use wharfie_core::network::encrypt::Demand;
use wharfie_core::network::{self, Cidr};

use super::settings::{Given, duration};
use crate::failure::Failure;

/// Longest and shortest prefix of a subnet: it takes a part for each node, and one for services.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=26;

/// A node makes itself a new key each day.
const KEY_LIFETIME: i64 = 24 * 60 * 60 * 1000;
/// With shorter lives there would be little else to do.
const SHORTEST: i64 = 1000;

/// Where networks get their addresses from, and how their packets go from node to node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkSettings {
    /// Subnets of networks are parts of these, in this order.
    pub(crate) pools: Vec<Cidr>,
    /// Bits of the prefix of a subnet.
    pub(crate) prefix: u8,
    /// The address that packets between nodes come from and go to, if it is named.
    pub(crate) address: Option<IpAddr>,
    /// Whether packets between nodes are encrypted.
    pub(crate) encrypt: Demand,
    /// Ranges of addresses within which they need not be.
    pub(crate) private: Vec<Cidr>,
    /// Milliseconds after which a node makes itself a new key.
    pub(crate) key_lifetime: i64,
}

impl NetworkSettings {
    /// What is meant, with the defaults.
    pub(super) fn meant(given: &Given) -> Result<Self, Failure> {
        let usual = network::Settings::default();
        let prefix = given.network_prefix.unwrap_or(usual.prefix);
        if !PREFIXES.contains(&prefix) {
            return Err(Failure::usage(format!(
                "network-prefix: {prefix} is not between {} and {}",
                PREFIXES.start(),
                PREFIXES.end()
            )));
        }
        let pools = match &given.network_pool {
            None => usual.pools,
            Some(text) => {
                let each = text.split(',').map(str::trim).filter(|t| !t.is_empty());
                each.map(|text| pool(text, prefix))
                    .collect::<Result<_, _>>()?
            }
        };
        Ok(Self {
            pools,
            prefix,
            address: address(given)?,
            encrypt: encrypt(given)?,
            private: private(given)?,
            key_lifetime: key_lifetime(given)?,
        })
    }
}

fn address(given: &Given) -> Result<Option<IpAddr>, Failure> {
    let Some(text) = &given.network_address else {
        return Ok(None);
    };
    let address = text.parse().ok();
    let address = address.filter(|a: &IpAddr| !a.is_unspecified() && !a.is_loopback());
    address.map(Some).ok_or_else(|| {
        let what = format!("network-address: {text:?} is no address that others can send to");
        Failure::usage(what).help("write an address of this host, as in 192.168.56.10")
    })
}

fn encrypt(given: &Given) -> Result<Demand, Failure> {
    match given.network_encrypt.as_deref() {
        None | Some("auto") => Ok(Demand::Auto),
        Some("always") => Ok(Demand::Always),
        Some("never") => Ok(Demand::Never),
        Some(text) => Err(
            Failure::usage(format!("network-encrypt: {text:?} is no such choice"))
                .help("write auto, always or never"),
        ),
    }
}

fn private(given: &Given) -> Result<Vec<Cidr>, Failure> {
    let text = given.network_private.as_deref().unwrap_or_default();
    let each = text.split(',').map(str::trim).filter(|t| !t.is_empty());
    each.map(|text| {
        text.parse().map_err(|_| {
            Failure::usage(format!(
                "network-private: {text:?} is no range of addresses"
            ))
            .help("write ranges as in 10.0.0.0/24, separated by commas")
        })
    })
    .collect()
}

fn key_lifetime(given: &Given) -> Result<i64, Failure> {
    let Some(text) = &given.network_key_lifetime else {
        return Ok(KEY_LIFETIME);
    };
    let millis = duration(text).filter(|millis| *millis >= SHORTEST);
    millis.ok_or_else(|| {
        let what =
            format!("network-key-lifetime: {text:?} is no duration of {SHORTEST}ms at least");
        Failure::usage(what).help("write it as in 24h")
    })
}

fn pool(text: &str, prefix: u8) -> Result<Cidr, Failure> {
    let wrong = |what: &str| {
        Failure::usage(format!("network-pool: {text:?} {what}"))
            .help("write IPv4 ranges as in 10.128.0.0/9, separated by commas")
    };
    let cidr: Cidr = text
        .parse()
        .map_err(|_| wrong("is no range of addresses"))?;
    if cidr.is_ipv6() {
        return Err(wrong("is of IPv6: those ranges are chosen by Wharfie"));
    }
    if cidr.prefix() > prefix {
        let what = format!("has no room for a subnet of /{prefix} (network-prefix)");
        return Err(wrong(&what));
    }
    Ok(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(toml: &str) -> Result<NetworkSettings, String> {
        let given: Given = toml::from_str(toml).unwrap();
        NetworkSettings::meant(&given).map_err(|f| f.text())
    }

    #[test]
    fn encryption_is_read() {
        let usual = meant("").unwrap();
        assert_eq!(usual.encrypt, Demand::Auto);
        assert!(usual.private.is_empty() && usual.key_lifetime == KEY_LIFETIME);
        let own =
            meant("network-encrypt = \"always\"\nnetwork-private = \"10.0.0.0/24, fd00::/64\"");
        let own = own.unwrap();
        assert_eq!((own.encrypt, own.private.len()), (Demand::Always, 2));
        for (toml, what) in [
            ("network-encrypt = \"yes\"", "\"yes\" is no such choice"),
            ("network-private = \"here\"", "is no range of addresses"),
            ("network-key-lifetime = \"1ms\"", "is no duration of 1000ms"),
        ] {
            let error = meant(toml).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn the_address_is_read() {
        assert_eq!(meant("").unwrap().address, None);
        let own = meant("network-address = \"192.168.56.10\"").unwrap();
        assert_eq!(own.address, Some([192, 168, 56, 10].into()));
        for text in ["eth1", "0.0.0.0", "127.0.0.1", "10.0.0.1:4789"] {
            let error = meant(&format!("network-address = {text:?}")).unwrap_err();
            assert!(error.contains("is no address that others"), "{error}");
        }
    }

    #[test]
    fn pools_are_read() {
        let usual = meant("").unwrap();
        assert_eq!(
            (usual.pools[0].to_string().as_str(), usual.prefix),
            ("10.128.0.0/9", 18)
        );
        let own = meant("network-pool = \"10.9.0.0/16, 10.8.0.0/16\"\nnetwork-prefix = 24");
        let own = own.unwrap();
        let pools: Vec<String> = own.pools.iter().map(ToString::to_string).collect();
        assert_eq!(pools, ["10.9.0.0/16", "10.8.0.0/16"]);
        for (toml, what) in [
            (
                "network-pool = \"10.9.0.0/24\"",
                "has no room for a subnet of /18",
            ),
            (
                "network-pool = \"here\"",
                "\"here\" is no range of addresses",
            ),
            ("network-pool = \"fd00::/48\"", "is of IPv6"),
            ("network-prefix = 30", "30 is not between 8 and 26"),
        ] {
            let error = meant(toml).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}
