//! One big packet of the kernel made into the segments that go over the wire: what a network card
//! would do (`linux/virtio_net.h`). Pure.

use crate::checksum;
use crate::vnet::{self, NEEDS_CSUM, Vnet};

/// Bytes of the Ethernet header, which offsets count from.
pub(crate) const ETHERNET: usize = 14;
/// The `CWR` flag, of the first segment only (RFC 3168, 6.1.2).
const CWR: u8 = 0x80;
/// `FIN` and `PSH`, of the last segment only.
const LAST: u8 = 0x01 | 0x08;

/// How one packet is divided. Offsets are in the IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Division {
    /// The IP header of what is divided.
    network: usize,
    /// Its TCP or UDP header.
    transport: usize,
    /// Where data begins.
    data: usize,
    /// Data in each but the last.
    size: usize,
    /// Of the whole packet.
    length: usize,
    tcp: bool,
    /// The tunnel's UDP header.
    outer: Option<usize>,
    /// Whether that one has a checksum.
    outer_sum: bool,
}

/// Why a packet cannot be divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Division {
    /// How an IP packet is to be divided; not at all if it is one.
    pub(crate) fn of(vnet: &Vnet, packet: &[u8]) -> Result<Option<Self>, Malformed> {
        let tcp = match vnet.kind() {
            0 => return Ok(None),
            vnet::TCP4 | vnet::TCP6 => true,
            vnet::UDP => false,
            _ => return Err(Malformed),
        };
        let inside = |offset: u16| usize::from(offset).checked_sub(ETHERNET).ok_or(Malformed);
        let transport = inside(vnet.csum_start)?;
        let (network, outer) = match vnet.is_tunnelled() {
            false => (0, None),
            true => (
                inside(vnet.inner_network)?,
                Some(inside(vnet.outer_transport)?),
            ),
        };
        let ip = |at: usize| match packet.get(at).map(|b| b >> 4) {
            Some(4) => Ok(20),
            Some(6) => Ok(40),
            _ => Err(Malformed),
        };
        let apart = |below: usize, above: usize, least: usize| {
            let far = below.checked_add(least).is_some_and(|end| end <= above);
            if far { Ok(()) } else { Err(Malformed) }
        };
        if let Some(outer) = outer {
            apart(0, outer, ip(0)?)?;
            apart(outer, network, 8)?;
        }
        let least = ip(network)?;
        apart(network, transport, least)?;
        let header = match tcp {
            true => usize::from(*packet.get(transport + 12).ok_or(Malformed)? >> 4) * 4,
            false => 8,
        };
        let data = transport + header;
        let size = usize::from(vnet.gso_size);
        let short = header < 8 || (tcp && header < 20);
        if short || size == 0 || vnet.flags & NEEDS_CSUM == 0 || data >= packet.len() {
            return Err(Malformed);
        }
        Ok(Some(Self {
            network,
            transport,
            data,
            size,
            length: packet.len(),
            tcp,
            outer,
            outer_sum: vnet.flags & vnet::OUTER_CSUM != 0,
        }))
    }

    /// How many there will be.
    pub(crate) fn count(&self) -> usize {
        (self.length - self.data).div_ceil(self.size)
    }

    /// Writes one into a buffer, which is emptied before.
    pub(crate) fn write(&self, packet: &[u8], index: usize, out: &mut Vec<u8>) {
        let from = self.data + index * self.size;
        let to = (from + self.size).min(self.length);
        out.clear();
        out.extend_from_slice(&packet[..self.data]);
        out.extend_from_slice(&packet[from..to]);
        if let Some(outer) = self.outer {
            sized(out, 0, index);
            let length = big(out.len() - outer);
            out[outer + 4..outer + 6].copy_from_slice(&length);
        }
        sized(out, self.network, index);
        let at = self.transport;
        let field = if self.tcp {
            let mut sequence = [0; 4];
            sequence.copy_from_slice(&out[at + 4..at + 8]);
            #[allow(clippy::cast_possible_truncation)] // less than a packet's length
            let sequence = u32::from_be_bytes(sequence).wrapping_add((index * self.size) as u32);
            out[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            if index > 0 {
                out[at + 13] &= !CWR;
            }
            if to < self.length {
                out[at + 13] &= !LAST;
            }
            at + 16
        } else {
            let length = big(out.len() - at);
            out[at + 4..at + 6].copy_from_slice(&length);
            at + 6
        };
        out[field..field + 2].fill(0);
        let protocol = if self.tcp { 6 } else { 17 };
        let sum = checksum::pseudo(&out[self.network..], protocol, out.len() - at);
        let sum = inverted(checksum::add(sum, &out[at..]), !self.tcp);
        out[field..field + 2].copy_from_slice(&sum);
        if let Some(outer) = self.outer.filter(|_| self.outer_sum) {
            out[outer + 6..outer + 8].fill(0);
            let sum = checksum::outer(out, outer, self.network, at, protocol);
            out[outer + 6..outer + 8].copy_from_slice(&inverted(sum, true));
        }
    }
}

