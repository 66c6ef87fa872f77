//! Who belongs to the cluster: replicated objects, and what follows from them at the door.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::replica::Replica;
use crate::store;
use crate::transport::{Gate, Purpose, Why};

/// Kind of the objects that make a node a member; their names are the nodes' ids.
pub const MEMBER: &str = "member";
/// Kind of the objects that shut a node out for good. They are never deleted, so that no
/// concurrent edit of the member can bring it back.
pub const REMOVED: &str = "removed";

/// A member, as all nodes know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Its name; no two members have the same.
    pub name: String,
    /// Where it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// What people said of it.
    pub labels: BTreeMap<String, String>,
    /// Since when it is a member, in milliseconds since 1970.
    pub joined: u64,
}

/// All members, and who is none any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Members by id.
    pub members: BTreeMap<NodeId, Member>,
    /// Who was removed.
    pub removed: BTreeSet<NodeId>,
}

impl Roster {
    /// From the replicated objects. What cannot be read is passed over.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(replica: &Replica) -> Result<Self, store::Error> {
        let removed: BTreeSet<NodeId> = replica
            .list(REMOVED)?
            .into_iter()
            .filter_map(|record| record.name.parse().ok())
            .collect();
        let mut members = BTreeMap::new();
        for record in replica.list(MEMBER)? {
            let id = record.name.parse().ok().filter(|id| !removed.contains(id));
            let value = record.value.map(serde_json::from_value);
            if let (Some(id), Some(Ok(member))) = (id, value) {
                members.insert(id, member);
            }
        }
        Ok(Self { members, removed })
    }

    /// The member of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<NodeId> {
        let mut members = self.members.iter();
        members.find(|(_, m)| m.name == name).map(|(id, _)| *id)
    }
}

/// What the door of a node knows; it is asked before anything else is.
#[derive(Debug, Default)]
pub struct Door {
    roster: RwLock<Arc<Roster>>,
    joining: AtomicBool,
}

impl Door {
    /// The members as they are now.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        let roster = self.roster.read();
        Arc::clone(&roster.unwrap_or_else(PoisonError::into_inner))
    }

    /// Other members from now on.
    pub fn set_roster(&self, roster: Arc<Roster>) {
        *self.roster.write().unwrap_or_else(PoisonError::into_inner) = roster;
    }

    /// Whether strangers may ask to be let in: there is a token that is good for it.
    pub fn set_joining(&self, joining: bool) {
        self.joining.store(joining, Ordering::SeqCst);
    }

    /// Who may connect, and for what.
    #[must_use]
    pub fn gate(self: &Arc<Self>) -> Gate {
        let door = Arc::clone(self);
        Arc::new(move |peer, purpose| door.check(peer, purpose))
    }

    fn check(&self, peer: NodeId, purpose: Purpose) -> Result<(), Why> {
        let roster = self.roster();
        match purpose {
            Purpose::Member if roster.members.contains_key(&peer) => Ok(()),
            Purpose::Member if roster.removed.contains(&peer) => Err(Why::Removed),
            // Who was removed is told so, in words, when it asks.
            Purpose::Join if self.joining.load(Ordering::SeqCst) => Ok(()),
            _ => Err(Why::Stranger),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_come_in() {
        let door = Arc::new(Door::default());
        let [member, removed, stranger] = [1, 2, 3].map(|i| NodeId([i; 32]));
        door.set_roster(Arc::new(Roster {
            members: [(member, Member::default())].into(),
            removed: [removed].into(),
        }));
        let gate = door.gate();
        assert_eq!(gate(member, Purpose::Member), Ok(()));
        assert_eq!(gate(removed, Purpose::Member), Err(Why::Removed));
        assert_eq!(gate(stranger, Purpose::Member), Err(Why::Stranger));
        assert_eq!(gate(stranger, Purpose::Join), Err(Why::Stranger));
        door.set_joining(true);
        assert_eq!(gate(stranger, Purpose::Join), Ok(()));
    }
}
