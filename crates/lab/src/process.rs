//! Finding and ending processes, and never the wrong ones.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, namespace_file};
use crate::mounts;
use crate::wait::eventually;

/// The environment variable by which a process started in a lab, and its children, are known.
/// Its value is the folder of the host.
pub(crate) const MARKER: &str = "WHARFIE_LAB";

/// Programs of an Engine name the lab's folder in their arguments. Others that do (an editor, a
/// `tail` of a log) are none of the lab's business.
const ENGINE_PROGRAMS: [&str; 4] = ["dockerd", "containerd", "containerd-shim", "docker-proxy"];

/// A process that can be told apart from a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    start_time: u64,
    boot: String,
}

impl Identity {
    pub(crate) fn current() -> Result<Self> {
        let pid = std::process::id();
        let Some(start_time) = start_time(pid) else {
            anyhow::bail!("cannot read /proc/{pid}/stat");
        };
        Ok(Self {
            pid,
            start_time,
            boot: boot(),
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.boot == boot() && start_time(self.pid) == Some(self.start_time)
    }
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// When a living process was started, in ticks since boot; none for zombies.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, _parent, start) = parse_stat(&stat)?;
    (state != 'Z' && state != 'X').then_some(start)
}

/// State, parent and start time. The program's name stands in brackets and may contain anything.
fn parse_stat(stat: &str) -> Option<(char, u32, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some((
        fields.first()?.chars().next()?,
        fields.get(1)?.parse().ok()?,
        fields.get(19)?.parse().ok()?,
    ))
}

/// Whether the process exists and is not merely waiting for its parent to notice its end.
pub(crate) fn is_alive(pid: u32) -> bool {
    start_time(pid).is_some()
}

/// Waits until a stop signal has taken effect on every thread: each takes it in its own time, and
/// until then may still answer a request.
pub(crate) fn wait_stopped(pid: u32) -> Result<()> {
    eventually(Duration::from_secs(10), || {
        ensure!(has_stopped(pid), "process {pid} still runs");
        Ok(())
    })
}

fn has_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        parse_stat(&stat).is_none_or(|(state, ..)| matches!(state, 'T' | 't' | 'Z' | 'X'))
    })
}

/// What makes a process one of a lab's, or of one host of it.
pub(crate) struct Territory {
    /// Its folder, with a slash at the end.
    dir: String,
    /// The cgroup of its containers, with a slash at the end.
    cgroup: String,
    /// The inodes of its network namespaces.
    namespaces: BTreeSet<u64>,
}

impl Territory {
    pub(crate) fn lab(layout: &Layout) -> Self {
        Self {
            dir: format!("{}/", layout.dir.display()),
            cgroup: format!("/{}/", layout.prefix),
            namespaces: namespaces(&format!("{}-", layout.prefix))
                .iter()
                .filter_map(|name| inode(name))
                .collect(),
        }
    }

    pub(crate) fn machine(layout: &Layout, name: &str) -> Self {
        Self {
            dir: format!("{}/", layout.machine_dir(name).display()),
            cgroup: format!("{}/", layout.cgroup(name)),
            namespaces: inode(&layout.namespace(name)).into_iter().collect(),
        }
    }

    /// Kills every process of the territory, and whatever they start meanwhile.
    pub(crate) fn kill_all(&self) -> Result<()> {
        eventually(Duration::from_secs(10), || {
            let found = self.processes();
            for pid in &found {
                self.kill(*pid);
            }
            ensure!(found.is_empty(), "processes {found:?} are still there");
            Ok(())
        })
    }

    /// Kills through a pidfd, looking again once it is held: the pid cannot pass to another then.
    fn kill(&self, pid: u32) {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(Ok(fd)) = raw.map(|pid| pidfd_open(pid, PidfdFlags::empty()))
            && self.owns(pid)
        {
            // Already gone is as good as killed; what stays is found in the next round.
            let _ = pidfd_send_signal(&fd, Signal::KILL);
        }
    }

    fn processes(&self) -> Vec<u32> {
        let spared = self_and_ancestors();
        all_pids()
            .filter(|pid| !spared.contains(pid) && self.owns(*pid))
            .collect()
    }

