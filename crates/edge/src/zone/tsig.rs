//! Signatures of messages with a shared key (RFC 8945).

use ring::hmac;

use super::answer::plain;
use super::name::Name;
use super::query::Query;
use crate::dns::wire::{HEADER, code, kind, skip_name, word};

/// Seconds that two clocks may differ (RFC 8945 section 10).
const FUDGE: u16 = 300;
const ANY_CLASS: [u8; 2] = [0, 255];

/// Codes of signatures (RFC 8945 section 3).
pub(crate) mod fault {
    pub(crate) const SIGNATURE: u16 = 16;
    pub(crate) const KEY: u16 = 17;
    pub(crate) const TIME: u16 = 18;
    pub(crate) const TRUNCATED: u16 = 22;
}

/// A key that two servers share.
pub struct Key {
    name: Name,
    algorithm: &'static Algorithm,
    secret: hmac::Key,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, {})", self.name, self.algorithm.shown)
    }
}

struct Algorithm {
    shown: &'static str,
    wire: &'static [u8],
    hmac: &'static hmac::Algorithm,
}

// MD5 and SHA-1 are not to be used any more (RFC 8945 section 6).
static ALGORITHMS: [Algorithm; 3] = [
    Algorithm {
        shown: "hmac-sha256",
        wire: b"\x0bhmac-sha256\0",
        hmac: &hmac::HMAC_SHA256,
    },
    Algorithm {
        shown: "hmac-sha384",
        wire: b"\x0bhmac-sha384\0",
        hmac: &hmac::HMAC_SHA384,
    },
    Algorithm {
        shown: "hmac-sha512",
        wire: b"\x0bhmac-sha512\0",
        hmac: &hmac::HMAC_SHA512,
    },
];

impl Key {
    /// A key as `tsig-keygen` and others print it: its secret is in base64.
    ///
    /// # Errors
    /// In words, if it is none.
    pub fn new(name: &str, algorithm: &str, secret: &str) -> Result<Self, String> {
        use base64::Engine as _;
        let name: Name = name.parse().map_err(|e| format!("TSIG key: {e}"))?;
        let known = ALGORITHMS.iter();
        let mut known = known.filter(|a| a.shown.eq_ignore_ascii_case(algorithm));
        let Some(algorithm) = known.next() else {
            return Err(format!(
                "TSIG key {name}: `{algorithm}` is not supported: use hmac-sha256, hmac-sha384 or hmac-sha512"
            ));
        };
        let secret = base64::engine::general_purpose::STANDARD.decode(secret.trim());
        let secret = secret.map_err(|_| format!("TSIG key {name}: its secret is not base64"))?;
        if secret.len() < 16 {
            return Err(format!(
                "TSIG key {name}: its secret has {} bytes: at least 16 are needed, `tsig-keygen` makes one",
                secret.len()
            ));
        }
        Ok(Self {
            name,
            algorithm,
            secret: hmac::Key::new(*algorithm.hmac, &secret),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Bytes of a signature with it.
    pub(crate) fn size(&self) -> usize {
        let mac = self.algorithm.hmac.digest_algorithm().output_len();
        self.name.wire().len() + 10 + self.algorithm.wire.len() + 16 + mac + 6
    }
}

/// A signature as it is in a message.
#[derive(Debug)]
struct Signature<'a> {
    name: Name,
    algorithm: Name,
    /// Time and fudge.
    times: &'a [u8],
    mac: &'a [u8],
    id: u16,
    error: u16,
    other: &'a [u8],
}

impl<'a> Signature<'a> {
    fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let end = skip_name(message, at)?;
        // Names in it have no pointers: it is new, and its key's name need not stand before.
        let name = Name::from_wire(message.get(at..end)?)?;
        let fixed = message.get(end..end + 10)?;
        if fixed[..2] != kind::TSIG.to_be_bytes()
            || fixed[2..4] != ANY_CLASS
            || fixed[4..8] != [0; 4]
        {
            return None;
        }
        let data = message.get(end + 10..)?;
        if data.len() != usize::from(word(fixed, 8)?) {
            return None;
        }
        let algorithm_end = skip_name(data, 0)?;
        let algorithm = Name::from_wire(data.get(..algorithm_end)?)?;
        let rest = &data[algorithm_end..];
        let times = rest.get(..8)?;
        let size = usize::from(word(rest, 8)?);
        let mac = rest.get(10..10 + size)?;
        let rest = &rest[10 + size..];
        let (id, error) = (word(rest, 0)?, word(rest, 2)?);
        let other = rest
            .get(6..)
            .filter(|o| Some(o.len()) == word(rest, 4).map(usize::from))?;
        Some(Self {
            name,
            algorithm,
            times,
            mac,
            id,
            error,
            other,
        })
    }

    fn time(&self) -> u64 {
        self.times[..6]
            .iter()
            .fold(0, |t, b| t << 8 | u64::from(*b))
    }
}

/// Where the signature of a message begins; none if it has none that stands last.
pub(crate) fn find(message: &[u8]) -> Option<usize> {
    let (_, items) = crate::dns::message::walk(message)?;
    let last = items
        .last()
        .filter(|i| i.kind == kind::TSIG && i.section == 2);
    last.map(|i| i.at)
}

/// What answers to a signed message are signed with.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key: std::sync::Arc<Key>,
    /// The signature that the next one follows.
    before: Vec<u8>,
    /// Whether the next one is not the first of the answer.
    later: bool,
    error: u16,
    /// Time and fudge of who asked, if his clock differs.
    theirs: Option<[u8; 8]>,
}

