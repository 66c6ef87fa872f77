//! What is in a volume, as an archive that is the same for the same content: so one of what was
//! written elsewhere tells whether all of it is there.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// How the volume's own directory is called in its archive.
pub(super) const TOP: &str = "v";
/// Begin of the names of extended attributes in an archive, as GNU tar writes them.
pub(super) const XATTR: &str = "SCHILY.xattr.";
/// The time of a file where the header's seconds do not say it all.
pub(super) const MTIME: &str = "mtime";

/// Attributes that are the host's and not the content's.
const OF_THE_HOST: [&str; 2] = ["security.selinux", "system.nfs4_acl"];

/// Writes all that is in a directory, and the directory itself. Blocks. Sockets are left out: an
/// archive cannot have them, and nobody listens at one that was moved.
pub(super) fn pack(root: &Path, sink: impl Write) -> io::Result<()> {
    let mut packing = Packing {
        archive: tar::Builder::new(sink),
        links: HashMap::new(),
    };
    packing.entry(root, Path::new(TOP))?;
    packing.archive.into_inner()?.flush()
}

/// Bytes of all files in a directory. Blocks.
pub(super) fn size(root: &Path) -> io::Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            all += size(&entry.path())?;
        } else if meta.is_file() {
            all += meta.len();
        }
    }
    Ok(all)
}

struct Packing<W: Write> {
    archive: tar::Builder<W>,
    /// Files of several names, by device and number: the name they are in the archive with.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packing<W> {
    fn entry(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let meta = fs::symlink_metadata(path).map_err(named)?;
        self.append(path, name, &meta).map_err(named)?;
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
            self.entry(&path.join(&child), &name.join(&child))?;
        }
        Ok(())
    }

    fn append(&mut self, path: &Path, name: &Path, meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        header.set_mode(meta.mode() & 0o7777);
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        header.set_size(0);
        if !meta.is_dir() && meta.nlink() > 1 {
            let number = (meta.dev(), meta.ino());
            if let Some(first) = self.links.get(&number) {
                header.set_entry_type(tar::EntryType::Link);
                return self.archive.append_link(&mut header, name, first);
            }
            self.links.insert(number, name.to_owned());
        }
        self.extensions(path, meta)?;
        if kind.is_file() {
            header.set_size(meta.len());
            let content = Exactly {
                file: File::open(path)?,
                left: meta.len(),
            };
            return self.archive.append_data(&mut header, name, content);
        }
        if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            let target = fs::read_link(path)?;
            return self.archive.append_link(&mut header, name, target);
        }
        let entry = match () {
            () if kind.is_dir() => tar::EntryType::Directory,
            () if kind.is_fifo() => tar::EntryType::Fifo,
            () if kind.is_char_device() => tar::EntryType::Char,
            () => tar::EntryType::Block,
        };
        header.set_entry_type(entry);
        if kind.is_char_device() || kind.is_block_device() {
            header.set_device_major(rustix::fs::major(meta.rdev()))?;
            header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
        }
        self.archive.append_data(&mut header, name, io::empty())
    }

    /// Writes what the header has no room for.
    fn extensions(&mut self, path: &Path, meta: &Metadata) -> io::Result<()> {
        let mut all = Vec::new();
        if meta.mtime() < 0 || meta.mtime_nsec() != 0 {
            let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            all.push((MTIME.to_owned(), time.into_bytes()));
        }
        for (name, value) in attributes(path)? {
            all.push((format!("{XATTR}{name}"), value));
        }
        if all.is_empty() {
            return Ok(());
        }
        let each = all.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
        self.archive.append_pax_extensions(each)
    }
}

/// Extended attributes of a file, a link's own, by name.
pub(super) fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let size = match rustix::fs::llistxattr_query(path) {
        Ok(size) => size,
        // The file system has none.
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e.into()),
    };
    if size == 0 {
        return Ok(Vec::new());
    }
    let mut names = vec![0_u8; size];
    let size = rustix::fs::llistxattr(path, &mut names[..])?;
    names.truncate(size);
    let mut all = Vec::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let text = std::str::from_utf8(name)
            .ok()
            .filter(|t| !t.contains('='))
            .ok_or_else(|| {
                let name = String::from_utf8_lossy(name);
                io::Error::other(format!("its attribute {name:?} cannot be in an archive"))
            })?;
        if OF_THE_HOST.contains(&text) {
            continue;
        }
        let name = std::ffi::OsStr::from_bytes(name);
        let size = rustix::fs::lgetxattr_query(path, name)?;
        let mut value = vec![0_u8; size];
        if size > 0 {
            let size = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            value.truncate(size);
        }
        all.push((text.to_owned(), value));
    }
    all.sort();
    Ok(all)
}

/// A file of which exactly as much is read as its header promises.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
