//! Where DockerMod's protocol is spoken, and to whom, as the settings say it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Deserializer};

/// Characters a token must have: shorter ones can be guessed.
const SHORTEST: usize = 16;

/// A token that requests must show. It is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Token(String);

impl Token {
    /// The token of a text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What is wrong with it as a token.
    pub(crate) fn fault(&self) -> Option<String> {
        if !self.0.bytes().all(|b| b.is_ascii_graphic()) {
            return Some("a token has no blanks, and only letters of ASCII".to_owned());
        }
        (self.0.len() < SHORTEST).then(|| format!("a token has at least {SHORTEST} characters"))
    }

    /// Whether it was shown. How long this takes tells nothing of where they differ.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(shown).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// An address: `8080` and `localhost:8080` are of this host only, `0.0.0.0:8080` is not.
pub(crate) fn address(text: &str) -> Option<SocketAddr> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let local = text.strip_prefix("localhost:").unwrap_or(text);
    if let Ok(port) = local.parse() {
        return Some(SocketAddr::new(loopback, port));
    }
    text.parse().ok()
}

/// Whether only this host reaches an address.
pub(crate) fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// A port may be written as a number.
pub(crate) fn text_or_port<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Port(u16),
        Text(String),
    }
    Ok(match Option::deserialize(deserializer)? {
        Some(Either::Port(port)) => Some(port.to_string()),
        Some(Either::Text(text)) => Some(text),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_this_host_unless_they_say_otherwise() {
        for (text, meant, local) in [
            ("8080", "127.0.0.1:8080", true),
            ("localhost:8080", "127.0.0.1:8080", true),
            ("127.0.0.2:8080", "127.0.0.2:8080", true),
            ("[::1]:8080", "[::1]:8080", true),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:8080", "0.0.0.0:8080", false),
            ("[::]:8080", "[::]:8080", false),
            ("10.0.0.1:80", "10.0.0.1:80", false),
        ] {
            let address = address(text).unwrap();
            assert_eq!(address.to_string(), meant);
            assert_eq!(is_local(address), local, "{text}");
        }
        for text in ["", ":8080", "8080x", "70000", "0.0.0.0", "host:80", "-1"] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_are_compared_whole_and_never_printed() {
        let token = Token::new("0123456789abcdef");
        assert!(token.is(b"0123456789abcdef"));
        for other in [
            "0123456789abcdeg",
            "0123456789abcde",
            "",
            "0123456789abcdef0",
        ] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert!(!format!("{token:?}").contains("0123"));
        assert_eq!(token.fault(), None);
        assert!(Token::new("short").fault().is_some());
        assert!(Token::new("0123456789 abcdef").fault().is_some());
    }
}
