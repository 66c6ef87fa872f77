//! The durable store: versioned objects with their history, in one transactional file (redb).
//!
//! A write is either there as a whole or not at all, also after a power cut, and has reached the
//! disk when the call returns.

mod error;
mod migrate;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use error::Error;
pub use migrate::FORMAT;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

/// Objects by kind and name.
const OBJECTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("objects");
/// Overwritten versions of objects, by kind, name and revision.
const HISTORY: TableDefinition<(&str, &str, u64), &[u8]> = TableDefinition::new("history");
/// What concerns this node alone, by key.
const LOCAL: TableDefinition<&str, &[u8]> = TableDefinition::new("local");
/// The format of the file.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Memory for pages, in bytes: objects are few and small.
const CACHE: usize = 2 << 20;
/// The largest value of an object, in bytes.
const LARGEST: usize = 16 << 20;

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Counts the versions of this object, from 1.
    pub revision: u64,
    /// When it was written, in milliseconds since 1970.
    pub time: i64,
    /// What wrote it, such as `up` or `undo`.
    pub note: String,
    /// The value; none once it was deleted.
    pub value: Option<serde_json::Value>,
}

/// How a store is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Overwritten versions kept of each object.
    pub history: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: 50 }
    }
}

/// A store; one process at a time has it open.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// None after a failed write, until it is opened again.
    database: Mutex<Option<Database>>,
}

impl Store {
    /// Opens the store in a directory, which is made (mode 0700) if it is not there. A store of an
    /// older format is brought to the current one.
    ///
    /// # Errors
    /// The directory cannot be written, another process has it open, the file is damaged, or it is
    /// of a newer format.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        make_dir(dir)?;
        let path = dir.join("state.redb");
        let database = open(&path)?;
        Ok(Self {
            path,
            database: Mutex::new(Some(database)),
        })
    }

    /// The newest version of an object, a deleted one too.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, kind: &str, name: &str) -> Result<Option<Object>, Error> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(OBJECTS)?;
            let found = table.get((kind, name))?;
            found.map(|bytes| decode(bytes.value())).transpose()
        })
    }

    /// The newest versions of all objects of a kind that are not deleted.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, kind: &str) -> Result<Vec<(String, Object)>, Error> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(OBJECTS)?;
            let mut list = Vec::new();
            for entry in table.range((kind, "")..)? {
                let (key, bytes) = entry?;
                let (of, name) = key.value();
                if of != kind {
                    break;
                }
                let object = decode(bytes.value())?;
                if object.value.is_some() {
                    list.push((name.to_owned(), object));
                }
            }
            Ok(list)
        })
    }

    /// Writes a version of an object (none deletes it) and returns its revision. The former one
    /// goes into the history, whose oldest entries beyond `options` are let go.
    ///
    /// # Errors
    /// It cannot be written; then the former version stands.
    pub fn put(
        &self,
        object: (&str, &str),
        value: Option<serde_json::Value>,
        of: (&str, i64),
        options: Options,
    ) -> Result<u64, Error> {
        self.put_with(object, value, of, options, None)
    }

    /// [`Store::put`], and in the same transaction [`Store::set_local`].
    ///
    /// # Errors
    /// It cannot be written; then everything stands as it was.
    pub fn put_with(
        &self,
        (kind, name): (&str, &str),
        value: Option<serde_json::Value>,
        (note, time): (&str, i64),
        options: Options,
        local: Option<(&str, Option<&[u8]>)>,
    ) -> Result<u64, Error> {
        self.with(|db| {
            let mut transaction = db.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            let revision;
            {
                let mut objects = transaction.open_table(OBJECTS)?;
                let mut history = transaction.open_table(HISTORY)?;
                let before = objects.get((kind, name))?.map(|b| b.value().to_vec());
                revision = match &before {
                    None => 1,
                    Some(bytes) => {
                        let former: Object = decode(bytes)?;
                        history.insert((kind, name, former.revision), bytes.as_slice())?;
                        former.revision + 1
                    }
                };
                let oldest = revision.saturating_sub(options.history as u64);
                history.retain_in((kind, name, 0)..(kind, name, oldest), |_, _| false)?;
                let object = Object {
                    revision,
                    time,
                    note: note.to_owned(),
                    value,
                };
                let bytes = encode(&object)?;
                if bytes.len() > LARGEST {
                    return Err(Error::TooLarge {
                        what: format!("{kind} {name}"),
                        size: bytes.len(),
                    });
                }
                objects.insert((kind, name), bytes.as_slice())?;
                if let Some((key, value)) = local {
                    write_local(&transaction, key, value)?;
                }
            }
            transaction.commit()?;
            Ok(revision)
        })
    }

    /// All versions of an object that are kept, the newest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn history(&self, kind: &str, name: &str) -> Result<Vec<Object>, Error> {
        let mut versions: Vec<Object> = self.get(kind, name)?.into_iter().collect();
        let older: Vec<Object> = self.with(|db| {
            let table = db.begin_read()?.open_table(HISTORY)?;
            let range = table.range((kind, name, 0)..=(kind, name, u64::MAX))?;
            range.rev().map(|entry| decode(entry?.1.value())).collect()
        })?;
        versions.extend(older);
        Ok(versions)
    }

    /// Something that concerns this node alone.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn local(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(LOCAL)?;
            Ok(table.get(key)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Everything of this node alone whose key begins so, by the rest of the key.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn locals(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(LOCAL)?;
            let mut found = Vec::new();
            for entry in table.range(prefix..)? {
                let (key, value) = entry?;
                let Some(rest) = key.value().strip_prefix(prefix) else {
                    break;
                };
                found.push((rest.to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// Writes something that concerns this node alone; none removes it.
    ///
    /// # Errors
    /// It cannot be written; then what was there stands.
    pub fn set_local(&self, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        self.with(|db| {
            let mut transaction = db.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            write_local(&transaction, key, value)?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// Does something with the database. After a failure of the disk redb refuses everything until
    /// the file is opened anew, which brings back the last complete write.
    fn with<T>(&self, f: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        let mut slot = self.lock();
        let database = match slot.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let result = f(&database);
        if !matches!(result, Err(Error::Disk { .. })) {
            *slot = Some(database);
        }
        result.map_err(|e| e.at(&self.path))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_local(
    transaction: &redb::WriteTransaction,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), Error> {
    let mut table = transaction.open_table(LOCAL)?;
    match value {
        Some(value) => drop(table.insert(key, value)?),
        None => drop(table.remove(key)?),
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|e| Error::Disk {
        path: dir.to_owned(),
        reason: e.to_string(),
    })
}

fn open(path: &Path) -> Result<Database, Error> {
    let opened = Database::builder().set_cache_size(CACHE).create(path);
    let database = opened.map_err(|e| Error::from(e).at(path))?;
    migrate::run(&database).map_err(|e| e.at(path))?;
    Ok(database)
}

fn encode(object: &Object) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(object).map_err(|e| Error::Damaged(e.to_string()))
}

fn decode(bytes: &[u8]) -> Result<Object, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::Damaged(e.to_string()))
}
