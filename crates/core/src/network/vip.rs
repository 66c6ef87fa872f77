//! Addresses of services: one on each network that a service is on, balanced over its tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::layout::Layout;
use super::{Networks, Vip, VipKey, Vips};
use crate::schedule::hash;
use crate::wanted::Stack;

/// What is to be written about the addresses of services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones, and ones in place of others.
    pub put: Vips,
    /// Those that nobody needs any longer.
    pub delete: BTreeSet<VipKey>,
    /// Services for which none is left: their names lead to their tasks.
    pub without: BTreeSet<VipKey>,
}

/// Whether a service has an address of its own: all have, but those with `endpoint_mode: dnsrr`
/// (compose-spec, deploy, `endpoint_mode`), and those that have no network of their own.
#[must_use]
pub fn has_vip(service: &wharfie_compose::model::Service) -> bool {
    let mode = service.deploy.as_ref().map_or("", |d| &d.endpoint_mode);
    service.network_mode.is_empty() && mode != "dnsrr"
}

/// Which addresses the services of a stack need.
#[must_use]
pub fn needed(stack: &Stack, networks: &Networks) -> BTreeSet<VipKey> {
    let mut keys = BTreeSet::new();
    for name in &stack.active {
        let Some(service) = stack.project.any_service(name).filter(|s| has_vip(s)) else {
            continue;
        };
        for key in service.networks.keys() {
            let network = stack.project.networks.get(key).map_or("", |n| &n.name);
            if networks.contains_key(network) {
                keys.insert(VipKey {
                    network: network.to_owned(),
                    stack: stack.project.name.clone(),
                    service: name.clone(),
                });
            }
        }
    }
    keys
}

/// What the coordinator of a stack has to write about the addresses of its services. `all` are the
/// addresses of the services of all stacks, `used` other addresses on the networks: of containers,
/// as seen and as wanted.
///
/// Of services that have the same address the one whose address is older keeps it, then the first
/// by stack and name: the coordinator of the other gives it a new one.
#[must_use]
pub fn changes(
    stack: &Stack,
    networks: &Networks,
    all: &Vips,
    used: &BTreeMap<String, BTreeSet<IpAddr>>,
    now: i64,
) -> Changes {
    let name = &stack.project.name;
    let needed = needed(stack, networks);
    let mut changes = Changes::default();
    let own = all.keys().filter(|k| k.stack == *name);
    changes.delete = own.filter(|k| !needed.contains(*k)).cloned().collect();
    let mut by_network: BTreeMap<&str, Vec<&VipKey>> = BTreeMap::new();
    for key in &needed {
        by_network.entry(&key.network).or_default().push(key);
    }
    for (network, keys) in by_network {
        let Some(object) = networks.get(network) else {
            continue;
        };
        let layout = Layout::of(object);
        let (first, end) = layout.services();
        let mut taken: BTreeMap<u32, &VipKey> = BTreeMap::new();
        let mut present: Vec<(&VipKey, &Vip)> =
            all.iter().filter(|(k, _)| k.network == network).collect();
        present.sort_by_key(|(k, v)| (v.since, *k));
        let used = used.get(network);
        let foreign: BTreeSet<u32> = used
            .into_iter()
            .flatten()
            .filter_map(|a| layout.number(*a))
            .collect();
        let mut good: BTreeSet<&VipKey> = BTreeSet::new();
        for (key, vip) in present {
            // What is about to be deleted frees its address only then: nobody may be using it still.
            let number = vip.addresses().next().and_then(|a| layout.number(a));
            let Some(number) = number.filter(|n| (first..end).contains(n)) else {
                continue;
            };
            let whole = layout.addresses(number);
            let fits = (whole.v4, whole.v6) == (vip.v4, vip.v6);
            let mine = *taken.entry(number).or_insert(key) == key;
            if fits && mine && layout.is_usable(number) && !foreign.contains(&number) {
                good.insert(key);
            }
        }
        for key in keys {
            if good.contains(key) {
                continue;
            }
            let count = u64::from(end - first);
            let start = hash::pair(hash::text(&key.stack), hash::text(&key.service));
            let start = first + u32::try_from(start % count.max(1)).unwrap_or(0);
            let free =
                |n: &u32| layout.is_usable(*n) && !taken.contains_key(n) && !foreign.contains(n);
            match (start..end).chain(first..start).find(free) {
                Some(number) => {
                    taken.insert(number, key);
                    let addresses = layout.addresses(number);
                    let vip = Vip {
                        v4: addresses.v4,
                        v6: addresses.v6,
                        since: now,
                    };
                    changes.put.insert(key.clone(), vip);
                }
                None => {
                    if all.contains_key(key) {
                        changes.delete.insert(key.clone());
                    }
                    changes.without.insert(key.clone());
                }
            }
        }
    }
    changes
}
