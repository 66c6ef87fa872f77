//! The short way between a container and those of other hosts.
//!
//! A bridge shows each packet to the host's rules for routed ones (`br_netfilter`, which Docker
//! switches on for all bridges): connection tracking and NAT included, once on each host, for packets
//! that the host has nothing to do with. That costs a third of what an overlay carries. So packets
//! for containers of other hosts go from the container's device to the overlay's, and those that come
//! from there go out of the bridge as if the host had sent them: neither is shown to those rules.
//! All else goes as it did: to and from the host, between containers of this host, and to all.
//!
//! It is nothing but shorter. Where it is not, such as for a container that the Engine started again
//! while nobody watched, packets go over the bridge.

use std::collections::{BTreeMap, BTreeSet};

use super::super::nft::{
    Chain, Data, Family, Field, Hook, Live, Load, Rule, Set, Table, TableId, Type, Value, concat,
};
use super::super::route::Route;
use super::super::{Error, Mac, Namespace};
use super::Watch;
use super::device::{self, Link, Links};

const TABLE: TableId<'static> = TableId {
    family: Family::Netdev,
    name: "wharfie_shortcut",
};
const FIRST: i32 = -300;
/// VNI . hardware address → the overlay's device.
const FAR: &str = "far";

/// The ends of a cable between a container and its host, by their indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cable {
    inside: u32,
    outside: u32,
}

/// The cables that lead out of a container's namespace.
///
/// # Errors
/// The kernel does not tell.
pub fn cables(container: &Namespace) -> Result<BTreeSet<Cable>, Error> {
    let links = Links::read(&mut Route::open(container)?)?;
    let cable = |link: &Link| {
        Some(Cable {
            inside: link.index,
            outside: link.peer?,
        })
    };
    Ok(links.all().filter_map(cable).collect())
}

/// An overlay with short ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortcut {
    /// The overlay's number.
    pub vni: u32,
    /// Its bridge.
    pub bridge: String,
    /// The containers of other hosts.
    pub remote: Vec<Mac>,
}

/// The short ways of a host.
pub struct Shortcuts {
    watch: Watch,
    live: Live,
}

impl Shortcuts {
    /// Those of a host.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        Ok(Self {
            watch: Watch::open(host)?,
            live: Live::open(host, TABLE)?,
        })
    }

    /// Gives short ways to these overlays, on these cables, and to no others, in one transaction;
    /// repairs what others changed. Overlays and cables that are not there have none.
    pub fn apply(
        &mut self,
        overlays: &[Shortcut],
        cables: &BTreeSet<Cable>,
    ) -> Result<bool, Error> {
        let links = self.watch.links()?;
        let table = table(&links, overlays, cables);
        if table.chains.is_empty() {
            let had = self.live.known().is_some();
            return self.live.remove().map(|()| had);
        }
        self.live.set(table)
    }

    /// Has the next look at devices be a look at all of them.
    pub fn forget(&mut self) {
        self.watch.forget();
    }

    /// Takes it all away.
    pub fn purge(&mut self) -> Result<(), Error> {
        self.live.remove()
    }
}

fn table(links: &Links, overlays: &[Shortcut], cables: &BTreeSet<Cable>) -> Table {
    let mut table = Table::default();
    let mut far = Set::map([Type::Mark, Type::Mac], Data::Fields(vec![Type::Mark]));
    let mut add = |device: &str, rules: Vec<Rule>| {
        let hook = Some(Hook::ingress(FIRST));
        table
            .chains
            .insert(device.to_owned(), Chain { hook, rules });
    };
    let mut ports: BTreeMap<u32, Vec<&Link>> = BTreeMap::new();
    for link in links.all() {
        let ends = link.peer.map(|inside| Cable {
            inside,
            outside: link.index,
        });
        if let (Some(master), Some(true)) = (link.master, ends.map(|e| cables.contains(&e))) {
            ports.entry(master).or_default().push(link);
        }
    }
    for overlay in overlays {
        let bridge = links.named(&overlay.bridge);
        let Some((bridge, (_, mac))) = bridge.and_then(|b| Some((b, b.bridge()?))) else {
            continue;
        };
        let device = links.named(&device::name(overlay.vni));
        let Some(device) = device.filter(|d| d.master == Some(bridge.index)) else {
            continue;
        };
        let for_host = Rule::new().destination_mac(mac).accept();
        let for_all = Rule::new().for_group().accept();
        let onwards = Rule::new().forward(bridge.index);
        add(&device.name, vec![for_host, for_all, onwards]);
        for mac in &overlay.remote {
            let key = concat(&[Field::Mark(overlay.vni), Field::Mac(*mac)]);
            let value = Value::Bytes(Field::Mark(device.index).bytes());
            far.elements.insert(key.into(), value);
        }
        for port in ports.get(&bridge.index).into_iter().flatten() {
            let fields = [Load::Given(overlay.vni), Load::DestinationMac];
            add(&port.name, vec![Rule::new().forward_by(&fields, FAR)]);
        }
    }
    table.sets.insert(FAR.to_owned(), far);
    table
}
