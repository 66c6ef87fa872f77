//! The VXLAN device of an overlay (`IFLA_VXLAN_*`, `IFLA_BRPORT_*`).

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::super::route::{Change, Route};
use super::super::{Error, Mac};
use super::Overlay;

/// What our devices' aliases begin with; the network's name follows.
const MARK: &str = "wharfie:";
/// `IFALIASZ`, less its zero.
const LONGEST_ALIAS: usize = 255;

/// What the kernel calls an overlay's device.
pub(super) fn name(vni: u32) -> String {
    format!("wvx{vni:x}")
}

fn alias(overlay: &Overlay) -> String {
    let name = overlay.network.chars().filter(|c| !c.is_control());
    let mut alias = MARK.to_owned();
    for c in name {
        if alias.len() + c.len_utf8() > LONGEST_ALIAS {
            break;
        }
        alias.push(c);
    }
    alias
}

/// The indexes of a device that is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) bridge: u32,
}

/// A device of any kind, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    /// The device at the other end of its cable, in whatever namespace.
    pub(super) peer: Option<u32>,
    alias: String,
    address: Vec<u8>,
    mtu: u32,
    is_up: bool,
    pub(super) master: Option<u32>,
    is_bridge: bool,
    vxlan: Option<Vxlan>,
    /// Whether the bridge floods nothing to it, learns nothing from it, and answers for it.
    is_quiet: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Vxlan {
    vni: u32,
    port: u16,
    local: Option<IpAddr>,
    learning: bool,
}

/// The devices of a host.
pub(super) struct Links(pub(super) Vec<Link>);

impl Links {
    pub(super) fn read(route: &mut Route) -> Result<Self, Error> {
        Ok(Self(route.links()?.iter().map(Link::of).collect()))
    }

    /// Those with our mark.
    pub(super) fn ours(&self) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(|link| link.is_ours())
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }

    pub(super) fn named(&self, name: &str) -> Option<&Link> {
        self.0.iter().find(|link| link.name == name)
    }
}

impl Link {
    /// Name and hardware address, if it is a bridge.
    pub(super) fn bridge(&self) -> Option<(String, Mac)> {
        let address = self.address.as_slice().try_into().ok()?;
        self.is_bridge.then(|| (self.name.clone(), Mac(address)))
    }

    pub(super) fn of(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            is_up: message.header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::Address(address) => link.address.clone_from(address),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(peer) => link.peer = Some(*peer),
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| link.take(info)),
                _ => {}
            }
        }
        link
    }

    fn take(&mut self, info: &LinkInfo) {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => self.is_bridge = true,
            LinkInfo::Data(InfoData::Vxlan(data)) => {
                let mut vxlan = Vxlan::default();
                for one in data {
                    match one {
                        InfoVxlan::Id(vni) => vxlan.vni = *vni,
                        InfoVxlan::Port(port) => vxlan.port = *port,
                        InfoVxlan::Local(address) => vxlan.local = Some((*address).into()),
                        InfoVxlan::Local6(address) => vxlan.local = Some((*address).into()),
                        InfoVxlan::Learning(on) => vxlan.learning = *on,
                        _ => {}
                    }
                }
                self.vxlan = Some(vxlan);
            }
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                self.is_quiet = quiet().iter().all(|flag| port.contains(flag));
            }
            _ => {}
        }
    }

    fn is_ours(&self) -> bool {
        // An alias may be on a device of any kind; only of this one do we make any.
        self.alias.starts_with(MARK) && self.vxlan.is_some()
    }

    pub(super) fn is_of(&self, overlay: &Overlay) -> bool {
        self.name == name(overlay.vni)
    }

    pub(super) fn removal(&self) -> Change {
        let mut message = LinkMessage::default();
        message.header.index = self.index;
        Change::remove(RouteNetlinkMessage::DelLink(message))
    }

    fn is_same_vxlan(&self, overlay: &Overlay) -> bool {
        let wanted = Vxlan {
            vni: overlay.vni,
            port: overlay.port,
            local: Some(overlay.local),
            learning: false,
        };
        self.vxlan.as_ref() == Some(&wanted)
    }

    fn is_as_wanted(&self, overlay: &Overlay, bridge: u32) -> bool {
        let Self {
            alias: seen,
            mtu,
            is_up,
            master,
            is_quiet,
            ..
        } = self;
        (seen, *mtu, *master) == (&alias(overlay), overlay.mtu, Some(bridge)) && *is_up && *is_quiet
    }
}

