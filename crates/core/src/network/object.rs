//! What is kept of networks in the replicated store: networks, slices and addresses of services.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use wharfie_compose::model::Mapping;

use super::Cidr;

/// Kind of the objects that hold a [`Network`]; named as the network is on the Engine.
pub const NETWORK: &str = "network";
/// Kind of the objects that hold a [`Slice`]; named by [`slice_name`].
pub const SLICE: &str = "slice";
/// Kind of the objects that hold a [`Vip`]; named by [`vip_name`].
pub const VIP: &str = "vip";

/// All networks of the cluster by their names on the Engines.
pub type Networks = BTreeMap<String, Network>;
/// The slices of all networks: by network, then by index.
pub type Slices = BTreeMap<String, Claims>;
/// The slices of one network by index.
pub type Claims = BTreeMap<u32, Slice>;
/// Addresses of services, by [`VipKey`].
pub type Vips = BTreeMap<VipKey, Vip>;

/// A network that is the same on all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Stack that it belongs to; empty for one that was made by hand.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stack: String,
    /// Its key in the stack's file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// VXLAN network identifier, 24 bits and not 0 (RFC 7348 section 5).
    pub vni: u32,
    /// IPv4, unless it has none (`enable_ipv4: false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v4: Option<Pool>,
    /// IPv6, if it has any (`enable_ipv6: true`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6: Option<Pool>,
    /// No way out of the network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Containers of no stack may join.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attachable: bool,
    /// Options of the driver, for the Engine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: Mapping,
    /// Bytes that a packet of a container may have; unless it is said, as many as VXLAN leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Labels, for the Engine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Mapping,
    /// Since when it has its subnets, in milliseconds since 1970. Of two that cannot both be as
    /// they are, the older stays.
    pub since: i64,
}

/// The addresses of a network in one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of them.
    pub subnet: Cidr,
    /// The part from which addresses are chosen (`ip_range`); all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Cidr>,
    /// The gateway that every container gets (`gateway`); if there is none, each node has one of
    /// its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Addresses that are never chosen, by name (`aux_addresses`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, IpAddr>,
    /// Whether the file says this subnet: then it is never exchanged for another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
}

impl Pool {
    /// A subnet that was chosen here.
    #[must_use]
    pub fn chosen(subnet: Cidr) -> Self {
        Self {
            subnet,
            range: None,
            gateway: None,
            kept: BTreeMap::new(),
            given: false,
        }
    }
}

impl Network {
    /// Its pools, IPv4 first.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.v4.iter().chain(&self.v6)
    }

    /// Whether an address is one of its.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.pools().any(|p| p.subnet.contains(address))
    }
}

/// A part of a network's addresses that one node gives to its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slice {
    /// Id of the node.
    pub node: String,
    /// Since when, in milliseconds since 1970: the gateway is in a node's oldest slice.
    pub since: i64,
}

/// Name of the object of a slice: `network/index`.
#[must_use]
pub fn slice_name(network: &str, index: u32) -> String {
    format!("{network}/{index}")
}

/// Network and index of a slice's name; `None` if it is none.
#[must_use]
pub fn slice_of_name(name: &str) -> Option<(&str, u32)> {
    let (network, index) = name.rsplit_once('/')?;
    Some((network, index.parse().ok()?))
}

/// The address of a service on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vip {
    /// IPv4, if the network has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    /// IPv6, if the network has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
}

impl Vip {
    /// Both addresses that it may have.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }
}

/// Which service's address on which network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipKey {
    /// Network's name on the Engines.
    pub network: String,
    /// Stack.
    pub stack: String,
    /// Service.
    pub service: String,
}

/// Name of the object of a service's address: `network/stack/service`.
#[must_use]
pub fn vip_name(key: &VipKey) -> String {
    format!("{}/{}/{}", key.network, key.stack, key.service)
}

/// Network, stack and service of such a name; `None` if it is none.
#[must_use]
pub fn vip_of_name(name: &str) -> Option<VipKey> {
    let mut parts = name.rsplitn(3, '/').map(str::to_owned);
    let (service, stack, network) = (parts.next()?, parts.next()?, parts.next()?);
    Some(VipKey {
        network,
        stack,
        service,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        let key = VipKey {
            network: "shop_default".to_owned(),
            stack: "shop".to_owned(),
            service: "web".to_owned(),
        };
        assert_eq!(vip_of_name(&vip_name(&key)), Some(key));
        assert_eq!(vip_of_name("a/b"), None);
        assert_eq!(slice_of_name(&slice_name("a_b", 7)), Some(("a_b", 7)));
        assert_eq!(slice_of_name("a_b/x"), None);
    }

    #[test]
    fn objects_of_other_versions_can_be_read() {
        let text = r#"{"vni": 7, "colour": "red", "v4": {"subnet": "10.1.0.0/16"}}"#;
        let network: Network = serde_json::from_str(text).unwrap();
        assert_eq!(
            network.v4,
            Some(Pool::chosen("10.1.0.0/16".parse().unwrap()))
        );
        let back = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&back).unwrap(), network);
    }
}
