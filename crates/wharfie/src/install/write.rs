//! Files put under a root and taken away again.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::{Item, What};
use crate::failure::Failure;

/// What came, or would come, of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was not there.
    New,
    /// It was there, and another one.
    Changed,
    /// It is as it should be.
    Same,
}

/// Where a path is under a root.
pub(super) fn under(root: &Path, path: &Path) -> PathBuf {
    // Nothing leads out of the root.
    let inside = path
        .components()
        .filter(|c| matches!(c, Component::Normal(_)));
    root.join(inside.collect::<PathBuf>())
}

/// Puts an item under a root; with `dry` only tells what would come of it.
pub(crate) fn put(root: &Path, item: &Item, dry: bool) -> Result<Outcome, Failure> {
    let target = under(root, &item.path);
    let outcome = compare(&target, &item.what)
        .map_err(|e| Failure::failed(format!("cannot read {}: {e}", target.display())))?;
    if dry || outcome == Outcome::Same {
        return Ok(outcome);
    }
    write(&target, &item.what)
        .map_err(|e| {
            Failure::failed(format!("cannot write {}: {e}", target.display()))
                .help("run as root, or write below a directory of your own with --root")
        })
        .map(|()| outcome)
}

fn compare(target: &Path, what: &What) -> io::Result<Outcome> {
    let there = match fs::symlink_metadata(target) {
        Ok(there) => there,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Outcome::New),
        Err(e) => return Err(e),
    };
    let mode = there.permissions().mode() & 0o777;
    let same = match what {
        What::File(content) => there.is_file() && mode == 0o644 && fs::read(target)? == *content,
        What::Link(to) => there.is_symlink() && fs::read_link(target)? == *to,
        What::Program(from) => {
            // The program that runs may itself be the installed one.
            there.is_file()
                && (fs::canonicalize(from)? == fs::canonicalize(target)?
                    || mode == 0o755 && fs::read(from)? == fs::read(target)?)
        }
    };
    Ok(if same {
        Outcome::Same
    } else {
        Outcome::Changed
    })
}

/// Writes beside the target and renames: what is there is whole at any moment, and a program that
/// runs can be replaced.
fn write(target: &Path, what: &What) -> io::Result<()> {
    let (Some(dir), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(dir)?;
    let part = dir.join(format!(
        ".{}.{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    let mode = |mode| fs::set_permissions(&part, fs::Permissions::from_mode(mode));
    let made = match what {
        What::File(content) => fs::write(&part, content).and_then(|()| mode(0o644)),
        What::Program(from) => fs::copy(from, &part).and_then(|_| mode(0o755)),
        What::Link(to) => symlink(to, &part),
    };
    made.and_then(|()| fs::rename(&part, target))
        .inspect_err(|_| {
            let _ = fs::remove_file(&part); // it may not have been made
        })
}

/// Takes a file away, and directories of Wharfie's own that are empty then. Whether it was there.
pub(crate) fn remove(root: &Path, path: &Path, dry: bool) -> Result<bool, Failure> {
    let target = under(root, path);
    if fs::symlink_metadata(&target).is_err() {
        return Ok(false);
    }
    if !dry {
        fs::remove_file(&target).map_err(|e| {
            Failure::failed(format!("cannot remove {}: {e}", target.display())).help("run as root")
        })?;
        if let Some(dir) = target.parent().filter(|d| d.ends_with("wharfie")) {
            let _ = fs::remove_dir(dir); // others may have put something there
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root() {
        let under = |path| under(Path::new("/root"), Path::new(path));
        assert_eq!(under("/etc/x"), Path::new("/root/etc/x"));
        assert_eq!(under("/../../etc/x"), Path::new("/root/etc/x"));
    }
}
