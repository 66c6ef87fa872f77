//! Which addresses are given to whom.
//!
//! Nobody is asked: the search for a free one begins at a hash of the owner's name, so that parts of a
//! cluster that cannot see each other rarely choose the same. If they do, all see the same loser, whose
//! coordinator gives it another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Address, Addresses, Candidate, Claim, Director, Families, Owner, Range, holder};
use crate::heal::Millis;
use crate::network::Cidr;
use crate::schedule::hash;

/// How many places of a range are looked at: one of IPv6 has no end.
const LOOKED_AT: u128 = 1 << 20;

/// What is known of the network around.
#[derive(Debug, Clone, Default)]
pub struct Lan {
    /// Names of nodes by their ids.
    pub names: BTreeMap<String, String>,
    /// Subnets of the nodes' devices, by their ids.
    pub subnets: BTreeMap<String, Vec<Cidr>>,
    /// Devices of nodes that are there, up and with a cable, by their ids. Of a node that says nothing of
    /// them the one that people said counts as such.
    pub devices: BTreeMap<String, BTreeSet<String>>,
    /// Addresses that somebody else was seen to use.
    pub taken: BTreeSet<IpAddr>,
    /// Nodes of which it is not known what is to become of what they hold: they are expected back, or
    /// somebody is who may know better.
    pub waited_for: BTreeSet<String>,
    /// Whose addresses cannot be read here, and are left alone.
    pub unreadable: BTreeSet<Owner>,
}

impl Lan {
    fn name<'a>(&'a self, node: &'a str) -> &'a str {
        self.names.get(node).map_or(node, String::as_str)
    }

    /// Whether a node may hold an address: one in a subnet of it, unless the device was said. Nobody can have the
    /// ends of a subnet.
    fn may_hold(&self, director: &Director, node: &str, address: IpAddr) -> bool {
        self.is_near(director, node, address) && self.ends(node, address).is_none()
    }

    fn is_near(&self, director: &Director, node: &str, address: IpAddr) -> bool {
        let near = || self.subnets_of(node).any(|s| s.contains(address));
        director.gives(self.name(node), address) && self.said(director, node).unwrap_or_else(near)
    }

    /// Whether a node may hold some of a range.
    fn offers(&self, director: &Director, node: &str, range: Range) -> bool {
        let near = || self.subnets_of(node).any(|s| range.overlaps(s));
        self.said(director, node).unwrap_or_else(near)
    }

    /// Whether a node's device can have addresses, if people said which one it is.
    fn said(&self, director: &Director, node: &str) -> Option<bool> {
        let device = director.device_of(self.name(node))?;
        let known = self.devices.get(node);
        Some(known.is_none_or(|devices| devices.contains(device)))
    }

    fn subnets_of(&self, node: &str) -> impl Iterator<Item = &Cidr> {
        self.subnets.get(node).into_iter().flatten()
    }

    /// The subnet of a node whose end an address is: its name, or (IPv4) for all of it.
    fn ends(&self, node: &str, address: IpAddr) -> Option<&Cidr> {
        let is_end = |s: &&Cidr| {
            let last = !s.is_ipv6() && address == s.last();
            s.free_bits() >= 2 && (address == s.base() || last)
        };
        self.subnets_of(node).find(is_end)
    }
}

/// What is to be written, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones, and ones in place of others.
    pub put: Addresses,
    /// Those that are forgotten.
    pub delete: BTreeSet<Owner>,
    /// What was asked for and cannot be, in words: the file is to be changed.
    pub refused: Vec<String>,
    /// What cannot be now, in words.
    pub faults: Vec<String>,
}

