//! Files of this machine as an archive that is made while it is sent.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::Error;
use crate::build::pack::append;

/// Size of the pieces that go to the Engine.
const PIECE: usize = 64 * 1024;
/// Pieces that may wait.
const WAITING: usize = 4;

/// A file or directory and its path in the archive; `.` is the archive's root.
pub(super) type Item = (PathBuf, String);

/// Packs files and directories with all that is in them, on a thread of its own that ends when
/// nobody reads any longer. The first error ends the archive, and is the stream's last item.
pub(super) fn pack(items: Vec<Item>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    tokio::task::spawn_blocking(move || {
        let sink = io::BufWriter::with_capacity(PIECE, Sink(sender.clone()));
        if let Err(e) = write(sink, &items) {
            // Without a reader there is nobody to be told.
            let _ = sender.blocking_send(Err(e));
        }
    });
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

/// Looks whether everything is there and can be read, before anything is sent.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let failed = |e| Error::Local(format!("cannot read {}: {e}", path.display()));
    let meta = fs::symlink_metadata(path).map_err(failed)?;
    if meta.is_dir() {
        fs::read_dir(path).map_err(failed)?;
    } else if meta.is_file() {
        fs::File::open(path).map_err(failed)?;
    }
    Ok(())
}

fn write(sink: impl Write, items: &[Item]) -> io::Result<()> {
    let mut archive = tar::Builder::new(sink);
    for (path, name) in items {
        // An archive that is dropped unfinished writes its end all the same; the error that
        // follows in the stream is what makes the reader throw it away.
        entry(&mut archive, path, Path::new(name))?;
    }
    archive.into_inner()?.flush()
}

fn entry<W: Write>(to: &mut tar::Builder<W>, path: &Path, name: &Path) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let meta = fs::symlink_metadata(path).map_err(named)?;
    // The directory that the archive is unpacked in keeps its own mode and owner.
    if name != Path::new(".") {
        append(to, path, name, &meta, (meta.uid(), meta.gid())).map_err(named)?;
    }
    if !meta.is_dir() {
        return Ok(());
    }
    let names = fs::read_dir(path).and_then(|entries| {
        let names = entries.map(|entry| entry.map(|e| e.file_name()));
        names.collect::<io::Result<Vec<_>>>()
    });
    let mut names = names.map_err(named)?;
    names.sort_unstable();
    for child in names {
        entry(to, &path.join(&child), &name.join(&child))?;
    }
    Ok(())
}

struct Sink(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(piece)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test]
    async fn a_directory_is_packed_under_its_new_name() {
        let dir = std::env::temp_dir().join(format!("wharfie-copy-pack-{}", std::process::id()));
        fs::create_dir_all(dir.join("in")).unwrap();
        fs::write(dir.join("in/file"), "text").unwrap();
        std::os::unix::fs::symlink("file", dir.join("in/link")).unwrap();
        let pieces: Vec<_> = pack(vec![(dir.join("in"), "new".to_owned())])
            .collect()
            .await;
        let bytes: Vec<u8> = pieces.into_iter().flat_map(Result::unwrap).collect();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|e| {
            let e = e.unwrap();
            let link = e.link_name().unwrap().map(|l| l.display().to_string());
            (e.path().unwrap().display().to_string(), link)
        });
        let entries: Vec<_> = entries.collect();
        assert_eq!(
            entries,
            [
                ("new".to_owned(), None),
                ("new/file".to_owned(), None),
                ("new/link".to_owned(), Some("file".to_owned()))
            ]
        );
        let gone: Vec<_> = pack(vec![(dir.join("gone"), "x".to_owned())])
            .collect()
            .await;
        assert!(
            gone.last()
                .unwrap()
                .as_ref()
                .is_err_and(|e| e.to_string().contains("gone"))
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
