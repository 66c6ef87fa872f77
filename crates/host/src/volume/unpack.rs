//! An archive of a volume as the content of another one.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::pack::{MTIME, TOP, XATTR};

/// Bytes read at a time; so many zeros become a hole.
const PIECE: usize = 64 << 10;

/// What of a file is set once its content is there.
#[derive(Debug)]
struct Attributes {
    owner: (u32, u32),
    mode: u32,
    time: (i64, i64),
    more: Vec<(String, Vec<u8>)>,
}

/// Unpacks into a directory, which gets the archive's owner and mode. Blocks. Nothing is written
/// outside it, whatever the archive says.
pub(super) fn unpack(root: &Path, archive: impl Read) -> io::Result<()> {
    let root = fs::canonicalize(root)?;
    let mut archive = tar::Archive::new(archive);
    // A directory gets its own once all that is in it is there: its time changes until then, and
    // what it passes on to new files is not theirs.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let written = entry.path()?.into_owned();
        let done = place(&root, &written).and_then(|path| {
            let attributes = Attributes::of(&mut entry)?;
            let kind = entry.header().entry_type();
            if kind == tar::EntryType::Directory {
                if path != root {
                    fs::create_dir(&path)?;
                }
                directories.push((path, attributes));
                return Ok(());
            }
            one(&root, &path, kind, &mut entry)?;
            match kind {
                // It is that of another name.
                tar::EntryType::Link => Ok(()),
                _ => attributes.set(&path, kind == tar::EntryType::Symlink),
            }
        });
        done.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", written.display())))?;
    }
    for (path, attributes) in directories.iter().rev() {
        attributes.set(path, false)?;
    }
    // The old volume goes once this one counts.
    Ok(rustix::fs::syncfs(File::open(&root)?)?)
}

/// Where an entry goes.
fn place(root: &Path, written: &Path) -> io::Result<PathBuf> {
    let inside = written.strip_prefix(TOP).map_err(io::Error::other)?;
    let plain = |c: Component| matches!(c, Component::Normal(_));
    if !inside.components().all(plain) {
        return Err(io::Error::other("it leads out of the volume"));
    }
    if inside.as_os_str().is_empty() {
        return Ok(root.to_owned());
    }
    let path = root.join(inside);
    let parent = path.parent().unwrap_or(root);
    // Only a link within the archive could lead elsewhere.
    if fs::canonicalize(parent)? != parent {
        return Err(io::Error::other("it leads out of the volume"));
    }
    Ok(path)
}

/// Makes what is no directory.
fn one<R: Read>(
    root: &Path,
    path: &Path,
    kind: tar::EntryType,
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<()> {
    let target = |entry: &tar::Entry<'_, R>| {
        let name = entry.link_name()?.map(|l| l.into_owned());
        name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    match kind {
        tar::EntryType::Regular => {
            let mut file = File::options().write(true).create_new(true).open(path)?;
            sparsely(entry, &mut file)
        }
        tar::EntryType::Link => fs::hard_link(place(root, &target(entry)?)?, path),
        tar::EntryType::Symlink => symlink(target(entry)?, path),
        tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block => {
            let (kind, device) = match kind {
                tar::EntryType::Char => (FileType::CharacterDevice, device(entry.header())?),
                tar::EntryType::Block => (FileType::BlockDevice, device(entry.header())?),
                _ => (FileType::Fifo, 0),
            };
            let made = rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device);
            Ok(made?)
        }
        other => Err(io::Error::other(format!("it is {other:?}"))),
    }
}

/// The number of a device; other headers have none.
fn device(header: &tar::Header) -> io::Result<u64> {
    let major = header.device_major()?.unwrap_or(0);
    let minor = header.device_minor()?.unwrap_or(0);
    Ok(rustix::fs::makedev(major, minor))
}

/// Copies, and leaves holes where there are zeros only: a file may be much larger than its content.
fn sparsely(from: &mut impl Read, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0_u8; PIECE];
    let mut length = 0_u64;
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match from.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return to.set_len(length);
        }
        length += filled as u64;
        let piece = &buffer[..filled];
        if piece.iter().all(|b| *b == 0) {
            to.seek(SeekFrom::Start(length))?;
        } else {
            to.write_all(piece)?;
        }
    }
}

impl Attributes {
    fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Self> {
        let mut time = (
            i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX),
            0,
        );
        let mut more = Vec::new();
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let key = extension.key().map_err(io::Error::other)?;
            if let Some(name) = key.strip_prefix(XATTR) {
                more.push((name.to_owned(), extension.value_bytes().to_vec()));
            } else if key == MTIME {
                let value = extension.value().map_err(io::Error::other)?;
                let parts = value.split_once('.').unwrap_or((value, "0"));
                let read = |part: &str| part.parse::<i64>().map_err(io::Error::other);
                time = (read(parts.0)?, read(parts.1)?);
            }
        }
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
        Ok(Self {
            owner: (id(header.uid()?)?, id(header.gid()?)?),
            mode: header.mode()? & 0o7777,
            time,
            more,
        })
    }

    /// In this order: a change of the owner takes modes and capabilities away, any change the time.
    fn set(&self, path: &Path, link: bool) -> io::Result<()> {
        lchown(path, Some(self.owner.0), Some(self.owner.1))?;
        if !link {
            fs::set_permissions(path, Permissions::from_mode(self.mode))?;
        }
        for (name, value) in &self.more {
            rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty())
                .map_err(|e| io::Error::other(format!("its attribute {name}: {e}")))?;
        }
        let time = Timespec {
            tv_sec: self.time.0,
            tv_nsec: self.time.1,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let set = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
        Ok(set?)
    }
}