    fn owns(&self, pid: u32) -> bool {
        let proc = format!("/proc/{pid}");
        let proc = Path::new(&proc);
        is_alive(pid)
            && (inode_of(&proc.join("ns/net")).is_some_and(|n| self.namespaces.contains(&n))
                || self.owns_cgroup(&read(proc, "cgroup"))
                || self.owns_environment(&read(proc, "environ"))
                || self.owns_engine_program(&read(proc, "comm"), &read(proc, "cmdline"))
                || self.owns_root(proc))
    }

    fn owns_cgroup(&self, cgroups: &str) -> bool {
        cgroups
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .any(|path| path.starts_with(&self.cgroup))
    }

    fn owns_environment(&self, environ: &str) -> bool {
        environ
            .split('\0')
            .filter_map(|entry| entry.strip_prefix(MARKER)?.strip_prefix('='))
            .any(|dir| format!("{dir}/").starts_with(&self.dir))
    }

    fn owns_engine_program(&self, comm: &str, cmdline: &str) -> bool {
        ENGINE_PROGRAMS.contains(&comm.trim_end()) && cmdline.contains(&self.dir)
    }

    /// A container whose cgroup was chosen by its user: its root is an overlay of the lab.
    fn owns_root(&self, proc: &Path) -> bool {
        inode_of(&proc.join("ns/mnt")) != inode_of(Path::new("/proc/self/ns/mnt"))
            && mounts::parse(&read(proc, "mountinfo"))
                .iter()
                .any(|m| m.point == Path::new("/") && m.options.contains(&self.dir))
    }
}

fn read(proc: &Path, file: &str) -> String {
    let bytes = fs::read(proc.join(file)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn inode_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.ino())
}

fn inode(namespace: &str) -> Option<u64> {
    inode_of(&namespace_file(namespace))
}

/// The names of the network namespaces that begin so.
pub(crate) fn namespaces(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(namespace_file("")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

fn all_pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Who runs the clean-up may itself sit in a shell within the lab.
fn self_and_ancestors() -> BTreeSet<u32> {
    let mut chain = BTreeSet::new();
    let mut pid = std::process::id();
    while pid != 0 && chain.insert(pid) {
        pid = parse_stat(&read(Path::new(&format!("/proc/{pid}")), "stat"))
            .map_or(0, |(_, parent, _)| parent);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn territory() -> Territory {
        let layout = Layout::new(Path::new("/var/tmp/wharfie-lab"), "wl1ag");
        Territory::machine(&layout, "h1")
    }

    #[test]
    fn stat_is_read_past_a_hostile_name() {
        let stat = "7 (a) R 1 (b)) S 42 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1 1";
        assert_eq!(parse_stat(stat), Some(('S', 42, 987)));
    }

    #[test]
    fn this_process_is_alive_and_a_reused_pid_is_not() {
        let mut identity = Identity::current().expect("readable");
        assert!(identity.is_alive());
        identity.start_time += 1;
        assert!(!identity.is_alive());
    }

    #[test]
    fn containers_are_known_by_their_cgroup() {
        let territory = territory();
        assert!(territory.owns_cgroup("9:pids:/wl1ag/h1/27\n0::/wl1ag/h1/27"));
        assert!(!territory.owns_cgroup("9:pids:/wl1ag/h11/27\n0::/docker/27"));
    }

    #[test]
    fn children_are_known_by_the_marker() {
        let territory = territory();
        let dir = "/var/tmp/wharfie-lab/wl1ag";
        assert!(territory.owns_environment(&format!("A=b\0WHARFIE_LAB={dir}/h1\0")));
        assert!(!territory.owns_environment(&format!("WHARFIE_LAB={dir}/h11\0")));
        assert!(!territory.owns_environment(&format!("WHARFIE_LAB_DIR={dir}/h1\0")));
    }

    #[test]
    fn only_engine_programs_are_known_by_their_arguments() {
        let territory = territory();
        let arguments = "x\0-p\0/var/tmp/wharfie-lab/wl1ag/h1/docker.pid\0";
        assert!(territory.owns_engine_program("dockerd\n", arguments));
        assert!(!territory.owns_engine_program("tail\n", arguments));
        assert!(!territory.owns_engine_program("dockerd\n", "dockerd\0-p\0/var/run/docker.pid\0"));
    }
}
