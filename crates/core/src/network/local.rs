//! A project as one node carries it out: its networks are this node's part of the cluster's.

use std::net::IpAddr;

use wharfie_compose::model::{IpamPool, Network as Definition, Project};

use super::layout::Layout;
use super::slice::{own, slices_of};
use super::{Cidr, Claims, Fixed, Network, Networks, Pool, Slices};
use crate::labels;

/// Bytes that a packet of a container may have: those of Ethernet less what VXLAN adds over IPv4
/// (RFC 7348 section 4.3).
pub const MTU: u16 = 1_450;

/// Option of the Engine's bridge driver: name of the device.
pub const BRIDGE: &str = "com.docker.network.bridge.name";
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// What the names of bridges of networks over several nodes begin with.
pub const BRIDGES: &str = "wbr";

/// Name of the bridge of a network, the same on all nodes: network devices have 15 characters at most.
#[must_use]
pub fn bridge_name(vni: u32) -> String {
    format!("{BRIDGES}{vni:06x}")
}

/// Makes of a project's networks what this node makes of them: a bridge with the node's part of the
/// addresses. Networks of which it has no slice, and those that are the Engine's own affair, stay as
/// they are.
pub fn localize(
    project: &mut Project,
    networks: &Networks,
    slices: &Slices,
    node: &str,
    fixed: &Fixed,
) {
    let none = Claims::new();
    for definition in project.networks.values_mut() {
        if definition.labels.contains_key(labels::RESOLVER) {
            continue;
        }
        let Some(network) = networks.get(&definition.name) else {
            continue;
        };
        let claims = slices.get(&definition.name).unwrap_or(&none);
        let fixed = fixed.on(&definition.name);
        let Some(own) = own(network, claims, node, &fixed) else {
            continue;
        };
        let Some(first) = slices_of(claims, node).first().copied() else {
            continue;
        };
        if definition.external {
            // It is another stack's to say what it is like.
            let resolver = own.gateway.all().next().map(|a| a.to_string());
            let resolver = resolver.map(|r| (labels::RESOLVER.to_owned(), r));
            definition.labels.extend(resolver);
            continue;
        }
        let addresses = Layout::of(network);
        let addresses = addresses.addresses(first << addresses.slice_size().trailing_zeros());
        let gateways = (
            own.gateway.v4.map(IpAddr::V4),
            own.gateway.v6.map(IpAddr::V6),
        );
        let starts = (addresses.v4.map(IpAddr::V4), addresses.v6.map(IpAddr::V6));
        let v4 = pool(network.v4.as_ref(), gateways.0, starts.0, network);
        let v6 = pool(network.v6.as_ref(), gateways.1, starts.1, network);
        make_local(definition, network, v4.into_iter().chain(v6).collect());
    }
}

fn make_local(definition: &mut Definition, network: &Network, pools: Vec<IpamPool>) {
    let hash = wharfie_compose::network_hash(definition);
    definition
        .labels
        .insert(labels::DEFINITION.to_owned(), hash);
    let resolver = pools.first().map(|p| p.gateway.clone());
    let resolver = resolver.map(|r| (labels::RESOLVER.to_owned(), r));
    definition.labels.extend(resolver);
    "bridge".clone_into(&mut definition.driver);
    // The node sees to it: what the Engine does for it would keep names from being answered.
    definition.internal = false;
    definition.ipam.driver.clear();
    definition.ipam.config = pools;
    definition.enable_ipv6 = network.v6.is_some().then_some(true);
    let options = &mut definition.driver_opts;
    options.insert(BRIDGE.to_owned(), bridge_name(network.vni));
    options
        .entry(MTU_OPTION.to_owned())
        .or_insert_with(|| network.mtu.unwrap_or(MTU).to_string());
}

/// A pool for the Engine. What it gives to containers by itself comes from the node's oldest slice.
fn pool(
    pool: Option<&Pool>,
    gateway: Option<IpAddr>,
    start: Option<IpAddr>,
    network: &Network,
) -> Option<IpamPool> {
    let pool = pool?;
    let bits = Layout::of(network).slice_size().trailing_zeros();
    let bits = u8::try_from(bits).unwrap_or(u8::MAX);
    let whole: u8 = if pool.subnet.is_ipv6() { 128 } else { 32 };
    let range = start.and_then(|a| Cidr::new(a, whole.saturating_sub(bits)));
    let kept = pool.kept.iter();
    Some(IpamPool {
        subnet: pool.subnet.to_string(),
        gateway: gateway.map(|g| g.to_string()).unwrap_or_default(),
        ip_range: range.map(|r| r.to_string()).unwrap_or_default(),
        aux_addresses: kept.map(|(k, a)| (k.clone(), a.to_string())).collect(),
        ..IpamPool::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::Slice;
    use super::*;

    #[test]
    fn a_network_is_this_nodes_part_of_it() {
        let subnet = "10.128.64.0/18".parse().unwrap();
        let network = Network {
            vni: 0xab_cdef,
            v4: Some(Pool::chosen(subnet)),
            ..Network::default()
        };
        let networks = Networks::from([("shop_default".to_owned(), network)]);
        let claim = |node: &str, since| Slice {
            node: node.to_owned(),
            since,
        };
        let claims = Claims::from([(0, claim("a", 1)), (2, claim("b", 2)), (1, claim("b", 3))]);
        let slices = Slices::from([("shop_default".to_owned(), claims)]);
        let definition = Definition {
            name: "shop_default".to_owned(),
            driver: "overlay".to_owned(),
            ..Definition::default()
        };
        let mut project = Project::default();
        project
            .networks
            .insert("default".to_owned(), definition.clone());
        let before = project.clone();
        let fixed = Fixed::default();
        localize(&mut project, &networks, &slices, "c", &fixed);
        assert_eq!(project, before, "without a slice nothing is known");
        localize(&mut project, &networks, &slices, "b", &fixed);
        let local = &project.networks["default"];
        assert_eq!(local.driver, "bridge");
        assert_eq!(local.driver_opts[BRIDGE], "wbrabcdef");
        assert_eq!(local.driver_opts[MTU_OPTION], "1450");
        let [pool] = local.ipam.config.as_slice() else {
            panic!("{local:?}");
        };
        assert_eq!(pool.subnet, "10.128.64.0/18");
        assert_eq!(
            (pool.gateway.as_str(), pool.ip_range.as_str()),
            ("10.128.64.129", "10.128.64.128/26")
        );
        // Once more changes nothing.
        let once = project.clone();
        localize(&mut project, &networks, &slices, "b", &fixed);
        assert_eq!(project, once);
    }
}
