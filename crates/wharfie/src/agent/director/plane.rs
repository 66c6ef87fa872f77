//! Keeps the addresses that this node holds: on the device, led to tasks, and told to the neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};
use wharfie_core::director::{Address, Director, Led, beside, lead};
use wharfie_host::net::{
    self, Conflicts, Error, Gate, LanAddress, LanAddresses, Mac, Namespace, Redirected,
    Redirecting, Redirector,
};

use super::allot::faults;
use super::page::Page;
use super::zone;
use crate::agent::keeper::Keeper;
use crate::agent::networks;

/// Changes come in crowds: so long is waited for the others.
const CROWD: Duration = Duration::from_millis(2);
/// How often is looked whether somebody else changed something.
const REPAIR: Duration = Duration::from_secs(10);
/// After its start an agent waits so long for what other nodes say.
const HEARING: Duration = Duration::from_secs(2);
/// The pause after something failed.
const AGAIN: Duration = Duration::from_secs(1);
/// So long is waited for somebody who has an address already.
const PROBE: Duration = Duration::from_millis(60);
/// After so long an address that others used is tried again.
const FORGET: Duration = Duration::from_secs(300);
/// Neighbours are told again after these pauses: packets get lost.
const TELL_AGAIN: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_secs(2),
];
/// An address is given up if somebody says again within this time that it is his.
const DISPUTE: Duration = Duration::from_secs(60);
/// Who says what is wrong here.
const SOURCE: &str = "director";

/// What was seen on the network around.
#[derive(Debug, Default)]
pub(in crate::agent) struct Around {
    /// Addresses that somebody else was seen to use, and when.
    taken: Mutex<BTreeMap<IpAddr, Instant>>,
    /// Hardware addresses of this node's devices there.
    own: Mutex<BTreeSet<Mac>>,
    /// Which node held each address, before this one did.
    holders: Mutex<BTreeMap<IpAddr, String>>,
}

impl Keeper {
    /// Addresses that somebody else was seen to use, by this node.
    pub(in crate::agent) fn taken(&self) -> Vec<IpAddr> {
        let taken = self.around.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, seen| seen.elapsed() < FORGET);
        taken.keys().copied().collect()
    }

    /// Hardware addresses of this node's devices there.
    pub(in crate::agent) fn own_macs(&self) -> Vec<wharfie_core::network::Mac> {
        let own = self
            .around
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        own.iter()
            .map(|mac| wharfie_core::network::Mac(mac.0))
            .collect()
    }

    fn take_note(&self, used: &BTreeMap<IpAddr, Mac>, macs: &BTreeSet<Mac>) {
        let mut own = self
            .around
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *own != *macs {
            own.clone_from(macs);
            self.news.send_modify(|news| news.tell());
        }
        drop(own);
        if used.is_empty() {
            return;
        }
        let taken = self.around.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.extend(used.keys().map(|ip| (*ip, Instant::now())));
        drop(taken);
        // The coordinators give other addresses.
        self.news.send_modify(|news| news.tell());
        self.wake_all();
    }
}

/// What is in the kernel.
struct Held {
    host: Namespace,
    addresses: LanAddresses,
    redirector: Redirector,
    gate: Gate,
    /// Where each address is, as last told.
    on: BTreeMap<IpAddr, String>,
    /// The device that each belongs to, as last looked.
    belongs: BTreeMap<IpAddr, String>,
    /// What others say on each device.
    heard: BTreeMap<String, Conflicts>,
    /// When somebody else said last that an address is his.
    disputed: BTreeMap<IpAddr, Instant>,
    /// The nodes that answered.
    live: BTreeSet<String>,
}

impl Held {
    fn open() -> Result<Self, Error> {
        let host = Namespace::here()?;
        Ok(Self {
            addresses: LanAddresses::open(&host)?,
            redirector: Redirector::open(&host)?,
            gate: Gate::for_redirected(&host)?,
            on: BTreeMap::new(),
            belongs: BTreeMap::new(),
            heard: BTreeMap::new(),
            disputed: BTreeMap::new(),
            live: BTreeSet::new(),
            host,
        })
    }
}

/// What is to be.
#[derive(Default)]
struct Wanted {
    /// Addresses that this node holds.
    led: Vec<Led>,
    /// Others, whose tasks it reaches all the same: who did not hear of a move gets there too.
    passed: Vec<Led>,
    /// Those that may be somebody else's: no other node held them just before.
    new: BTreeSet<IpAddr>,
    subnets: BTreeSet<String>,
    /// Hardware addresses of the other nodes.
    nodes: BTreeSet<Mac>,
    /// Devices that may have addresses.
    devices: BTreeSet<String>,
    /// The device that was said.
    device: Option<String>,
    /// The nodes that answer.
    live: BTreeSet<String>,
    /// How many nodes there are.
    count: usize,
}

