//! Segments that came over the wire made into big packets for the kernel, which takes one of 64 KiB
//! for little more than one of 1400 bytes: what the receiving side of a network card would do. Pure.
//!
//! Only what the kernel's own offload would join is joined (`net/ipv4/tcp_offload.c`): data of one
//! TCP connection, in order, with the same headers; right checksums; in VXLAN too.

use std::ops::Range;

use crate::checksum;
use crate::segment::ETHERNET;
use crate::vnet::{self, NEEDS_CSUM, Vnet};

/// The longest packet there is.
const LONGEST: usize = 65_535;
/// So many of the last packets are looked at for one to join.
const OPEN: usize = 8;
/// So many parts are written at once (`UIO_MAXIOV` is 1024).
const MOST: usize = 256;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// UDP, VXLAN and Ethernet headers (RFC 7348, 5).
const ENCAPSULATION: usize = 8 + 8 + ETHERNET;

/// Where the parts of a TCP packet are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// The UDP header of the tunnel.
    outer: Option<usize>,
    network: usize,
    transport: usize,
    data: usize,
}

/// Packets that are handed to the kernel as one.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// What stands before it.
    pub(crate) vnet: Vnet,
    /// A whole packet, then data that follows it.
    pub(crate) parts: Vec<Range<usize>>,
    layout: Option<Layout>,
    is_closed: bool,
    is_pushed: bool,
    sequence: u32,
    size: usize,
    length: usize,
}

/// Packets on their way to the device.
#[derive(Debug)]
pub(crate) struct Coalescer {
    groups: Vec<Group>,
    used: usize,
    vxlan: Option<u16>,
}

impl Coalescer {
    /// With the UDP port of VXLAN, if the device takes big packets in it.
    pub(crate) fn new(vxlan: Option<u16>) -> Self {
        Self {
            groups: Vec::new(),
            used: 0,
            vxlan,
        }
    }

    /// Adds a packet, which is at this place.
    pub(crate) fn push(&mut self, arena: &[u8], place: Range<usize>) {
        let packet = &arena[place.clone()];
        let layout = Layout::of(packet, self.vxlan);
        let first = self.used.saturating_sub(OPEN);
        if let Some(layout) = layout {
            let flags = packet[layout.transport + 13];
            let plain = flags & !PSH == ACK && layout.data < packet.len();
            for group in self.groups[first..self.used].iter_mut().rev() {
                if !group.is_same_way(arena, packet, &layout) {
                    continue;
                }
                if plain && group.takes(arena, packet, &layout) && layout.is_sound(packet) {
                    group.join(place.start + layout.data..place.end, flags & PSH != 0);
                    return;
                }
                // What follows may not come before this one.
                group.is_closed = true;
                break;
            }
        }
        if self.used == self.groups.len() {
            self.groups.push(Group::default());
        }
        let group = &mut self.groups[self.used];
        self.used += 1;
        group.parts.clear();
        group.vnet = Vnet::default();
        group.length = packet.len();
        group.layout = layout;
        group.is_closed = true;
        group.is_pushed = false;
        if let Some(layout) = layout {
            let flags = packet[layout.transport + 13];
            group.size = packet.len() - layout.data;
            group.is_closed = flags != ACK || group.size == 0 || !layout.is_sound(packet);
            let next = number(&packet[layout.transport + 4..]);
            #[allow(clippy::cast_possible_truncation)] // a packet's
            let next = next.wrapping_add(group.size as u32);
            group.sequence = next;
        }
        group.parts.push(place);
    }

    /// All of them, in order, with their headers as the kernel takes them. None is kept.
    pub(crate) fn finish(&mut self, arena: &mut [u8]) -> &[Group] {
        let used = std::mem::take(&mut self.used);
        for group in &mut self.groups[..used] {
            group.finish(arena);
        }
        &self.groups[..used]
    }
}

