//! The addresses of this node in the kernel: on devices, led to tasks, told to the neighbours, and watched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};
use wharfie_core::director::{Asked, Led, Peer, Rivals, Stand, Verdict};
use wharfie_core::heal::Millis;
use wharfie_host::net::{self, Error, Gate, LanAddress, LanAddresses, Mac, Namespace, Redirector};

use super::around::Own;
use super::decide::{self, Nodes, On};
use super::ears::{Claim, Ears, Heard};
use super::wanted::Wanted;

/// So long is waited for somebody who has an address already.
const PROBE: Duration = Duration::from_millis(60);

/// What is in the kernel.
pub(super) struct Held {
    host: Namespace,
    addresses: LanAddresses,
    redirector: Redirector,
    gate: Gate,
    began: Instant,
    /// Where each address is, as last told.
    on: BTreeMap<IpAddr, On>,
    /// The device that each belongs to, as last looked.
    belongs: BTreeMap<IpAddr, String>,
    /// Hears what others say.
    ears: Ears,
    /// Who else says to have addresses.
    rivals: Rivals,
    /// The nodes that answered.
    nodes: Nodes,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    /// The neighbours are told of these, and of those that are to be defended.
    pub(super) told: Vec<(String, IpAddr)>,
    defended: Vec<(String, IpAddr)>,
    /// Those that another machine has.
    pub(super) used: BTreeMap<IpAddr, Mac>,
    /// Addresses that are on devices now.
    pub(super) on: BTreeSet<IpAddr>,
    /// What this host has itself.
    pub(super) own: Own,
    /// Those of which it could not be asked who has them.
    unasked: BTreeSet<IpAddr>,
    /// What is wrong with devices, in words.
    lacking: Vec<String>,
    /// What could not be done, in words.
    pub(super) failed: Vec<String>,
    /// This is to be looked at again soon.
    pub(super) again: bool,
}

impl Done {
    pub(super) fn failed(error: &Error) -> Self {
        Self {
            failed: vec![error.to_string()],
            ..Self::default()
        }
    }
}

/// Tells the neighbours that addresses are on devices of this host.
pub(super) fn announce(host: &Namespace, all: &[(String, IpAddr)]) -> Result<(), Error> {
    let mut by_device: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for (device, address) in all {
        by_device.entry(device).or_default().push(*address);
    }
    for (device, addresses) in by_device {
        net::announce(host, device, &addresses)?;
    }
    Ok(())
}

impl Held {
    /// Must be called in the runtime.
    pub(super) fn open(heard: Arc<Heard>) -> Result<Self, Error> {
        let host = Namespace::here()?;
        Ok(Self {
            addresses: LanAddresses::open(&host)?,
            redirector: Redirector::open(&host)?,
            gate: Gate::for_redirected(&host)?,
            began: Instant::now(),
            on: BTreeMap::new(),
            belongs: BTreeMap::new(),
            ears: Ears::new(heard),
            rivals: Rivals::default(),
            nodes: Nodes::default(),
            host,
        })
    }

    /// Gives everything back, also what an agent before this one held.
    pub(super) fn give_back(&mut self) -> Result<(), Error> {
        // Each of them, whatever becomes of the others.
        let addresses = self.addresses.remove_all().map(drop);
        let redirected = self.redirector.purge();
        let gate = self.gate.set_open(false).map(drop);
        addresses.and(redirected).and(gate)
    }

    /// Has the kernel do what is to be; `heard` is who else said to have something of it.
    pub(super) fn apply(&mut self, wanted: &Wanted, heard: Vec<Claim>, repair: bool) -> Done {
        let mut done = Done::default();
        let now = Millis::try_from(self.began.elapsed().as_millis()).unwrap_or(Millis::MAX);
        if repair {
            self.belongs.clear();
        }
        let mut wished = self.wished(wanted, &mut done);
        let held: BTreeSet<IpAddr> = wished.iter().map(|w| w.address).collect();
        self.rivals.retain(|ip| held.contains(ip));
        for (device, ip, mac) in heard {
            let is_here = self.on.get(&ip).is_some_and(|on| on.device == device);
            if is_here && held.contains(&ip) {
                self.claimed((device, ip, mac), Asked::No, wanted, now, &mut done);
            }
        }
        self.probe(wanted, &wished, repair, now, &mut done);
        wished.retain(|LanAddress { address, .. }| {
            let others = done.used.contains_key(address) || self.rivals.is_left(address);
            !others && !done.unasked.contains(address)
        });
        self.lead_on(wanted, &mut done);
        self.have(wanted, &wished, (repair, now), &mut done);
        let mut about: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (ip, on) in &self.on {
            about.entry(on.device.clone()).or_default().push(*ip);
        }
        let failed = self.ears.listen(&self.host, about);
        done.failed.extend(failed.iter().map(Error::to_string));
        done.on = self.on.keys().copied().collect();
        done.again = !done.failed.is_empty() || self.rivals.is_any_left();
        // That waits for people.
        done.failed.append(&mut done.lacking);
        done
    }

