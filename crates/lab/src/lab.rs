//! A lab: its making, its parts and its end.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::builder::{self, LabBuilder};
use crate::cancel;
use crate::capture::Capture;
use crate::engine::EngineKind;
use crate::faults::Faults;
use crate::host::{Client, Host};
use crate::image;
use crate::lan;
use crate::layout::{Layout, Subnet, check_name, namespace_file};
use crate::machine::Machine;
use crate::prerequisites;
use crate::registry::{collect_garbage_in, existing};
use crate::state::{HostState, MachineState, Root, State};
use crate::teardown;

/// N Docker hosts on one LAN. Dropping the value removes them, unless the lab was [kept](Lab::keep)
/// or merely [opened](Lab::open).
#[derive(Debug)]
pub struct Lab {
    layout: Layout,
    subnet: Subnet,
    hosts: Vec<Host>,
    clients: Mutex<Vec<Client>>,
    owned: bool,
}

impl Lab {
    /// Describes a new lab.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// Makes a lab of one host with the machine's own kind of Engine.
    pub fn single() -> Result<Self> {
        Self::builder().hosts(1).start()
    }

    /// Makes what the state says.
    pub(crate) fn create(state: State, clients: &[String]) -> Result<Self> {
        prerequisites::ensure()?;
        // What may have to be fetched comes before anything is made, and once for all hosts.
        for host in &state.hosts {
            cancel::check()?;
            host.engine.installation()?;
        }
        image::base_archive()?;

        let root = Root::open()?;
        collect_garbage_in(&root)?;
        cancel::check()?;
        let layout = root.create(&state)?;
        drop(root);

        // From here on dropping the value removes whatever was made.
        let mut lab = Self::from_parts(layout, state.subnet, true);
        lan::create(&lab.layout, lab.subnet)?;
        lab.hosts = create_hosts(&lab.layout, lab.subnet, state.hosts)?;
        for name in clients {
            lab.client(name)?;
        }
        cancel::check()?;
        Ok(lab)
    }

    fn from_parts(layout: Layout, subnet: Subnet, owned: bool) -> Self {
        Self {
            layout,
            subnet,
            hosts: Vec::new(),
            clients: Mutex::default(),
            owned,
        }
    }

    /// A lab that another process made, to use it and not to own it.
    pub fn open(name: &str) -> Result<Self> {
        let layout = existing(name)?;
        let state = State::load(&layout)?;
        let mut lab = Self::from_parts(layout, state.subnet, false);
        lab.hosts = state
            .hosts
            .into_iter()
            .map(|host| Host::attach(&lab.layout, lab.subnet, host))
            .collect();
        let clients = state.clients.into_iter();
        *lab.clients() = clients
            .map(|client| Machine::attach(&lab.layout, lab.subnet, client, false))
            .collect();
        Ok(lab)
    }

    /// The lab's name, with which the names of its namespaces begin.
    pub fn name(&self) -> &str {
        &self.layout.prefix
    }

    /// The folder with all it has on disk.
    pub fn dir(&self) -> &Path {
        &self.layout.dir
    }

    /// The LAN. Its addresses `.200` to `.253` are free for tests.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Host `hN`; the first is number 1, as its name and its address say.
    ///
    /// # Panics
    /// If there is no such host: that is a mistake in the test.
    pub fn host(&self, number: usize) -> &Host {
        let host = number.checked_sub(1).and_then(|at| self.hosts.get(at));
        host.unwrap_or_else(|| {
            panic!(
                "there is no host {number}: there are h1 to h{}",
                self.hosts.len()
            )
        })
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host with this name, if there is one.
    pub fn host_named(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name() == name)
    }

    /// Adds a host to the running lab.
    pub fn add_host(&mut self, kind: EngineKind) -> Result<&Host> {
        let plan = State::update(&self.layout, |state| {
            let number = state.hosts.len() + 1;
            let args = state.hosts.first().map(|host| host.dockerd_args.clone());
            let host = builder::host(self.subnet, number, kind, args.unwrap_or_default())?;
            state.hosts.push(host.clone());
            Ok(host)
        })?;
        let host = Host::create(&self.layout, self.subnet, plan)?;
        self.hosts.push(host);
        self.hosts.last().context("just added")
    }

