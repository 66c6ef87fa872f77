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
use wharfie_core::network::Node;
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

/// What becomes of packets to other nodes, by their addresses.
pub(super) type Plans = BTreeMap<IpAddr, Other>;

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Other {
    /// Its id.
    node: String,
    /// What becomes of packets to it.
    pub(super) plan: Plan,
}

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
    let Some(here) = scene.here() else {
        return Plans::new();
    };
    let others = scene.nodes().filter(|node| node.id != scene.me);
    let others = others.filter_map(|node| {
        let plan = between(scene, here, node)?;
        let node_id = node.id.clone();
        Some((
            node.address?,
            Other {
                node: node_id,
                plan,
            },
        ))
    });
    others.collect()
}

/// What becomes of packets from one node to another, by what both say; none while it is not known
/// where one of them is.
pub(super) fn between(scene: &Scene, from: &Node, to: &Node) -> Option<Plan> {
    let none = Encryption {
        demand: Demand::Never,
        ..Encryption::default()
    };
    let own = scene.said.get(&from.id).unwrap_or(&none);
    let other = scene.said.get(&to.id);
    let plan = encrypt::plan((own, from.address?), (other, to.address?));
    Some(match plan {
        // It may encrypt: it was not heard yet.
        Plan::Clear if !to.heard && own.demand != Demand::Never => {
            Plan::Blocked(Reason::OtherCannot)
        }
        plan => plan,
    })
}

/// What of earlier plans holds beside these. A node that is not known for a moment is not spoken with
/// in clear. One that moved, or was removed, has left its address: as long as overlays send there,
/// nothing passes.
fn remaining(
    old: &Plans,
    new: &Plans,
    is_member: impl Fn(&str) -> bool,
    is_used: impl Fn(&IpAddr) -> bool,
) -> Plans {
    let has_moved = |node: &str| new.values().any(|other| other.node == node);
    let old = old
        .iter()
        .filter(|(address, _)| !new.contains_key(*address));
    let each = old.filter_map(|(address, other)| {
        if is_member(&other.node) && !has_moved(&other.node) {
            return Some((*address, other.clone()));
        }
        let left = Other {
            plan: Plan::Blocked(Reason::OtherCannot),
            ..other.clone()
        };
        (other.plan != Plan::Clear && is_used(address)).then_some((*address, left))
    });
    each.collect()
}

/// What of the kernel encrypts.
#[derive(Default)]
pub(super) struct Cipher {
    encrypter: Option<Encrypter>,
    wanted: Option<net::Encryption>,
    /// What was last planned, with what holds of the plans before ([`remaining`]).
    plans: Plans,
}

impl Cipher {
    pub(super) fn is_idle(&self) -> bool {
        self.encrypter.is_none()
    }

    /// Has packets go as it is planned. `is_used` are addresses that overlays send to still.
    pub(super) fn apply(
        &mut self,
        (scene, plans): (&Scene, &Plans),
        is_used: impl Fn(&IpAddr) -> bool,
        sealing: Option<&Sealing>,
        repair: bool,
    ) -> Result<(), net::Error> {
        let is_member = |id: &str| scene.nodes().any(|n| n.id == id);
        self.plans = remaining(&self.plans, plans, is_member, is_used);
        self.plans.extend(plans.clone());
        let needed = self.plans.values().any(|o| o.plan != Plan::Clear);
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
        let plans = self.plans.iter();
        let plans = plans.filter(|(_, other)| other.plan != Plan::Clear);
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
    let of = |(address, other): (&IpAddr, &Other)| match &other.plan {
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
    for (address, other) in plans {
        match &other.plan {
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

    fn other(host: u8, node: &str, plan: Plan) -> (IpAddr, Other) {
        let node = node.to_owned();
        ([10, 0, 0, host].into(), Other { node, plan })
    }

    fn encrypted(key: &str) -> Plan {
        Plan::Encrypted {
            key: key.to_owned(),
            next: None,
            port: 4790,
        }
    }

    #[test]
    fn who_moved_or_was_removed_leaves_its_address() {
        let blocked = || Plan::Blocked(Reason::OtherCannot);
        let old = Plans::from([
            other(1, "moved", encrypted("a")),
            other(2, "removed", encrypted("b")),
            other(3, "unknown", encrypted("c")),
            other(4, "clear", Plan::Clear),
        ]);
        // Another one has an address now that was a node's before.
        let new = Plans::from([
            other(2, "next", Plan::Clear),
            other(9, "moved", encrypted("a")),
        ]);
        let members = ["moved", "unknown", "clear", "next"];
        let left = |used: bool| remaining(&old, &new, |n| members.contains(&n), |_| used);
        let stays = [
            other(3, "unknown", encrypted("c")),
            other(4, "clear", Plan::Clear),
        ];
        assert_eq!(left(false), Plans::from(stays.clone()));
        // Overlays are told after this.
        let mut used = Plans::from(stays);
        used.extend([other(1, "moved", blocked())]);
        assert_eq!(left(true), used);
        let none = remaining(&old, &Plans::new(), |n| n != "removed", |_| false);
        assert_eq!(none.len(), 3, "{none:?}");
        assert!(!none.contains_key(&IpAddr::from([10, 0, 0, 2])));
    }

    #[test]
    fn what_cannot_be_encrypted_does_not_pass() {
        let sealing = Sealing {
            key: PrivateKey::generate(),
            socket: PathBuf::new(),
            log: PathBuf::new(),
        };
        let key = PrivateKey::generate().public();
        let plans = Plans::from([
            other(1, "a", Plan::Clear),
            other(2, "b", encrypted(&key.to_string())),
            other(3, "c", encrypted("no key")),
        ]);
        let wanted = wanted(&plans, &sealing);
        assert_eq!((wanted.peers.len(), wanted.peers[0].key), (1, key));
        assert_eq!(wanted.blocked, [IpAddr::from([10, 0, 0, 3])]);
    }
}
