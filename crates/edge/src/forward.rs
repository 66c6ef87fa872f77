//! Ports of this host that lead to tasks, by way of a connection of our own.
//!
//! It is how programs on the host itself reach published ports by `localhost`, which cannot leave the
//! host by replacing addresses; and the only way where the kernel does not replace them. Whoever holds a
//! port here keeps other programs from taking it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::debug;

/// So long a task is waited for before the next is tried.
const PATIENCE: Duration = Duration::from_secs(3);
/// A conversation by UDP is forgotten after so long without a packet.
const IDLE: Duration = Duration::from_secs(60);
/// Conversations by UDP at a time, for each port.
const CONVERSATIONS: usize = 1_024;
/// Connections at a time, for each port.
const CONNECTIONS: usize = 4_096;
/// The pause after a connection could not be taken, as when there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest packet (RFC 768: its length has 16 bits).
const LONGEST: usize = 65_535;

/// A port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// UDP, else TCP.
    pub udp: bool,
    /// Number.
    pub number: u16,
}

/// The ports of a host that lead somewhere.
#[derive(Default)]
pub struct Forwards {
    open: BTreeMap<Port, Forward>,
}

struct Forward {
    targets: watch::Sender<Arc<[SocketAddr]>>,
    listener: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Forwards {
    /// Makes these the ports that lead somewhere, and says of which it cannot be: somebody else has them, as
    /// a rule. Connections that are there go on; those to ports without targets are closed.
    pub fn set(&mut self, wanted: &BTreeMap<Port, Vec<SocketAddr>>) -> BTreeMap<Port, io::Error> {
        self.open.retain(|port, _| wanted.contains_key(port));
        let mut failed = BTreeMap::new();
        for (port, targets) in wanted {
            if let Some(open) = self.open.get(port) {
                open.targets.send_if_modified(|known| {
                    let changed = **known != **targets;
                    if changed {
                        *known = targets.as_slice().into();
                    }
                    changed
                });
                continue;
            }
            match Forward::open(*port, targets) {
                Ok(forward) => drop(self.open.insert(*port, forward)),
                Err(error) => drop(failed.insert(*port, error)),
            }
        }
        failed
    }
}

impl Forward {
    fn open(port: Port, targets: &[SocketAddr]) -> io::Result<Self> {
        let (targets, known) = watch::channel(Arc::from(targets));
        let socket = bind(port)?;
        let listener = if port.udp {
            let socket = UdpSocket::from_std(socket.into())?;
            tokio::spawn(talk(Arc::new(socket), known))
        } else {
            let listener = TcpListener::from_std(socket.into())?;
            tokio::spawn(listen(listener, known))
        };
        Ok(Self { targets, listener })
    }
}

/// All addresses of both families; of IPv4 alone where there is no other.
fn bind(port: Port) -> io::Result<Socket> {
    let kind = if port.udp { Type::DGRAM } else { Type::STREAM };
    let bound = |domain: Domain, address: SocketAddr| -> io::Result<Socket> {
        let socket = Socket::new(domain, kind.nonblocking().cloexec(), None)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        if !port.udp {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        if !port.udp {
            socket.listen(1_024)?;
        }
        Ok(socket)
    };
    let v6 = bound(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port.number).into());
    v6.or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
        _ => bound(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port.number).into()),
    })
}

async fn listen(listener: TcpListener, targets: watch::Receiver<Arc<[SocketAddr]>>) {
    let turn = Arc::new(AtomicUsize::new(0));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                debug!("{error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (turn, targets) = (Arc::clone(&turn), Arc::clone(&targets.borrow()));
        tokio::spawn(async move {
            join(client, &targets, &turn).await;
            drop(place);
        });
    }
}

/// Joins a client with the first target that answers, beginning with the next in turn.
async fn join(mut client: TcpStream, targets: &[SocketAddr], turn: &AtomicUsize) {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    for n in 0..targets.len() {
        let target = targets[(first.wrapping_add(n)) % targets.len()];
        let Ok(Ok(mut task)) = tokio::time::timeout(PATIENCE, TcpStream::connect(target)).await
        else {
            continue;
        };
        // What comes in small pieces is to go on in small pieces.
        let (_, _) = (client.set_nodelay(true), task.set_nodelay(true));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut task).await {
            debug!(%target, "{error}");
        }
        return;
    }
}