/// Completes the checksum of a packet that is not divided.
pub(crate) fn complete(vnet: &Vnet, packet: &mut [u8]) -> Result<(), Malformed> {
    if vnet.flags & NEEDS_CSUM == 0 {
        return Ok(());
    }
    let start = usize::from(vnet.csum_start);
    let start = start.checked_sub(ETHERNET).ok_or(Malformed)?;
    let field = start + usize::from(vnet.csum_offset);
    let Some(covered) = packet.get(start..).filter(|_| field + 2 <= packet.len()) else {
        return Err(Malformed);
    };
    // What stands there is the sum of the addresses.
    let sum = inverted(checksum::add(0, covered), vnet.csum_offset == 6);
    packet[field..field + 2].copy_from_slice(&sum);
    Ok(())
}

/// With UDP nought says that there is none (RFC 768).
fn inverted(sum: u64, udp: bool) -> [u8; 2] {
    let sum = !checksum::fold(sum);
    let sum = if udp && sum == 0 { 0xffff } else { sum };
    sum.to_be_bytes()
}

/// Writes the length of an IP packet that ends where the buffer does, and its number if it has one.
fn sized(out: &mut [u8], at: usize, index: usize) {
    let whole = out.len() - at;
    if out[at] >> 4 == 4 {
        out[at + 2..at + 4].copy_from_slice(&big(whole));
        let number = u16::from_be_bytes([out[at + 4], out[at + 5]]);
        #[allow(clippy::cast_possible_truncation)] // numbers go round
        let number = number.wrapping_add(index as u16);
        out[at + 4..at + 6].copy_from_slice(&number.to_be_bytes());
        // Options are none of ours to understand, but they are summed up.
        let header = usize::from(out[at] & 15) * 4;
        if header == 20 || out.len() < at + header || header < 20 {
            checksum::of_ipv4(&mut out[at..at + 20]);
        } else {
            out[at + 10..at + 12].fill(0);
            let sum = !checksum::fold(checksum::add(0, &out[at..at + header]));
            out[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        }
    } else {
        out[at + 4..at + 6].copy_from_slice(&big(whole - 40));
    }
}

#[allow(clippy::cast_possible_truncation)] // lengths in packets of at most 65535 bytes
fn big(length: usize) -> [u8; 2] {
    (length as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coalesce::tests::{VXLAN, is_sound, tcp, wrapped};

    #[test]
    fn segments_are_whole_packets_with_checksums() {
        let data: Vec<u8> = (0..3000u32).map(|n| n.to_le_bytes()[0]).collect();
        for ipv6 in [false, true] {
            let packet = tcp(ipv6, 1000, 0x18, &data);
            let network = if ipv6 { 40 } else { 20 };
            let vnet = Vnet {
                flags: NEEDS_CSUM,
                gso_type: if ipv6 { vnet::TCP6 } else { vnet::TCP4 },
                gso_size: 1400,
                csum_start: (ETHERNET + network) as u16,
                csum_offset: 16,
                ..Vnet::default()
            };
            let division = Division::of(&vnet, &packet).unwrap().unwrap();
            assert_eq!(division.count(), 3);
            let (mut seen, mut out) = (Vec::new(), Vec::new());
            for index in 0..3 {
                division.write(&packet, index, &mut out);
                assert!(is_sound(&out, None), "segment {index}");
                let pushed = out[network + 13] & 8 != 0;
                assert_eq!(pushed, index == 2, "PSH is the last one's");
                seen.extend_from_slice(&out[network + 20..]);
            }
            assert_eq!(seen, data);
        }
    }

    #[test]
    fn segments_of_a_tunnel_have_both_headers() {
        let data = vec![7; 2500];
        let packet = wrapped(&tcp(false, 77, 0x10, &data));
        let mut vnet = Vnet {
            flags: NEEDS_CSUM,
            gso_type: vnet::TCP4 | vnet::IN_UDP4,
            gso_size: 1000,
            csum_start: (ETHERNET + 50 + 20) as u16,
            csum_offset: 16,
            outer_transport: (ETHERNET + 20) as u16,
            inner_network: (ETHERNET + 50) as u16,
            ..Vnet::default()
        };
        let mut out = Vec::new();
        for flags in [NEEDS_CSUM, NEEDS_CSUM | vnet::OUTER_CSUM] {
            vnet.flags = flags;
            let division = Division::of(&vnet, &packet).unwrap().unwrap();
            assert_eq!(division.count(), 3);
            for index in 0..3 {
                division.write(&packet, index, &mut out);
                assert!(is_sound(&out, Some(VXLAN)), "segment {index}");
                let sum = checksum::pseudo(&out, 17, out.len() - 20);
                let sum = checksum::fold(checksum::add(sum, &out[20..]));
                let has = out[26..28] != [0, 0];
                assert_eq!(has, flags != NEEDS_CSUM);
                assert!(!has || sum == 0xffff, "the tunnel's own checksum");
            }
        }
        assert_eq!(out.len(), 50 + 40 + 500);
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_harm(head in proptest::array::uniform24(any::<u8>()), mut packet in proptest::collection::vec(any::<u8>(), 0..300)) {
            let vnet = Vnet::read(&head).unwrap();
            if let Ok(Some(division)) = Division::of(&vnet, &packet) {
                let mut out = Vec::new();
                for index in 0..division.count() {
                    division.write(&packet, index, &mut out);
                }
            }
            let _ = complete(&vnet, &mut packet);
        }
    }
}
