//! The tunnel at work: its threads, and what they share.
//!
//! Half as many threads as the machine has processors send, as many receive. The kernel gives each
//! flow to one of the first and each peer to one of the second, so that nothing overtakes: no packet
//! goes from thread to thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use boringtun::noise::TunnResult;
use rustix::io::Errno;

use crate::batch::deliver;
use crate::table::{Link, Table};
use crate::tap::{self, Queue};
use crate::uapi::{Set, State};
use crate::udp::{self, Socket};
use crate::{inbound, outbound};

/// How soon threads notice that something changed that is no packet.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// More threads than this gain nothing: they would wait for each other.
const MOST: usize = 8;

/// What the threads share.
pub(crate) struct Device {
    pub(crate) vxlan: Option<u16>,
    workers: usize,
    table: RwLock<Table>,
    sockets: Mutex<Option<Arc<Vec<Socket>>>>,
    bound: Condvar,
    over: AtomicBool,
}

/// A device whose threads are at work until it is dropped.
pub(crate) struct Running {
    pub(crate) device: Arc<Device>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Makes a device.
    pub(crate) fn start(name: &str, vxlan: Option<u16>) -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = (processors / 2).clamp(1, MOST);
        let queues = tap::open(name, workers)?;
        let device = Arc::new(Device {
            vxlan,
            workers,
            table: RwLock::new(Table::new()),
            sockets: Mutex::new(None),
            bound: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        for (number, queue) in queues.into_iter().enumerate() {
            let queue = Arc::new(queue);
            for (kind, work) in [
                ("out", outbound::run as fn(&Device, &Queue, usize) -> _),
                ("in", inbound::run),
            ] {
                let (device, queue) = (Arc::clone(&device), Arc::clone(&queue));
                let thread = std::thread::Builder::new().name(format!("{kind}{number}"));
                threads.push(thread.spawn(move || {
                    // One that ends takes the others with it: half a tunnel would be worse.
                    if let Err(e) = work(&device, &queue, number) {
                        tracing::error!("the tunnel ends: {e}");
                    }
                    device.end();
                })?);
            }
        }
        let clock = Arc::clone(&device);
        let thread = std::thread::Builder::new().name("clock".to_owned());
        threads.push(thread.spawn(move || clock.tick())?);
        Ok(Self { device, threads })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.device.end();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Device {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.bound.notify_all();
    }

    pub(crate) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sockets(&self) -> Option<Arc<Vec<Socket>>> {
        let sockets = self.sockets.lock();
        sockets.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, or soon.
    pub(crate) fn sockets_at_last(&self) -> Option<Arc<Vec<Socket>>> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.is_some() {
            return sockets.clone();
        }
        let waited = self.bound.wait_timeout(sockets, TICK);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits for a moment, or less.
    fn pause(&self) {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.bound.wait_timeout(sockets, TICK));
    }

    /// Changes what is to change.
    pub(crate) fn set(&self, set: &Set) -> Result<(), Errno> {
        if let Some(port) = set.listen_port {
            self.bind(port).map_err(|e| {
                let errno = Errno::from_io_error(&e);
                errno.unwrap_or(Errno::ADDRINUSE)
            })?;
        }
        let begin = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.set(set)
        };
        if self.sockets().is_none() {
            self.bind(0).map_err(|_| Errno::ADDRINUSE)?;
        }
        for link in begin {
            let mut room = [0; 256];
            let first = link.tunn().format_handshake_initiation(&mut room, false);
            self.answer(&link, first);
        }
        Ok(())
    }

    fn bind(&self, port: u16) -> io::Result<()> {
        if self.sockets().is_some() && port != 0 && self.table().port == port {
            return Ok(());
        }
        let (sockets, port) = udp::bind(port, self.workers)?;
        let mut open = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        *open = Some(Arc::new(sockets));
        drop(open);
        self.bound.notify_all();
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.port = port;
        Ok(())
    }

    pub(crate) fn state(&self) -> State {
        self.table().state()
    }

    fn answer(&self, link: &Link, result: TunnResult<'_>) {
        if let TunnResult::WriteToNetwork(packet) = result
            && let (Some(to), Some(sockets)) = (link.peer.endpoint(), self.sockets())
        {
            deliver(&sockets[0], to, packet, packet.len());
        }
    }

    /// What is due without a packet: handshakes, signs of life, forgetting.
    fn tick(&self) {
        let mut room = vec![0; 256];
        while !self.is_over() {
            self.pause();
            let has_retired = {
                let table = self.table();
                if let Some(identity) = &table.identity {
                    identity.limiter.reset_count();
                }
                for link in table.links() {
                    let due = link.tunn().update_timers(&mut room);
                    self.answer(link, due);
                }
                table.has_retired()
            };
            if has_retired {
                let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
                table.expire();
            }
        }
    }
}
