//! The kernel's own WireGuard, by generic netlink (`linux/genetlink.h`, `linux/wireguard.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_GENERIC;
use wharfie_tunnel::uapi::{PeerSet, PeerState, Set, State};
use wharfie_tunnel::{PrivateKey, PublicKey};

use super::super::netlink::attributes::{Attributes, attribute, attributes};
use super::super::netlink::message::{self, NLM_F_ACK, NLM_F_DUMP};
use super::super::netlink::{Said, Socket};
use super::super::{Error, Namespace};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`, `CTRL_ATTR_FAMILY_ID`.
const CTRL: u16 = 0x10;
const CTRL_GETFAMILY: u8 = 3;
const CTRL_NAME: u16 = 2;
const CTRL_ID: u16 = 1;
/// `WG_CMD_*`
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
/// `WGDEVICE_A_*`
const IFNAME: u16 = 2;
const PRIVATE_KEY: u16 = 3;
const FLAGS: u16 = 5;
const LISTEN_PORT: u16 = 6;
const PEERS: u16 = 8;
/// `WGPEER_A_*`
const PEER_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const ENDPOINT: u16 = 4;
const KEEPALIVE: u16 = 5;
const ALLOWED: u16 = 9;
/// `WGALLOWEDIP_A_*`
const FAMILY: u16 = 1;
const ADDRESS: u16 = 2;
const PREFIX: u16 = 3;
/// `WGDEVICE_F_REPLACE_PEERS`; of peers `REMOVE_ME`, `REPLACE_ALLOWEDIPS`, `UPDATE_ONLY`.
const REPLACE_PEERS: u32 = 1;
const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
const UPDATE_ONLY: u32 = 4;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// A peer takes some 200 bytes, and a list of them at most 64 KiB in one message.
const AT_ONCE: usize = 200;

/// Configures a device.
pub(super) fn set(namespace: &Namespace, device: &str, set: &Set) -> Result<(), Error> {
    let mut socket = Socket::open(namespace, NETLINK_GENERIC)?;
    let family = family(&mut socket)?;
    let mut first = true;
    let mut rest = &set.peers[..];
    while first || !rest.is_empty() {
        let (some, others) = rest.split_at(rest.len().min(AT_ONCE));
        let mut bytes = Vec::new();
        let sequence = socket.next_sequence();
        message::write(&mut bytes, family, NLM_F_ACK, sequence, |out| {
            out.extend_from_slice(&[SET_DEVICE, 1, 0, 0]);
            write(&mut Attributes(out), device, set, some, first);
        });
        answer(&mut socket, &bytes, device)?;
        (first, rest) = (false, others);
    }
    Ok(())
}

/// What a device is.
pub(super) fn get(namespace: &Namespace, device: &str) -> Result<State, Error> {
    let mut socket = Socket::open(namespace, NETLINK_GENERIC)?;
    let family = family(&mut socket)?;
    let mut bytes = Vec::new();
    let sequence = socket.next_sequence();
    message::write(&mut bytes, family, NLM_F_DUMP, sequence, |out| {
        out.extend_from_slice(&[GET_DEVICE, 1, 0, 0]);
        Attributes(out).text(IFNAME, device);
    });
    let mut state = State::default();
    for body in answer(&mut socket, &bytes, device)? {
        read(body.get(4..).unwrap_or_default(), &mut state);
    }
    Ok(state)
}

fn family(socket: &mut Socket) -> Result<u16, Error> {
    let mut bytes = Vec::new();
    let sequence = socket.next_sequence();
    message::write(&mut bytes, CTRL, 0, sequence, |out| {
        out.extend_from_slice(&[CTRL_GETFAMILY, 1, 0, 0]);
        Attributes(out).text(CTRL_NAME, "wireguard");
    });
    let missing = |reason: String| Error::NotSupported {
        what: "WireGuard",
        reason,
    };
    let answers = answer(socket, &bytes, "the family").map_err(|e| missing(e.to_string()))?;
    let id = answers
        .iter()
        .find_map(|body| attribute(body.get(4..)?, CTRL_ID))
        .and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?)));
    id.ok_or_else(|| missing("it has no number".to_owned()))
}

fn answer(socket: &mut Socket, bytes: &[u8], device: &str) -> Result<Vec<Vec<u8>>, Error> {
    let mut bodies = Vec::new();
    for answer in socket.talk(bytes)?.all {
        match answer.said {
            Said::Object { body, .. } => bodies.push(body),
            Said::Done => {}
            Said::Refused { errno, words } => {
                let about = format!("the configuration of {device}");
                return Err(Error::refused(about, errno, words.as_deref()));
            }
        }
    }
    Ok(bodies)
}

fn write(out: &mut Attributes<'_>, device: &str, set: &Set, peers: &[PeerSet], first: bool) {
    out.text(IFNAME, device);
    if first {
        if let Some(key) = &set.private_key {
            out.bytes(PRIVATE_KEY, key.bytes());
        }
        if let Some(port) = set.listen_port {
            out.bytes(LISTEN_PORT, &port.to_ne_bytes());
        }
        if set.replace_peers {
            out.bytes(FLAGS, &REPLACE_PEERS.to_ne_bytes());
        }
    }
    out.nest(PEERS, |list| {
        for peer in peers {
            list.nest(0, |out| write_peer(out, peer));
        }
    });
}

fn write_peer(out: &mut Attributes<'_>, peer: &PeerSet) {
    let flags = [
        (peer.remove, REMOVE),
        (peer.replace_allowed, REPLACE_ALLOWED),
        (peer.update_only, UPDATE_ONLY),
    ];
    let flags = flags.iter().filter(|(on, _)| *on);
    let flags = flags.fold(0, |all, (_, flag)| all | flag);
    out.bytes(PEER_KEY, &peer.key.0);
    out.bytes(PEER_FLAGS, &flags.to_ne_bytes());
    if let Some(endpoint) = peer.endpoint {
        out.bytes(ENDPOINT, &socket_address(endpoint));
    }
    if let Some(seconds) = peer.keepalive {
        out.bytes(KEEPALIVE, &seconds.to_ne_bytes());
    }
    out.nest(ALLOWED, |list| {
        for net in &peer.allowed {
            list.nest(0, |out| {
                let (family, address) = match net.addr() {
                    IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
                    IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
                };
                out.bytes(FAMILY, &family.to_ne_bytes())
                    .bytes(ADDRESS, &address)
                    .u8(PREFIX, net.prefix_len());
            });
        }
    });
}

/// `struct sockaddr_in`, `struct sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    bytes.extend_from_slice(&family.to_ne_bytes());
    bytes.extend_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend_from_slice(&v4.ip().octets());
            bytes.extend_from_slice(&[0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend_from_slice(&v6.flowinfo().to_be_bytes());
            bytes.extend_from_slice(&v6.ip().octets());
            bytes.extend_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// Adds what one message says. A peer with many addresses comes in several.
fn read(body: &[u8], state: &mut State) {
    for (kind, value) in attributes(body) {
        match kind {
            PRIVATE_KEY => {
                state.private_key = value.try_into().ok().map(PrivateKey::from_bytes);
            }
            LISTEN_PORT => {
                let port = value.try_into().map(u16::from_ne_bytes);
                state.listen_port = port.unwrap_or_default();
            }
            PEERS => {
                for (_, peer) in attributes(value) {
                    read_peer(peer, state);
                }
            }
            _ => {}
        }
    }
}

fn read_peer(body: &[u8], state: &mut State) {
    let Some(key) = attribute(body, PEER_KEY).and_then(|key| key.try_into().ok()) else {
        return;
    };
    let key = PublicKey(key);
    let keepalive = attribute(body, KEEPALIVE).and_then(|k| k.try_into().ok());
    let nets = attribute(body, ALLOWED).into_iter().flat_map(attributes);
    let nets = nets.filter_map(|(_, net)| read_net(net));
    if let Some(known) = state.peers.iter_mut().find(|peer| peer.key == key) {
        known.allowed.extend(nets);
        return;
    }
    state.peers.push(PeerState {
        key,
        endpoint: None,
        keepalive: keepalive.map_or(0, u16::from_ne_bytes),
        allowed: nets.collect(),
        received: 0,
        sent: 0,
        last_handshake: 0,
    });
}

fn read_net(body: &[u8]) -> Option<IpNet> {
    let address = attribute(body, ADDRESS)?;
    let address = match address.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)),
    };
    IpNet::new(address, *attribute(body, PREFIX)?.first()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_set() -> Set {
        let mut peer = PeerSet::new(PrivateKey::generate().public());
        peer.endpoint = Some("192.0.2.1:4790".parse().unwrap());
        peer.keepalive = Some(25);
        peer.replace_allowed = true;
        peer.allowed = vec![
            "192.0.2.1/32".parse().unwrap(),
            "2001:db8::/64".parse().unwrap(),
        ];
        Set {
            private_key: Some(PrivateKey::generate()),
            listen_port: Some(4790),
            replace_peers: true,
            peers: vec![peer],
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let set = some_set();
        let mut bytes = Vec::new();
        write(&mut Attributes(&mut bytes), "wwg0", &set, &set.peers, true);
        let mut state = State::default();
        read(&bytes, &mut state);
        assert_eq!(state.private_key, set.private_key);
        assert_eq!(state.listen_port, 4790);
        assert_eq!(state.peers.len(), 1);
        assert_eq!(state.peers[0].allowed, set.peers[0].allowed);
        assert_eq!(state.peers[0].keepalive, 25);
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let mut set = some_set();
        set.private_key = None;
        set.peers[0].key = PublicKey([7; 32]);
        set.peers[0].allowed.truncate(1);
        let mut bytes = Vec::new();
        write(&mut Attributes(&mut bytes), "wwg0", &set, &set.peers, true);
        let nested = 0x8000u16;
        let number = |n: u16| n.to_ne_bytes().to_vec();
        let expected = [
            [number(9), number(2), b"wwg0\0\0\0\0".to_vec()].concat(),
            [number(6), number(6), number(4790), vec![0, 0]].concat(),
            [number(8), number(5), 1u32.to_ne_bytes().to_vec()].concat(),
            [number(4 + 4 + 36 + 8 + 20 + 8 + 32), number(8 | nested)].concat(),
            [number(4 + 36 + 8 + 20 + 8 + 32), number(nested)].concat(),
            [number(36), number(1), vec![7; 32]].concat(),
            [number(8), number(3), 2u32.to_ne_bytes().to_vec()].concat(),
            [
                number(20),
                number(4),
                number(2),
                4790u16.to_be_bytes().to_vec(),
            ]
            .concat(),
            [vec![192, 0, 2, 1], vec![0; 8]].concat(),
            [number(6), number(5), number(25), vec![0, 0]].concat(),
            [number(4 + 4 + 8 + 8 + 8), number(9 | nested)].concat(),
            [number(4 + 8 + 8 + 8), number(nested)].concat(),
            [number(6), number(1), number(2), vec![0, 0]].concat(),
            [number(8), number(2), vec![192, 0, 2, 1]].concat(),
            [number(5), number(3), vec![32, 0, 0, 0]].concat(),
        ];
        assert_eq!(bytes, expected.concat());
    }
}
