//! Links over QUIC (RFC 9000, quinn): peers are known by their public keys, and everything is encrypted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming,
    RecvStream, SendStream, ServerConfig, Side, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::keys::{Keys, node_of};
use super::nearby::Nearby;
use super::{
    BoxFuture, Ended, Gate, LARGEST_DATAGRAM, Link, Purpose, Stream, Transport, Unreachable, Why,
};
use crate::id::NodeId;

/// What members speak (TLS ALPN, RFC 7301). Another number is another protocol.
const MEMBER: &[u8] = b"wharfie/1";
/// What a stranger speaks who asks to be let in.
const JOIN: &[u8] = b"wharfie-join/1";

/// How long a peer may take to answer a call before the call is made anew, so that a peer that
/// comes back is found soon.
const HANDSHAKE: Duration = Duration::from_millis(1_500);
/// A peer with several addresses is called at the next one if the one before does not answer so soon
/// (RFC 8305, section 5, where it is 250 ms for the whole internet).
const NEXT_ADDRESS: Duration = Duration::from_millis(50);
/// How long a member whose call was answered may take to use the link.
const FIRST_USE: Duration = Duration::from_secs(10);
/// How often this host's addresses are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long peers may take to hear that this node leaves.
const FAREWELL: Duration = Duration::from_millis(500);
/// Round trip that is assumed before it is known: what is lost is sent again three times as late.
const FIRST_GUESS: Duration = Duration::from_millis(60);
/// Bytes in flight on one stream, for images. The library gives a connection up when a stream has more
/// than 1,024 gaps to be filled, as where the receiver's socket overflows: with so many packets of
/// 1,200 bytes at most, of which every other may be lost, there cannot be more.
const WINDOW: u32 = 2 << 20;
/// Calls that may be in their handshakes at a time.
const AT_THE_DOOR: usize = 256;
/// Calls of one address among them (for IPv6 of one /64): who begins calls and never ends them shuts the door
/// for nobody else.
const OF_ONE: usize = 64;
/// Calls among them that need not prove first that they come from where they say.
const UNASKED: usize = 64;
/// Bytes in flight from a stranger.
const STRANGERS_WINDOW: u32 = 1 << 20;
/// Streams that a peer may have open at a time.
const STREAMS: u32 = 4_096;

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken.
    #[error("{0} is in use")]
    InUse(SocketAddr),
    /// Something else.
    #[error("cannot listen at {address}: {reason}")]
    Failed {
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where, UDP. With an unspecified IPv4 address also on all IPv6 addresses, if there are any.
    pub address: SocketAddr,
    /// A peer of which nothing is heard for so long is lost.
    pub silence: Duration,
    /// Whether nodes on the same LAN are looked for by multicast (mDNS).
    pub discover: bool,
}

/// The transport over QUIC.
pub struct QuicTransport {
    endpoint: Endpoint,
    at: SocketAddr,
    keys: Keys,
    config: Arc<TransportConfig>,
    gate: Gate,
    /// Addresses that it listens at, as last looked.
    own: Arc<RwLock<Vec<IpAddr>>>,
    nearby: Option<Nearby>,
    accepted: Mutex<mpsc::Receiver<Arc<dyn Link>>>,
}

/// How peers speak to each other.
fn transport_config(silence: Duration) -> Result<TransportConfig, quinn::VarIntBoundsExceeded> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::try_from(silence)?))
        .keep_alive_interval(Some(silence / 3))
        .initial_rtt(FIRST_GUESS)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(16 * WINDOW))
        .send_window(u64::from(8 * WINDOW));
    Ok(config)
}

/// A socket at an address; at an unspecified one of IPv4 for both families, where there is IPv6.
fn socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let any = address.ip() == Ipv4Addr::UNSPECIFIED;
    if any && let Ok(socket) = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)) {
        socket.set_only_v6(false)?;
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
        match socket.bind(&both.into()) {
            // A kernel that has IPv6, and was told not to use it.
            Err(e) if e.kind() == std::io::ErrorKind::AddrNotAvailable => {}
            bound => return bound.map(|()| socket.into()),
        }
    }
    UdpSocket::bind(address)
}