/// Decides on the addresses of those for whom `mine` holds: each that wants one has a [`Claim`].
#[must_use]
pub fn allot(
    claims: &[Claim],
    mine: impl Fn(&Owner) -> bool,
    all: &Addresses,
    director: &Director,
    lan: &Lan,
    now: Millis,
) -> Changes {
    let mut changes = Changes::default();
    let used = all.values().filter(|a| a.freed.is_none());
    let used: BTreeSet<IpAddr> = used.flat_map(Address::all).collect();
    for (owner, address) in all.iter().filter(|(o, _)| mine(o)) {
        if claims.iter().any(|c| c.owner == *owner) {
            continue;
        }
        let freed = address.freed.unwrap_or(now);
        // Others have it by now: nothing is kept for who is gone.
        let lost = address.freed.is_some() && address.all().all(|ip| used.contains(&ip));
        if lost || now - freed >= director.keep {
            changes.delete.insert(owner.clone());
        } else if address.freed.is_none() || !address.node.is_empty() {
            let (freed, node) = (Some(freed), String::new());
            let address = Address {
                freed,
                node,
                ..address.clone()
            };
            changes.put.insert(owner.clone(), address);
        }
    }
    let mut taken = Taken::of(all, &changes.delete);
    let readable = |c: &&Claim| !lan.unreadable.contains(&c.owner);
    for claim in claims.iter().filter(readable) {
        let before = all.get(&claim.owner);
        match one(claim, before, &mut taken, director, lan, now) {
            Ok(address) => {
                let missed = missed(claim, &address, &taken, director, lan);
                changes.faults.extend(missed);
                if before != Some(&address) {
                    changes.put.insert(claim.owner.clone(), address);
                }
            }
            Err(Why::Asked(words)) => {
                changes.refused.push(words);
                // What it had it has no more: another one asked for it too, or it is given to nobody now.
                if before.is_some() {
                    changes.delete.insert(claim.owner.clone());
                }
            }
            Err(Why::None(words)) => {
                changes.faults.push(words);
                if before.is_some() {
                    changes.delete.insert(claim.owner.clone());
                }
            }
        }
    }
    // Who just came back may not have heard yet that an address was taken over meanwhile, and what by
    // whom: what he writes then would be newer than what is right.
    let may_be_written = |owner: &Owner| {
        let held = all.get(owner).filter(|a| a.freed.is_none());
        !held.is_some_and(|a| lan.waited_for.contains(&a.node))
    };
    changes.put.retain(|owner, _| may_be_written(owner));
    changes.delete.retain(|owner| may_be_written(owner));
    changes
}

enum Why {
    Asked(String),
    None(String),
}

/// Who has what.
struct Taken {
    of: BTreeMap<IpAddr, (Rank, Owner)>,
    /// Those who are gone, and since when.
    freed: BTreeMap<IpAddr, (Millis, Owner)>,
}

/// Of two with one address the lower keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(bool, Millis);

impl Taken {
    fn of(all: &Addresses, deleted: &BTreeSet<Owner>) -> Self {
        let mut taken = Self {
            of: BTreeMap::new(),
            freed: BTreeMap::new(),
        };
        for (owner, address) in all.iter().filter(|(o, _)| !deleted.contains(o)) {
            for ip in address.all() {
                match address.freed {
                    Some(at) => drop(taken.freed.insert(ip, (at, owner.clone()))),
                    None => taken.note(ip, Rank(!address.asked, address.since), owner),
                }
            }
        }
        taken
    }

    fn note(&mut self, ip: IpAddr, rank: Rank, owner: &Owner) {
        let entry = self.of.entry(ip).or_insert_with(|| (rank, owner.clone()));
        if (rank, owner) < (entry.0, &entry.1) {
            *entry = (rank, owner.clone());
        }
    }

    /// Whether somebody else has an address, or it is reserved for somebody else.
    fn is_free(&self, ip: IpAddr, owner: &Owner) -> bool {
        let others = self.of.get(&ip).is_some_and(|(_, o)| o != owner);
        let kept = self.freed.get(&ip).is_some_and(|(_, o)| o != owner);
        !others && !kept
    }

    /// Nobody else has it, or only somebody who is gone: who comes back gets another one.
    fn take(&mut self, ip: IpAddr, rank: Rank, owner: &Owner) {
        self.freed.remove(&ip);
        self.of.insert(ip, (rank, owner.clone()));
    }
}

