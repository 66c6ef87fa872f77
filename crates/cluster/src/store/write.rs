//! One change of the store: all of it or nothing.

use std::collections::BTreeMap;

use redb::{Durability, ReadableDatabase, ReadableTable, Table, WriteTransaction};

use super::{Error, HISTORY, LOCAL, META, OBJECTS, Store, Stored};
use crate::clock::{STAMP, Stamp};
use crate::id::NodeId;
use crate::replica::{Key, LARGEST_VALUE, MOST_RECORDS, Record};

/// Where the clock stands, in the table of numbers.
const MILLIS: &str = "clock";
const COUNTER: &str = "clock counter";

type Id<'a> = (&'a str, &'a str);

/// A change at work.
pub(crate) struct Write<'t> {
    transaction: &'t WriteTransaction,
    objects: Table<'t, (&'static str, &'static str), &'static [u8]>,
    history: Table<'t, (&'static str, &'static str, &'static [u8; STAMP]), &'static [u8]>,
    changed: bool,
}

impl Store {
    /// Changes something. It is on the disk when this returns; if nothing was changed, or on an
    /// error, all stays as it was.
    pub(crate) fn write<T>(
        &self,
        f: impl FnOnce(&mut Write<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with(|db| {
            let mut transaction = db.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            let (done, changed) = {
                let mut write = Write {
                    objects: transaction.open_table(OBJECTS)?,
                    history: transaction.open_table(HISTORY)?,
                    transaction: &transaction,
                    changed: false,
                };
                let done = f(&mut write)?;
                (done, write.changed)
            };
            if changed {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(done)
        })
    }

    /// Goes through the newest versions of all objects.
    pub(crate) fn each(
        &self,
        mut f: impl FnMut(&Stored<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(OBJECTS)?;
            for entry in table.iter()? {
                f(&Stored::read(entry?.1.value())?)?;
            }
            Ok(())
        })
    }

    /// The newest versions of some objects, as many from the front as are allowed together.
    pub(crate) fn some(&self, keys: &[Key], max_bytes: usize) -> Result<Vec<Record>, Error> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(OBJECTS)?;
            let (mut records, mut size) = (Vec::new(), 0);
            for key in keys {
                let Some(bytes) = table.get((key.kind.as_str(), key.name.as_str()))? else {
                    continue;
                };
                let stored = Stored::read(bytes.value())?;
                // One of an older format may be larger than what others take.
                if stored.wire.value.is_some_and(|v| v.len() > LARGEST_VALUE) {
                    continue;
                }
                size += bytes.value().len();
                if !records.is_empty() && (size > max_bytes || records.len() >= MOST_RECORDS) {
                    break;
                }
                records.push(stored.record()?);
            }
            Ok(records)
        })
    }

    /// The newest that the clock showed.
    pub(crate) fn clock(&self) -> Result<Stamp, Error> {
        self.with(|db| {
            let meta = db.begin_read()?.open_table(META)?;
            let number = |key| Ok::<_, Error>(meta.get(key)?.map_or(0, |v| v.value()));
            Ok(Stamp {
                millis: number(MILLIS)?,
                counter: u32::try_from(number(COUNTER)?).unwrap_or(u32::MAX),
                node: NodeId::NONE,
            })
        })
    }
}

