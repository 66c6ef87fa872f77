//! What `scripts/bench-networks` loads networks with, and watches them with. It needs nothing but the
//! standard library: the script builds it by itself, static, and puts it into an image.
//!
//! ```text
//! net_load serve PORT                          says its address and name to whoever connects, and by
//!                                              UDP; on the next port it never stops to talk
//! net_load connect ADDRESS:PORT SECONDS THREADS   new connections, one after the other
//! net_load ask SERVER NAME                     a name's addresses
//! net_load watch SERVER NAME ADDRESS:PORT HELD    writes down what a name and an address lead to
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)] // a measurement: what fails ends it, and pauses are meant

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// A question is asked so often, and a connection is made so often.
const ASK: Duration = Duration::from_millis(1);
const MEET: Duration = Duration::from_millis(3);
/// Who connects takes turns with as many others: one that hangs does not hold them up.
const TURNS: u32 = 100;
/// A connection that takes longer leads nowhere; a packet sent again would come after a second.
const PATIENCE: Duration = Duration::from_millis(900);
/// The stream says something so often.
const TALK: Duration = Duration::from_millis(5);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", port] => serve(port.parse().unwrap()),
        ["connect", to, seconds, threads] => connect(
            to.parse().unwrap(),
            Duration::from_secs_f64(seconds.parse().unwrap()),
            threads.parse().unwrap(),
        ),
        ["ask", server, name] => {
            let (socket, mut question) = (asker(server.parse().unwrap()), question(name));
            let found = answer(&socket, &mut question, 1).unwrap();
            found.iter().for_each(|address| println!("{address}"));
        }
        ["watch", server, name, to, held] => watch(
            server.parse().unwrap(),
            name,
            to.parse().unwrap(),
            held.parse().unwrap(),
        ),
        _ => panic!("serve, connect or watch, not {words:?}"),
    }
}

fn serve(port: u16) {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name: Arc<str> = name.trim().into();
    let talker = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port + 1)).unwrap();
    thread::spawn(move || {
        for stream in talker.incoming().flatten() {
            thread::spawn(|| talk(stream));
        }
    });
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let called = Arc::clone(&name);
    thread::spawn(move || {
        let mut own = None;
        while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
            let own = own.get_or_insert_with(|| own_address(from));
            let _ = socket.send_to(format!("{own} {called}\n").as_bytes(), from);
        }
    });
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let answer = |listener: TcpListener, name: Arc<str>| {
        move || {
            for mut stream in listener.incoming().flatten() {
                let address = stream.local_addr().unwrap().ip();
                // Who connected may have gone.
                let _ = stream.write_all(format!("{address} {name}\n").as_bytes());
            }
        }
    };
    for _ in 0..3 {
        thread::spawn(answer(listener.try_clone().unwrap(), Arc::clone(&name)));
    }
    answer(listener, name)();
}

/// The address that answers somebody.
fn own_address(to: SocketAddr) -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.local_addr().unwrap().ip()
}

/// The first line is the address, then there is no end.
fn talk(mut stream: TcpStream) {
    let address = stream.local_addr().unwrap().ip();
    let mut words = format!("{address}\n");
    while stream.write_all(words.as_bytes()).is_ok() {
        words = ".".to_owned();
        thread::sleep(TALK);
    }
}

/// What a server says to a new connection.
fn meet(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut all = Vec::new();
    // The server ends the connection: this end keeps nothing of it.
    match stream.read_to_end(&mut all)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// The same by UDP: every port is a connection of its own for the kernel, and nobody has to accept it,
/// so that a server that has little of the processor answers late, but does.
fn ask_who(to: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"?")?;
    let mut said = [0; 128];
    let count = socket.recv(&mut said)?;
    Ok(String::from_utf8_lossy(&said[..count]).trim().to_owned())
}