fn one(
    claim: &Claim,
    before: Option<&Address>,
    taken: &mut Taken,
    director: &Director,
    lan: &Lan,
    now: Millis,
) -> Result<Address, Why> {
    let owner = &claim.owner;
    let current = before.map_or("", |a| a.node.as_str());
    let mut address = Address {
        made: before.map_or(now, |a| a.made),
        since: before.map_or(now, |a| a.since),
        asked: !claim.asked.is_empty(),
        ..Address::default()
    };
    // The nodes on whose devices one of its addresses can be.
    let mut candidates: Vec<Candidate> = claim.candidates.clone();
    let mut families: Vec<bool> = [false, true]
        .into_iter()
        .filter(|ipv6| director.ranges.iter().any(|r| r.range.is_ipv6() == *ipv6))
        .collect();
    if families.is_empty() {
        return Err(Why::None(
            "the director has no addresses: wharfie director init gives it some".to_owned(),
        ));
    }
    let asked_in = |ipv6: bool| claim.asked.iter().find(|a| a.is_ipv6() == ipv6).copied();
    families.retain(|ipv6| match claim.asked.is_empty() {
        true => claim.families.leads(*ipv6, before),
        // Who asks has these and no others.
        false => asked_in(*ipv6).is_some(),
    });
    if families.is_empty() {
        return Err(Why::None(format!(
            "{} has no address: {}, and the director's ranges have no others",
            owner.called(),
            Families::lacking(director.ranges.iter().all(|r| r.range.is_ipv6()))
        )));
    }
    for asked in &claim.asked {
        check_asked(*asked, claim, before, director, lan, taken)?;
        candidates.retain(|c| lan.may_hold(director, &c.node, *asked));
    }
    let offers = |c: &Candidate| {
        let name = lan.name(&c.node);
        families.iter().any(|ipv6| {
            let mut ranges = director.ranges_of(name, *ipv6);
            ranges.any(|r| lan.offers(director, &c.node, r))
        })
    };
    candidates.retain(offers);
    let others = claim.candidates.iter();
    let others = others.filter(|c| candidates.iter().all(|o| o.node != c.node));
    let elsewhere = others.map(|c| c.ready).sum();
    let text = owner.to_string();
    let node = holder(&text, current, &candidates, elsewhere);
    let name = node.as_deref().map_or("", |n| lan.name(n));
    for ipv6 in &families {
        let asked = asked_in(*ipv6);
        let rank = Rank(!address.asked, address.since);
        let had = before.and_then(|a| a.of(*ipv6));
        let stays = |ip: &IpAddr| {
            let free = match before.is_some_and(|a| a.freed.is_some()) {
                true => taken.is_free(*ip, owner),
                // Another one that has it may be younger.
                false => taken.of.get(ip).is_none_or(|(_, o)| o == owner),
            };
            let place = match &node {
                // Of one that is away it is not known what it may hold.
                Some(node) if candidates.iter().any(|c| c.node == *node) => {
                    lan.may_hold(director, node, *ip)
                }
                _ => {
                    !director.is_excluded(*ip)
                        && director.ranges.iter().any(|r| r.range.contains(*ip))
                }
            };
            let others = director.is_reserved(*ip, &claim.names);
            free && place && !others && !lan.taken.contains(ip)
        };
        let reserved = director.reserved_for(&claim.names);
        let reserved = reserved.filter(|ip| ip.is_ipv6() == *ipv6 && stays(ip));
        let chosen = match (asked, reserved.or(had.filter(stays))) {
            (Some(asked), _) => Some(asked),
            (None, Some(good)) => Some(good),
            (None, None) => node
                .as_deref()
                .and_then(|node| free(claim, node, name, *ipv6, taken, director, lan)),
        };
        if let Some(ip) = chosen {
            taken.take(ip, rank, owner);
            match ip {
                IpAddr::V4(ip) => address.v4 = Some(ip),
                IpAddr::V6(ip) => address.v6 = Some(ip),
            }
        }
    }
    if address.all().next().is_none() {
        let called = owner.called();
        return Err(Why::None(match node {
            None => format!(
                "{called} has no address: no node that answers is on the network of the director's ranges, by a device that is up"
            ),
            Some(_) => format!(
                "{called} has no address: all in the director's ranges are given away; `wharfie director init` takes more"
            ),
        }));
    }
    if before.is_none_or(|b| (b.v4, b.v6) != (address.v4, address.v6)) {
        address.since = now;
    }
    address.node = node.unwrap_or_default();
    Ok(address)
}

