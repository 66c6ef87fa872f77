//! The text that WireGuard devices in user space are configured with
//! (<https://www.wireguard.com/xplatform/>), as it is sent and as it is taken. Pure.
//!
//! Two operations are our own: `version=1` tells what runs, `stop=1` ends it.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use ipnet::IpNet;
use rustix::io::Errno;

use crate::{PrivateKey, PublicKey};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// All there is to know.
    Get,
    /// To be otherwise.
    Set(Set),
    /// The version of what runs.
    Version,
    /// To end.
    Stop,
}

/// What is to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// The device's own key.
    pub private_key: Option<PrivateKey>,
    /// The UDP port.
    pub listen_port: Option<u16>,
    /// Whether there are to be no other peers than these.
    pub replace_peers: bool,
    /// Peers that are to be added, changed or removed.
    pub peers: Vec<PeerSet>,
}

/// What is to change of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSet {
    /// Whom it is about.
    pub key: PublicKey,
    /// It is to be no more.
    pub remove: bool,
    /// It is not to be added if it is not there.
    pub update_only: bool,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between packets that say that this one is there; 0 is never.
    pub keepalive: Option<u16>,
    /// Whether it is to have no other addresses than these.
    pub replace_allowed: bool,
    /// Addresses that lead to it, and that it may send from.
    pub allowed: Vec<IpNet>,
}

impl PeerSet {
    /// Nothing of this one is to change yet.
    #[must_use]
    pub fn new(key: PublicKey) -> Self {
        Self {
            key,
            remove: false,
            update_only: false,
            endpoint: None,
            keepalive: None,
            replace_allowed: false,
            allowed: Vec::new(),
        }
    }
}

/// What a device is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Its key.
    pub private_key: Option<PrivateKey>,
    /// Its UDP port.
    pub listen_port: u16,
    /// Its peers.
    pub peers: Vec<PeerState>,
}

/// What one peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// Its key.
    pub key: PublicKey,
    /// Where it was last.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between packets that say that this one is there; 0 is never.
    pub keepalive: u16,
    /// Its addresses.
    pub allowed: Vec<IpNet>,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
    /// When keys were agreed on last, in seconds since 1970; 0 is never.
    pub last_handshake: u64,
}

impl Request {
    /// Reads a request, which ends with an empty line. The error is what the answer has as `errno`.
    pub fn parse(text: &str) -> Result<Self, Errno> {
        let mut lines = text.lines().take_while(|line| !line.is_empty());
        match lines.next() {
            Some("get=1") => Ok(Self::Get),
            Some("set=1") => Set::parse(lines).map(Self::Set),
            Some("version=1") => Ok(Self::Version),
            Some("stop=1") => Ok(Self::Stop),
            _ => Err(Errno::PROTO),
        }
    }
}

