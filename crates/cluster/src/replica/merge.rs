//! How versions meet: the later counts, and what its author did not know is not thrown away.

use super::record::{self, Key, Record, knew};
use super::wire::{self, Batch, Wire};
use super::{Entry, Inner, MOST_TOLD, Refusal, entry, is_expired, refusal};
use crate::clock::{Clock, Stamp};
use crate::id::NodeId;
use crate::store::{Error, Store, Stored, Write};

/// What became of versions from other nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// Objects that have another version now.
    pub applied: Vec<Key>,
    /// Versions that were overwritten by somebody who did not know them. They are in the history.
    pub lost: Vec<Lost>,
    /// Records that are not taken, each told of only once.
    pub refused: Vec<(Key, Refusal)>,
    /// Records that brought nothing new.
    pub known: usize,
}

/// A version that was overwritten unknowingly. Its author's own node always finds that out itself,
/// when the later version arrives there: `stamp.node` is who is to be told.
///
/// Whoever is sent it ([`super::Replica::version`]) has it in its history as well; each node reports
/// it once, so handing it on then comes to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Which object.
    pub key: Key,
    /// The version that lost.
    pub stamp: Stamp,
    /// Its revision.
    pub revision: u64,
    /// The version that counts instead.
    pub winner: Stamp,
}

impl Lost {
    fn new(loser: &Wire<'_>, winner: &Wire<'_>) -> Self {
        Self {
            key: Key::new(loser.kind, loser.name),
            stamp: loser.stamp,
            revision: loser.revision,
            winner: winner.stamp,
        }
    }
}

/// Makes a new record the successor of the newest version, which goes into the history.
pub(super) fn succeed(write: &mut Write<'_>, record: &mut Record) -> Result<(), Error> {
    let mut highest = 0;
    let id = (record.kind.as_str(), record.name.as_str());
    for bytes in write.history(id)? {
        highest = highest.max(Stored::read(&bytes)?.wire.revision);
    }
    if let Some(bytes) = write.current(id)? {
        let former = Stored::read(&bytes)?;
        write.keep(&former)?;
        highest = highest.max(former.wire.revision);
        record.parent = Some(former.wire.stamp);
        record.older = record::older(record.stamp.node, &former.wire);
    }
    record.revision = highest + 1;
    Ok(())
}

/// Takes versions from other nodes.
pub(super) fn merge(
    store: &Store,
    inner: &mut Inner,
    batch: Batch,
    now: u64,
    most: &dyn Fn(&str) -> usize,
) -> Result<Merged, Error> {
    let mut merged = Merged::default();
    let mut refused = batch.refused;
    let mut news = Vec::new();
    let mut clock = inner.clock.clone();
    for record in &batch.records {
        let text = record.value.as_ref().map(wire::text);
        let wire = Wire::new(record, text.as_deref());
        if let Err(refusal) = check(&wire, &mut clock, now) {
            refused.push((wire.key(), wire.stamp, refusal));
            continue;
        }
        let known = match inner.index.get(&record.key()) {
            Some(entry) => entry.stamp == record.stamp,
            None => record.value.is_none() && is_expired(record.stamp, now),
        };
        if known {
            merged.known += 1;
        } else {
            news.push((record, text));
        }
    }
    for (key, stamp, refusal) in refused {
        if inner.tell(&key, stamp, &refusal) {
            merged.refused.push((key, refusal));
        }
    }
    if news.is_empty() {
        return Ok(merged);
    }
    let changes = store.write(|write| {
        let mut changes: Vec<(Key, Entry)> = Vec::new();
        for (record, text) in &news {
            let wire = Wire::new(record, text.as_deref());
            if meet(write, &wire, most(wire.kind), &mut merged)? {
                changes.push((record.key(), entry(&wire)));
            }
        }
        write.set_clock(clock.last())?;
        Ok(changes)
    })?;
    inner.clock = clock;
    for (key, entry) in changes {
        if !merged.applied.contains(&key) {
            merged.applied.push(key.clone());
        }
        inner.index.insert(key, entry);
    }
    Ok(merged)
}

impl Inner {
    /// Notes that a version was refused; whether that is news.
    fn tell(&mut self, key: &Key, stamp: Stamp, refusal: &Refusal) -> bool {
        if self.told.len() >= MOST_TOLD {
            self.told.clear();
        }
        let for_good = !matches!(refusal, Refusal::Future(_));
        self.told.insert((key.clone(), stamp), for_good).is_none()
    }
}

