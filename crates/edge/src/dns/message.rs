//! Messages of others: what is in them, without trusting any of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::wire::{HEADER, kind, skip_name};

/// A record of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Where its name begins, and with it the record.
    pub(crate) at: usize,
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    /// Where its time to live is.
    pub(crate) ttl_at: usize,
    pub(crate) data: Range<usize>,
    /// 0 answer, 1 authority, 2 additional.
    pub(crate) section: u8,
}

/// Where a message's question ends, and its records; `None` if it is broken.
pub(crate) fn walk(message: &[u8]) -> Option<(usize, Vec<Item>)> {
    let word = |at: usize| -> Option<u16> {
        let two = message.get(at..at + 2)?;
        Some(u16::from_be_bytes([two[0], two[1]]))
    };
    let mut at = HEADER;
    for _ in 0..word(4)? {
        at = skip_name(message, at)? + 4;
    }
    let question = at;
    let mut items = Vec::new();
    for section in 0..3_u8 {
        for _ in 0..word(6 + 2 * usize::from(section))? {
            let end = skip_name(message, at)?;
            let length = usize::from(word(end + 8)?);
            let data = end + 10..end + 10 + length;
            message.get(data.clone())?;
            let ttl = u32::from(word(end + 4)?) << 16 | u32::from(word(end + 6)?);
            let next = data.end;
            items.push(Item {
                at,
                kind: word(end)?,
                // Values with the first bit set are 0 (RFC 2181 section 8).
                ttl: if ttl >> 31 == 0 { ttl } else { 0 },
                ttl_at: end + 4,
                data,
                section,
            });
            at = next;
        }
    }
    (question <= message.len()).then_some((question, items))
}

/// A message as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Response code: 0 no error, 2 failure, 3 no such name, 5 refused (RFC 1035 section 4.1.1).
    pub code: u16,
    /// Whether something was left out.
    pub truncated: bool,
    /// The records of the answer.
    pub answers: Vec<Answered>,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Its name, without a dot at its end.
    pub name: String,
    /// Seconds that it may be kept.
    pub ttl: u32,
    /// What it has.
    pub value: Value,
}

/// What a record has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A or AAAA.
    Address(IpAddr),
    /// PTR or CNAME.
    Name(String),
    /// SRV.
    Service {
        /// Port.
        port: u16,
        /// Host.
        target: String,
    },
    /// Something else, of this type.
    Other(u16),
}

impl Message {
    /// Reads a message; `None` if it is broken.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let (_, items) = walk(message)?;
        let mut answers = Vec::new();
        for item in items.into_iter().filter(|i| i.section == 0) {
            let data = &message[item.data.clone()];
            let value = match item.kind {
                kind::A => {
                    let octets: [u8; 4] = data.try_into().ok()?;
                    Value::Address(Ipv4Addr::from(octets).into())
                }
                kind::AAAA => {
                    let octets: [u8; 16] = data.try_into().ok()?;
                    Value::Address(Ipv6Addr::from(octets).into())
                }
                kind::PTR | kind::CNAME => Value::Name(name_at(message, item.data.start)?),
                kind::SRV => Value::Service {
                    port: u16::from_be_bytes([*data.get(4)?, *data.get(5)?]),
                    target: name_at(message, item.data.start + 6)?,
                },
                other => Value::Other(other),
            };
            answers.push(Answered {
                name: name_at(message, item.at)?,
                ttl: item.ttl,
                value,
            });
        }
        Some(Self {
            code: u16::from(message[3] & 0xf),
            truncated: message[2] & 2 != 0,
            answers,
        })
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let address = |a: &Answered| match a.value {
            Value::Address(address) => Some(address),
            _ => None,
        };
        self.answers.iter().filter_map(address).collect()
    }
}

/// A name in a message, its pointers followed: each leads to an earlier place than the one before.
fn name_at(message: &[u8], mut at: usize) -> Option<String> {
    let mut name = String::new();
    let mut before = at;
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some(name),
            1..=63 => {
                if !name.is_empty() {
                    name.push('.');
                }
                let label = message.get(at + 1..at + 1 + length)?;
                let shown = |b: &u8| match b.is_ascii_graphic() && *b != b'.' {
                    true => char::from(*b),
                    false => '?',
                };
                name.extend(label.iter().map(shown));
                if name.len() > 255 {
                    return None;
                }
                at += 1 + length;
            }
            192.. => {
                let low = usize::from(*message.get(at + 1)?);
                let to = (length & 0x3f) << 8 | low;
                if to >= before {
                    return None;
                }
                (before, at) = (to, to);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rings_of_pointers_end() {
        // A header that counts one answer, whose name points to itself.
        let mut message = vec![0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xc0, 12];
        message.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
        assert!(walk(&message).is_some());
        assert_eq!(Message::read(&message), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::read(&bytes);
        }

        #[test]
        fn any_records_are_read(
            counts in proptest::array::uniform8(0_u8..3),
            bytes in proptest::collection::vec(prop_oneof![0_u8..4, Just(0xc0), any::<u8>()], 0..200),
        ) {
            let mut message = vec![0, 1, 0x80, 0];
            message.extend(counts.map(|c| c & 1));
            message.extend(bytes);
            if let Some((_, items)) = walk(&message) {
                for item in items {
                    prop_assert!(item.ttl_at + 4 <= message.len());
                }
            }
            let _ = Message::read(&message);
        }
    }
}
