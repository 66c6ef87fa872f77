//! Where layers are kept until the image is whole: a directory for each image, a file for each
//! layer, which has `.part` behind its name until its digest was found to be right.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Digest;
use super::digest::Hasher;

/// How long what is left of a transfer is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes that are kept of transfers that did not come to their end.
const MOST: u64 = 20 << 30;

/// What is kept of an image; clones are the same directory.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// The directory for an image; made if it is not there.
    pub(super) fn open(root: &Path, image: &Digest) -> io::Result<Self> {
        let dir = root.join(image.hex());
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of a layer that is whole.
    pub(super) fn file(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    fn part(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{}.part", digest.hex()))
    }

    /// Size of a layer that is whole.
    pub(super) fn whole(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.file(digest)).ok().map(|m| m.len())
    }

    /// Bytes that are there of a layer that is not whole.
    pub(super) fn begun(&self, digest: &Digest) -> u64 {
        fs::metadata(self.part(digest)).map_or(0, |m| m.len())
    }

    /// Bytes that there is room for.
    pub(super) fn room(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Removes everything.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.dir)
    }

    /// Begins or goes on to write a layer from this byte on. Blocks: reads what is there.
    pub(super) fn writer(&self, digest: &Digest, from: u64) -> io::Result<Writer> {
        let path = self.part(digest);
        let mut file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)?;
        if file.metadata()?.len() < from {
            return Err(io::Error::other("what was there is gone"));
        }
        file.set_len(from)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        file.seek(SeekFrom::Start(0))?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        Ok(Writer {
            file,
            hasher,
            path,
            whole: self.file(digest),
            digest: digest.clone(),
        })
    }
}

/// Writes a layer.
pub(super) struct Writer {
    file: File,
    hasher: Hasher,
    path: PathBuf,
    whole: PathBuf,
    digest: Digest,
}

impl Writer {
    /// Adds bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Ends a layer. If it is not what its digest says, it is removed and the answer is no. It is
    /// not forced to the disk: the Engine compares once more, and what it refuses is thrown away.
    pub(super) fn finish(self) -> io::Result<bool> {
        if self.hasher.finish() != self.digest {
            fs::remove_file(&self.path)?;
            return Ok(false);
        }
        fs::rename(&self.path, &self.whole)?;
        Ok(true)
    }
}

/// Removes what is left of old transfers, and of the oldest if all take too much room; those in
/// use stay. What cannot be removed is left: the next time is another chance.
pub(super) fn sweep(root: &Path, in_use: &[Digest], now: SystemTime) {
    sweep_above(root, in_use, now, MOST);
}

fn sweep_above(root: &Path, in_use: &[Digest], now: SystemTime, most: u64) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    let mut kept = Vec::new();
    for entry in entries.flatten() {
        let image = entry.file_name().to_str().and_then(Digest::from_hex);
        // What is not ours stays.
        let Some(image) = image.filter(|i| !in_use.contains(i)) else {
            continue;
        };
        let (size, changed) = look(&entry.path());
        if now.duration_since(changed).is_ok_and(|age| age > KEPT) {
            let _ = fs::remove_dir_all(entry.path());
        } else {
            kept.push((changed, size, image));
        }
    }
    kept.sort();
    let mut all: u64 = kept.iter().map(|(_, size, _)| size).sum();
    for (_, size, image) in kept {
        if all <= most {
            break;
        }
        let _ = fs::remove_dir_all(root.join(image.hex()));
        all -= size;
    }
}

/// Bytes in a directory, and when something in it last changed.
fn look(dir: &Path) -> (u64, SystemTime) {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let facts = files.filter_map(|file| file.metadata().ok());
    let own = fs::metadata(dir).and_then(|m| m.modified());
    let begin = (0, own.unwrap_or(SystemTime::UNIX_EPOCH));
    facts.fold(begin, |(size, changed), file| {
        let time = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        (size + file.len(), changed.max(time))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::tests::Scratch;

    #[test]
    fn a_layer_is_written_in_two_goes() {
        let scratch = Scratch::new("goes");
        let (image, layer) = (Digest::of("image"), Digest::of("hello world"));
        let staging = Staging::open(&scratch.0, &image).unwrap();
        staging
            .writer(&layer, 0)
            .unwrap()
            .write(b"hello, and more")
            .unwrap();
        assert_eq!(staging.begun(&layer), 15);
        // The other side may send less than is here.
        let mut writer = staging.writer(&layer, 5).unwrap();
        writer.write(b" world").unwrap();
        assert_eq!(staging.whole(&layer), None);
        assert!(writer.finish().unwrap());
        assert_eq!(
            (staging.whole(&layer), staging.begun(&layer)),
            (Some(11), 0)
        );
        assert!(staging.writer(&Digest::of("other"), 5).is_err());
        staging.remove().unwrap();
        assert_eq!(staging.whole(&layer), None);
    }

    #[test]
    fn what_is_not_right_does_not_stay() {
        let scratch = Scratch::new("wrong");
        let staging = Staging::open(&scratch.0, &Digest::of("image")).unwrap();
        let layer = Digest::of("right");
        let mut writer = staging.writer(&layer, 0).unwrap();
        writer.write(b"wrong").unwrap();
        assert!(!writer.finish().unwrap());
        assert_eq!((staging.whole(&layer), staging.begun(&layer)), (None, 0));
    }

    #[test]
    fn remains_go_after_a_week_or_when_there_is_too_much() {
        let scratch = Scratch::new("sweep");
        let now = SystemTime::now();
        let image = |name: &str, days: u64| {
            let id = Digest::of(name);
            let staging = Staging::open(&scratch.0, &id).unwrap();
            let mut writer = staging.writer(&Digest::of("x"), 0).unwrap();
            writer.write(&[0; 10]).unwrap();
            let then = now - Duration::from_secs(days * 24 * 3600);
            writer.file.set_modified(then).unwrap();
            File::open(staging.dir())
                .unwrap()
                .set_modified(then)
                .unwrap();
            id
        };
        let there = |id: &Digest| scratch.0.join(id.hex()).exists();
        let (old, used, older, newer) =
            (image("a", 8), image("b", 9), image("c", 2), image("d", 1));
        fs::create_dir(scratch.0.join("not-ours")).unwrap();
        sweep(&scratch.0, std::slice::from_ref(&used), now);
        assert_eq!(
            [&old, &used, &older, &newer].map(there),
            [false, true, true, true]
        );
        sweep_above(&scratch.0, std::slice::from_ref(&used), now, 10);
        assert_eq!([&used, &older, &newer].map(there), [true, false, true]);
        assert!(scratch.0.join("not-ours").exists());
    }
}
