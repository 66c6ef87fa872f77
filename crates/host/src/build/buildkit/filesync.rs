//! `moby.filesync.v1.FileSync`: BuildKit fetches directories from us, and of a directory it has
//! seen before only what has changed.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::mpsc;

use super::super::ignore::Ignore;
use super::grpc::{Fault, Messages, Replies, code, percent_decoded};
use super::wire::{Message, fields};

/// Bytes of a file in one message.
const PIECE: usize = 64 << 10;

/// Kinds of packets.
const STAT: u64 = 0;
const REQUEST: u64 = 1;
const DATA: u64 = 2;
const FINISH: u64 = 3;
const ERROR: u64 = 4;

/// What may be fetched under a name.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A directory of this host.
    Directory(PathBuf),
    /// Files that are only in memory.
    Files(Vec<(String, Bytes)>),
}

/// What of a directory is asked for.
#[derive(Debug, Default)]
struct Filter {
    /// Everything, unless there are patterns.
    include: Option<Ignore>,
    exclude: Ignore,
}

/// Where the content of a file is.
#[derive(Debug, Clone)]
enum Content {
    Path(PathBuf),
    Memory(Bytes),
}

/// An entry to be announced.
#[derive(Debug)]
struct Entry {
    stat: Vec<u8>,
    content: Option<Content>,
}

/// Values of a header that may come several times; not-ASCII ones are encoded.
fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let encoded = headers
        .get(format!("{name}-encoded"))
        .is_some_and(|v| v == "1" || v == "true");
    let all = headers.get_all(name).iter();
    all.filter_map(|value| value.to_str().ok())
        .map(|value| {
            if encoded {
                percent_decoded(&value.replace('+', " "))
            } else {
                value.to_owned()
            }
        })
        .collect()
}

fn patterns(lines: &[String]) -> Result<Ignore, Fault> {
    // Each is a pattern of its own, though it may look like a comment.
    let escaped: Vec<String> = lines
        .iter()
        .map(|l| {
            if l.starts_with('#') {
                format!("\\{l}")
            } else {
                l.clone()
            }
        })
        .collect();
    Ignore::parse(&escaped.join("\n")).map_err(|bad| {
        Fault::new(
            code::UNKNOWN,
            format!("bad pattern {:?}: {}", bad.text, bad.reason),
        )
    })
}

/// Answers a fetch.
pub(super) async fn diff_copy(
    sources: &HashMap<String, Source>,
    headers: &HeaderMap,
    mut messages: Messages,
    replies: &mut Replies,
) -> Result<(), Fault> {
    let name = values(headers, "dir-name").pop().unwrap_or_default();
    let Some(source) = sources.get(&name).cloned() else {
        return Err(Fault::new(
            code::NOT_FOUND,
            format!("no directory {name:?} belongs to this build"),
        ));
    };
    let include = values(headers, "include-patterns");
    let filter = Filter {
        include: (!include.is_empty())
            .then(|| patterns(&include))
            .transpose()?,
        exclude: patterns(&values(headers, "exclude-patterns"))?,
    };
    let walked = tokio::task::spawn_blocking(move || entries(&source, &filter));
    let entries = match walked.await.map_err(|e| e.to_string()) {
        Ok(Ok(entries)) => entries,
        Ok(Err(why)) | Err(why) => {
            let packet = Message::default().number(1, ERROR).text(4, &why);
            replies.send(&packet.done()).await?;
            return Err(Fault::new(code::UNKNOWN, why));
        }
    };
    let mut contents = HashMap::new();
    for (id, entry) in (0_u32..).zip(entries) {
        let packet = Message::default().number(1, STAT).bytes(2, &entry.stat);
        if let Some(content) = entry.content {
            contents.insert(id, content);
        }
        replies.send(&packet.done()).await?;
    }
    replies
        .send(&Message::default().number(1, STAT).done())
        .await?;

    // Requests are taken while files are sent: the other side would wait for us to read them.
    let (queue, mut wanted) = mpsc::unbounded_channel();
    let contents = Arc::new(contents);
    let requests = async move {
        // Its end is the end of the queue.
        let queue = queue;
        while let Some(message) = messages.next().await? {
            let (mut kind, mut id, mut data) = (0, 0, String::new());
            for (field, value) in fields(&message) {
                match field {
                    1 => kind = value.number(),
                    3 => id = u32::try_from(value.number()).unwrap_or(u32::MAX),
                    4 => data = value.text(),
                    _ => {}
                }
            }
            match kind {
                REQUEST => drop(queue.send(id)),
                FINISH => return Ok(()),
                ERROR => return Err(Fault::new(code::UNKNOWN, data)),
                _ => {}
            }
        }
        Err(Fault::new(code::UNAVAILABLE, "the transfer was cut off"))
    };
    let files = async {
        while let Some(id) = wanted.recv().await {
            let Some(content) = contents.get(&id).cloned() else {
                return Err(Fault::new(code::UNKNOWN, format!("there is no file {id}")));
            };
            file(id, content, replies).await?;
        }
        Ok(())
    };
    tokio::try_join!(requests, files)?;
    replies
        .send(&Message::default().number(1, FINISH).done())
        .await
}

