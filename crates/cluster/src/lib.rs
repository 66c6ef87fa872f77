//! What nodes keep and share. It knows nothing of what the objects mean.
//!
//! [`Store`] keeps versioned objects durably, with their history. [`Replica`] is the map of them
//! that all nodes bring to the same content.

mod clock;
mod id;
mod replica;
mod store;

pub use clock::{Clock, MAX_AHEAD, Stamp};
pub use id::{NodeId, NotAnId};
pub use replica::{
    Batch, Difference, GONE, Key, LARGEST_BATCH, LARGEST_VALUE, LONGEST_KIND, LONGEST_NAME,
    LONGEST_NOTE, Lost, MOST_RECORDS, Malformed, Merged, Record, Refusal, Replica, Summary,
    TOMBSTONE, Version, decode, encode,
};
pub use store::{Error, FORMAT, Options, Store};
