//! Servers and clients in namespaces: a server says its name and who asked.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::Space;

/// For what must be answered.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what must not be answered.
const SHORT: Duration = Duration::from_millis(400);

/// Serves TCP and UDP on a port until the process ends: `NAME ASKER`, and then, in the same
/// connection, `NAME LINE` for each line.
pub(crate) fn serve(space: &Space, port: u16, name: &str) {
    let (listener, socket) = space.inside(|| {
        let any: SocketAddr = format!("[::]:{port}").parse().unwrap();
        (
            TcpListener::bind(any).unwrap(),
            UdpSocket::bind(any).unwrap(),
        )
    });
    let own = name.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let own = own.clone();
            thread::spawn(move || converse(&stream, &own));
        }
    });
    let own = name.to_owned();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, asker)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{own} {}", plain(asker)).as_bytes(), asker);
        }
    });
}

fn converse(mut stream: &TcpStream, name: &str) -> io::Result<()> {
    writeln!(stream, "{name} {}", plain(stream.peer_addr()?))?;
    for line in BufReader::new(stream).lines() {
        writeln!(stream, "{name} {}", line?)?;
    }
    Ok(())
}

fn plain(asker: SocketAddr) -> IpAddr {
    asker.ip().to_canonical()
}

/// An open connection.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    pub(crate) fn say(&mut self, line: &str) -> io::Result<String> {
        writeln!(self.0.get_mut(), "{line}")?;
        self.line()
    }
}

pub(crate) fn connect(space: &Space, address: IpAddr, port: u16) -> io::Result<Connection> {
    connect_within(space, address, port, PATIENCE)
}

fn connect_within(
    space: &Space,
    address: IpAddr,
    port: u16,
    patience: Duration,
) -> io::Result<Connection> {
    let stream =
        space.inside(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), patience))?;
    stream.set_read_timeout(Some(patience))?;
    Ok(Connection(BufReader::new(stream)))
}

/// What a TCP server says at first.
pub(crate) fn ask(space: &Space, address: IpAddr, port: u16) -> io::Result<String> {
    connect(space, address, port)?.line()
}

/// Whether a TCP connection can be made, in a short time.
pub(crate) fn opens(space: &Space, address: IpAddr, port: u16) -> bool {
    connect_within(space, address, port, SHORT).is_ok()
}

/// A UDP client that stays the same one.
pub(crate) struct Client(UdpSocket);

impl Client {
    pub(crate) fn new(space: &Space, ipv6: bool) -> Self {
        let any: SocketAddr = if ipv6 { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
        let socket = space.inside(|| UdpSocket::bind(any).unwrap());
        Self(socket)
    }

    /// From now on only this one is asked, and refusals are heard.
    pub(crate) fn connect(&self, address: IpAddr, port: u16) {
        self.0.connect((address, port)).unwrap();
    }

    /// How a packet is refused that is sent there; none if nobody says anything.
    pub(crate) fn refusal(&self) -> Option<io::ErrorKind> {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        self.0.send(b"?").unwrap();
        let error = self.0.recv(&mut [0; 100]).err()?;
        (error.kind() != io::ErrorKind::WouldBlock).then(|| error.kind())
    }

    pub(crate) fn ask(&self, address: IpAddr, port: u16) -> io::Result<String> {
        self.0.set_read_timeout(Some(SHORT))?;
        let mut buffer = [0; 100];
        let mut last = Err(io::ErrorKind::TimedOut.into());
        // The first packet may be lost while neighbours are found.
        for _ in 0..3 {
            self.0.send_to(b"?", (address, port))?;
            match self.0.recv(&mut buffer) {
                Ok(size) => return Ok(String::from_utf8_lossy(&buffer[..size]).into_owned()),
                Err(error) => last = Err(error),
            }
        }
        last
    }
}

/// How a ping is refused; none if it is answered, or nobody says anything.
pub(crate) fn ping_refusal(space: &Space, address: IpAddr) -> Option<io::ErrorKind> {
    space.sysctl("net.ipv4.ping_group_range", "0 2147483647");
    let (domain, protocol, request) = match address.is_ipv6() {
        true => (Domain::IPV6, Protocol::ICMPV6, 128),
        false => (Domain::IPV4, Protocol::ICMPV4, 8),
    };
    let socket = space.inside(|| Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap());
    socket.connect(&SocketAddr::new(address, 0).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&[request, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    let error = (&socket).read(&mut [0; 100]).err()?;
    (error.kind() != io::ErrorKind::WouldBlock).then(|| error.kind())
}

/// One question over UDP, from a port of its own.
pub(crate) fn ask_udp(space: &Space, address: IpAddr, port: u16) -> io::Result<String> {
    Client::new(space, address.is_ipv6()).ask(address, port)
}
