//! The lab against real namespaces and real Engines. Needs root; says so and passes if there is none.

mod cleanup;
mod command_line;
mod engine;
mod network;

use std::path::Path;
use std::time::Duration;

use wharfie_lab::prerequisites;

const SOON: Duration = Duration::from_secs(10);

/// Whether this machine can make labs; a test that it cannot have returns.
fn skipped() -> bool {
    let Some(reason) = prerequisites::unavailable() else {
        return false;
    };
    eprintln!("skipped: {reason}");
    true
}

/// What is left of a lab: nothing, it is to be hoped.
fn leftovers(lab: &str, dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |what: &str, there: bool| {
        if there {
            found.push(what.to_owned());
        }
    };
    look("its folder", dir.exists());
    let in_folder = |folder: &str, prefix: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .count()
            > 0
    };
    look(
        "namespaces",
        in_folder("/var/run/netns", &format!("{lab}-")),
    );
    for hierarchy in ["", "/pids", "/memory", "/unified"] {
        look(
            "cgroups",
            in_folder(&format!("/sys/fs/cgroup{hierarchy}"), lab),
        );
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    look("mounts", mounts.contains(&*dir.to_string_lossy()));
    for process in std::fs::read_dir("/proc").expect("readable").flatten() {
        let cmdline = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        look(&cmdline, cmdline.contains(&*dir.to_string_lossy()));
    }
    found
}
