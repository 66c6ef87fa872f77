//! The format of the file, and how an older one becomes the current.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{Error, HISTORY, LOCAL, META, OBJECTS, Stored};
use crate::clock::Stamp;
use crate::id::NodeId;
use crate::replica::{Record, wire};

/// The format that this version writes.
pub const FORMAT: u64 = 3;

/// Format 1: the values of stacks by name, without versions.
const STACKS_1: TableDefinition<&str, &[u8]> = TableDefinition::new("stacks");
/// Formats 1 and 2: overwritten versions by kind, name and revision.
const HISTORY_2: TableDefinition<(&str, &str, u64), &[u8]> = TableDefinition::new("history");

/// A version of an object in format 2, as JSON.
#[derive(Serialize, Deserialize)]
struct Object2 {
    revision: u64,
    time: i64,
    note: String,
    value: Option<serde_json::Value>,
}

type Step = fn(&WriteTransaction) -> Result<(), Error>;
/// Step `i` brings format `i + 1` to the next.
const STEPS: [Step; FORMAT as usize - 1] = [versions, stamps];

/// Brings a database to the current format, in one transaction.
pub(super) fn run(database: &Database) -> Result<(), Error> {
    let found = format(database)?;
    if let Some(found) = found {
        if found == FORMAT {
            return Ok(());
        }
        if found > FORMAT {
            return Err(Error::Newer {
                path: std::path::PathBuf::new(),
                found,
                known: FORMAT,
            });
        }
    }
    let transaction = database.begin_write()?;
    let done = usize::try_from(found.unwrap_or(FORMAT)).unwrap_or(1);
    for step in STEPS.iter().skip(done.saturating_sub(1)) {
        step(&transaction)?;
    }
    transaction.open_table(OBJECTS)?;
    transaction.open_table(HISTORY)?;
    transaction.open_table(LOCAL)?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.commit()?;
    Ok(())
}

fn format(database: &Database) -> Result<Option<u64>, Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.map(|v| v.value())),
        // A new file.
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Format 2: every object has a revision, a time and a note.
fn versions(transaction: &WriteTransaction) -> Result<(), Error> {
    {
        let stacks = transaction.open_table(STACKS_1)?;
        let mut objects = transaction.open_table(OBJECTS)?;
        for entry in stacks.iter()? {
            let (name, bytes) = entry?;
            let value = serde_json::from_slice(bytes.value());
            let object = Object2 {
                revision: 1,
                time: 0,
                note: "migrated".to_owned(),
                value: Some(value.map_err(damaged)?),
            };
            let bytes = serde_json::to_vec(&object).map_err(damaged)?;
            objects.insert(("stack", name.value()), bytes.as_slice())?;
        }
    }
    transaction.delete_table(STACKS_1)?;
    Ok(())
}

/// Format 3: every version has a stamp, and knows the one before it.
fn stamps(transaction: &WriteTransaction) -> Result<(), Error> {
    {
        let old = transaction.open_table(HISTORY_2)?;
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut history = transaction.open_table(HISTORY)?;
        let mut newest = Vec::new();
        for entry in objects.iter()? {
            let (key, bytes) = entry?;
            let (kind, name) = key.value();
            newest.push((kind.to_owned(), name.to_owned(), bytes.value().to_vec()));
        }
        for (kind, name, bytes) in newest {
            let (kind, name) = (kind.as_str(), name.as_str());
            let mut before = None;
            for entry in old.range((kind, name, 0)..=(kind, name, u64::MAX))? {
                let version = stamped((kind, name), entry?.1.value(), before)?;
                let stamp = version.stamp;
                let key = (kind, name, &stamp.to_bytes());
                history.insert(key, stored(&version).as_slice())?;
                before = Some(stamp);
            }
            let version = stamped((kind, name), &bytes, before)?;
            objects.insert((kind, name), stored(&version).as_slice())?;
        }
    }
    transaction.delete_table(HISTORY_2)?;
    Ok(())
}

/// A version of format 2 with the stamp of a node without a key, after the version before it.
fn stamped(
    (kind, name): (&str, &str),
    bytes: &[u8],
    parent: Option<Stamp>,
) -> Result<Record, Error> {
    let old: Object2 = serde_json::from_slice(bytes).map_err(damaged)?;
    let mut clock = crate::clock::Clock::new(NodeId::NONE);
    if let Some(parent) = parent {
        clock.prime(parent);
    }
    Ok(Record {
        kind: kind.to_owned(),
        name: name.to_owned(),
        revision: old.revision,
        stamp: clock.tick(u64::try_from(old.time).unwrap_or(0)),
        parent,
        older: Vec::new(),
        note: old.note,
        value: old.value,
    })
}

fn stored(record: &Record) -> Vec<u8> {
    let value = record.value.as_ref().map(wire::text);
    let wire = wire::Wire::new(record, value.as_deref());
    Stored { lost: false, wire }.bytes()
}

#[allow(clippy::needless_pass_by_value)] // as map_err wants it
fn damaged(error: serde_json::Error) -> Error {
    Error::Damaged(error.to_string())
}
