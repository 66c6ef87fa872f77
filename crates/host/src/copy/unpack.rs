//! An archive from a container as files of this machine.
//!
//! A container is not to be trusted: nothing is ever written outside the directory that was
//! asked for, whatever the archive's paths and links say.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::place::{Landing, renamed};

/// How an archive is unpacked.
#[derive(Debug, Clone)]
pub(super) struct Unpacking {
    /// Where.
    pub(super) landing: Landing,
    /// Whether it is what is in a directory, so that its top has no name.
    pub(super) content: bool,
    /// Whether owners are taken over.
    pub(super) owners: bool,
}

/// A directory that gets its mode and time once all that is in it is there.
struct Finish {
    path: PathBuf,
    mode: u32,
    time: u64,
}

impl Unpacking {
    /// Unpacks. Blocks.
    pub(super) fn unpack(&self, archive: impl Read) -> io::Result<()> {
        let root = fs::canonicalize(&self.landing.directory)?;
        let mut archive = tar::Archive::new(archive);
        let mut finish = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let written = entry.path()?.display().to_string();
            let path = self.path(&root, &entry.path()?)?;
            self.entry(&root, &path, &mut entry, &mut finish)
                .map_err(|e| io::Error::new(e.kind(), format!("{written}: {e}")))?;
        }
        // Those inside first: a directory that may not be written to is closed last.
        for directory in finish.iter().rev() {
            fs::set_permissions(
                &directory.path,
                fs::Permissions::from_mode(directory.mode & 0o7777),
            )?;
            set_time(&directory.path, directory.time)?;
        }
        Ok(())
    }

    /// Where an entry goes.
    fn path(&self, root: &Path, written: &Path) -> io::Result<PathBuf> {
        let name = written
            .to_str()
            .map(|w| renamed(w, self.content, self.landing.name.as_deref()));
        let Some(name) = name else {
            // What is no text keeps all its parts, unless its top is to be renamed.
            let mut parts = written
                .components()
                .filter(|c| matches!(c, Component::Normal(_)));
            if let (Some(name), false) = (&self.landing.name, self.content) {
                parts.next();
                return Ok(root.join(name).join(parts.collect::<PathBuf>()));
            }
            let top = self.landing.name.as_deref().unwrap_or_default();
            return Ok(root.join(top).join(parts.collect::<PathBuf>()));
        };
        Ok(if name.is_empty() {
            root.to_owned()
        } else {
            root.join(name)
        })
    }

    fn entry<R: Read>(
        &self,
        root: &Path,
        path: &Path,
        entry: &mut tar::Entry<'_, R>,
        finish: &mut Vec<Finish>,
    ) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if path == root {
            // The directory that is copied into stays as it is.
            return Ok(());
        }
        inside(root, path)?;
        let is_directory = kind == tar::EntryType::Directory;
        match fs::symlink_metadata(path) {
            Ok(there) if there.is_dir() && !is_directory => {
                return Err(io::Error::other("a directory is in its place"));
            }
            Ok(there) if !there.is_dir() && is_directory => {
                // A link to a directory, as somebody may have set up on purpose, is as good.
                if !fs::metadata(path).is_ok_and(|m| m.is_dir()) {
                    return Err(io::Error::other("a file is in its place"));
                }
            }
            Ok(there) if !there.is_dir() => fs::remove_file(path)?,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if is_directory {
                    fs::create_dir(path)?;
                }
            }
            Err(e) => return Err(e),
        }
        let (mode, time) = (entry.header().mode()?, entry.header().mtime()?);
        match kind {
            tar::EntryType::Directory => {
                finish.push(Finish {
                    path: path.to_owned(),
                    mode,
                    time,
                });
                self.own(path, entry)?;
            }
            tar::EntryType::Link => {
                let to = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                let to = self.path(root, &to)?;
                inside(root, &to)?;
                fs::hard_link(to, path)?;
            }
            tar::EntryType::Symlink => {
                let to = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                std::os::unix::fs::symlink(to, path)?;
                self.own(path, entry)?;
                set_time(path, time)?;
            }
            tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block => {
                make_node(path, kind, entry.header())?;
                self.own(path, entry)?;
                set_time(path, time)?;
            }
            _ => {
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(path)?;
                io::copy(entry, &mut file)?;
                self.own(path, entry)?;
                // After the owner, whose change takes bits away.
                file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
                set_time(path, time)?;
            }
        }
        Ok(())
    }

    fn own<R: Read>(&self, path: &Path, entry: &tar::Entry<'_, R>) -> io::Result<()> {
        if !self.owners {
            return Ok(());
        }
        let id = |id: u64| u32::try_from(id).map_err(|_| io::ErrorKind::InvalidData);
        let (user, group) = (id(entry.header().uid()?)?, id(entry.header().gid()?)?);
        std::os::unix::fs::lchown(path, Some(user), Some(group))
    }
}

