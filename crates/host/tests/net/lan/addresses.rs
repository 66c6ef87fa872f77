//! Having addresses, and knowing devices.

use std::net::IpAddr;

use wharfie_host::net::{Error, LanAddress, LanAddresses, device, device_of, purge, purgeable};

use super::until;
use crate::lab::{Host, Lan, possible};

const OURS: [&str; 3] = ["192.0.2.100", "192.0.2.101", "2001:db8::100"];

fn on(device: &str, addresses: &[&str]) -> Vec<LanAddress> {
    let one = |address: &&str| LanAddress {
        address: address.parse().unwrap(),
        device: device.into(),
        lasts: None,
    };
    addresses.iter().map(one).collect()
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// The addresses of a device that have no subnet.
fn single(host: &Host, device: &str) -> Vec<String> {
    let listed = host.space.ip(&format!("-o addr show dev {device}"));
    let words = listed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    let mut single: Vec<String> = words
        .filter_map(|word| word.strip_suffix("/32").or(word.strip_suffix("/128")))
        .map(str::to_owned)
        .collect();
    single.sort();
    single
}

#[test]
fn ours_are_added_kept_repaired_and_removed_and_others_stay() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let (host, client) = (lan.host(), lan.host());
    host.space.ip("addr add 192.0.2.50/32 dev eth0");
    host.space.ip("addr add 2001:db8::50/128 dev eth0 nodad");
    let before = host.space.ip("addr show") + &host.space.ip("-6 route");
    let mut addresses = LanAddresses::open(&host.space.namespace()).unwrap();
    let changes = addresses.apply(&on("eth0", &OURS)).unwrap();
    assert_eq!(changes.added, OURS.map(ip), "{changes:?}");
    assert_eq!((changes.removed.len(), changes.refused.len()), (0, 0));
    for address in OURS {
        until(address, || client.space.reaches(address));
    }
    let none = addresses.apply(&on("eth0", &OURS)).unwrap();
    assert_eq!(none, Default::default());
    // One that starts anew knows them again.
    let mut again = LanAddresses::open(&host.space.namespace()).unwrap();
    assert_eq!(again.apply(&on("eth0", &OURS)).unwrap(), Default::default());
    let mut all = again.all().unwrap();
    all.sort();
    assert_eq!(all, OURS.map(ip));

    host.space.ip("addr del 192.0.2.100/32 dev eth0");
    host.space.ip("addr del 2001:db8::100/128 dev eth0");
    // One that the host could send from, though with our mark.
    host.space.ip("addr del 192.0.2.101/32 dev eth0");
    host.space
        .ip("addr add 192.0.2.101/32 dev eth0 metric 1464074327");
    let repaired = addresses.apply(&on("eth0", &OURS)).unwrap();
    assert_eq!(repaired.added, OURS.map(ip), "{repaired:?}");

    let fewer = addresses.apply(&on("eth0", &OURS[1..2])).unwrap();
    assert_eq!(fewer.removed, [ip(OURS[0]), ip(OURS[2])]);
    assert_eq!(
        single(&host, "eth0"),
        ["192.0.2.101", "192.0.2.50", "2001:db8::50"]
    );
    assert!(addresses.add(&on("eth0", &OURS)[2]).unwrap());
    assert!(!addresses.add(&on("eth0", &OURS)[2]).unwrap());
    assert!(!again.add(&on("eth0", &OURS)[2]).unwrap());
    assert!(addresses.remove(ip(OURS[2])).unwrap());
    assert!(!addresses.remove(ip(OURS[2])).unwrap());
    assert!(again.remove(ip(OURS[1])).unwrap());
    assert_eq!(again.remove(ip("192.0.2.50")), Ok(false), "not ours");
    assert_eq!(again.remove(ip("192.0.2.1")), Ok(false), "not ours");
    addresses.apply(&on("eth0", &OURS)).unwrap();
    assert_eq!(addresses.remove_all().unwrap(), OURS.map(ip));
    assert_eq!(
        host.space.ip("addr show") + &host.space.ip("-6 route"),
        before
    );
}