/// Whether an address that a file says can be had.
fn check_asked(
    asked: IpAddr,
    claim: &Claim,
    before: Option<&Address>,
    director: &Director,
    lan: &Lan,
    taken: &Taken,
) -> Result<(), Why> {
    let owner = &claim.owner;
    let what = match owner {
        Owner::Service { service, .. } => format!("services.{service}.x-wharfie.address: {asked}"),
        Owner::Container { name, .. } => format!("container {name}: {asked}"),
    };
    if director.is_excluded(asked) {
        return Err(Why::Asked(format!(
            "{what} is one that the director gives to nobody"
        )));
    }
    if !director.ranges.iter().any(|r| r.range.contains(asked)) {
        let ranges: Vec<String> = director
            .ranges
            .iter()
            .map(|r| r.range.to_string())
            .collect();
        return Err(Why::Asked(format!(
            "{what} is in none of the director's ranges: {}",
            ranges.join(", ")
        )));
    }
    if director.is_reserved(asked, &claim.names) {
        let of = director.reserved.iter().find(|(_, a)| **a == asked);
        let name = of.map_or("", |(name, _)| name.as_str());
        return Err(Why::Asked(format!("{what} is reserved for {name}")));
    }
    let nodes = || claim.candidates.iter().map(|c| c.node.as_str());
    let near = || nodes().filter(|n| lan.is_near(director, n, asked));
    let end = near().find_map(|n| lan.ends(n, asked));
    if let Some(subnet) = end.filter(|_| near().all(|n| lan.ends(n, asked).is_some())) {
        return Err(Why::Asked(format!(
            "{what} is an end of {subnet}: no machine can have it"
        )));
    }
    if claim.families.lacks(asked.is_ipv6(), before) {
        return Err(Why::Asked(format!(
            "{what} leads nowhere: {}",
            Families::lacking(asked.is_ipv6())
        )));
    }
    if lan.taken.contains(&asked) {
        return Err(Why::None(format!(
            "{what} is used by another machine of the network"
        )));
    }
    match taken.of.get(&asked) {
        // Who did not ask for it gets another one.
        Some((Rank(false, _), other)) if other != owner => Err(Why::Asked(format!(
            "{what} is that of {} already",
            other.called()
        ))),
        _ => Ok(()),
    }
}

/// Why somebody does not have the address that is reserved for its name, in words.
fn missed(
    claim: &Claim,
    address: &Address,
    taken: &Taken,
    director: &Director,
    lan: &Lan,
) -> Option<String> {
    let reserved = director.reserved_for(&claim.names)?;
    let leads = claim.families.leads(reserved.is_ipv6(), Some(address));
    // Who asks for others has those.
    if !claim.asked.is_empty() || !leads || address.all().any(|ip| ip == reserved) {
        return None;
    }
    let why = match taken.of.get(&reserved) {
        _ if lan.taken.contains(&reserved) => "another machine of the network uses it".to_owned(),
        Some((_, other)) if *other != claim.owner => format!("{} has it", other.called()),
        _ if director.is_excluded(reserved) => "it is excluded".to_owned(),
        _ => format!("{} cannot hold it", lan.name(&address.node)),
    };
    let owner = claim.owner.called();
    Some(format!(
        "{owner} does not have {reserved}, which is reserved for its name: {why}"
    ))
}

/// A free address for a node to hold.
fn free(
    claim: &Claim,
    node: &str,
    name: &str,
    ipv6: bool,
    taken: &Taken,
    director: &Director,
    lan: &Lan,
) -> Option<IpAddr> {
    let owner = &claim.owner;
    let usable = |ip: &IpAddr| {
        lan.may_hold(director, node, *ip)
            && !lan.taken.contains(ip)
            && !director.is_reserved(*ip, &claim.names)
            && taken.of.get(ip).is_none_or(|(_, o)| o == owner)
    };
    let start = u128::from(hash::text(&owner.to_string()));
    for range in director.ranges_of(name, ipv6) {
        let count = range.count();
        let start = start % count;
        let places = (0..count.min(LOOKED_AT)).map(|i| start.wrapping_add(i) % count);
        let mut free = places.filter_map(|place| range.at(place));
        if let Some(found) = free.find(|ip| usable(ip) && taken.is_free(*ip, owner)) {
            return Some(found);
        }
    }
    // Of those who are gone, the one that is so for longest.
    let reserved = taken
        .freed
        .iter()
        .filter(|(ip, _)| ip.is_ipv6() == ipv6 && usable(ip));
    reserved
        .min_by_key(|(_, (since, _))| *since)
        .map(|(ip, _)| *ip)
}
