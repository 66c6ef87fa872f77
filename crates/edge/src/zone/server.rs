//! The server: what it listens at, and what all its sockets have in common.

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::limit::{Limiter, RateLimit};
use super::metrics::Metrics;
use super::transfer::Given;
use super::zones::Zones;
use super::{notify, tcp, udp};
use crate::dns::forward::Forwarder;
use crate::dns::{Limits, Upstreams};
use crate::listening::{self, Addresses};
use crate::places::Places;

/// Connections by TCP at a time.
const CONNECTIONS: usize = 256;
/// Those of one address.
const OF_ONE: usize = 64;
/// Transfers at a time.
const TRANSFERS: usize = 8;

/// How the server does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Sockets per address, each with a thread: the kernel spreads askers over them.
    pub sockets: usize,
    /// How many answers one network gets.
    pub rate: RateLimit,
    /// Who is asked for what is not here, for those for whom that is allowed
    /// ([`Zones::forward_for`]).
    pub upstreams: Upstreams,
    /// Bounds of that.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            sockets: threads.min(4),
            rate: RateLimit::default(),
            upstreams: Upstreams::default(),
            limits: Limits::default(),
        }
    }
}

/// The server of the zones. It answers until it is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    sockets: usize,
    listening: Addresses<Listening>,
    /// Where it listens, for those who tell secondaries.
    addresses: watch::Sender<BTreeSet<SocketAddr>>,
    notifier: JoinHandle<()>,
}

/// What all sockets have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) zones: watch::Receiver<Arc<Zones>>,
    pub(super) metrics: Metrics,
    pub(super) limiter: Limiter,
    pub(super) connections: Arc<Places>,
    pub(super) transfers: Semaphore,
    pub(super) given: Given,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) forwarded: Arc<crate::dns::Metrics>,
    began: Instant,
}

impl Shared {
    /// Microseconds since it was made.
    pub(super) fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Unix seconds.
pub(super) fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |s| s.as_secs())
}

/// What answers at one address.
#[derive(Debug)]
struct Listening {
    /// The address, with the port that was found if none was asked for.
    at: SocketAddr,
    tcp: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    udp: Vec<(Arc<UdpSocket>, std::thread::JoinHandle<()>)>,
}

impl Listening {
    fn stop(&self) {
        self.tcp.abort();
        self.stop.store(true, Ordering::Relaxed);
        for (socket, _) in &self.udp {
            // It says that nobody is connected, and wakes who waits.
            let _ = socket2::SockRef::from(&**socket).shutdown(Shutdown::Both);
        }
    }
}

impl listening::Listening for Listening {
    fn at(&self) -> SocketAddr {
        self.at
    }

    async fn end(mut self) {
        self.stop();
        let _ = (&mut self.tcp).await;
        let threads = std::mem::take(&mut self.udp);
        let join = move || threads.into_iter().for_each(|(_, t)| drop(t.join()));
        let _ = tokio::task::spawn_blocking(join).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// A server that listens nowhere yet. It must be made inside a runtime of tokio.
    #[must_use]
    pub fn new(settings: Settings, zones: watch::Receiver<Arc<Zones>>) -> Self {
        let shared = Arc::new(Shared {
            zones,
            metrics: Metrics::default(),
            limiter: Limiter::new(settings.rate),
            connections: Places::new(CONNECTIONS, OF_ONE),
            transfers: Semaphore::new(TRANSFERS),
            given: Given::default(),
            forwarder: Forwarder::new(settings.upstreams, settings.limits),
            forwarded: Arc::default(),
            began: Instant::now(),
        });
        let (addresses, watched) = watch::channel(BTreeSet::new());
        Self {
            notifier: tokio::spawn(notify::run(Arc::clone(&shared), watched)),
            shared,
            sockets: settings.sockets.max(1),
            listening: Addresses::default(),
            addresses,
        }
    }

    /// Answers at these addresses, and no longer at others: by UDP and TCP. An address need not be
    /// on any interface yet. Those that fail are returned with the reason; others are not affected,
    /// and calling again tries again.
    ///
    /// Addresses must be real ones, not 0.0.0.0 or ::, or answers may come from another address of
    /// the host than was asked.
    pub async fn listen(&self, addresses: &BTreeSet<SocketAddr>) -> Vec<(SocketAddr, io::Error)> {
        let open = |address| self.open(address);
        let forwarder = &self.shared.forwarder;
        let failed = self.listening.set(addresses, forwarder, open).await;
        self.addresses.send_replace(self.listening.all().await);
        failed
    }

    fn open(&self, address: SocketAddr) -> io::Result<Listening> {
        let (listener, at, sockets) = crate::bind::both(address, self.sockets)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut udp = Vec::new();
        for socket in sockets {
            socket.set_nonblocking(false)?;
            let socket = Arc::new(socket);
            let worker = udp::Worker {
                socket: Arc::clone(&socket),
                shared: Arc::clone(&self.shared),
                stop: Arc::clone(&stop),
                runtime: tokio::runtime::Handle::current(),
            };
            let thread = std::thread::Builder::new().name("dns-zone".to_owned());
            udp.push((socket, thread.spawn(move || worker.run())?));
        }
        let tcp = tokio::spawn(tcp::serve(listener, Arc::clone(&self.shared)));
        Ok(Listening { at, tcp, stop, udp })
    }

    /// The addresses that are answered at.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        self.listening.all().await.into_iter().collect()
    }

    /// What it did.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.notifier.abort();
    }
}
