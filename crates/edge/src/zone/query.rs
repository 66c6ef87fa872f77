//! Questions to the zones as they come in: names as bytes, since what is asked is looked up as it is
//! in the message; with what transfers and signatures need.

use super::name::LONGEST;
use crate::dns::wire::{self, Bad, Edns, HEADER, MOST_UDP, PLAIN_SIZE, code, flag, kind, word};

/// A question.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Name, type and class as they were sent.
    pub(crate) question: &'a [u8],
    lower: [u8; LONGEST],
    length: usize,
    pub(crate) labels: usize,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
    /// Where the signature begins (RFC 8945).
    pub(crate) tsig: Option<usize>,
    /// The serial of the SOA that a question for differences has (RFC 1995 section 3).
    pub(crate) serial: Option<u32>,
}

impl Query<'_> {
    /// The name, in lower case.
    pub(crate) fn name(&self) -> &[u8] {
        &self.lower[..self.length]
    }

    /// Bytes that an answer over UDP may have.
    pub(crate) fn udp_size(&self) -> usize {
        let size = self.edns.map_or(PLAIN_SIZE, |e| e.size);
        size.clamp(PLAIN_SIZE, MOST_UDP)
    }
}

/// Reads a question.
///
/// # Errors
/// [`Bad`]: nothing is answered, or a code.
#[inline]
pub(crate) fn parse(packet: &[u8]) -> Result<Query<'_>, Bad> {
    let malformed = Bad::Code(code::MALFORMED);
    let header: &[u8; HEADER] = packet.first_chunk().ok_or(Bad::Noise)?;
    let field = |i: usize| u16::from_be_bytes([header[i], header[i + 1]]);
    let flags = field(2);
    if flags & flag::RESPONSE != 0 {
        return Err(Bad::Noise);
    }
    if flags & flag::OPCODE != 0 {
        return Err(Bad::Code(code::NOT_IMPLEMENTED));
    }
    // One question (RFC 9619), and nothing that is an answer.
    if field(4) != 1 || field(6) != 0 {
        return Err(malformed);
    }
    let (mut at, mut labels) = (HEADER, 0);
    loop {
        let length = usize::from(*packet.get(at).ok_or(malformed)?);
        at += 1 + length;
        match length {
            0 => break,
            // Nothing before it could be pointed to.
            64.. => return Err(malformed),
            _ => labels += 1,
        }
    }
    let name = packet.get(HEADER..at).filter(|n| n.len() <= LONGEST);
    let name = name.ok_or(malformed)?;
    let rest: &[u8; 4] = packet[at..].first_chunk().ok_or(malformed)?;
    let mut query = Query {
        id: field(0),
        flags,
        question: &packet[HEADER..at + 4],
        lower: [0; LONGEST],
        length: name.len(),
        labels,
        kind: u16::from_be_bytes([rest[0], rest[1]]),
        class: u16::from_be_bytes([rest[2], rest[3]]),
        edns: None,
        tsig: None,
        serial: None,
    };
    query.lower[..name.len()].copy_from_slice(name);
    // Lengths are below the letters.
    query.lower[..name.len()].make_ascii_lowercase();
    let (authority, additional) = (field(8), field(10));
    if (authority, additional) != (0, 0) {
        records(&mut query, packet, at + 4, authority, additional).ok_or(malformed)?;
    }
    Ok(query)
}

/// What stands behind the question; none if it is broken.
fn records(
    query: &mut Query,
    packet: &[u8],
    mut at: usize,
    authority: u16,
    additional: u16,
) -> Option<()> {
    let all = u32::from(authority) + u32::from(additional);
    for number in 0..all {
        let end = wire::skip_name(packet, at)?;
        let kind = word(packet, end)?;
        let length = usize::from(word(packet, end + 8)?);
        let data = packet.get(end + 10..end + 10 + length)?;
        let in_additional = number >= u32::from(authority);
        match kind {
            // At the root, and once (RFC 6891 section 6.1.1).
            kind::OPT if query.edns.is_some() || end != at + 1 || !in_additional => return None,
            kind::OPT => {
                options(data)?;
                query.edns = Some(Edns {
                    size: usize::from(word(packet, end + 2)?),
                    version: packet[end + 5],
                    signed: packet[end + 6] & 0x80 != 0,
                });
            }
            // Last of all (RFC 8945 section 5.1).
            kind::TSIG if number + 1 != all || !in_additional => return None,
            kind::TSIG => query.tsig = Some(at),
            kind::SOA if query.kind == kind::IXFR && !in_additional => {
                let names = wire::skip_name(packet, end + 10)?;
                let numbers = wire::skip_name(packet, names)?;
                let high = u32::from(word(packet, numbers)?);
                let low = u32::from(word(packet, numbers + 2)?);
                query.serial = Some(high << 16 | low);
            }
            _ => {}
        }
        at = end + 10 + length;
    }
    Some(())
}

/// Options are not looked at, but they must be some (RFC 6891 section 6.1.2).
fn options(mut data: &[u8]) -> Option<()> {
    while !data.is_empty() {
        let length = usize::from(word(data, 2)?);
        data = data.get(4 + length..)?;
    }
    Some(())
}