impl Write<'_> {
    /// The bytes of the newest version of an object.
    pub(crate) fn current(&self, id: Id<'_>) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.objects.get(id)?.map(|bytes| bytes.value().to_vec()))
    }

    /// All objects with the bytes of their newest versions.
    pub(crate) fn all_current(&self) -> Result<Vec<Vec<u8>>, Error> {
        let entries = self.objects.iter()?;
        entries.map(|e| Ok(e?.1.value().to_vec())).collect()
    }

    /// Makes a version the newest.
    pub(crate) fn set_current(&mut self, version: &Stored<'_>) -> Result<(), Error> {
        let id = (version.wire.kind, version.wire.name);
        self.objects.insert(id, version.bytes().as_slice())?;
        self.changed = true;
        Ok(())
    }

    /// An object has no newest version any more.
    pub(crate) fn remove_current(&mut self, id: Id<'_>) -> Result<(), Error> {
        self.objects.remove(id)?;
        self.changed = true;
        Ok(())
    }

    /// The bytes of the overwritten versions of an object, the oldest first.
    pub(crate) fn history(&self, (kind, name): Id<'_>) -> Result<Vec<Vec<u8>>, Error> {
        let range = (kind, name, &[0; STAMP])..=(kind, name, &[u8::MAX; STAMP]);
        let range = self.history.range(range)?;
        range.map(|e| Ok(e?.1.value().to_vec())).collect()
    }

    /// Whether a version is in the history of an object.
    pub(crate) fn is_kept(&self, (kind, name): Id<'_>, stamp: Stamp) -> Result<bool, Error> {
        let found = self.history.get((kind, name, &stamp.to_bytes()))?;
        Ok(found.is_some())
    }

    /// Puts a version into the history of its object.
    pub(crate) fn keep(&mut self, version: &Stored<'_>) -> Result<(), Error> {
        let wire = &version.wire;
        let key = (wire.kind, wire.name, &wire.stamp.to_bytes());
        self.history.insert(key, version.bytes().as_slice())?;
        self.changed = true;
        Ok(())
    }

    /// Takes a version out of the history of an object.
    pub(crate) fn unkeep(&mut self, (kind, name): Id<'_>, stamp: Stamp) -> Result<(), Error> {
        self.changed |= self
            .history
            .remove((kind, name, &stamp.to_bytes()))?
            .is_some();
        Ok(())
    }

    /// Lets go the oldest versions of an object but so many.
    pub(crate) fn trim(&mut self, (kind, name): Id<'_>, most: usize) -> Result<(), Error> {
        let range = (kind, name, &[0; STAMP])..=(kind, name, &[u8::MAX; STAMP]);
        let mut stamps = Vec::new();
        for entry in self.history.range(range)? {
            stamps.push(*entry?.0.value().2);
        }
        let beyond = stamps.len().saturating_sub(most);
        for stamp in &stamps[..beyond] {
            self.history.remove((kind, name, stamp))?;
            self.changed = true;
        }
        Ok(())
    }

    /// Lets go the history of objects that are gone, the last version of which is from before then.
    pub(crate) fn forget_gone(&mut self, before: u64) -> Result<(), Error> {
        let mut newest: BTreeMap<(String, String), u64> = BTreeMap::new();
        for entry in self.history.iter()? {
            let (key, _) = entry?;
            let (kind, name, stamp) = key.value();
            let millis = Stamp::from_bytes(stamp).millis;
            if self.objects.get((kind, name))?.is_none() {
                newest.insert((kind.to_owned(), name.to_owned()), millis);
            }
        }
        let gone = newest.iter().filter(|(_, millis)| **millis < before);
        for ((kind, name), _) in gone {
            self.trim((kind, name), 0)?;
        }
        Ok(())
    }

    /// All versions that are in a history.
    pub(crate) fn all_history(&self) -> Result<Vec<Vec<u8>>, Error> {
        let entries = self.history.iter()?;
        entries.map(|e| Ok(e?.1.value().to_vec())).collect()
    }

    /// Writes down where the clock stands. By itself it is no change.
    pub(crate) fn set_clock(&mut self, last: Stamp) -> Result<(), Error> {
        let mut meta = self.transaction.open_table(META)?;
        meta.insert(MILLIS, last.millis)?;
        meta.insert(COUNTER, u64::from(last.counter))?;
        Ok(())
    }

    /// Writes something that concerns this node alone; none removes it.
    pub(crate) fn set_local(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        let mut table = self.transaction.open_table(LOCAL)?;
        match value {
            Some(value) => drop(table.insert(key, value)?),
            None => drop(table.remove(key)?),
        }
        self.changed = true;
        Ok(())
    }
}
