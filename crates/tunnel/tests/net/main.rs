//! Tunnels between network namespaces. Needs root: without, each test says so and passes, unless
//! `CI` is set, where that is a failure.
#![allow(clippy::unwrap_used)] // tests: what is not there is a failure

mod lab;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::{PORT, acquainted, pair, possible, stream};
use wharfie_tunnel::PrivateKey;
use wharfie_tunnel::uapi::{PeerSet, Set};

/// So long may a handshake that was lost take: it is tried again after 5 s.
const SOON: Duration = Duration::from_secs(20);
/// So long is waited for what is not to be.
const NEVER: Duration = Duration::from_secs(3);

#[test]
fn streams_arrive_as_they_were_sent_both_ways() {
    if !possible() {
        return;
    }
    let [a, b] = acquainted();
    for network in [91, 92] {
        stream(&a, &b, network, 400, || ());
        stream(&b, &a, network, 400, || ());
    }
    let state = a.client().get().unwrap();
    let peer = &state.peers[0];
    assert!(peer.last_handshake > 0 && peer.sent > 400 << 16 && peer.received > 400 << 16);
    assert_eq!(state.listen_port, PORT);
    assert_eq!(a.client().version().unwrap(), "test");
}

#[test]
fn datagrams_of_all_sizes_pass() {
    if !possible() {
        return;
    }
    let [a, b] = acquainted();
    assert!(a.reaches(&b, SOON));
    for network in [91, 92] {
        let receiver = b.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let at = SocketAddr::from(([10, network, 0, 2], receiver.local_addr().unwrap().port()));
        let sender = a.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        let mut buffer = vec![0; 70_000];
        // The longest ones go in fragments.
        for size in [0, 1, 7, 1300, 1412, 1413, 9000, 60_000] {
            let sent: Vec<u8> = (0..size).map(|n: usize| n.to_le_bytes()[0]).collect();
            sender.send_to(&sent, at).unwrap();
            let (length, _) = receiver.recv_from(&mut buffer).unwrap();
            assert!(buffer[..length] == sent, "{size} bytes");
        }
    }
}

#[test]
fn a_narrow_wire_is_no_obstacle() {
    if !possible() {
        return;
    }
    let [a, b] = acquainted();
    for host in [&a, &b] {
        host.ip("link set eth0 mtu 1400");
    }
    stream(&a, &b, 92, 50, || ());
    stream(&b, &a, 91, 50, || ());
}

#[test]
fn who_has_the_wrong_key_or_address_is_refused() {
    if !possible() {
        return;
    }
    let [a, b] = pair();
    b.set(&b.knows(&a, a.key.public()));
    a.set(&a.knows(&b, PrivateKey::generate().public()));
    assert!(!a.reaches(&b, NEVER), "that is not the key of the other");
    let mut wrong = b.knows(&a, a.key.public());
    wrong.peers[0].allowed = vec!["10.91.0.77/32".parse().unwrap()];
    b.set(&wrong);
    a.set(&a.knows(&b, b.key.public()));
    assert!(!a.reaches(&b, NEVER), "it may not send from that address");
    b.set(&b.knows(&a, a.key.public()));
    assert!(a.reaches(&b, SOON));
    let none = Set {
        replace_peers: true,
        ..Set::default()
    };
    b.set(&none);
    assert!(!a.reaches(&b, NEVER), "it is no peer any more");
}

#[test]
fn a_tunnel_that_was_made_anew_is_reached_again() {
    if !possible() {
        return;
    }
    let [mut a, b] = acquainted();
    assert!(a.reaches(&b, SOON));
    a.stop();
    a.start();
    a.set(&a.knows(&b, b.key.public()));
    // From the other side, which has keys of before.
    assert!(b.reaches(&a, SOON));
    assert!(a.reaches(&b, SOON));
}

