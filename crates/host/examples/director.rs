//! What `scripts/bench-director` measures with, as root, in network namespaces:
//!
//! ```text
//! director cost COUNT…                       one change among so many addresses, beside iptables
//! director hold DEVICE ADDRESS TASK OTHERS   does what its standard input says: take, release
//! director fill DEVICE ADDRESS TASK OTHERS   has the address and others, and leads them on
//! director answer NAME PORT                  a UDP server that says its name
//! director ask ADDRESS PORT SECONDS          asks it every millisecond; what was answered, and when
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)] // a measurement: what fails ends it, and pauses are meant

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use wharfie_host::net::{
    Gate, LanAddress, LanAddresses, Namespace, Redirected, Redirecting, Redirector, announce,
};

/// How often a change of ours is made, and one by a program.
const TIMES: usize = 400;
const PROGRAMS: usize = 10;
/// Announcements are repeated, since nobody confirms them.
const AGAIN: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
const EVERY: Duration = Duration::from_millis(1);
/// Whoever has not answered by then does not.
const PATIENCE: Duration = Duration::from_millis(300);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["cost", ref counts @ ..] => cost(counts.iter().map(|count| count.parse().unwrap())),
        ["hold", device, address, task, others] => {
            Director::new(device, address, task, others.parse().unwrap()).obey();
        }
        ["fill", device, address, task, others] => {
            let mut director = Director::new(device, address, task, others.parse().unwrap());
            director.take();
            Gate::for_redirected(&director.host)
                .unwrap()
                .set_open(true)
                .unwrap();
        }
        ["answer", name, port] => answer(name, port.parse().unwrap()),
        ["ask", address, port, seconds] => {
            let to = SocketAddr::new(address.parse().unwrap(), port.parse().unwrap());
            ask(to, Duration::from_secs_f64(seconds.parse().unwrap()));
        }
        _ => panic!("cost, hold, fill, answer or ask, not {words:?}"),
    }
}

fn now() -> u128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_nanos()
}

/// A service's address other than the one that is looked at, and a task's.
fn service(number: u32) -> IpAddr {
    Ipv4Addr::from(0xc633_0000 + number).into() // 198.51.0.0
}

fn task(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a4d_0000 + number).into() // 10.77.0.0
}

fn led(address: IpAddr, tasks: &[IpAddr]) -> Redirected {
    let tasks = tasks.to_vec();
    let here = false;
    Redirected {
        address,
        tasks,
        here,
    }
}

fn others(count: u32) -> Redirecting {
    let one = |number| led(service(number), &[task(number), task(number + 1)]);
    Redirecting {
        addresses: (1..=count).map(one).collect(),
        ..Redirecting::default()
    }
}

// ---- what one change costs

fn cost(counts: impl Iterator<Item = u32>) {
    // Deprecated for what it does with the table of file descriptors: there is one thread.
    #[allow(deprecated)]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
    for arguments in [
        "link set lo up",
        "link add br0 type bridge",
        "link set br0 up",
    ] {
        run(Command::new("ip").args(arguments.split(' ')));
    }
    let host = Namespace::here().unwrap();
    for count in counts {
        let mut row = |what: &str, mut all: Vec<Duration>| {
            all.sort();
            let micros = |share: usize| all[all.len() * share / 100].as_micros();
            println!("{count}\t{what}\t{}\t{}", micros(50), micros(90));
        };
        redirected(&host, count, &mut row);
        held(&host, count, &mut row);
        iptables(count, &mut row);
    }
}

fn times(count: usize, mut change: impl FnMut(bool)) -> Vec<Duration> {
    let once = |index: usize| {
        let start = Instant::now();
        change(index.is_multiple_of(2));
        start.elapsed()
    };
    (0..count).map(once).collect()
}

fn redirected(host: &Namespace, count: u32, row: &mut dyn FnMut(&str, Vec<Duration>)) {
    let mut redirector = Redirector::open(host).unwrap();
    redirector.apply(&others(count)).unwrap();
    let (own, a, b) = (service(0), task(60_000), task(60_001));
    let (one, two) = (led(own, &[a]), led(own, &[b]));
    // Chains that are needed for the first time are made once.
    redirector.set(&two).unwrap();
    redirector.set(&led(own, &[])).unwrap();
    let changed = times(TIMES, |there| {
        assert!(redirector.set(if there { &one } else { &two }).unwrap());
    });
    row("the address's task is another", changed);
    redirector.set(&one).unwrap();
    let changed = times(TIMES, |there| {
        let changed = if there {
            redirector.remove(own)
        } else {
            redirector.set(&one)
        };
        assert!(changed.unwrap());
    });
    row("an address comes or goes", changed);
    redirector.purge().unwrap();
}

fn held(host: &Namespace, count: u32, row: &mut dyn FnMut(&str, Vec<Duration>)) {
    let on = |address| LanAddress {
        address,
        device: "br0".into(),
        lasts: None,
    };
    let mut addresses = LanAddresses::open(host).unwrap();
    let all: Vec<LanAddress> = (1..=count).map(|number| on(service(number))).collect();
    assert!(addresses.apply(&all).unwrap().refused.is_empty());
    let own = on(service(0));
    let changed = times(TIMES, |there| {
        let changed = if there {
            addresses.add(&own)
        } else {
            addresses.remove(own.address)
        };
        assert!(changed.unwrap());
    });
    row("the host has it, or gives it back", changed);
    addresses.remove_all().unwrap();
}

