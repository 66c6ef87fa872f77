//! The wanted state as a node has it: a map of versioned objects that all nodes bring to the same
//! content without a leader.
//!
//! Of each object the version with the latest stamp counts, on every node. A deletion is a version
//! too; it is remembered for [`TOMBSTONE`]. What is overwritten goes into the object's history; if
//! whoever overwrote it did not know of it, it is marked as lost there.
//!
//! Two nodes become equal so: each compares the other's [`Replica::summary`] with its own; in the
//! parts that differ they exchange their [`Replica::versions`], and then the [`Replica::records`]
//! that [`Replica::compare`] says one of them lacks, which the other [`Replica::merge`]s.
//!
//! All calls may wait for the disk.

mod merge;
mod record;
mod refusal;
mod summary;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

pub use merge::{Lost, Merged};
pub use record::{Key, Record, Version};
pub use refusal::{LARGEST_VALUE, LONGEST_KIND, LONGEST_NAME, LONGEST_NOTE, Refusal};
pub use summary::Summary;
pub use wire::{Batch, LARGEST_BATCH, MOST_RECORDS, Malformed, decode, encode};

use crate::clock::{Clock, MAX_AHEAD, Stamp};
use crate::id::NodeId;
use crate::store::{Error, Options, Store, Stored, Write};
use summary::{Entry, Index, is_expired};
use wire::Wire;

/// How long a deletion is remembered, in milliseconds: 7 days.
pub const TOMBSTONE: u64 = 7 * 24 * 60 * 60 * 1000;
/// How long the history of an object that is gone is kept, in milliseconds: 90 days.
pub const GONE: u64 = 90 * 24 * 60 * 60 * 1000;
/// A node that was away for so long may have missed a deletion that others have forgotten.
const STALE: u64 = TOMBSTONE - 60 * 60 * 1000;
/// How precisely is written down when others were last met, in milliseconds.
const SYNCED_EVERY: u64 = 10 * 60 * 1000;
/// Where that is written down, among what concerns this node alone.
const SYNCED: &str = "cluster/synced";
/// Refused versions that are remembered, so that each is told of only once.
const MOST_TOLD: usize = 1000;

/// The replica of this node.
#[derive(Debug)]
pub struct Replica {
    store: Arc<Store>,
    inner: Mutex<Inner>,
    bounds: Bounds,
}

/// Overwritten versions kept of each object.
#[derive(Debug)]
struct Bounds {
    usual: AtomicUsize,
    /// Where that is another number, by the kind of the objects.
    kinds: Mutex<BTreeMap<String, usize>>,
}

impl Bounds {
    fn of(&self, kind: &str) -> usize {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let own = kinds.get(kind).copied();
        own.unwrap_or_else(|| self.usual.load(Ordering::Relaxed))
    }

    fn set(&self, kind: &str, most: usize) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.get(kind) != Some(&most) {
            kinds.insert(kind.to_owned(), most);
        }
    }
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    index: Index,
    /// When others were last met, in milliseconds since 1970; and what of it is written down.
    synced: Option<u64>,
    saved: Option<u64>,
    /// Versions that were refused, and whether for good.
    told: BTreeMap<(Key, Stamp), bool>,
}

/// What two nodes lack of each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Objects of which the other has a later version.
    pub want: Vec<Key>,
    /// Objects of which this node has a later version.
    pub have: Vec<Key>,
}

