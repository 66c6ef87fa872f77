//! Networks and volumes of a project.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Extensions, Mapping, is_false};

/// A network (compose-spec 06).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Network {
    /// Name on the Engine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Driver; the Engine's default (`bridge`) when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options of the driver.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: Mapping,
    /// Address management.
    #[serde(default)]
    pub ipam: Ipam,
    /// Managed elsewhere: must exist, is never made or removed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub external: bool,
    /// No way out of the network.
    #[serde(default, skip_serializing_if = "is_false")]
    pub internal: bool,
    /// Standalone containers may join.
    #[serde(default, skip_serializing_if = "is_false")]
    pub attachable: bool,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Mapping,
    /// Whether the network has IPv4; the Engine's default when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    /// Whether the network has IPv6; the Engine's default when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// Address management of a network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ipam {
    /// Driver of the address management.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Address pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<IpamPool>,
    /// Options of the driver. The reference drops them from its output; they reach the Engine.
    #[serde(default, skip_serializing)]
    pub options: Mapping,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// One address pool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct IpamPool {
    /// Subnet in CIDR notation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// Gateway of the subnet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Part of the subnet that containers get addresses from, in CIDR notation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// Addresses kept for hosts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: Mapping,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

/// A named volume (compose-spec 07).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Volume {
    /// Name on the Engine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Driver; the Engine's default (`local`) when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options of the driver.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: Mapping,
    /// Managed elsewhere: must exist, is never made or removed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub external: bool,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Mapping,
    /// `x-*` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}
