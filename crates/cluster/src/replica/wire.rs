//! The form of records between nodes and on the disk: postcard, the value as JSON text in it.
//!
//! What comes from outside is looked at before anything is built from it: no number of bytes that
//! it announces is believed, and no more memory is taken than in proportion to what arrived.

use serde::{Deserialize, Serialize};

use super::record::{Key, Record};
use super::refusal::{self, Refusal};
use crate::clock::Stamp;

/// The version of the form; the first byte of a batch.
const VERSION: u8 = 1;
/// The largest batch of records, in bytes.
pub const LARGEST_BATCH: usize = 8 << 20;
/// The most records in a batch.
pub const MOST_RECORDS: usize = 10_000;

/// [`Record`] with its texts where they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wire<'a> {
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) revision: u64,
    pub(crate) stamp: Stamp,
    pub(crate) parent: Option<Stamp>,
    pub(crate) older: Vec<Stamp>,
    pub(crate) note: &'a str,
    /// JSON.
    pub(crate) value: Option<&'a str>,
}

impl<'a> Wire<'a> {
    /// A record, and the text of its value.
    pub(crate) fn new(record: &'a Record, value: Option<&'a str>) -> Self {
        Self {
            kind: &record.kind,
            name: &record.name,
            revision: record.revision,
            stamp: record.stamp,
            parent: record.parent,
            older: record.older.clone(),
            note: &record.note,
            value,
        }
    }

    /// Whole, with its value read.
    pub(crate) fn record(&self) -> Result<Record, Refusal> {
        let read = |text| serde_json::from_str(text);
        let value = self.value.map(read).transpose();
        Ok(Record {
            kind: self.kind.to_owned(),
            name: self.name.to_owned(),
            revision: self.revision,
            stamp: self.stamp,
            parent: self.parent,
            older: self.older.clone(),
            note: self.note.to_owned(),
            value: value.map_err(|e| Refusal::NotJson(e.to_string()))?,
        })
    }

    /// Which object; of endless names only the begin.
    pub(super) fn key(&self) -> Key {
        let begin = |text: &str, most| text.chars().take(most).collect::<String>();
        Key {
            kind: begin(self.kind, refusal::LONGEST_KIND),
            name: begin(self.name, refusal::LONGEST_NAME),
        }
    }
}

/// Records that came from another node.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Those that can be looked at further.
    pub records: Vec<Record>,
    /// Those that cannot, and why.
    pub refused: Vec<(Key, Stamp, Refusal)>,
}

impl From<Vec<Record>> for Batch {
    fn from(records: Vec<Record>) -> Self {
        Self {
            records,
            refused: Vec::new(),
        }
    }
}

/// A batch as a whole cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is of a form that is not known here.
    #[error(
        "records came in form {0}, and this wharfie knows form {VERSION}: the other node runs a newer version; install that one here too"
    )]
    Newer(u8),
    /// It is too large.
    #[error("{0} bytes of records came at once, and {LARGEST_BATCH} is the most")]
    Large(usize),
    /// There are too many.
    #[error("{0} records came at once, and {MOST_RECORDS} is the most")]
    Many(u64),
    /// It is damaged.
    #[error("records came that cannot be read: {0}")]
    Damaged(String),
}

impl From<postcard::Error> for Malformed {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Records as they are sent. They must fit into [`LARGEST_BATCH`], as those do that
/// [`super::Replica::records`] gives.
#[must_use]
pub fn encode(records: &[Record]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    put_number(&mut bytes, records.len() as u64);
    for record in records {
        let value = record.value.as_ref().map(text);
        bytes.extend(stored(&Wire::new(record, value.as_deref())));
    }
    bytes
}

/// Reads what [`encode`] made. A record that must not be let in does not keep out the others.
///
/// # Errors
/// The batch is too large, of another version, or damaged.
pub fn decode(bytes: &[u8]) -> Result<Batch, Malformed> {
    if bytes.len() > LARGEST_BATCH {
        return Err(Malformed::Large(bytes.len()));
    }
    let (&version, rest) = bytes
        .split_first()
        .ok_or_else(|| Malformed::Damaged("there is nothing".to_owned()))?;
    if version != VERSION {
        return Err(Malformed::Newer(version));
    }
    let (count, mut rest): (u64, _) = postcard::take_from_bytes(rest)?;
    if count > MOST_RECORDS as u64 {
        return Err(Malformed::Many(count));
    }
    let mut batch = Batch::default();
    for _ in 0..count {
        let wire: Wire<'_>;
        (wire, rest) = postcard::take_from_bytes(rest)?;
        match refusal::check(&wire).and_then(|()| wire.record()) {
            Ok(record) => batch.records.push(record),
            Err(refusal) => batch.refused.push((wire.key(), wire.stamp, refusal)),
        }
    }
    if !rest.is_empty() {
        return Err(Malformed::Damaged("something follows them".to_owned()));
    }
    Ok(batch)
}

/// The text of a value.
pub(crate) fn text(value: &serde_json::Value) -> String {
    value.to_string()
}

/// The bytes of one record.
pub(crate) fn stored(wire: &Wire<'_>) -> Vec<u8> {
    // It has nothing that postcard cannot write, and a vector takes all.
    postcard::to_allocvec(wire).unwrap_or_default()
}

fn put_number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(postcard::to_allocvec(&number).unwrap_or_default());
}

/// The value: as it is where people read, else as JSON text, since postcard does not say what
/// follows.
pub(super) mod value {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(in crate::replica) fn serialize<S: Serializer>(
        value: &Option<Value>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            value.serialize(to)
        } else {
            value.as_ref().map(super::text).serialize(to)
        }
    }

    pub(in crate::replica) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Value>, D::Error> {
        if from.is_human_readable() {
            return Option::deserialize(from);
        }
        let text: Option<String> = Option::deserialize(from)?;
        if let Some(text) = &text {
            super::refusal::check_value(text).map_err(D::Error::custom)?;
        }
        let read = |text: String| serde_json::from_str(&text).map_err(D::Error::custom);
        text.map(read).transpose()
    }
}
