//! Records that people add to the zone, as they are kept in the replicated store.

use serde::{Deserialize, Serialize};

/// Kind of the objects that hold a [`RecordSet`]; named by [`record_name`].
pub const RECORD: &str = "record";

/// All records of one name and type (RFC 2181 section 5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordSet {
    /// Seconds that they may be kept by those who asked.
    pub ttl: u32,
    /// Their data, each as a zone file has it (RFC 1035 section 5.1).
    pub values: Vec<String>,
}

/// Name of the object of a name in the zone, without the zone (`@` is the zone itself), and a type.
#[must_use]
pub fn record_name(name: &str, kind: &str) -> String {
    format!(
        "{} {}",
        name.to_ascii_lowercase(),
        kind.to_ascii_uppercase()
    )
}

/// What [`record_name`] made: name and type.
#[must_use]
pub fn record_of_name(object: &str) -> Option<(&str, &str)> {
    // A name may have blanks in it, a type has none.
    object.rsplit_once(' ')
}
