//! The addresses of a host that is of no cluster: nobody has told where it is reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use wharfie_core::director::Ranges;

use crate::agent::director::DirectorBook;

/// So many addresses of a range are looked at for one that nobody has.
const LOOKED_AT: u128 = 4_096;

/// Addresses of this host from which it reaches the director's ranges, or the world. Asking the
/// kernel sends nothing.
pub(in crate::agent::director) fn addresses(book: &DirectorBook) -> Vec<IpAddr> {
    let ranges = book.settings.iter().flat_map(|s| &s.ranges);
    let given = book.given();
    // The way to one that this host may have itself does not lead to the network.
    let free = |r: &Ranges| {
        (0..LOOKED_AT)
            .filter_map(|i| r.range.at(i))
            .find(|ip| !given.contains(ip))
    };
    let mut to: Vec<IpAddr> = ranges.filter_map(free).collect();
    // For documentation only (RFC 5737, RFC 3849): nobody has them.
    to.push(Ipv4Addr::new(192, 0, 2, 1).into());
    to.push(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    let mut found: Vec<IpAddr> = to.into_iter().filter_map(from).collect();
    found.retain(|a| !a.is_loopback() && !a.is_unspecified() && !given.contains(a));
    found.sort_unstable();
    found.dedup();
    found
}

/// The address by which the host speaks with another one.
fn from(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(SocketAddr::new(to, 53)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
