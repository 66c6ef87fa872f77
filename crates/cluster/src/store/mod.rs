//! The durable store: versioned objects with their history, in one transactional file (redb).
//!
//! A write is either there as a whole or not at all, also after a power cut, and has reached the
//! disk when the call returns.

mod error;
mod migrate;
mod stored;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use error::Error;
pub use migrate::FORMAT;
use redb::{Database, ReadableDatabase, TableDefinition};

use crate::clock::STAMP;
use crate::replica::{Record, Version};
pub(crate) use stored::Stored;
pub(crate) use write::Write;

/// The newest versions of objects, by kind and name.
const OBJECTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("objects");
/// Overwritten versions of objects, by kind, name and stamp.
const HISTORY: TableDefinition<(&str, &str, &[u8; STAMP]), &[u8]> =
    TableDefinition::new("versions");
/// What concerns this node alone, by key.
const LOCAL: TableDefinition<&str, &[u8]> = TableDefinition::new("local");
/// The format of the file, and the clock.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Memory for pages, in bytes: objects are few and small.
const CACHE: usize = 2 << 20;

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
    /// None if it is kept in memory.
    path: Option<PathBuf>,
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
            path: Some(path),
            database: Mutex::new(Some(database)),
        })
    }

    /// A store in memory, for tests: nothing of it stays.
    ///
    /// # Errors
    /// There is no memory.
    pub fn in_memory() -> Result<Self, Error> {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create_with_backend(backend)?;
        migrate::run(&database)?;
        Ok(Self {
            path: None,
            database: Mutex::new(Some(database)),
        })
    }

    /// The newest version of an object, a deleted one too.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, kind: &str, name: &str) -> Result<Option<Record>, Error> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(OBJECTS)?;
            let found = table.get((kind, name))?;
            found
                .map(|bytes| Stored::read(bytes.value())?.record())
                .transpose()
        })
    }

    /// The newest versions of all objects of a kind that are not deleted.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, kind: &str) -> Result<Vec<Record>, Error> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(OBJECTS)?;
            let mut list = Vec::new();
            for entry in table.range((kind, "")..)? {
                let (key, bytes) = entry?;
                if key.value().0 != kind {
                    break;
                }
                let stored = Stored::read(bytes.value())?;
                if stored.wire.value.is_some() {
                    list.push(stored.record()?);
                }
            }
            Ok(list)
        })
    }

    /// All versions of an object that are kept: the one that counts, and then those it and others
    /// overwrote, the newest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn history(&self, kind: &str, name: &str) -> Result<Vec<Version>, Error> {
        let current = self.get(kind, name)?;
        let mut versions = Vec::from_iter(current.map(|record| Version {
            record,
            lost: false,
        }));
        let older: Vec<Version> = self.with(|db| {
            let table = db.begin_read()?.open_table(HISTORY)?;
            let range = table.range((kind, name, &[0; STAMP])..=(kind, name, &[u8::MAX; STAMP]))?;
            let read = |bytes: &[u8]| {
                let stored = Stored::read(bytes)?;
                let lost = stored.lost;
                stored.record().map(|record| Version { record, lost })
            };
            range.rev().map(|entry| read(entry?.1.value())).collect()
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
        self.write(|write| write.set_local(key, value))
    }

    /// Does something with the database. After a failure of the disk redb refuses everything until
    /// the file is opened anew, which brings back the last complete write.
    fn with<T>(&self, f: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        let mut slot = self.lock();
        let database = match slot.take() {
            Some(database) => database,
            None => open(self.path.as_deref().unwrap_or(Path::new("memory")))?,
        };
        let result = f(&database);
        if !matches!(result, Err(Error::Disk { .. })) {
            *slot = Some(database);
        }
        let at = self.path.as_deref().unwrap_or(Path::new("memory"));
        result.map_err(|e| e.at(at))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
