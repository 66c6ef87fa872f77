//! The device itself, as any other network device.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use rustix::io::Errno;

use super::super::Error;
use super::super::route::{Change, Route};

/// What our device's alias is.
const ALIAS: &str = "wharfie encryption";

/// Whose device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The kernel encrypts.
    Kernel,
    /// A process of ours does.
    User,
}

fn named(route: &mut Route, name: &str) -> Result<Option<LinkMessage>, Error> {
    let is_it = |link: &LinkMessage| {
        let of = |a: &LinkAttribute| matches!(a, LinkAttribute::IfName(seen) if seen == name);
        link.attributes.iter().any(of)
    };
    Ok(route.links()?.into_iter().find(is_it))
}

/// Our device, if it is there.
pub(super) fn find(route: &mut Route, name: &str) -> Result<Option<Kind>, Error> {
    let Some(link) = named(route, name)? else {
        return Ok(None);
    };
    let infos = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let kind = infos.into_iter().flatten().find_map(|info| match info {
        LinkInfo::Kind(InfoKind::Wireguard) => Some(Kind::Kernel),
        LinkInfo::Kind(InfoKind::Tun) => Some(Kind::User),
        _ => None,
    });
    match kind {
        Some(kind) => Ok(Some(kind)),
        None => Err(Error::Foreign {
            object: format!("the network device {name}"),
        }),
    }
}

/// Makes one of the kernel's; not if it knows of none.
pub(super) fn make(route: &mut Route, name: &str) -> Result<bool, Error> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
    ];
    let change = Change::create(RouteNetlinkMessage::NewLink(message));
    match route.change(&[change], |_| format!("the WireGuard device {name}")) {
        Ok(()) => Ok(true),
        Err(e) if e.is(Errno::OPNOTSUPP) || e.is(Errno::NODEV) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Makes it what it should be, and up; its number.
pub(super) fn settle(route: &mut Route, name: &str, kind: Kind, mtu: u32) -> Result<u32, Error> {
    let Some(link) = named(route, name)? else {
        return Err(Error::System {
            doing: format!("find the device {name}"),
            reason: "it was removed as soon as it was made".into(),
            gone: true,
        });
    };
    let index = link.header.index;
    // Nobody is asked for hardware addresses: on that of a process there is only the other end.
    let quiet = match kind {
        Kind::User => LinkFlags::Noarp,
        Kind::Kernel => LinkFlags::empty(),
    };
    let flags = LinkFlags::Up | quiet;
    let is_so = |a: &LinkAttribute| match a {
        LinkAttribute::Mtu(seen) => *seen == mtu,
        LinkAttribute::IfAlias(seen) => seen == ALIAS,
        _ => false,
    };
    let settled = link.attributes.iter().filter(|a| is_so(a)).count() == 2;
    if settled && link.header.flags.contains(flags) {
        return Ok(index);
    }
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.change_mask = flags;
    let inet6 = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
    message.attributes = vec![
        LinkAttribute::IfAlias(ALIAS.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(inet6)]),
    ];
    let change = Change::modify(RouteNetlinkMessage::NewLink(message));
    route.change(&[change], |_| format!("the settings of {name}"))?;
    Ok(index)
}

/// Removes it.
pub(super) fn remove(route: &mut Route, name: &str) -> Result<(), Error> {
    let Some(link) = named(route, name)? else {
        return Ok(());
    };
    let mut message = LinkMessage::default();
    message.header.index = link.header.index;
    let change = Change::remove(RouteNetlinkMessage::DelLink(message));
    route.change(&[change], |_| format!("the removal of {name}"))
}
