//! The UDP port: many datagrams at a time (`UDP_SEGMENT` and `UDP_GRO`, udp(7)).

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::{Domain, Protocol, Type};

use crate::wait::{self, Ready};

/// Bytes that the kernel keeps for us: bursts of a fast sender are longer than the default.
const BUFFER: usize = 4 << 20;
/// So long is waited for room to send; then it is as if it had been lost.
const ROOM: Duration = Duration::from_millis(50);

/// One socket of the port.
pub(crate) struct Socket {
    socket: socket2::Socket,
    state: UdpSocketState,
}

/// Opens so many sockets on a port, for IPv6 and IPv4; 0 is any port. The kernel gives each sender
/// to one of them.
pub(crate) fn bind(port: u16, count: usize) -> io::Result<(Vec<Socket>, u16)> {
    let first = Socket::bind(port, count > 1)?;
    let address = first.socket.local_addr()?.as_socket();
    let port = address.map_or(port, |a| a.port());
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(Socket::bind(port, true)?);
    }
    Ok((sockets, port))
}

impl Socket {
    fn bind(port: u16, shared: bool) -> io::Result<Self> {
        let (socket, any) = match Self::open(Domain::IPV6, shared) {
            Ok(socket) => {
                socket.set_only_v6(false)?;
                let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
                (socket, any)
            }
            // A kernel without IPv6.
            Err(_) => {
                let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                (Self::open(Domain::IPV4, shared)?, any)
            }
        };
        socket.bind(&any.into())?;
        // Beyond the system's limit where that is permitted.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            socket.set_recv_buffer_size(BUFFER)?;
        }
        socket.set_send_buffer_size(BUFFER)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // A wire that is narrower than others' is no reason for packets not to arrive: they are
        // divided, as the kernel's WireGuard does. What is not there on a kernel without IPv6 fails.
        let _ = set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT);
        let _ = set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DONT);
        Ok(Self { socket, state })
    }

    fn open(domain: Domain, shared: bool) -> io::Result<socket2::Socket> {
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        Ok(socket)
    }

    /// So many datagrams of one size can be sent at once.
    pub(crate) fn at_once(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends datagrams that are all of one size but the last.
    pub(crate) fn send(&self, to: SocketAddr, contents: &[u8], size: usize) -> io::Result<()> {
        if contents.len() > size && self.at_once() == 1 {
            return contents
                .chunks(size)
                .try_for_each(|one| self.send_once(to, one, size));
        }
        match self.send_once(to, contents, size) {
            // A device on the way that cannot, which the library takes note of; or they are too long
            // for it, and have to be divided.
            Err(e) if contents.len() > size && e.kind() != io::ErrorKind::WouldBlock => contents
                .chunks(size)
                .try_for_each(|one| self.send_once(to, one, size)),
            done => done,
        }
    }

    fn send_once(&self, to: SocketAddr, contents: &[u8], size: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: (contents.len() > size).then_some(size),
            src_ip: None,
        };
        let send = || {
            self.state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
        };
        match send() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                wait::until(self.as_fd(), Ready::Write, ROOM)?;
                send()
            }
            done => done,
        }
    }

    /// Receives what there is; nothing if there is nothing.
    pub(crate) fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        about: &mut [RecvMeta],
    ) -> io::Result<usize> {
        let socket = UdpSockRef::from(&self.socket);
        match self.state.recv(socket, buffers, about) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            done => done,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