/// Even when it comes first in the device's list, as after the host's own was given anew.
#[test]
fn the_host_does_not_send_from_a_services_address() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let (host, client) = (lan.host(), lan.host());
    let mut addresses = LanAddresses::open(&host.space.namespace()).unwrap();
    addresses.apply(&on("eth0", &OURS)).unwrap();
    for (own, net) in [
        ("192.0.2.1/24", "192.0.2.1"),
        ("2001:db8::1/64", "2001:db8::1"),
    ] {
        host.space.ip(&format!("addr del {own} dev eth0"));
        let nodad = if own.contains(':') { "nodad" } else { "" };
        host.space.ip(&format!("addr add {own} dev eth0 {nodad}"));
        let version = if own.contains(':') { "-6" } else { "-4" };
        host.space
            .ip(&format!("{version} route add default dev eth0"));
        let (outside, near) = match own.contains(':') {
            false => ("198.51.100.7", "192.0.2.2"),
            true => ("2001:db8:9::7", "2001:db8::2"),
        };
        for to in [outside, near] {
            let way = host.space.ip(&format!("route get {to}"));
            assert!(way.contains(&format!("src {net} ")), "{way}");
        }
        until(net, || client.space.reaches(net));
    }
}

#[test]
fn what_cannot_be_had_is_said_and_the_rest_is_done() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let host = lan.host();
    host.space.ip("link add idle type bridge");
    let mut addresses = LanAddresses::open(&host.space.namespace()).unwrap();
    let mut wanted = on("eth0", &["192.0.2.1", "2001:db8::1", OURS[0]]);
    wanted.extend(on("idle", &[OURS[1]]));
    wanted.extend(on("gone0", &[OURS[2]]));
    let changes = addresses.apply(&wanted).unwrap();
    assert_eq!(changes.added, [ip(OURS[0])]);
    let said: Vec<String> = changes.refused.iter().map(|(_, e)| e.to_string()).collect();
    assert!(said[0].starts_with("this host has the address 192.0.2.1 already (on eth0)"));
    assert!(said[1].contains("2001:db8::1"), "{said:?}");
    assert_eq!(said[2], "the network device idle is down");
    assert_eq!(said[3], "there is no network device gone0 on this host");
    for (index, one) in wanted.iter().enumerate().filter(|(i, _)| *i != 2) {
        let error = addresses.add(one).unwrap_err();
        let place = if index > 2 { index - 1 } else { index };
        assert_eq!(error.to_string(), said[place]);
    }
    // It goes to another device when that is wanted.
    host.space.ip("link set idle up");
    let changes = addresses.apply(&on("idle", &[OURS[0]])).unwrap();
    assert_eq!(
        (changes.added, changes.removed.len()),
        (vec![ip(OURS[0])], 0)
    );
    assert_eq!(single(&host, "idle"), [OURS[0]]);
    assert!(single(&host, "eth0").is_empty());
    let both = [on("eth0", &OURS), on("idle", &OURS)].concat();
    assert!(matches!(addresses.apply(&both), Err(Error::Invalid(_))));
    let host = host.space.namespace();
    assert_eq!(purgeable(&host).unwrap().addresses, [ip(OURS[0])]);
    assert_eq!(purge(&host).unwrap().addresses, [ip(OURS[0])]);
    assert!(purgeable(&host).unwrap().addresses.is_empty());
}