/// What came of it.
#[derive(Default)]
struct Done {
    added: Vec<(String, IpAddr)>,
    used: BTreeMap<IpAddr, Mac>,
    /// Of the devices that addresses are on.
    macs: BTreeSet<Mac>,
    failed: Vec<String>,
}

/// Keeps addresses as they are to be, for ever.
pub(in crate::agent) async fn keep(keeper: Arc<Keeper>) {
    let mut held: Option<Held> = None;
    let begun = Instant::now();
    let mut tidied = false;
    let mut repaired = Instant::now();
    let mut page = Page::default();
    loop {
        let book = keeper.book.director();
        if book.unreadable {
            let words = "the director's settings are of a newer version of wharfie: addresses stay as they are on this node until it is updated";
            keeper.set_network_faults(SOURCE, faults([words.to_owned()]));
            keeper.director_news.notified().await;
            continue;
        }
        let Some(director) = book.settings.clone() else {
            page = Page::default();
            if !tidied || held.is_some() {
                tidied = true;
                let done = tokio::task::spawn_blocking(move || give_back(held)).await;
                held = None;
                let failed = match done {
                    Ok(Err(e)) if !matches!(e, Error::NotSupported { .. }) => Some(e),
                    _ => None,
                };
                let words =
                    |e: &Error| format!("addresses of the director are not given back: {e}");
                keeper.set_network_faults(SOURCE, faults(failed.as_ref().map(words)));
                if failed.is_some() {
                    tidied = false;
                    tokio::time::sleep(REPAIR).await;
                    continue;
                }
            }
            keeper.director_news.notified().await;
            continue;
        };
        if begun.elapsed() < HEARING && keeper.scene().nodes().any(|n| !n.heard) {
            tokio::select! {
                () = keeper.director_news.notified() => {}
                () = tokio::time::sleep(HEARING / 10) => {}
            }
            continue;
        }
        let repair = repaired.elapsed() >= REPAIR;
        if repair {
            repaired = Instant::now();
        }
        let mut failed = keeper.write_own(&director, repair).await;
        let wanted = keeper.led_here(&director);
        let work = move || {
            let mut held = match held.map_or_else(Held::open, Ok) {
                Ok(held) => held,
                Err(e) => return (None, failing(&e)),
            };
            let done = held.apply(&wanted, repair);
            (Some(held), done)
        };
        let Ok((back, done)) = tokio::task::spawn_blocking(work).await else {
            return;
        };
        held = back;
        keeper.take_note(&done.used, &done.macs);
        if !done.added.is_empty() {
            tell_again(&keeper, done.added);
        }
        // What the kernel refuses may be over soon; the rest waits for people.
        let pause = match done.failed.is_empty() {
            true => REPAIR,
            false => AGAIN,
        };
        failed.extend(done.failed);
        let own = zone::addresses_here(&book);
        failed.extend(page.listen(&keeper, &own, director.page).await);
        keeper.set_network_faults(SOURCE, faults(failed));
        tokio::select! {
            () = keeper.director_news.notified() => tokio::time::sleep(CROWD).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn failing(error: &Error) -> Done {
    Done {
        failed: vec![error.to_string()],
        ..Done::default()
    }
}

/// Gives everything back, also what an agent before this one held.
fn give_back(held: Option<Held>) -> Result<(), Error> {
    let mut held = held.map_or_else(Held::open, Ok)?;
    // Each of them, whatever becomes of the others.
    let addresses = held.addresses.remove_all().map(drop);
    let redirected = held.redirector.purge();
    let gate = held.gate.set_open(false).map(drop);
    addresses.and(redirected).and(gate)
}

/// Tells neighbours again where addresses are.
fn tell_again(keeper: &Arc<Keeper>, mut added: Vec<(String, IpAddr)>) {
    let keeper = Arc::clone(keeper);
    tokio::spawn(async move {
        for pause in TELL_AGAIN {
            tokio::time::sleep(pause).await;
            // Another node may hold them by now.
            let (book, me) = (keeper.book.director(), keeper.fleet.id());
            let held = book.addresses.values().filter(|a| a.node == me);
            let held: BTreeSet<IpAddr> = held.flat_map(Address::all).collect();
            added.retain(|(_, ip)| held.contains(ip));
            let added = added.clone();
            let told = tokio::task::spawn_blocking(move || {
                let host = Namespace::here()?;
                announce(&host, &added)
            });
            // They were told once; that they cannot be any more is seen elsewhere.
            let _ = told.await;
        }
    });
}

fn announce(host: &Namespace, added: &[(String, IpAddr)]) -> Result<(), Error> {
    let mut by_device: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for (device, address) in added {
        by_device.entry(device).or_default().push(*address);
    }
    for (device, addresses) in by_device {
        net::announce(host, device, &addresses)?;
    }
    Ok(())
}

impl Keeper {
    /// Writes the addresses of this node's containers that are of no stack; what cannot be.
    async fn write_own(&self, director: &Director, tidy: bool) -> Vec<String> {
        let (mut puts, mut failed) = self.own_addresses_changes(director);
        if tidy {
            puts.extend(self.tidy_addresses());
        }
        match self.put_networks(puts, "address").await {
            Ok(records) => self.fleet.tell(records),
            Err(e) => failed.push(e.text().to_owned()),
        }
        failed
    }

    /// Hardware addresses of all nodes' devices.
    fn hardware(&self) -> BTreeSet<Mac> {
        let reports = self.fleet.members().into_iter();
        let reports = reports.filter_map(|n| self.fleet.report_of(&n));
        reports
            .flat_map(|r| r.macs.clone())
            .map(|mac| Mac(mac.0))
            .collect()
    }

    /// What this node is to hold.
    fn led_here(&self, director: &Director) -> Wanted {
        let book = self.book.director();
        let scene = self.scene();
        let led = scene.with(|world| lead(world, &book.addresses));
        let mut passed = scene.with(|world| beside(world, &book.addresses));
        passed.retain(|p| led.iter().all(|l| l.address != p.address));
        let me = self.fleet.id();
        // One that another node held until now was asked for then, and may be there for a moment.
        let holders: BTreeMap<IpAddr, String> = book
            .addresses
            .values()
            .flat_map(|a| a.all().map(|ip| (ip, a.node.clone())))
            .collect();
        let mut seen = self
            .around
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let moved = |ip: &IpAddr| {
            seen.get(ip)
                .is_some_and(|node| !node.is_empty() && *node != me)
        };
        let new: BTreeSet<IpAddr> = holders.keys().filter(|ip| !moved(ip)).copied().collect();
        for (ip, node) in holders {
            // What is held here now was another's before, until it is somewhere else.
            if node != me || !seen.contains_key(&ip) {
                seen.insert(ip, node);
            }
        }
        drop(seen);
        // Containers on this host: what comes from beside them goes back by way of the host.
        let containers = scene.here().into_iter().flat_map(|n| &n.containers);
        let of: BTreeSet<IpAddr> = containers
            .flat_map(|c| c.networks.values())
            .flat_map(wharfie_core::network::Attachment::addresses)
            .collect();
        let mut routes = networks::routes();
        // The default route leads everywhere.
        routes.retain(|(to, _)| to.prefix() > 0);
        let mut subnets: BTreeSet<String> = BTreeSet::new();
        for (to, device) in &routes {
            if *device != director.device && of.iter().any(|a| to.contains(*a)) {
                subnets.insert(to.to_string());
            }
        }
        for object in scene.book.networks.values() {
            subnets.extend(object.pools().map(|p| p.subnet.to_string()));
        }
        let device = director.device_of(&self.fleet.me().name).map(str::to_owned);
        let ends = director.ranges.iter().map(|r| r.range.first());
        let ends: Vec<IpAddr> = ends.collect();
        let near = routes.into_iter();
        let near = near.filter(|(to, _)| ends.iter().any(|a| to.contains(*a)));
        let devices = device.iter().cloned().chain(near.map(|(_, device)| device));
        Wanted {
            led,
            passed,
            devices: devices.collect(),
            new,
            subnets,
            nodes: self.hardware(),
            device,
            live: scene
                .nodes()
                .filter(|n| n.live)
                .map(|n| n.id.clone())
                .collect(),
            count: scene.nodes().count(),
        }
    }
}

impl Held {
    /// Has the kernel do what is to be.
    fn apply(&mut self, wanted: &Wanted, repair: bool) -> Done {
        let mut done = Done::default();
        let mut wished = Vec::new();
        if repair {
            self.belongs.clear();
        }
        for led in &wanted.led {
            let known = self.belongs.get(&led.address);
            let device = match wanted.device.as_ref().or(known) {
                Some(device) => Ok(Some(device.clone())),
                None => net::device_of(&self.host, led.address),
            };
            if let Ok(Some(device)) = &device {
                self.belongs.insert(led.address, device.clone());
            }
            match device {
                Ok(Some(device)) => wished.push(LanAddress {
                    address: led.address,
                    device,
                }),
                Ok(None) => done.failed.push(format!(
                    "{} of {} cannot be held here: no device is on its network",
                    led.address, led.owner
                )),
                Err(e) => done.failed.push(e.to_string()),
            }
        }
        self.probe(wanted, &mut wished, &mut done);
        // First what is behind an address: who comes by it at once must not be refused.
        let redirecting = Redirecting {
            addresses: wanted
                .led
                .iter()
                .chain(&wanted.passed)
                .map(redirected)
                .collect(),
            subnets: wanted
                .subnets
                .iter()
                .filter_map(|s| s.parse().ok())
                .collect(),
            no_way_back: Vec::new(),
        };
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
        let changes = match self.addresses.apply(&wished) {
            Ok(changes) => changes,
            Err(e) => {
                done.failed.push(e.to_string());
                return done;
            }
        };
        for device in &wanted.devices {
            let device = net::device(&self.host, device);
            done.macs.extend(device.ok().flatten().and_then(|d| d.mac));
        }
        let device = |ip: &IpAddr| {
            let wished = wished.iter().find(|w| w.address == *ip);
            wished.map(|w| (w.device.clone(), *ip))
        };
        // Neighbours may still send to a node that held one before and led it on; now it is away. Of those
        // who are cut off the others may have taken them.
        let gone = self.live.difference(&wanted.live).next().is_some();
        let lost = gone && 2 * wanted.live.len() >= wanted.count;
        self.live.clone_from(&wanted.live);
        let held = wished.iter().map(|w| &w.address);
        let told = held.filter(|ip| lost || changes.added.contains(ip));
        done.added = told.filter_map(device).collect();
        if let Err(e) = announce(&self.host, &done.added) {
            done.failed.push(e.to_string());
        }
        for (ip, e) in changes.refused {
            done.failed.push(e.to_string());
            if matches!(e, Error::AddressTaken { .. }) {
                // This host's own: its service gets another one.
                done.used.insert(ip, Mac([0; 6]));
            }
        }
        if repair && !changes.added.is_empty() {
            info!(addresses = ?changes.added, "somebody took addresses away: they are back");
        }
        self.on = wished.into_iter().map(|w| (w.address, w.device)).collect();
        self.hear(wanted, &mut done);
        done
    }

    /// Hears whether somebody else says that an address is his: it is defended once (RFC 5227 section 2.4),
    /// and then given up.
    fn hear(&mut self, wanted: &Wanted, done: &mut Done) {
        let devices: BTreeSet<&String> = self.on.values().collect();
        self.heard.retain(|device, _| devices.contains(device));
        for device in devices {
            if !self.heard.contains_key(device) {
                match Conflicts::open(&self.host, device) {
                    Ok(heard) => drop(self.heard.insert(device.clone(), heard)),
                    Err(e) => done.failed.push(e.to_string()),
                }
            }
        }
        self.disputed.retain(|_, at| at.elapsed() < DISPUTE);
        let mut defended = Vec::new();
        for (device, heard) in &mut self.heard {
            let own = self.on.iter().filter(|(_, on)| *on == device);
            heard.watch(&own.map(|(ip, _)| *ip).collect::<Vec<_>>());
            let conflicts = match heard.conflicts() {
                Ok(conflicts) => conflicts,
                Err(e) => {
                    done.failed.push(e.to_string());
                    continue;
                }
            };
            for (ip, mac) in conflicts {
                let stranger = !wanted.nodes.contains(&mac);
                if stranger && self.disputed.insert(ip, Instant::now()).is_some() {
                    done.failed.push(used_words(ip, mac));
                    done.used.insert(ip, mac);
                } else {
                    warn!("{mac} says that it has {ip}, which this node holds");
                    defended.push((device.clone(), ip));
                }
            }
        }
        if let Err(e) = announce(&self.host, &defended) {
            done.failed.push(e.to_string());
        }
    }

    /// Leaves out those that somebody else has: of those that were chosen just now.
    fn probe(&self, wanted: &Wanted, wished: &mut Vec<LanAddress>, done: &mut Done) {
        let mut asked: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for one in wished.iter() {
            if wanted.new.contains(&one.address) && !self.on.contains_key(&one.address) {
                asked
                    .entry(one.device.clone())
                    .or_default()
                    .push(one.address);
            }
        }
        for (device, addresses) in asked {
            match net::probe(&self.host, &device, &addresses, PROBE) {
                Ok(mut used) => {
                    // A node that held it until now has not heard yet that it does no more.
                    used.retain(|_, mac| !wanted.nodes.contains(mac));
                    for (ip, mac) in &used {
                        done.failed.push(used_words(*ip, *mac));
                    }
                    done.used.extend(used);
                }
                Err(e) => done.failed.push(e.to_string()),
            }
        }
        wished.retain(|w| !done.used.contains_key(&w.address));
    }
}

fn used_words(ip: IpAddr, mac: Mac) -> String {
    format!("{ip} is used by another machine of the network ({mac}): its service gets another one")
}

fn redirected(led: &Led) -> Redirected {
    Redirected {
        address: led.address,
        tasks: led.tasks.clone(),
        here: led.here,
    }
}
