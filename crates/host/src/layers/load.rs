//! Handing an image over to the Engine (`POST /images/load`).
//!
//! The Engine opens no file of a layer that it has on top of the same layers, so what is here
//! already need not be in the archive. Where it refuses that (images kept in containerd) the
//! caller tries again with all layers.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Digest, here::Name};
use crate::{Engine, Error};

/// Seconds that the Engine may take.
const LOADING: u64 = 6 * 3600;
/// Bytes in one piece.
const PIECE: usize = 256 << 10;
/// Pieces that may wait.
const WAITING: usize = 4;

/// An image whose files are here.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) config: (Digest, PathBuf),
    /// All layers, the lowest first; those without a file are known to the Engine.
    pub(super) layers: Vec<(Digest, Option<PathBuf>)>,
    pub(super) name: Option<Name>,
}

impl Parcel {
    /// Writes the archive. Blocks.
    fn write(&self, to: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(to);
        let config = format!("{}.json", self.config.0.hex());
        append(&mut archive, &config, &self.config.1)?;
        let mut written = Vec::new();
        let mut names = Vec::new();
        for (digest, file) in &self.layers {
            let name = format!("{}.tar", digest.hex());
            // The same layer may be there twice.
            if let (Some(file), false) = (file, written.contains(&digest)) {
                append(&mut archive, &name, file)?;
                written.push(digest);
            }
            names.push(name);
        }
        let tags: Vec<String> = self.name.iter().map(ToString::to_string).collect();
        let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": names }]).to_string();
        let mut header = header(u64::try_from(manifest.len()).unwrap_or_default());
        archive.append_data(&mut header, "manifest.json", manifest.as_bytes())?;
        archive.into_inner()?.flush()
    }
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

fn append<W: Write>(to: &mut tar::Builder<W>, name: &str, path: &PathBuf) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(named)?;
    let size = file.metadata().map_err(named)?.len();
    to.append_data(&mut header(size), name, file)
}

/// Cuts what is written into pieces for a channel.
struct Sink {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE + (16 << 10)));
        let sent = self.sender.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Engine {
    /// Loads an image.
    ///
    /// # Errors
    /// The Engine refuses it, or a file cannot be read.
    pub(super) async fn load(&self, parcel: Parcel) -> Result<(), Error> {
        let context = match &parcel.name {
            Some(name) => format!("cannot load {name}"),
            None => format!("cannot load {}", parcel.config.0),
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        let thread = tokio::task::spawn_blocking(move || {
            let sink = Sink {
                sender: sender.clone(),
                piece: Vec::new(),
            };
            let written = parcel.write(sink);
            if let Err(e) = &written {
                // Without a reader there is nobody to be told.
                let _ = sender.blocking_send(Err(io::Error::new(e.kind(), e.to_string())));
            }
            written
        });
        let pieces = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let client = self.patient(LOADING);
        let mut answers = Box::pin(client.import_image_stream(options, pieces, None));
        let mut refused = None;
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|e| Error::from_engine(context.clone(), e));
            refused = refused.or(answer.err());
        }
        drop(answers);
        let written = thread.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        match (refused, written) {
            (None, Ok(())) => Ok(()),
            // An Engine that refuses stops to read; a file that cannot be read is our own fault.
            (_, Err(e)) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::Local(format!("{context}: {e}")))
            }
            (Some(refused), _) => Err(refused),
            (None, Err(e)) => Err(Error::Local(format!("{context}: {e}"))),
        }
    }
}