fn connect(to: SocketAddr, time: Duration, threads: usize) {
    let began = Instant::now();
    let (made, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while began.elapsed() < time {
                    let count = if meet(to).is_ok() { &made } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let (made, failed) = (made.into_inner(), failed.into_inner());
    #[allow(clippy::cast_precision_loss)]
    let rate = made as f64 / seconds;
    println!("{rate:.0} {failed}");
}

fn now() -> u128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_nanos()
}

/// Lines for whoever reads; many at a time.
type Lines = Arc<Mutex<String>>;

fn note(lines: &Lines, line: impl Display) {
    let mut all = lines.lock().unwrap();
    all.push_str(&format!("{line}\n"));
}

fn watch(server: IpAddr, name: &str, to: SocketAddr, held: IpAddr) {
    let lines = Lines::default();
    let question = question(name);
    let of = Arc::clone(&lines);
    thread::spawn(move || ask(server, &question, &of));
    for turn in 0..TURNS {
        let lines = Arc::clone(&lines);
        thread::spawn(move || {
            thread::sleep(MEET * turn);
            let mut next = Instant::now();
            loop {
                let began = now();
                let said = ask_who(to).unwrap_or_else(|e| format!("- {:?}", e.kind()));
                note(&lines, format_args!("{began} met {} {said}", now() - began));
                next += MEET * TURNS;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
    }
    let of = Arc::clone(&lines);
    thread::spawn(move || hold(SocketAddr::new(to.ip(), to.port() + 1), held, &of));
    loop {
        thread::sleep(Duration::from_millis(20));
        let all = std::mem::take(&mut *lines.lock().unwrap());
        // Nobody reads any more: the end.
        if std::io::stdout().write_all(all.as_bytes()).is_err() {
            return;
        }
    }
}

/// Keeps a connection open to one of those behind an address, and tells when it says nothing for
/// long, or ends.
fn hold(to: SocketAddr, held: IpAddr, lines: &Lines) {
    let found = loop {
        let stream = TcpStream::connect_timeout(&to, PATIENCE);
        if let Ok(mut stream) = stream {
            let mut said = [0; 64];
            let count = stream.read(&mut said).unwrap_or(0);
            let text = String::from_utf8_lossy(&said[..count]);
            if text.split('\n').next() == Some(held.to_string().as_str()) {
                break stream;
            }
        }
        thread::sleep(Duration::from_millis(20));
    };
    let mut stream = found;
    note(lines, format_args!("{} held {held}", now()));
    let mut last = Instant::now();
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(1..) => {}
            end => {
                note(lines, format_args!("{} broken {end:?}", now()));
                return;
            }
        }
        let silent = last.elapsed();
        last = Instant::now();
        if silent > Duration::from_millis(100) {
            let silent = silent.as_millis();
            note(lines, format_args!("{} silent {silent}", now()));
        }
    }
}

/// A question for a name's addresses.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// The addresses in an answer whose names are all shortened to the question's.
fn addresses(answer: &[u8], asked: usize) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut rest = &answer[asked..];
    while rest.len() >= 12 && rest[0] & 0xc0 == 0xc0 {
        let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
        if rest[3] == 1 && length == 4 {
            let bytes: [u8; 4] = rest[12..16].try_into().unwrap();
            found.push(bytes.into());
        }
        rest = &rest[12 + length..];
    }
    found.sort();
    found
}

fn asker(server: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((server, 53)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn answer(socket: &UdpSocket, question: &mut [u8], number: u16) -> std::io::Result<Vec<Ipv4Addr>> {
    question[..2].copy_from_slice(&number.to_be_bytes());
    socket.send(question)?;
    let mut answer = [0; 4096];
    loop {
        let count = socket.recv(&mut answer)?;
        if answer[..2] == question[..2] {
            return Ok(addresses(&answer[..count], question.len()));
        }
    }
}

fn ask(server: IpAddr, question: &[u8], lines: &Lines) {
    let socket = asker(server);
    let mut question = question.to_vec();
    let mut known = None;
    for number in (0..=u16::MAX).cycle() {
        let all = match answer(&socket, &mut question, number) {
            Ok(all) => all.iter().map(|a| format!(" {a}")).collect(),
            Err(e) => format!(" {:?}", e.kind()),
        };
        if known.as_ref() != Some(&all) {
            note(lines, format_args!("{} named{all}", now()));
            known = Some(all);
        }
        thread::sleep(ASK);
    }
}
