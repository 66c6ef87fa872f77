//! Subnets and VXLAN identifiers for networks, chosen so that parts of a cluster that cannot see
//! each other rarely choose the same: the search begins at a hash of the name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use wharfie_compose::model;

use super::{Cidr, Network, Networks, Pool};
use crate::schedule::hash;

/// VXLAN identifiers are below this (RFC 7348 section 5).
const VNIS: u64 = 1 << 24;
/// Users of a pool that an error names at most.
const NAMED: usize = 5;

/// Where subnets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Subnets of IPv4 networks are parts of these, tried in order.
    pub pools: Vec<Cidr>,
    /// Bits of the prefix of a subnet.
    pub prefix: u8,
    /// Bytes that a packet of a container of a new network may have, if less than VXLAN leaves.
    pub mtu: Option<u16>,
    /// Name or id of the cluster: its IPv6 networks have a prefix of their own (RFC 4193).
    pub cluster: String,
}

impl Default for Settings {
    fn default() -> Self {
        let base = IpAddr::from([10, 128, 0, 0]);
        Self {
            pools: Cidr::new(base, 9).into_iter().collect(),
            prefix: 18,
            mtu: None,
            cluster: String::new(),
        }
    }
}

/// A route of a host, other than those to networks of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Name of the node.
    pub node: String,
    /// Where it leads.
    pub to: Cidr,
    /// The device.
    pub device: String,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} dev {} on {}", self.to, self.device, self.node)
    }
}

impl Route {
    /// Whether a subnet cannot be used beside it. Routes to all there is, or to half of it as VPNs
    /// set them, leave room for more specific ones.
    #[must_use]
    pub fn bars(&self, subnet: &Cidr) -> bool {
        self.to.prefix() > 1 && self.to.overlaps(subnet)
    }
}

/// Why a network cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A subnet that the file says is used by a host.
    #[error("network {network}: subnet {subnet} overlaps the route {route}; choose another subnet")]
    Route {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: Cidr,
        /// What is in the way.
        route: Route,
    },
    /// A subnet that the file says is used by another network.
    #[error(
        "network {network}: subnet {subnet} overlaps network {other} ({theirs}); choose another subnet"
    )]
    Network {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: Cidr,
        /// The network that has it.
        other: String,
        /// That network's subnet.
        theirs: Cidr,
    },
    /// No subnet is left.
    #[error(
        "network {network}: no subnet of prefix {prefix} is left in {pools}: {users}; set `network-pool` to a larger range"
    )]
    Exhausted {
        /// The network.
        network: String,
        /// Bits of the prefix.
        prefix: u8,
        /// The pools.
        pools: String,
        /// Who uses them.
        users: String,
    },
    /// No VXLAN identifier is left.
    #[error("network {network}: all VXLAN identifiers are taken")]
    Identifiers {
        /// The network.
        network: String,
    },
    /// The file's address management makes no sense.
    #[error("network {network}: {why}")]
    Ipam {
        /// The network.
        network: String,
        /// What is wrong.
        why: String,
    },
}

/// Whether a network of a file is one that spans nodes: those that the Engine's bridge and overlay
/// drivers make. External ones are made elsewhere.
#[must_use]
pub fn spans(network: &model::Network) -> bool {
    !network.external && matches!(network.driver.as_str(), "" | "bridge" | "overlay")
}

/// A network of a stack's file.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Stack.
    pub stack: &'a str,
    /// Key in the file.
    pub key: &'a str,
    /// What the file says.
    pub network: &'a model::Network,
}

/// The object of a network, as its stack's coordinator writes it. What was chosen before stays, as
/// long as the file allows it. `others` are all networks there are (this one may be among them),
/// `routes` those of all nodes, `now` is in milliseconds since 1970.
///
/// # Errors
/// [`Refusal`], in words for whoever asked.
pub fn allot(
    asked: Asked,
    others: &Networks,
    routes: &[Route],
    settings: &Settings,
    now: i64,
) -> Result<Network, Refusal> {
    let name = asked.network.name.as_str();
    let before = others.get(name);
    let taken = Taken {
        name,
        networks: others,
        routes,
    };
    let given = given(name, asked.network)?;
    let keep = |old: Option<&Pool>| old.filter(|p| !p.given).cloned();
    let has_v4 = asked.network.enable_ipv4.unwrap_or(true);
    let v4 = match given.0 {
        _ if !has_v4 => None,
        Some(pool) => Some(taken.check(pool, before.and_then(|n| n.v4.as_ref()))?),
        None => Some(match keep(before.and_then(|n| n.v4.as_ref())) {
            Some(pool) => pool,
            None => Pool::chosen(taken.choose(settings)?),
        }),
    };
    let has_v6 = asked.network.enable_ipv6.unwrap_or(false);
    let v6 = match given.1 {
        _ if !has_v6 => None,
        Some(pool) => Some(taken.check(pool, before.and_then(|n| n.v6.as_ref()))?),
        None => Some(match keep(before.and_then(|n| n.v6.as_ref())) {
            Some(pool) => pool,
            None => Pool::chosen(taken.choose_ipv6(settings)?),
        }),
    };
    if v4.is_none() && v6.is_none() {
        return Err(Refusal::Ipam {
            network: name.to_owned(),
            why: "it has neither IPv4 nor IPv6".to_owned(),
        });
    }
    let same = before.filter(|n| n.v4 == v4 && n.v6 == v6);
    Ok(Network {
        stack: asked.stack.to_owned(),
        key: asked.key.to_owned(),
        vni: match before {
            Some(before) => before.vni,
            None => taken.identifier()?,
        },
        internal: asked.network.internal,
        attachable: asked.network.attachable,
        options: asked.network.driver_opts.clone(),
        // Bridges that were made cannot be changed.
        mtu: match before {
            Some(before) => before.mtu,
            None => settings.mtu,
        },
        labels: asked.network.labels.clone(),
        since: same.map_or(now, |n| n.since),
        v4,
        v6,
    })
}

