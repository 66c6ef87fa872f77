//! What encrypts the traffic between hosts: a WireGuard device that the packets of overlays go
//! through, and nothing else. Overlays know nothing of it: their hosts have the addresses they had.
//!
//! Rules lead VXLAN packets to a table of their own ([`ways`]), where each host has its way through
//! the device and, behind that, one that leads nowhere: without the device nothing passes, rather
//! than in clear. The device is the kernel's ([`kernel`]), or where that has none a process of ours
//! that outlives the agent ([`wharfie_tunnel`]).

mod device;
mod kernel;
mod ways;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use wharfie_tunnel::uapi::{PeerSet, Set, State};
use wharfie_tunnel::{Client, PrivateKey, PublicKey};

use super::route::Route;
use super::{Error, Namespace};
use device::Kind;
use ways::Way;

/// What the device is called.
pub const ENCRYPTION_DEVICE: &str = "wwg0";
/// UDP port of encrypted packets.
pub const ENCRYPTION_PORT: u16 = 4790;
/// Longest packet that is encrypted whole, over IPv6 as well: 1500 less 80 (IPv6, UDP, and 32 bytes
/// of WireGuard).
const MTU: u32 = 1_420;
/// Seconds between signs of life: routers on the way forget those who are silent (as with `wg`).
const KEEPALIVE: u16 = 25;
/// How long a process of ours may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// What is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// This host's key.
    pub key: PrivateKey,
    /// The UDP port of encrypted packets.
    pub port: u16,
    /// The UDP port of overlays.
    pub overlay_port: u16,
    /// Hosts whose packets are encrypted.
    pub peers: Vec<EncryptedPeer>,
    /// Hosts that nothing is sent to, since it could not be encrypted.
    pub blocked: Vec<IpAddr>,
}

/// A host that packets are encrypted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptedPeer {
    /// The address that overlays know it by.
    pub address: IpAddr,
    /// Where its encrypted packets are sent.
    pub endpoint: SocketAddr,
    /// Its key.
    pub key: PublicKey,
    /// The key that it will have soon.
    pub next: Option<PublicKey>,
}

/// What encrypts on one host.
pub struct Encrypter {
    route: Route,
    namespace: Namespace,
    client: Client,
    version: String,
    /// What the device was told last.
    told: Option<Set>,
}

impl Encrypter {
    /// That of a host. A process of ours listens at this socket, and is replaced if it is not of this
    /// version.
    pub fn open(host: &Namespace, socket: &Path, version: &str) -> Result<Self, Error> {
        Ok(Self {
            route: Route::open(host)?,
            namespace: host.clone(),
            client: Client::at(socket),
            version: version.to_owned(),
            told: None,
        })
    }

    /// Whether this host can encrypt.
    #[must_use]
    pub fn is_possible() -> bool {
        let there = |path: &str| Path::new(path).exists();
        there("/dev/net/tun") || there("/sys/module/wireguard")
    }

    /// The key of a device that is at work.
    #[must_use]
    pub fn key(&self) -> Option<PrivateKey> {
        let user = self.client.get().ok().and_then(|state| state.private_key);
        user.or_else(|| {
            let state = kernel::get(&self.namespace, ENCRYPTION_DEVICE).ok()?;
            state.private_key
        })
    }

