//! What is seen of the network around, as others here and the other nodes are told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wharfie_host::net::Mac;

use super::decide::Holders;
use crate::agent::keeper::Keeper;

/// After so long an address that others used is tried again.
const FORGET: Duration = Duration::from_secs(300);

/// What was seen on the network around.
#[derive(Debug, Default)]
pub(in crate::agent) struct Around {
    /// Addresses that somebody else was seen to use, when, and who.
    taken: Mutex<BTreeMap<IpAddr, (Instant, Mac)>>,
    /// What this node has there itself.
    own: Mutex<Own>,
    /// Which node held each address, before this one did.
    holders: Mutex<Holders>,
    /// Addresses that are on devices of this host.
    on: Mutex<BTreeSet<IpAddr>>,
    /// Whoever changes how long addresses stay has it: the agent's end comes last.
    pub(super) lasting: tokio::sync::Mutex<()>,
}

/// What a node has on the network around by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// Hardware addresses of its devices.
    pub(super) macs: BTreeSet<Mac>,
    /// Those of its devices that addresses can be on; not known before it was looked.
    pub(super) devices: Option<BTreeSet<String>>,
    /// Its own addresses in the director's ranges: no service has them.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// A node, as its hardware address is seen on the network around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: String,
    pub(super) name: String,
    /// Whether it answers.
    pub(super) live: bool,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Around {
    /// Which node held each address, before this one did.
    pub(super) fn holders(&self) -> MutexGuard<'_, Holders> {
        lock(&self.holders)
    }

    /// These are on devices of this host.
    pub(super) fn note_on(&self, on: BTreeSet<IpAddr>) {
        *lock(&self.on) = on;
    }

    /// Whether an address is on a device of this host.
    pub(super) fn is_on(&self, ip: &IpAddr) -> bool {
        lock(&self.on).contains(ip)
    }
}

impl Keeper {
    /// Addresses that somebody else was seen to use, by this node, and its own.
    pub(in crate::agent) fn taken(&self) -> Vec<IpAddr> {
        let mut all = lock(&self.around.own).addresses.clone();
        let mut taken = lock(&self.around.taken);
        taken.retain(|_, (seen, _)| seen.elapsed() < FORGET);
        if !taken.is_empty() {
            // A node that was not known as one, as after a start in isolation, is nobody else.
            let nodes = self.hardware();
            taken.retain(|_, (_, mac)| !nodes.contains_key(mac));
        }
        all.extend(taken.keys());
        all.into_iter().collect()
    }

    /// Devices of this node that addresses can be on; not known before it was looked.
    pub(in crate::agent) fn own_devices(&self) -> Option<BTreeSet<String>> {
        lock(&self.around.own).devices.clone()
    }

    /// Hardware addresses of this node's devices there.
    pub(in crate::agent) fn own_macs(&self) -> Vec<wharfie_core::network::Mac> {
        let own = lock(&self.around.own);
        own.macs
            .iter()
            .map(|mac| wharfie_core::network::Mac(mac.0))
            .collect()
    }

    /// Hardware addresses of all other nodes' devices.
    pub(super) fn hardware(&self) -> BTreeMap<Mac, Known> {
        let mut all = BTreeMap::new();
        for node in self.fleet.members().into_iter().filter(|n| !n.me) {
            let Some(report) = self.fleet.report_of(&node) else {
                continue;
            };
            let live = node.may_answer();
            let known = Known {
                id: node.id,
                name: node.name,
                live,
            };
            let macs = report.macs.iter();
            all.extend(macs.map(|mac| (Mac(mac.0), known.clone())));
        }
        all
    }

    /// Takes note of who else has addresses, and of what this node has.
    pub(super) fn take_note(&self, used: &BTreeMap<IpAddr, Mac>, new: Own) {
        let mut own = lock(&self.around.own);
        let differs = *own != new;
        // Who has addresses, and on which device, is looked at anew.
        let matters = (&own.devices, &own.addresses) != (&new.devices, &new.addresses);
        *own = new;
        drop(own);
        if differs {
            self.news.send_modify(|news| news.tell());
        }
        if matters {
            self.wake_all();
        }
        if used.is_empty() {
            return;
        }
        let seen = Instant::now();
        lock(&self.around.taken).extend(used.iter().map(|(ip, mac)| (*ip, (seen, *mac))));
        // The coordinators give other addresses.
        self.news.send_modify(|news| news.tell());
        self.wake_all();
    }
}
