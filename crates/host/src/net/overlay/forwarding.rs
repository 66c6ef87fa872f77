//! Where containers are: forwarding entries and neighbours (`linux/neighbour.h`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::route::{Change, PROTOCOL, Route};
use super::super::{Error, Mac};
use super::device::Device;
use super::{Endpoint, Overlay};

/// `NUD_NOARP | NUD_REACHABLE`: what `bridge fdb` calls static. It does not age.
const STATIC: u16 = 0x42;
/// `NUD_PERMANENT`
const PERMANENT: u16 = 0x80;

/// One entry of one of the three tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// The VXLAN device sends to this host.
    Remote { device: u32, mac: Mac, host: IpAddr },
    /// The bridge sends to this port.
    Port { device: u32, mac: Mac },
    /// The bridge knows this neighbour.
    Neighbour {
        bridge: u32,
        address: IpAddr,
        mac: Mac,
    },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote { device, mac, host } => {
                write!(f, "the way of {mac} to {host} (device {device})")
            }
            Self::Port { device, mac } => write!(f, "the bridge's entry for {mac} (port {device})"),
            Self::Neighbour {
                bridge,
                address,
                mac,
            } => {
                write!(f, "the neighbour {address} at {mac} (bridge {bridge})")
            }
        }
    }
}

impl Entry {
    pub(super) fn addition(&self) -> Change {
        Change::replace(RouteNetlinkMessage::NewNeighbour(self.message()))
    }

    pub(super) fn removal(&self) -> Change {
        Change::remove(RouteNetlinkMessage::DelNeighbour(self.message()))
    }

    fn message(&self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        let header = &mut message.header;
        let hardware = |mac: &Mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
        let (index, mac) = match self {
            Self::Remote { device, mac, host } => {
                header.family = AddressFamily::Bridge;
                header.state = NeighbourState::Other(STATIC);
                header.flags = NeighbourFlags::Own;
                let host = NeighbourAttribute::Destination(destination(*host));
                message.attributes.push(host);
                (device, mac)
            }
            Self::Port { device, mac } => {
                header.family = AddressFamily::Bridge;
                header.state = NeighbourState::Other(STATIC);
                header.flags = NeighbourFlags::Controller;
                (device, mac)
            }
            Self::Neighbour {
                bridge,
                address,
                mac,
            } => {
                header.family = match address {
                    IpAddr::V4(_) => AddressFamily::Inet,
                    IpAddr::V6(_) => AddressFamily::Inet6,
                };
                header.state = NeighbourState::Permanent;
                let address = NeighbourAttribute::Destination(destination(*address));
                let protocol = NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
                message.attributes.extend([address, protocol]);
                (bridge, mac)
            }
        };
        message.header.ifindex = *index;
        message.attributes.push(hardware(mac));
        message
    }

    fn of(message: &NeighbourMessage) -> Option<Self> {
        let index = message.header.ifindex;
        let (mut mac, mut address, mut on_bridge, mut is_ours) = (None, None, false, false);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok().map(Mac);
                }
                NeighbourAttribute::Destination(destination) => address = read(destination),
                NeighbourAttribute::Controller(_) => on_bridge = true,
                NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)) => is_ours = true,
                _ => {}
            }
        }
        let (mac, state) = (mac?, u16::from(message.header.state));
        match (message.header.family, address) {
            (AddressFamily::Bridge, Some(host)) if !on_bridge => Some(Self::Remote {
                device: index,
                mac,
                host,
            }),
            // A port's own hardware address is a permanent entry.
            (AddressFamily::Bridge, None) if on_bridge && state & PERMANENT == 0 => {
                Some(Self::Port { device: index, mac })
            }
            (AddressFamily::Inet | AddressFamily::Inet6, Some(address)) if is_ours => {
                let bridge = index;
                (state & PERMANENT != 0).then_some(Self::Neighbour {
                    bridge,
                    address,
                    mac,
                })
            }
            _ => None,
        }
    }
}

fn destination(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }
}

fn read(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?)),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
            _ => None,
        },
        _ => None,
    }
}

/// What a container needs in the three tables.
pub(super) fn entries(device: Device, endpoint: &Endpoint) -> Vec<Entry> {
    let Device {
        index: device,
        bridge,
    } = device;
    let Endpoint { mac, host, .. } = *endpoint;
    let mut entries = vec![
        Entry::Remote { device, mac, host },
        Entry::Port { device, mac },
    ];
    let neighbour = |address: &IpAddr| Entry::Neighbour {
        bridge,
        address: *address,
        mac,
    };
    entries.extend(endpoint.addresses.iter().map(neighbour));
    entries
}

