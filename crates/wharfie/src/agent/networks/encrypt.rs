//! The encryption of packets between nodes: this node's keys, and what the kernel is told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};
use wharfie_core::network::encrypt::{self, Demand, Encryption, Plan, Reason, Turn};
use wharfie_host::net::{
    self, ENCRYPTION_DEVICE, ENCRYPTION_PORT, EncryptedPeer, Encrypter, Namespace, VXLAN_PORT,
};
use wharfie_tunnel::{PrivateKey, PublicKey};

use super::view::Scene;
use crate::agent::keeper::{Keeper, now};
use crate::agent::settings::Settings;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// This node's keys. They are nowhere but here and in the device: an agent that begins takes the
/// device's over.
#[derive(Default)]
pub(in crate::agent) struct Keys(Mutex<Option<Own>>);

struct Own {
    key: PrivateKey,
    next: Option<(PrivateKey, i64)>,
    made: i64,
}

/// What the device is made of and told.
#[derive(Debug, Clone)]
pub(super) struct Sealing {
    key: PrivateKey,
    socket: PathBuf,
    log: PathBuf,
}

/// What becomes of packets to other nodes.
pub(super) type Plans = BTreeMap<IpAddr, Plan>;

/// Where the process that encrypts listens.
fn socket(settings: &Settings) -> PathBuf {
    settings.socket.with_extension("tunnel")
}

impl Keys {
    fn own(&self, settings: &Settings) -> MutexGuard<'_, Option<Own>> {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_none() {
            let known = Namespace::here()
                .and_then(|host| Encrypter::open(&host, &socket(settings), VERSION))
                .ok()
                .and_then(|encrypter| encrypter.key());
            *own = Some(Own {
                key: known.unwrap_or_else(PrivateKey::generate),
                next: None,
                made: now(),
            });
        }
        own
    }
}

impl Keeper {
    /// What the others are told.
    pub(in crate::agent) fn own_encryption(&self) -> Encryption {
        let settings = self.settings.borrow().clone();
        let demand = settings.network.encrypt;
        let mut said = Encryption {
            demand,
            private: settings.network.private.clone(),
            port: ENCRYPTION_PORT,
            ..Encryption::default()
        };
        if demand == Demand::Never || !Encrypter::is_possible() {
            return said;
        }
        if let Some(own) = &*self.keys.own(&settings) {
            said.key = Some(own.key.public().to_string());
            said.next = own.next.as_ref().map(|(key, _)| key.public().to_string());
        }
        said
    }

    /// Does what is due with this node's key; when something is due again.
    pub(super) fn turn_keys(&self) -> Duration {
        let settings = self.settings.borrow().clone();
        let mut own = self.keys.own(&settings);
        let Some(own) = own.as_mut() else {
            return Duration::MAX;
        };
        let announced = own.next.as_ref().map(|(_, at)| *at);
        let lifetime = settings.network.key_lifetime;
        let (turn, left) = encrypt::turn(own.made, lifetime, announced, now());
        match (turn, own.next.take()) {
            (Turn::Stay, next) => {
                own.next = next;
                return Duration::from_millis(left.unsigned_abs());
            }
            (Turn::Switch, Some((next, _))) => {
                own.key = next;
                own.made = now();
                info!("packets between nodes have a new key");
            }
            _ => own.next = Some((PrivateKey::generate(), now())),
        }
        self.news.send_modify(|news| news.tell());
        Duration::ZERO
    }

    /// What the device is made of and told.
    pub(super) fn sealing(&self) -> Option<Sealing> {
        let settings = self.settings.borrow().clone();
        let own = self.keys.own(&settings);
        Some(Sealing {
            key: own.as_ref()?.key.clone(),
            socket: socket(&settings),
            log: settings.state_dir.join("tunnel.log"),
        })
    }
}

/// What becomes of packets to each other node.
pub(super) fn plans(scene: &Scene) -> Plans {
    let Some((own, address)) = scene
        .here()
        .and_then(|here| Some((scene.said.get(&here.id)?, here.address?)))
    else {
        return Plans::new();
    };
    let others = scene.nodes().filter(|node| node.id != scene.me);
    let others = others.filter_map(|node| {
        let other = node.address?;
        let said = scene.said.get(&node.id);
        let plan = match encrypt::plan((own, address), (said, other)) {
            // It may encrypt: it was not heard yet.
            Plan::Clear if !node.heard && own.demand != Demand::Never => {
                Plan::Blocked(Reason::OtherCannot)
            }
            plan => plan,
        };
        Some((other, plan))
    });
    others.collect()
}

/// Whether packets to a node are encrypted.
pub(super) fn encrypts(plans: &Plans, host: IpAddr) -> bool {
    matches!(plans.get(&host), Some(Plan::Encrypted { .. }))
}

/// What of the kernel encrypts.
#[derive(Default)]
pub(super) struct Cipher {
    encrypter: Option<Encrypter>,
    wanted: Option<net::Encryption>,
    /// What was last planned for each node: one that is not known for a moment is not spoken with in
    /// clear.
    plans: Plans,
}

