//! Keys of nodes (X25519, RFC 7748).

use std::fmt;
use std::str::FromStr;

use boringtun::x25519;

/// What a node is known by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// What only the node itself has.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey([u8; 32]);

/// Not a key: 64 hexadecimal digits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: 64 hexadecimal digits are one")]
pub struct NoKey;

impl PrivateKey {
    /// A new one.
    ///
    /// # Panics
    /// Where the kernel has no random numbers, which is nowhere since Linux 3.17.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        let flags = rustix::rand::GetRandomFlags::empty();
        // Up to 256 bytes come at once and are never interrupted (getrandom(2)).
        let length = rustix::rand::getrandom(&mut bytes[..], flags);
        assert_eq!(length, Ok(bytes.len()), "the kernel has random numbers");
        Self(bytes)
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.secret()).to_bytes())
    }

    pub(crate) fn secret(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(self.0)
    }

    /// For what is configured with it, and nothing else.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As it was stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As configurations have it: it is not written anywhere else.
    #[must_use]
    pub fn reveal(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        unhex(text).map(Self)
    }
}

impl FromStr for PrivateKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        unhex(text).map(Self)
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // into memory: cannot fail
        text
    })
}

fn unhex(text: &str) -> Result<[u8; 32], NoKey> {
    let text = text.as_bytes();
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return Err(NoKey);
    }
    let digit = |at: usize| char::from(text[at]).to_digit(16).ok_or(NoKey);
    for (at, byte) in bytes.iter_mut().enumerate() {
        let value = digit(2 * at)? * 16 + digit(2 * at + 1)?;
        *byte = u8::try_from(value).map_err(|_| NoKey)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_rfc() {
        // Computed with the formulas of RFC 7748, 5, apart from the library.
        let private = "77076d0a7318a57d3c16c17251b26645df4c2f92ebc099c2a2fba1d6ed8a8d6b";
        let private: PrivateKey = private.parse().unwrap();
        assert_eq!(private.reveal().parse(), Ok(private.clone()));
        let public = private.public();
        let known = "a2c29b749881bc9292cbe1cd43aff6dde9572d986ee0f727204e5adabe476c15";
        assert_eq!(public.to_string(), known);
        assert_eq!(known.parse(), Ok(public));
        assert_eq!("77".parse::<PublicKey>(), Err(NoKey));
        assert_eq!("é".repeat(32).parse::<PublicKey>(), Err(NoKey));
        assert_ne!(PrivateKey::generate(), PrivateKey::generate());
        assert!(!format!("{private:?}").contains("77076d"));
    }
}
