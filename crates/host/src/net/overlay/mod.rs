//! Networks that span hosts: a VXLAN device on the network's bridge, which sends each container's
//! packets to its host, and nothing to everyone.
//!
//! Nothing is learned and nothing is flooded: where a container is, and what its hardware address
//! is, is known from elsewhere, and given to the kernel. For each remote container there are
//! - an entry in the VXLAN device's forwarding table: hardware address → host,
//! - one in the bridge's: hardware address → VXLAN device,
//! - neighbours on the bridge: IP address → hardware address, with which the bridge answers ARP and
//!   neighbour discovery in the container's stead (`neigh_suppress`).

mod device;
mod forwarding;
mod shortcut;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::route::{Change, Route};
use super::{Error, Mac, Namespace};
use device::{Device, Links};
use forwarding::Entries;

pub use shortcut::{Cable, Shortcut, Shortcuts, cables};
pub use watch::Watch;

/// The port that IANA gave to VXLAN.
pub const VXLAN_PORT: u16 = 4789;
const LARGEST_VNI: u32 = (1 << 24) - 1;

/// A network that spans hosts, as one host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// What the network is called; for whoever lists devices.
    pub network: String,
    /// The network's number, 24 bits.
    pub vni: u32,
    /// The bridge that Docker made for the network on this host.
    pub bridge: String,
    /// The largest packet of a container: that of the way between the hosts, less 50 bytes (70
    /// with IPv6), less what encryption takes.
    pub mtu: u32,
    /// The UDP port, the same on all hosts: [`VXLAN_PORT`] unless that is in use.
    pub port: u16,
    /// The address of this host that others send to.
    pub local: IpAddr,
    /// The network's containers. Those of this host are left out by their `host`.
    pub endpoints: Vec<Endpoint>,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses on the network, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// The host that it runs on: that host's `local`.
    pub host: IpAddr,
}

/// What had to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Devices that were made or changed.
    pub made: Vec<String>,
    /// Devices that were removed.
    pub removed: Vec<String>,
    /// Entries for containers that were added or changed, in three tables.
    pub added: usize,
    /// Entries for containers that were removed.
    pub dropped: usize,
}

impl Changes {
    /// Whether everything was as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The overlays of a host.
pub struct Overlays {
    route: Route,
    /// By VNI, as of the last [`Overlays::apply`].
    known: BTreeMap<u32, (Device, IpAddr)>,
}

impl Overlays {
    /// Those of a host. Call [`Overlays::apply`] first.
    pub fn open(host: &Namespace) -> Result<Self, Error> {
        Ok(Self {
            route: Route::open(host)?,
            known: BTreeMap::new(),
        })
    }