/// Fails if a path's directory is not in the root, links counted.
fn inside(root: &Path, path: &Path) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if !fs::canonicalize(parent)?.starts_with(root) {
        return Err(io::Error::other(
            "it would be written outside the directory that is copied to",
        ));
    }
    Ok(())
}

fn make_node(path: &Path, kind: tar::EntryType, header: &tar::Header) -> io::Result<()> {
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    // Only the header of a device has its number.
    let (kind, device) = match kind {
        tar::EntryType::Char => (FileType::CharacterDevice, device(header)?),
        tar::EntryType::Block => (FileType::BlockDevice, device(header)?),
        _ => (FileType::Fifo, 0),
    };
    Ok(rustix::fs::mknodat(CWD, path, kind, mode, device)?)
}

fn device(header: &tar::Header) -> io::Result<u64> {
    let major = header.device_major()?.unwrap_or(0);
    let minor = header.device_minor()?.unwrap_or(0);
    Ok(rustix::fs::makedev(major, minor))
}

fn set_time(path: &Path, seconds: u64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("wharfie-copy-unpack-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn unpacking(scratch: &Scratch, name: Option<&str>) -> Unpacking {
        Unpacking {
            landing: Landing {
                directory: scratch.0.display().to_string(),
                name: name.map(str::to_owned),
            },
            content: false,
            owners: false,
        }
    }

    fn archive(entries: &[(&str, tar::EntryType, &str, u32)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, text, mode) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_mtime(1_000_000);
            header.set_uid(0);
            header.set_gid(0);
            if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
                header.set_size(0);
                archive.append_link(&mut header, path, text).unwrap();
            } else {
                header.set_size(text.len() as u64);
                archive
                    .append_data(&mut header, path, text.as_bytes())
                    .unwrap();
            }
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn names_modes_links_and_times_are_kept() {
        use tar::EntryType as T;
        let scratch = Scratch::new("kept");
        let packed = archive(&[
            ("d/", T::Directory, "", 0o555),
            ("d/file", T::Regular, "text", 0o640),
            ("d/link", T::Symlink, "file", 0o777),
            ("d/same", T::Link, "d/file", 0o640),
            ("d/pipe", T::Fifo, "", 0o600),
        ]);
        unpacking(&scratch, Some("new"))
            .unpack(packed.as_slice())
            .unwrap();
        let at = |name: &str| scratch.0.join("new").join(name);
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "text");
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("file"));
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let meta = |name: &str| fs::symlink_metadata(at(name)).unwrap();
        assert_eq!(
            (meta("").mode() & 0o777, meta("").mtime()),
            (0o555, 1_000_000)
        );
        assert_eq!(meta("file").mode() & 0o777, 0o640);
        assert_eq!(meta("file").ino(), meta("same").ino());
        assert!(meta("pipe").file_type().is_fifo());
        assert_eq!(meta("link").mtime(), 1_000_000);
    }

    #[test]
    fn nothing_is_written_outside() {
        use tar::EntryType as T;
        let (scratch, outside) = (Scratch::new("inside"), Scratch::new("outside"));
        let link = outside.0.display().to_string();
        let packed = archive(&[
            ("d/", T::Directory, "", 0o755),
            ("d/way", T::Symlink, &link, 0o777),
            ("d/way/out", T::Regular, "text", 0o644),
        ]);
        let error = unpacking(&scratch, None)
            .unpack(packed.as_slice())
            .unwrap_err();
        assert!(error.to_string().contains("outside"), "{error}");
        assert!(!outside.0.join("out").exists());
    }

    #[test]
    fn a_file_replaces_a_file_but_no_directory() {
        use tar::EntryType as T;
        let scratch = Scratch::new("replaced");
        fs::write(scratch.0.join("f"), "old").unwrap();
        let packed = archive(&[("f", T::Regular, "new", 0o644)]);
        let unpacking = unpacking(&scratch, None);
        unpacking.unpack(packed.as_slice()).unwrap();
        assert_eq!(fs::read_to_string(scratch.0.join("f")).unwrap(), "new");
        fs::create_dir(scratch.0.join("d")).unwrap();
        let packed = archive(&[("d", T::Regular, "new", 0o644)]);
        assert!(unpacking.unpack(packed.as_slice()).is_err());
        let packed = archive(&[("f/", T::Directory, "", 0o755)]);
        assert!(unpacking.unpack(packed.as_slice()).is_err());
    }
}