/// Sends a file in pieces; an empty piece is its end.
async fn file(id: u32, content: Content, replies: &mut Replies) -> Result<(), Fault> {
    let packet = |data: &[u8]| {
        let packet = Message::default().number(1, DATA).number(3, u64::from(id));
        if data.is_empty() {
            packet.done()
        } else {
            packet.bytes(4, data).done()
        }
    };
    match content {
        Content::Memory(bytes) => {
            for piece in bytes.chunks(PIECE) {
                replies.send(&packet(piece)).await?;
            }
        }
        Content::Path(path) => {
            let (sender, mut pieces) = mpsc::channel(4);
            let reading = tokio::task::spawn_blocking(move || read(&path, &sender));
            while let Some(piece) = pieces.recv().await {
                replies.send(&packet(&piece)).await?;
            }
            let read = reading.await;
            read.unwrap_or_else(|e| Err(e.to_string()))
                .map_err(|why| Fault::new(code::UNKNOWN, why))?;
        }
    }
    replies.send(&packet(&[])).await
}

fn read(path: &Path, to: &mpsc::Sender<Vec<u8>>) -> Result<(), String> {
    let failed = |e: io::Error| format!("cannot read {}: {e}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    loop {
        let mut piece = vec![0; PIECE];
        let count = file.read(&mut piece).map_err(failed)?;
        piece.truncate(count);
        if count == 0 || to.blocking_send(piece).is_err() {
            return Ok(());
        }
    }
}

/// All entries that are asked for, directories before what is in them, names in order.
fn entries(source: &Source, filter: &Filter) -> Result<Vec<Entry>, String> {
    let mut walk = Walk {
        filter,
        waiting: Vec::new(),
        found: Vec::new(),
    };
    match source {
        Source::Directory(root) => walk.directory(root, Path::new(""), "", (&[], &[]))?,
        Source::Files(files) => {
            let mut files: Vec<_> = files.iter().collect();
            files.sort();
            for (name, content) in files {
                let wanted = filter.include.as_ref().is_none_or(|i| i.ignores(name));
                if wanted {
                    let stat = Message::default()
                        .text(1, name)
                        .number(2, 0o644)
                        .number(5, content.len() as u64);
                    walk.found.push(Entry {
                        stat: stat.done(),
                        content: Some(Content::Memory(content.clone())),
                    });
                }
            }
        }
    }
    Ok(walk.found)
}

struct Walk<'a> {
    filter: &'a Filter,
    /// Directories around the current place that go only if something in them does.
    waiting: Vec<(String, Metadata)>,
    found: Vec<Entry>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        root: &Path,
        at: &Path,
        name: &str,
        above: (&[bool], &[bool]),
    ) -> Result<(), String> {
        let dir = root.join(at);
        let failed = |e: io::Error| format!("cannot read {}: {e}", dir.display());
        let entries = fs::read_dir(&dir).map_err(failed)?;
        let names: io::Result<Vec<_>> = entries.map(|e| Ok(e?.file_name())).collect();
        let mut names = names.map_err(failed)?;
        names.sort_unstable();
        for entry in names {
            let shown = entry.to_string_lossy();
            let name = if name.is_empty() {
                shown.into_owned()
            } else {
                format!("{name}/{shown}")
            };
            self.entry(root, &at.join(&entry), name, above)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        root: &Path,
        at: &Path,
        name: String,
        above: (&[bool], &[bool]),
    ) -> Result<(), String> {
        let path = root.join(at);
        let exclude = &self.filter.exclude;
        let excluding = exclude.hits(above.0, &name);
        let (included, including) = match &self.filter.include {
            Some(include) => {
                let hits = include.hits(above.1, &name);
                (include.decides(&hits), hits)
            }
            None => (true, Vec::new()),
        };
        let excluded = exclude.decides(&excluding);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // What cannot be looked at does not matter if it is not sent.
            Err(_) if excluded || !included => return Ok(()),
            Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
        };
        if excluded || !included {
            let kept = !excluded || exclude.may_keep_inside(&name);
            if meta.is_dir() && kept {
                let depth = self.waiting.len();
                self.waiting.push((name.clone(), meta));
                self.directory(root, at, &name, (&excluding, &including))?;
                self.waiting.truncate(depth);
            }
            return Ok(());
        }
        for (parent, meta) in std::mem::take(&mut self.waiting) {
            self.found
                .extend(entry_of(Path::new(&parent), &parent, &meta)?);
        }
        let is_dir = meta.is_dir();
        self.found.extend(entry_of(&path, &name, &meta)?);
        if is_dir {
            self.directory(root, at, &name, (&excluding, &including))?;
        }
        Ok(())
    }
}

