//! Asking the neighbours on a LAN who has an address, telling them who has it now, and hearing who
//! else says to have it.
//!
//! ARP needs a packet socket. It gets the ARP of all devices of the namespace, since there is no safe
//! way to write down the address that would bind it to one; what came by another is left out. For
//! IPv6 a raw socket for ICMPv6 does: the kernel has joined the groups already, and makes the
//! checksums.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, SockaddrIn6, recvfrom, recvmsg, sendto,
};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use socket2::{Domain, Protocol, Socket, Type};

use super::super::route::Route;
use super::super::{Error, Mac, Namespace};
use super::device::Link;
use super::packet;

/// Room for answers that come at once.
const RECEIVE_ROOM: usize = 4 << 20;
/// How many are asked for before answers are taken.
const AT_ONCE: usize = 64;
/// How long to wait when the device takes no more.
const PAUSE: Duration = Duration::from_millis(1);
/// No message about addresses is longer.
const LONGEST: usize = 1500;

/// Who on a LAN has these addresses: all are asked for at once, and a second time after half of the
/// wait, which is over sooner if all were answered. This host's own devices do not count. It is not
/// claimed to have any of them (RFC 5227, section 2.1; RFC 4861, section 7.2.2, from the device's
/// link-local address, which it must have by then for IPv6).
///
/// Others that only ask for the same address do not count either: they may be nodes of the same
/// cluster, which settle that among themselves.
pub fn probe(
    namespace: &Namespace,
    device: &str,
    addresses: &[IpAddr],
    wait: Duration,
) -> Result<BTreeMap<IpAddr, Mac>, Error> {
    let wire = Wire::open(namespace, device, addresses)?;
    let mut found = BTreeMap::new();
    let asked: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    let begin = Instant::now();
    for share in [wait / 2, wait] {
        let until = begin + share;
        for (index, address) in asked.iter().enumerate() {
            if !found.contains_key(address) {
                wire.ask(*address, begin + wait)?;
            }
            if index % AT_ONCE == 0 {
                found.extend(wire.hear(&asked)?);
            }
        }
        loop {
            found.extend(wire.hear(&asked)?);
            let left = until.saturating_duration_since(Instant::now());
            if found.len() == asked.len() {
                return Ok(found);
            }
            if left.is_zero() {
                break;
            }
            wire.wait(left)?;
        }
    }
    Ok(found)
}

/// Tells all neighbours on a LAN that this host has these addresses, so that they and the switches
/// send there at once (RFC 5227, section 2.3; RFC 4861, section 7.2.6). Nobody confirms it: say it
/// again after a while.
pub fn announce(namespace: &Namespace, device: &str, addresses: &[IpAddr]) -> Result<(), Error> {
    let wire = Wire::open(namespace, device, addresses)?;
    let until = Instant::now() + Duration::from_secs(1);
    addresses.iter().try_for_each(|a| wire.announce(*a, until))
}

/// Hears who else says to have an address that this host has (RFC 5227, section 2.4).
///
/// Its file descriptor becomes readable when something was said.
#[derive(Debug)]
pub struct Conflicts {
    wire: Wire,
    either: OwnedFd,
    held: BTreeSet<IpAddr>,
}

impl Conflicts {
    /// Begins to listen on a device.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self, Error> {
        let wire = Wire::between(namespace, device, true, true)?;
        let failed = |error| Error::system(format!("listen on {device}"), error);
        let either = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        for socket in wire.sockets() {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&either, socket, data, epoll::EventFlags::IN).map_err(failed)?;
        }
        let held = BTreeSet::new();
        Ok(Self { wire, either, held })
    }

    /// These are the host's addresses.
    pub fn watch(&mut self, addresses: &[IpAddr]) {
        self.held = addresses.iter().copied().collect();
    }

    /// Who said to have one of them since the last time. Does not wait.
    pub fn conflicts(&mut self) -> Result<Vec<(IpAddr, Mac)>, Error> {
        let mut heard = self.wire.hear(&self.held)?;
        heard.sort();
        heard.dedup();
        Ok(heard)
    }

    /// The same, and waits for something to be said, but no longer than so long.
    pub fn wait(&mut self, patience: Duration) -> Result<Vec<(IpAddr, Mac)>, Error> {
        self.wire.wait(patience)?;
        self.conflicts()
    }
}

