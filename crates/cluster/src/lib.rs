//! What nodes keep and share. It knows nothing of what the objects mean.
//!
//! [`Store`] keeps versioned objects durably, with their history. Identity, transport, membership
//! and replication join it when hosts do.

mod store;

pub use store::{Error, FORMAT, Object, Options, Store};
