//! One version of one object, and what it knows of those before it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refusal::MOST_OLDER;
use super::wire::{self, Wire};
use crate::clock::Stamp;
use crate::id::NodeId;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// What sort of object, such as `stack`.
    pub kind: String,
    /// Its name among those.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What sort of object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// For people: one more than the highest that was known where it was written.
    pub revision: u64,
    /// When and by whom it was written. The latest version is the one that counts.
    pub stamp: Stamp,
    /// The version that it overwrote where it was written.
    pub parent: Option<Stamp>,
    /// The latest versions by other authors that it came after, as far as its parent does not say
    /// it: one an author, the latest first.
    pub older: Vec<Stamp>,
    /// What wrote it, such as `up` or `undo`.
    pub note: String,
    /// The value; none if the object was deleted.
    #[serde(with = "wire::value")]
    pub value: Option<Value>,
}

impl Record {
    /// Which object it is a version of.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(&self.kind, &self.name)
    }

    /// When it was written, in milliseconds since 1970.
    #[must_use]
    pub fn time(&self) -> i64 {
        i64::try_from(self.stamp.millis).unwrap_or(i64::MAX)
    }
}

/// A version in an object's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The version.
    pub record: Record,
    /// It was overwritten by somebody who did not know it.
    pub lost: bool,
}

impl Version {
    /// What it is called: its revision, and for a lost one its author too.
    #[must_use]
    pub fn id(&self) -> String {
        let revision = self.record.revision;
        match self.lost {
            false => revision.to_string(),
            true => format!("{revision}~{}", self.record.stamp.node.short()),
        }
    }
}

/// Whether the author of a version knew another, earlier one.
///
/// A version names the latest that it came after of each author; whoever wrote that knew their own
/// earlier ones. Of objects with more than some fifteen authors those that wrote least recently are
/// not named any more: what they wrote counts as known.
pub(super) fn knew(version: &Wire<'_>, other: Stamp) -> bool {
    let named = [version.stamp].into_iter().chain(version.parent);
    let mut named = named.chain(version.older.iter().copied());
    if let Some(known) = named.find(|s| s.node == other.node) {
        return known >= other;
    }
    let last = version.older.last();
    version.older.len() == MOST_OLDER && last.is_some_and(|last| other < *last)
}

/// [`Record::older`] of what is written by an author after a version.
pub(super) fn older(author: NodeId, parent: &Wire<'_>) -> Vec<Stamp> {
    let before = parent
        .parent
        .into_iter()
        .chain(parent.older.iter().copied());
    let mut older: Vec<Stamp> = Vec::new();
    for stamp in before {
        let named = |node| [author, parent.stamp.node].contains(&node);
        if !named(stamp.node) && !older.iter().any(|s| s.node == stamp.node) {
            older.push(stamp);
        }
    }
    older.truncate(MOST_OLDER);
    older
}
