//! Firewalls of containers: what files say, as the kernel takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;
use wharfie_compose::model::{Project, Service};
use wharfie_core::network::World;
use wharfie_core::network::firewall::{self, Chain, Compiler, Line, Match, Ruleset};
use wharfie_host::net::{self, Action, Firewall, FirewallRule, Hold, Namespace};

/// A held address whose container never came is let go after so long; in milliseconds.
const LONGEST: i64 = 60_000;

/// The firewalls of services: by stack and service.
pub(super) type Walls = BTreeMap<(String, String), Ruleset>;

/// Whether a service has a firewall.
pub(super) fn has_wall(project: &Project, service: &Service) -> bool {
    !matches!(firewall::firewall(project, service), Ok(None))
}

/// The rules of all services that have a firewall, as things are now.
pub(super) fn walls(world: &World, resolvers: &BTreeSet<IpAddr>) -> Walls {
    let mut compiler = None;
    let mut walls = Walls::new();
    for stack in world.stacks {
        for name in &stack.active {
            let Some(service) = stack.project.any_service(name) else {
                continue;
            };
            let ruleset = match firewall::firewall(&stack.project, service) {
                Ok(None) => continue,
                Ok(Some(wall)) => {
                    let compiler = compiler.get_or_insert_with(|| Compiler::new(world));
                    compiler.compile(&wall, stack, &asked_by(service, resolvers))
                }
                // Rather nothing passes than everything.
                Err(_) => Ruleset::closed(),
            };
            walls.insert((stack.project.name.clone(), name.clone()), ruleset);
        }
    }
    walls
}

/// Whom the containers of a service ask for names. What the Engine cannot answer itself it asks from
/// within the container.
fn asked_by(service: &Service, usual: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let own = service.dns.iter().filter_map(|a| a.parse().ok());
    usual.iter().copied().chain(own).collect()
}

/// The same for the kernel.
pub(super) fn for_kernel(name: &str, rules: &Ruleset) -> Firewall {
    let chain = |chain: &Option<Chain>| match chain {
        None => (Vec::new(), Action::Accept),
        Some(chain) => {
            let lines = chain.lines.iter().flat_map(lines);
            (lines.collect(), action(chain.default))
        }
    };
    let (ingress, default_ingress) = chain(&rules.ingress);
    let (egress, default_egress) = chain(&rules.egress);
    Firewall {
        name: name.to_owned(),
        ingress,
        egress,
        default_ingress,
        default_egress,
        log: rules.log,
    }
}

fn action(action: firewall::Action) -> Action {
    match action {
        firewall::Action::Accept => Action::Accept,
        firewall::Action::Drop => Action::Drop,
    }
}

fn protocol(protocol: firewall::Protocol) -> net::Protocol {
    match protocol {
        firewall::Protocol::Tcp => net::Protocol::Tcp,
        firewall::Protocol::Udp => net::Protocol::Udp,
        firewall::Protocol::Sctp => net::Protocol::Sctp,
        firewall::Protocol::Icmp => net::Protocol::Icmp,
    }
}

/// The kernel's rules have one protocol and one interface each. What always passes it knows itself.
fn lines(line: &Line) -> Vec<FirewallRule> {
    let Match::Fields {
        protocols,
        ports,
        peers,
        interfaces,
    } = &line.matches
    else {
        return Vec::new();
    };
    if peers.as_ref().is_some_and(BTreeSet::is_empty) {
        return Vec::new();
    }
    let peers = peers.iter().flatten();
    let peers: Vec<_> = peers.filter_map(|c| c.to_string().parse().ok()).collect();
    let each = |of: &mut dyn Iterator<Item = net::Protocol>| match protocols.is_empty() {
        true => vec![None],
        false => of.map(Some).collect(),
    };
    let protocols = each(&mut protocols.iter().map(|p| protocol(*p)));
    let interfaces = match interfaces.is_empty() {
        true => vec![None],
        false => interfaces.iter().cloned().map(Some).collect(),
    };
    let mut rules = Vec::new();
    for protocol in protocols {
        for interface in &interfaces {
            rules.push(FirewallRule {
                protocol,
                ports: ports.iter().map(|p| (p.first, p.last)).collect(),
                peers: peers.clone(),
                interface: interface.clone(),
                action: action(line.action),
            });
        }
    }
    rules
}