    /// Looks what this host has itself.
    fn look(&self, wanted: &Wanted, done: &mut Done) {
        let fit = self.addresses.fit();
        for name in &wanted.devices {
            let device = net::device(&self.host, name).ok().flatten();
            done.own.macs.extend(device.as_ref().and_then(|d| d.mac));
            let others = wanted.device.is_none() && wanted.devices.iter().any(|d| fit.contains(d));
            if fit.contains(name) || others {
                continue;
            }
            let why = match device {
                None => "is not there",
                Some(device) if !device.is_up => "is down",
                Some(_) => "has no cable",
            };
            done.lacking.push(format!(
                "device {name} {why}: addresses are on other nodes if they can be; `wharfie director init --device NAME@NODE` says another one"
            ));
        }
        let known = wanted.links.intersection(fit);
        done.own.devices = Some(known.cloned().collect());
        done.own.addresses.clone_from(self.addresses.others());
    }

    /// What is to be on which device.
    fn wished(&mut self, wanted: &Wanted, done: &mut Done) -> Vec<LanAddress> {
        let mut wished = Vec::new();
        for led in &wanted.led {
            match self.device_of(led, wanted) {
                Ok(Some(device)) => wished.push(LanAddress {
                    address: led.address,
                    device,
                    lasts: wanted.lasting.get(&led.address).copied(),
                }),
                Ok(None) => done.failed.push(format!(
                    "{} of {} cannot be held here: no device is on its network",
                    led.address, led.owner
                )),
                Err(e) => done.failed.push(e.to_string()),
            }
        }
        wished
    }

    fn device_of(&mut self, led: &Led, wanted: &Wanted) -> Result<Option<String>, Error> {
        let known = self.belongs.get(&led.address);
        let device = match wanted.device.as_ref().or(known) {
            Some(device) => Some(device.clone()),
            None => net::device_of(&self.host, led.address)?,
        };
        if let Some(device) = &device {
            self.belongs.insert(led.address, device.clone());
        }
        Ok(device)
    }

    /// Somebody else says that an address is his.
    fn claimed(
        &mut self,
        (device, ip, mac): Claim,
        asked: Asked,
        wanted: &Wanted,
        now: Millis,
        done: &mut Done,
    ) {
        let node = wanted.hardware.get(&mac);
        let peer = node.map(|n| Peer {
            id: &n.id,
            live: n.live,
        });
        let me = (wanted.me.as_str(), wanted.stand);
        let name = node.map_or("another machine", |n| n.name.as_str());
        let was_left = self.rivals.is_left(&ip);
        match self.rivals.claimed(ip, asked, me, peer, now) {
            Verdict::Wait => {}
            Verdict::Defend => {
                warn!("{name} ({mac}) says that it has {ip}, which this node holds");
                done.defended.push((device, ip));
                // One that is away does not hear of it, and must not stay unnoticed.
                if node.is_some_and(|n| !n.live) {
                    done.failed.push(format!(
                        "{ip} is still answered for by node {name} too, which does not hear of the others: neighbours are told that it is here"
                    ));
                }
            }
            Verdict::GiveWay => {
                if !was_left {
                    warn!("{name} ({mac}) has {ip} as well: this node leaves it to that one");
                }
                done.failed.push(format!(
                    "{ip} is at node {name}, which took it over: this node leaves it there as long as it does not know more"
                ));
            }
            Verdict::GiveUp => {
                done.failed.push(format!(
                    "{ip} is used by another machine of the network ({mac}): its service gets another one"
                ));
                done.used.insert(ip, mac);
            }
        }
    }