    /// Makes these the overlays, and no others: looks at what the kernel has and changes what
    /// differs, whoever made it so. What can be done is done; the error is the first.
    pub fn apply(&mut self, overlays: &[Overlay]) -> Result<Changes, Error> {
        check(overlays)?;
        let mut changes = Changes::default();
        let mut first = None;
        let links = Links::read(&mut self.route)?;
        for link in links
            .ours()
            .filter(|link| !overlays.iter().any(|overlay| link.is_of(overlay)))
        {
            let remove = [link.removal()];
            self.route
                .change(&remove, |_| format!("the removal of {}", link.name))?;
            changes.removed.push(link.name.clone());
        }
        self.known.clear();
        for overlay in overlays {
            match device::ensure(&mut self.route, &links, overlay) {
                Ok((device, changed)) => {
                    changes
                        .made
                        .extend(changed.then(|| device::name(overlay.vni)));
                    self.known.insert(overlay.vni, (device, overlay.local));
                }
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        let seen = Entries::read(&mut self.route)?;
        let mut wanted = Entries::default();
        for overlay in overlays {
            if let Some((device, _)) = self.known.get(&overlay.vni) {
                wanted.add(*device, overlay);
            }
        }
        let ours = self
            .known
            .values()
            .map(|(device, _)| *device)
            .collect::<Vec<_>>();
        let (gone, come) = seen.difference(&wanted, &ours);
        (changes.dropped, changes.added) = (gone.len(), come.len());
        let steps: Vec<_> = gone.iter().chain(&come).collect();
        let all: Vec<Change> = gone
            .iter()
            .map(forwarding::Entry::removal)
            .chain(come.iter().map(forwarding::Entry::addition))
            .collect();
        let done = self.route.change(&all, |index| steps[index].to_string());
        match first {
            Some(error) => Err(error),
            None => done.map(|()| changes),
        }
    }

    /// Adds or changes one container of a network; costs the same whatever others there are.
    pub fn add(&mut self, vni: u32, endpoint: &Endpoint) -> Result<(), Error> {
        self.change(vni, endpoint, forwarding::Entry::addition)
    }

    /// Removes one container of a network. It may be gone already.
    pub fn remove(&mut self, vni: u32, endpoint: &Endpoint) -> Result<(), Error> {
        self.change(vni, endpoint, forwarding::Entry::removal)
    }

    fn change(
        &mut self,
        vni: u32,
        endpoint: &Endpoint,
        change: impl Fn(&forwarding::Entry) -> Change,
    ) -> Result<(), Error> {
        let Some((device, local)) = self.known.get(&vni) else {
            let words = format!("the overlay {vni} must be made before it is changed");
            return Err(Error::Invalid(words));
        };
        if endpoint.host == *local {
            return Ok(());
        }
        let entries = forwarding::entries(*device, endpoint);
        let changes: Vec<Change> = entries.iter().map(change).collect();
        self.route
            .change(&changes, |index| entries[index].to_string())
    }
}

fn check(overlays: &[Overlay]) -> Result<(), Error> {
    let mut seen = BTreeMap::new();
    for overlay in overlays {
        let Overlay { network, vni, .. } = overlay;
        if *vni == 0 || *vni > LARGEST_VNI {
            let words = format!("{vni} is no number for the network {network}: 1 to {LARGEST_VNI}");
            return Err(Error::Invalid(words));
        }
        if let Some(other) = seen.insert(*vni, network) {
            let words = format!("the networks {other} and {network} have the same VNI {vni}");
            return Err(Error::Invalid(words));
        }
        let odd = |endpoint: &&Endpoint| endpoint.host.is_ipv4() != overlay.local.is_ipv4();
        if let Some(endpoint) = overlay.endpoints.iter().find(odd) {
            let words = format!(
                "the host {} of {} cannot be reached from {}: one is IPv4 and one is IPv6",
                endpoint.host, endpoint.mac, overlay.local
            );
            return Err(Error::Invalid(words));
        }
    }
    Ok(())
}

/// All devices and neighbours of ours: the devices' names, and how many neighbours.
pub(crate) fn all(namespace: &Namespace) -> Result<(Vec<String>, usize), Error> {
    let mut route = Route::open(namespace)?;
    let links = Links::read(&mut route)?;
    let names = links.ours().map(|link| link.name.clone()).collect();
    let (gone, _) = Entries::read(&mut route)?.difference(&Entries::default(), &[]);
    Ok((names, gone.len()))
}

/// Removes all devices and neighbours of ours: the devices' names, and how many neighbours.
pub(crate) fn remove_all(namespace: &Namespace) -> Result<(Vec<String>, usize), Error> {
    let mut route = Route::open(namespace)?;
    let links = Links::read(&mut route)?;
    let removals: Vec<Change> = links.ours().map(device::Link::removal).collect();
    let names: Vec<String> = links.ours().map(|link| link.name.clone()).collect();
    route.change(&removals, |index| {
        format!("the removal of {}", names[index])
    })?;
    let (gone, _) = Entries::read(&mut route)?.difference(&Entries::default(), &[]);
    let removals: Vec<Change> = gone.iter().map(forwarding::Entry::removal).collect();
    route.change(&removals, |index| gone[index].to_string())?;
    Ok((names, gone.len()))
}
