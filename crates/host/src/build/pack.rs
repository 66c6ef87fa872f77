//! A build context as the tar stream that the Engine's builder reads.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use super::BuildError;
use super::context::{Context, DOCKERIGNORE};

/// Size of the pieces that go to the Engine.
const PIECE: usize = 64 * 1024;

/// Why packing ended early.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// Nobody reads any longer.
    Unread,
    /// Something of the context cannot be sent.
    Fault(BuildError),
}

/// Writes the context as a tar archive; if that fails the archive has no end. Blocks.
pub(super) fn pack(context: &Context, sink: impl Write) -> Result<(), Interrupted> {
    let mut archive = tar::Builder::new(Valve(Some(sink)));
    archive.mode(tar::HeaderMode::Complete);
    let mut packing = Packing {
        context,
        archive,
        waiting: Vec::new(),
    };
    let result = packing.everything();
    if result.is_err() {
        packing.archive.get_mut().0 = None;
    }
    result
}

/// A sink that can be shut, because an archive writes its end when it is dropped.
struct Valve<W>(Option<W>);

impl<W: Write> Write for Valve<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0
            .as_mut()
            .map_or(Err(io::ErrorKind::BrokenPipe.into()), |sink| {
                sink.write(piece)
            })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// One walk through the context.
struct Packing<'a, W: Write> {
    context: &'a Context,
    archive: tar::Builder<Valve<W>>,
    /// Ignored directories around the current place, sent only if something in them is.
    waiting: Vec<PathBuf>,
}

impl<W: Write> Packing<'_, W> {
    fn everything(&mut self) -> Result<(), Interrupted> {
        let root = &self.context.root;
        for (name, content) in &self.context.extra {
            let mut header = header(0o644, content.len() as u64, 0);
            self.archive
                .append_data(&mut header, name, content.as_slice())
                .map_err(|e| interrupted(&root.join(name), e))?;
        }
        self.directory(Path::new(""), "", &[])?;
        self.archive.finish().map_err(|e| interrupted(root, e))?;
        self.archive
            .get_mut()
            .flush()
            .map_err(|e| interrupted(root, e))
    }

    fn directory(&mut self, at: &Path, name: &str, above: &[bool]) -> Result<(), Interrupted> {
        let dir = self.context.root.join(at);
        let entries = fs::read_dir(&dir).and_then(|entries| {
            let names = entries.map(|entry| entry.map(|e| e.file_name()));
            names.collect::<io::Result<Vec<_>>>()
        });
        let mut entries = entries.map_err(|e| interrupted(&dir, e))?;
        entries.sort_unstable();
        for entry in entries {
            let shown = entry.to_string_lossy();
            let name = if name.is_empty() {
                shown.into_owned()
            } else {
                format!("{name}/{shown}")
            };
            if name == DOCKERIGNORE || self.context.extra.iter().any(|(extra, _)| *extra == name) {
                continue;
            }
            self.entry(&at.join(&entry), &name, above)?;
        }
        Ok(())
    }

    fn entry(&mut self, at: &Path, name: &str, above: &[bool]) -> Result<(), Interrupted> {
        let ignore = &self.context.ignore;
        let hits = ignore.hits(above, name);
        let ignored = ignore.decides(&hits);
        let path = self.context.root.join(at);
        let meta = fs::symlink_metadata(&path);
        if ignored {
            // What cannot be looked at does not matter if it is not sent.
            if meta.is_ok_and(|m| m.is_dir()) && ignore.may_keep_inside(name) {
                self.waiting.push(at.to_owned());
                self.directory(at, name, &hits)?;
                if self.waiting.last().is_some_and(|last| last == at) {
                    self.waiting.pop();
                }
            }
            return Ok(());
        }
        let meta = meta.map_err(|e| interrupted(&path, e))?;
        for parent in std::mem::take(&mut self.waiting) {
            let path = self.context.root.join(&parent);
            fs::symlink_metadata(&path)
                .and_then(|meta| append(&mut self.archive, &path, &parent, &meta, ROOT))
                .map_err(|e| interrupted(&path, e))?;
        }
        append(&mut self.archive, &path, at, &meta, ROOT).map_err(|e| interrupted(&path, e))?;
        if meta.is_dir() {
            self.directory(at, name, &hits)
        } else {
            Ok(())
        }
    }
}