#[test]
fn the_device_to_the_lan_is_found_and_no_bridge_of_containers() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let host = lan.host();
    let namespace = host.space.namespace();
    let of = |address: &str| device_of(&namespace, ip(address)).unwrap();
    assert_eq!(of("192.0.2.77").as_deref(), Some("eth0"));
    assert_eq!(of("2001:db8::77").as_deref(), Some("eth0"));
    assert_eq!(of("198.51.100.1"), None);
    assert_eq!(of("127.0.0.1"), None);
    host.space.ip("route add default via 192.0.2.9");
    assert_eq!(of("198.51.100.1"), None);
    // A bridge that a cable to the outside is on, as with virtual machines, is as good as another.
    for (bridge, port, is_lan) in [
        ("docker0", "", false),
        ("br-0123456789ab", "", false),
        ("wbr00002a", "", false),
        ("own0", "veth", false),
        ("own1", "bridge", true),
        ("br-lan", "", true),
    ] {
        host.space.ip(&format!("link add {bridge} type bridge"));
        host.space
            .ip(&format!("addr add 203.0.113.1/25 dev {bridge}"));
        host.space.ip(&format!("link set {bridge} up"));
        match port {
            "veth" => host.space.ip("link add p0 type veth peer name p1"),
            "bridge" => host.space.ip("link add link eth0 name p0 type macvlan"),
            _ => String::new(),
        };
        if !port.is_empty() {
            host.space.ip(&format!("link set p0 master {bridge}"));
        }
        let found = of("203.0.113.9");
        assert_eq!(found.as_deref(), is_lan.then_some(bridge), "{bridge}");
        host.space.ip(&format!("link del {bridge}"));
        if !port.is_empty() {
            host.space.ip("link del p0");
        }
    }
    // The smaller subnet is closer.
    host.space.ip("link add near type bridge");
    host.space.ip("addr add 192.0.2.65/28 dev near");
    host.space.ip("link set near up");
    assert_eq!(of("192.0.2.77").as_deref(), Some("near"));
    let near = device(&namespace, "near").unwrap().unwrap();
    assert_eq!(near.subnets, ["192.0.2.64/28".parse().unwrap()]);
    let seen = device(&namespace, "eth0").unwrap().unwrap();
    assert!(seen.is_up && seen.has_carrier && seen.mac.is_some());
    let subnets = ["192.0.2.0/24", "2001:db8::/64"].map(|s| s.parse().unwrap());
    assert_eq!(seen.subnets, subnets);
    // A bridge that nothing is on can have no cable pulled.
    let fit = || {
        let mut held = LanAddresses::open(&namespace).unwrap();
        held.apply(&[]).unwrap();
        let linked = device(&namespace, "near").unwrap().unwrap().has_carrier;
        assert_eq!(held.fit().contains("near"), linked);
        assert!(held.fit().contains("eth0"));
        assert!(held.others().contains(&"192.0.2.65".parse().unwrap()));
        linked
    };
    assert!(fit());
    host.space.ip("link add p0 type veth peer name p1");
    host.space.ip("link set p0 master near");
    host.space.ip("link set p0 up");
    until("the bridge has no cable", || !fit());
    host.space.ip("link set p1 up");
    until("the bridge has a cable", fit);
    host.space.ip("link set near down");
    assert!(!device(&namespace, "near").unwrap().unwrap().is_up);
    assert_eq!(device(&namespace, "gone0").unwrap(), None);
    assert_eq!(device(&namespace, &"x".repeat(300)).unwrap(), None);
}

/// An address stays as long as somebody says again that it is to; without, the kernel takes it away.
#[test]
fn what_nobody_asks_for_again_is_gone() {
    if !possible() {
        return;
    }
    let mut lan = Lan::new();
    let host = lan.host();
    let lasting = |seconds: Option<u64>| -> Vec<LanAddress> {
        let lasts = seconds.map(std::time::Duration::from_secs);
        let all = on("eth0", &OURS).into_iter();
        all.map(|one| LanAddress { lasts, ..one }).collect()
    };
    let valid = || {
        let shown = host.space.ip("addr show dev eth0");
        let mut lines = shown.lines().map(str::trim);
        let mut found = Vec::new();
        while let Some(line) = lines.next() {
            if OURS.iter().any(|a| line.contains(&format!(" {a}/"))) {
                let lifetime = lines.next().unwrap();
                found.push(lifetime.split_whitespace().nth(1).unwrap().to_owned());
            }
        }
        found
    };
    let mut addresses = LanAddresses::open(&host.space.namespace()).unwrap();
    assert_eq!(addresses.apply(&lasting(None)).unwrap().added.len(), 3);
    assert_eq!(valid(), ["forever"; 3]);
    // Nothing is announced because of it, and nothing is away for a moment.
    assert_eq!(
        addresses.apply(&lasting(Some(600))).unwrap(),
        Default::default()
    );
    assert!(valid().iter().all(|v| v != "forever"), "{:?}", valid());
    addresses
        .extend(std::time::Duration::from_secs(6000))
        .unwrap();
    let long = |v: &String| v.trim_end_matches("sec").parse::<u64>().unwrap() > 5000;
    assert!(valid().iter().all(long), "{:?}", valid());
    assert_eq!(addresses.apply(&lasting(None)).unwrap(), Default::default());
    assert_eq!(valid(), ["forever"; 3]);
    addresses.extend(std::time::Duration::from_secs(1)).unwrap();
    assert_eq!(valid(), ["forever"; 3]);
    assert!(!addresses.add(&lasting(Some(1))[0]).unwrap());
    assert_eq!(
        addresses.apply(&lasting(Some(1))).unwrap(),
        Default::default()
    );
    until("the kernel takes them away", || {
        single(&host, "eth0").is_empty()
    });
    assert_eq!(addresses.apply(&lasting(None)).unwrap().added.len(), 3);
}
