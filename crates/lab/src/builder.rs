//! What a lab shall be like.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::engine::EngineKind;
use crate::faults::Faults;
use crate::lab::Lab;
use crate::layout::{MOST_HOSTS, Subnet, check_name};
use crate::process::Identity;
use crate::state::{HostState, MachineState, State};

/// Describes a lab; [`LabBuilder::start`] makes it.
#[derive(Clone, Debug, Default)]
pub struct LabBuilder {
    hosts: usize,
    engine: EngineKind,
    engines: BTreeMap<usize, EngineKind>,
    dockerd_args: Vec<String>,
    clients: Vec<String>,
    subnet: Subnet,
}

impl LabBuilder {
    /// How many hosts: `h1` to `hN`.
    #[must_use]
    pub fn hosts(mut self, count: usize) -> Self {
        self.hosts = count;
        self
    }

    /// The Engine of all hosts.
    #[must_use]
    pub fn engine(mut self, kind: EngineKind) -> Self {
        self.engine = kind;
        self
    }

    /// The Engine of one host, counted from 1, where it differs.
    #[must_use]
    pub fn engine_of(mut self, number: usize, kind: EngineKind) -> Self {
        self.engines.insert(number, kind);
        self
    }

    /// Further arguments for every `dockerd`, such as `--live-restore`.
    #[must_use]
    pub fn dockerd_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.dockerd_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A client that is there from the start; others come with [`Lab::client`].
    #[must_use]
    pub fn client(mut self, name: &str) -> Self {
        self.clients.push(name.to_owned());
        self
    }

    /// The network of the LAN; 10.99.0.0/24 if not given. Labs do not see each other, and so may
    /// all have the same.
    #[must_use]
    pub fn subnet(mut self, subnet: Subnet) -> Self {
        self.subnet = subnet;
        self
    }

    /// Makes the lab and waits until every Engine answers. If anything fails, nothing stays.
    pub fn start(self) -> Result<Lab> {
        let state = self.plan()?;
        Lab::create(state, &self.clients)
    }

    /// Everything that is known before anything is made.
    fn plan(&self) -> Result<State> {
        ensure!(
            (1..=MOST_HOSTS).contains(&self.hosts),
            "a lab has 1 to {MOST_HOSTS} hosts, not {}",
            self.hosts
        );
        for number in self.engines.keys() {
            ensure!(
                (1..=self.hosts).contains(number),
                "there is no host {number}, only h1 to h{}",
                self.hosts
            );
        }
        for name in &self.clients {
            check_name(name)?;
        }
        let hosts = (1..=self.hosts).map(|number| {
            let kind = *self.engines.get(&number).unwrap_or(&self.engine);
            host(self.subnet, number, kind, self.dockerd_args.clone())
        });
        Ok(State {
            owner: Some(Identity::current()?),
            subnet: self.subnet,
            hosts: hosts.collect::<Result<_>>()?,
            clients: Vec::new(),
            faults: Faults::default(),
        })
    }
}

/// The host with this number.
pub(crate) fn host(
    subnet: Subnet,
    number: usize,
    engine: EngineKind,
    dockerd_args: Vec<String>,
) -> Result<HostState> {
    Ok(HostState {
        machine: MachineState {
            name: format!("h{number}"),
            address: subnet.host(number)?,
        },
        engine,
        dockerd_args,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_numbered_from_one_and_may_differ() {
        let builder = LabBuilder::default()
            .hosts(3)
            .engine_of(2, EngineKind::Sid28);
        let state = builder.plan().expect("valid");
        let facts: Vec<_> = state
            .hosts
            .iter()
            .map(|host| (host.machine.name.as_str(), host.engine))
            .collect();
        let expected = [
            ("h1", EngineKind::Debian),
            ("h2", EngineKind::Sid28),
            ("h3", EngineKind::Debian),
        ];
        assert_eq!(facts, expected);
        assert_eq!(state.hosts[1].machine.address.to_string(), "10.99.0.2");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_made() {
        let new = LabBuilder::default;
        assert!(new().plan().is_err());
        assert!(new().hosts(100).plan().is_err());
        assert!(
            new()
                .hosts(1)
                .engine_of(2, EngineKind::Debian)
                .plan()
                .is_err()
        );
        assert!(new().hosts(1).client("Not A Name").plan().is_err());
    }
}
