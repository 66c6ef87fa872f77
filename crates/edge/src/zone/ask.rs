//! Asking servers, to see what they say: for [`check`](super::check).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::name::Name;
use super::record::Record;
use crate::dns::message::walk;
use crate::dns::wire::{HEADER, IN, flag, kind};

/// A question to a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The server.
    pub to: SocketAddr,
    /// By TCP, not by UDP.
    pub by_tcp: bool,
    /// Whether it is to ask others.
    pub recursive: bool,
    /// Name.
    pub name: Name,
    /// Type.
    pub kind: u16,
}

/// What a server says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Response code.
    pub code: u16,
    /// Whether it knows by itself.
    pub authoritative: bool,
    /// Whether it asks others for who asks.
    pub recurses: bool,
    /// The records of the answer, of who else knows, and what goes with them.
    pub sections: [Vec<Record>; 3],
}

impl Question {
    /// As a packet.
    #[must_use]
    pub fn packet(&self, id: u16) -> Vec<u8> {
        let flags = if self.recursive { flag::RECURSION } else { 0 };
        let mut out = Vec::with_capacity(64);
        for word in [id, flags, 1, 0, 0, 1] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(self.name.wire());
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&IN.to_be_bytes());
        // EDNS, 1232 bytes.
        out.extend_from_slice(&[0, 0, kind::OPT as u8, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        out
    }

    /// Asks, a second time if the first was lost; nothing if there is no answer in time.
    pub async fn ask(&self, wait: Duration) -> Option<Reply> {
        for _ in 0..if self.by_tcp { 1 } else { 2 } {
            let id = rand::random();
            let packet = self.packet(id);
            let answer = match self.by_tcp {
                true => timeout(wait, by_tcp(self.to, &packet)).await,
                false => timeout(wait, by_udp(self.to, &packet, id)).await,
            };
            if let Ok(Ok(bytes)) = answer {
                let cut_off = bytes.get(2).is_some_and(|b| b & 2 != 0);
                if cut_off && !self.by_tcp {
                    let whole = timeout(wait, by_tcp(self.to, &packet)).await;
                    return whole.ok()?.ok().and_then(|b| Reply::read(&b));
                }
                return Reply::read(&bytes);
            }
        }
        None
    }
}

async fn by_udp(to: SocketAddr, packet: &[u8], id: u16) -> io::Result<Vec<u8>> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0_u16; 8].into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= HEADER && buffer[..2] == id.to_be_bytes() && buffer[2] & 0x80 != 0 {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn by_tcp(to: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), packet].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl Reply {
    /// Reads an answer; `None` if it is broken.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let (_, items) = walk(message)?;
        let flags = crate::dns::wire::word(message, 2)?;
        let mut reply = Self {
            code: flags & flag::CODE,
            authoritative: flags & flag::AUTHORITATIVE != 0,
            recurses: flags & flag::RECURSES != 0,
            sections: Default::default(),
        };
        for item in items.into_iter().filter(|i| i.kind != kind::OPT) {
            let data = data(message, item.kind, &item.data)?;
            reply.sections[usize::from(item.section)].push(Record {
                name: name_at(message, item.at)?.0,
                kind: item.kind,
                ttl: item.ttl,
                data: data.into(),
            });
        }
        Some(reply)
    }
}

/// Data without pointers.
fn data(message: &[u8], kind: u16, at: &std::ops::Range<usize>) -> Option<Vec<u8>> {
    let (fixed, names) = match kind {
        kind::NS | kind::CNAME | kind::PTR => (0, 1),
        kind::MX => (2, 1),
        kind::SRV => (6, 1),
        kind::SOA => (0, 2),
        _ => return message.get(at.clone()).map(<[u8]>::to_vec),
    };
    let mut out = message.get(at.start..at.start + fixed)?.to_vec();
    let mut next = at.start + fixed;
    for _ in 0..names {
        let (name, end) = name_at(message, next)?;
        out.extend_from_slice(name.wire());
        next = end;
    }
    out.extend_from_slice(message.get(next..at.end)?);
    Some(out)
}

/// A name, its pointers followed: each leads to an earlier place than the one before. And where it
/// ends.
fn name_at(message: &[u8], mut at: usize) -> Option<(Name, usize)> {
    let (mut wire, mut before, mut end) = (Vec::new(), at, None);
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => {
                wire.push(0);
                return Some((Name::from_wire(&wire)?, end.unwrap_or(at + 1)));
            }
            1..=63 => {
                wire.extend_from_slice(message.get(at..at + 1 + length)?);
                if wire.len() > super::name::LONGEST {
                    return None;
                }
                at += 1 + length;
            }
            192.. => {
                let low = usize::from(*message.get(at + 1)?);
                end.get_or_insert(at + 2);
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

    proptest! {
        #[test]
        fn any_answer_is_read(
            counts in proptest::array::uniform8(0_u8..2),
            bytes in proptest::collection::vec(prop_oneof![0_u8..8, Just(0xc0), Just(12), any::<u8>()], 0..200),
        ) {
            let mut message = vec![0, 1, 0x80, 0];
            message.extend(counts);
            message.extend(bytes);
            let _ = Reply::read(&message);
        }
    }
}