/// Why a signature does not count, and how that is answered (RFC 8945 section 5.2).
#[derive(Debug)]
pub(crate) enum Refused {
    /// It cannot be read.
    Malformed,
    /// The answer is not signed: there is no key that it could be signed with.
    Unsigned {
        error: u16,
        name: Name,
        algorithm: Name,
    },
    /// The clocks differ: the answer says what time it is here.
    Time(Signer),
}

/// Whether a message was signed with one of our keys.
///
/// # Errors
/// [`Refused`].
pub(crate) fn verify<'k>(
    message: &[u8],
    at: usize,
    key: impl FnOnce(&[u8]) -> Option<&'k std::sync::Arc<Key>>,
    now: u64,
) -> Result<Signer, Refused> {
    let signature = Signature::read(message, at).ok_or(Refused::Malformed)?;
    let refused = |error, s: &Signature| Refused::Unsigned {
        error,
        name: s.name.clone(),
        algorithm: s.algorithm.clone(),
    };
    let key = key(signature.name.wire()).filter(|k| k.algorithm.wire == signature.algorithm.wire());
    let Some(key) = key else {
        return Err(refused(fault::KEY, &signature));
    };
    check(key, &[], message, at, &signature).map_err(|error| refused(error, &signature))?;
    let signer = Signer {
        key: std::sync::Arc::clone(key),
        before: signature.mac.to_vec(),
        later: false,
        error: 0,
        theirs: None,
    };
    let fudge = u64::from(u16::from_be_bytes([signature.times[6], signature.times[7]]));
    match now.abs_diff(signature.time()) <= fudge {
        true => Ok(signer),
        false => Err(Refused::Time(Signer {
            error: fault::TIME,
            theirs: signature.times.first_chunk().copied(),
            ..signer
        })),
    }
}

fn check(
    key: &Key,
    before: &[u8],
    message: &[u8],
    at: usize,
    signature: &Signature,
) -> Result<(), u16> {
    let whole = key.algorithm.hmac.digest_algorithm().output_len();
    if signature.mac.len() < whole {
        return Err(fault::TRUNCATED);
    }
    let mut bytes = prefix(before);
    let start = bytes.len();
    bytes.extend_from_slice(&message[..at]);
    bytes[start..start + 2].copy_from_slice(&signature.id.to_be_bytes());
    let additional = word(message, 10).unwrap_or_default().wrapping_sub(1);
    bytes[start + 10..start + HEADER].copy_from_slice(&additional.to_be_bytes());
    variables(
        key,
        signature.times,
        signature.error,
        signature.other,
        &mut bytes,
    );
    hmac::verify(&key.secret, &bytes, signature.mac).map_err(|_| fault::SIGNATURE)
}

