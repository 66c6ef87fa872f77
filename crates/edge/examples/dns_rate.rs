//! Answers per second of the DNS server with names of the cluster.
//!
//! ```text
//! cargo run --release -p wharfie-edge --example dns_rate             # asks itself, prints a figure
//! cargo run --release -p wharfie-edge --example dns_rate -- serve    # serves, for dnsperf and others
//! ```
//!
//! `serve` prints where it listens and writes the questions to `dns_rate.txt` in the directory for
//! temporary files, for `dnsperf -s 127.0.0.1 -p PORT -d FILE`. THREADS=n (1) are the threads that
//! serve, NAMES=n (1000) the services there are, TASKS=n (1) the tasks of each.

#![allow(clippy::disallowed_methods)] // it measures for a time

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wharfie_compose::model::{Network as Wanted, Project, Service};
use wharfie_core::network::{
    Attachment, Catalog, Network, Networks, Node, Outside, Pool, Running, Vips, World,
};
use wharfie_core::{Stack, State};
use wharfie_edge::dns::{Server, Settings, Upstreams, question};

fn setting(name: &str, unless: usize) -> usize {
    let value = std::env::var(name).ok();
    value.and_then(|v| v.parse().ok()).unwrap_or(unless)
}

/// Services `s0`, `s1`, … on one network, all of which see each other.
fn catalog(names: usize, tasks: usize) -> Catalog {
    let mut project = Project {
        name: "bench".to_owned(),
        ..Project::default()
    };
    let network = Wanted {
        name: "bench_net".to_owned(),
        ..Wanted::default()
    };
    project.networks.insert("net".to_owned(), network);
    let mut containers = Vec::new();
    let mut address = u32::from_be_bytes([127, 0, 0, 1]);
    for i in 0..names {
        let name = format!("s{i}");
        let service = Service {
            networks: [("net".to_owned(), None)].into(),
            ..Service::default()
        };
        project.services.insert(name.clone(), service);
        for number in 1..=tasks {
            let at = Attachment {
                v4: Some(Ipv4Addr::from_bits(address)),
                ..Attachment::default()
            };
            address += 1;
            containers.push(Running {
                id: format!("{address:08x}{:056}", 0),
                name: format!("bench-{name}-{number}"),
                stack: "bench".to_owned(),
                service: name.clone(),
                number: number as u32,
                state: State::Running,
                networks: [("bench_net".to_owned(), at)].into(),
                ..Running::default()
            });
        }
    }
    let stack = Stack {
        active: project.services.keys().cloned().collect(),
        project,
        ..Stack::default()
    };
    let loopback = "127.0.0.0/8".parse().expect("it is a range");
    let network = Network {
        v4: Some(Pool::chosen(loopback)),
        ..Network::default()
    };
    let node = Node {
        id: "h1".to_owned(),
        live: true,
        containers,
        ..Node::default()
    };
    let world = World {
        me: "h1",
        nodes: &[node],
        stacks: &[&stack],
        local: &BTreeMap::new(),
        networks: &Networks::from([("bench_net".to_owned(), network)]),
        vips: &Vips::new(),
    };
    // The shortest of some: others use the machine as well.
    let took = |_| {
        let began = Instant::now();
        drop(Catalog::of(&world, Outside::default()));
        began.elapsed()
    };
    let shortest = (0..20).map(took).min().unwrap_or_default();
    println!("catalog of {names} services with {tasks} tasks each: {shortest:?}");
    Catalog::of(&world, Outside::default())
}

/// Keeps some questions on their way for a while; questions answered per second.
fn ask(to: SocketAddr, names: usize, seconds: u64) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                socket.connect(to).expect("an address");
                let wait = Some(Duration::from_millis(200));
                socket.set_read_timeout(wait).expect("a timeout");
                let packets: Vec<Vec<u8>> = (0..names)
                    .filter_map(|i| question(i as u16, &format!("s{i}.bench.internal"), 1))
                    .collect();
                let mut next = packets.iter().cycle().skip(thread * 7);
                let mut buffer = [0; 1500];
                let mut send = || {
                    let packet = next.next().expect("it goes round");
                    // What is lost is sent again below.
                    let _ = socket.send(packet);
                };
                (0..50).for_each(|_| send());
                while !stop.load(Ordering::Relaxed) {
                    if socket.recv(&mut buffer).is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    send();
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let (before, began) = (answered.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let all = answered.load(Ordering::Relaxed) - before;
    let rate = all as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let _ = thread.join();
    }
    rate
}

fn main() {
    let (names, tasks) = (setting("NAMES", 1000), setting("TASKS", 1));
    let threads = setting("THREADS", 1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("a runtime");
    let (_sender, receiver) = watch::channel(Arc::new(catalog(names, tasks)));
    let settings = Settings {
        upstreams: Upstreams::Fixed(Vec::new()),
        sockets: threads,
        ..Settings::default()
    };
    let _inside = runtime.enter();
    let server = Server::new(settings, receiver);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let at = runtime.block_on(async {
        let failed = server.listen(&BTreeSet::from([any])).await;
        assert!(failed.is_empty(), "{failed:?}");
        server.addresses().await[0]
    });
    if std::env::args().nth(1).as_deref() == Some("serve") {
        let lines = (0..names).map(|i| format!("s{i}.bench.internal A\n"));
        let path = std::env::temp_dir().join("dns_rate.txt");
        std::fs::write(&path, lines.collect::<String>()).expect("the questions are written");
        println!("listening at {at}; questions in {}", path.display());
        loop {
            std::thread::park();
        }
    }
    let rate = ask(at, names, 5);
    println!(
        "{:.1} k answers/s with {threads} serving and 2 asking threads",
        rate / 1000.0
    );
}