impl Group {
    fn first<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.parts[0].clone()]
    }

    /// Whether it is of the same connection, and has the same headers around it.
    fn is_same_way(&self, arena: &[u8], packet: &[u8], layout: &Layout) -> bool {
        let Some(own) = self.layout else { return false };
        if own.outer != layout.outer || own.network != layout.network {
            return false;
        }
        let (first, network) = (self.first(arena), layout.network);
        let same = |range: Range<usize>| first[range.clone()] == packet[range];
        let outside = match layout.outer {
            None => true,
            // Lengths and checksums are between.
            Some(udp) => {
                same_ip(first, packet, 0)
                    && same(udp..udp + 4)
                    && has_sum(first, udp) == has_sum(packet, udp)
                    && same(udp + 8..network)
            }
        };
        let (transport, own) = (layout.transport, own.transport);
        let ports = transport == own && same(transport..transport + 4);
        outside && ports && same_ip(first, packet, network)
    }

    /// Whether it is the next of it.
    fn takes(&self, arena: &[u8], packet: &[u8], layout: &Layout) -> bool {
        let first = self.first(arena);
        let (at, data) = (layout.transport, packet.len() - layout.data);
        let same = |range: Range<usize>| first[range.clone()] == packet[range];
        !self.is_closed
            && self.layout == Some(*layout)
            && number(&packet[at + 4..]) == self.sequence
            && data <= self.size
            && self.length + data <= LONGEST
            && self.parts.len() < MOST
            // Acknowledgement, length of the header, window, urgent pointer, options.
            && same(at + 8..at + 13)
            && same(at + 14..at + 16)
            && same(at + 18..layout.data)
    }

    fn join(&mut self, data: Range<usize>, pushed: bool) {
        let length = data.len();
        self.length += length;
        #[allow(clippy::cast_possible_truncation)] // a packet's
        let next = self.sequence.wrapping_add(length as u32);
        self.sequence = next;
        self.is_closed = pushed || length < self.size;
        self.is_pushed = pushed;
        self.parts.push(data);
    }

    fn finish(&mut self, arena: &mut [u8]) {
        let Some(layout) = self.layout.filter(|_| self.parts.len() > 1) else {
            return;
        };
        let packet = &mut arena[self.parts[0].clone()];
        let ipv6 = packet[layout.network] >> 4 == 6;
        let mut flags = NEEDS_CSUM;
        let mut gso_type = if ipv6 { vnet::TCP6 } else { vnet::TCP4 };
        if let Some(udp) = layout.outer {
            gso_type |= match packet[0] >> 4 {
                6 => vnet::IN_UDP6,
                _ => vnet::IN_UDP4,
            };
            resize(packet, 0, self.length);
            let length = short(self.length - udp).to_be_bytes();
            packet[udp + 4..udp + 6].copy_from_slice(&length);
            if has_sum(packet, udp) {
                flags |= vnet::OUTER_CSUM;
                let sum = checksum::pseudo(packet, 17, self.length - udp);
                let sum = checksum::fold(sum).max(1).to_be_bytes();
                packet[udp + 6..udp + 8].copy_from_slice(&sum);
            }
        }
        resize(packet, layout.network, self.length - layout.network);
        let at = layout.transport;
        if self.is_pushed {
            packet[at + 13] |= PSH;
        }
        let sum = checksum::pseudo(&packet[layout.network..], 6, self.length - at);
        packet[at + 16..at + 18].copy_from_slice(&checksum::fold(sum).to_be_bytes());
        let frame = |offset: usize| short(offset + ETHERNET);
        self.vnet = Vnet {
            flags,
            gso_type,
            header: frame(layout.data),
            gso_size: short(self.size),
            csum_start: frame(at),
            csum_offset: 16,
            outer_transport: layout.outer.map_or(0, frame),
            inner_network: layout.outer.map_or(0, |_| frame(layout.network)),
        };
    }
}

impl Layout {
    fn of(packet: &[u8], vxlan: Option<u16>) -> Option<Self> {
        let (protocol, above) = ip(packet, 0)?;
        if protocol == 6 {
            return Self::tcp(packet, None, 0, above);
        }
        let udp = packet.get(above..above + ENCAPSULATION)?;
        let port = u16::from_be_bytes([udp[2], udp[3]]);
        let whole = usize::from(u16::from_be_bytes([udp[4], udp[5]])) == packet.len() - above;
        let network = above + ENCAPSULATION;
        // Only the flag that says there is a number, and IP inside.
        let known = udp[8..12] == [8, 0, 0, 0]
            && match udp[ENCAPSULATION - 2..] {
                [8, 0] => packet.get(network)? >> 4 == 4,
                [0x86, 0xdd] => packet.get(network)? >> 4 == 6,
                _ => false,
            };
        if protocol != 17 || vxlan != Some(port) || !whole || !known {
            return None;
        }
        let (protocol, transport) = ip(packet, network)?;
        match protocol {
            6 => Self::tcp(packet, Some(above), network, transport),
            _ => None,
        }
    }

    fn tcp(packet: &[u8], outer: Option<usize>, network: usize, transport: usize) -> Option<Self> {
        let header = usize::from(packet.get(transport + 12)? >> 4) * 4;
        let data = transport + header;
        (header >= 20 && data <= packet.len()).then_some(Self {
            outer,
            network,
            transport,
            data,
        })
    }