/// The signature before, behind its length (RFC 8945 section 5.3).
fn prefix(before: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !before.is_empty() {
        bytes.extend_from_slice(&(before.len() as u16).to_be_bytes());
        bytes.extend_from_slice(before);
    }
    bytes
}

/// What is signed of the signature itself (RFC 8945 section 4.3.3).
fn variables(key: &Key, times: &[u8], error: u16, other: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(key.name.wire());
    out.extend_from_slice(&ANY_CLASS);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(key.algorithm.wire);
    out.extend_from_slice(times);
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&(other.len() as u16).to_be_bytes());
    out.extend_from_slice(other);
}

fn append(
    out: &mut Vec<u8>,
    (name, algorithm): (&[u8], &[u8]),
    times: &[u8],
    mac: &[u8],
    error: u16,
    other: &[u8],
) {
    let id = [out[0], out[1]];
    out.extend_from_slice(name);
    out.extend_from_slice(&kind::TSIG.to_be_bytes());
    out.extend_from_slice(&ANY_CLASS);
    out.extend_from_slice(&[0; 4]);
    let length = algorithm.len() + times.len() + 2 + mac.len() + 6 + other.len();
    out.extend_from_slice(&(length as u16).to_be_bytes());
    out.extend_from_slice(algorithm);
    out.extend_from_slice(times);
    out.extend_from_slice(&(mac.len() as u16).to_be_bytes());
    out.extend_from_slice(mac);
    out.extend_from_slice(&id);
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&(other.len() as u16).to_be_bytes());
    out.extend_from_slice(other);
    let count = word(out, 10).unwrap_or_default().wrapping_add(1);
    out[10..HEADER].copy_from_slice(&count.to_be_bytes());
}

fn times(now: u64) -> [u8; 8] {
    let mut times = [0; 8];
    times[..6].copy_from_slice(&now.to_be_bytes()[2..]);
    times[6..].copy_from_slice(&FUDGE.to_be_bytes());
    times
}

