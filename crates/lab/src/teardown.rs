//! Removing a lab: from its name alone, so that it works whatever became of its maker.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{UnmountFlags, unmount};

use crate::layout::{Layout, is_prefix, namespace_file};
use crate::mounts::unmount_below;
use crate::process::{Territory, namespaces};
use crate::wait::eventually;

/// Removes as much as can be removed, and reports all that could not.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    ensure!(
        is_prefix(&layout.prefix),
        "{:?} is not a lab's name",
        layout.prefix
    );
    let mut failures = Vec::new();
    let mut attempt = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    attempt("processes", Territory::lab(layout).kill_all());
    for machine in subfolders(&layout.dir) {
        attempt("shim sockets", remove_shim_sockets(&machine));
    }
    attempt("mounts", unmount_below(&layout.dir));
    for namespace in namespaces(&format!("{}-", layout.prefix)) {
        attempt("namespace", remove_namespace(&namespace));
    }
    attempt("cgroups", remove_cgroups(&layout.prefix));
    attempt("files", remove_files(layout));
    if failures.is_empty() {
        return Ok(());
    }
    bail!(
        "the lab {} is not wholly removed: {}",
        layout.prefix,
        failures.join("; ")
    )
}

/// Takes a namespace's name away; the kernel frees it, and its interfaces, with its last process.
pub(crate) fn remove_namespace(namespace: &str) -> Result<()> {
    let file = namespace_file(namespace);
    // Not mounted, when its maker was stopped in between: then it is a plain file.
    let _ = unmount(&file, UnmountFlags::DETACH);
    gone(fs::remove_file(&file)).with_context(|| format!("cannot remove {}", file.display()))
}

/// containerd's shims keep their sockets in a folder of the machine and name them in their state.
pub(crate) fn remove_shim_sockets(machine_dir: &Path) -> Result<()> {
    const FOLDER: &str = "/run/containerd/s/";
    for file in shim_address_files(machine_dir) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if let Some((_, rest)) = text.split_once(FOLDER) {
            let name: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            if !name.is_empty() {
                gone(fs::remove_file(Path::new(FOLDER).join(&name)))
                    .with_context(|| format!("cannot remove the shim's socket {name}"))?;
            }
        }
    }
    Ok(())
}

/// `exec/containerd/daemon/io.containerd.runtime.v2.task/moby/ID/{address,bootstrap.json}`
fn shim_address_files(machine_dir: &Path) -> Vec<PathBuf> {
    let mut folders = vec![machine_dir.join("exec/containerd/daemon")];
    for _runtime_then_namespace_then_container in 0..3 {
        folders = folders
            .iter()
            .flat_map(|folder| subfolders(folder))
            .collect();
    }
    folders
        .iter()
        .flat_map(|folder| [folder.join("address"), folder.join("bootstrap.json")])
        .filter(|file| file.is_file())
        .collect()
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

/// Removes a cgroup in every hierarchy (v1 has one for each controller, v2 a single one).
pub(crate) fn remove_cgroups(cgroup: &str) -> Result<()> {
    let hierarchies = Path::new("/sys/fs/cgroup");
    let mut roots = subfolders(hierarchies);
    roots.push(hierarchies.to_owned());
    for root in roots {
        let path = root.join(cgroup.trim_start_matches('/'));
        if path.is_dir() {
            // A cgroup stays busy until the kernel is done with its last process.
            eventually(Duration::from_secs(5), || remove_cgroup(&path))?;
        }
    }
    Ok(())
}

fn remove_cgroup(path: &Path) -> Result<()> {
    for child in subfolders(path) {
        remove_cgroup(&child)?;
    }
    gone(fs::remove_dir(path)).with_context(|| format!("cannot remove {}", path.display()))
}

/// The state file goes last: as long as anything is left, the next one knows whose it is.
fn remove_files(layout: &Layout) -> Result<()> {
    let state = layout.state_file();
    for entry in fs::read_dir(&layout.dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path != state {
            remove_tree(&path)?;
        }
    }
    remove_tree(&layout.dir)
}

/// Removes a file or folder with all that is in it, whether it is there or not.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    gone(removed).with_context(|| format!("cannot remove {}", path.display()))
}

/// What is gone already need not be removed.
fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
