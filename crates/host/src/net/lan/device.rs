//! The devices of a host, and which of them leads to the LAN.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rustix::io::Errno;
use wharfie_core::network::BRIDGES;

use super::super::route::{Route, family};
use super::super::{Error, Mac, Namespace};

/// What Docker calls its bridges, unless told otherwise: these, and `br-` with twelve digits of the
/// network's id.
const DOCKERS: [&str; 2] = ["docker0", "docker_gwbridge"];
const DOCKERS_PREFIX: &str = "br-";
const DOCKERS_DIGITS: usize = 12;

/// A network device that addresses can be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanDevice {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its hardware address; none if it is not an Ethernet device: nobody asks for addresses there.
    pub mac: Option<Mac>,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether there is a cable in it, or what stands for one. A bridge that nothing is on needs none.
    pub has_carrier: bool,
    /// The subnets that are reached on it without a router, by the host's main routing table.
    pub subnets: Vec<IpNet>,
}

/// A device of a host, by its name, if it is there.
pub fn device(namespace: &Namespace, name: &str) -> Result<Option<LanDevice>, Error> {
    let mut route = Route::open(namespace)?;
    let Some(link) = Link::named(&mut route, name)? else {
        return Ok(None);
    };
    let connected = connected(&mut route)?.into_iter();
    let own = connected.filter(|(_, index, _)| *index == link.index);
    let mut subnets: Vec<IpNet> = own.map(|(subnet, ..)| subnet).collect();
    subnets.sort();
    subnets.dedup();
    let all = route.links()?;
    let all: Vec<Link> = all.iter().map(Link::of).collect();
    let has_carrier = link.is_linked(&all);
    Ok(Some(LanDevice {
        name: link.name,
        index: link.index,
        mac: link.mac,
        is_up: link.is_up,
        has_carrier,
        subnets,
    }))
}

/// The device by which an address is reached without a router: of the smallest such subnet, and of
/// several the one that the kernel prefers. Never a bridge of containers (Docker's or ours), nor one
/// without hardware addresses.
pub fn device_of(namespace: &Namespace, address: IpAddr) -> Result<Option<String>, Error> {
    let mut route = Route::open(namespace)?;
    let links = route.links()?;
    let links: Vec<Link> = links.iter().map(Link::of).collect();
    let connected = connected(&mut route)?.into_iter();
    let mut found: Vec<(u8, u32, &Link)> = connected
        .filter(|(subnet, ..)| subnet.contains(&address))
        .filter_map(|(subnet, index, metric)| {
            let link = links.iter().find(|link| link.index == index)?;
            let leads_out = link.mac.is_some() && !link.is_of_containers(&links);
            leads_out.then_some((u8::MAX - subnet.prefix_len(), metric, link))
        })
        .collect();
    found.sort_by_key(|(prefix, metric, link)| (*prefix, *metric, link.index));
    Ok(found.first().map(|(.., link)| link.name.clone()))
}

/// The subnets that are reached without a router, with the device and the metric of the route.
fn connected(route: &mut Route) -> Result<Vec<(IpNet, u32, u32)>, Error> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        let mut request = RouteMessage::default();
        request.header.address_family = family(ipv6);
        let all = route.list("the routes", &RouteNetlinkMessage::GetRoute(request))?;
        found.extend(all.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => of_route(route),
            _ => None,
        }));
    }
    Ok(found)
}

fn of_route(route: &RouteMessage) -> Option<(IpNet, u32, u32)> {
    let (mut to, mut index, mut metric) = (None, None, 0);
    let mut table = u32::from(route.header.table);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                to = Some(IpAddr::from(*address));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                to = Some(IpAddr::from(*address));
            }
            RouteAttribute::Oif(seen) => index = Some(*seen),
            RouteAttribute::Priority(seen) => metric = *seen,
            RouteAttribute::Table(seen) => table = *seen,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    let subnet = IpNet::new(to?, route.header.destination_prefix_length).ok()?;
    let is_link_local = match subnet.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    };
    let is_subnet = subnet.prefix_len() > 0 && subnet.prefix_len() < subnet.max_prefix_len();
    let is_meant = table == u32::from(RouteHeader::RT_TABLE_MAIN)
        && route.header.kind == RouteType::Unicast
        && is_subnet
        && !is_link_local;
    is_meant.then_some((subnet, index?, metric))
}

/// A device, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: Option<Mac>,
    pub(super) is_up: bool,
    has_carrier: bool,
    master: Option<u32>,
    kind: Option<InfoKind>,
}

impl Link {
    pub(super) fn of(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let asks = !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback)
            && message.header.link_layer_type == LinkLayerType::Ether;
        let mut link = Self {
            index: message.header.index,
            is_up: flags.contains(LinkFlags::Up),
            has_carrier: flags.contains(LinkFlags::LowerUp),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(address) if asks => {
                    link.mac = address.as_slice().try_into().ok().map(Mac);
                }
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }

    /// The device of a name, if there is one.
    pub(super) fn named(route: &mut Route, name: &str) -> Result<Option<Self>, Error> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let request = RouteNetlinkMessage::GetLink(request);
        match route.one(|| format!("the network device {name}"), &request) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(Self::of(&link))),
            Ok(_) => Ok(None),
            // A name that is too long is nobody's.
            Err(error)
                if [Errno::NODEV, Errno::RANGE, Errno::INVAL]
                    .iter()
                    .any(|e| error.is(*e)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether there is a cable in it; a bridge that nothing is on needs none.
    fn is_linked(&self, all: &[Self]) -> bool {
        let is_bridge = self.kind == Some(InfoKind::Bridge);
        let has_port = || all.iter().any(|port| port.master == Some(self.index));
        self.has_carrier || is_bridge && !has_port()
    }

    /// Whether neighbours may be reached by it.
    pub(super) fn is_fit(&self, all: &[Self]) -> bool {
        self.is_up && self.is_linked(all)
    }

    /// Whether it is a bridge for containers: by its name, or because nothing but containers' cables
    /// and overlays are on it.
    fn is_of_containers(&self, all: &[Self]) -> bool {
        if self.kind != Some(InfoKind::Bridge) {
            return false;
        }
        let digits = self.name.strip_prefix(DOCKERS_PREFIX);
        let is_dockers = digits.is_some_and(|digits| {
            digits.len() == DOCKERS_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
        });
        let is_named = self.name.starts_with(BRIDGES) || DOCKERS.contains(&&*self.name);
        let mut ports = all.iter().filter(|link| link.master == Some(self.index));
        let cable = |port: &Self| matches!(port.kind, Some(InfoKind::Veth | InfoKind::Vxlan));
        is_named || is_dockers || (ports.clone().next().is_some() && ports.all(cable))
    }
}