impl QuicTransport {
    /// Listens with a secret key.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(key: [u8; 32], listen: &Listen, gate: Gate) -> Result<Self, BindError> {
        let address = listen.address;
        let bad = |e: &dyn std::fmt::Display| BindError::Failed {
            address,
            reason: e.to_string(),
        };
        let keys = Keys::new(key).map_err(|e| bad(&e))?;
        let config = Arc::new(transport_config(listen.silence).map_err(|e| bad(&e))?);
        let server = keys.server(&[MEMBER, JOIN]).map_err(|e| bad(&e))?;
        let server = QuicServerConfig::try_from(server).map_err(|e| bad(&e))?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(Arc::clone(&config));
        let socket = socket(address).map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => bad(&e),
        })?;
        let at = socket.local_addr().map_err(|e| bad(&e))?;
        let of = EndpointConfig::default();
        let endpoint = Endpoint::new(of, Some(server), socket, Arc::new(TokioRuntime));
        let endpoint = endpoint.map_err(|e| bad(&e))?;
        let nearby = listen.discover.then(|| Nearby::begin(keys.node));
        let nearby = nearby.and_then(|begun| match begun {
            Ok(nearby) => Some(nearby),
            Err(e) => {
                tracing::warn!("nodes of this LAN cannot be looked for: {e}");
                None
            }
        });
        let any = at.ip().is_unspecified();
        let own = if any { own_addresses() } else { vec![at.ip()] };
        let own = Arc::new(RwLock::new(own));
        if any {
            tokio::spawn(look(Arc::downgrade(&own)));
        }
        let (incoming, accepted) = mpsc::channel(64);
        tokio::spawn(welcome(endpoint.clone(), Arc::clone(&gate), incoming));
        Ok(Self {
            endpoint,
            at,
            keys,
            config,
            gate,
            own,
            nearby,
            accepted: Mutex::new(accepted),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.at
    }

    /// Calls a peer at all its addresses, one a little after the other; the first that answers is it.
    async fn call(
        &self,
        config: ClientConfig,
        addresses: Vec<SocketAddr>,
    ) -> Result<Connection, String> {
        let mut calls = FuturesUnordered::new();
        let mut left = addresses.into_iter();
        let mut why = "no address is known".to_owned();
        loop {
            if let Some(address) = left.next() {
                // The name is not looked at: there is no certificate.
                match self
                    .endpoint
                    .connect_with(config.clone(), address, "wharfie")
                {
                    Ok(connecting) => calls.push(connecting),
                    Err(e) => {
                        why = format!("{address}: {e}");
                        continue;
                    }
                }
            }
            let more = left.len() > 0;
            tokio::select! {
                answer = calls.next() => match answer {
                    Some(Ok(connection)) => {
                        hang_up(calls);
                        return Ok(connection);
                    }
                    Some(Err(e)) => why = e.to_string(),
                    None if more => {}
                    None => return Err(why),
                },
                () = tokio::time::sleep(NEXT_ADDRESS), if more => {}
            }
        }
    }
}

/// Who answers later than another is told that it is not needed: it would take the silence for the end of
/// this node.
fn hang_up(mut calls: FuturesUnordered<quinn::Connecting>) {
    if calls.is_empty() {
        return;
    }
    tokio::spawn(tokio::time::timeout(HANDSHAKE, async move {
        while let Some(answer) = calls.next().await {
            if let Ok(connection) = answer {
                close(&connection, Why::Spare);
            }
        }
    }));
}

fn close(connection: &Connection, why: Why) {
    let code = VarInt::from_u32(why.code());
    connection.close(code, why.to_string().as_bytes());
}

/// Who is at the other end.
fn peer(connection: &Connection) -> Option<NodeId> {
    let shown = connection.peer_identity()?;
    let shown = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    node_of(shown.first()?)
}

/// What the link is for.
fn purpose(connection: &Connection) -> Option<Purpose> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>();
    match data.ok()?.protocol.as_deref()? {
        JOIN => Some(Purpose::Join),
        MEMBER => Some(Purpose::Member),
        _ => None,
    }
}

