//! Leaving nothing behind.

use std::net::IpAddr;

use super::{Error, LanAddresses, Namespace, encryption, gate, nft, overlay, reply};

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
    /// Addresses of services on the LAN.
    pub addresses: Vec<IpAddr>,
}

/// What [`purge`] would remove.
pub fn purgeable(namespace: &Namespace) -> Result<Purged, Error> {
    let (devices, neighbours) = overlay::all(namespace)?;
    Ok(Purged {
        devices,
        neighbours,
        addresses: LanAddresses::open(namespace)?.all()?,
        routes: reply::all(namespace)?,
        tables: nft::all(namespace)?,
    })
}

/// Removes everything of ours from a namespace, the host's or a container's: what carries our
/// mark, and nothing else.
pub fn purge(namespace: &Namespace) -> Result<Purged, Error> {
    gate::remove(namespace)?;
    // Before the rules that say what becomes of what is sent there.
    let addresses = LanAddresses::open(namespace)?.remove_all()?;
    let (mut devices, neighbours) = overlay::remove_all(namespace)?;
    let (encrypting, ways) = encryption::remove_all(namespace)?;
    devices.extend(encrypting);
    Ok(Purged {
        devices,
        neighbours,
        addresses,
        routes: ways + reply::remove_all(namespace)?,
        tables: nft::remove(namespace)?,
    })
}