impl AsFd for Conflicts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }
}

/// The sockets to a LAN.
#[derive(Debug)]
struct Wire {
    device: String,
    index: u32,
    mac: Mac,
    /// Those of all devices of the host.
    own: BTreeSet<Mac>,
    arp: Option<(Socket, LinkAddr)>,
    icmp: Option<Socket>,
}

impl Wire {
    /// For addresses of one family or of both.
    fn open(namespace: &Namespace, device: &str, addresses: &[IpAddr]) -> Result<Self, Error> {
        let (v4, v6) = (
            addresses.iter().any(IpAddr::is_ipv4),
            addresses.iter().any(IpAddr::is_ipv6),
        );
        Self::between(namespace, device, v4, v6)
    }

    fn between(namespace: &Namespace, device: &str, v4: bool, v6: bool) -> Result<Self, Error> {
        let links = Route::open(namespace)?.links()?;
        let links: Vec<Link> = links.iter().map(Link::of).collect();
        let named = device.to_owned();
        let Some(link) = links.iter().find(|link| link.name == device) else {
            return Err(Error::NoDevice { device: named });
        };
        let Some(mac) = link.mac else {
            let words = format!("{device} is no Ethernet device: nobody has addresses there");
            return Err(Error::Invalid(words));
        };
        if !link.is_up {
            return Err(Error::DeviceDown { device: named });
        }
        let index = link.index;
        let doing = format!("open sockets for {device}");
        let (arp, icmp) = namespace.inside(&doing, || {
            let arp = v4.then(|| arp_socket(device)).transpose()?;
            let icmp = v6.then(|| icmp_socket(device, index)).transpose()?;
            Ok((arp, icmp))
        })?;
        Ok(Self {
            device: named,
            index,
            mac,
            own: links.iter().filter_map(|link| link.mac).collect(),
            arp,
            icmp,
        })
    }

    fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let arp = self.arp.iter().map(|(socket, _)| socket.as_fd());
        arp.chain(self.icmp.iter().map(AsFd::as_fd))
    }

    fn ask(&self, address: IpAddr, until: Instant) -> Result<(), Error> {
        match address {
            IpAddr::V4(address) => self.broadcast(&packet::arp_probe(self.mac, address), until),
            IpAddr::V6(address) => {
                let to = packet::solicited_node(address);
                self.multicast(&packet::solicitation(self.mac, address), to, until)
            }
        }
    }

    fn announce(&self, address: IpAddr, until: Instant) -> Result<(), Error> {
        match address {
            IpAddr::V4(address) => {
                let frames = packet::arp_announcements(self.mac, address);
                frames.iter().try_for_each(|f| self.broadcast(f, until))
            }
            IpAddr::V6(address) => {
                let message = packet::advertisement(self.mac, address);
                self.multicast(&message, packet::ALL_NODES, until)
            }
        }
    }

    fn broadcast(&self, frame: &[u8], until: Instant) -> Result<(), Error> {
        let Some((socket, to)) = &self.arp else {
            return Ok(());
        };
        self.send(until, || {
            Ok(sendto(socket.as_raw_fd(), frame, to, MsgFlags::empty())?)
        })
    }

    fn multicast(&self, message: &[u8], to: Ipv6Addr, until: Instant) -> Result<(), Error> {
        let Some(socket) = &self.icmp else {
            return Ok(());
        };
        let to = SocketAddr::from(SocketAddrV6::new(to, 0, 0, self.index)).into();
        self.send(until, || socket.send_to(message, &to))
    }

    /// Sends, if it must be after a pause, but not after the deadline: then it is as good as lost.
    fn send(&self, until: Instant, send: impl Fn() -> io::Result<usize>) -> Result<(), Error> {
        loop {
            match send() {
                Ok(_) => return Ok(()),
                Err(error) if is_full(&error) => {
                    if Instant::now() >= until {
                        return Ok(());
                    }
                    // Nothing tells when a device's queue has room.
                    #[allow(clippy::disallowed_methods)]
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(self.failed("send", error)),
            }
        }
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::system(format!("{what} on {}", self.device), error)
    }

    /// Waits until there is something to hear, and no longer than so long.
    fn wait(&self, left: Duration) -> Result<(), Error> {
        let sockets = self.sockets().collect::<Vec<_>>();
        let readable = |socket| PollFd::from_borrowed_fd(socket, PollFlags::IN);
        let mut all: Vec<PollFd<'_>> = sockets.into_iter().map(readable).collect();
        // A wait that is too long for the system is over sooner.
        let left = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        match poll(&mut all, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(self.failed("wait", error.into())),
        }
    }

    /// Takes all that was said: what others say about some addresses.
    fn hear(&self, about: &BTreeSet<IpAddr>) -> Result<Vec<(IpAddr, Mac)>, Error> {
        let mut heard = Vec::new();
        let mut claimed = |address: IpAddr, mac: Mac| {
            if about.contains(&address) && !self.own.contains(&mac) {
                heard.push((address, mac));
            }
        };
        let failed = |error| self.failed("listen", error);
        let mut buffer = [0; LONGEST];
        while let Some(frame) = self.frame(&mut buffer).map_err(failed)? {
            if let Some((address, mac)) = packet::arp_claim(frame) {
                claimed(address.into(), mac);
            }
        }
        while let Some(message) = self.message(&mut buffer).map_err(failed)? {
            if let Some((address, mac)) = packet::neighbour_claim(message) {
                claimed(address.into(), mac);
            }
        }
        Ok(heard)
    }

    /// The next ARP frame; an empty one for what came by another device.
    fn frame<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let Some((socket, _)) = &self.arp else {
            return Ok(None);
        };
        let Some((length, from)) =
            unless_nothing(recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer))?
        else {
            return Ok(None);
        };
        let is_here = from.is_some_and(|from| u32::try_from(from.ifindex()) == Ok(self.index));
        Ok(Some(&buffer[..if is_here { length } else { 0 }]))
    }

    /// The next message of ICMPv6; an empty one for what may have come from farther away.
    fn message<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let Some(socket) = &self.icmp else {
            return Ok(None);
        };
        let mut control = cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        let fd = socket.as_raw_fd();
        let received = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut control), flags);
        let Some(received) = unless_nothing(received)? else {
            return Ok(None);
        };
        let limit = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6HopLimit(limit) => Some(limit),
            _ => None,
        });
        let is_near = limit == Some(packet::FROM_THE_LINK);
        let length = if is_near { received.bytes } else { 0 };
        Ok(Some(&buffer[..length]))
    }
}

fn is_full(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    let full = [
        rustix::io::Errno::AGAIN,
        rustix::io::Errno::NOBUFS,
        rustix::io::Errno::INTR,
    ];
    errno.is_some_and(|errno| full.contains(&errno))
}

/// Nothing is said when nothing is there, nor when the device went down.
fn unless_nothing<T>(received: nix::Result<T>) -> io::Result<Option<T>> {
    use nix::errno::Errno;
    match received {
        Ok(received) => Ok(Some(received)),
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A socket for ARP, and where to send what all shall get.
fn arp_socket(device: &str) -> io::Result<(Socket, LinkAddr)> {
    // In network order, though it is a number.
    let protocol = i32::from(packet::ETHERTYPE_ARP.to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol.into()))?;
    socket.set_nonblocking(true)?;
    make_room(&socket);
    let of = |one: nix::ifaddrs::InterfaceAddress| {
        let address = (one.interface_name == device).then_some(one.address)??;
        address.as_link_addr().copied()
    };
    let address = getifaddrs()?.find_map(of);
    let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok((socket, address))
}

fn icmp_socket(device: &str, index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    make_room(&socket);
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(packet::FROM_THE_LINK.unsigned_abs())?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_recv_hoplimit_v6(true)?;
    Ok(socket)
}

fn make_room(socket: &Socket) {
    if set_socket_recv_buffer_size_force(socket, RECEIVE_ROOM).is_err() {
        let _ = set_socket_recv_buffer_size(socket, RECEIVE_ROOM);
    }
}