/// Takes calls until the endpoint is closed. One that does not come to its end keeps nobody waiting.
async fn welcome(endpoint: Endpoint, gate: Gate, incoming: mpsc::Sender<Arc<dyn Link>>) {
    let at_the_door = Arc::new(Semaphore::new(AT_THE_DOOR));
    let callers = Arc::<Callers>::default();
    while let Some(call) = endpoint.accept().await {
        let Ok(place) = Arc::clone(&at_the_door).try_acquire_owned() else {
            call.refuse();
            continue;
        };
        // In a crowd only those are listened to who are where they say: a forged address costs its
        // sender nothing, and would keep others out (RFC 9000, 8.1).
        let crowd = at_the_door.available_permits() < AT_THE_DOOR - UNASKED;
        if crowd && !call.remote_address_validated() {
            // One that is asked already is asked once.
            let _ = call.retry();
            continue;
        }
        let Some(caller) = Callers::note(&callers, call.remote_address().ip()) else {
            call.refuse();
            continue;
        };
        let (gate, incoming) = (Arc::clone(&gate), incoming.clone());
        tokio::spawn(async move {
            let answered = tokio::time::timeout(HANDSHAKE, answer(call, &gate)).await;
            drop((place, caller));
            if let Ok(Some(link)) = answered
                && link.is_meant().await
            {
                let _ = incoming.send(Arc::new(link)).await;
            }
        });
    }
}

/// Lets in who may come in.
async fn answer(call: Incoming, gate: &Gate) -> Option<QuicLink> {
    let connection = call.accept().ok()?.await.ok()?;
    let (peer, purpose) = (peer(&connection)?, purpose(&connection)?);
    if let Err(why) = gate(peer, purpose) {
        close(&connection, why);
        return None;
    }
    if purpose == Purpose::Join {
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
        connection.set_receive_window(VarInt::from_u32(STRANGERS_WINDOW));
    }
    Some(QuicLink {
        connection,
        peer,
        purpose,
        first: Mutex::default(),
    })
}

/// How many calls of each address are in their handshakes.
#[derive(Default)]
struct Callers(std::sync::Mutex<HashMap<IpAddr, usize>>);

/// One of them.
struct Caller(Arc<Callers>, IpAddr);

impl Callers {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; none if there are too many of this one.
    fn note(all: &Arc<Self>, ip: IpAddr) -> Option<Caller> {
        let who = match ip.to_canonical() {
            // One host may have all addresses of such a network.
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            v4 => v4,
        };
        let mut known = all.lock();
        let count = known.entry(who).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Caller(Arc::clone(all), who))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut known = self.0.lock();
        if let Some(count) = known.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                known.remove(&self.1);
            }
        }
    }
}

/// Keeps the addresses of this host, until nobody has them any more. The kernel may have whoever asks wait, for
/// as long as devices are made.
async fn look(own: Weak<RwLock<Vec<IpAddr>>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(own) = own.upgrade() else {
            return;
        };
        if let Ok(seen) = tokio::task::spawn_blocking(own_addresses).await {
            *own.write().unwrap_or_else(PoisonError::into_inner) = seen;
        }
    }
}

