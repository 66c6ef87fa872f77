//! The content of a volume over a stream: pieces with their lengths, then one of length 0.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{pack, unpack};
use crate::archive::Incoming;

/// Size of the pieces.
const PIECE: usize = 256 << 10;
/// Pieces that may wait.
const WAITING: usize = 4;

/// Sends all that is in a directory; the digest of what was sent. `sent` is told the bytes so far.
///
/// # Errors
/// It cannot be read, or the stream breaks.
pub async fn send(
    root: PathBuf,
    to: &mut (impl AsyncWrite + Unpin),
    mut sent: impl FnMut(u64),
) -> io::Result<String> {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(WAITING);
    // It ends when nobody reads any longer.
    let thread = tokio::task::spawn_blocking(move || {
        let mut digest = Sha256::new();
        let sink = Sink {
            sender: Some(sender),
            digest: &mut digest,
        };
        pack::pack(&root, io::BufWriter::with_capacity(PIECE, sink))?;
        Ok::<_, io::Error>(hex(digest))
    });
    let mut all = 0;
    while let Some(piece) = pieces.recv().await {
        let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
        to.write_u32(length).await?;
        to.write_all(&piece).await?;
        all += u64::from(length);
        sent(all);
    }
    let digest = thread.await.unwrap_or_else(|e| Err(io::Error::other(e)))?;
    // Only now: what could not be read whole has no end.
    to.write_u32(0).await?;
    to.flush().await?;
    Ok(digest)
}

/// Receives into an empty directory; the digest of what is there then, read anew.
///
/// # Errors
/// It cannot be written, or the stream breaks.
pub async fn receive(root: &Path, from: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let (sender, receiver) = mpsc::channel::<Bytes>(WAITING);
    let into = root.to_owned();
    let thread = tokio::task::spawn_blocking(move || {
        let mut incoming = Incoming::new(receiver);
        unpack::unpack(&into, &mut incoming)?;
        // What fills up the archive's last block.
        io::copy(&mut incoming, &mut io::sink()).map(drop)
    });
    let taken = async {
        loop {
            let length = from.read_u32().await? as usize;
            if length == 0 {
                return Ok(());
            }
            if length > PIECE {
                return Err(io::Error::other("a piece is too large"));
            }
            let mut piece = vec![0_u8; length];
            from.read_exact(&mut piece).await?;
            if sender.send(piece.into()).await.is_err() {
                // The thread gave up, and says why.
                return Ok(());
            }
        }
    };
    let taken: io::Result<()> = taken.await;
    drop(sender);
    let unpacked = thread.await.unwrap_or_else(|e| Err(io::Error::other(e)));
    // What cuts the stream off lets the archive end too soon.
    taken?;
    unpacked?;
    let root = root.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut digest = Sha256::new();
        let sink = Sink {
            sender: None,
            digest: &mut digest,
        };
        pack::pack(&root, io::BufWriter::with_capacity(PIECE, sink))?;
        Ok(hex(digest))
    });
    read.await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

fn hex(digest: Sha256) -> String {
    let bytes = digest.finalize();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

struct Sink<'a> {
    /// None if it is only compared.
    sender: Option<mpsc::Sender<Bytes>>,
    digest: &'a mut Sha256,
}

impl Write for Sink<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        // A writer before this one may pass on more than it holds.
        let piece = &piece[..piece.len().min(PIECE)];
        self.digest.update(piece);
        if let Some(sender) = &self.sender {
            let sent = sender.blocking_send(Bytes::copy_from_slice(piece));
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