/// Entries by what is the key of their table, so that one key has one entry.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_key: BTreeMap<(u8, u32, Vec<u8>), Entry>,
}

impl Entries {
    /// Those of the kernel.
    pub(super) fn read(route: &mut Route) -> Result<Self, Error> {
        let mut all = Self::default();
        for family in [
            AddressFamily::Bridge,
            AddressFamily::Inet,
            AddressFamily::Inet6,
        ] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetNeighbour(request);
            for message in route.list("neighbours and forwarding entries", &request)? {
                if let RouteNetlinkMessage::NewNeighbour(message) = message
                    && let Some(entry) = Entry::of(&message)
                {
                    all.insert(entry);
                }
            }
        }
        Ok(all)
    }

    fn insert(&mut self, entry: Entry) {
        let (table, index, key) = match entry {
            Entry::Remote { device, mac, .. } => (0, device, mac.0.to_vec()),
            Entry::Port { device, mac } => (1, device, mac.0.to_vec()),
            Entry::Neighbour {
                bridge,
                address: IpAddr::V4(address),
                ..
            } => (2, bridge, address.octets().to_vec()),
            Entry::Neighbour {
                bridge,
                address: IpAddr::V6(address),
                ..
            } => (3, bridge, address.octets().to_vec()),
        };
        // If two claim the same, the first has it, on every host.
        self.by_key.entry((table, index, key)).or_insert(entry);
    }

    /// Those that an overlay's remote containers need.
    pub(super) fn add(&mut self, device: Device, overlay: &Overlay) {
        let remote = overlay
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.host != overlay.local);
        let mut remote: Vec<&Endpoint> = remote.collect();
        remote.sort();
        for endpoint in remote {
            entries(device, endpoint)
                .into_iter()
                .for_each(|entry| self.insert(entry));
        }
    }

    /// What must go and what must come so that these become those. Forwarding entries count on
    /// our devices only.
    pub(super) fn difference(&self, wanted: &Self, devices: &[Device]) -> (Vec<Entry>, Vec<Entry>) {
        let devices: BTreeSet<u32> = devices.iter().map(|device| device.index).collect();
        let is_ours = |entry: &Entry| match entry {
            Entry::Remote { device, .. } | Entry::Port { device, .. } => devices.contains(device),
            Entry::Neighbour { .. } => true,
        };
        let seen = self.by_key.iter().filter(|(_, entry)| is_ours(entry));
        // What has another value is replaced, which never leaves a gap.
        let gone = seen.filter(|(key, _)| !wanted.by_key.contains_key(key));
        let gone = gone.map(|(_, entry)| *entry).collect();
        let come = wanted
            .by_key
            .iter()
            .filter(|(key, entry)| self.by_key.get(key) != Some(entry));
        (gone, come.map(|(_, entry)| *entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Device = Device {
        index: 7,
        bridge: 3,
    };

    fn endpoint(last: u8, host: u8) -> Endpoint {
        Endpoint {
            mac: Mac([2, 0, 0, 0, 0, last]),
            addresses: vec![[10, 0, 0, last].into(), "fd00::1".parse().unwrap()],
            host: [192, 0, 2, host].into(),
        }
    }

    fn of(endpoints: &[Endpoint]) -> Entries {
        let mut all = Entries::default();
        let each = endpoints
            .iter()
            .flat_map(|endpoint| entries(DEVICE, endpoint));
        each.for_each(|entry| all.insert(entry));
        all
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for entry in entries(DEVICE, &endpoint(1, 2)) {
            let mut message = entry.message();
            if matches!(entry, Entry::Port { .. }) {
                // The kernel says which bridge, where it was told that one is meant.
                message.attributes.push(NeighbourAttribute::Controller(3));
            }
            assert_eq!(Entry::of(&message), Some(entry));
        }
    }

    #[test]
    fn a_container_that_moved_is_replaced_in_one_table() {
        let (gone, come) = of(&[endpoint(1, 2)]).difference(&of(&[endpoint(1, 9)]), &[DEVICE]);
        assert_eq!(gone, []);
        assert!(matches!(come[..], [Entry::Remote { .. }]), "{come:?}");
    }

    #[test]
    fn entries_of_others_devices_are_left_alone() {
        let (gone, _) = of(&[endpoint(1, 2)]).difference(&Entries::default(), &[]);
        assert!(
            gone.iter()
                .all(|entry| matches!(entry, Entry::Neighbour { .. }))
        );
        assert_eq!(gone.len(), 2);
    }
}
