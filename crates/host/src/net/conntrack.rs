//! Connections that the kernel keeps track of (`linux/netfilter/nfnetlink_conntrack.h`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustix::io::Errno;

use super::netlink::attributes::{Attributes, attribute};
use super::netlink::message::{self, NLM_F_ACK, NLM_F_DUMP};
use super::netlink::{Said, Socket};
use super::nft::connect;
use super::{Error, Namespace, Protocol};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const AF_UNSPEC: u8 = 0;

/// Makes the kernel forget the connections of a namespace that are answered by backends which are
/// dead, so that the next packet is a new connection and meets another. Meant for UDP, whose
/// clients learn of no end; a TCP connection that is forgotten is reset by its peer. Says how many
/// there were.
///
/// # Errors
/// The kernel does not tell, or does not forget.
pub fn forget(
    namespace: &Namespace,
    backends: &BTreeSet<IpAddr>,
    protocol: Protocol,
) -> Result<usize, Error> {
    let mut socket = connect(namespace)?;
    let is_of = |entry: &[u8]| {
        let mut backends = backends.iter();
        backends.any(|backend| is_answered_by(entry, *backend, protocol))
    };
    let entries = ask(
        &mut socket,
        (IPCTNL_MSG_CT_GET, NLM_F_DUMP),
        AF_UNSPEC,
        &[],
        is_of,
    )?;
    let mut forgotten = 0;
    for (family, entry) in entries {
        let mut about = Vec::new();
        for kind in [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE] {
            if let Some(value) = attribute(&entry, kind) {
                let nested = kind == CTA_TUPLE_ORIG;
                let mut attributes = Attributes(&mut about);
                if nested {
                    attributes.nest(kind, |inner| inner.0.extend_from_slice(value));
                } else {
                    attributes.bytes(kind, value);
                }
            }
        }
        let delete = (IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
        match ask(&mut socket, delete, family, &about, |_| false) {
            Ok(_) => forgotten += 1,
            Err(error) if error.is(Errno::NOENT) => {} // it ended by itself
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

/// Whether the answers come from an address: with a replaced destination that is the backend.
fn is_answered_by(entry: &[u8], backend: IpAddr, protocol: Protocol) -> bool {
    let Some(reply) = attribute(entry, CTA_TUPLE_REPLY) else {
        return false;
    };
    let source = attribute(reply, CTA_TUPLE_IP);
    let number =
        attribute(reply, CTA_TUPLE_PROTO).and_then(|proto| attribute(proto, CTA_PROTO_NUM));
    let is_from = source.is_some_and(|ip| match backend {
        IpAddr::V4(address) => attribute(ip, CTA_IP_V4_SRC) == Some(&address.octets()[..]),
        IpAddr::V6(address) => attribute(ip, CTA_IP_V6_SRC) == Some(&address.octets()[..]),
    });
    is_from && number == Some(&[protocol.number(backend.is_ipv6())][..])
}

/// What the kernel says and is meant, each with its address family (`nfgenmsg`).
fn ask(
    socket: &mut Socket,
    (kind, flags): (u16, u16),
    family: u8,
    about: &[u8],
    is_meant: impl Fn(&[u8]) -> bool,
) -> Result<Vec<(u8, Vec<u8>)>, Error> {
    let mut bytes = Vec::new();
    let sequence = socket.next_sequence();
    message::write(
        &mut bytes,
        NFNL_SUBSYS_CTNETLINK << 8 | kind,
        flags,
        sequence,
        |out| {
            out.extend_from_slice(&[family, 0, 0, 0]);
            out.extend_from_slice(about);
        },
    );
    let mut objects = Vec::new();
    for answer in socket.talk(&bytes)?.all {
        match answer.said {
            Said::Object { body, .. } => {
                let (Some(family), Some(entry)) = (body.first(), body.get(4..)) else {
                    continue;
                };
                if is_meant(entry) {
                    objects.push((*family, entry.to_vec()));
                }
            }
            Said::Done => {}
            Said::Refused { errno, words } => {
                return Err(Error::refused(
                    "to look at connections",
                    errno,
                    words.as_deref(),
                ));
            }
        }
    }
    Ok(objects)
}