/// Has packets answered: each client talks to one target from a socket of its own.
async fn talk(socket: Arc<UdpSocket>, targets: watch::Receiver<Arc<[SocketAddr]>>) {
    let mut talks: HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)> = HashMap::new();
    let mut packet = vec![0; LONGEST];
    let mut turn = 0_usize;
    loop {
        let (length, client) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            // An answer to one of ours that nobody took (RFC 1122 section 4.1.3.3).
            Err(error) => {
                debug!("{error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let alive = |talk: &(Arc<UdpSocket>, JoinHandle<()>)| !talk.1.is_finished();
        if !talks.get(&client).is_some_and(alive) {
            if talks.len() >= CONVERSATIONS {
                talks.retain(|_, talk| alive(talk));
            }
            let known = Arc::clone(&targets.borrow());
            if known.is_empty() || talks.len() >= CONVERSATIONS {
                continue;
            }
            let target = known[turn % known.len()];
            turn = turn.wrapping_add(1);
            let Ok(own) = meet(target).await else {
                continue;
            };
            let own = Arc::new(own);
            let answers = tokio::spawn(answer(Arc::clone(&own), Arc::clone(&socket), client));
            talks.insert(client, (own, answers));
        }
        if let Some((own, _)) = talks.get(&client) {
            // Lost, as packets are.
            let _ = own.send(&packet[..length]).await;
        }
    }
}

async fn meet(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Brings a target's answers to a client until there are none for a while.
async fn answer(own: Arc<UdpSocket>, socket: Arc<UdpSocket>, client: SocketAddr) {
    let mut packet = vec![0; LONGEST];
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, own.recv(&mut packet)).await {
        if socket.send_to(&packet[..length], client).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server that says its name to whoever comes; its address.
    async fn serve(name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                client.write_all(name.as_bytes()).await.unwrap();
            }
        });
        address
    }

    async fn free(udp: bool) -> Port {
        let port = if udp {
            UdpSocket::bind("[::]:0").await.unwrap().local_addr()
        } else {
            TcpListener::bind("[::]:0").await.unwrap().local_addr()
        };
        let number = port.unwrap().port();
        Port { udp, number }
    }

    async fn ask(port: Port) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port.number))
            .await
            .unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn clients_are_led_to_targets_in_turn_past_those_that_are_gone() {
        let (one, two) = (serve("one").await, serve("two").await);
        let gone = SocketAddr::from(([127, 0, 0, 1], free(false).await.number));
        let port = free(false).await;
        let mut forwards = Forwards::default();
        let failed = forwards.set(&BTreeMap::from([(port, vec![one, gone, two])]));
        assert!(failed.is_empty(), "{failed:?}");
        let mut said = Vec::new();
        for _ in 0..6 {
            said.push(ask(port).await);
        }
        assert!(said.contains(&"one".to_owned()) && said.contains(&"two".to_owned()));
        forwards.set(&BTreeMap::from([(port, vec![two])]));
        assert_eq!(ask(port).await, "two");
        forwards.set(&BTreeMap::from([(port, Vec::new())]));
        assert_eq!(ask(port).await, "", "closed at once");
    }

    #[tokio::test]
    async fn a_port_of_somebody_else_is_said() {
        let other = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let number = other.local_addr().unwrap().port();
        let port = Port { udp: false, number };
        let mut forwards = Forwards::default();
        let wanted = BTreeMap::from([(port, Vec::new())]);
        let failed = forwards.set(&wanted);
        assert_eq!(failed[&port].kind(), io::ErrorKind::AddrInUse);
        drop(other);
        assert!(forwards.set(&wanted).is_empty());
    }

    #[tokio::test]
    async fn packets_are_answered() {
        let echo = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = echo.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 100];
            while let Ok((length, from)) = echo.recv_from(&mut packet).await {
                echo.send_to(&packet[..length], from).await.unwrap();
            }
        });
        let port = free(true).await;
        let mut forwards = Forwards::default();
        assert!(
            forwards
                .set(&BTreeMap::from([(port, vec![target])]))
                .is_empty()
        );
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(("127.0.0.1", port.number)).await.unwrap();
        for word in ["one", "two"] {
            client.send(word.as_bytes()).await.unwrap();
            let mut packet = [0; 100];
            let length = client.recv(&mut packet).await.unwrap();
            assert_eq!(&packet[..length], word.as_bytes());
        }
    }
}
