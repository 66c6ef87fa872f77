//! The format of the file, and how an older one becomes the current.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::{Error, HISTORY, LOCAL, META, OBJECTS, Object, encode};

/// The format that this version writes.
pub const FORMAT: u64 = 2;

/// Format 1: the values of stacks by name, without versions.
const STACKS_1: TableDefinition<&str, &[u8]> = TableDefinition::new("stacks");

type Step = fn(&WriteTransaction) -> Result<(), Error>;
/// Step `i` brings format `i + 1` to the next.
const STEPS: [Step; FORMAT as usize - 1] = [versions];

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
            let value = value.map_err(|e| Error::Damaged(e.to_string()))?;
            let object = Object {
                revision: 1,
                time: 0,
                note: "migrated".to_owned(),
                value: Some(value),
            };
            objects.insert(("stack", name.value()), encode(&object)?.as_slice())?;
        }
    }
    transaction.delete_table(STACKS_1)?;
    Ok(())
}
