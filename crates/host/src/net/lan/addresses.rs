//! Having addresses: a host answers for a service's address because a device of it has that.
//!
//! Each is alone (/32, /128) and never the source of what the host itself sends: IPv4 has that by the
//! scope (`inet_select_addr` passes over those of a narrower scope), IPv6 by the preferred lifetime
//! that is over (RFC 6724, rule 3). Nobody is asked whether it is free: that was done before.
//!
//! Ours have a mark that the kernel keeps: a protocol (`IFA_PROTO`, since Linux 5.18), and a metric
//! (`IFA_RT_PRIORITY`, since 4.18) which means nothing here, since no route is made of them. Older
//! kernels keep the metric only, so either will do.
//!
//! One that others would take over from a host that is not heard any more is had for a while only: if
//! nobody says again that it is to last, because there is no agent any more, the kernel takes it away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rustix::io::Errno;

use super::super::route::{Change, PROTOCOL, Route, family};
use super::super::{Error, Namespace};
use super::device::Link;

/// The metric of ours.
const METRIC: u32 = 0x5744_0000 | PROTOCOL as u32;
/// `INFINITY_LIFE_TIME`
const FOR_EVER: u32 = u32::MAX;
/// One that lasts for a while is said again when it has lost so much of that, in seconds.
const LOST: u32 = 5;

/// An address that a host is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanAddress {
    /// The address.
    pub address: IpAddr,
    /// The device it is on.
    pub device: String,
    /// How long it stays if this is not said again; for ever if that is not said.
    pub lasts: Option<Duration>,
}

/// What [`LanAddresses::apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LanChanges {
    /// These are there now, and were not, or not so. They are to be announced.
    pub added: Vec<IpAddr>,
    /// These are gone.
    pub removed: Vec<IpAddr>,
    /// These could not be had, and why. The others are not kept back by them.
    pub refused: Vec<(IpAddr, Error)>,
}

/// The services' addresses that a host has.
pub struct LanAddresses {
    route: Route,
    /// On which device ours are, as last seen or made.
    held: BTreeMap<IpAddr, u32>,
    /// The host's own, as last seen.
    others: BTreeSet<IpAddr>,
    /// Devices that are fit for addresses, as last seen.
    fit: BTreeSet<String>,
}

/// An address of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    address: IpAddr,
    index: u32,
    prefix: u8,
    is_ours: bool,
    /// Whether it is as we make them.
    is_whole: bool,
    /// How many seconds it is valid from now on.
    valid: u32,
}