/// Where each of the kernel's rules of a direction comes from, in order, and what it does.
pub(super) fn reasons(chain: &Chain) -> Vec<(String, firewall::Action)> {
    let each = chain.lines.iter();
    let each = each.flat_map(|l| lines(l).into_iter().map(|_| (l.why.clone(), l.action)));
    each.collect()
}

/// Addresses of containers that are about to start, cut off until their firewalls are there.
#[derive(Default)]
pub(in crate::agent) struct Holds(Mutex<Held>);

#[derive(Default)]
struct Held {
    kernel: Option<Hold>,
    since: BTreeMap<IpAddr, i64>,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts addresses off of a container that is about to be made.
    ///
    /// # Errors
    /// It cannot be done. Without addresses: it could not be done.
    pub(super) fn before(&self, addresses: &[IpAddr], now: i64) -> Result<(), net::Error> {
        let mut held = self.lock();
        held.kernel()?.hold(addresses)?;
        held.since.extend(addresses.iter().map(|a| (*a, now)));
        Ok(())
    }

    /// Cuts addresses off of containers that may begin again, or have no firewall yet. `repair`: also
    /// those that are cut off already, which somebody else may have changed.
    pub(super) fn hold(&self, addresses: &[IpAddr], now: i64, repair: bool) {
        if self.is_held(addresses, now) && !repair {
            return;
        }
        if addresses.is_empty() {
            return;
        }
        if let Err(e) = self.before(addresses, now) {
            warn!("a container may begin before its firewall: {e}");
        }
    }

    /// Whether these are cut off already: they stay so.
    fn is_held(&self, addresses: &[IpAddr], now: i64) -> bool {
        let mut held = self.lock();
        for address in addresses {
            let Some(since) = held.since.get_mut(address) else {
                return false;
            };
            *since = now;
        }
        true
    }

    /// Lets addresses go: their firewalls are there.
    pub(super) fn lift(&self, addresses: impl Iterator<Item = IpAddr>) {
        let mut held = self.lock();
        let addresses: Vec<IpAddr> = addresses.filter(|a| held.since.contains_key(a)).collect();
        held.lift(&addresses);
    }

    /// Knows nothing of the kernel any more: it is cleaned.
    pub(super) fn close(&self) {
        self.lock().kernel = None;
    }

    /// Lets go those whose containers never came.
    pub(super) fn expire(&self, now: i64) {
        let mut held = self.lock();
        let old = held
            .since
            .iter()
            .filter(|(_, since)| now - **since > LONGEST);
        let old: Vec<IpAddr> = old.map(|(a, _)| *a).collect();
        held.lift(&old);
    }

    /// Lets go what an agent before this one held; what this one holds stays.
    pub(super) fn tidy(&self) {
        let mut held = self.lock();
        let ours: Vec<IpAddr> = held.since.keys().copied().collect();
        let done = held.kernel().and_then(|kernel| kernel.apply(&ours));
        if let Err(e) = done {
            warn!("{e}");
        }
    }
}

impl Held {
    fn kernel(&mut self) -> Result<&mut Hold, net::Error> {
        let open = match self.kernel.take() {
            Some(open) => open,
            None => Hold::open(&Namespace::here()?)?,
        };
        Ok(self.kernel.insert(open))
    }

    fn lift(&mut self, addresses: &[IpAddr]) {
        if addresses.is_empty() {
            return;
        }
        let done = self.kernel().and_then(|kernel| kernel.lift(addresses));
        match done {
            Ok(_) => self.since.retain(|a, _| !addresses.contains(a)),
            Err(e) => warn!("{e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_may_ask_its_own_resolvers_unless_it_is_told_not_to() {
        let service = Service {
            dns: vec!["192.0.2.53".to_owned(), "nonsense".to_owned()],
            ..Service::default()
        };
        let usual: IpAddr = [10, 0, 0, 1].into();
        let own: IpAddr = [192, 0, 2, 53].into();
        let asked = asked_by(&service, &[usual].into());
        assert_eq!(asked, [usual, own].into());
        // The rules say so, and nothing beside them.
        let kernel = for_kernel("a", &Ruleset::closed());
        assert!(kernel.egress.is_empty());
    }
}
