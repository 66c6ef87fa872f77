//! What is said of the zone over the agent's socket.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `GET /v1/dns`: the zone as this node has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ZoneInfo {
    /// Its name, with a dot at its end.
    pub(crate) zone: String,
    /// Its serial.
    pub(crate) serial: u32,
    /// Whether this node answers for it.
    pub(crate) answers: bool,
    /// All records but the SOA.
    pub(crate) records: Vec<RecordInfo>,
    /// What cannot be as somebody wants it, a line each.
    pub(crate) conflicts: Vec<String>,
}

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordInfo {
    /// Its name, without the zone.
    pub(crate) name: String,
    /// Seconds that it may be kept.
    pub(crate) ttl: u32,
    /// Type.
    pub(crate) kind: String,
    /// Data.
    pub(crate) value: String,
    /// Whose it is, in words.
    pub(crate) of: String,
}

/// `POST /v1/dns/add`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct AddRecord {
    /// Name in the zone.
    pub(crate) name: String,
    /// Type.
    pub(crate) kind: String,
    /// Data, as in a zone file.
    pub(crate) values: Vec<String>,
    /// Seconds that they may be kept.
    pub(crate) ttl: Option<u32>,
    /// In place of what the name has of that type.
    pub(crate) replace: bool,
    /// Only say what would be done.
    pub(crate) dry_run: bool,
}

/// `POST /v1/dns/remove`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RemoveRecord {
    /// Name in the zone.
    pub(crate) name: String,
    /// Only of this type.
    pub(crate) kind: Option<String>,
    /// Only with this data.
    pub(crate) value: Option<String>,
    /// Only say what would be done.
    pub(crate) dry_run: bool,
}

/// `POST /v1/dns/import`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ImportRecords {
    /// What the file is called.
    pub(crate) file: String,
    /// What is in it.
    pub(crate) text: String,
    /// What was added and is not in it goes.
    pub(crate) replace: bool,
    /// Only say what would be done.
    pub(crate) dry_run: bool,
}

/// What became of a change of records.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Edited {
    /// What is wrong with the file: then nothing was done.
    pub(crate) faults: Vec<String>,
    /// Records that are new, a line each.
    pub(crate) added: Vec<String>,
    /// Records that are gone.
    pub(crate) removed: Vec<String>,
    /// What else is to be known.
    pub(crate) notes: Vec<String>,
}

/// `POST /v1/dns/check`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct CheckZone {
    /// Resolvers that people use; the host's if there are none.
    pub(crate) resolvers: Vec<SocketAddr>,
    /// Servers of the zone above; looked for if there are none.
    pub(crate) parents: Vec<SocketAddr>,
    /// Names that are asked for, at most.
    pub(crate) names: usize,
}

/// The answer to [`CheckZone`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Checked {
    /// What was found.
    pub(crate) findings: Vec<Finding>,
    /// What IT has to enter, as lines of a zone file.
    pub(crate) delegation: String,
}

/// Something that was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// `ok`, `warning` or `fault`.
    pub(crate) level: String,
    /// In words.
    pub(crate) what: String,
}
