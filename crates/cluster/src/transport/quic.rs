//! Links over QUIC (iroh): peers are dialled by their public keys, and everything is encrypted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use iroh::endpoint::{
    AfterHandshakeOutcome, Connection, ConnectionError, EndpointHooks, IdleTimeout,
    QuicTransportConfig, Side, VarInt, presets,
};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey};
use tokio::sync::{Mutex, Semaphore, mpsc};

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
/// Round trip that is assumed before it is known: what is lost is sent again three times as late.
const FIRST_GUESS: Duration = Duration::from_millis(60);
/// Bytes in flight on one stream, for images. The library gives a connection up when a stream has more
/// than 1,024 gaps to be filled, as where the receiver's socket overflows: with so many packets of
/// 1,200 bytes at most, of which every other may be lost, there cannot be more.
const WINDOW: u32 = 2 << 20;
/// Calls that may be in their handshakes at a time.
const AT_THE_DOOR: usize = 256;
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
    accepted: Mutex<mpsc::Receiver<Arc<dyn Link>>>,
}

struct Doorkeeper(Gate);

impl std::fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doorkeeper")
    }
}

impl EndpointHooks for Doorkeeper {
    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        let purpose = purpose(connection);
        // Who is asked to let us in is asked because somebody typed a token.
        if purpose == Purpose::Join && connection.side() == Side::Client {
            return AfterHandshakeOutcome::accept();
        }
        match (self.0)(NodeId(*connection.remote_id().as_bytes()), purpose) {
            Ok(()) => AfterHandshakeOutcome::accept(),
            Err(why) => AfterHandshakeOutcome::Reject {
                error_code: VarInt::from_u32(why.code()),
                reason: why.to_string().into_bytes(),
            },
        }
    }
}

fn purpose(connection: &Connection) -> Purpose {
    if connection.alpn() == JOIN {
        Purpose::Join
    } else {
        Purpose::Member
    }
}

impl QuicTransport {
    /// Listens with a secret key.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(key: [u8; 32], listen: &Listen, gate: Gate) -> Result<Self, BindError> {
        let address = listen.address;
        let failed = |reason: String| BindError::Failed { address, reason };
        let idle = IdleTimeout::try_from(listen.silence).map_err(|e| failed(e.to_string()))?;
        let alive = listen.silence / 3;
        let config = QuicTransportConfig::builder()
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(alive)
            .default_path_max_idle_timeout(listen.silence)
            .default_path_keep_alive_interval(alive)
            .initial_rtt(FIRST_GUESS)
            .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(WINDOW))
            .receive_window(VarInt::from_u32(16 * WINDOW))
            .send_window(u64::from(8 * WINDOW))
            .build();
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&key))
            .alpns(vec![MEMBER.to_vec(), JOIN.to_vec()])
            .relay_mode(RelayMode::Disabled)
            .transport_config(config)
            .hooks(Doorkeeper(gate))
            .clear_ip_transports();
        let bad = |e: &dyn std::fmt::Display| failed(e.to_string());
        builder = builder.bind_addr(address).map_err(|e| bad(&e))?;
        if address.ip() == Ipv4Addr::UNSPECIFIED {
            let any: SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, address.port()).into();
            let options = iroh::endpoint::BindOpts::default().set_is_required(false);
            builder = builder
                .bind_addr_with_opts(any, options)
                .map_err(|e| bad(&e))?;
        }
        if listen.discover {
            let lookup = iroh_mdns_address_lookup::MdnsAddressLookup::builder();
            builder = builder.address_lookup(lookup.service_name("wharfie"));
        }
        // The library says only that it failed: who is asked first knows why.
        std::net::UdpSocket::bind(address).map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => failed(e.to_string()),
        })?;
        let endpoint = builder.bind().await.map_err(|e| failed(format!("{e:#}")))?;
        let (incoming, accepted) = mpsc::channel(64);
        tokio::spawn(welcome(endpoint.clone(), incoming));
        Ok(Self {
            endpoint,
            accepted: Mutex::new(accepted),
        })
    }
}

