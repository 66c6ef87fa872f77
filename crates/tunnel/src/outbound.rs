//! From the device to the wire.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use boringtun::noise::{Tunn, TunnResult};

use crate::batch::Batch;
use crate::device::{Device, TICK};
use crate::segment::{self, Division, ETHERNET};
use crate::tap::Queue;
use crate::udp::Socket;
use crate::vnet::{self, Vnet};
use crate::wait::{self, Ready};

/// What stands before an IP packet.
pub(crate) const BEFORE: usize = vnet::LENGTH + ETHERNET;
/// An encrypted packet is longer by this (5.4.6 of the WireGuard paper).
const OVERHEAD: usize = 32;
/// So many packets are read before others get their turn.
const AT_ONCE: usize = 64;

/// Sends what comes from one queue of the device, until the end.
pub(crate) fn run(device: &Device, queue: &Queue, number: usize) -> io::Result<()> {
    let mut buffer = vec![0; BEFORE + 65_536 + 64];
    let mut segment = Vec::with_capacity(65_536);
    let mut batch = Batch::new();
    while !device.is_over() {
        if !wait::until(std::os::fd::AsFd::as_fd(queue), Ready::Read, TICK)? {
            continue;
        }
        let Some(sockets) = device.sockets() else {
            // Nobody to send to: nothing is to wait for it.
            while queue.read(&mut buffer)?.is_some() {}
            continue;
        };
        let socket = &sockets[number % sockets.len()];
        for _ in 0..AT_ONCE {
            let Some(length) = queue.read(&mut buffer)? else {
                break;
            };
            one(
                device,
                &mut buffer[..length],
                &mut segment,
                &mut batch,
                socket,
            );
        }
        batch.send(socket);
    }
    Ok(())
}

fn one(
    device: &Device,
    frame: &mut [u8],
    segment: &mut Vec<u8>,
    batch: &mut Batch,
    socket: &Socket,
) {
    let Some(vnet) = Vnet::read(frame) else {
        return;
    };
    let Some(packet) = frame.get_mut(BEFORE..) else {
        return;
    };
    let Some(address) = destination(packet) else {
        return;
    };
    let table = device.table();
    let Some(link) = table.route(address) else {
        return;
    };
    let Some(to) = link.peer.endpoint() else {
        return;
    };
    let mut sent = 0;
    match Division::of(&vnet, packet) {
        Err(segment::Malformed) => return,
        Ok(None) => {
            if segment::complete(&vnet, packet).is_ok() {
                sent += encrypt(&mut link.tunn(), packet, to, batch, socket);
            }
        }
        Ok(Some(division)) => {
            let mut tunn = link.tunn();
            for index in 0..division.count() {
                division.write(packet, index, segment);
                sent += encrypt(&mut tunn, segment, to, batch, socket);
            }
        }
    }
    link.peer.sent.fetch_add(sent, Ordering::Relaxed);
}

fn encrypt(
    tunn: &mut Tunn,
    packet: &[u8],
    to: SocketAddr,
    batch: &mut Batch,
    socket: &Socket,
) -> u64 {
    let length = packet.len() + OVERHEAD;
    let room = batch.room(to, length, socket);
    if let TunnResult::WriteToNetwork(written) = tunn.encapsulate(packet, room) {
        let wrote = written.len();
        batch.wrote(wrote, length, socket);
        return u64::try_from(wrote).unwrap_or_default();
    }
    // There are no keys yet: it waits for them.
    0
}

/// Where an IP packet goes; nowhere if it is none, or broken.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    let whole = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 && whole(2) <= packet.len() => {
            <[u8; 4]>::try_from(&packet[16..20]).ok().map(IpAddr::from)
        }
        6 if packet.len() >= 40 => <[u8; 16]>::try_from(&packet[24..40]).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let mut packet = [0; 40];
        assert_eq!(destination(&packet), None);
        packet[0] = 0x60;
        packet[39] = 1;
        assert_eq!(destination(&packet), Some("::1".parse().unwrap()));
        assert_eq!(destination(&packet[..39]), None);
        packet[0] = 0x45;
        packet[19] = 9;
        assert_eq!(destination(&packet[..20]), Some("0.0.0.9".parse().unwrap()));
        packet[3] = 21;
        assert_eq!(destination(&packet[..20]), None);
    }
}
