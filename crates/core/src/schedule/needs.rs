//! What tasks need of a node, and what is taken of nodes.

use wharfie_compose::model::{DeviceCount, DeviceRequest, Project, Service};

use super::{Load, Port};
use crate::network::publish::{self, PublishedPort};

/// An amount that stands for all that a node declares.
pub(super) const ALL: i64 = i64::MAX;

/// What one task of a service reserves.
#[derive(Debug, Clone, Default)]
pub(super) struct Needs {
    /// Processors, in thousandths.
    pub(super) cpus: u64,
    /// Bytes.
    pub(super) memory: u64,
    /// Kinds of resources, by number, with amounts.
    pub(super) generic: Vec<(u32, i64)>,
    /// A resource that no node declares, and how many.
    pub(super) unknown: Option<(String, i64)>,
    /// Host ports that it holds alone.
    pub(super) ports: Vec<Port>,
}

impl Needs {
    pub(super) fn of(project: &Project, service: &Service, kinds: &[&str]) -> Self {
        let mut needs = Self {
            ports: ports(project, service),
            ..Self::default()
        };
        let number = |kind: &str| kinds.binary_search(&kind).ok().map(|k| k as u32);
        // Devices that no node declares are not counted: the Engine knows whether it has them.
        let mut device = |request: &DeviceRequest| {
            let kind = request.capabilities.first().or(Some(&request.driver));
            let kind = kind.and_then(|k| number(k));
            needs.generic.extend(kind.map(|k| (k, amount(request))));
        };
        service.gpus.iter().for_each(&mut device);
        let deploy = service.deploy.as_ref();
        let Some(reserved) = deploy.and_then(|d| d.resources.reservations.as_ref()) else {
            return needs;
        };
        reserved.devices.iter().for_each(&mut device);
        for resource in &reserved.generic_resources {
            let Some(resource) = &resource.discrete_resource_spec else {
                continue;
            };
            match number(&resource.kind) {
                Some(kind) => needs.generic.push((kind, resource.value)),
                None if resource.value > 0 => {
                    needs.unknown = Some((resource.kind.clone(), resource.value))
                }
                None => {}
            }
        }
        needs.generic.retain(|(_, amount)| *amount > 0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` stays in range
        let cpus = (f64::from(reserved.cpus.0) * 1000.0).round() as u64;
        needs.cpus = cpus;
        needs.memory = u64::try_from(reserved.memory.0).unwrap_or(0);
        needs
    }

    /// What several tasks need together.
    pub(super) fn times(&self, count: u32) -> Self {
        let count = u64::from(count);
        let more = |n: i64| n.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX));
        Self {
            cpus: self.cpus.saturating_mul(count),
            memory: self.memory.saturating_mul(count),
            generic: self.generic.iter().map(|(k, n)| (*k, more(*n))).collect(),
            unknown: self.unknown.clone(),
            ports: self.ports.clone(),
        }
    }

    /// What two need together.
    pub(super) fn join(&mut self, other: Self) {
        self.cpus = self.cpus.saturating_add(other.cpus);
        self.memory = self.memory.saturating_add(other.memory);
        for (kind, amount) in other.generic {
            match self.generic.iter_mut().find(|(k, _)| *k == kind) {
                Some((_, n)) => *n = n.saturating_add(amount),
                None => self.generic.push((kind, amount)),
            }
        }
        self.unknown = self.unknown.take().or(other.unknown);
        self.ports.extend(other.ports);
    }

    pub(super) fn reserves(&self) -> bool {
        self.cpus > 0 || self.memory > 0 || !self.generic.is_empty()
    }
}

/// How many devices a request is for; all, where it does not say.
fn amount(request: &DeviceRequest) -> i64 {
    match request.count {
        Some(DeviceCount::ALL) => ALL,
        Some(count) if !count.is_zero() => count.0,
        _ if request.device_ids.is_empty() => ALL,
        _ => i64::try_from(request.device_ids.len()).unwrap_or(ALL),
    }
}

/// Ports that only one task on a node can have: a range leaves the choice to the Engine, and what every
/// node publishes is no task's.
fn ports(project: &Project, service: &Service) -> Vec<Port> {
    let clusters = publish::will_be_clusters(project, service);
    let fixed = service.ports.iter();
    let fixed = fixed.filter(|p| !clusters || PublishedPort::of(p).is_none());
    let fixed = fixed.filter_map(|p| {
        let number = p.published.parse().ok().filter(|n| *n != 0)?;
        Some(Port::new(&p.host_ip, number, &p.protocol))
    });
    fixed.collect()
}

/// What is taken of each node.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    pub(super) tasks: Vec<u32>,
    pub(super) cpus: Vec<u64>,
    pub(super) memory: Vec<u64>,
    /// Node by node, in each as many as there are kinds.
    generic: Vec<i64>,
    kinds: usize,
}

impl Taken {
    pub(super) fn new(nodes: usize, kinds: usize) -> Self {
        Self {
            tasks: vec![0; nodes],
            cpus: vec![0; nodes],
            memory: vec![0; nodes],
            generic: vec![0; nodes * kinds],
            kinds,
        }
    }

    fn place(&self, node: u32, kind: u32) -> usize {
        node as usize * self.kinds + kind as usize
    }

    /// What an amount is on a node, given what all nodes declare.
    fn real(&self, node: u32, kind: u32, amount: i64, declared: &[i64]) -> i64 {
        if amount == ALL {
            declared[self.place(node, kind)].max(1)
        } else {
            amount
        }
    }

    pub(super) fn add(&mut self, node: u32, needs: &Needs, times: u32, declared: &[i64]) {
        let n = node as usize;
        let more = |a: u64, b: u64| a.saturating_add(b.saturating_mul(times.into()));
        self.tasks[n] += times;
        self.cpus[n] = more(self.cpus[n], needs.cpus);
        self.memory[n] = more(self.memory[n], needs.memory);
        for (kind, amount) in &needs.generic {
            let at = self.place(node, *kind);
            let real = self.real(node, *kind, *amount, declared);
            self.generic[at] = self.generic[at].saturating_add(real.saturating_mul(times.into()));
        }
    }

    pub(super) fn sub(&mut self, node: u32, needs: &Needs, times: u32, declared: &[i64]) {
        let n = node as usize;
        let less = |a: u64, b: u64| a.saturating_sub(b.saturating_mul(times.into()));
        self.tasks[n] -= times;
        self.cpus[n] = less(self.cpus[n], needs.cpus);
        self.memory[n] = less(self.memory[n], needs.memory);
        for (kind, amount) in &needs.generic {
            let at = self.place(node, *kind);
            let real = self.real(node, *kind, *amount, declared);
            self.generic[at] = self.generic[at].saturating_sub(real.saturating_mul(times.into()));
        }
    }

    /// How many times an amount of a kind is free.
    pub(super) fn times(&self, node: u32, kind: u32, amount: i64, declared: &[i64]) -> i64 {
        self.free(node, kind, declared) / self.real(node, kind, amount, declared)
    }

    pub(super) fn free(&self, node: u32, kind: u32, declared: &[i64]) -> i64 {
        let at = self.place(node, kind);
        (declared[at] - self.generic[at]).max(0)
    }

    pub(super) fn of(&self, node: u32, kinds: &[&str]) -> Load {
        let n = node as usize;
        let generic = (0..).zip(kinds).map(|(k, kind)| {
            let amount = self.generic[self.place(node, k)];
            ((*kind).to_owned(), amount)
        });
        Load {
            tasks: self.tasks[n],
            cpus: self.cpus[n],
            memory: self.memory[n],
            generic: generic.filter(|(_, amount)| *amount != 0).collect(),
            ports: std::collections::BTreeSet::new(),
        }
    }
}