/// Takes calls until the endpoint is closed. One that does not come to its end keeps nobody waiting.
async fn welcome(endpoint: Endpoint, incoming: mpsc::Sender<Arc<dyn Link>>) {
    let at_the_door = Arc::new(Semaphore::new(AT_THE_DOOR));
    while let Some(call) = endpoint.accept().await {
        let Ok(place) = Arc::clone(&at_the_door).try_acquire_owned() else {
            call.refuse();
            continue;
        };
        // In a crowd only those are listened to who are where they say: a forged address costs its
        // sender nothing, and would keep others out (RFC 9000, 8.1).
        if at_the_door.available_permits() < AT_THE_DOOR - UNASKED && !call.remote_addr_validated()
        {
            // One that is asked already is asked once.
            let _ = call.retry();
            continue;
        }
        let Ok(accepting) = call.accept() else {
            continue;
        };
        let incoming = incoming.clone();
        tokio::spawn(async move {
            if let Ok(Ok(connection)) = tokio::time::timeout(HANDSHAKE, accepting).await {
                let purpose = purpose(&connection);
                if purpose == Purpose::Join {
                    connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
                    connection.set_receive_window(VarInt::from_u32(STRANGERS_WINDOW));
                }
                let link = QuicLink {
                    connection,
                    purpose,
                };
                let _ = incoming.send(Arc::new(link)).await;
            }
            drop(place);
        });
    }
}

impl Transport for QuicTransport {
    fn id(&self) -> NodeId {
        NodeId(*self.endpoint.id().as_bytes())
    }

    fn connect(
        &self,
        peer: NodeId,
        addresses: Vec<SocketAddr>,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Unreachable>> {
        Box::pin(async move {
            let silent = |why: &str| Unreachable::Silent(why.to_owned());
            let id = EndpointId::from_bytes(&peer.0).map_err(|_| silent("its id is no key"))?;
            let address = addresses
                .into_iter()
                .fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr);
            let alpn = match purpose {
                Purpose::Member => MEMBER,
                Purpose::Join => JOIN,
            };
            let call = self.endpoint.connect(address, alpn);
            let connection = match tokio::time::timeout(HANDSHAKE, call).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(e)) => return Err(silent(&format!("{e:#}"))),
                Err(_) => return Err(silent("no answer")),
            };
            let link = QuicLink {
                connection,
                purpose,
            };
            // Whether the peer lets this node in shows just after the handshake: it closes the
            // connection, or it speaks.
            Ok(Arc::new(link) as Arc<dyn Link>)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Link>>> {
        Box::pin(async { self.accepted.lock().await.recv().await })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let address = self.endpoint.addr();
        let own = address.ip_addrs().copied();
        own.filter(|a| !a.ip().is_loopback() && !a.ip().is_unspecified())
            .collect()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.endpoint.close())
    }
}

struct QuicLink {
    connection: Connection,
    purpose: Purpose,
}

fn ended(error: &ConnectionError) -> Ended {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            // The library's own close at the end of a process has the code 0.
            let why = if code == 0 {
                Some(Why::Leaving)
            } else {
                Why::from_code(code)
            };
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
        NodeId(*self.connection.remote_id().as_bytes())
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn outgoing(&self) -> bool {
        self.connection.side() == Side::Client
    }

    fn address(&self) -> Option<SocketAddr> {
        let paths = self.connection.paths();
        let selected = paths.iter().find(|p| p.is_selected());
        selected.and_then(|p| match p.remote_addr() {
            iroh::TransportAddr::Ip(address) => Some(*address),
            _ => None,
        })
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let (send, receive) = self.connection.open_bi().await.map_err(|e| ended(&e))?;
            Ok(Box::new(tokio::io::join(receive, send)) as Stream)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let (send, receive) = self.connection.accept_bi().await.map_err(|e| ended(&e))?;
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
        let code = VarInt::from_u32(why.code());
        self.connection.close(code, why.to_string().as_bytes());
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async { ended(&self.connection.closed().await) })
    }

    fn has_ended(&self) -> Option<Ended> {
        self.connection.close_reason().map(|e| ended(&e))
    }
}
