//! Sockets at an address: UDP that several may share, TCP that one has.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Bytes that wait in the kernel while the process does something else.
const QUEUE: usize = 1 << 20;
/// Ports that are tried where any will do.
const ANY_PORT: usize = 16;

/// A listener and so many sockets of UDP at one address, and the address with its port. It need not
/// be on any interface yet.
pub(crate) fn both(
    address: SocketAddr,
    sockets: usize,
) -> io::Result<(TcpListener, SocketAddr, Vec<UdpSocket>)> {
    let bind = || -> io::Result<_> {
        // First TCP: it is had by one only, while sockets of UDP are shared by all who say so.
        let listener = tcp(address)?;
        let at = listener.local_addr()?;
        let sockets = (0..sockets).map(|_| udp(at));
        Ok((listener, at, sockets.collect::<io::Result<Vec<_>>>()?))
    };
    let mut bound = bind();
    // Any port that is free for TCP may be taken for UDP.
    for _ in 0..ANY_PORT {
        if address.port() != 0 || bound.is_ok() {
            break;
        }
        bound = bind();
    }
    bound
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    free(&socket, address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket at an address that others of ours may share.
fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    free(&socket, address)?;
    // Less is given where more is not allowed; it works with what there is.
    let _ = socket.set_recv_buffer_size(QUEUE);
    let _ = socket.set_send_buffer_size(QUEUE);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Lets a socket have an address that is not on any interface yet: bridges come and go.
fn free(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)
        }
    }
}