impl Signer {
    /// For a message that answers none.
    pub(crate) fn new(key: std::sync::Arc<Key>) -> Self {
        Self {
            key,
            before: Vec::new(),
            later: false,
            error: 0,
            theirs: None,
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Signs a message; the next one follows it.
    pub(crate) fn sign(&mut self, out: &mut Vec<u8>, now: u64) {
        // Who asked would not take an answer of another time: it has his, and ours beside it (RFC 8945
        // section 5.2.3).
        let times = self.theirs.unwrap_or_else(|| times(now));
        let other = match self.error {
            fault::TIME => &now.to_be_bytes()[2..],
            _ => &[],
        };
        let mut bytes = prefix(&self.before);
        bytes.extend_from_slice(out);
        if self.later {
            bytes.extend_from_slice(&times);
        } else {
            variables(&self.key, &times, self.error, other, &mut bytes);
        }
        let mac = hmac::sign(&self.key.secret, &bytes);
        let names = (self.key.name.wire(), self.key.algorithm.wire);
        append(out, names, &times, mac.as_ref(), self.error, other);
        self.before = mac.as_ref().to_vec();
        self.later = true;
    }

    /// Whether a message is the signed answer to what was signed last.
    pub(crate) fn is_answer(&self, message: &[u8], now: u64) -> bool {
        let Some(at) = find(message) else {
            return false;
        };
        let Some(signature) = Signature::read(message, at) else {
            return false;
        };
        let known = signature.name == self.key.name
            && signature.algorithm.wire() == self.key.algorithm.wire;
        known
            && check(&self.key, &self.before, message, at, &signature).is_ok()
            && now.abs_diff(signature.time()) <= u64::from(FUDGE)
    }
}

/// Writes the answer to a message whose signature does not count.
pub(crate) fn refuse(query: &Query, refused: Refused, now: u64, out: &mut Vec<u8>) {
    match refused {
        Refused::Malformed => plain(query, code::MALFORMED, out),
        Refused::Unsigned {
            error,
            name,
            algorithm,
        } => {
            plain(query, code::NOT_AUTHORITATIVE, out);
            append(
                out,
                (name.wire(), algorithm.wire()),
                &times(now),
                &[],
                error,
                &[],
            );
        }
        Refused::Time(mut signer) => {
            plain(query, code::NOT_AUTHORITATIVE, out);
            signer.sign(out, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dns::question;

    fn key(secret: u8) -> Arc<Key> {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::STANDARD.encode([secret; 32]);
        Arc::new(Key::new("to-it.example", "hmac-sha256", &secret).unwrap())
    }

    fn signed(key: &Arc<Key>, now: u64) -> (Signer, Vec<u8>) {
        let mut packet = question(7, "example.org", kind::SOA).unwrap();
        let mut signer = Signer::new(Arc::clone(key));
        signer.sign(&mut packet, now);
        (signer, packet)
    }

    #[test]
    fn what_is_signed_is_verified_and_its_answer_too() {
        let key = key(1);
        let (asker, packet) = signed(&key, 1000);
        let at = find(&packet).unwrap();
        let mut server = verify(&packet, at, |_| Some(&key), 1200).unwrap();
        let mut answer = question(7, "example.org", kind::SOA).unwrap();
        answer[2] |= 0x80;
        server.sign(&mut answer, 1200);
        assert!(asker.is_answer(&answer, 1000));
        assert!(!asker.is_answer(&answer, 2000));
        answer[3] |= 1;
        assert!(!asker.is_answer(&answer, 1000));
    }

    #[test]
    fn other_keys_times_and_bytes_are_refused() {
        let ours = key(1);
        let (_, packet) = signed(&ours, 1000);
        let at = find(&packet).unwrap();
        let refused =
            |key: Option<&Arc<Key>>, packet: &[u8], now| match verify(packet, at, |_| key, now) {
                Ok(_) => 0,
                Err(Refused::Unsigned { error, .. }) => error,
                Err(Refused::Time(signer)) => signer.error,
                Err(Refused::Malformed) => 1,
            };
        assert_eq!(refused(Some(&ours), &packet, 1000), 0);
        assert_eq!(refused(Some(&key(2)), &packet, 1000), fault::SIGNATURE);
        assert_eq!(refused(None, &packet, 1000), fault::KEY);
        assert_eq!(refused(Some(&ours), &packet, 1301), fault::TIME);
        let mut changed = packet.clone();
        changed[13] ^= 1;
        assert_eq!(refused(Some(&ours), &changed, 1000), fault::SIGNATURE);
        for length in at..packet.len() {
            assert_eq!(refused(Some(&ours), &packet[..length], 1000), 1);
        }
    }

    #[test]
    fn a_clock_that_differs_is_told_what_time_it_is() {
        let key = key(1);
        let (asker, packet) = signed(&key, 1000);
        let at = find(&packet).unwrap();
        let refused = verify(&packet, at, |_| Some(&key), 9000).unwrap_err();
        let query = crate::zone::query::parse(&packet).unwrap();
        let mut answer = Vec::new();
        refuse(&query, refused, 9000, &mut answer);
        // The asker's time, or he would not believe the signature.
        assert!(asker.is_answer(&answer, 1000));
        let signature = Signature::read(&answer, find(&answer).unwrap()).unwrap();
        assert_eq!((signature.time(), signature.error), (1000, fault::TIME));
        assert_eq!(signature.other, &9000_u64.to_be_bytes()[2..]);
    }

    #[test]
    fn keys_are_read() {
        assert!(
            Key::new("a", "hmac-md5", "AAAA")
                .unwrap_err()
                .contains("not supported")
        );
        assert!(
            Key::new("a", "hmac-sha256", "AAAA")
                .unwrap_err()
                .contains("3 bytes")
        );
        assert!(
            Key::new("a", "hmac-sha256", "?")
                .unwrap_err()
                .contains("base64")
        );
    }
}
