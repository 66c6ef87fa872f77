//! What nodes keep and share. It knows nothing of what the objects mean.
//!
//! [`Store`] keeps versioned objects durably, with their history; [`Replica`] merges those of
//! others. [`Mesh`] links nodes over a [`transport`], tells who is there ([`swim`]), and carries
//! objects, reports and streams between them. [`Cluster`] is all of it for an agent, also when
//! there is only one node.

mod bridges;
pub mod clock;
mod cluster;
pub mod id;
pub mod identity;
pub mod join;
pub mod mesh;
pub mod replica;
pub mod roster;
mod store;
pub mod swim;
pub mod token;
pub mod transport;
pub mod wire;

pub use clock::{Clock, MAX_AHEAD, Stamp};
pub use cluster::{Cluster, ClusterError, Config, Node, Place, State};
pub use id::{NodeId, NotAnId};
pub use identity::Identity;
pub use mesh::{Event, Mesh, Services};
pub use replica::{
    Batch, Difference, GONE, Key, LARGEST_BATCH, LARGEST_VALUE, LONGEST_KIND, LONGEST_NAME,
    LONGEST_NOTE, Lost, MOST_RECORDS, Malformed, Merged, Record, Refusal, Replica, Summary,
    TOMBSTONE, Version, decode, encode,
};
pub use store::{Error, FORMAT, Options, Store};
pub use token::Token;
