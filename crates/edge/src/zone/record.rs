//! Records of a zone: whose, of what type, for how long, and their data as it is in a message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::Name;
use crate::dns::wire::kind;

/// A record of class IN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Whose.
    pub name: Name,
    /// Its type (RFC 1035 section 3.2.2 and later ones).
    pub kind: u16,
    /// Seconds that it may be kept.
    pub ttl: u32,
    /// Its data as in a message, names in it not compressed.
    pub data: Box<[u8]>,
}

/// The data of a record, for those who make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// NS: a server of this zone, or of one that is delegated.
    Server(Name),
    /// CNAME.
    Alias(Name),
    /// PTR.
    Pointer(Name),
    /// MX.
    Mail(u16, Name),
    /// SRV (RFC 2782).
    Service {
        /// Those with the lowest are tried first.
        priority: u16,
        /// How often it is taken among those with one priority.
        weight: u16,
        /// Port.
        port: u16,
        /// Host.
        target: Name,
    },
    /// TXT: strings of up to 255 bytes; longer ones are divided.
    Text(Vec<Vec<u8>>),
}

impl Record {
    /// A record with this data.
    #[must_use]
    pub fn new(name: Name, ttl: u32, data: &Data) -> Self {
        let (kind, data) = encode(data);
        Self {
            name,
            kind,
            ttl,
            data: data.into(),
        }
    }

    /// The address of an A or AAAA record.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.kind {
            kind::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(&*self.data).ok()?).into()),
            kind::AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(&*self.data).ok()?).into()),
            _ => None,
        }
    }

    /// The name that its data is or leads to, for types that have one.
    #[must_use]
    pub fn target(&self) -> Option<Name> {
        let at = match self.kind {
            kind::NS | kind::CNAME | kind::PTR => 0,
            kind::MX => 2,
            kind::SRV => 6,
            _ => return None,
        };
        Name::from_wire(self.data.get(at..)?)
    }
}

fn encode(data: &Data) -> (u16, Vec<u8>) {
    let named = |words: &[u16], name: &Name| -> Vec<u8> {
        let words = words.iter().flat_map(|w| w.to_be_bytes());
        words.chain(name.wire().iter().copied()).collect()
    };
    match data {
        Data::Address(IpAddr::V4(a)) => (kind::A, a.octets().to_vec()),
        Data::Address(IpAddr::V6(a)) => (kind::AAAA, a.octets().to_vec()),
        Data::Server(name) => (kind::NS, named(&[], name)),
        Data::Alias(name) => (kind::CNAME, named(&[], name)),
        Data::Pointer(name) => (kind::PTR, named(&[], name)),
        Data::Mail(preference, name) => (kind::MX, named(&[*preference], name)),
        Data::Service {
            priority,
            weight,
            port,
            target,
        } => (kind::SRV, named(&[*priority, *weight, *port], target)),
        Data::Text(texts) => {
            let mut out = Vec::new();
            for text in texts {
                // An empty one is one as well.
                let mut parts = text.chunks(255).peekable();
                if parts.peek().is_none() {
                    out.push(0);
                }
                for part in parts {
                    out.push(part.len() as u8); // 255 at most
                    out.extend_from_slice(part);
                }
            }
            (kind::TXT, out)
        }
    }
}

const KINDS: &[(u16, &str)] = &[
    (kind::A, "A"),
    (kind::NS, "NS"),
    (kind::CNAME, "CNAME"),
    (kind::SOA, "SOA"),
    (kind::PTR, "PTR"),
    (kind::HINFO, "HINFO"),
    (kind::MX, "MX"),
    (kind::TXT, "TXT"),
    (kind::AAAA, "AAAA"),
    (kind::SRV, "SRV"),
    (kind::DNAME, "DNAME"),
    (kind::DS, "DS"),
    (kind::CAA, "CAA"),
];

/// The name of a type; of one without a name that we know: `TYPE123` (RFC 3597 section 5).
#[must_use]
pub fn kind_name(kind: u16) -> String {
    let known = KINDS.iter().find(|(k, _)| *k == kind);
    known.map_or_else(|| format!("TYPE{kind}"), |(_, n)| (*n).to_owned())
}

/// The type of a name.
#[must_use]
pub fn kind_of(name: &str) -> Option<u16> {
    let known = KINDS.iter().find(|(_, n)| n.eq_ignore_ascii_case(name));
    known.map(|(k, _)| *k).or_else(|| {
        let (prefix, number) = name.split_at_checked(4)?;
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        (prefix.eq_ignore_ascii_case("TYPE") && digits)
            .then(|| number.parse().ok())
            .flatten()
    })
}

/// Whether a record of this type can be in a zone: others are questions, or parts of messages
/// (RFC 6895 section 3.1).
pub(crate) fn is_data(kind: u16) -> bool {
    kind != 0 && kind != kind::OPT && !(128..=255).contains(&kind)
}