/// An entry as it is announced; sockets are not. Everything is root's, so that the cache of the
/// builder does not depend on who builds.
fn entry_of(path: &Path, name: &str, meta: &Metadata) -> Result<Option<Entry>, String> {
    let kind = meta.file_type();
    // The bits are those of Go's os.FileMode.
    let bits = match () {
        () if kind.is_file() => 0,
        () if kind.is_dir() => 1 << 31,
        () if kind.is_symlink() => 1 << 27,
        () if kind.is_fifo() => 1 << 25,
        () if kind.is_block_device() => 1 << 26,
        () if kind.is_char_device() => 1 << 26 | 1 << 21,
        () => return Ok(None),
    };
    let mode = meta.mode();
    let special = [(0o4000, 23), (0o2000, 22), (0o1000, 20)];
    let special = special
        .iter()
        .filter(|(bit, _)| mode & bit != 0)
        .fold(0, |all, (_, bit)| all | 1 << bit);
    let time = meta.mtime().saturating_mul(1_000_000_000) + meta.mtime_nsec();
    let mut stat = Message::default()
        .text(1, name)
        .number(2, u64::from(bits | special | (mode & 0o777)));
    if kind.is_file() {
        stat = stat.number(5, meta.len());
    }
    stat = stat.number(6, u64::try_from(time).unwrap_or(0));
    if kind.is_symlink() {
        let to = fs::read_link(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        stat = stat.text(7, &to.to_string_lossy());
    }
    if kind.is_block_device() || kind.is_char_device() {
        let device = meta.rdev();
        stat = stat
            .number(8, (device >> 8) & 0xfff)
            .number(9, device & 0xff | (device >> 12) & 0xf_ff00);
    }
    Ok(Some(Entry {
        stat: stat.done(),
        content: kind.is_file().then(|| Content::Path(path.to_owned())),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::super::context::tests::Scratch;
    use super::*;

    fn names(source: &Source, include: &[&str], exclude: &[&str]) -> Vec<String> {
        let lines = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let filter = Filter {
            include: (!include.is_empty()).then(|| patterns(&lines(include)).unwrap()),
            exclude: patterns(&lines(exclude)).unwrap(),
        };
        let all = entries(source, &filter).unwrap();
        all.iter()
            .map(|e| fields(&e.stat).next().unwrap().1.text())
            .collect()
    }

    #[test]
    fn what_is_asked_for_is_announced() {
        let dir = Scratch::new(&[
            ("Dockerfile", ""),
            ("a/b/c.rs", ""),
            ("a/b/d.md", ""),
            ("a-b", ""),
            ("#odd", ""),
        ]);
        let source = Source::Directory(dir.0.clone());
        let all = [
            "#odd",
            "Dockerfile",
            "a",
            "a/b",
            "a/b/c.rs",
            "a/b/d.md",
            "a-b",
        ];
        assert_eq!(names(&source, &[], &[]), all);
        assert_eq!(names(&source, &["Dockerfile", "nope"], &[]), ["Dockerfile"]);
        assert_eq!(names(&source, &["a/b/*.rs"], &[]), ["a", "a/b", "a/b/c.rs"]);
        assert_eq!(names(&source, &[], &["a", "Docker*", "#odd"]), ["a-b"]);
        assert_eq!(
            names(&source, &[], &["*", "!a/**/*.md"]),
            ["a", "a/b", "a/b/d.md"]
        );
        let files = vec![
            ("Dockerfile".to_owned(), Bytes::new()),
            (".dockerignore".to_owned(), Bytes::new()),
        ];
        assert_eq!(
            names(&Source::Files(files), &["Docker*"], &[]),
            ["Dockerfile"]
        );
    }

    #[test]
    fn entries_say_what_they_are() {
        let dir = Scratch::new(&[("f", "12345")]);
        std::os::unix::fs::symlink("f", dir.0.join("l")).unwrap();
        let all = entries(&Source::Directory(dir.0.clone()), &Filter::default()).unwrap();
        let field = |entry: &Entry, wanted: u32| {
            let found = fields(&entry.stat).find(|(field, _)| *field == wanted);
            found.map(|(_, v)| (v.number(), v.text()))
        };
        assert_eq!(field(&all[0], 5).unwrap().0, 5);
        assert_eq!(field(&all[0], 2).unwrap().0 >> 20, 0);
        assert!(all[0].content.is_some() && all[1].content.is_none());
        assert_eq!(field(&all[1], 2).unwrap().0 >> 20, 1 << 7);
        assert_eq!(field(&all[1], 7).unwrap().1, "f");
    }
}
