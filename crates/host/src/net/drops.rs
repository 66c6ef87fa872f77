//! What firewalls dropped, as the kernel tells of it (`linux/netfilter/nfnetlink_log.h`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::attributes::{Attributes, attribute, text};
use super::netlink::message::{self, NLM_F_ACK};
use super::netlink::{Answers, Said, Socket};
use super::{Error, Namespace, Protocol};

/// The group that dropped packets are sent to. Not the kernel's log: that says nothing of what
/// happens in containers' namespaces unless it is told to (`nf_log_all_netns`).
pub(crate) const GROUP: u16 = 7700;

const NFNL_SUBSYS_ULOG: u16 = 4;
const NFULNL_MSG_PACKET: u16 = NFNL_SUBSYS_ULOG << 8;
const NFULNL_MSG_CONFIG: u16 = NFNL_SUBSYS_ULOG << 8 | 1;
const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULNL_CFG_CMD_BIND: u8 = 1;
const NFULNL_COPY_PACKET: u8 = 2;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
/// Headers are enough.
const COPIED: u32 = 96;

/// Tells what the firewall of one namespace drops, if that has `log`.
pub struct Drops {
    socket: Socket,
}

/// A packet that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Whose firewall it was, and which rule: `demo-web-1 ingress default`.
    pub rule: String,
    /// The protocol's number.
    pub protocol: u8,
    /// Where it came from; the port is 0 where there is none.
    pub source: SocketAddr,
    /// Where it went.
    pub destination: SocketAddr,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            protocol,
            source,
            destination,
        } = self;
        write!(
            f,
            "{rule}: dropped protocol {protocol} from {source} to {destination}"
        )
    }
}

impl Drops {
    /// Begins to listen in a container's namespace. There can be one listener.
    pub fn open(namespace: &Namespace) -> Result<Self, Error> {
        let mut socket = Socket::open(namespace, NETLINK_NETFILTER)?;
        let mut bytes = Vec::new();
        let mode = [&COPIED.to_be_bytes()[..], &[NFULNL_COPY_PACKET, 0]].concat();
        for (kind, value) in [
            (NFULA_CFG_CMD, vec![NFULNL_CFG_CMD_BIND]),
            (NFULA_CFG_MODE, mode),
        ] {
            let sequence = socket.next_sequence();
            message::write(&mut bytes, NFULNL_MSG_CONFIG, NLM_F_ACK, sequence, |out| {
                out.extend_from_slice(&[0, 0]); // AF_UNSPEC, version 0
                out.extend_from_slice(&GROUP.to_be_bytes());
                Attributes(out).bytes(kind, &value);
            });
        }
        for answer in socket.talk(&bytes)?.all {
            if let Said::Refused { errno, words } = answer.said {
                let about = format!("to tell what is dropped in {namespace}");
                return Err(Error::refused(about, errno, words.as_deref()));
            }
        }
        Ok(Self { socket })
    }

    /// Waits for packets to be dropped; none if there are none in this time.
    pub fn wait(&mut self, patience: Duration) -> Result<Vec<Dropped>, Error> {
        Ok(dropped(&self.socket.wait(patience)?))
    }
}

impl AsFd for Drops {
    /// To wait for it among others: readable when there is something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn dropped(answers: &Answers) -> Vec<Dropped> {
    let packet = |said: &Said| match said {
        Said::Object { kind, body } if *kind == NFULNL_MSG_PACKET => {
            let body = body.get(4..)?;
            let prefix = attribute(body, NFULA_PREFIX).map(text).unwrap_or_default();
            let rule = prefix
                .trim_start_matches("wharfie ")
                .trim_end_matches(" drop: ");
            of_packet(rule, attribute(body, NFULA_PAYLOAD)?)
        }
        _ => None,
    };
    answers
        .all
        .iter()
        .filter_map(|answer| packet(&answer.said))
        .collect()
}

fn of_packet(rule: &str, packet: &[u8]) -> Option<Dropped> {
    let (protocol, source, destination, behind): (u8, IpAddr, IpAddr, usize) =
        match packet.first()? >> 4 {
            4 => {
                let address = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok();
                let behind = usize::from(packet.first()? & 15) * 4;
                (
                    *packet.get(9)?,
                    address(12)?.into(),
                    address(16)?.into(),
                    behind,
                )
            }
            6 => {
                let address = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok();
                (*packet.get(6)?, address(8)?.into(), address(24)?.into(), 40)
            }
            _ => return None,
        };
    let has_ports = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|one| one.number(false));
    let port = |at: usize| {
        let bytes = packet.get(behind + at..behind + at + 2);
        let bytes = bytes.filter(|_| has_ports.contains(&protocol));
        bytes.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    Some(Dropped {
        rule: rule.to_owned(),
        protocol,
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_and_any_bytes_are_no_harm() {
        let mut packet = vec![0; 24];
        packet[0] = 0x45;
        packet[9] = 17;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[20..24].copy_from_slice(&[0x1f, 0x90, 0, 53]);
        let dropped = of_packet("web ingress 0", &packet).unwrap();
        assert_eq!(
            dropped.to_string(),
            "web ingress 0: dropped protocol 17 from 10.0.0.1:8080 to 10.0.0.2:53"
        );
        for length in 0..packet.len() {
            let _ = of_packet("", &packet[..length]);
        }
        assert_eq!(of_packet("", &[0x60; 39]), None);
    }
}
