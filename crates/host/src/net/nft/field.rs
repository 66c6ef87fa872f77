//! What sets are keyed by, and how it lies in the registers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::Mac;

/// The kind of a field. The numbers are nft's own datatypes, which the kernel keeps for whoever
/// lists the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Ip4,
    Ip6,
    Mac,
    Protocol,
    Port,
    /// Any number, in the machine's order.
    Mark,
    Interface,
}

impl Type {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Ip4 => 7,
            Self::Ip6 => 8,
            Self::Mac => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
            Self::Interface => 41,
        }
    }

    pub(crate) fn length(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ip4 | Self::Mark => 4,
            Self::Mac => 6,
            Self::Ip6 | Self::Interface => 16,
        }
    }

    /// How many of the 32-bit registers it takes.
    pub(crate) fn registers(self) -> u8 {
        match self {
            Self::Protocol | Self::Port | Self::Ip4 | Self::Mark => 1,
            Self::Mac => 2,
            Self::Ip6 | Self::Interface => 4,
        }
    }
}

/// The kind and length of several fields in a row, as nft has them: six bits each, and each at a
/// multiple of four bytes.
pub(super) fn concatenated(types: &[Type]) -> (u32, u32) {
    match types {
        [one] => (one.number(), one.length()),
        _ => types.iter().fold((0, 0), |(kind, length), one| {
            (
                kind << 6 | one.number(),
                length + one.length().next_multiple_of(4),
            )
        }),
    }
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Address(IpAddr),
    Mac(Mac),
    Protocol(u8),
    Port(u16),
    Mark(u32),
    Interface(String),
}

impl Field {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Address(IpAddr::V4(address)) => address.octets().to_vec(),
            Self::Address(IpAddr::V6(address)) => address.octets().to_vec(),
            Self::Mac(mac) => mac.0.to_vec(),
            Self::Protocol(protocol) => vec![*protocol],
            Self::Port(port) => port.to_be_bytes().to_vec(),
            Self::Mark(mark) => mark.to_ne_bytes().to_vec(),
            Self::Interface(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(16, 0); // `IFNAMSIZ`
                bytes
            }
        }
    }
}

impl From<IpAddr> for Field {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<Ipv4Addr> for Field {
    fn from(address: Ipv4Addr) -> Self {
        Self::Address(address.into())
    }
}

impl From<Ipv6Addr> for Field {
    fn from(address: Ipv6Addr) -> Self {
        Self::Address(address.into())
    }
}

/// Fields in a row as a key or value: one as it is, several each filled up to four bytes.
pub(crate) fn concat(fields: &[Field]) -> Vec<u8> {
    if let [one] = fields {
        return one.bytes();
    }
    let mut all = Vec::new();
    for field in fields {
        all.extend(field.bytes());
        all.resize(all.len().next_multiple_of(4), 0);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_a_row_are_filled_up() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        let fields = [address.into(), Field::Protocol(6), Field::Port(80)];
        assert_eq!(concat(&fields), [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(concat(&fields[2..]), [0, 80]);
        // As in `nft --debug=netlink`: type 0x71b0d is ipv4_addr . inet_proto . inet_service.
        let types = [Type::Ip4, Type::Protocol, Type::Port];
        assert_eq!(concatenated(&types), (7 << 12 | 12 << 6 | 13, 12));
        assert_eq!(concatenated(&[Type::Port]), (13, 2));
    }
}
