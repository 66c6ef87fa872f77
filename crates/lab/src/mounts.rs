//! The mount table, as far as teardown needs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};

/// One line of a `mountinfo` file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) options: String,
}

/// Reads a `mountinfo` file's text, in the order things were mounted.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            // 36 35 98:0 /root /point options optional... - type source super-options
            let (head, tail) = line.split_once(" - ")?;
            Some(Mount {
                point: unescape(head.split(' ').nth(4)?).into(),
                options: tail.split(' ').nth(2).unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// The kernel writes blanks and backslashes as octal.
fn unescape(field: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Unmounts everything at or below a folder, last mounted first.
pub(crate) fn unmount_below(dir: &Path) -> Result<()> {
    // Several rounds: mounts may lie on top of each other, and propagate.
    for _ in 0..5 {
        let points = below(dir)?;
        if points.is_empty() {
            return Ok(());
        }
        for point in points.iter().rev() {
            // What is already gone with its parent is not an error; what stays shows in the next round.
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
    let left = below(dir)?;
    ensure!(left.is_empty(), "still mounted: {left:?}");
    Ok(())
}

fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    Ok(parse(&text)
        .into_iter()
        .map(|mount| mount.point)
        .filter(|point| point.starts_with(dir))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_options_are_read() {
        let text = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
                    49 45 0:39 / /var/a\\040b rw - overlay overlay rw,lowerdir=/x/l/A\n\
                    nonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[1].point, Path::new("/var/a b"));
        assert_eq!(mounts[1].options, "rw,lowerdir=/x/l/A");
    }
}
