//! What one change costs in the kernel's tables, with few and with many others in them:
//! `cargo run --release -p wharfie-host --example net_cost`, as root. It works in a network
//! namespace of its own.
#![allow(clippy::unwrap_used)] // a measurement: what fails ends it

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use wharfie_host::net::{
    Endpoint, Hold, Mac, Namespace, Overlay, Overlays, Protocol, Published, Publisher, Publishing,
    Vip, Vips,
};

const FEW: u32 = 10;
const MANY: u32 = 10_000;
const TIMES: usize = 400;

fn main() {
    // Deprecated for what it does with the table of file descriptors: there is one thread.
    #[allow(deprecated)]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
    for arguments in [
        "link set lo up",
        "link add br0 type bridge",
        "link set br0 up",
    ] {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success());
    }
    let host = Namespace::here().unwrap();
    println!("microseconds for one change, there and back (median, 90th percentile)");
    println!("{:<44} {:>14} {:>16}", "", "10 others", "10,000 others");
    row("overlay: a remote container", |others| {
        overlay(&host, others)
    });
    row("VIP: a backend, other services", |others| {
        services(&host, others)
    });
    row("published: a task, other ports", |others| {
        ports(&host, others)
    });
    row("hold: an address", |others| hold(&host, others));
    // These look through the service's own backends, as they are given: a tenth will do.
    println!(
        "{:<44} {:>14} {:>16}",
        "", "10 in the same", "1,000 in the same"
    );
    let few = |all: u32| all.min(1_000);
    row("VIP: a backend of a service", |all| {
        backends(&host, few(all), false)
    });
    row("VIP: the same, with affinity", |all| {
        backends(&host, few(all), true)
    });
}

fn row(what: &str, mut measure: impl FnMut(u32) -> Vec<Duration>) {
    let text = |mut all: Vec<Duration>| {
        all.sort();
        let micros = |share: usize| all[all.len() * share / 100].as_micros();
        format!("{} ({})", micros(50), micros(90))
    };
    let (few, many) = (text(measure(FEW)), text(measure(MANY)));
    println!("{what:<44} {few:>14} {many:>16}");
}

fn times(mut change: impl FnMut(bool)) -> Vec<Duration> {
    let once = |index: usize| {
        let start = Instant::now();
        change(index.is_multiple_of(2));
        start.elapsed()
    };
    (0..TIMES).map(once).collect()
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a4d_0000 + number).into()
}

fn endpoint(number: u32) -> Endpoint {
    let [_, b, c, d] = number.to_be_bytes();
    Endpoint {
        mac: Mac([2, 0x42, 0, b, c, d]),
        addresses: vec![address(number)],
        host: [192, 0, 2, 9].into(),
    }
}

fn overlay(host: &Namespace, others: u32) -> Vec<Duration> {
    let overlay = Overlay {
        network: "measured".into(),
        vni: 7,
        bridge: "br0".into(),
        mtu: 1450,
        port: 4789,
        local: [192, 0, 2, 1].into(),
        endpoints: (1..=others).map(endpoint).collect(),
    };
    let mut overlays = Overlays::open(host).unwrap();
    let start = Instant::now();
    overlays.apply(std::slice::from_ref(&overlay)).unwrap();
    let made = start.elapsed();
    let start = Instant::now();
    assert!(overlays.apply(&[overlay]).unwrap().is_empty());
    eprintln!(
        "(overlay of {others}: made in {made:?}, looked through in {:?})",
        start.elapsed()
    );
    let one = endpoint(0xff_ffff);
    let all = times(|add| {
        if add {
            overlays.add(7, &one).unwrap();
        } else {
            overlays.remove(7, &one).unwrap();
        }
    });
    overlays.apply(&[]).unwrap();
    all
}

fn vip(number: u32, backends: impl IntoIterator<Item = u32>, affinity: bool) -> Vip {
    Vip {
        address: Ipv4Addr::from(0x0a63_0000 + number).into(),
        ports: Vec::new(),
        backends: backends.into_iter().map(address).collect(),
        affinity,
    }
}

fn services(host: &Namespace, others: u32) -> Vec<Duration> {
    let all: Vec<Vip> = (1..=others).map(|n| vip(n, n..n + 3, false)).collect();
    change_one(host, &all, &vip(0, 1..4, false), &vip(0, 1..5, false))
}

fn backends(host: &Namespace, others: u32, affinity: bool) -> Vec<Duration> {
    let (fewer, more) = (vip(0, 1..others, affinity), vip(0, 1..=others, affinity));
    change_one(host, &[], &fewer, &more)
}

fn change_one(host: &Namespace, others: &[Vip], fewer: &Vip, more: &Vip) -> Vec<Duration> {
    let mut vips = Vips::open(host).unwrap();
    let start = Instant::now();
    vips.apply(others).unwrap();
    vips.set(fewer).unwrap();
    eprintln!(
        "({} services: made in {:?})",
        others.len() + 1,
        start.elapsed()
    );
    let all = times(|add| {
        assert!(vips.set(if add { more } else { fewer }).unwrap());
    });
    vips.purge().unwrap();
    all
}

fn ports(host: &Namespace, others: u32) -> Vec<Duration> {
    let port = |port: u32, tasks: u32| Published {
        protocol: Protocol::Tcp,
        port: u16::try_from(port).unwrap(),
        target: 80,
        tasks: (1..=tasks).map(address).collect(),
    };
    let mut publisher = Publisher::open(host).unwrap();
    let publishing = Publishing {
        ports: (1..=others).map(|number| port(number, 3)).collect(),
        ..Publishing::default()
    };
    publisher.apply(&publishing).unwrap();
    let (fewer, more) = (port(60_000, 3), port(60_000, 4));
    publisher.set(&fewer).unwrap();
    let all = times(|add| {
        assert!(publisher.set(if add { &more } else { &fewer }).unwrap());
    });
    publisher.purge().unwrap();
    all
}

fn hold(host: &Namespace, others: u32) -> Vec<Duration> {
    let mut hold = Hold::open(host).unwrap();
    hold.apply(&(1..=others).map(address).collect::<Vec<_>>())
        .unwrap();
    let one = [address(0xff_ffff)];
    let all = times(|add| {
        let changed = if add {
            hold.hold(&one)
        } else {
            hold.lift(&one)
        };
        assert!(changed.unwrap());
    });
    hold.purge().unwrap();
    all
}
