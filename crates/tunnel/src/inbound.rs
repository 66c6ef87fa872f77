//! From the wire to the device.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, Tunn, TunnResult};
use quinn_udp::RecvMeta;

use crate::batch::deliver;
use crate::coalesce::Coalescer;
use crate::device::{Device, TICK};
use crate::segment::ETHERNET;
use crate::table::{Link, Table};
use crate::tap::Queue;
use crate::udp::Socket;
use crate::wait::{self, Ready};

/// What the kernel gives at once: so many times as many datagrams as it has joined.
const AT_ONCE: usize = 8;
const LONGEST: usize = 65_536;
/// The longest packet that is written as an answer, and more.
const ANSWER: usize = 256;

/// Where decrypted packets are put together.
struct Arrivals {
    arena: Vec<u8>,
    used: usize,
    coalescer: Coalescer,
}

/// The link that is at work, so that its lock is not taken for each datagram.
struct Held<'a> {
    index: u32,
    link: &'a Link,
    tunn: MutexGuard<'a, Tunn>,
    from: Option<SocketAddr>,
    bytes: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let peer = &self.link.peer;
        peer.received.fetch_add(self.bytes, Ordering::Relaxed);
        if let Some(from) = self.from.filter(|from| peer.endpoint() != Some(*from)) {
            peer.is_at(from);
        }
    }
}

/// Hands on what comes in by one socket, until the end.
pub(crate) fn run(device: &Device, queue: &Queue, number: usize) -> io::Result<()> {
    let mut memory = vec![0; AT_ONCE * LONGEST];
    let mut about = vec![RecvMeta::default(); AT_ONCE];
    let mut arrivals = Arrivals {
        arena: vec![0; AT_ONCE * LONGEST + LONGEST],
        used: 0,
        coalescer: Coalescer::new(device.vxlan.filter(|_| queue.tunnels)),
    };
    while !device.is_over() {
        let Some(sockets) = device.sockets_at_last() else {
            continue;
        };
        let socket = &sockets[number % sockets.len()];
        // It is looked at again now and then: the port may have changed.
        if !wait::until(socket.as_fd(), Ready::Read, TICK)? {
            continue;
        }
        let mut buffers: Vec<IoSliceMut<'_>> = memory
            .chunks_exact_mut(LONGEST)
            .map(IoSliceMut::new)
            .collect();
        // Errors are about what was sent before (ICMP), and said to nobody here.
        let Ok(count) = socket.receive(&mut buffers, &mut about) else {
            continue;
        };
        {
            let table = device.table();
            let mut held = None;
            for (buffer, about) in buffers.iter().zip(&about[..count]) {
                let size = about.stride.max(1);
                let from = canonical(about.addr);
                for datagram in buffer[..about.len].chunks(size) {
                    if arrivals.used + datagram.len() + ANSWER > arrivals.arena.len() {
                        arrivals.write(queue);
                    }
                    one(&table, &mut held, datagram, from, &mut arrivals, socket);
                }
            }
        }
        arrivals.write(queue);
    }
    Ok(())
}

/// An IPv4 address that came in by a socket for both.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn one<'a>(
    table: &'a Table,
    held: &mut Option<Held<'a>>,
    datagram: &[u8],
    from: SocketAddr,
    arrivals: &mut Arrivals,
    socket: &Socket,
) {
    let Some(identity) = &table.identity else {
        return;
    };
    let mut cookie = [0; ANSWER];
    let packet = match identity
        .limiter
        .verify_packet(Some(from.ip()), datagram, &mut cookie)
    {
        Ok(packet) => packet,
        Err(TunnResult::WriteToNetwork(cookie)) => {
            return deliver(socket, from, cookie, cookie.len());
        }
        Err(_) => return,
    };
    let index = match &packet {
        Packet::HandshakeInit(_) => None,
        Packet::HandshakeResponse(packet) => Some(packet.receiver_idx),
        Packet::PacketCookieReply(packet) => Some(packet.receiver_idx),
        Packet::PacketData(packet) => Some(packet.receiver_idx),
    };
    let is_held = held.as_ref().is_some_and(|held| Some(held.index) == index);
    if !is_held {
        let link = match (index, &packet) {
            (Some(index), _) => table.numbered(index),
            (None, Packet::HandshakeInit(packet)) => {
                let half = parse_handshake_anon(&identity.secret, &identity.public, packet);
                half.ok()
                    .and_then(|half| table.with(&crate::PublicKey(half.peer_static_public)))
            }
            _ => None,
        };
        let Some(link) = link else { return };
        // The one that is held goes first: it may be the same.
        *held = None;
        *held = Some(Held {
            // None is 0: a handshake is looked up each time.
            index: index.unwrap_or(0),
            link,
            tunn: link.tunn(),
            from: None,
            bytes: 0,
        });
    }
    let Some(held) = held else { return };
    let room = &mut arrivals.arena[arrivals.used..];
    match held.tunn.decapsulate(Some(from.ip()), datagram, room) {
        TunnResult::WriteToTunnelV4(packet, source) => {
            held.from = Some(from);
            let length = packet.len();
            arrive(table, held, arrivals, source.into(), length);
        }
        TunnResult::WriteToTunnelV6(packet, source) => {
            held.from = Some(from);
            let length = packet.len();
            arrive(table, held, arrivals, source.into(), length);
        }
        TunnResult::WriteToNetwork(answer) => {
            deliver(socket, from, answer, answer.len());
            held.from = Some(from);
            // What waited for keys.
            while let TunnResult::WriteToNetwork(packet) = held.tunn.decapsulate(None, &[], room) {
                let length = packet.len();
                held.link
                    .peer
                    .sent
                    .fetch_add(u64::try_from(length).unwrap_or_default(), Ordering::Relaxed);
                deliver(socket, from, packet, length);
            }
        }
        TunnResult::Done => held.from = Some(from),
        TunnResult::Err(e) => tracing::trace!(%from, "{e:?}"),
    }
    held.bytes += u64::try_from(datagram.len()).unwrap_or_default();
}

/// A packet was decrypted: it is handed on if the peer may send from that address.
fn arrive(table: &Table, held: &Held<'_>, arrivals: &mut Arrivals, source: IpAddr, length: usize) {
    if !table.may_send(&held.link.peer.key, source) {
        return;
    }
    let place = arrivals.used..arrivals.used + length;
    arrivals.used = place.end;
    arrivals.coalescer.push(&arrivals.arena, place);
}

impl Arrivals {
    /// Writes all to the device.
    fn write(&mut self, queue: &Queue) {
        let groups = self.coalescer.finish(&mut self.arena);
        for group in groups {
            let vnet = group.vnet.bytes();
            let first = &self.arena[group.parts[0].clone()];
            let ethernet = ethernet(first, queue.address);
            let mut parts = Vec::with_capacity(group.parts.len() + 2);
            parts.push(IoSlice::new(&vnet));
            parts.push(IoSlice::new(&ethernet));
            let each = group.parts.iter();
            parts.extend(each.map(|part| IoSlice::new(&self.arena[part.clone()])));
            if let Err(e) = queue.write(&parts) {
                tracing::trace!("not handed to the device: {e}");
            }
        }
        self.used = 0;
    }
}

/// To the device itself, from nobody in particular.
fn ethernet(packet: &[u8], to: [u8; 6]) -> [u8; ETHERNET] {
    let mut header = [0; ETHERNET];
    header[..6].copy_from_slice(&to);
    // Locally administered.
    header[6] = 2;
    let kind: u16 = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    header[12..].copy_from_slice(&kind.to_be_bytes());
    header
}