    /// Whether all checksums are right: they will be made anew.
    fn is_sound(&self, packet: &[u8]) -> bool {
        let header = |at: usize| {
            packet[at] >> 4 == 6 || checksum::fold(checksum::add(0, &packet[at..at + 20])) == 0xffff
        };
        let length = packet.len() - self.transport;
        let sum = checksum::pseudo(&packet[self.network..], 6, length);
        header(self.network)
            && checksum::fold(checksum::add(sum, &packet[self.transport..])) == 0xffff
            && self.outer.is_none_or(|udp| {
                let outer = || checksum::outer(packet, udp, self.network, self.transport, 6);
                header(0) && (!has_sum(packet, udp) || checksum::fold(outer()) == 0xffff)
            })
    }
}

/// Whether a UDP header has a checksum (RFC 768).
fn has_sum(packet: &[u8], udp: usize) -> bool {
    packet[udp + 6..udp + 8] != [0, 0]
}

/// Protocol, and where it begins, of a packet that is whole, has no options, and ends with the buffer.
fn ip(packet: &[u8], at: usize) -> Option<(u8, usize)> {
    let packet = packet.get(at..)?;
    let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    match packet.first()? {
        0x45 if packet.len() >= 20 => {
            let whole = usize::from(number(2)) == packet.len() && number(6) & 0x3fff == 0;
            whole.then_some((packet[9], at + 20))
        }
        first if first >> 4 == 6 && packet.len() >= 40 => {
            let whole = usize::from(number(4)) == packet.len() - 40;
            whole.then_some((packet[6], at + 40))
        }
        _ => None,
    }
}

/// Whether IP headers differ in nothing but length, number and checksum.
fn same_ip(one: &[u8], other: &[u8], at: usize) -> bool {
    let same = |range: Range<usize>| one[range.clone()] == other[range];
    match one[at] >> 4 {
        4 => same(at..at + 2) && same(at + 6..at + 10) && same(at + 12..at + 20),
        _ => same(at..at + 4) && same(at + 6..at + 40),
    }
}

