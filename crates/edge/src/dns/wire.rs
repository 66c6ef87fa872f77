//! Questions as they come in (RFC 1035 section 4, EDNS: RFC 6891).

/// Bytes of a message's header.
pub(crate) const HEADER: usize = 12;
/// A message over UDP has at most so many bytes, unless the asker says that it takes more.
pub(crate) const PLAIN_SIZE: usize = 512;
/// More is not sent over UDP, whatever the asker takes: it would be fragmented (RFC 9715).
pub(crate) const MOST_UDP: usize = 1232;

pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const DNAME: u16 = 39;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const CAA: u16 = 257;
    pub(crate) const TSIG: u16 = 250;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}

/// Response codes (RFC 1035 section 4.1.1, RFC 6891 section 9).
pub(crate) mod code {
    pub(crate) const OK: u16 = 0;
    pub(crate) const MALFORMED: u16 = 1;
    pub(crate) const FAILED: u16 = 2;
    pub(crate) const NO_NAME: u16 = 3;
    pub(crate) const NOT_IMPLEMENTED: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const NOT_AUTHORITATIVE: u16 = 9;
    pub(crate) const BAD_VERSION: u16 = 16;
}

pub(crate) const IN: u16 = 1;
pub(crate) const ANY_CLASS: u16 = 255;

/// Bits of the second 16-bit word.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 1 << 15;
    pub(crate) const OPCODE: u16 = 0xf << 11;
    pub(crate) const AUTHORITATIVE: u16 = 1 << 10;
    pub(crate) const TRUNCATED: u16 = 1 << 9;
    pub(crate) const RECURSION: u16 = 1 << 8;
    pub(crate) const RECURSES: u16 = 1 << 7;
    pub(crate) const UNCHECKED: u16 = 1 << 4;
    pub(crate) const CODE: u16 = 0xf;
}

/// What an asker says with EDNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    /// Bytes that it takes over UDP.
    pub(crate) size: usize,
    pub(crate) version: u8,
    /// It wants signatures (DO).
    pub(crate) signed: bool,
}

/// A question.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Name, type and class as they were sent.
    pub(crate) question: &'a [u8],
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
}

impl Query<'_> {
    /// Bytes that an answer over UDP may have.
    pub(crate) fn udp_size(&self) -> usize {
        let size = self.edns.map_or(PLAIN_SIZE, |e| e.size);
        size.clamp(PLAIN_SIZE, MOST_UDP)
    }
}

/// A name in lower case, without a dot at its end.
pub(crate) struct Name {
    bytes: [u8; 256],
    length: usize,
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        // Only printable ASCII is ever put in.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }
}

/// Why a packet is no question that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is not even a question: whoever sent it gets nothing, or two servers would talk for ever.
    Noise,
    /// It is refused with this code.
    Code(u16),
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([two[0], two[1]]))
}

/// Where a name that begins at `at` ends in a message; names may end with a pointer (RFC 1035
/// section 4.1.4), which is not followed.
pub(crate) fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + length,
            // Two bits set: a pointer of 14 bits. Other combinations are reserved.
            192.. => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// Reads a question.
///
/// # Errors
/// [`Bad`]: nothing is answered, or a code.
pub(crate) fn parse(packet: &[u8]) -> Result<Query<'_>, Bad> {
    let malformed = Bad::Code(code::MALFORMED);
    let header = |i| word(packet, i).ok_or(Bad::Noise);
    let (id, flags) = (header(0)?, header(2)?);
    if packet.len() < HEADER || flags & flag::RESPONSE != 0 {
        return Err(Bad::Noise);
    }
    if flags & flag::OPCODE != 0 {
        return Err(Bad::Code(code::NOT_IMPLEMENTED));
    }
    if header(4)? != 1 {
        return Err(malformed);
    }
    let (name, end) = read_name(packet, HEADER).ok_or(malformed)?;
    let kind = word(packet, end).ok_or(malformed)?;
    let class = word(packet, end + 2).ok_or(malformed)?;
    let question = &packet[HEADER..end + 4];
    let others = usize::from(header(6)?) + usize::from(header(8)?) + usize::from(header(10)?);
    let edns = read_edns(packet, end + 4, others).ok_or(malformed)?;
    Ok(Query {
        id,
        flags,
        question,
        name,
        kind,
        class,
        edns,
    })
}

