//! Asking neighbours, telling them, and hearing them.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wharfie_host::net::{Conflicts, Error, LanAddress, LanAddresses, Mac, announce, device, probe};

use super::until;
use crate::lab::{Host, Lan, possible};

/// Long enough for an answer; of who does not answer nothing is to be expected anyway.
const WAIT: Duration = Duration::from_millis(500);
const V4: &str = "192.0.2.100";
const V6: &str = "2001:db8::100";

fn both() -> [IpAddr; 2] {
    [V4.parse().unwrap(), V6.parse().unwrap()]
}

fn mac(host: &Host) -> Mac {
    let device = device(&host.space.namespace(), "eth0").unwrap().unwrap();
    device.mac.unwrap()
}

/// Hosts that have come so far that their link-local addresses can be used.
fn hosts(lan: &mut Lan, count: usize) -> Vec<Host> {
    let hosts: Vec<Host> = (0..count).map(|_| lan.host()).collect();
    for host in &hosts {
        until("a link-local address", || {
            let listed = host.space.ip("-6 addr show dev eth0 scope link");
            listed.contains("fe80") && !listed.contains("tentative")
        });
    }
    hosts
}

fn hold(host: &Host, addresses: &[IpAddr]) -> LanAddresses {
    let one = |address: &IpAddr| LanAddress {
        address: *address,
        device: "eth0".into(),
        lasts: None,
    };
    let wanted: Vec<LanAddress> = addresses.iter().map(one).collect();
    let mut held = LanAddresses::open(&host.space.namespace()).unwrap();
    assert!(held.apply(&wanted).unwrap().refused.is_empty());
    held
}

#[test]
fn who_has_an_address_is_found_and_free_ones_are_free() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let hosts = hosts(&mut lan, 3);
    let [asker, other, third] = &hosts[..] else {
        unreachable!()
    };
    let _held = hold(other, &both());
    let mut asked: Vec<IpAddr> = both().to_vec();
    // The asker's own are nobody else's.
    asked.extend(["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    asked.push(third.address());
    asked.extend((0..200).map(|n| IpAddr::from([192, 0, 2, 50 + n / 5])));
    asked.extend((0..200).map(|n| format!("2001:db8::5:{n}").parse::<IpAddr>().unwrap()));
    let namespace = asker.space.namespace();
    let found = probe(&namespace, "eth0", &asked, WAIT).unwrap();
    let expected = [
        (both()[0], mac(other)),
        (both()[1], mac(other)),
        (third.address(), mac(third)),
    ];
    assert_eq!(found, expected.into_iter().collect());
    assert!(probe(&namespace, "eth0", &[], WAIT).unwrap().is_empty());
    // Nobody took the question for a claim.
    let neighbours = other.space.ip("neigh show dev eth0");
    assert!(!neighbours.contains("192.0.2.50"), "{neighbours}");

    let error = |device| probe(&namespace, device, &both(), WAIT).unwrap_err();
    assert_eq!(
        error("gone0"),
        Error::NoDevice {
            device: "gone0".into()
        }
    );
    assert!(matches!(error("lo"), Error::Invalid(_)));
    asker.space.ip("link set eth0 down");
    assert_eq!(
        error("eth0"),
        Error::DeviceDown {
            device: "eth0".into()
        }
    );
}

#[test]
fn an_announcement_changes_what_neighbours_know() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let hosts = hosts(&mut lan, 3);
    let [client, old, new] = &hosts[..] else {
        unreachable!()
    };
    let mut held = hold(old, &both());
    let known = |mac: Mac| {
        both().iter().all(|address| {
            let listed = client.space.ip(&format!("neigh show {address} dev eth0"));
            listed.contains(&format!("lladdr {mac} "))
        })
    };
    for address in both() {
        assert!(client.space.reaches(&address.to_string()));
    }
    assert!(known(mac(old)));
    // The old one is cut off before it can give the addresses back.
    old.space.ip("link set eth0 down");
    let _held = hold(new, &both());
    assert!(known(mac(old)));
    announce(&new.space.namespace(), "eth0", &both()).unwrap();
    until("the client knows the new host", || known(mac(new)));
    for address in both() {
        assert!(client.space.reaches(&address.to_string()));
    }
    // And back, while it is still fresh: what was just learned is not held on to.
    old.space.ip("link set eth0 up");
    held.apply(&[]).unwrap();
    until("a link-local address", || {
        let listed = old.space.ip("-6 addr show dev eth0 scope link");
        listed.contains("fe80") && !listed.contains("tentative")
    });
    announce(&old.space.namespace(), "eth0", &both()).unwrap();
    until("the client knows the old host", || known(mac(old)));
}

#[test]
fn who_else_says_to_have_an_address_is_heard() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let hosts = hosts(&mut lan, 2);
    let [own, other] = &hosts[..] else {
        unreachable!()
    };
    let mut conflicts = Conflicts::open(&own.space.namespace(), "eth0").unwrap();
    conflicts.watch(&both());
    let _held = hold(own, &both());
    announce(&own.space.namespace(), "eth0", &both()).unwrap();
    let free: IpAddr = "192.0.2.101".parse().unwrap();
    announce(&other.space.namespace(), "eth0", &[free]).unwrap();
    // Asking is not claiming.
    probe(&other.space.namespace(), "eth0", &both(), WAIT).unwrap();
    assert_eq!(conflicts.conflicts().unwrap(), []);
    announce(&other.space.namespace(), "eth0", &both()).unwrap();
    let mut ready = [PollFd::from_borrowed_fd(conflicts.as_fd(), PollFlags::IN)];
    let long = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut ready, Some(&long)), Ok(1));
    let mut heard = Vec::new();
    until("both are heard", || {
        heard.extend(conflicts.conflicts().unwrap());
        heard.len() == 2
    });
    assert_eq!(heard, both().map(|address| (address, mac(other))));
    // Whoever has it without a word: its own requests say so.
    let _twice = hold(other, &both()[..1]);
    other
        .space
        .command("busybox")
        .args(["arping", "-c1", "-I", "eth0", "-s", V4, "192.0.2.1"])
        .output()
        .unwrap();
    until("a request is heard", || {
        !conflicts.conflicts().unwrap().is_empty()
    });
    own.space.ip("link set eth0 down");
    conflicts.conflicts().unwrap();
    own.space.ip("link set eth0 up");
    until("it hears again", || {
        announce(&other.space.namespace(), "eth0", &both()[..1]).unwrap();
        !conflicts.conflicts().unwrap().is_empty()
    });
}
