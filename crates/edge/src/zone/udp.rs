//! Questions by UDP: a thread per socket reads as many as there are, answers all, and sends all.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use tokio::runtime::Handle;

use super::answer::{Desk, Outcome, Way};
use super::forward;
use super::metrics::Metrics;
use super::server::{Shared, unix_time};
use super::zones::Zones;
use crate::dns::wire::MOST_UDP;

/// Packets that are read at a time.
const BATCH: usize = 64;
/// No question is larger.
const LARGEST: usize = 2048;

/// A thread at a socket.
pub(super) struct Worker {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) runtime: Handle,
}

impl Worker {
    /// Answers until it is to stop.
    pub(super) fn run(self) {
        let mut names = self.shared.zones.clone();
        let mut zones: Arc<Zones> = Arc::clone(&names.borrow_and_update());
        let mut spin: u32 = rand::random();
        let mut packets = vec![0; BATCH * LARGEST];
        let mut answers: Vec<Vec<u8>> = (0..BATCH).map(|_| Vec::with_capacity(MOST_UDP)).collect();
        let mut incoming = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut outgoing = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut got: Vec<(usize, SockaddrStorage)> = Vec::with_capacity(BATCH);
        let mut to: Vec<Option<SockaddrStorage>> = Vec::with_capacity(BATCH);
        while !self.stop.load(Ordering::Relaxed) {
            got.clear();
            match self.receive(&mut packets, &mut incoming, &mut got) {
                Ok(()) => {}
                Err(Errno::EINTR | Errno::EAGAIN) => continue,
                Err(error) => {
                    // Not the fault of a question; it gets better, or it does not.
                    tracing::debug!(%error, "nothing was received by UDP");
                    std::thread::park_timeout(Duration::from_millis(20));
                    continue;
                }
            }
            // An error says that there will be no others; what was sent last may be new here.
            if names.has_changed().unwrap_or(true) {
                zones = Arc::clone(&names.borrow_and_update());
            }
            let now = self.shared.micros();
            to.clear();
            for ((length, from), packet) in got.iter().zip(packets.chunks(LARGEST)) {
                let Some(source) = address(from) else {
                    continue;
                };
                spin = spin.wrapping_add(1);
                let out = &mut answers[to.len()];
                if self.answer(&zones, &packet[..*length], source, (now, spin), out) {
                    to.push(Some(*from));
                }
            }
            self.send(&answers[..to.len()], &to, &mut outgoing);
        }
    }

    fn receive(
        &self,
        packets: &mut [u8],
        headers: &mut MultiHeaders<SockaddrStorage>,
        got: &mut Vec<(usize, SockaddrStorage)>,
    ) -> nix::Result<()> {
        let mut places = packets.chunks_mut(LARGEST);
        let mut slices: [[IoSliceMut; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(places.next().unwrap_or_default())]);
        // It waits for one, and takes what else there is.
        let flags = MsgFlags::MSG_WAITFORONE;
        let fd = self.socket.as_raw_fd();
        let received = recvmmsg(fd, headers, slices.iter_mut(), flags, None)?;
        // Without an address there is nobody to answer; the place is kept, as packets are by place.
        let none = || SockaddrStorage::from(SocketAddr::from(([0, 0, 0, 0], 0)));
        got.extend(received.map(|r| (r.bytes, r.address.unwrap_or_else(none))));
        Ok(())
    }

    /// Writes the answer to a packet; whether there is one to send.
    fn answer(
        &self,
        zones: &Arc<Zones>,
        packet: &[u8],
        source: SocketAddr,
        (now, spin): (u64, u32),
        out: &mut Vec<u8>,
    ) -> bool {
        let shared = &*self.shared;
        Metrics::add(&shared.metrics.udp);
        let desk = Desk {
            zones,
            metrics: &shared.metrics,
            limiter: &shared.limiter,
            micros: now,
            source: source.ip(),
            way: Way::Udp,
            spin,
            now: unix_time,
        };
        match desk.answer(packet, out) {
            Outcome::Answered => true,
            // Transfers go by TCP.
            Outcome::Silence | Outcome::Transfer(..) => false,
            Outcome::Elsewhere => {
                let (shared, socket) = (Arc::clone(&self.shared), Arc::clone(&self.socket));
                let packet = packet.to_vec();
                self.runtime.spawn(async move {
                    let mut out = Vec::new();
                    if forward::ask(&shared, &packet, source.ip(), Way::Udp, &mut out).await {
                        // What is lost is asked again.
                        let _ = socket.send_to(&out, source);
                    }
                });
                false
            }
        }
    }

    /// Sends answers. What cannot be sent at once is lost, as any packet may be: it is asked again.
    fn send(
        &self,
        answers: &[Vec<u8>],
        to: &[Option<SockaddrStorage>],
        headers: &mut MultiHeaders<SockaddrStorage>,
    ) {
        let mut first = 0;
        while first < answers.len() {
            let mut slices: [[IoSlice; 1]; BATCH] = [[IoSlice::new(&[])]; BATCH];
            for (slice, answer) in slices.iter_mut().zip(&answers[first..]) {
                *slice = [IoSlice::new(answer)];
            }
            let left = answers.len() - first;
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT;
            let sent = sendmmsg(fd, headers, &slices[..left], &to[first..], [], flags);
            match sent.map(Iterator::count) {
                Ok(sent) if sent > 0 => first += sent,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // The first one could not be sent.
                Ok(_) | Err(_) => first += 1,
            }
        }
    }
}

fn address(of: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = of.as_sockaddr_in();
    let v4 = v4.map(|a| SocketAddr::from((IpAddr::V4(a.ip()), a.port())));
    // Nobody has port 0.
    v4.or_else(|| of.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
        .filter(|a| a.port() != 0)
}
