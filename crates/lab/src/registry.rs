//! All labs of the machine, and the removal of those nobody wants.

use anyhow::{Result, bail};

use crate::lab::Lab;
use crate::layout::{self, Layout};
use crate::state::{Root, State, labs_in};
use crate::teardown;

impl Lab {
    /// The names of all labs on this machine.
    pub fn names() -> Result<Vec<String>> {
        let labs = labs_in(&layout::root()?).into_iter();
        Ok(labs.map(|layout| layout.prefix).collect())
    }

    /// Removes labs whose owner has ended without doing so. Returns their names.
    pub fn collect_garbage() -> Result<Vec<String>> {
        collect_garbage_in(&Root::open()?)
    }

    /// Removes all labs of this machine, whoever uses them. Returns their names.
    pub fn remove_all() -> Result<Vec<String>> {
        remove_those(&Root::open()?, |_| true)
    }

    /// Removes a lab by its name, whatever state it is in.
    pub fn remove(name: &str) -> Result<()> {
        teardown::remove(&existing(name)?)
    }
}

/// The lab with this name, in whatever state it is.
pub(crate) fn existing(name: &str) -> Result<Layout> {
    let labs = labs_in(&layout::root()?);
    let Some(layout) = labs.into_iter().find(|layout| layout.prefix == name) else {
        bail!("there is no lab {name}; `wharfie-lab ls` lists those there are");
    };
    Ok(layout)
}

/// Removes dead labs while the lock is held.
pub(crate) fn collect_garbage_in(root: &Root) -> Result<Vec<String>> {
    // A folder without a state was being removed when its remover was stopped: labs are made, with
    // their state, under the root's lock, which is held here. A state that cannot be read may be
    // that of another version's living lab.
    remove_those(root, |layout| match State::load(layout) {
        Ok(state) => state.is_garbage(),
        Err(_) => layout.dir.exists() && !layout.state_file().exists(),
    })
}

fn remove_those(root: &Root, which: impl Fn(&Layout) -> bool) -> Result<Vec<String>> {
    let labs = root.labs();
    let doomed: Vec<&Layout> = labs.iter().filter(|layout| which(layout)).collect();
    for layout in &doomed {
        teardown::remove(layout)?;
    }
    Ok(doomed.iter().map(|layout| layout.prefix.clone()).collect())
}