/// A rule where packets come in and one for the host's own, as for the ports of Docker.
fn iptables(count: u32, row: &mut dyn FnMut(&str, Vec<Duration>)) {
    let rules = |what: &str, number: u32| {
        let (address, task) = (service(number), task(number));
        ["PREROUTING", "OUTPUT"]
            .map(|chain| format!("-{what} {chain} -d {address}/32 -j DNAT --to-destination {task}"))
    };
    let mut all = Vec::new();
    (1..=count).for_each(|number| all.extend(rules("A", number)));
    restore(&all);
    let changed = times(PROGRAMS, |there| {
        for rule in rules(if there { "A" } else { "D" }, 0) {
            let mut command = Command::new("iptables");
            run(command.args(["-w", "-t", "nat"]).args(rule.split(' ')));
        }
    });
    row("iptables, two commands", changed);
    let changed = times(PROGRAMS, |there| {
        restore(&rules(if there { "A" } else { "D" }, 0));
    });
    row("iptables-restore -n, two lines", changed);
    for chain in ["PREROUTING", "OUTPUT"] {
        run(Command::new("iptables").args(["-t", "nat", "-F", chain]));
    }
}

fn restore(rules: &[String]) {
    let mut text = "*nat\n".to_owned();
    rules
        .iter()
        .for_each(|rule| writeln!(text, "{rule}").unwrap());
    text.push_str("COMMIT\n");
    let mut command = Command::new("iptables-restore");
    let mut child = command.arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

// ---- a host

/// Every host leads the address on, whether it has it or not.
struct Director {
    host: Namespace,
    addresses: LanAddresses,
    address: LanAddress,
}

impl Director {
    fn new(device: &str, address: &str, task: &str, count: u32) -> Self {
        let host = Namespace::here().unwrap();
        let address = LanAddress {
            address: address.parse().unwrap(),
            device: device.to_owned(),
            lasts: None,
        };
        let led = led(address.address, &[task.parse().unwrap()]);
        let mut redirector = Redirector::open(&host).unwrap();
        let mut all = others(count);
        all.addresses.push(led);
        redirector.apply(&all).unwrap();
        Self {
            addresses: LanAddresses::open(&host).unwrap(),
            host,
            address,
        }
    }

    fn take(&mut self) {
        self.addresses.add(&self.address).unwrap();
        self.announce();
    }

    fn announce(&self) {
        let LanAddress {
            address, device, ..
        } = &self.address;
        announce(&self.host, device, &[*address]).unwrap();
    }

    /// Does what each line says, and says when it was done.
    fn obey(&mut self) {
        println!("ready {}", now());
        for line in std::io::stdin().lines().map_while(Result::ok) {
            match line.as_str() {
                "take" => self.take(),
                // What still comes is led on.
                "release" => drop(self.addresses.remove(self.address.address).unwrap()),
                other => panic!("{other:?}"),
            }
            println!("{line} {}", now());
            if line == "take" {
                for pause in AGAIN {
                    thread::sleep(pause);
                    self.announce();
                }
            }
        }
    }
}

// ---- a service and its client

fn answer(name: &str, port: u16) {
    let socket = UdpSocket::bind(format!("[::]:{port}")).unwrap();
    let mut buffer = [0; 100];
    while let Ok((size, from)) = socket.recv_from(&mut buffer) {
        let said = [&buffer[..size], b" ", name.as_bytes()].concat();
        let _ = socket.send_to(&said, from);
    }
}

/// For each question: its number, when it was asked and answered (0 if never), and by whom.
fn ask(to: SocketAddr, duration: Duration) {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = Arc::new(UdpSocket::bind(any).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let answers = Arc::new(Mutex::new(BTreeMap::new()));
    let (heard, ear) = (Arc::clone(&answers), Arc::clone(&socket));
    let end = Instant::now() + duration;
    let listener = thread::spawn(move || {
        let mut buffer = [0; 100];
        while Instant::now() < end + PATIENCE {
            // Refusals are heard as well.
            let Ok(size) = ear.recv(&mut buffer) else {
                continue;
            };
            let said = String::from_utf8_lossy(&buffer[..size]).into_owned();
            let (number, name) = said.split_once(' ').unwrap();
            let number: u32 = number.parse().unwrap();
            heard
                .lock()
                .unwrap()
                .insert(number, (now(), name.to_owned()));
        }
    });
    let mut asked = Vec::new();
    let begin = Instant::now();
    for number in 0_u32.. {
        let due = begin + EVERY * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if Instant::now() >= end {
            break;
        }
        asked.push(now());
        let _ = socket.send_to(number.to_string().as_bytes(), to);
    }
    listener.join().unwrap();
    let answers = answers.lock().unwrap();
    for (number, asked) in (0_u32..).zip(asked) {
        let (at, name) = answers.get(&number).cloned().unwrap_or((0, "-".into()));
        println!("{number} {asked} {at} {name}");
    }
}