/// User and group of what is sent to be built.
const ROOT: (u32, u32) = (0, 0);

/// The header of an entry that is root's.
fn header(mode: u32, size: u64, time: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_size(size);
    header
}

/// Writes one entry, which belongs to this user and group.
pub(crate) fn append<W: Write>(
    to: &mut tar::Builder<W>,
    path: &Path,
    at: &Path,
    meta: &Metadata,
    (user, group): (u32, u32),
) -> io::Result<()> {
    let kind = meta.file_type();
    let size = if kind.is_file() { meta.len() } else { 0 };
    let time = u64::try_from(meta.mtime()).unwrap_or(0);
    let mut header = header(meta.mode() & 0o7777, size, time);
    header.set_uid(user.into());
    header.set_gid(group.into());
    if kind.is_file() {
        let file = File::open(path)?;
        return to.append_data(&mut header, at, Exactly { file, left: size });
    }
    if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        return to.append_link(&mut header, at, fs::read_link(path)?);
    }
    let entry = match () {
        () if kind.is_dir() => tar::EntryType::Directory,
        () if kind.is_fifo() => tar::EntryType::Fifo,
        () if kind.is_char_device() => tar::EntryType::Char,
        () if kind.is_block_device() => tar::EntryType::Block,
        // Sockets cannot be in an archive.
        () => return Ok(()),
    };
    header.set_entry_type(entry);
    if matches!(entry, tar::EntryType::Char | tar::EntryType::Block) {
        let device = meta.rdev();
        header.set_device_major(((device >> 8) & 0xfff) as u32)?;
        header.set_device_minor((device & 0xff) as u32 | ((device >> 12) & 0xf_ff00) as u32)?;
    }
    to.append_data(&mut header, at, io::empty())
}

/// A file of which exactly as much is read as its header promises.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn interrupted(path: &Path, source: io::Error) -> Interrupted {
    if source.kind() == io::ErrorKind::BrokenPipe {
        return Interrupted::Unread;
    }
    Interrupted::Fault(BuildError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

type Queue = Arc<Mutex<mpsc::Receiver<Bytes>>>;

fn lock(queue: &Queue) -> MutexGuard<'_, mpsc::Receiver<Bytes>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A context being packed on a thread of its own. Dropping it ends the thread, even while
/// the other end of the stream is still held by a connection.
#[derive(Debug)]
pub(super) struct Packer {
    queue: Queue,
    thread: tokio::task::JoinHandle<Result<(), Interrupted>>,
}

impl Packer {
    /// Starts packing; the stream yields the archive.
    pub(super) fn start(
        context: Context,
    ) -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(4);
        let queue = Arc::new(Mutex::new(receiver));
        let pieces = Arc::clone(&queue);
        let whole = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&whole);
        let thread = tokio::task::spawn_blocking(move || {
            let sink = io::BufWriter::with_capacity(PIECE, Sink(sender.clone()));
            let result = pack(&context, sink);
            // Before the last sender goes, which ends the stream.
            done.store(result.is_ok(), Ordering::Release);
            drop(sender);
            result
        });
        let mut ended = false;
        let stream = futures_util::stream::poll_fn(move |cx| {
            if ended {
                return Poll::Ready(None);
            }
            let next = lock(&pieces).poll_recv(cx);
            next.map(|piece| match piece {
                Some(piece) => Some(Ok(piece)),
                None => {
                    ended = true;
                    // An archive that is cut off must not look whole.
                    let cut = !whole.load(Ordering::Acquire);
                    cut.then(|| Err(io::Error::other("the build context could not be read")))
                }
            })
        });
        (Self { queue, thread }, stream)
    }

    /// Ends packing and says what was wrong with the context, if anything was.
    pub(super) async fn fault(mut self) -> Option<BuildError> {
        lock(&self.queue).close();
        match (&mut self.thread).await {
            Ok(Err(Interrupted::Fault(fault))) => Some(fault),
            _ => None,
        }
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        lock(&self.queue).close();
    }
}

