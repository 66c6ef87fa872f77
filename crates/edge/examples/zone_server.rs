//! Serves a zone file, or a zone that is made up: for measuring, and for trying other servers with it.
//!
//! ```text
//! cargo run --release -p wharfie-edge --example zone_server
//! ```
//!
//! By environment: AT=address:port (127.0.0.1:5399), ZONE=name (bench.example), FILE=zone file, or
//! NAMES=n (1000) for that many names `h0`, `h1`, …; SOCKETS=n (1) threads; RATE=n (0) answers that are
//! alike per second and network; KEY=name:algorithm:secret, ALLOW=network (transfers, with the key if
//! there is one), NOTIFY=address:port (told of changes, signed alike), EVERY=seconds after which a
//! record changes, SERIAL=n (the time), WRITE=directory to which the zone file is written.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use wharfie_edge::zone::{
    Allowed, Content, Data, Key, Name, RateLimit, Record, Secondary, Server, Settings, Start,
    Version, Zone, Zones, export, import, serial,
};

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn number(name: &str, unless: usize) -> usize {
    let value = setting(name).map(|v| v.parse().expect("a number"));
    value.unwrap_or(unless)
}

fn address(number: usize) -> Data {
    Data::Address(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number as u32)))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |s| s.as_secs())
}

fn records(origin: &Name) -> Vec<Record> {
    if let Some(path) = setting("FILE") {
        let text = std::fs::read_to_string(&path).expect("the zone file is read");
        match import(&text, &path, origin, 300) {
            Ok(imported) => return imported.records,
            Err(faults) => {
                faults.iter().for_each(|f| eprintln!("{f}"));
                std::process::exit(2);
            }
        }
    }
    let names = number("NAMES", 1000);
    let host = |i| {
        Record::new(
            origin.child(&format!("h{i}")).expect("a name"),
            300,
            &address(i),
        )
    };
    (0..names).map(host).collect()
}

fn main() {
    let origin: Name = setting("ZONE")
        .unwrap_or("bench.example".to_owned())
        .parse()
        .expect("a zone");
    let ns = origin.child("ns").expect("a name");
    let mut records = records(&origin);
    records.push(Record::new(ns.clone(), 300, &address(0xff_fffe)));
    let make = |records: &[Record]| {
        let start = Start {
            primary: ns.clone(),
            ..Start::new(origin.clone())
        };
        let began = std::time::Instant::now();
        let (content, words) = Content::new(start, std::slice::from_ref(&ns), records.to_vec());
        words.iter().for_each(|w| eprintln!("{w}"));
        println!(
            "{} records put in order: {:?}",
            content.records().len(),
            began.elapsed()
        );
        content
    };
    let content = make(&records);
    let version = match setting("SERIAL") {
        Some(serial) => Version {
            serial: serial.parse().expect("a serial"),
            digest: content.digest(),
        },
        None => serial::next(None, &content, now(), &[]),
    };
    if let Some(directory) = setting("WRITE") {
        let soa = content.start().soa_line(version.serial);
        let text = export(&origin, Some(&soa), content.records());
        std::fs::write(format!("{directory}/zone"), text).expect("the zone is written");
        let lines = content.records().iter().filter(|r| r.kind == 1);
        let mut asked: Vec<String> = lines.map(|r| format!("{} A\n", r.name)).collect();
        // Neither in order nor by chance, so that all servers are asked alike.
        asked.sort_by_key(|l| {
            l.bytes()
                .fold(7_u32, |h, b| h.wrapping_mul(0x0100_0193) ^ u32::from(b))
        });
        std::fs::write(format!("{directory}/questions"), asked.concat())
            .expect("questions are written");
    }
    let began = std::time::Instant::now();
    let mut zone = Zone::new(content, version);
    println!(
        "snapshot of {} names made in {:?}",
        zone.names(),
        began.elapsed()
    );
    let key = setting("KEY").map(|k| {
        let parts: Vec<&str> = k.splitn(3, ':').collect();
        let [name, algorithm, secret] = parts[..] else {
            panic!("KEY=name:algorithm:secret");
        };
        Arc::new(Key::new(name, algorithm, secret).expect("a key"))
    });
    let key_name = key.as_ref().map(|k| k.name().clone());
    let zones = |zone: &Arc<Zone>| {
        let allowed = setting("ALLOW").map(|network| Allowed {
            from: network.parse().expect("a network"),
            key: key_name.clone(),
        });
        let secondary = setting("NOTIFY").map(|at| Secondary {
            at: at.parse().expect("address:port"),
            key: key_name.clone(),
        });
        let mut zones = Zones::new(vec![Arc::clone(zone)]);
        zones.keys.extend(key.clone());
        zones.allowed.extend(allowed);
        zones.secondaries.extend(secondary);
        Arc::new(zones)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (sender, receiver) = watch::channel(zones(&zone));
        let settings = Settings {
            sockets: number("SOCKETS", 1),
            rate: RateLimit {
                per_second: number("RATE", 0) as u32,
                ..RateLimit::default()
            },
            ..Settings::default()
        };
        let server = Server::new(settings, receiver);
        let at = setting("AT").unwrap_or("127.0.0.1:5399".to_owned());
        let at: SocketAddr = at.parse().expect("address:port");
        let failed = server.listen(&BTreeSet::from([at])).await;
        assert!(failed.is_empty(), "{failed:?}");
        println!("listening at {:?}", server.addresses().await);
        let every = setting("EVERY").map(|e| Duration::from_secs(e.parse().expect("seconds")));
        for round in 1.. {
            let Some(every) = every else {
                return std::future::pending().await;
            };
            tokio::time::sleep(every).await;
            let changing = origin.child("changing").expect("a name");
            records.retain(|r| r.name != changing);
            records.push(Record::new(changing, 5, &address(round)));
            zone = zone.then(make(&records), now(), &[]);
            sender.send_replace(zones(&zone));
            println!("serial {}", zone.version().serial);
        }
    });
}