/// The pools that a file gives: IPv4 and IPv6.
fn given(name: &str, network: &model::Network) -> Result<(Option<Pool>, Option<Pool>), Refusal> {
    let wrong = |why: String| Refusal::Ipam {
        network: name.to_owned(),
        why,
    };
    let (mut v4, mut v6) = (None, None);
    for config in &network.ipam.config {
        if config.subnet.is_empty() {
            // The Engine refuses such a pool as well, unless nothing at all is said.
            if config.gateway.is_empty() && config.ip_range.is_empty() {
                continue;
            }
            return Err(wrong("`ipam.config` needs `subnet`".to_owned()));
        }
        let subnet: Cidr = config.subnet.parse().map_err(wrong)?;
        let inside = |what: &str, text: &str| -> Result<IpAddr, Refusal> {
            let address: IpAddr = text
                .parse()
                .map_err(|_| wrong(format!("{what} {text:?} is no address")))?;
            match subnet.contains(address) {
                true => Ok(address),
                false => Err(wrong(format!("{what} {address} is not in subnet {subnet}"))),
            }
        };
        let mut pool = Pool {
            given: true,
            ..Pool::chosen(subnet)
        };
        if !config.ip_range.is_empty() {
            let range: Cidr = config.ip_range.parse().map_err(wrong)?;
            if !subnet.covers(&range) {
                let why = format!("`ip_range` {range} is not in subnet {subnet}");
                return Err(wrong(why));
            }
            pool.range = Some(range);
        }
        if !config.gateway.is_empty() {
            pool.gateway = Some(inside("`gateway`", &config.gateway)?);
        }
        for (host, address) in &config.aux_addresses {
            let address = inside("an address of `aux_addresses`,", address)?;
            pool.kept.insert(host.clone(), address);
        }
        let slot = if subnet.is_ipv6() { &mut v6 } else { &mut v4 };
        if let Some(first) = slot.replace(pool) {
            let why = format!(
                "it has two subnets of one family, {} and {subnet}",
                first.subnet
            );
            return Err(wrong(why));
        }
    }
    Ok((v4, v6))
}

/// What is taken, for one network.
struct Taken<'a> {
    name: &'a str,
    networks: &'a Networks,
    routes: &'a [Route],
}