impl Cipher {
    pub(super) fn is_idle(&self) -> bool {
        self.encrypter.is_none()
    }

    /// Has packets go as it is planned. What does not pass is told.
    pub(super) fn apply(
        &mut self,
        plans: &Plans,
        sealing: Option<&Sealing>,
        repair: bool,
    ) -> Result<(), net::Error> {
        self.plans.extend(plans.clone());
        let needed = self.plans.values().any(|p| *p != Plan::Clear);
        let Some(sealing) = sealing.filter(|_| needed) else {
            return self.purge();
        };
        let wanted = wanted(&self.plans, sealing);
        if self.wanted.as_ref() == Some(&wanted) && !repair {
            return Ok(());
        }
        let encrypter = match &mut self.encrypter {
            Some(open) => open,
            None => {
                let open = Encrypter::open(&Namespace::here()?, &sealing.socket, VERSION)?;
                self.encrypter.insert(open)
            }
        };
        self.wanted = None;
        encrypter.apply(&wanted, &mut || start(&sealing.socket, &sealing.log))?;
        self.wanted = Some(wanted);
        Ok(())
    }

    /// Addresses of nodes that nothing goes to in clear.
    pub(super) fn sealed(&self) -> Vec<IpAddr> {
        let plans = self.plans.iter().filter(|(_, plan)| **plan != Plan::Clear);
        plans.map(|(address, _)| *address).collect()
    }

    /// Takes it all away.
    pub(super) fn purge(&mut self) -> Result<(), net::Error> {
        self.wanted = None;
        self.plans.clear();
        match &mut self.encrypter {
            None => {}
            Some(open) => open.purge()?,
        }
        self.encrypter = None;
        Ok(())
    }
}

/// Nodes that nothing is sent to, in words for the user. Those that were not heard have nobody to send to.
pub(super) fn blocked(plans: &Plans, scene: &Scene) -> Vec<String> {
    let is_heard = |address: &IpAddr| {
        let mut nodes = scene.nodes();
        nodes.any(|n| n.heard && n.address == Some(*address))
    };
    let of = |(address, plan): (&IpAddr, &Plan)| match plan {
        Plan::Blocked(reason) => Some(format!("nothing is sent to {address}: {reason}")),
        _ => None,
    };
    let heard = plans.iter().filter(|(address, _)| is_heard(address));
    heard.filter_map(of).collect()
}

/// The same for the kernel. A key that is none is as good as its lack.
fn wanted(plans: &Plans, sealing: &Sealing) -> net::Encryption {
    let mut peers = Vec::new();
    let mut blocked = Vec::new();
    for (address, plan) in plans {
        match plan {
            Plan::Clear => {}
            Plan::Blocked(_) => blocked.push(*address),
            Plan::Encrypted { key, next, port } => {
                let Ok(key) = key.parse::<PublicKey>() else {
                    blocked.push(*address);
                    continue;
                };
                peers.push(EncryptedPeer {
                    address: *address,
                    endpoint: SocketAddr::new(*address, *port),
                    key,
                    next: next.as_ref().and_then(|next| next.parse().ok()),
                });
            }
        }
    }
    net::Encryption {
        key: sealing.key.clone(),
        port: ENCRYPTION_PORT,
        overlay_port: VXLAN_PORT,
        peers,
        blocked,
    }
}

/// Starts the process that encrypts, which goes on when this one ends.
fn start(socket: &Path, log: &Path) -> io::Result<()> {
    let log = File::options().create(true).append(true).open(log)?;
    let errors = log.try_clone()?;
    // What runs, even if its file was replaced.
    let mut child = Command::new("/proc/self/exe")
        .arg0("wharfie")
        .arg("tunnel")
        .arg(ENCRYPTION_DEVICE)
        .arg(socket)
        .arg(VXLAN_PORT.to_string())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()?;
    // If it ends before this one, somebody has to take note.
    std::thread::spawn(move || match child.wait() {
        Ok(status) if !status.success() => warn!("the tunnel ended: {status}"),
        _ => {}
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_encrypted_does_not_pass() {
        let sealing = Sealing {
            key: PrivateKey::generate(),
            socket: PathBuf::new(),
            log: PathBuf::new(),
        };
        let key = PrivateKey::generate().public();
        let encrypted = |key: String| Plan::Encrypted {
            key,
            next: None,
            port: 4790,
        };
        let plans = Plans::from([
            ([10, 0, 0, 1].into(), Plan::Clear),
            ([10, 0, 0, 2].into(), encrypted(key.to_string())),
            ([10, 0, 0, 3].into(), encrypted("no key".to_owned())),
        ]);
        let wanted = wanted(&plans, &sealing);
        assert_eq!((wanted.peers.len(), wanted.peers[0].key), (1, key));
        assert_eq!(wanted.blocked, [IpAddr::from([10, 0, 0, 3])]);
    }
}
