//! A machine on the LAN: what hosts and clients have in common.

mod fault;
mod network;

use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::lan;
use crate::layout::{INTERFACE, Layout, Subnet, namespace_file};
use crate::process::MARKER;
use crate::spawned::Spawned;
use crate::state::MachineState;
use crate::tools;

/// A machine on the lab's LAN: a network namespace with an address and a host name.
///
/// Cheap to clone; all clones are the same machine.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    subnet: Subnet,
    state: MachineState,
    has_engine: bool,
    spawned: Mutex<Vec<Spawned>>,
    logs: AtomicUsize,
}

impl Machine {
    /// Makes the machine: folder, host name, namespace and cable.
    pub(crate) fn create(
        layout: &Layout,
        subnet: Subnet,
        state: MachineState,
        has_engine: bool,
    ) -> Result<Self> {
        let machine = Self::attach(layout, subnet, state, has_engine);
        let dir = machine.dir();
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        lan::name_host(layout, machine.name())?;
        machine.plug_in()?;
        Ok(machine)
    }

    /// A machine that is there already.
    pub(crate) fn attach(
        layout: &Layout,
        subnet: Subnet,
        state: MachineState,
        has_engine: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            layout: layout.clone(),
            subnet,
            state,
            has_engine,
            spawned: Mutex::default(),
            logs: AtomicUsize::new(1),
        }))
    }

    pub(crate) fn plug_in(&self) -> Result<()> {
        lan::plug_in(&self.0.layout, self.0.subnet, &self.0.state)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// The name, which is also its host name.
    pub fn name(&self) -> &str {
        &self.0.state.name
    }

    /// The address on the LAN.
    pub fn address(&self) -> Ipv4Addr {
        self.0.state.address
    }

    /// The network interface on the LAN.
    pub fn interface(&self) -> &'static str {
        INTERFACE
    }

    /// A folder of its own, gone with the lab: for the state of what runs on this machine.
    pub fn dir(&self) -> PathBuf {
        self.0.layout.machine_dir(self.name())
    }

    /// The network namespace's name, as `ip netns` lists it.
    pub fn namespace(&self) -> String {
        self.0.layout.namespace(self.name())
    }

    /// The path of the network namespace.
    pub fn namespace_file(&self) -> PathBuf {
        namespace_file(&self.namespace())
    }

    /// A command that will run on this machine: in its network namespace, with its host name, and
    /// with `DOCKER_HOST` set if it has an Engine. Files are those of the whole machine; what
    /// wants a place of its own finds it in [`Machine::dir`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = lan::nsenter(self.layout(), self.name());
        command.arg(program).env(MARKER, self.dir());
        // A client must not talk to the Engine of whoever runs the test.
        command.env_remove("DOCKER_HOST");
        if self.0.has_engine {
            command.env("DOCKER_HOST", docker_host(&self.dir()));
        }
        command
    }

    /// Runs a command of this machine (see [`Machine::command`]) to its end and returns its
    /// standard output; a failure is an error with its standard error.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        tools::run(self.command(program).args(args)).with_context(|| format!("on {}", self.name()))
    }

    /// Starts a command made by `command` in the background. What it prints goes to a log in
    /// [`Machine::dir`]; it is killed when the lab is removed, if not before.
    pub fn spawn(&self, mut command: Command) -> Result<Spawned> {
        let number = self.0.logs.fetch_add(1, Ordering::Relaxed);
        let log = self
            .dir()
            .join(format!("spawned-{}-{number}.log", std::process::id()));
        let output =
            File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let errors = output.try_clone().context("cannot share the log")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let spawned = Spawned::start(command, log)?;
        self.children().push(spawned.clone());
        Ok(spawned)
    }

    fn children(&self) -> std::sync::MutexGuard<'_, Vec<Spawned>> {
        self.0
            .spawned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills what was spawned here and takes note of its end, so that no zombies stay.
    pub(crate) fn kill_spawned(&self) {
        for spawned in self.children().drain(..) {
            let _ = spawned.kill();
        }
    }
}

/// Where a machine's Engine listens.
pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join("docker.sock")
}

/// The same as clients of Docker want it.
pub(crate) fn docker_host(dir: &Path) -> String {
    format!("unix://{}", socket(dir).display())
}

impl AsRef<Machine> for Machine {
    fn as_ref(&self) -> &Machine {
        self
    }
}