#[test]
fn a_new_key_does_not_break_a_stream() {
    if !possible() {
        return;
    }
    let [mut a, b] = acquainted();
    stream(&a, &b, 92, 10, || ());
    let old = a.key.public();
    a.key = PrivateKey::generate();
    let new = a.key.public();
    let mut next = b.knows(&a, old);
    next.peers.push(PeerSet::new(new));
    b.set(&next);
    stream(&a, &b, 92, 400, || {
        a.set(&a.knows(&b, b.key.public()));
        b.set(&b.knows(&a, new));
    });
    let seen = b.client().get().unwrap();
    assert_eq!(seen.peers.len(), 1);
    assert!(seen.peers[0].key == new && seen.peers[0].received > 200 << 16);
    // The other way round: whoever is told first.
    let back = PrivateKey::generate();
    a.key = back.clone();
    stream(&b, &a, 92, 400, || {
        b.set(&b.knows(&a, back.public()));
        a.set(&a.knows(&b, b.key.public()));
    });
}

#[test]
fn hostile_packets_do_no_harm() {
    if !possible() {
        return;
    }
    let [a, b] = acquainted();
    assert!(a.reaches(&b, SOON));
    let sender = a.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let at = SocketAddr::from(([192, 0, 2, 2], PORT));
    let random = || *PrivateKey::generate().bytes();
    let since = Instant::now();
    let mut count = 0u32;
    while since.elapsed() < Duration::from_secs(2) {
        let bytes: Vec<u8> = (0..8).flat_map(|_| random()).collect();
        // Every type there is and is not, of right and of wrong lengths, with numbers of links that
        // may well exist.
        for kind in 0..6u8 {
            for length in [0, 1, 3, 4, 31, 32, 33, 64, 92, 148, 200] {
                let mut packet = bytes[..length].to_vec();
                let head = [kind, 0, 0, 0];
                let known = length.min(4);
                packet[..known].copy_from_slice(&head[..known]);
                let _ = sender.send_to(&packet, at);
                count += 1;
            }
        }
    }
    assert!(count > 1000);
    stream(&a, &b, 92, 50, || ());
}

#[test]
fn nothing_on_the_wire_is_readable() {
    if !possible() {
        return;
    }
    let [a, b] = acquainted();
    let wire = b.inside(|| {
        use rustix::net::{AddressFamily, Protocol, SocketType, socket};
        // ETH_P_ALL, in the order of the network (packet(7)).
        let all = std::num::NonZeroU32::new(u32::from(3u16.to_be())).unwrap();
        let all = Protocol::from_raw(all);
        socket(AddressFamily::PACKET, SocketType::RAW, Some(all)).unwrap()
    });
    rustix::net::sockopt::set_socket_timeout(
        &wire,
        rustix::net::sockopt::Timeout::Recv,
        Some(Duration::from_millis(100)),
    )
    .unwrap();
    let receiver = b.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let at = SocketAddr::from(([10, 92, 0, 2], receiver.local_addr().unwrap().port()));
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let sender = a.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let secret = b"this is nobody's business";
    sender.send_to(secret, at).unwrap();
    receiver.recv_from(&mut [0; 100]).unwrap();
    let mut buffer = vec![0; 65_536];
    let (mut encrypted, mut readable) = (0, 0);
    // The socket hears all devices: on the tunnel's own it is readable, on the wire it is not.
    while let Ok((length, _)) =
        rustix::net::recv(&wire, &mut buffer[..], rustix::net::RecvFlags::empty())
    {
        let packet = &buffer[..length];
        let has = |what: &[u8]| packet.windows(what.len()).any(|w| w == what);
        let on_wire = packet.len() > 34 && packet[26..30] == [192, 0, 2, 1];
        encrypted += usize::from(on_wire);
        readable += usize::from(has(secret));
        assert!(!(on_wire && has(secret)), "it was sent in clear");
    }
    assert!(encrypted > 0 && readable > 0, "{encrypted} {readable}");
}
