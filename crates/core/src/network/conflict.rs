//! What is done when parts of a cluster chose the same for two networks: all nodes come to the
//! same, from the same objects.

use std::collections::BTreeMap;

use super::allot::{Route, Settings};
use super::{Asked, Cidr, Network, Networks, allot};

/// Two networks that cannot both be as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The one that stays.
    pub stays: String,
    /// The one that changes, or cannot.
    pub other: String,
    /// What both have.
    pub what: Clash,
}

/// What two networks both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// A VXLAN identifier.
    Vni(u32),
    /// Addresses: the subnet of the one that changes.
    Subnet(Cidr),
    /// Addresses, and the files of both say so: a person has to change one.
    Given(Cidr),
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stays, other, what } = self;
        match what {
            Clash::Vni(vni) => write!(f, "{other} gets another VNI: {stays} has {vni}, too"),
            Clash::Subnet(s) => write!(f, "{other} gets another subnet: {s} overlaps {stays}"),
            Clash::Given(s) => write!(
                f,
                "networks {stays} and {other} overlap at {s}, as their files say: change one"
            ),
        }
    }
}

/// Whoever comes first stays: given subnets, then older ones, then by name.
fn rank<'a>(name: &'a str, network: &Network) -> (bool, i64, &'a str) {
    let given = network.pools().any(|p| p.given);
    (!given, network.since, name)
}

/// All conflicts between networks, in the order in which they are resolved.
#[must_use]
pub fn conflicts(networks: &Networks) -> Vec<Conflict> {
    let mut order: Vec<(&str, &Network)> = networks.iter().map(|(n, o)| (n.as_str(), o)).collect();
    order.sort_by_key(|(name, network)| rank(name, network));
    let mut vnis: BTreeMap<u32, &str> = BTreeMap::new();
    // Subnets that were let be: none of them overlaps another, but by a person's doing.
    let mut subnets: BTreeMap<Cidr, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, network) in order {
        let mut conflict = |stays: &str, what| {
            found.push(Conflict {
                stays: stays.to_owned(),
                other: name.to_owned(),
                what,
            });
        };
        if let Some(first) = vnis.get(&network.vni) {
            conflict(first, Clash::Vni(network.vni));
        } else {
            vnis.insert(network.vni, name);
        }
        for pool in network.pools() {
            let subnet = pool.subnet;
            match overlapping(&subnets, &subnet) {
                Some(first) if pool.given => conflict(first, Clash::Given(subnet)),
                Some(first) => conflict(first, Clash::Subnet(subnet)),
                None => {
                    subnets.insert(subnet, name);
                }
            }
        }
    }
    found
}

/// Who has a subnet that overlaps another. In order, a range comes right before what is in it.
fn overlapping<'a>(subnets: &BTreeMap<Cidr, &'a str>, subnet: &Cidr) -> Option<&'a str> {
    let before = subnets.range(..=subnet).next_back();
    let behind = subnets.range(subnet..).next();
    let mut near = before.into_iter().chain(behind);
    near.find(|(s, _)| s.overlaps(subnet))
        .map(|(_, name)| *name)
}

/// The networks that change because of [`conflicts`], as they are to be: the coordinator of the
/// stack of each writes it. Containers on them get new addresses. What cannot be changed is left as
/// it is.
#[must_use]
pub fn renumber(networks: &Networks, routes: &[Route], settings: &Settings, now: i64) -> Networks {
    let mut all = networks.clone();
    let mut changed = Networks::new();
    for conflict in conflicts(networks) {
        let name = &conflict.other;
        let Some(mut network) = all.get(name).cloned() else {
            continue;
        };
        let fresh = |all: &Networks, v4: bool, v6: bool| {
            let asked = wharfie_compose::model::Network {
                name: name.clone(),
                enable_ipv4: Some(v4),
                enable_ipv6: Some(v6),
                ..Default::default()
            };
            let asked = Asked {
                stack: &network.stack,
                key: &network.key,
                network: &asked,
            };
            let mut others = all.clone();
            others.remove(name);
            allot(asked, &others, routes, settings, now).ok()
        };
        match conflict.what {
            Clash::Given(_) => continue,
            Clash::Vni(_) => {
                let Some(new) = fresh(&all, true, false).or_else(|| fresh(&all, false, true))
                else {
                    continue;
                };
                network.vni = new.vni;
            }
            Clash::Subnet(subnet) => {
                let is_v6 = subnet.is_ipv6();
                let Some(new) = fresh(&all, !is_v6, is_v6) else {
                    continue;
                };
                network.v4 = new.v4.or(network.v4);
                network.v6 = new.v6.or(network.v6);
                network.since = now;
            }
        }
        all.insert(name.clone(), network.clone());
        changed.insert(name.clone(), network);
    }
    changed
}

/// Networks whose subnets overlap routes that came to a host later. They stay as they are, but
/// somebody should know.
#[must_use]
pub fn barred(networks: &Networks, routes: &[Route]) -> Vec<(String, Cidr, Route)> {
    let mut found = Vec::new();
    for (name, network) in networks {
        for pool in network.pools() {
            let bars = routes.iter().filter(|r| r.bars(&pool.subnet));
            found.extend(bars.map(|r| (name.clone(), pool.subnet, r.clone())));
        }
    }
    found
}
