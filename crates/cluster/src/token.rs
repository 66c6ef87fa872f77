//! Join tokens: one text that tells a newcomer whom to ask, where, and with which secret.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::NodeId;

const PREFIX: &str = "wharfie-1-";
/// The longest text that is looked at, in bytes.
const LONGEST: usize = 4096;

/// What a newcomer needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The node that lets in.
    pub issuer: NodeId,
    /// Where it can be reached; it may also be found by multicast.
    pub addresses: Vec<SocketAddr>,
    /// Proof of permission, once.
    pub secret: [u8; 16],
    /// Until when, in seconds since 1970.
    pub expires: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(of {})", self.issuer.short())
    }
}

/// A text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It is something else.
    #[error("this is no join token: one begins with {PREFIX:?}, and `wharfie token` makes it")]
    NoToken,
    /// It is one of another version.
    #[error("this join token is of another version of wharfie: install the same version here")]
    OtherVersion,
    /// Part of it is missing or wrong.
    #[error(
        "this join token is cut off or mistyped: copy the whole line that `wharfie token` wrote"
    )]
    Damaged,
}

impl Token {
    /// What the issuer remembers: nobody can make the token of it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.secret)
    }
}

/// What the issuer remembers of a secret.
#[must_use]
pub fn fingerprint(secret: &[u8; 16]) -> String {
    let hash = Sha256::digest(secret);
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let hash = Sha256::digest(bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_stdvec(self).map_err(|_| fmt::Error)?;
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE64.encode(bytes))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Err(if text.starts_with("wharfie-") {
                BadToken::OtherVersion
            } else {
                BadToken::NoToken
            });
        };
        if rest.len() > LONGEST {
            return Err(BadToken::Damaged);
        }
        let bytes = BASE64.decode(rest).map_err(|_| BadToken::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(BadToken::Damaged)?;
        if checksum(body) != *sum {
            return Err(BadToken::Damaged);
        }
        postcard::from_bytes(body).map_err(|_| BadToken::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> Token {
        Token {
            issuer: NodeId([7; 32]),
            addresses: vec!["10.1.2.3:7700".parse().unwrap()],
            secret: [9; 16],
            expires: 2_000_000_000,
        }
    }

    #[test]
    fn there_and_back() {
        let text = token().to_string();
        assert!(text.len() < 120, "{text}");
        assert_eq!(format!(" {text}\n").parse(), Ok(token()));
    }

    #[test]
    fn mistakes_are_told_apart() {
        let text = token().to_string();
        assert_eq!(
            text[..text.len() - 3].parse::<Token>(),
            Err(BadToken::Damaged)
        );
        assert_eq!("hello".parse::<Token>(), Err(BadToken::NoToken));
        assert_eq!(
            "wharfie-2-abc".parse::<Token>(),
            Err(BadToken::OtherVersion)
        );
        let other = if text.ends_with('A') { "B" } else { "A" };
        let mistyped = format!("{}{other}{}", &text[..30], &text[31..]);
        assert!(mistyped == text || mistyped.parse::<Token>() == Err(BadToken::Damaged));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = text.parse::<Token>();
            let _ = format!("{PREFIX}{text}").parse::<Token>();
        }
    }
}
