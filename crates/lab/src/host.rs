//! Hosts and clients: machines with and without an Engine.

use std::fs;
use std::ops::Deref;

use anyhow::{Context, Result};

use crate::engine::Engine;
use crate::image::{BASE_IMAGES, base_archive};
use crate::layout::{Layout, Subnet};
use crate::machine::{Machine, docker_host};
use crate::mounts::unmount_below;
use crate::process::Territory;
use crate::state::HostState;
use crate::teardown::{remove_cgroups, remove_namespace, remove_shim_sockets, remove_tree};

/// A Docker host: a [`Machine`], to which it dereferences, with an [`Engine`].
#[derive(Debug)]
pub struct Host {
    machine: Machine,
    engine: Engine,
}

/// A machine without an Engine: where users, or their browsers, are.
pub type Client = Machine;

impl Deref for Host {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl AsRef<Machine> for Host {
    fn as_ref(&self) -> &Machine {
        &self.machine
    }
}

impl Host {
    /// Makes the host and starts its Engine, with the base image in it.
    pub(crate) fn create(layout: &Layout, subnet: Subnet, state: HostState) -> Result<Self> {
        let machine = Machine::create(layout, subnet, state.machine.clone(), true)?;
        let host = Self::with_engine(machine, state);
        let started = host.engine.start().and_then(|()| host.import_base());
        if started.is_err() {
            // The caller never gets the value, so the Engine's end must be noticed here.
            host.forget();
        }
        started.with_context(|| format!("cannot start host {}", host.name()))?;
        Ok(host)
    }

    /// A host that is there already.
    pub(crate) fn attach(layout: &Layout, subnet: Subnet, state: HostState) -> Self {
        let machine = Machine::attach(layout, subnet, state.machine.clone(), true);
        Self::with_engine(machine, state)
    }

    fn with_engine(machine: Machine, state: HostState) -> Self {
        let engine = Engine::new(machine.clone(), state.engine, state.dockerd_args);
        Self { machine, engine }
    }

    fn import_base(&self) -> Result<()> {
        let archive = base_archive()?;
        let [(first, tag), (second, other_tag)] =
            BASE_IMAGES.map(|image| image.split_once(':').unwrap_or((image, "latest")));
        self.engine.import_image(&archive, first, tag)?;
        self.engine.tag_image(BASE_IMAGES[0], second, other_tag)
    }

    /// The machine, to be kept or passed on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The Engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where the Engine listens, as clients of Docker want it: `unix:///…`.
    pub fn docker_host(&self) -> String {
        docker_host(&self.dir())
    }

    /// Pulls the plug: every process of the host and its containers is killed at once, and what
    /// a real host has in memory only (interfaces, rules, mounts, run-time state) is lost. Files
    /// in [`Machine::dir`] stay.
    pub fn power_off(&self) -> Result<()> {
        let layout = self.layout();
        // Others must not see connections being reset: a dead host sends nothing.
        self.unplug()?;
        Territory::machine(layout, self.name()).kill_all()?;
        self.forget();
        remove_shim_sockets(&self.dir())?;
        unmount_below(&self.dir())?;
        crate::lan::unplug_for_good(layout, self.name())?;
        remove_namespace(&self.namespace())?;
        remove_cgroups(&layout.cgroup(self.name()))?;
        remove_tree(&self.engine.exec_root())?;
        // A socket without a listener is what a crash leaves; after a boot there is none.
        remove_tree(&self.engine.socket())
    }

    /// Boots the host again: network, and the Engine. Its containers start by their restart policy.
    pub fn power_on(&self) -> Result<()> {
        if !self.namespace_file().exists() {
            fs::create_dir_all(self.dir()).context("cannot make the host's folder")?;
            crate::lan::name_host(self.layout(), self.name())?;
            self.machine.plug_in()?;
        }
        self.engine.start()
    }

    /// Takes note of the end of what was killed.
    pub(crate) fn forget(&self) {
        self.machine.kill_spawned();
        self.engine.forget();
    }
}
