//! Leaving nothing behind.

use super::{Error, Namespace, nft, overlay, reply};

/// What was removed, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// Devices, by name.
    pub devices: Vec<String>,
    /// Tables of nftables, with their family.
    pub tables: Vec<String>,
    /// Routing rules and routes.
    pub routes: usize,
    /// Neighbours that were given to bridges.
    pub neighbours: usize,
}

/// Removes everything of ours from a namespace, the host's or a container's: what carries our
/// mark, and nothing else.
pub fn purge(namespace: &Namespace) -> Result<Purged, Error> {
    let (devices, neighbours) = overlay::remove_all(namespace)?;
    Ok(Purged {
        devices,
        neighbours,
        routes: reply::remove_all(namespace)?,
        tables: nft::remove(namespace)?,
    })
}