    /// Has packets be encrypted just so; repairs what others changed. `start` starts the process
    /// where the kernel has no such device. Says whether anything had to be done.
    pub fn apply(
        &mut self,
        wanted: &Encryption,
        start: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<bool, Error> {
        // Before there is a way, nothing passes.
        let mut changed = self.lead(wanted, None)?;
        if wanted.peers.is_empty() {
            return Ok(self.end_device()? || changed);
        }
        let kind = self.device(start)?;
        changed |= self.configure(wanted, kind)?;
        let index = device::settle(&mut self.route, ENCRYPTION_DEVICE, kind, MTU)?;
        changed |= self.lead(wanted, Some(index))?;
        Ok(changed)
    }

    /// Takes it all away.
    pub fn purge(&mut self) -> Result<(), Error> {
        self.end_device()?;
        remove_ways(&mut self.route).map(drop)
    }

    /// Rules and routes. Without a device only those that lead nowhere are made, and none is removed.
    fn lead(&mut self, wanted: &Encryption, device: Option<u32>) -> Result<bool, Error> {
        let seen = ways::read(&mut self.route)?;
        let all = ways::ways(wanted, device);
        let come: Vec<&Way> = all.iter().filter(|way| !seen.contains(way)).collect();
        let stays = |way: &&Way| all.contains(way) || (device.is_none() && way.is_through());
        let gone: Vec<&Way> = seen.iter().filter(|way| !stays(way)).collect();
        ways::carry_out(&mut self.route, &come, Way::addition)?;
        ways::carry_out(&mut self.route, &gone, Way::removal)?;
        Ok(!come.is_empty() || !gone.is_empty())
    }

    /// Makes the device, of whichever kind can be had.
    fn device(&mut self, start: &mut dyn FnMut() -> io::Result<()>) -> Result<Kind, Error> {
        if let Some(kind) = device::find(&mut self.route, ENCRYPTION_DEVICE)? {
            let current = || self.client.version().is_ok_and(|v| v == self.version);
            if kind == Kind::Kernel || current() {
                return Ok(kind);
            }
            self.end_process()?;
        } else if device::make(&mut self.route, ENCRYPTION_DEVICE)? {
            return Ok(Kind::Kernel);
        }
        self.told = None;
        let failed = |e: io::Error| Error::system("start the tunnel", e);
        start().map_err(failed)?;
        match soon(|| Ok(self.client.version().is_ok()))? {
            true => Ok(Kind::User),
            false => Err(failed(io::Error::new(
                io::ErrorKind::TimedOut,
                "it does not answer",
            ))),
        }
    }

    fn configure(&mut self, wanted: &Encryption, kind: Kind) -> Result<bool, Error> {
        let set = set(wanted);
        let failed = |e| Error::system("configure the encryption", e);
        let state = match kind {
            Kind::User => self.client.get().map_err(failed)?,
            Kind::Kernel => kernel::get(&self.namespace, ENCRYPTION_DEVICE)?,
        };
        if self.told.as_ref() == Some(&set) && is_so(&state, &set) {
            return Ok(false);
        }
        match kind {
            Kind::User => self.client.set(&set).map_err(failed)?,
            Kind::Kernel => kernel::set(&self.namespace, ENCRYPTION_DEVICE, &set)?,
        }
        self.told = Some(set);
        Ok(true)
    }

    /// Ends the device, of whichever kind it is; whether there was one.
    fn end_device(&mut self) -> Result<bool, Error> {
        self.told = None;
        match device::find(&mut self.route, ENCRYPTION_DEVICE)? {
            None => Ok(false),
            Some(Kind::Kernel) => {
                device::remove(&mut self.route, ENCRYPTION_DEVICE)?;
                Ok(true)
            }
            Some(Kind::User) => self.end_process().map(|()| true),
        }
    }

    fn end_process(&mut self) -> Result<(), Error> {
        // One that does not answer is dead, or hangs: without its device it ends.
        let told = self.client.stop().is_ok();
        let route = &mut self.route;
        if told && soon(|| Ok(device::find(route, ENCRYPTION_DEVICE)?.is_none()))? {
            return Ok(());
        }
        device::remove(route, ENCRYPTION_DEVICE)
    }
}

/// Whether a condition holds in time.
fn soon(mut condition: impl FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
    let since = Instant::now();
    while !condition()? {
        if since.elapsed() >= PATIENCE {
            return Ok(false);
        }
        #[allow(clippy::disallowed_methods)] // for a condition, and with a deadline
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

/// Removes what is ours: the names of devices, and how many rules and routes.
pub(crate) fn remove_all(namespace: &Namespace) -> Result<(Vec<String>, usize), Error> {
    let mut route = Route::open(namespace)?;
    let mut devices = Vec::new();
    if device::find(&mut route, ENCRYPTION_DEVICE)?.is_some() {
        // The process of one in user space ends with it.
        device::remove(&mut route, ENCRYPTION_DEVICE)?;
        devices.push(ENCRYPTION_DEVICE.to_owned());
    }
    let ways = remove_ways(&mut route)?;
    Ok((devices, ways))
}

fn remove_ways(route: &mut Route) -> Result<usize, Error> {
    let seen = ways::read(route)?;
    ways::carry_out(route, &seen.iter().collect::<Vec<_>>(), Way::removal)?;
    Ok(seen.len())
}

/// The same for the device.
fn set(wanted: &Encryption) -> Set {
    let mut peers = Vec::new();
    for peer in &wanted.peers {
        let mut now = PeerSet::new(peer.key);
        now.endpoint = Some(peer.endpoint);
        now.keepalive = Some(KEEPALIVE);
        now.replace_allowed = true;
        now.allowed = vec![peer.address.into()];
        // The next key is known before it is used: whoever begins with it is answered.
        let next = peer.next.filter(|next| *next != peer.key);
        let next = next.map(|key| PeerSet {
            keepalive: Some(0),
            allowed: Vec::new(),
            key,
            ..now.clone()
        });
        peers.push(now);
        peers.extend(next);
    }
    Set {
        private_key: Some(wanted.key.clone()),
        listen_port: Some(wanted.port),
        replace_peers: true,
        peers,
    }
}

/// Whether a device is what it was told to be. Where peers are it may know better.
fn is_so(state: &State, set: &Set) -> bool {
    let known = |peer: &PeerSet| {
        let same = state.peers.iter().find(|p| p.key == peer.key);
        same.is_some_and(|p| p.allowed == peer.allowed)
    };
    state.private_key == set.private_key
        && Some(state.listen_port) == set.listen_port
        && state.peers.len() == set.peers.len()
        && set.peers.iter().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_told_of_the_next_key_as_well() {
        let key = || PrivateKey::generate().public();
        let address: IpAddr = [192, 0, 2, 2].into();
        let peer = EncryptedPeer {
            address,
            endpoint: (address, ENCRYPTION_PORT).into(),
            key: key(),
            next: Some(key()),
        };
        let wanted = Encryption {
            key: PrivateKey::generate(),
            port: ENCRYPTION_PORT,
            overlay_port: 4789,
            peers: vec![peer.clone()],
            blocked: vec![],
        };
        let set = set(&wanted);
        assert_eq!(set.peers[0].allowed, [address.into()]);
        assert_eq!(Some(set.peers[1].key), peer.next);
        assert!(set.peers[1].allowed.is_empty());
    }
}
