//! What this host has of networks, for the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use tracing::debug;
use wharfie_core::network::{Attachment, BRIDGES, Cidr, Mac, bridge_name};
use wharfie_host::net::{Namespace, Watch};

use crate::agent::keeper::Keeper;

impl Keeper {
    /// This host's addresses on networks of the cluster whose bridges are here.
    pub(in crate::agent) fn own_addresses(&self) -> BTreeMap<String, Attachment> {
        let book = self.book.networks();
        if book.networks.is_empty() {
            return BTreeMap::new();
        }
        let fixed = self.fixed();
        let bridges = bridges();
        let me = self.fleet.id();
        let each = book.networks.iter().filter_map(|(name, object)| {
            let mac = *bridges.get(&bridge_name(object.vni))?;
            let own = book.own(name, &me, &fixed)?.own;
            let at = Attachment {
                v4: own.v4,
                v6: own.v6,
                mac: Some(mac),
            };
            Some((name.clone(), at))
        });
        each.collect()
    }
}

/// The bridges of this host by name, with their hardware addresses.
/// Those of the last look, if it fails: what is there must not be taken to be gone.
pub(super) fn bridges() -> BTreeMap<String, Mac> {
    #[derive(Default)]
    struct Last {
        watch: Option<Watch>,
        bridges: BTreeMap<String, Mac>,
    }
    static LAST: Mutex<Option<Last>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let last = last.get_or_insert_default();
    let mut look = || {
        let mut watch = match last.watch.take() {
            Some(watch) => watch,
            None => Watch::open(&Namespace::here()?)?,
        };
        let read = watch.bridges()?;
        last.watch = Some(watch);
        Ok::<_, wharfie_host::net::Error>(read)
    };
    match look() {
        Ok(read) => last.bridges = read.into_iter().map(|(n, mac)| (n, Mac(mac.0))).collect(),
        Err(e) => debug!("{e}"),
    }
    last.bridges.clone()
}

/// Routes of this host but those to networks of the cluster: where they lead, and by which device.
pub(in crate::agent) fn routes() -> Vec<(Cidr, String)> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    let v4 = v4.lines().skip(1).filter_map(route_v4);
    let v6 = v6.lines().filter_map(route_v6);
    let all: BTreeSet<(Cidr, String)> = v4.chain(v6).collect();
    let ours = |device: &str| device.starts_with(BRIDGES) || device == "lo";
    all.into_iter().filter(|(_, d)| !ours(d)).collect()
}

/// A line of `/proc/net/route`: numbers are in the byte order of the machine (proc_net(5)).
fn route_v4(line: &str) -> Option<(Cidr, String)> {
    let mut fields = line.split_whitespace();
    let device = fields.next()?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let to = number(fields.next()?)?;
    let mask = number(fields.nth(5)?)?;
    let address = IpAddr::V4(Ipv4Addr::from(to.to_ne_bytes()));
    let prefix = u8::try_from(mask.count_ones()).ok()?;
    Some((Cidr::new(address, prefix)?, device.to_owned()))
}

/// A line of `/proc/net/ipv6_route`: destination and its prefix come first, the device last. Those to
/// single addresses and to links say nothing of networks.
fn route_v6(line: &str) -> Option<(Cidr, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let to = u128::from_str_radix(fields.first()?, 16).ok()?;
    let prefix = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    let address = Ipv6Addr::from(to);
    let idle = prefix == 128 || address.is_multicast() || address.is_unicast_link_local();
    let cidr = Cidr::new(IpAddr::V6(address), prefix).filter(|_| !idle)?;
    Some((cidr, (*fields.last()?).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read() {
        let line = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0";
        let (cidr, device) = route_v4(line).unwrap();
        // On a machine of little-endian order.
        #[cfg(target_endian = "little")]
        assert_eq!(cidr.to_string(), "192.168.0.0/16");
        assert_eq!(device, "eth0");
        let line = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1";
        let (cidr, device) = route_v6(line).unwrap();
        assert_eq!(
            (cidr.to_string().as_str(), device.as_str()),
            ("fd00::/64", "eth1")
        );
        assert!(route_v4("").is_none() && route_v6("x").is_none());
    }
}