fn check(wire: &Wire<'_>, clock: &mut Clock, now: u64) -> Result<(), Refusal> {
    refusal::check(wire)?;
    if wire.stamp.node == NodeId::NONE {
        return Err(Refusal::Authorless);
    }
    clock.witness(wire.stamp, now).map_err(Refusal::Future)
}

/// One version meets the one that is here; whether it counts from now on.
fn meet(
    write: &mut Write<'_>,
    theirs: &Wire<'_>,
    most: usize,
    merged: &mut Merged,
) -> Result<bool, Error> {
    let id = (theirs.kind, theirs.name);
    let Some(bytes) = write.current(id)? else {
        mark(write, theirs, true, false)?;
        count(write, theirs, most)?;
        return Ok(true);
    };
    let ours = Stored::read(&bytes)?.wire;
    if ours.stamp < theirs.stamp {
        let lost = !knew(theirs, ours.stamp);
        if lost {
            mark(write, theirs, false, true)?;
            merged.lost.push(Lost::new(&ours, theirs));
        }
        write.keep(&Stored { lost, wire: ours })?;
        count(write, theirs, most)?;
        return Ok(true);
    }
    if ours.stamp > theirs.stamp && lose(write, &ours, theirs, most)? {
        merged.lost.push(Lost::new(theirs, &ours));
    } else {
        merged.known += 1;
    }
    Ok(false)
}

/// A version counts from now on.
fn count(write: &mut Write<'_>, theirs: &Wire<'_>, most: usize) -> Result<(), Error> {
    let id = (theirs.kind, theirs.name);
    // It was there if it had been forsaken.
    write.unkeep(id, theirs.stamp)?;
    write.set_current(&Stored {
        lost: false,
        wire: theirs.clone(),
    })?;
    write.trim(id, most)
}

/// Marks versions in the history as lost or not by whether the author of a version knew them: lost
/// ones that were known, or unlost ones that were not.
fn mark(write: &mut Write<'_>, by: &Wire<'_>, from: bool, to: bool) -> Result<(), Error> {
    for bytes in write.history((by.kind, by.name))? {
        let mut stored = Stored::read(&bytes)?;
        if stored.lost == from && knew(by, stored.wire.stamp) == from {
            stored.lost = to;
            write.keep(&stored)?;
        }
    }
    Ok(())
}

/// An earlier version arrives. If nobody who came after it knew it, it is put into the history;
/// whether that is so.
fn lose(
    write: &mut Write<'_>,
    ours: &Wire<'_>,
    theirs: &Wire<'_>,
    most: usize,
) -> Result<bool, Error> {
    let id = (theirs.kind, theirs.name);
    if knew(ours, theirs.stamp) || write.is_kept(id, theirs.stamp)? {
        return Ok(false);
    }
    let history = write.history(id)?;
    let history = history.iter().map(|bytes| Stored::read(bytes));
    let history = history.collect::<Result<Vec<_>, _>>()?;
    let later = |s: &&Stored<'_>| s.wire.stamp > theirs.stamp;
    let followed = history.iter().filter(later);
    let full = history.iter().filter(later).count() >= most;
    if full || followed.into_iter().any(|s| knew(&s.wire, theirs.stamp)) {
        return Ok(false);
    }
    write.keep(&Stored {
        lost: true,
        wire: theirs.clone(),
    })?;
    write.trim(id, most)?;
    Ok(true)
}

/// Gives a node what was written on it before it had a key.
pub(super) fn adopt(write: &mut Write<'_>, me: NodeId) -> Result<(), Error> {
    for bytes in write.all_current()? {
        let mut stored = Stored::read(&bytes)?;
        if sign(&mut stored.wire, me) {
            write.set_current(&stored)?;
        }
    }
    for bytes in write.all_history()? {
        let mut stored = Stored::read(&bytes)?;
        let (id, former) = ((stored.wire.kind, stored.wire.name), stored.wire.stamp);
        if sign(&mut stored.wire, me) {
            write.unkeep(id, former)?;
            write.keep(&stored)?;
        }
    }
    Ok(())
}

/// Whether a stamp without an author was in it.
fn sign(wire: &mut Wire<'_>, me: NodeId) -> bool {
    let own = [&mut wire.stamp].into_iter();
    let own = own.chain(&mut wire.parent).chain(&mut wire.older);
    let unsigned = own.filter(|s| s.node == NodeId::NONE);
    unsigned.map(|s| s.node = me).count() > 0
}
