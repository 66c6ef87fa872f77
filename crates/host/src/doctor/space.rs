//! Room on disks and in memory.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use super::Finding;
use super::paths::existing;

/// Less than this is not enough to go on with.
const LEAST: u64 = 512 << 20;
/// Less than this is soon not enough.
const LITTLE: u64 = 2 << 30;
/// Memory of the smallest host that makes sense.
const LEAST_MEMORY: u64 = 256 << 20;
/// Memory that should be to be had.
const LITTLE_MEMORY: u64 = 128 << 20;

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disk {
    bytes: u64,
    free: u64,
    /// Inodes; 0 where the file system does not count them.
    inodes: u64,
    free_inodes: u64,
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    disks: Vec<(&'static str, PathBuf, Option<Disk>)>,
    /// Memory in all, and what is to be had of it.
    memory: Option<(u64, u64)>,
}

pub(super) fn probe(state: &Path, data_root: Option<&Path>) -> Facts {
    let mut disks = vec![("disk of the state", state.to_owned(), disk(state))];
    if let Some(root) = data_root.filter(|r| !r.as_os_str().is_empty()) {
        // Where it is not seen from here, the nearest directory would be another disk.
        let seen = root.is_dir().then(|| disk(root)).flatten();
        disks.push(("disk of the Engine", root.to_owned(), seen));
    }
    Facts {
        disks,
        memory: fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| memory(&text)),
    }
}

fn disk(path: &Path) -> Option<Disk> {
    let stat = statvfs(existing(path)?).ok()?;
    // File systems of the kernel's own have no size.
    (stat.f_blocks > 0).then(|| Disk {
        bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        free_inodes: stat.f_favail,
    })
}

/// All memory, and what is to be had, of `/proc/meminfo`.
fn memory(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kibibytes << 10)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts
        .disks
        .iter()
        .map(|(check, path, disk)| on_disk(check, path, *disk))
        .collect();
    findings.push(match facts.memory {
        None => Finding::unknown("memory", "/proc/meminfo cannot be read"),
        Some((all, free)) => {
            let seen = format!("{} of {} to be had", size(free), size(all));
            if all < LEAST_MEMORY {
                Finding::warning("memory", seen).mend("give the host 256 MiB or more")
            } else if free < LITTLE_MEMORY {
                Finding::warning("memory", seen)
                    .mend("limit services (`mem_limit`), or give the host more")
            } else {
                Finding::ok("memory", seen)
            }
        }
    });
    findings
}

fn on_disk(check: &str, path: &Path, disk: Option<Disk>) -> Finding {
    let path = path.display();
    let Some(disk) = disk else {
        return Finding::unknown(check, format!("{path} cannot be seen from here"));
    };
    let inodes = disk.free_inodes.saturating_mul(100);
    let seen = format!(
        "{} of {} free for {path}",
        size(disk.free),
        size(disk.bytes)
    );
    let mend = "remove what is not needed: `docker system df` tells, `docker image prune` removes";
    if disk.inodes > 0 && inodes < disk.inodes {
        let seen = format!("fewer than 1 % of the inodes are free for {path}");
        Finding::broken(check, seen).mend(mend)
    } else if disk.free < LEAST {
        Finding::broken(check, seen).mend(mend)
    } else if disk.free < LITTLE || disk.free.saturating_mul(20) < disk.bytes {
        Finding::warning(check, seen).mend(mend)
    } else if disk.inodes > 0 && inodes < disk.inodes.saturating_mul(5) {
        let seen = format!("fewer than 5 % of the inodes are free for {path}");
        Finding::warning(check, seen).mend(mend)
    } else {
        Finding::ok(check, seen)
    }
}

fn size(bytes: u64) -> String {
    let (number, unit) = match bytes {
        b if b >= 1 << 30 => ((b * 10) >> 30, "GiB"),
        b => ((b * 10) >> 20, "MiB"),
    };
    format!("{}.{} {unit}", number / 10, number % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn verdict(gib: u64, free_mib: u64, inodes: u64, free_inodes: u64) -> Verdict {
        let disk = Disk {
            bytes: gib << 30,
            free: free_mib << 20,
            inodes,
            free_inodes,
        };
        on_disk("disk", Path::new("/d"), Some(disk)).verdict
    }

    #[test]
    fn disks_are_judged() {
        assert_eq!(verdict(40, 20 << 10, 1000, 500), Verdict::Ok);
        assert_eq!(verdict(40, 100, 1000, 500), Verdict::Broken);
        assert_eq!(verdict(40, 1500, 1000, 500), Verdict::Warning);
        // A large disk is nearly full when much is free.
        assert_eq!(verdict(4000, 100 << 10, 1000, 500), Verdict::Warning);
        assert_eq!(verdict(40, 20 << 10, 1000, 5), Verdict::Broken);
        assert_eq!(verdict(40, 20 << 10, 1000, 40), Verdict::Warning);
        // btrfs does not count inodes.
        assert_eq!(verdict(40, 20 << 10, 0, 0), Verdict::Ok);
    }

    #[test]
    fn memory_is_read() {
        let text = "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    8000 kB\n";
        assert_eq!(memory(text), Some((16_000 << 10, 8_000 << 10)));
        assert_eq!(memory("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn what_is_not_seen_is_unknown() {
        let finding = on_disk("disk", Path::new("/d"), None);
        assert_eq!(finding.verdict, Verdict::Unknown);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(1536 << 20), "1.5 GiB");
        assert_eq!(size(300 << 20), "300.0 MiB");
    }
}
