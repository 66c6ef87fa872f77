//! Traffic between hosts is encrypted, or does not pass.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wharfie_host::net::{
    ENCRYPTION_DEVICE, ENCRYPTION_PORT, EncryptedPeer, Encrypter, Encryption, Isolation, Isolator,
    Overlay, Overlays, purge,
};
use wharfie_tunnel::{PrivateKey, Settings, Tunnel};

use crate::lab::{Container, Host, Lan, possible};

const VERSION: &str = "test";

/// A host's part: what it does to encrypt.
struct Part<'a> {
    host: &'a Host,
    encrypter: Encrypter,
    key: PrivateKey,
    socket: PathBuf,
}

impl<'a> Part<'a> {
    fn new(host: &'a Host) -> Self {
        let socket = std::env::temp_dir()
            .join(host.space.name())
            .with_extension("sock");
        let encrypter = Encrypter::open(&host.space.namespace(), &socket, VERSION).unwrap();
        Self {
            host,
            encrypter,
            key: PrivateKey::generate(),
            socket,
        }
    }

    fn wanted(&self, other: &Self) -> Encryption {
        let address = other.host.address();
        Encryption {
            key: self.key.clone(),
            port: ENCRYPTION_PORT,
            overlay_port: 4789,
            peers: vec![EncryptedPeer {
                address,
                endpoint: (address, ENCRYPTION_PORT).into(),
                key: other.key.public(),
                next: None,
            }],
            blocked: vec![],
        }
    }

    fn apply(&mut self, wanted: &Encryption) -> bool {
        let (path, socket) = (self.host.space.path(), self.socket.clone());
        let mut start = || -> io::Result<()> {
            let settings = Settings {
                name: ENCRYPTION_DEVICE.to_owned(),
                socket: socket.clone(),
                vxlan: Some(4789),
                version: VERSION.to_owned(),
            };
            let file = std::fs::File::open(&path)?;
            std::thread::spawn(move || {
                use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
                use std::os::fd::AsFd;
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(file.as_fd(), network).unwrap();
                Tunnel::start(settings).unwrap().serve().unwrap();
            });
            Ok(())
        };
        self.encrypter.apply(wanted, &mut start).unwrap()
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let _ = self.encrypter.purge();
    }
}

/// Joins the bridges of two hosts for two containers.
fn join(host: &Host, container: &Container) -> Overlays {
    let overlay = Overlay {
        network: "demo_net".into(),
        vni: 5,
        bridge: "br1".into(),
        mtu: 1350,
        port: 4789,
        local: host.address(),
        endpoints: vec![container.endpoint()],
    };
    let mut overlays = Overlays::open(&host.space.namespace()).unwrap();
    overlays.apply(&[overlay]).unwrap();
    overlays
}

/// Packets to a UDP port that came in by the wire.
fn count(host: &Host, port: u16) -> u64 {
    let listed = host.space.nft("list table inet watch");
    let line = listed
        .lines()
        .find(|l| l.contains(&format!("dport {port}")));
    let line = line.unwrap();
    let mut words = line.split_whitespace().skip_while(|w| *w != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what}");
    }
}

#[test]
fn packets_of_overlays_are_encrypted_or_do_not_pass() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let (h1, h2) = (lan.host(), lan.host());
    for host in [&h1, &h2] {
        host.network(1);
        // The way back must be the way there.
        for device in ["all", "default", "eth0"] {
            host.space
                .sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "1");
        }
        host.space.nft(
            "table inet watch { chain c { type filter hook prerouting priority -300; \
             iifname eth0 udp dport 4789 counter; iifname eth0 udp dport 4790 counter; }; }",
        );
    }
    let (a, b) = (h1.container(1, 10), h2.container(1, 10));
    let _overlays = [join(&h1, &b), join(&h2, &a)];
    let reaches = || a.space.reaches(&b.address().to_string());
    assert!(reaches());
    let clear = count(&h2, 4789);
    assert!(clear > 0 && count(&h2, 4790) == 0);

    let (mut one, mut other) = (Part::new(&h1), Part::new(&h2));
    let wanted = [one.wanted(&other), other.wanted(&one)];
    assert!(one.apply(&wanted[0]));
    let clear = count(&h2, 4789);
    assert!(!reaches(), "the other does not encrypt yet");
    assert!(other.apply(&wanted[1]));
    soon("containers talk", reaches);
    assert!(!one.apply(&wanted[0]), "all was as it should be");
    assert_eq!(one.encrypter.key(), Some(one.key.clone()));
    // What comes beside it is not taken, even if it should be sent.
    let mut isolator = Isolator::open(&h2.space.namespace()).unwrap();
    let peers: Vec<IpAddr> = vec![h1.address()];
    let isolation = Isolation {
        ports: vec![4789],
        encrypted: peers.clone(),
        peers,
        underlay: Some(ENCRYPTION_DEVICE.to_owned()),
        ..Isolation::default()
    };
    isolator.apply(&isolation).unwrap();
    assert!(reaches());
    assert_eq!(count(&h2, 4789), clear, "nothing went in clear");
    assert!(count(&h2, 4790) > 0);

    // Without the device nothing passes; it is made anew.
    h1.space.ip(&format!("link del {ENCRYPTION_DEVICE}"));
    assert!(!reaches());
    soon("the process ends", || !one.socket.exists());
    assert!(one.apply(&wanted[0]));
    soon("containers talk again", reaches);
    assert_eq!(count(&h2, 4789), clear, "nothing went in clear");

    // To whom nothing can be encrypted nothing is sent.
    let blocked = Encryption {
        peers: vec![],
        blocked: vec![h2.address()],
        ..wanted[0].clone()
    };
    one.apply(&blocked);
    assert!(!reaches());
    assert_eq!(count(&h2, 4789), clear, "nothing went in clear");

    // And without all that it is as before.
    isolator.purge().unwrap();
    other.encrypter.purge().unwrap();
    let gone = purge(&h1.space.namespace()).unwrap();
    assert!(gone.routes > 0);
    let _overlays = join(&h1, &b);
    soon("containers talk in clear", reaches);
    assert!(count(&h2, 4789) > clear);
    for listed in ["rule", "route show table all"] {
        let listed = h1.space.ip(listed);
        assert!(!listed.contains("4789") && !listed.contains(ENCRYPTION_DEVICE));
    }
}