/// Writes the length of the IP packet that begins here.
fn resize(packet: &mut [u8], at: usize, length: usize) {
    if packet[at] >> 4 == 4 {
        packet[at + 2..at + 4].copy_from_slice(&short(length).to_be_bytes());
        checksum::of_ipv4(&mut packet[at..at + 20]);
    } else {
        packet[at + 4..at + 6].copy_from_slice(&short(length - 40).to_be_bytes());
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[allow(clippy::cast_possible_truncation)] // lengths in packets of at most 65535 bytes
fn short(length: usize) -> u16 {
    length as u16
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::Division;

    pub(crate) const VXLAN: u16 = 4789;

    /// Whether a packet is one of TCP with right lengths and checksums.
    pub(crate) fn is_sound(packet: &[u8], vxlan: Option<u16>) -> bool {
        Layout::of(packet, vxlan).is_some_and(|layout| layout.is_sound(packet))
    }

    /// A packet of one connection.
    pub(crate) fn tcp(ipv6: bool, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut packet = if ipv6 {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
            ip.extend_from_slice(&[0xfd; 31]);
            ip.push(1);
            let length = short(20 + data.len()).to_be_bytes();
            ip[4..6].copy_from_slice(&length);
            ip
        } else {
            let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
            ip.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            resize(&mut ip, 0, 40 + data.len());
            ip
        };
        let at = packet.len();
        packet.extend_from_slice(&[0x1f, 0x90, 0, 80]);
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        packet.extend_from_slice(data);
        let sum = checksum::pseudo(&packet, 6, packet.len() - at);
        let sum = !checksum::fold(checksum::add(sum, &packet[at..]));
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The same in VXLAN.
    pub(crate) fn wrapped(inner: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0];
        packet.extend_from_slice(&[192, 168, 0, 1, 192, 168, 0, 2, 0xc0, 0]);
        packet.extend_from_slice(&VXLAN.to_be_bytes());
        packet.extend_from_slice(&short(inner.len() + ENCAPSULATION).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 8, 0, 0, 0, 0, 0, 7, 0]);
        packet.extend_from_slice(&[2; 12]);
        packet.extend_from_slice(&[8, 0]);
        packet.extend_from_slice(inner);
        let length = packet.len();
        resize(&mut packet, 0, length);
        packet
    }

    fn joined(packets: &[Vec<u8>]) -> Vec<(Vnet, Vec<u8>)> {
        let mut arena = Vec::new();
        let mut coalescer = Coalescer::new(Some(VXLAN));
        let mut places = Vec::new();
        for packet in packets {
            places.push(arena.len()..arena.len() + packet.len());
            arena.extend_from_slice(packet);
        }
        places
            .into_iter()
            .for_each(|place| coalescer.push(&arena, place));
        let groups = coalescer.finish(&mut arena);
        let whole = |group: &Group| {
            let parts = group.parts.iter().map(|part| arena[part.clone()].to_vec());
            (group.vnet, parts.collect::<Vec<_>>().concat())
        };
        groups.iter().map(whole).collect()
    }

    /// What the kernel would make of them again.
    fn divided(groups: &[(Vnet, Vec<u8>)]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for (vnet, packet) in groups {
            match Division::of(vnet, packet).unwrap() {
                None => packets.push(packet.clone()),
                Some(division) => packets.extend((0..division.count()).map(|index| {
                    let mut out = Vec::new();
                    division.write(packet, index, &mut out);
                    out
                })),
            }
        }
        packets
    }

    fn numbered(packet: &[u8], layout: Layout) -> Vec<u8> {
        // Numbers of IP packets, and what follows from them, need not be the same.
        let mut packet = packet.to_vec();
        for at in [0, layout.network] {
            if packet[at] >> 4 == 4 {
                packet[at + 4..at + 6].fill(0);
                packet[at + 10..at + 12].fill(0);
            }
        }
        packet
    }

    #[test]
    fn a_stream_becomes_one_packet_and_the_same_segments_again() {
        for (ipv6, wrap) in [(false, false), (true, false), (false, true)] {
            let make = |sequence, flags, data: &[u8]| {
                let packet = tcp(ipv6, sequence, flags, data);
                if wrap { wrapped(&packet) } else { packet }
            };
            let packets = [
                make(u32::MAX - 99, 0x10, &[1; 100]),
                make(0, 0x10, &[2; 100]),
                make(100, 0x18, &[3; 40]),
                make(140, 0x10, &[4; 100]),
            ];
            let groups = joined(&packets);
            assert_eq!(groups.len(), 2, "what was pushed ends a group");
            let again = divided(&groups);
            assert_eq!(again.len(), packets.len());
            for (one, other) in again.iter().zip(&packets) {
                let layout = Layout::of(other, Some(VXLAN)).unwrap();
                assert!(is_sound(one, Some(VXLAN)));
                assert_eq!(numbered(one, layout), numbered(other, layout));
            }
        }
    }

    #[test]
    fn what_does_not_belong_together_stays_apart() {
        let one = tcp(false, 0, 0x10, &[1; 100]);
        let gap = tcp(false, 200, 0x10, &[1; 100]);
        let longer = tcp(false, 100, 0x10, &[1; 101]);
        let fin = tcp(false, 100, 0x11, &[1; 100]);
        let mut wrong = tcp(false, 100, 0x10, &[1; 100]);
        *wrong.last_mut().unwrap() ^= 1;
        let mut aged = tcp(false, 100, 0x10, &[1; 100]);
        aged[8] = 3;
        checksum::of_ipv4(&mut aged[..20]);
        for other in [gap, longer, fin, wrong, aged] {
            let pair = [one.clone(), other];
            let groups = joined(&pair);
            assert_eq!(divided(&groups), pair);
            assert!(groups.iter().all(|(vnet, _)| *vnet == Vnet::default()));
        }
        // An acknowledgement between two pieces of data is not overtaken.
        let quiet = tcp(false, 100, 0x10, &[]);
        let next = tcp(false, 100, 0x10, &[2; 100]);
        assert_eq!(joined(&[one, quiet, next]).len(), 3);
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_harm(
            base in proptest::collection::vec(any::<u8>(), 0..120),
            kind in 0..3u8,
            changes in proptest::collection::vec((0..200usize, any::<u8>()), 0..6),
            cut in 0..200usize,
        ) {
            let sound = match kind {
                0 => tcp(false, 5, 0x10, &base),
                1 => tcp(true, 5, 0x10, &base),
                _ => wrapped(&tcp(false, 5, 0x10, &base)),
            };
            let mut broken = sound.clone();
            for (at, byte) in changes {
                if let Some(there) = broken.get_mut(at) {
                    *there = byte;
                }
            }
            broken.truncate(cut.max(1));
            let all = [base, broken.clone(), sound, broken];
            let all: Vec<Vec<u8>> = all.into_iter().filter(|p| !p.is_empty()).collect();
            prop_assert!(divided(&joined(&all)).len() >= all.len().min(1));
        }
    }
}