/// Makes an overlay's device what it should be; whether anything had to be done.
pub(super) fn ensure(
    route: &mut Route,
    links: &Links,
    overlay: &Overlay,
) -> Result<(Device, bool), Error> {
    let device = name(overlay.vni);
    let bridge = links.named(&overlay.bridge).filter(|link| link.is_bridge);
    let Some(on) = bridge else {
        let (bridge, vni) = (overlay.bridge.clone(), overlay.vni);
        return Err(Error::NoBridge { bridge, vni });
    };
    let bridge = on.index;
    let foreign = links.0.iter().find(|link| {
        let same = |vxlan: &Vxlan| (vxlan.vni, vxlan.port) == (overlay.vni, overlay.port);
        link.name != device && link.vxlan.as_ref().is_some_and(same)
    });
    if let Some(foreign) = foreign {
        return Err(in_the_way(foreign, device));
    }
    let mut present = links.named(&device);
    if let Some(link) = present {
        // One without an alias that is not up yet was ours in the making when we were killed.
        let is_unfinished = link.alias.is_empty() && !link.is_up && link.vxlan.is_some();
        if !link.is_ours() && !is_unfinished {
            return Err(match &link.vxlan {
                Some(_) => in_the_way(link, device),
                None => Error::Foreign {
                    object: format!("the network device {device}"),
                },
            });
        }
        if link.is_same_vxlan(overlay) && link.is_as_wanted(overlay, bridge) {
            return Ok((
                Device {
                    index: link.index,
                    bridge,
                },
                false,
            ));
        }
        // Neither port nor address can be changed.
        if !link.is_same_vxlan(overlay) {
            route.change(&[link.removal()], |_| format!("the removal of {device}"))?;
            present = None;
        }
    }
    let pinned = [Change::modify(pin(on))];
    route.change(&pinned, |_| {
        format!("the hardware address of {}", overlay.bridge)
    })?;
    let port = overlay.port;
    let describe = |_| {
        format!(
            "the VXLAN device {device} (VNI {}, UDP port {port})",
            overlay.vni
        )
    };
    if present.is_none() {
        route.change(&[Change::create(creation(overlay))], describe)?;
    }
    let index = present.map(|link| link.index);
    let index = match index {
        Some(index) => index,
        None => find(route, &device)?,
    };
    let steps = [settings(overlay, index, bridge), port_flags(index, true)];
    let steps = steps.map(Change::modify);
    route.change(&steps, describe)?;
    Ok((Device { index, bridge }, true))
}

fn in_the_way(link: &Link, wanted: String) -> Error {
    let vxlan = link.vxlan.clone().unwrap_or_default();
    Error::ForeignVxlan {
        device: link.name.clone(),
        vni: vxlan.vni,
        port: vxlan.port,
        wanted,
    }
}

fn find(route: &mut Route, name: &str) -> Result<u32, Error> {
    // Not a list of all: it waits for whoever changes any device.
    route
        .link(name)?
        .map(|link| link.header.index)
        .ok_or_else(|| Error::System {
            doing: format!("find the device {name}"),
            reason: "it was removed as soon as it was made".into(),
            gone: true,
        })
}

/// Gives a bridge the hardware address it has, for good. Otherwise it takes the lowest of its
/// ports', and when that changes the kernel forgets all neighbours, permanent ones as well. (It does
/// so now, once: Docker's bridges have such an address from the start.)
fn pin(bridge: &Link) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = bridge.index;
    message.attributes = vec![LinkAttribute::Address(bridge.address.clone())];
    RouteNetlinkMessage::NewLink(message)
}

fn creation(overlay: &Overlay) -> RouteNetlinkMessage {
    let local = match overlay.local {
        IpAddr::V4(address) => InfoVxlan::Local(address),
        IpAddr::V6(address) => InfoVxlan::Local6(address),
    };
    let data = vec![
        InfoVxlan::Id(overlay.vni),
        local,
        InfoVxlan::Port(overlay.port),
        InfoVxlan::Learning(false),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name(overlay.vni)),
        LinkAttribute::Mtu(overlay.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(data)),
        ]),
    ];
    RouteNetlinkMessage::NewLink(message)
}

/// The mark, and the place on the bridge. No address of its own: it would announce itself.
fn settings(overlay: &Overlay, index: u32, bridge: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let inet6 = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
    message.attributes = vec![
        LinkAttribute::IfAlias(alias(overlay)),
        LinkAttribute::Controller(bridge),
        LinkAttribute::Mtu(overlay.mtu),
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(inet6)]),
    ];
    RouteNetlinkMessage::NewLink(message)
}

fn quiet() -> [InfoBridgePort; 5] {
    [
        InfoBridgePort::NeighSupress(true),
        InfoBridgePort::Learning(false),
        InfoBridgePort::UnicastFlood(false),
        InfoBridgePort::MulticastFlood(false),
        InfoBridgePort::BroadcastFlood(false),
    ]
}

/// The flags on the bridge, and up: in a message of its own, since the device has none of a
/// bridge's flags before it is on one.
fn port_flags(index: u32, up: bool) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(quiet().to_vec())),
    ])];
    RouteNetlinkMessage::NewLink(message)
}
