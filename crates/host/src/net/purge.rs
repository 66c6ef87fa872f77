//! Leaving nothing behind.

use super::{Error, Namespace, encryption, gate, nft, overlay, reply};

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

/// What [`purge`] would remove.
pub fn purgeable(namespace: &Namespace) -> Result<Purged, Error> {
    let (devices, neighbours) = overlay::all(namespace)?;
    Ok(Purged {
        devices,
        neighbours,
        routes: reply::all(namespace)?,
        tables: nft::all(namespace)?,
    })
}

/// Removes everything of ours from a namespace, the host's or a container's: what carries our
/// mark, and nothing else.
pub fn purge(namespace: &Namespace) -> Result<Purged, Error> {
    gate::remove(namespace)?;
    let (mut devices, neighbours) = overlay::remove_all(namespace)?;
    let (encrypting, ways) = encryption::remove_all(namespace)?;
    devices.extend(encrypting);
    Ok(Purged {
        devices,
        neighbours,
        routes: ways + reply::remove_all(namespace)?,
        tables: nft::remove(namespace)?,
    })
}