/// The addresses of this host that others may see. The kernel may have whoever asks wait.
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    let found = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let found = found.filter_map(|one| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    let mut found: Vec<IpAddr> = found.filter(|a| !a.is_loopback()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The address that this host sends from to another one.
fn source(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = match to.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Nothing is sent by that.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

impl Transport for QuicTransport {
    fn id(&self) -> NodeId {
        self.keys.node
    }

    fn connect(
        &self,
        peer: NodeId,
        mut addresses: Vec<SocketAddr>,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Unreachable>> {
        Box::pin(async move {
            let silent = |why: &dyn std::fmt::Display| Unreachable::Silent(why.to_string());
            // Who is asked to let us in is asked because somebody typed a token.
            if purpose == Purpose::Member {
                (self.gate)(peer, purpose).map_err(|why| silent(&why))?;
            }
            let protocol = match purpose {
                Purpose::Member => MEMBER,
                Purpose::Join => JOIN,
            };
            if let Some(nearby) = &self.nearby {
                let said = nearby.addresses(peer);
                addresses.extend(
                    said.into_iter()
                        .filter(|a| !addresses.contains(a))
                        .collect::<Vec<_>>(),
                );
            }
            let config = self.keys.client(peer, protocol).map_err(|e| silent(&e))?;
            let config = QuicClientConfig::try_from(config).map_err(|e| silent(&e))?;
            let mut config = ClientConfig::new(Arc::new(config));
            config.transport_config(Arc::clone(&self.config));
            let call = self.call(config, addresses);
            let connection = match tokio::time::timeout(HANDSHAKE, call).await {
                Ok(answer) => answer.map_err(|why| silent(&why))?,
                Err(_) => return Err(silent(&"no answer")),
            };
            // Whether the peer lets this node in shows just after the handshake: it closes the
            // connection, or it speaks.
            Ok(Arc::new(QuicLink {
                connection,
                peer,
                purpose,
                first: Mutex::default(),
            }) as Arc<dyn Link>)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Link>>> {
        Box::pin(async { self.accepted.lock().await.recv().await })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        let own = own.iter().filter(|ip| !ip.is_loopback());
        own.map(|ip| SocketAddr::new(*ip, self.at.port())).collect()
    }

    fn say(&self, addresses: &[SocketAddr]) {
        if let Some(nearby) = &self.nearby {
            nearby.say(addresses);
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let why = Why::Leaving;
            let code = VarInt::from_u32(why.code());
            self.endpoint.close(code, why.to_string().as_bytes());
            let _ = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
            // A connection keeps its socket until it is drained, three times its probe timeout (RFC 9000,
            // 10.2), which is many seconds where a busy machine answered late; who listens here next
            // need not wait for that. Twice: the endpoint keeps the last socket but one.
            for _ in 0..2 {
                let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
                if let Err(e) = elsewhere.and_then(|socket| self.endpoint.rebind(socket)) {
                    tracing::debug!("the address is not free yet: {e}");
                }
            }
        })
    }
}

struct QuicLink {
    connection: Connection,
    peer: NodeId,
    purpose: Purpose,
    /// The stream by which the peer has shown that it means this link.
    first: Mutex<Option<(SendStream, RecvStream)>>,
}

impl QuicLink {
    /// Waits until a member that called uses the link. One that called at several addresses keeps one link
    /// and closes the others: they must not take the place of that one.
    async fn is_meant(&self) -> bool {
        if self.purpose == Purpose::Join {
            return true;
        }
        match tokio::time::timeout(FIRST_USE, self.connection.accept_bi()).await {
            Ok(Ok(stream)) => {
                *self.first.lock().await = Some(stream);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

fn ended(error: &ConnectionError) -> Ended {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let why = Why::from_code(close.error_code.into_inner());
            why.map_or(Ended::Lost, Ended::ByPeer)
        }
        ConnectionError::LocallyClosed => Ended::Here,
        other => {
            tracing::debug!("a connection was lost: {other}");
            Ended::Lost
        }
    }
}

impl Link for QuicLink {
    fn peer(&self) -> NodeId {
        self.peer
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn outgoing(&self) -> bool {
        self.connection.side() == Side::Client
    }

    fn address(&self) -> Option<SocketAddr> {
        let at = self.connection.remote_address();
        Some(SocketAddr::new(at.ip().to_canonical(), at.port()))
    }

    fn local(&self) -> Option<IpAddr> {
        // A call shows where it came to; for one that was made here the kernel chose.
        let shown = self.connection.local_ip().map(|ip| ip.to_canonical());
        shown.or_else(|| source(self.address()?).ok())
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let (send, receive) = self.connection.open_bi().await.map_err(|e| ended(&e))?;
            Ok(Box::new(tokio::io::join(receive, send)) as Stream)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let first = self.first.lock().await.take();
            let (send, receive) = match first {
                Some(first) => first,
                None => self.connection.accept_bi().await.map_err(|e| ended(&e))?,
            };
            Ok(Box::new(tokio::io::join(receive, send)) as Stream)
        })
    }

    fn send(&self, datagram: Bytes) {
        if datagram.len() <= LARGEST_DATAGRAM {
            // One that is lost is as good as one that was not sent.
            let _ = self.connection.send_datagram(datagram);
        }
    }

    fn receive(&self) -> BoxFuture<'_, Result<Bytes, Ended>> {
        Box::pin(async {
            let read = self.connection.read_datagram().await;
            read.map_err(|e| ended(&e))
        })
    }

    fn close(&self, why: Why) {
        close(&self.connection, why);
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async { ended(&self.connection.closed().await) })
    }

    fn has_ended(&self) -> Option<Ended> {
        self.connection.close_reason().map(|e| ended(&e))
    }
}