impl LanAddresses {
    /// Those of a host.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        Ok(Self {
            route: Route::open(host)?,
            held: BTreeMap::new(),
            others: BTreeSet::new(),
            fit: BTreeSet::new(),
        })
    }

    /// Makes these the addresses of ours that the host has, and no others; repairs what others
    /// changed, and says again what is to last. Addresses of others are left alone.
    pub fn apply(&mut self, wanted: &[LanAddress]) -> Result<LanChanges, Error> {
        let links = self.route.links()?;
        let links: Vec<Link> = links.iter().map(Link::of).collect();
        let fit = links.iter().filter(|link| link.is_fit(&links));
        self.fit = fit.map(|link| link.name.clone()).collect();
        let mut seen: BTreeMap<IpAddr, Vec<Seen>> = BTreeMap::new();
        for one in read(&mut self.route)? {
            seen.entry(one.address).or_default().push(one);
        }
        let others = seen.values().flatten().filter(|one| !one.is_ours);
        self.others = others.map(|one| one.address).collect();
        let mut changes = LanChanges::default();
        let mut targets: BTreeMap<IpAddr, (u32, u32)> = BTreeMap::new();
        for one in wanted {
            let LanAddress {
                address, device, ..
            } = one;
            let link = links.iter().find(|link| link.name == *device);
            let others = seen.get(address).into_iter().flatten();
            let foreign = others.clone().find(|one| !one.is_ours);
            let error = match (link, foreign) {
                (None, _) => no_device(device),
                (_, Some(foreign)) => taken(&links, foreign),
                (Some(link), _) if !link.is_up => down(device),
                (Some(link), _) => {
                    let before = targets.insert(*address, (link.index, one.valid()));
                    if before.is_some_and(|(before, _)| before != link.index) {
                        let words = format!("the address {address} is to be on two devices");
                        return Err(Error::Invalid(words));
                    }
                    continue;
                }
            };
            changes.refused.push((*address, error));
        }
        self.held.clear();
        let mut renewed = Vec::new();
        for one in seen.values().flatten().filter(|one| one.is_ours) {
            let target = targets.get(&one.address).copied();
            if let Some((index, valid)) = target
                && one.is_whole
                && index == one.index
            {
                targets.remove(&one.address);
                self.held.insert(one.address, one.index);
                if !one.lasts(valid) {
                    renewed.push((one.address, one.index, valid));
                }
                continue;
            }
            let moved = targets.contains_key(&one.address);
            match self.delete(one) {
                Ok(_) if moved => {}
                Ok(_) => changes.removed.push(one.address),
                Err(error) => changes.refused.push((one.address, error)),
            }
        }
        for (address, (index, valid)) in targets {
            match self.create(address, index, valid) {
                Ok(()) => changes.added.push(address),
                Err(error) => changes.refused.push((address, error)),
            }
        }
        // One by one if not all at once: what was done is known to the caller all the same.
        if self.renew(&renewed).is_err() {
            for one in renewed {
                if let Err(error) = self.renew(&[one]) {
                    changes.refused.push((one.0, error));
                }
            }
        }
        Ok(changes)
    }

    /// Whether the host has an address as one of ours, as last seen or made.
    #[must_use]
    pub fn has(&self, address: &IpAddr) -> bool {
        self.held.contains_key(address)
    }

    /// Addresses that the host has of others, or for itself, as [`Self::apply`] saw them last.
    #[must_use]
    pub fn others(&self) -> &BTreeSet<IpAddr> {
        &self.others
    }

    /// Devices by which neighbours may be reached, as [`Self::apply`] saw them last: those that are up and have a
    /// cable.
    #[must_use]
    pub fn fit(&self) -> &BTreeSet<String> {
        &self.fit
    }

    /// All of ours that do not stay for ever are to last for so long from now on, as they are.
    pub fn extend(&mut self, lasts: Duration) -> Result<(), Error> {
        let valid = seconds(Some(lasts));
        let mut ours = read(&mut self.route)?;
        ours.retain(|one| one.is_ours && one.valid != FOR_EVER);
        let ours: Vec<(IpAddr, u32, u32)> = ours
            .iter()
            .map(|one| (one.address, one.index, valid))
            .collect();
        self.renew(&ours)
    }

    fn renew(&mut self, all: &[(IpAddr, u32, u32)]) -> Result<(), Error> {
        let new = |(address, index, valid): &(IpAddr, u32, u32)| {
            let message = message(*address, full(*address), *index, *valid);
            Change::replace(RouteNetlinkMessage::NewAddress(message))
        };
        let changes: Vec<Change> = all.iter().map(new).collect();
        self.route.change(&changes, |i| {
            format!("how long the address {} lasts", all[i].0)
        })
    }

    /// Has one more address; costs the same whatever others there are. Says whether it was not there.
    /// Of IPv6 the kernel finishes it by itself, a moment later.
    pub fn add(&mut self, wanted: &LanAddress) -> Result<bool, Error> {
        let LanAddress {
            address, device, ..
        } = wanted;
        let valid = wanted.valid();
        let link = Link::named(&mut self.route, device)?;
        let link = link.ok_or_else(|| no_device(device))?;
        if !link.is_up {
            return Err(down(device));
        }
        if !self.is_local(*address)? {
            match self.create(*address, link.index, valid) {
                // Of a device that has just come up it is not local yet.
                Err(error) if error.is(Errno::EXIST) => {}
                done => return done.map(|()| true),
            }
        }
        let links = self.route.links()?;
        let links: Vec<Link> = links.iter().map(Link::of).collect();
        let mut same = read(&mut self.route)?;
        same.retain(|one| one.address == *address);
        if let Some(foreign) = same.iter().find(|one| !one.is_ours) {
            return Err(taken(&links, foreign));
        }
        if let [one] = same.as_slice()
            && one.is_whole
            && one.index == link.index
        {
            self.held.insert(*address, link.index);
            if !one.lasts(valid) {
                self.renew(&[(*address, link.index, valid)])?;
            }
            return Ok(false);
        }
        for one in &same {
            self.delete(one)?;
        }
        self.create(*address, link.index, valid).map(|()| true)
    }

    /// Gives an address back; of one that was seen or made before this costs the same whatever others
    /// there are. Says whether it was there.
    pub fn remove(&mut self, address: IpAddr) -> Result<bool, Error> {
        let known = self.held.get(&address).copied();
        if let Some(index) = known
            && self.delete(&Seen::whole(address, index))?
        {
            return Ok(true);
        }
        let mut ours = read(&mut self.route)?;
        ours.retain(|one| one.is_ours && one.address == address);
        for one in &ours {
            self.delete(one)?;
        }
        Ok(!ours.is_empty())
    }

    /// The addresses of ours that the host has.
    pub fn all(&mut self) -> Result<Vec<IpAddr>, Error> {
        let all = read(&mut self.route)?.into_iter();
        Ok(all.filter(|o| o.is_ours).map(|o| o.address).collect())
    }

    /// Gives all of ours back: which.
    pub fn remove_all(&mut self) -> Result<Vec<IpAddr>, Error> {
        let changes = self.apply(&[])?;
        match changes.refused.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(changes.removed),
        }
    }

    /// Whether an address is one of this host's, whoever gave it to the host.
    fn is_local(&mut self, address: IpAddr) -> Result<bool, Error> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(address.is_ipv6());
        request.header.destination_prefix_length = full(address);
        request
            .attributes
            .push(RouteAttribute::Destination(match address {
                IpAddr::V4(address) => RouteAddress::Inet(address),
                IpAddr::V6(address) => RouteAddress::Inet6(address),
            }));
        let request = RouteNetlinkMessage::GetRoute(request);
        match self.route.one(|| format!("the way to {address}"), &request) {
            Ok(Some(RouteNetlinkMessage::NewRoute(way))) => Ok(way.header.kind == RouteType::Local),
            // No way leads there at all.
            Ok(_) | Err(Error::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create(&mut self, address: IpAddr, index: u32, valid: u32) -> Result<(), Error> {
        let message = message(address, full(address), index, valid);
        let message = RouteNetlinkMessage::NewAddress(message);
        let changes = [Change::create(message)];
        self.route
            .change(&changes, |_| format!("the address {address}"))?;
        self.held.insert(address, index);
        Ok(())
    }

    /// Whether it was there to be removed.
    fn delete(&mut self, one: &Seen) -> Result<bool, Error> {
        let Seen {
            address,
            index,
            prefix,
            ..
        } = *one;
        let message = RouteNetlinkMessage::DelAddress(message(address, prefix, index, FOR_EVER));
        let describe = |_| format!("the removal of the address {address}");
        let done = self.route.change(&[Change::modify(message)], describe);
        self.held.remove(&address);
        match done {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() || error.is(Errno::ADDRNOTAVAIL) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl LanAddress {
    fn valid(&self) -> u32 {
        seconds(self.lasts)
    }
}

/// As the kernel takes it: none is not for ever, and nothing at all is refused.
fn seconds(lasts: Option<Duration>) -> u32 {
    let whole = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(FOR_EVER).max(1);
    lasts.map_or(FOR_EVER, whole)
}

fn no_device(device: &str) -> Error {
    let device = device.to_owned();
    Error::NoDevice { device }
}

fn down(device: &str) -> Error {
    let device = device.to_owned();
    Error::DeviceDown { device }
}

fn taken(links: &[Link], one: &Seen) -> Error {
    let link = links.iter().find(|link| link.index == one.index);
    Error::AddressTaken {
        address: one.address,
        device: link.map_or_else(|| one.index.to_string(), |link| link.name.clone()),
    }
}

fn full(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn message(address: IpAddr, prefix: u8, index: u32, valid: u32) -> AddressMessage {
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = valid;
    let mut message = AddressMessage::default();
    message.header.family = family(address.is_ipv6());
    message.header.prefix_len = prefix;
    message.header.index = index;
    if address.is_ipv4() {
        message.header.scope = AddressScope::Host;
    }
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
        AddressAttribute::CacheInfo(lifetimes),
        AddressAttribute::RoutePriority(METRIC),
        AddressAttribute::Protocol(AddressProtocol::from(PROTOCOL)),
    ];
    message
}

fn read(route: &mut Route) -> Result<Vec<Seen>, Error> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let all = route.list("the addresses", &request)?;
    Ok(all.iter().filter_map(Seen::of).collect())
}

impl Seen {
    fn whole(address: IpAddr, index: u32) -> Self {
        Self {
            address,
            index,
            prefix: full(address),
            is_ours: true,
            is_whole: true,
            valid: FOR_EVER,
        }
    }

    /// Whether it stays for about as long as it is to.
    fn lasts(&self, valid: u32) -> bool {
        match valid {
            FOR_EVER => self.valid == FOR_EVER,
            _ => self.valid <= valid && self.valid.saturating_add(LOST) > valid,
        }
    }

    fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewAddress(message) = message else {
            return None;
        };
        let (mut local, mut remote) = (None, None);
        let (mut is_ours, mut is_unpreferred, mut has_failed) = (false, false, false);
        let mut valid = FOR_EVER;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => remote = Some(*address),
                AddressAttribute::RoutePriority(METRIC) => is_ours = true,
                AddressAttribute::Protocol(by) => is_ours |= u8::from(*by) == PROTOCOL,
                AddressAttribute::CacheInfo(lifetimes) => valid = lifetimes.ifa_valid,
                AddressAttribute::Flags(flags) => {
                    is_unpreferred = flags.contains(AddressFlags::Deprecated);
                    let failed = AddressFlags::Tentative | AddressFlags::Dadfailed;
                    has_failed = flags.intersects(failed);
                }
                _ => {}
            }
        }
        // Of IPv6 the one is only told if there is a peer.
        let address = local.or(remote)?;
        let prefix = message.header.prefix_len;
        let is_hidden = address.is_ipv6() || message.header.scope == AddressScope::Host;
        let is_whole = prefix == full(address) && is_unpreferred && is_hidden && !has_failed;
        Some(Self {
            address,
            index: message.header.index,
            prefix,
            is_ours,
            is_whole,
            valid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_ours_when_it_is_read() {
        for address in ["192.0.2.7", "2001:db8::7"] {
            let address: IpAddr = address.parse().unwrap();
            let mut message = message(address, full(address), 3, FOR_EVER);
            // The kernel says so of a preferred lifetime that is over.
            for attribute in &mut message.attributes {
                if let AddressAttribute::Flags(flags) = attribute {
                    *flags |= AddressFlags::Deprecated;
                }
            }
            let seen = Seen::of(&RouteNetlinkMessage::NewAddress(message.clone()));
            assert_eq!(seen, Some(Seen::whole(address, 3)));
            // Of the two marks one is enough.
            message
                .attributes
                .retain(|a| !matches!(a, AddressAttribute::Protocol(_)));
            let seen = Seen::of(&RouteNetlinkMessage::NewAddress(message.clone()));
            assert!(seen.is_some_and(|seen| seen.is_ours));
            message
                .attributes
                .retain(|a| !matches!(a, AddressAttribute::RoutePriority(_)));
            let seen = Seen::of(&RouteNetlinkMessage::NewAddress(message));
            assert!(seen.is_some_and(|seen| !seen.is_ours));
        }
    }

    #[test]
    fn what_is_to_last_is_said_again_in_time() {
        let of = |valid| Seen {
            valid,
            ..Seen::whole([192, 0, 2, 7].into(), 3)
        };
        assert!(of(FOR_EVER).lasts(FOR_EVER) && of(30).lasts(30) && of(26).lasts(30));
        for (is, wanted) in [(25, 30), (90, 30), (FOR_EVER, 30), (30, FOR_EVER)] {
            assert!(!of(is).lasts(wanted), "{is} {wanted}");
        }
        assert_eq!(seconds(None), FOR_EVER);
        assert_eq!(seconds(Some(Duration::ZERO)), 1);
    }
}