    /// The client with this name; made when it is first asked for.
    pub fn client(&self, name: &str) -> Result<Client> {
        let mut clients = self.clients();
        if let Some(client) = clients.iter().find(|client| client.name() == name) {
            return Ok(client.clone());
        }
        check_name(name)?;
        let plan = State::update(&self.layout, |state| {
            let hosts = state.hosts.iter().map(|host| &host.machine);
            let taken = hosts.chain(&state.clients).any(|other| other.name == name);
            ensure!(!taken, "there is a machine {name} already");
            let address = self.subnet.client(state.clients.len())?;
            let client = MachineState {
                name: name.to_owned(),
                address,
            };
            state.clients.push(client.clone());
            Ok(client)
        })?;
        let client = Machine::create(&self.layout, self.subnet, plan, false)?;
        clients.push(client.clone());
        Ok(client)
    }

    /// All clients made so far.
    pub fn clients_so_far(&self) -> Vec<Client> {
        self.clients().clone()
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parts the LAN in two: no machine of one side reaches one of the other.
    pub fn partition<A: AsRef<Machine>, B: AsRef<Machine>>(
        &self,
        one: &[A],
        other: &[B],
    ) -> Result<()> {
        self.change_faults(|faults| {
            for a in one {
                for b in other {
                    faults.part(a.as_ref().name(), b.as_ref().name());
                }
            }
        })
    }

    /// Records from now on what goes over the LAN.
    pub fn capture(&self) -> Result<Capture> {
        Capture::start(&namespace_file(&self.layout.lan_namespace()))
    }

    /// Takes every fault away, and plugs all cables in.
    pub fn heal(&self) -> Result<()> {
        for host in &self.hosts {
            // A host without power has no cable to plug in.
            if host.namespace_file().exists() {
                host.plug()?;
                host.throttle(None)?;
            }
        }
        for client in self.clients_so_far() {
            client.plug()?;
            client.throttle(None)?;
        }
        self.change_faults(|faults| *faults = Faults::default())
    }

    /// The faults there are now (unplugged cables are not among them).
    pub fn faults(&self) -> Result<Faults> {
        Ok(State::load(&self.layout)?.faults)
    }

    fn change_faults(&self, change: impl FnOnce(&mut Faults)) -> Result<()> {
        State::update(&self.layout, |state| {
            change(&mut state.faults);
            lan::apply(&self.layout, &state.faults)
        })
    }

    /// Lets the lab outlive this process; it stays until it is removed by name, or with all others.
    pub fn keep(&mut self) -> Result<()> {
        State::update(&self.layout, |state| {
            state.owner = None;
            Ok(())
        })?;
        self.owned = false;
        Ok(())
    }

    /// Removes the lab, as dropping it does, but tells what went wrong.
    pub fn down(mut self) -> Result<()> {
        self.owned = false;
        self.take_down()
    }

    fn take_down(&self) -> Result<()> {
        for host in &self.hosts {
            host.forget();
        }
        for client in self.clients().iter() {
            client.kill_spawned();
        }
        teardown::remove(&self.layout)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.take_down()
        {
            // The next start tries again, since this process will be gone then.
            eprintln!("{error:#}");
        }
    }
}

/// Starts all hosts side by side: an Engine spends most of its start waiting.
fn create_hosts(layout: &Layout, subnet: Subnet, plans: Vec<HostState>) -> Result<Vec<Host>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = plans
            .into_iter()
            .map(|plan| scope.spawn(move || Host::create(layout, subnet, plan)))
            .collect();
        // All are waited for before the first error is returned: none may go on making things.
        let ended = threads.into_iter().map(|thread| {
            let result = thread.join();
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let results: Vec<Result<Host>> = ended.collect();
        for host in results.iter().flatten() {
            if results.iter().any(Result::is_err) {
                host.forget();
            }
        }
        results.into_iter().collect()
    })
}