    /// Asks the network who has addresses that somebody else may have.
    fn probe(
        &mut self,
        wanted: &Wanted,
        wished: &[LanAddress],
        repair: bool,
        now: Millis,
        done: &mut Done,
    ) {
        // By families: that one cannot be asked for says nothing of the other.
        let mut asked: BTreeMap<(&str, bool), Vec<IpAddr>> = BTreeMap::new();
        for one in wished {
            let ip = one.address;
            let kind = (wanted.new.contains(&ip), self.rivals.is_left(&ip));
            let seen = (wanted.stand, repair, &wanted.nodes.live);
            if decide::is_asked(self.on.get(&ip), kind, seen, now) {
                let of = (one.device.as_str(), ip.is_ipv6());
                asked.entry(of).or_default().push(ip);
            }
        }
        for ((device, _), addresses) in asked {
            let known = net::device(&self.host, device);
            if known.is_ok_and(|d| d.is_some_and(|d| d.mac.is_none())) {
                // There are no neighbours who could have them.
                continue;
            }
            let found = match net::probe(&self.host, device, &addresses, PROBE) {
                Ok(found) => found,
                Err(e) => {
                    // What is in use already stays.
                    let new = addresses.into_iter().filter(|ip| !self.on.contains_key(ip));
                    let new: Vec<IpAddr> = new.collect();
                    let words: Vec<String> = new.iter().map(IpAddr::to_string).collect();
                    done.failed.push(match words.is_empty() {
                        true => e.to_string(),
                        false => format!(
                            "{} not used yet, as nobody can be asked who has what: {e}",
                            words.join(", ")
                        ),
                    });
                    done.unasked.extend(new);
                    continue;
                }
            };
            for ip in addresses {
                let asked = match self.on.contains_key(&ip) {
                    true => Asked::Used,
                    false => Asked::Unused,
                };
                match found.get(&ip) {
                    Some(mac) => {
                        let claim = (device.to_owned(), ip, *mac);
                        self.claimed(claim, asked, wanted, now, done);
                    }
                    None => self.rivals.silent(ip, &wanted.me),
                }
            }
        }
    }

    /// Leads addresses to tasks. That comes first: who comes by one at once must not be refused.
    fn lead_on(&mut self, wanted: &Wanted, done: &mut Done) {
        let redirecting = wanted.redirecting();
        let led = !redirecting.addresses.is_empty();
        match self.gate.set_open(led) {
            Ok(true) => {}
            Ok(false) => done.failed.push(
                "addresses are not led to containers: an old iptables of this host drops what Docker does not publish".to_owned(),
            ),
            Err(e) => done.failed.push(e.to_string()),
        }
        if let Err(e) = self.redirector.apply(&redirecting) {
            done.failed.push(e.to_string());
        }
    }

    /// Has addresses on devices, and tells the neighbours.
    fn have(
        &mut self,
        wanted: &Wanted,
        wished: &[LanAddress],
        (repair, now): (bool, Millis),
        done: &mut Done,
    ) {
        let changes = match self.addresses.apply(wished) {
            Ok(changes) => changes,
            Err(e) => {
                done.failed.push(e.to_string());
                return;
            }
        };
        self.look(wanted, done);
        let mut on = BTreeMap::new();
        for LanAddress {
            address, device, ..
        } in wished
        {
            if !self.addresses.has(address) {
                continue;
            }
            let known = self.on.remove(address);
            let known = known.filter(|_| !changes.added.contains(address));
            let new = On {
                device: device.clone(),
                since: known.map_or(now, |on| on.since),
                from: wanted.from.get(address).cloned(),
            };
            on.insert(*address, new);
        }
        self.on = on;
        let told = decide::told(&self.on, &self.nodes, &wanted.nodes, wanted.stand);
        let all = self.on.iter();
        let all = all.filter(|(ip, _)| told.contains(ip) || changes.added.contains(ip));
        done.told = all.map(|(ip, on)| (on.device.clone(), *ip)).collect();
        self.nodes.clone_from(&wanted.nodes);
        // What was left to another node since it was heard is not defended any more.
        done.defended.retain(|(_, ip)| self.on.contains_key(ip));
        for of in [&done.told, &done.defended] {
            if let Err(e) = announce(&self.host, of) {
                done.failed.push(e.to_string());
            }
        }
        for (ip, e) in changes.refused {
            done.failed.push(e.to_string());
            if matches!(e, Error::AddressTaken { .. }) {
                // This host's own: its service gets another one.
                done.used.insert(ip, Mac([0; 6]));
            }
        }
        if repair && !changes.added.is_empty() && wanted.stand == Stand::Sure {
            info!(addresses = ?changes.added, "somebody took addresses away: they are back");
        }
    }
}
