//! What is said about addresses on a LAN: ARP (RFC 826) and neighbour discovery (RFC 4861).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::Mac;

/// `ETH_P_ARP` (`linux/if_ether.h`).
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERNET: usize = 14;
/// The shortest frame, less the checksum.
const SHORTEST: usize = 60;
const BROADCAST: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_KINDS: [u8; 6] = [0, 1, 8, 0, 6, 4];

const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// RFC 4861, section 4.4.
const OVERRIDE: u8 = 0x20;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Where options begin, behind the header and the target.
const OPTIONS: usize = 24;
/// The hop limit of whatever comes from the same link (section 7.1).
pub(super) const FROM_THE_LINK: i32 = 255;
/// All nodes of a link.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An ARP probe: asks for an address without claiming any (RFC 5227, section 2.1.1).
pub(super) fn arp_probe(own: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp(own, REQUEST, Ipv4Addr::UNSPECIFIED, NOBODY, address)
}

/// ARP announcements (RFC 5227, section 2.3): as a request, and as a reply, since some take notice of
/// the one only and some of the other. Linux takes the reply for one if both hardware addresses are
/// the same.
pub(super) fn arp_announcements(own: Mac, address: Ipv4Addr) -> [Vec<u8>; 2] {
    [
        arp(own, REQUEST, address, NOBODY, address),
        arp(own, REPLY, address, own, address),
    ]
}

fn arp(own: Mac, operation: u16, sender: Ipv4Addr, target: Mac, asked: Ipv4Addr) -> Vec<u8> {
    let mut frame = [
        &BROADCAST.0[..],
        &own.0,
        &ETHERTYPE_ARP.to_be_bytes(),
        &ARP_KINDS,
        &operation.to_be_bytes(),
        &own.0,
        &sender.octets(),
        &target.0,
        &asked.octets(),
    ]
    .concat();
    frame.resize(SHORTEST, 0);
    frame
}

/// Who says in an ARP frame to have an address: requests say so as well as replies.
pub(super) fn arp_claim(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let ethertype = frame.get(12..ETHERNET)?;
    let kinds = frame.get(ETHERNET..ETHERNET + ARP_KINDS.len())?;
    if ethertype != ETHERTYPE_ARP.to_be_bytes() || kinds != ARP_KINDS {
        return None;
    }
    let operation = frame.get(20..22)?;
    if ![REQUEST, REPLY]
        .iter()
        .any(|known| operation == known.to_be_bytes())
    {
        return None;
    }
    let mac = Mac(frame.get(22..28)?.try_into().ok()?);
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(28..32)?).ok()?);
    // Of a probe there is no sender.
    (!address.is_unspecified()).then_some((address, mac))
}

/// Where an address is asked for (RFC 4291, section 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let [b, c] = [b, c].map(u16::from);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), b << 8 | c)
}

/// A neighbour solicitation, without its checksum.
pub(super) fn solicitation(own: Mac, address: Ipv6Addr) -> Vec<u8> {
    neighbour(NEIGHBOUR_SOLICITATION, 0, address, SOURCE_LINK_LAYER, own)
}

/// An unsolicited neighbour advertisement that takes the place of what others know (section 7.2.6),
/// without its checksum.
pub(super) fn advertisement(own: Mac, address: Ipv6Addr) -> Vec<u8> {
    neighbour(
        NEIGHBOUR_ADVERTISEMENT,
        OVERRIDE,
        address,
        TARGET_LINK_LAYER,
        own,
    )
}

fn neighbour(kind: u8, flags: u8, target: Ipv6Addr, option: u8, own: Mac) -> Vec<u8> {
    let head = [kind, 0, 0, 0, flags, 0, 0, 0];
    [&head[..], &target.octets(), &[option, 1], &own.0].concat()
}

/// Who says in a neighbour advertisement to have an address. One that does not say its hardware
/// address answers nobody who asked all (section 4.4).
pub(super) fn neighbour_claim(message: &[u8]) -> Option<(Ipv6Addr, Mac)> {
    if message.get(..2)? != [NEIGHBOUR_ADVERTISEMENT, 0] {
        return None;
    }
    let target: [u8; 16] = message.get(8..OPTIONS)?.try_into().ok()?;
    let target = Ipv6Addr::from(target);
    let mut options = message.get(OPTIONS..)?;
    while let [kind, eighths, ..] = *options {
        let length = usize::from(eighths) * 8;
        let option = options.get(..length).filter(|_| length > 0)?;
        if kind == TARGET_LINK_LAYER {
            let mac = Mac(option.get(2..8)?.try_into().ok()?);
            return (!target.is_multicast()).then_some((target, mac));
        }
        options = &options[length..];
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn announcements_are_claims_and_probes_are_none() {
        let address = Ipv4Addr::new(192, 0, 2, 7);
        for frame in arp_announcements(OWN, address) {
            assert_eq!((frame.len(), arp_claim(&frame)), (60, Some((address, OWN))));
            assert_eq!(frame[..6], [0xff; 6]);
        }
        assert_eq!(arp_claim(&arp_probe(OWN, address)), None);
        let address: Ipv6Addr = "2001:db8::1:2345".parse().unwrap();
        let claim = neighbour_claim(&advertisement(OWN, address));
        assert_eq!(claim, Some((address, OWN)));
        assert_eq!(neighbour_claim(&solicitation(OWN, address)), None);
        let group: Ipv6Addr = "ff02::1:ff01:2345".parse().unwrap();
        assert_eq!(solicited_node(address), group);
    }

    #[test]
    fn other_options_are_passed_over() {
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mut message = advertisement(OWN, address);
        let mut others = vec![14, 2];
        others.resize(16, 0);
        message.splice(OPTIONS..OPTIONS, others);
        assert_eq!(neighbour_claim(&message), Some((address, OWN)));
        message[OPTIONS + 1] = 0;
        assert_eq!(neighbour_claim(&message), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            arp_claim(&bytes);
            neighbour_claim(&bytes);
        }

        #[test]
        fn what_is_nearly_right_as_well(
            cut in 0_usize..70, at in 0_usize..60, byte: u8, ipv6: bool,
        ) {
            let mut bytes = match ipv6 {
                false => arp_announcements(OWN, Ipv4Addr::new(192, 0, 2, 7))[0].clone(),
                true => advertisement(OWN, Ipv6Addr::LOCALHOST),
            };
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            arp_claim(&bytes);
            neighbour_claim(&bytes);
        }
    }
}
