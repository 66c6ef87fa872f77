//! What two nodes say to each other while a volume goes from one to the other.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wharfie_host::LocalVolume;

/// The longest message, in bytes.
const LONGEST: u32 = 1 << 20;

/// A message. The content comes after [`Say::Ready`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(super) enum Say {
    /// The other one is to take a volume.
    Take {
        /// What it is.
        volume: LocalVolume,
    },
    /// It is made, and empty.
    Ready,
    /// All of it is there.
    Whole {
        /// The digest of what is there.
        digest: String,
    },
    /// It counts from now on.
    Keep,
    /// That was understood.
    Kept,
    /// It stays where it was.
    Drop,
    /// It cannot be taken.
    Failed {
        /// Why.
        why: String,
        /// What to do.
        help: Option<String>,
    },
}

/// Says something.
pub(super) async fn tell(to: &mut (impl AsyncWrite + Unpin), what: &Say) -> io::Result<()> {
    let bytes = serde_json::to_vec(what)?;
    to.write_u32(u32::try_from(bytes.len()).map_err(io::Error::other)?)
        .await?;
    to.write_all(&bytes).await?;
    to.flush().await
}

/// Hears what the other one says.
pub(super) async fn hear(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Say> {
    let length = from.read_u32().await?;
    if length > LONGEST {
        return Err(io::Error::other("the message is too long"));
    }
    let mut bytes = vec![0_u8; length as usize];
    from.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
