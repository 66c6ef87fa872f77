//! Two hosts with a tunnel each, in network namespaces of their own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use wharfie_tunnel::uapi::{PeerSet, Set};
use wharfie_tunnel::{Client, PrivateKey, PublicKey, Settings, Tunnel};

pub(crate) const PORT: u16 = 4790;
const VXLAN: u16 = 4789;
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Whether tests can be made here.
pub(crate) fn possible() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "these tests need root");
    eprintln!("skipped: these tests need root");
    false
}

/// One host: 192.0.2.N on the wire, 10.91.0.N through the tunnel, 10.92.0.N over VXLAN in it.
pub(crate) struct Host {
    name: String,
    pub(crate) number: u8,
    pub(crate) key: PrivateKey,
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// Two of them, connected.
pub(crate) fn pair() -> [Host; 2] {
    let [a, b] = [1, 2].map(Host::new);
    let cable = format!("link add eth0 type veth peer name eth0 netns {}", b.name);
    a.ip(&cable);
    for host in [&a, &b] {
        host.ip(&format!("addr add 192.0.2.{}/24 dev eth0", host.number));
        host.ip("link set eth0 up");
    }
    let (mut a, mut b) = (a, b);
    a.start();
    b.start();
    [a, b]
}

/// The same, and they know each other.
pub(crate) fn acquainted() -> [Host; 2] {
    let [a, b] = pair();
    a.set(&a.knows(&b, b.key.public()));
    b.set(&b.knows(&a, a.key.public()));
    [a, b]
}

impl Host {
    fn new(number: u8) -> Self {
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wttun{}x{unique}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let host = Self {
            socket: std::env::temp_dir().join(&name).with_extension("sock"),
            name,
            number,
            key: PrivateKey::generate(),
            thread: None,
        };
        host.ip("link set lo up");
        host
    }

    /// Starts the tunnel. It has no key and no peers.
    pub(crate) fn start(&mut self) {
        let settings = Settings {
            name: "wwg0".to_owned(),
            socket: self.socket.clone(),
            vxlan: Some(VXLAN),
            version: "test".to_owned(),
        };
        let file = File::open(format!("/var/run/netns/{}", self.name)).unwrap();
        let (started, starts) = channel();
        self.thread = Some(std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let tunnel = Tunnel::start(settings).unwrap();
            started.send(()).unwrap();
            tunnel.serve().unwrap();
        }));
        starts.recv().unwrap();
        let (n, other) = (self.number, 3 - self.number);
        self.ip("link set wwg0 arp off mtu 1440 up");
        self.ip(&format!("addr add 10.91.0.{n}/24 dev wwg0"));
        let vxlan = format!("id 7 dstport {VXLAN} local 10.91.0.{n} remote 10.91.0.{other}");
        self.ip(&format!("link add wvx7 type vxlan {vxlan} dev wwg0"));
        self.ip("link set wvx7 mtu 1390 up");
        self.ip(&format!("addr add 10.92.0.{n}/24 dev wvx7"));
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.ip("link del wvx7");
        self.client().stop().unwrap();
        thread.join().unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::at(&self.socket)
    }

    pub(crate) fn set(&self, set: &Set) {
        self.client().set(set).unwrap();
    }

    /// That the other has this key, and nobody else any.
    pub(crate) fn knows(&self, other: &Self, key: PublicKey) -> Set {
        let mut peer = PeerSet::new(key);
        peer.endpoint = Some(SocketAddr::from(([192, 0, 2, other.number], PORT)));
        peer.keepalive = Some(25);
        peer.allowed = vec![format!("10.91.0.{}/32", other.number).parse().unwrap()];
        Set {
            private_key: Some(self.key.clone()),
            listen_port: Some(PORT),
            replace_peers: true,
            peers: vec![peer],
        }
    }

    pub(crate) fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]);
        run(command.args(arguments.split_whitespace()));
    }

    /// Calls a function in the namespace, in a thread made for it.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/var/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            };
            scope.spawn(inside).join().unwrap()
        })
    }

    /// Whether the other answers within some seconds.
    pub(crate) fn reaches(&self, other: &Self, longest: Duration) -> bool {
        let listener = other.listen();
        let at = SocketAddr::from((
            [10, 91, 0, other.number],
            listener.local_addr().unwrap().port(),
        ));
        let since = Instant::now();
        while since.elapsed() < longest {
            let patience = Duration::from_secs(1);
            if self
                .inside(|| TcpStream::connect_timeout(&at, patience))
                .is_ok()
            {
                return true;
            }
        }
        false
    }

    pub(crate) fn listen(&self) -> TcpListener {
        self.inside(|| TcpListener::bind("0.0.0.0:0").unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.client().stop();
            let _ = thread.join();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// Bytes that differ everywhere (Marsaglia's xorshift).
fn noise(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed;
    move |buffer| {
        for eight in buffer.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
        }
    }
}

/// Sends so many times 64 KiB from one to the other over a network (10.N.0.0), calling a function
/// after half of them, and looks whether all arrived as they were.
pub(crate) fn stream(from: &Host, to: &Host, network: u8, pieces: usize, halfway: impl FnOnce()) {
    const PIECE: usize = 64 << 10;
    let listener = to.listen();
    let port = listener.local_addr().unwrap().port();
    let at = SocketAddr::from(([10, network, 0, to.number], port));
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let (mut noise, mut seen, mut wanted) = (noise(7), vec![0; PIECE], vec![0; PIECE]);
        for piece in 0..pieces {
            stream.read_exact(&mut seen).unwrap();
            noise(&mut wanted);
            assert!(seen == wanted, "piece {piece} arrived as something else");
        }
        stream.write_all(b"all").unwrap();
    });
    let patience = Duration::from_secs(20);
    let mut stream = from.inside(|| TcpStream::connect_timeout(&at, patience).unwrap());
    stream
        .set_write_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let (mut noise, mut buffer) = (noise(7), vec![0; PIECE]);
    let mut halfway = Some(halfway);
    for piece in 0..pieces {
        if piece == pieces / 2
            && let Some(halfway) = halfway.take()
        {
            halfway();
        }
        noise(&mut buffer);
        stream.write_all(&buffer).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "all");
    receiver.join().unwrap();
}