impl Set {
    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, Errno> {
        let mut set = Self::default();
        for line in lines {
            let (key, value) = line.split_once('=').ok_or(Errno::PROTO)?;
            if key == "public_key" {
                let key = value.parse().map_err(|_| Errno::INVAL)?;
                set.peers.push(PeerSet::new(key));
                continue;
            }
            match set.peers.last_mut() {
                None => set.take(key, value)?,
                Some(peer) => peer.take(key, value)?,
            }
        }
        Ok(set)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), Errno> {
        match key {
            "private_key" => {
                self.private_key = Some(value.parse().map_err(|_| Errno::INVAL)?);
            }
            "listen_port" => self.listen_port = Some(value.parse().map_err(|_| Errno::INVAL)?),
            "replace_peers" => self.replace_peers = yes(value)?,
            "fwmark" if value == "0" => {}
            _ => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }
}

impl PeerSet {
    fn take(&mut self, key: &str, value: &str) -> Result<(), Errno> {
        match key {
            "remove" => self.remove = yes(value)?,
            "update_only" => self.update_only = yes(value)?,
            "endpoint" => self.endpoint = Some(value.parse().map_err(|_| Errno::INVAL)?),
            "persistent_keepalive_interval" => {
                self.keepalive = Some(value.parse().map_err(|_| Errno::INVAL)?);
            }
            "replace_allowed_ips" => self.replace_allowed = yes(value)?,
            "allowed_ip" => {
                let net: IpNet = value.parse().map_err(|_| Errno::INVAL)?;
                self.allowed.push(net.trunc());
            }
            "protocol_version" if value == "1" => {}
            "preshared_key" if value.bytes().all(|b| b == b'0') => {}
            _ => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }
}

fn yes(value: &str) -> Result<bool, Errno> {
    match value {
        "true" => Ok(true),
        _ => Err(Errno::INVAL),
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set=1\n")?;
        if let Some(key) = &self.private_key {
            writeln!(f, "private_key={}", key.reveal())?;
        }
        if let Some(port) = self.listen_port {
            writeln!(f, "listen_port={port}")?;
        }
        if self.replace_peers {
            f.write_str("replace_peers=true\n")?;
        }
        for peer in &self.peers {
            writeln!(f, "public_key={}", peer.key)?;
            let flags = [
                (peer.remove, "remove"),
                (peer.update_only, "update_only"),
                (peer.replace_allowed, "replace_allowed_ips"),
            ];
            for (_, name) in flags.iter().filter(|(on, _)| *on) {
                writeln!(f, "{name}=true")?;
            }
            if let Some(endpoint) = peer.endpoint {
                writeln!(f, "endpoint={endpoint}")?;
            }
            if let Some(seconds) = peer.keepalive {
                writeln!(f, "persistent_keepalive_interval={seconds}")?;
            }
            for net in &peer.allowed {
                writeln!(f, "allowed_ip={net}")?;
            }
        }
        f.write_char('\n')
    }
}

impl State {
    /// Reads what a device says of itself; what is not known is passed over.
    pub fn parse(text: &str) -> Result<Self, Errno> {
        let mut state = Self::default();
        for line in text.lines().take_while(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').ok_or(Errno::PROTO)?;
            let number = || value.parse::<u64>().map_err(|_| Errno::PROTO);
            match (key, state.peers.last_mut()) {
                ("errno", _) => match value.parse::<i32>().map_err(|_| Errno::PROTO)? {
                    0 => {}
                    errno => return Err(Errno::from_raw_os_error(errno.abs())),
                },
                ("public_key", _) => {
                    let key = value.parse().map_err(|_| Errno::PROTO)?;
                    state.peers.push(PeerState {
                        key,
                        endpoint: None,
                        keepalive: 0,
                        allowed: Vec::new(),
                        received: 0,
                        sent: 0,
                        last_handshake: 0,
                    });
                }
                ("private_key", None) => {
                    state.private_key = Some(value.parse().map_err(|_| Errno::PROTO)?);
                }
                ("listen_port", None) => {
                    state.listen_port = value.parse().map_err(|_| Errno::PROTO)?;
                }
                ("endpoint", Some(peer)) => {
                    peer.endpoint = Some(value.parse().map_err(|_| Errno::PROTO)?);
                }
                ("persistent_keepalive_interval", Some(peer)) => {
                    peer.keepalive = value.parse().map_err(|_| Errno::PROTO)?;
                }
                ("allowed_ip", Some(peer)) => {
                    peer.allowed.push(value.parse().map_err(|_| Errno::PROTO)?);
                }
                ("rx_bytes", Some(peer)) => peer.received = number()?,
                ("tx_bytes", Some(peer)) => peer.sent = number()?,
                ("last_handshake_time_sec", Some(peer)) => peer.last_handshake = number()?,
                _ => {}
            }
        }
        Ok(state)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.private_key {
            writeln!(f, "private_key={}", key.reveal())?;
        }
        writeln!(f, "listen_port={}", self.listen_port)?;
        for peer in &self.peers {
            writeln!(f, "public_key={}", peer.key)?;
            if let Some(endpoint) = peer.endpoint {
                writeln!(f, "endpoint={endpoint}")?;
            }
            for (key, value) in [
                ("persistent_keepalive_interval", u64::from(peer.keepalive)),
                ("last_handshake_time_sec", peer.last_handshake),
                ("last_handshake_time_nsec", 0),
                ("rx_bytes", peer.received),
                ("tx_bytes", peer.sent),
            ] {
                writeln!(f, "{key}={value}")?;
            }
            for net in &peer.allowed {
                writeln!(f, "allowed_ip={net}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set() -> Set {
        let mut peer = PeerSet::new(PrivateKey::generate().public());
        peer.endpoint = Some("[fd00::1]:4790".parse().unwrap());
        peer.keepalive = Some(25);
        peer.replace_allowed = true;
        peer.allowed = vec!["10.0.0.1/32".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let mut gone = PeerSet::new(PrivateKey::generate().public());
        gone.remove = true;
        Set {
            private_key: Some(PrivateKey::generate()),
            listen_port: Some(4790),
            replace_peers: true,
            peers: vec![peer, gone],
        }
    }

    #[test]
    fn what_is_sent_is_understood() {
        let set = set();
        assert_eq!(Request::parse(&set.to_string()), Ok(Request::Set(set)));
        assert_eq!(Request::parse("get=1\n\n"), Ok(Request::Get));
        assert_eq!(Request::parse("\n"), Err(Errno::PROTO));
        assert_eq!(
            Request::parse("set=1\nlisten_port=70000\n\n"),
            Err(Errno::INVAL)
        );
        // A key of this kind would be ignored, and nothing be as secret as was meant.
        let shared = format!(
            "set=1\npublic_key={}\npreshared_key={}\n\n",
            set_key(),
            "1".repeat(64)
        );
        assert_eq!(Request::parse(&shared), Err(Errno::OPNOTSUPP));
    }

    fn set_key() -> PublicKey {
        PrivateKey::generate().public()
    }

    #[test]
    fn what_a_device_says_is_understood() {
        let state = State {
            private_key: Some(PrivateKey::generate()),
            listen_port: 4790,
            peers: vec![PeerState {
                key: set_key(),
                endpoint: Some("10.0.0.2:4790".parse().unwrap()),
                keepalive: 25,
                allowed: vec!["10.0.0.2/32".parse().unwrap()],
                received: 7,
                sent: 8,
                last_handshake: 9,
            }],
        };
        let text = format!("{state}errno=0\n\n");
        assert_eq!(State::parse(&text), Ok(state));
        assert_eq!(State::parse("errno=-22\n\n"), Err(Errno::INVAL));
    }

    proptest! {
        #[test]
        fn any_text_is_no_harm(text in "(set=1\n)?(([a-z_]{1,12}|public_key|allowed_ip|endpoint)=[0-9a-f:./]{0,70}\n){0,5}", other in ".{0,100}") {
            let _ = (Request::parse(&text), State::parse(&text), Request::parse(&other));
        }
    }
}