impl Replica {
    /// The replica that is kept in a store, written to by a node ([`NodeId::NONE`] if it has no key
    /// yet). The time is in milliseconds since 1970, as everywhere here.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(store: Arc<Store>, me: NodeId, now: u64) -> Result<Self, Error> {
        let saved = store.local(SYNCED)?;
        let saved = saved.and_then(|b| Some(u64::from_be_bytes(b.try_into().ok()?)));
        let replica = Self {
            inner: Mutex::new(Inner {
                clock: Clock::new(NodeId::NONE),
                index: Index::default(),
                synced: saved,
                saved,
                told: BTreeMap::new(),
            }),
            bounds: Bounds {
                usual: AtomicUsize::new(Options::default().history),
                kinds: Mutex::default(),
            },
            store,
        };
        replica.load(&mut replica.lock(), NodeId::NONE)?;
        replica.set_me(me)?;
        replica.lock().index.expire(now);
        Ok(replica)
    }

    /// The node has got its key. What it wrote before is said to be by it, since versions without
    /// an author are not taken by others.
    ///
    /// # Errors
    /// It cannot be written; then it is as before.
    pub fn set_me(&self, me: NodeId) -> Result<(), Error> {
        let mut inner = self.lock();
        if me == inner.clock.me() || me == NodeId::NONE {
            return Ok(());
        }
        self.store.write(|write| merge::adopt(write, me))?;
        self.load(&mut inner, me)
    }

    fn load(&self, inner: &mut Inner, me: NodeId) -> Result<(), Error> {
        let mut clock = Clock::new(me);
        let mut index = Index::default();
        clock.prime(inner.clock.last());
        clock.prime(self.store.clock()?);
        self.store.each(|stored| {
            let wire = &stored.wire;
            clock.prime(wire.stamp);
            index.insert(Key::new(wire.kind, wire.name), entry(wire));
            Ok(())
        })?;
        (inner.clock, inner.index) = (clock, index);
        Ok(())
    }

    /// Whose replica it is.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.lock().clock.me()
    }

    /// Where it is kept, with what concerns this node alone.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How many overwritten versions of each object are kept from now on, where [`Self::set_history`]
    /// does not say otherwise.
    pub fn set_options(&self, options: Options) {
        self.bounds.usual.store(options.history, Ordering::Relaxed);
    }

    /// How many overwritten versions of each object of a kind are kept from now on.
    pub fn set_history(&self, kind: &str, most: usize) {
        self.bounds.set(kind, most);
    }

    /// How far, in milliseconds, the newest stamp lies in the future: the clock of this machine was
    /// set back. Beyond [`MAX_AHEAD`] others do not take what is written here until then.
    #[must_use]
    pub fn ahead(&self, now: u64) -> u64 {
        self.lock().clock.last().millis.saturating_sub(now)
    }

    /// How many objects there are, deletions that are remembered included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().index.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes a version of an object (no value deletes it), and in the same transaction
    /// [`Store::set_local`]. The former version goes into the history, whose oldest beyond
    /// `options` are let go; from then on that holds for all objects of the kind.
    ///
    /// # Errors
    /// It must not be written, or cannot be; then everything stands as it was.
    pub fn put(
        &self,
        (kind, name): (&str, &str),
        value: Option<Value>,
        (note, now): (&str, u64),
        options: Options,
        local: Option<(&str, Option<&[u8]>)>,
    ) -> Result<Record, Error> {
        let put = vec![(Key::new(kind, name), value)];
        let mut records = self.put_each(put, (note, now), options, local)?;
        // There are as many as were put.
        Ok(records.swap_remove(0))
    }

    /// The same of several objects in one transaction: all of them or none are written.
    ///
    /// # Errors
    /// One of them must not be written, or they cannot be; then everything stands as it was.
    pub fn put_all(
        &self,
        puts: Vec<(Key, Option<Value>)>,
        (note, now): (&str, u64),
        options: Options,
    ) -> Result<Vec<Record>, Error> {
        self.put_each(puts, (note, now), options, None)
    }

    fn put_each(
        &self,
        puts: Vec<(Key, Option<Value>)>,
        (note, now): (&str, u64),
        options: Options,
        local: Option<(&str, Option<&[u8]>)>,
    ) -> Result<Vec<Record>, Error> {
        for (key, _) in &puts {
            self.set_history(&key.kind, options.history);
        }
        let mut inner = self.lock();
        let mut clock = inner.clock.clone();
        let mut all = Vec::with_capacity(puts.len());
        for (key, value) in puts {
            let record = Record {
                kind: key.kind,
                name: key.name,
                revision: 1,
                stamp: clock.tick(now),
                parent: None,
                older: Vec::new(),
                note: note.to_owned(),
                value,
            };
            let text = record.value.as_ref().map(wire::text);
            refusal::check(&Wire::new(&record, text.as_deref())).map_err(|refusal| {
                Error::Refused {
                    key: Wire::new(&record, None).key(),
                    refusal,
                }
            })?;
            all.push((record, text));
        }
        self.store.write(|write| {
            for (record, text) in &mut all {
                merge::succeed(write, record)?;
                let wire = Wire::new(record, text.as_deref());
                write.set_current(&Stored { lost: false, wire })?;
                write.trim((&record.kind, &record.name), options.history)?;
            }
            write.set_clock(clock.last())?;
            match local {
                Some((key, value)) => write.set_local(key, value),
                None => Ok(()),
            }
        })?;
        inner.clock = clock;
        let each = all.into_iter().map(|(record, text)| {
            let entry = entry(&Wire::new(&record, text.as_deref()));
            inner.index.insert(record.key(), entry);
            record
        });
        Ok(each.collect())
    }

    /// The newest version of an object, a deleted one too.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn get(&self, kind: &str, name: &str) -> Result<Option<Record>, Error> {
        self.store.get(kind, name)
    }

    /// The newest versions of all objects of a kind that are not deleted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self, kind: &str) -> Result<Vec<Record>, Error> {
        self.store.list(kind)
    }

    /// All versions of an object that this node keeps, the one that counts first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn history(&self, kind: &str, name: &str) -> Result<Vec<Version>, Error> {
        self.store.history(kind, name)
    }

    /// All objects that are not deleted.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.lock().index.live().cloned().collect()
    }

    /// Forgets that objects of some kinds were ever there, and all deletions: nobody else heard of
    /// them. It is for a node that is about to meet others for the first time.
    ///
    /// # Errors
    /// It cannot be written; then all is as before.
    pub fn forget(&self, kinds: &[&str]) -> Result<(), Error> {
        let mut inner = self.lock();
        let gone = self.store.write(|write| {
            let mut gone = Vec::new();
            for bytes in write.all_current()? {
                let stored = Stored::read(&bytes)?;
                let (kind, name) = (stored.wire.kind, stored.wire.name);
                if kinds.contains(&kind) || stored.wire.value.is_none() {
                    write.remove_current((kind, name))?;
                    gone.push(Key::new(kind, name));
                }
            }
            Ok(gone)
        })?;
        gone.iter().for_each(|key| inner.index.remove(key));
        Ok(())
    }

    /// One version of an object, if this node keeps it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn version(&self, key: &Key, stamp: Stamp) -> Result<Option<Record>, Error> {
        let versions = self.store.history(&key.kind, &key.name)?;
        let mut records = versions.into_iter().map(|v| v.record);
        Ok(records.find(|r| r.stamp == stamp))
    }

    /// The stamp of the newest version of an object, a deletion too as long as it is remembered.
    #[must_use]
    pub fn newest(&self, key: &Key) -> Option<Stamp> {
        self.lock().index.get(key).map(|entry| entry.stamp)
    }

    /// What this node has, in short.
    #[must_use]
    pub fn summary(&self, now: u64) -> Summary {
        let mut inner = self.lock();
        inner.index.expire(now);
        inner.index.summary()
    }

    /// The versions in some parts of the map.
    #[must_use]
    pub fn versions(&self, parts: &[u8], now: u64) -> Vec<(Key, Stamp)> {
        let mut inner = self.lock();
        inner.index.expire(now);
        let versions = inner.index.versions(parts);
        versions.map(|(key, stamp)| (key.clone(), stamp)).collect()
    }

    /// What another node has in some parts of the map against what this one has there. Versions
    /// that would be refused, or were, are not wanted.
    #[must_use]
    pub fn compare(&self, theirs: &[(Key, Stamp)], parts: &[u8], now: u64) -> Difference {
        let mut inner = self.lock();
        inner.index.expire(now);
        let mut difference = Difference::default();
        let theirs: BTreeMap<&Key, Stamp> = theirs.iter().map(|(k, s)| (k, *s)).collect();
        for (key, stamp) in inner.index.versions(parts) {
            if theirs.get(key).is_none_or(|theirs| *theirs < stamp) {
                difference.have.push(key.clone());
            }
        }
        for (key, stamp) in theirs {
            let news = inner.index.get(key).is_none_or(|ours| ours.stamp < stamp);
            let poison = || {
                stamp.millis.saturating_sub(now) > MAX_AHEAD
                    || key.kind.len() > LONGEST_KIND
                    || key.name.len() > LONGEST_NAME
                    || inner.told.get(&(key.clone(), stamp)) == Some(&true)
            };
            if news && parts.contains(&summary::part(key)) && !poison() {
                difference.want.push(key.clone());
            }
        }
        difference
    }

    /// The newest versions of some objects, as many from the front as fit into so many bytes and
    /// into a batch, but one at least. The others are for another call.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn records(&self, keys: &[Key], max_bytes: usize) -> Result<Vec<Record>, Error> {
        self.store.some(keys, max_bytes.min(LARGEST_BATCH / 2))
    }

    /// Takes versions from other nodes, all in one transaction. The order in which they come, and
    /// how often, does not matter.
    ///
    /// # Errors
    /// It cannot be written; then all is as before.
    pub fn merge(&self, batch: impl Into<Batch>, now: u64) -> Result<Merged, Error> {
        let batch = batch.into();
        let most = |kind: &str| self.bounds.of(kind);
        merge::merge(&self.store, &mut self.lock(), batch, now, &most)
    }

    /// Forgets deletions that are older than [`TOMBSTONE`], and the history of what is gone for
    /// longer than [`GONE`]; how many deletions. To be called every hour or so: it looks at the keys
    /// of the whole history.
    ///
    /// A node that is stale forgets none: others may not have heard of them.
    ///
    /// # Errors
    /// It cannot be written; then all is as before.
    pub fn collect(&self, now: u64) -> Result<usize, Error> {
        if self.is_stale(now) {
            return Ok(0);
        }
        let mut inner = self.lock();
        inner.index.expire(now);
        let expired = inner.index.expired();
        self.store.write(|write| {
            for key in &expired {
                self.retire(write, (&key.kind, &key.name), false)?;
            }
            write.forget_gone(now.saturating_sub(GONE))
        })?;
        expired.iter().for_each(|key| inner.index.remove(key));
        Ok(expired.len())
    }

    /// The newest version of an object goes into the history, and nothing takes its place.
    fn retire(&self, write: &mut Write<'_>, id: (&str, &str), lost: bool) -> Result<(), Error> {
        if let Some(bytes) = write.current(id)? {
            let mut stored = Stored::read(&bytes)?;
            stored.lost = lost && stored.wire.value.is_some();
            write.keep(&stored)?;
            write.remove_current(id)?;
            write.trim(id, self.bounds.of(id.0))?;
        }
        Ok(())
    }

    /// This node and another have just become equal.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn synced(&self, now: u64) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.synced = Some(now);
        if inner.saved.is_none_or(|s| s.abs_diff(now) >= SYNCED_EVERY) {
            self.store.set_local(SYNCED, Some(&now.to_be_bytes()))?;
            inner.saved = Some(now);
        }
        Ok(())
    }

    /// Whether this node was without the others for so long that they may have forgotten deletions
    /// of which it has not heard. One that never met others is not stale.
    #[must_use]
    pub fn is_stale(&self, now: u64) -> bool {
        let synced = self.lock().synced;
        synced.is_some_and(|synced| now.saturating_sub(synced) > STALE)
    }

    /// Puts everything that this node has into the history, so that all is taken from the others;
    /// what it put there that was not deleted already. Objects of the kinds in `except` stay. Nothing that was deleted meanwhile comes
    /// back so.
    ///
    /// To be called before the first reconciliation when this node [`Replica::is_stale`] and the
    /// one that it meets is *not*. When both are (all were off, or the two were all there was),
    /// nobody has forgotten anything, and they simply merge. Until the next merge the map is empty
    /// though nothing was deleted: only a version without a value says that something was.
    ///
    /// Limit: two halves of a cluster that were cut off from each other for longer than
    /// [`TOMBSTONE`] are not stale, each having met others; what one of them deleted early in that
    /// time may come back from the other.
    ///
    /// # Errors
    /// It cannot be written; then all is as before.
    pub fn forsake(&self, except: &[&str], now: u64) -> Result<Vec<Key>, Error> {
        let mut inner = self.lock();
        let mut kept = Vec::new();
        let forsaken = self.store.write(|write| {
            kept.clear();
            let mut forsaken = Vec::new();
            for bytes in write.all_current()? {
                let stored = Stored::read(&bytes)?;
                let (kind, name) = (stored.wire.kind, stored.wire.name);
                if except.contains(&kind) {
                    kept.push((Key::new(kind, name), entry(&stored.wire)));
                    continue;
                }
                self.retire(write, (kind, name), true)?;
                if stored.wire.value.is_some() {
                    forsaken.push(Key::new(kind, name));
                }
            }
            write.set_local(SYNCED, Some(&now.to_be_bytes()))?;
            Ok(forsaken)
        })?;
        inner.index = Index::default();
        kept.into_iter()
            .for_each(|(key, entry)| inner.index.insert(key, entry));
        (inner.synced, inner.saved) = (Some(now), Some(now));
        Ok(forsaken)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(wire: &Wire<'_>) -> Entry {
    Entry {
        stamp: wire.stamp,
        deleted: wire.value.is_none(),
    }
}