struct Sink(mpsc::Sender<Bytes>);

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(piece));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::context::tests::Scratch;
    use super::*;
    use futures_util::StreamExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    /// "name mode" of each entry, with the target of links.
    fn entries(dir: &Scratch, dockerfile: &str) -> Vec<String> {
        let mut bytes = Vec::new();
        pack(&Context::open(&dir.0, dockerfile, "").unwrap(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            assert_eq!(
                (entry.header().uid().unwrap(), entry.header().gid().unwrap()),
                (0, 0)
            );
            let link = entry
                .link_name()
                .unwrap()
                .map(|to| format!(" -> {}", to.display()));
            let name = entry.path().unwrap().display().to_string();
            format!(
                "{name} {:o}{}",
                entry.header().mode().unwrap(),
                link.unwrap_or_default()
            )
        });
        entries.collect()
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn everything_keeps_its_kind_and_mode() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        let dir = Scratch::new(&[("Dockerfile", ""), ("a/run", "x"), (&long, "long")]);
        mode(&dir.0.join("Dockerfile"), 0o640);
        mode(&dir.0.join("a"), 0o1777);
        mode(&dir.0.join("a/run"), 0o4755);
        mode(&dir.0.join(&long), 0o600);
        mode(&dir.0.join("d".repeat(120)), 0o700);
        symlink("../nowhere", dir.0.join("a/link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.0.join("a/sock")).unwrap();
        let expected = [
            "Dockerfile 640".to_owned(),
            "a 1777".to_owned(),
            "a/link 777 -> ../nowhere".to_owned(),
            "a/run 4755".to_owned(),
            format!("{} 700", "d".repeat(120)),
            format!("{long} 600"),
        ];
        assert_eq!(entries(&dir, "Dockerfile"), expected);
    }

    #[test]
    fn times_and_content_are_kept() {
        let dir = Scratch::new(&[("Dockerfile", "FROM scratch")]);
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::options()
            .write(true)
            .open(dir.0.join("Dockerfile"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        let mut bytes = Vec::new();
        pack(&Context::open(&dir.0, "", "").unwrap(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 1_000_000);
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "FROM scratch");
    }

    #[test]
    fn what_is_ignored_stays_at_home() {
        let dir = Scratch::new(&[
            (".dockerignore", "*\n!keep/**/*.rs\n**/secret.rs\n"),
            ("build/Dockerfile", ""),
            ("build/other", ""),
            ("keep/deep/a.rs", ""),
            ("keep/deep/a.txt", ""),
            ("keep/none/a.txt", ""),
            ("keep/secret.rs", ""),
            ("z.rs", ""),
        ]);
        for path in [".dockerignore", "build/Dockerfile", "keep/deep/a.rs"] {
            mode(&dir.0.join(path), 0o644);
        }
        for path in ["build", "keep", "keep/deep"] {
            mode(&dir.0.join(path), 0o755);
        }
        let expected = [
            ".dockerignore 644",
            "build 755",
            "build/Dockerfile 644",
            "keep 755",
            "keep/deep 755",
            "keep/deep/a.rs 644",
        ];
        assert_eq!(entries(&dir, "build/Dockerfile"), expected);
    }

    #[test]
    fn a_failed_archive_has_no_end() {
        let dir = Scratch::new(&[("Dockerfile", ""), ("b", "")]);
        let context = Context::open(&dir.0, "", "").unwrap();
        fs::remove_dir_all(&dir.0).unwrap();
        let mut bytes = Vec::new();
        let fault = pack(&context, &mut bytes).unwrap_err();
        assert!(
            matches!(fault, Interrupted::Fault(BuildError::Unreadable { .. })),
            "{fault:?}"
        );
        assert!(bytes.is_empty());
    }

    #[tokio::test]
    async fn dropping_the_packer_ends_its_thread() {
        let big = "x".repeat(4 << 20);
        let dir = Scratch::new(&[("Dockerfile", ""), ("big", &big)]);
        let (packer, mut stream) = Packer::start(Context::open(&dir.0, "", "").unwrap());
        assert!(stream.next().await.unwrap().is_ok());
        // The stream lives on, unread, as in a connection that is stuck.
        assert!(packer.fault().await.is_none());
        let rest: Vec<_> = stream.collect::<Vec<_>>().await;
        assert!(rest.last().unwrap().is_err());
    }
}
