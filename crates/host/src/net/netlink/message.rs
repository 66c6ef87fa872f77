//! Netlink messages (`linux/netlink.h`): a header, and what an answer says.

use super::Answers;
use super::attributes::attributes;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;

/// One message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The number of the request.
    pub(crate) sequence: u32,
    pub(crate) said: Said,
}

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// An object, or a notice.
    Object { kind: u16, body: Vec<u8> },
    /// The request was carried out.
    Done,
    /// The request was refused.
    Refused { errno: i32, words: Option<String> },
}

/// Writes a message; `body` writes what comes after the header.
pub(crate) fn write(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The messages in what was received: kind, flags, sequence and body.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes, 0)?).ok()?;
        let message = bytes.get(..length)?;
        let body = message.get(HEADER..)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        let kinds = number(message, 4)?.to_ne_bytes();
        let kind = u16::from_ne_bytes([kinds[0], kinds[1]]);
        let flags = u16::from_ne_bytes([kinds[2], kinds[3]]);
        Some((kind, flags, number(message, 8)?, body))
    })
}

/// Takes what was received.
pub(super) fn read(bytes: &[u8], answers: &mut Answers) {
    for (kind, flags, sequence, body) in messages(bytes) {
        answers.interrupted |= flags & NLM_F_DUMP_INTR != 0 && kind != NLMSG_ERROR;
        let said = match kind {
            // The end of a list has an error as well, if it could not be made.
            NLMSG_ERROR | NLMSG_DONE => verdict(kind, flags, body),
            _ => Said::Object {
                kind,
                body: body.to_vec(),
            },
        };
        answers.all.push(Answer { sequence, said });
    }
}

fn verdict(kind: u16, flags: u16, body: &[u8]) -> Said {
    let errno = number(body, 0).map_or(0, |code| code.cast_signed().wrapping_neg());
    if errno == 0 {
        return Said::Done;
    }
    // After the code comes the request's header, and the rest of it unless that was left out.
    let request = number(body, 4).filter(|_| kind == NLMSG_ERROR);
    let skipped = match request.and_then(|length| usize::try_from(length).ok()) {
        _ if flags & NLM_F_ACK_TLVS == 0 => body.len(),
        Some(_) if flags & NLM_F_CAPPED != 0 => 4 + HEADER,
        Some(length) => 4 + length.next_multiple_of(4),
        None => 4,
    };
    let rest = body.get(skipped..).unwrap_or(&[]);
    let words = attributes(rest)
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, text)| super::attributes::text(text));
    Said::Refused { errno, words }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::attributes::Attributes;
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        write(&mut bytes, 0x0a10, NLM_F_ACK, 7, |out| {
            out.extend_from_slice(b"abc");
        });
        write(&mut bytes, 3, 0, 8, |_| {});
        assert_eq!(bytes.len(), 20 + 16);
        let seen: Vec<_> = messages(&bytes).collect();
        assert_eq!(
            seen,
            [(0x0a10, NLM_F_ACK | 1, 7, &b"abc"[..]), (3, 1, 8, &b""[..])]
        );
    }

    #[test]
    fn a_refusal_has_the_kernels_words() {
        let mut bytes = Vec::new();
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        write(&mut bytes, NLMSG_ERROR, flags, 3, |out| {
            out.extend_from_slice(&(-17_i32).to_ne_bytes());
            out.extend_from_slice(&400_u32.to_ne_bytes()); // the request, of which only
            out.extend_from_slice(&[0; 12]); // the header is sent back
            Attributes(out).text(NLMSGERR_ATTR_MSG, "already there");
        });
        let mut answers = Answers::default();
        read(&bytes, &mut answers);
        let words = Some("already there".to_owned());
        let said = Said::Refused { errno: 17, words };
        assert_eq!(answers.all, [Answer { sequence: 3, said }]);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut answers = Answers::default();
        for length in 0..40 {
            for fill in [0, 1, 2, 16, 0x7f, 0xff] {
                let mut bytes = vec![fill; length];
                read(&bytes, &mut answers);
                if length > 18 {
                    bytes[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
                    bytes[4..8].copy_from_slice(&[2, 0, 0, 2]);
                    read(&bytes, &mut answers);
                }
            }
        }
    }
}