/// A name of a question, and where it ends. Nothing before it could be pointed to.
fn read_name(packet: &[u8], mut at: usize) -> Option<(Name, usize)> {
    let mut name = Name {
        bytes: [0; 256],
        length: 0,
    };
    let start = at;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        // With the length's byte and the root's the whole name has 255 bytes at most.
        if length > 63 || at + length - start > 254 {
            return None;
        }
        if name.length > 0 {
            name.push(b'.');
        }
        for byte in packet.get(at..at + length)? {
            // A dot inside a label, or anything else odd, is in no name of ours.
            let odd = !byte.is_ascii_graphic() || *byte == b'.';
            name.push(if odd { b'?' } else { byte.to_ascii_lowercase() });
        }
        at += length;
    }
}

/// What the asker says with EDNS: outside none if the message is broken, inside none if it says
/// nothing.
#[allow(clippy::option_option)] // said in the line above
fn read_edns(packet: &[u8], mut at: usize, records: usize) -> Option<Option<Edns>> {
    let mut found = None;
    for _ in 0..records {
        let end = skip_name(packet, at)?;
        let kind = word(packet, end)?;
        let length = usize::from(word(packet, end + 8)?);
        let rest = packet.get(end + 2..end + 10 + length)?;
        if kind == kind::OPT {
            // At the root, and once (RFC 6891 section 6.1.1).
            if found.is_some() || end != at + 1 {
                return None;
            }
            found = Some(Edns {
                size: usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                version: rest[3],
                signed: rest[4] & 0x80 != 0,
            });
        }
        at = end + 10 + length;
    }
    Some(found)
}

/// A name as it is in a message; none if it cannot be in one.
pub(crate) fn encode_name(name: &str, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let name = name.strip_suffix('.').unwrap_or(name);
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let length = u8::try_from(label.len()).ok();
        let Some(length) = length.filter(|l| (1..=63).contains(l)) else {
            out.truncate(start);
            return None;
        };
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    if out.len() - start > 255 {
        out.truncate(start);
        return None;
    }
    Some(())
}

/// A question for a name; `None` if it is no name. Types are those of RFC 1035 section 3.2.2 and
/// later ones: 1 A, 28 AAAA, 33 SRV, 12 PTR.
#[must_use]
pub fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(64);
    for word in [id, flag::RECURSION, 1, 0, 0, 0] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    encode_name(name, &mut packet)?;
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&IN.to_be_bytes());
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_is_read() {
        let mut packet = question(7, "Web.SHOP.internal.", kind::A).unwrap();
        let query = parse(&packet).unwrap();
        assert_eq!((query.id, query.kind, query.class), (7, kind::A, IN));
        assert_eq!(query.name.as_str(), "web.shop.internal");
        assert_eq!((query.edns, query.udp_size()), (None, PLAIN_SIZE));
        packet[11] = 1;
        packet.extend([0, 0, 41, 4, 0, 0, 0, 0x80, 0, 0, 0]);
        let edns = Edns {
            size: 1024,
            version: 0,
            signed: true,
        };
        assert_eq!(parse(&packet).unwrap().edns, Some(edns));
        packet.pop();
        assert_eq!(parse(&packet).unwrap_err(), Bad::Code(code::MALFORMED));
    }

    #[test]
    fn what_is_odd_is_in_no_name() {
        let mut packet = question(7, "a", kind::A).unwrap();
        packet.splice(12..14, *b"\x05w\x2eb\x00\xff");
        assert_eq!(parse(&packet).unwrap().name.as_str(), "w?b??");
        assert_eq!(question(1, "a..b", kind::A), None);
        assert_eq!(question(1, &"a".repeat(64), kind::A), None);
        assert_eq!(question(1, &"a.".repeat(128), kind::A), None);
        assert!(question(1, &"a.".repeat(127), kind::A).is_some());
        assert_eq!(
            parse(&question(1, "", kind::A).unwrap())
                .unwrap()
                .name
                .as_str(),
            ""
        );
    }

    #[test]
    fn noise_is_not_answered() {
        let mut response = question(7, "a", kind::A).unwrap();
        response[2] |= 0x80;
        assert_eq!(parse(&response).unwrap_err(), Bad::Noise);
        assert_eq!(parse(&response[..11]).unwrap_err(), Bad::Noise);
        let mut other = question(7, "a", kind::A).unwrap();
        other[2] = 0x20;
        assert_eq!(parse(&other).unwrap_err(), Bad::Code(code::NOT_IMPLEMENTED));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn questions_with_any_end_are_read(
            name in proptest::collection::vec(any::<u8>(), 0..300),
            end in proptest::collection::vec(any::<u8>(), 0..40),
            counts in proptest::array::uniform6(0_u8..3),
        ) {
            let mut bytes = vec![0, 7, 1, 0, 0, 1];
            bytes.extend(counts);
            bytes.extend(name);
            bytes.extend(end);
            let _ = parse(&bytes);
        }
    }
}
