//! The state file: what a lab consists of, written before it is made, so that any later process
//! can use it, and clean up after it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::engine::EngineKind;
use crate::faults::Faults;
use crate::layout::{self, Layout, Subnet};
use crate::process::Identity;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// The process at whose end the lab goes; none for a lab that is kept until `down`.
    pub(crate) owner: Option<Identity>,
    pub(crate) subnet: Subnet,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) clients: Vec<MachineState>,
    pub(crate) faults: Faults,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineState {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostState {
    #[serde(flatten)]
    pub(crate) machine: MachineState,
    pub(crate) engine: EngineKind,
    pub(crate) dockerd_args: Vec<String>,
}

impl State {
    pub(crate) fn load(layout: &Layout) -> Result<Self> {
        let file = layout.state_file();
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a lab's state", file.display()))
    }

    pub(crate) fn save(&self, layout: &Layout) -> Result<()> {
        let file = layout.state_file();
        write_atomically(&file, &serde_json::to_vec_pretty(self)?)
    }

    /// Changes the state under a lock, since the command line may do so beside a test.
    pub(crate) fn update<T>(
        layout: &Layout,
        change: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let _lock = lock(&layout.dir.join("lock"))?;
        let mut state = Self::load(layout)?;
        let result = change(&mut state)?;
        state.save(layout)?;
        Ok(result)
    }

    /// Whether nobody is left who could want this lab.
    pub(crate) fn is_garbage(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| !owner.is_alive())
    }
}

/// Replaces a file in one step: a reader, or a crash, never sees half of it.
pub(crate) fn write_atomically(file: &Path, content: &[u8]) -> Result<()> {
    let draft = file.with_extension(format!("draft-{}", std::process::id()));
    fs::write(&draft, content)
        .and_then(|()| fs::rename(&draft, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Holds a lock file until the value is dropped; waits for who has it now.
pub(crate) fn lock(file: &Path) -> Result<File> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let lock = File::options()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|file| file.lock().map(|()| file));
    lock.with_context(|| format!("cannot lock {}", file.display()))
}

/// The folder of all labs. Its lock is held while labs are made and dead ones removed.
pub(crate) struct Root {
    pub(crate) dir: PathBuf,
    _lock: File,
}

impl Root {
    pub(crate) fn open() -> Result<Self> {
        let dir = layout::root()?;
        let lock = lock(&dir.join("lock"))?;
        // Without links, as the kernel's mount table has it.
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot resolve {}", dir.display()))?;
        Ok(Self { dir, _lock: lock })
    }

    /// All labs there are, dead or alive.
    pub(crate) fn labs(&self) -> Vec<Layout> {
        labs_in(&self.dir)
    }

    /// Writes a new lab's state under a name nobody has.
    pub(crate) fn create(&self, state: &State) -> Result<Layout> {
        let pid = std::process::id();
        let taken = |layout: &Layout| {
            layout.dir.exists() || layout::namespace_file(&layout.lan_namespace()).exists()
        };
        let layout = (0..)
            .map(|count| Layout::new(&self.dir, &layout::prefix(pid, count)))
            .find(|layout| !taken(layout))
            .context("no name is free")?;
        fs::create_dir(&layout.dir)
            .with_context(|| format!("cannot make {}", layout.dir.display()))?;
        state.save(&layout)?;
        Ok(layout)
    }
}

/// All labs below a folder.
pub(crate) fn labs_in(root: &Path) -> Vec<Layout> {
    let mut labs: Vec<Layout> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| layout::is_prefix(name))
        .map(|name| Layout::new(root, &name))
        .collect();
    labs.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    labs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_its_file() {
        let text = r#"{"owner": null, "subnet": "10.99.0.0/24", "clients": [],
            "hosts": [{"name": "h1", "address": "10.99.0.1", "engine": "sid28",
                       "dockerd_args": ["--live-restore"]}],
            "faults": {"cut": [["h1", "in"]], "apart": [], "loss": {"h1": 7}}}"#;
        let state: State = serde_json::from_str(text).expect("valid");
        assert!(!state.is_garbage());
        let again = serde_json::to_string(&state).expect("writable");
        let again: State = serde_json::from_str(&again).expect("valid");
        assert_eq!(again.hosts, state.hosts);
        assert_eq!(again.faults, state.faults);
    }
}
