//! Hosts and containers without Docker: network namespaces, cables and bridges.

use std::fs;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use wharfie_host::net::{Endpoint, Mac, Namespace};

const PREFIX: &str = "wlnet";
const NAMESPACES: &str = "/var/run/netns";
static NEXT: AtomicUsize = AtomicUsize::new(0);
static SWEEP: Once = Once::new();

/// Whether tests can be made here.
pub(crate) fn possible() -> bool {
    if rustix::process::geteuid().is_root() {
        SWEEP.call_once(sweep);
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "the network tests need root"
    );
    eprintln!("skipped: the network tests need root");
    false
}

/// Removes what killed tests left: their process is gone.
fn sweep() {
    for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('x').next());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// A network namespace, removed with the value.
#[derive(Debug)]
pub(crate) struct Space {
    name: String,
}

impl Space {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}x{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let space = Self { name };
        space.ip("link set lo up");
        space
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    pub(crate) fn namespace(&self) -> Namespace {
        Namespace::at(&self.path()).unwrap()
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.arg(program);
        command
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        run(self.command("ip").args(arguments.split_whitespace()))
    }

    pub(crate) fn bridge(&self, arguments: &str) -> String {
        run(self.command("bridge").args(arguments.split_whitespace()))
    }

    pub(crate) fn nft(&self, rules: &str) -> String {
        run(self.command("nft").arg(rules))
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        self.inside(|| fs::write(path, value).unwrap());
    }

    /// Calls a function in the namespace, in a thread made for it.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            };
            scope.spawn(inside).join().unwrap()
        })
    }

    /// Whether a ping is answered.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        let count = if address.contains(':') { "-6" } else { "-4" };
        let output = self
            .command("busybox")
            .args(["ping", count, "-c", "1", "-W", "1", address])
            .output()
            .unwrap();
        output.status.success()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Hosts on a LAN, 192.0.2.0/24 and 2001:db8::/64.
pub(crate) struct Lan {
    switch: Space,
    hosts: u8,
}

/// A host on it.
pub(crate) struct Host {
    pub(crate) space: Space,
    pub(crate) number: u8,
}

impl Lan {
    pub(crate) fn new() -> Self {
        let switch = Space::new();
        switch.ip("link add lan type bridge");
        switch.ip("link set lan up");
        Self { switch, hosts: 0 }
    }

    pub(crate) fn host(&mut self) -> Host {
        self.hosts += 1;
        let number = self.hosts;
        let space = Space::new();
        let ip = |arguments: String| space.ip(&arguments);
        let port = format!("h{number}");
        self.switch.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}",
            space.name
        ));
        self.switch.ip(&format!("link set {port} master lan up"));
        ip(format!("addr add 192.0.2.{number}/24 dev eth0"));
        ip(format!("addr add 2001:db8::{number}/64 dev eth0 nodad"));
        ip("link set eth0 up".into());
        space.sysctl("net.ipv4.ip_forward", "1");
        Host { space, number }
    }
}

impl Host {
    pub(crate) fn address(&self) -> std::net::IpAddr {
        [192, 0, 2, self.number].into()
    }

    /// A Docker network's bridge: 10.N.0.0/16 and fd00:N::/64, with a gateway address for each
    /// host.
    pub(crate) fn network(&self, n: u8) -> String {
        let (bridge, host) = (format!("br{n}"), self.number);
        self.space.ip(&format!("link add {bridge} type bridge"));
        self.space
            .ip(&format!("addr add 10.{n}.{host}.1/16 dev {bridge}"));
        self.space.ip(&format!(
            "addr add fd00:{n}::{host}:1/64 dev {bridge} nodad"
        ));
        self.space.ip(&format!("link set {bridge} up"));
        bridge
    }

    /// A container on a network, 10.N.HOST.LAST.
    pub(crate) fn container(&self, n: u8, last: u8) -> Container {
        let container = Container {
            space: Space::new(),
            hosts: Vec::new(),
        };
        self.attach(container, n, last)
    }

    /// Puts a container on one more network.
    pub(crate) fn attach(&self, mut container: Container, n: u8, last: u8) -> Container {
        let host = self.number;
        let device = format!("eth{}", container.hosts.len());
        let port = format!("v{n}-{last}");
        let ip = |arguments: String| container.space.ip(&arguments);
        // The cable of one that was there before goes some time after its namespace.
        let _ = self
            .space
            .command("ip")
            .args(["link", "del", &port])
            .output();
        self.space.ip(&format!(
            "link add {port} type veth peer name {device} address 02:42:{n:02x}:00:{host:02x}:{last:02x} netns {}",
            container.space.name
        ));
        self.space.ip(&format!("link set {port} master br{n} up"));
        ip(format!("addr add 10.{n}.{host}.{last}/16 dev {device}"));
        ip(format!(
            "addr add fd00:{n}::{host}:{last:x}/64 dev {device} nodad"
        ));
        ip(format!("link set {device} up"));
        if container.hosts.is_empty() {
            ip(format!("route add default via 10.{n}.{host}.1"));
        }
        container.hosts.push(Endpoint {
            mac: Mac([2, 0x42, n, 0, host, last]),
            addresses: vec![
                [10, n, host, last].into(),
                format!("fd00:{n}::{host}:{last:x}").parse().unwrap(),
            ],
            host: self.address(),
        });
        container
    }
}

/// A container.
pub(crate) struct Container {
    pub(crate) space: Space,
    /// On each of its networks.
    pub(crate) hosts: Vec<Endpoint>,
}

impl Container {
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.hosts[0].clone()
    }

    pub(crate) fn address(&self) -> std::net::IpAddr {
        self.hosts[0].addresses[0]
    }

    pub(crate) fn address6(&self) -> std::net::IpAddr {
        self.hosts[0].addresses[1]
    }
}
