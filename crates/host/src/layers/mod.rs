//! Images from node to node, without a registry.
//!
//! A node that lacks an image asks those that have it what is in it, and takes the layers it
//! lacks from several of them at once. What came stays in a directory until the image is whole:
//! a transfer that is cut off goes on where it was, also with another node. Every layer is
//! compared with its digest before the Engine gets it.
//!
//! - `wire`: what is said; `serve`: the side that has the image.
//! - `fetch`: the side that takes it: `gather` takes from all nodes at once, `split` divides,
//!   `receive` takes from one node, `staging` keeps, `load` hands over to the Engine.
//! - `names`: which file of an Engine's archive is what.

mod digest;
mod fetch;
mod gather;
mod here;
mod load;
mod names;
mod receive;
mod serve;
mod split;
mod staging;
mod status;
#[cfg(test)]
mod tests;
mod wire;

use std::io;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::dial::BoxedStream;

pub use digest::Digest;
pub use fetch::{Fetched, Fetcher};
pub use serve::Server;
pub use status::{LayerStatus, Phase, Status};

/// A node that may have the image.
pub trait Source: Send + Sync {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// Opens a new stream to its [`Server`]. It must not take long, however the node is: what
    /// takes more than ten seconds is given up.
    ///
    /// # Errors
    /// The node cannot be reached.
    fn open(&self) -> BoxFuture<'_, io::Result<BoxedStream>>;
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Its id on the Engine that has it.
    pub id: Digest,
    /// The digest of its configuration: the id, unless the Engine keeps images in containerd.
    pub config: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The digest of its archive.
    pub diff: Digest,
    /// The digest of the file that the Engine gives: another one if it is compressed.
    pub blob: Digest,
    /// Bytes, about.
    pub size: u64,
}
