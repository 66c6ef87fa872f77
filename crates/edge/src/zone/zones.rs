//! A zone at a time, and all zones of a server with who may have what: values that are exchanged as
//! a whole.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::content::{Changes, Content};
use super::name::{self, Name};
use super::record::Record;
use super::serial::{self, Version};
use super::table::Table;
use super::tsig::Key;

/// Versions back to which differences are kept.
const VERSIONS: usize = 64;

/// What changed between two versions.
#[derive(Debug)]
pub(crate) struct Step {
    /// The SOA before and after.
    pub(crate) from: Record,
    pub(crate) to: Record,
    from_serial: u32,
    pub(crate) changes: Changes,
}

/// A zone at a time: it does not change, and is cheap to hand on.
#[derive(Debug)]
pub struct Zone {
    content: Content,
    version: Version,
    pub(crate) table: Table,
    history: VecDeque<Arc<Step>>,
}

impl Zone {
    /// A zone of which nothing was before.
    #[must_use]
    pub fn new(content: Content, version: Version) -> Arc<Self> {
        Arc::new(Self {
            table: Table::new(&content, version.serial),
            content,
            version,
            history: VecDeque::new(),
        })
    }

    /// The zone after a change; the same if nothing did. `changed` and `peers` are those of
    /// [`serial::next`].
    #[must_use]
    pub fn then(self: &Arc<Self>, content: Content, changed: u64, peers: &[Version]) -> Arc<Self> {
        let version = serial::next(Some(self.version), &content, changed, peers);
        if version == self.version {
            return Arc::clone(self);
        }
        let mut history = self.history.clone();
        history.push_back(Arc::new(Step {
            from: self.soa(),
            to: content.start().soa_record(version.serial),
            from_serial: self.version.serial,
            changes: Changes::between(&self.content, &content),
        }));
        // Differences larger than the zone are given to nobody.
        let mut size: usize = history.iter().map(|s| s.changes.len() + 2).sum();
        while history.len() > VERSIONS || size > content.records().len() + 2 {
            match history.pop_front() {
                Some(step) => size -= step.changes.len() + 2,
                None => break,
            }
        }
        Arc::new(Self {
            table: Table::new(&content, version.serial),
            content,
            version,
            history,
        })
    }

    /// Its name.
    #[must_use]
    pub fn origin(&self) -> &Name {
        &self.content.start().origin
    }

    /// Its records.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Its serial, and of which content that is: other nodes need both.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Names that it has, with those that only have others below.
    #[must_use]
    pub fn names(&self) -> usize {
        self.table.len()
    }

    /// Its SOA record.
    #[must_use]
    pub fn soa(&self) -> Record {
        self.content.start().soa_record(self.version.serial)
    }

    /// The changes from a version to this one; none if they are not known.
    pub(crate) fn since(&self, serial: u32) -> Option<Vec<Arc<Step>>> {
        let first = self.history.iter().position(|s| s.from_serial == serial)?;
        Some(self.history.range(first..).cloned().collect())
    }
}

/// Who may have whole zones: from where, and signed with which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Addresses.
    pub from: IpNet,
    /// The key that it has to be signed with; none if it need not be signed.
    pub key: Option<Name>,
}

/// A server that is told of changes (RFC 1996).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secondary {
    /// Where.
    pub at: SocketAddr,
    /// The key that it is signed with.
    pub key: Option<Name>,
}

/// All that a server answers from. It is made anew for each change.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    /// Each with a name of its own. There are few of them.
    zones: Vec<Arc<Zone>>,
    /// Keys that signatures are made with.
    pub keys: Vec<Arc<Key>>,
    /// Who may have whole zones; nobody else may.
    pub allowed: Vec<Allowed>,
    /// Who is told of changes.
    pub secondaries: Vec<Secondary>,
    /// For whom others are asked what is not here; nobody else.
    pub forward_for: Vec<IpNet>,
}

impl Zones {
    /// These zones, with nothing allowed to anybody.
    #[must_use]
    pub fn new(zones: Vec<Arc<Zone>>) -> Self {
        let mut zones = zones;
        // A zone below another one is looked at first.
        zones.sort_by_key(|z| std::cmp::Reverse(z.origin().labels().count()));
        Self {
            zones,
            ..Self::default()
        }
    }

    /// The zones.
    #[must_use]
    pub fn zones(&self) -> &[Arc<Zone>] {
        &self.zones
    }

    /// The zone that a name is in.
    pub(crate) fn zone_of(&self, name: &[u8]) -> Option<&Arc<Zone>> {
        self.zones
            .iter()
            .find(|z| name::is_in(name, z.origin().wire()))
    }

    pub(crate) fn key(&self, name: &[u8]) -> Option<&Arc<Key>> {
        self.keys.iter().find(|k| k.name().wire() == name)
    }

    /// Whether somebody may have whole zones, who signed with this key or with none.
    pub(crate) fn may_transfer(&self, from: IpAddr, key: Option<&Name>) -> bool {
        let from = from.to_canonical();
        let fits =
            |a: &Allowed| a.from.contains(&from) && (a.key.is_none() || a.key.as_ref() == key);
        self.allowed.iter().any(fits)
    }

    pub(crate) fn forwards_for(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.forward_for.iter().any(|n| n.contains(&from))
    }
}
