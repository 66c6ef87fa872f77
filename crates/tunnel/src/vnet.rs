//! What stands before each packet on the device (`linux/virtio_net.h`, `struct
//! virtio_net_hdr_v1_hash_tunnel`): whether it is many segments in one, and which checksum is due.

/// Bytes of it.
pub(crate) const LENGTH: usize = 24;

/// A checksum is to be completed.
pub(crate) const NEEDS_CSUM: u8 = 1;
/// The tunnel's own UDP header has a checksum too.
pub(crate) const OUTER_CSUM: u8 = 8;
/// Many segments of TCP over IPv4.
pub(crate) const TCP4: u8 = 1;
/// The same over IPv6.
pub(crate) const TCP6: u8 = 4;
/// Many UDP datagrams.
pub(crate) const UDP: u8 = 5;
/// These are in a tunnel over UDP and IPv4.
pub(crate) const IN_UDP4: u8 = 0x20;
/// These are in a tunnel over UDP and IPv6.
pub(crate) const IN_UDP6: u8 = 0x40;
/// The kind without what is beside it (`VIRTIO_NET_HDR_GSO_ECN` is the highest bit).
const KIND: u8 = 0x1f;

/// One such header. Offsets count from the Ethernet header on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Vnet {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) header: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
    pub(crate) outer_transport: u16,
    pub(crate) inner_network: u16,
}

impl Vnet {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.get(..LENGTH)?.try_into().ok()?;
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let vnet = Self {
            flags: bytes[0],
            gso_type: bytes[1],
            header: number(2),
            gso_size: number(4),
            csum_start: number(6),
            csum_offset: number(8),
            outer_transport: 0,
            inner_network: 0,
        };
        // Elsewhere these are not written.
        Some(match vnet.is_tunnelled() {
            false => vnet,
            true => Self {
                outer_transport: number(20),
                inner_network: number(22),
                ..vnet
            },
        })
    }

    pub(crate) fn bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        for (at, number) in [
            (2, self.header),
            (4, self.gso_size),
            (6, self.csum_start),
            (8, self.csum_offset),
            (20, self.outer_transport),
            (22, self.inner_network),
        ] {
            bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// The kind of segments; 0 if it is just one packet.
    pub(crate) fn kind(&self) -> u8 {
        self.gso_type & KIND
    }

    pub(crate) fn is_tunnelled(&self) -> bool {
        self.gso_type & (IN_UDP4 | IN_UDP6) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let vnet = Vnet {
            flags: NEEDS_CSUM,
            gso_type: TCP4 | IN_UDP4,
            header: 118,
            gso_size: 1318,
            csum_start: 98,
            csum_offset: 16,
            outer_transport: 34,
            inner_network: 78,
        };
        assert_eq!(Vnet::read(&vnet.bytes()), Some(vnet));
        assert_eq!(Vnet::read(&vnet.bytes()[1..]), None);
        // Offsets in the layout of the kernel's header.
        assert_eq!(vnet.bytes()[4..6], 1318u16.to_le_bytes());
        assert_eq!(vnet.bytes()[22..24], 78u16.to_le_bytes());
    }
}