impl Taken<'_> {
    fn others(&self) -> impl Iterator<Item = (&str, &Network)> {
        let all = self.networks.iter().map(|(name, n)| (name.as_str(), n));
        all.filter(|(name, _)| *name != self.name)
    }

    fn subnets(&self) -> impl Iterator<Item = (&str, Cidr)> {
        let pools = |(name, n)| Network::pools(n).map(move |p| (name, p.subnet));
        self.others().flat_map(pools)
    }

    /// Lets a given pool pass if nothing is in its way. What it has already it keeps: a route that
    /// came later is no reason to break what runs.
    fn check(&self, pool: Pool, before: Option<&Pool>) -> Result<Pool, Refusal> {
        let (network, subnet) = (self.name.to_owned(), pool.subnet);
        if let Some((other, theirs)) = self.subnets().find(|(_, s)| s.overlaps(&subnet)) {
            return Err(Refusal::Network {
                network,
                subnet,
                other: other.to_owned(),
                theirs,
            });
        }
        if before.is_some_and(|b| b.subnet == subnet) {
            return Ok(pool);
        }
        match self.routes.iter().find(|r| r.bars(&subnet)) {
            Some(route) => Err(Refusal::Route {
                network,
                subnet,
                route: route.clone(),
            }),
            None => Ok(pool),
        }
    }

    fn choose(&self, settings: &Settings) -> Result<Cidr, Refusal> {
        let prefix = settings.prefix;
        let pools = settings.pools.iter().filter(|p| p.prefix() <= prefix);
        let taken: Vec<Cidr> = self.subnets().map(|(_, s)| s).collect();
        for pool in pools {
            let inside = taken.iter().filter(|t| t.overlaps(pool)).copied();
            let barring = |r: &&Route| r.to.prefix() > 1 && r.to.overlaps(pool);
            let routes = self.routes.iter().filter(barring).map(|r| r.to);
            let taken: BTreeSet<Cidr> = inside.chain(routes).collect();
            if let Some(subnet) = free_part(pool, prefix, hash::text(self.name), &taken) {
                return Ok(subnet);
            }
        }
        Err(self.exhausted(settings))
    }

    fn exhausted(&self, settings: &Settings) -> Refusal {
        let pools = || settings.pools.iter();
        let in_pools = |s: &Cidr| pools().any(|p| p.overlaps(s));
        let mut users: Vec<String> = self
            .subnets()
            .filter(|(_, s)| in_pools(s))
            .map(|(name, s)| format!("network {name} has {s}"))
            .collect();
        let routes = self.routes.iter().filter(|r| r.to.prefix() > 1);
        // Routes of hosts are rarer and take more: they come first.
        let routes = routes.filter(|r| in_pools(&r.to));
        users.splice(0..0, routes.map(|r| format!("route {r}")));
        let more = users.len().saturating_sub(NAMED);
        users.truncate(NAMED);
        if more > 0 {
            users.push(format!("and {more} more"));
        }
        if users.is_empty() {
            users.push("it is too small".to_owned());
        }
        let pools: Vec<String> = pools().map(ToString::to_string).collect();
        Refusal::Exhausted {
            network: self.name.to_owned(),
            prefix: settings.prefix,
            pools: pools.join(", "),
            users: users.join(", "),
        }
    }

    /// A subnet of the cluster's own prefix (RFC 4193 section 3.2.2: 40 bits that are random
    /// enough, then 16 bits for subnets).
    fn choose_ipv6(&self, settings: &Settings) -> Result<Cidr, Refusal> {
        let global = u128::from(hash::text(&settings.cluster)) & 0xff_ffff_ffff;
        let base = Ipv6Addr::from_bits(0xfd << 120 | global << 80);
        let taken = self.subnets().map(|(_, s)| s);
        let routes = self.routes.iter().filter(|r| r.to.prefix() > 1);
        let taken: BTreeSet<Cidr> = taken.chain(routes.map(|r| r.to)).collect();
        let pool = Cidr::new(base.into(), 48);
        let start = hash::text(self.name);
        let found = pool.and_then(|pool| free_part(&pool, 64, start, &taken));
        found.ok_or_else(|| Refusal::Exhausted {
            network: self.name.to_owned(),
            prefix: 64,
            pools: pool.map(|p| p.to_string()).unwrap_or_default(),
            users: "its 65536 subnets are taken".to_owned(),
        })
    }

    fn identifier(&self) -> Result<u32, Refusal> {
        let taken: BTreeSet<u64> = self.others().map(|(_, n)| u64::from(n.vni)).collect();
        let start = hash::text(self.name) % VNIS;
        let mut order = (start..VNIS).chain(0..start);
        let free = order.find(|vni| *vni != 0 && !taken.contains(vni));
        let free = free.and_then(|vni| u32::try_from(vni).ok());
        free.ok_or_else(|| Refusal::Identifiers {
            network: self.name.to_owned(),
        })
    }
}

/// The first free part of a pool at or behind a place, going round. Whatever overlaps is jumped
/// over at once: a pool may have millions of parts.
fn free_part(pool: &Cidr, prefix: u8, start: u64, taken: &BTreeSet<Cidr>) -> Option<Cidr> {
    let bits = u32::from(prefix.checked_sub(pool.prefix())?);
    let parts: u128 = 1_u128.checked_shl(bits)?;
    let start = u128::from(start) % parts;
    // The parts that are taken, as first and last.
    let mut spans: BTreeMap<u128, u128> = BTreeMap::new();
    let shift = u32::from(pool.free_bits()) - bits;
    for t in taken.iter().filter(|t| t.overlaps(pool)) {
        let first = pool.offset(t.base()).unwrap_or(0);
        let last = pool.offset(t.last()).unwrap_or(u128::MAX);
        let (first, last) = (first >> shift, (last >> shift).min(parts - 1));
        let end = spans.entry(first).or_insert(last);
        *end = last.max(*end);
    }
    let mut furthest = None;
    let ends: BTreeMap<u128, u128> = spans
        .into_iter()
        .map(|(first, last)| {
            let end: u128 = furthest.map_or(last, |f: u128| f.max(last));
            furthest = Some(end);
            (first, end)
        })
        .collect();
    let search = |from: u128, to: u128| {
        let mut place = from;
        while place < to {
            match ends.range(..=place).next_back() {
                Some((_, end)) if *end >= place => place = end + 1,
                _ => return Some(place),
            }
        }
        None
    };
    let place = search(start, parts).or_else(|| search(0, start))?;
    pool.part(prefix, place)
}
