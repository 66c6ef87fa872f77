//! What of networks is not as it should be on this node: said in the log once, and told to all nodes
//! as long as it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use wharfie_core::network::{self, NoSlice, Route, firewall};
use wharfie_core::report::NetworkFault;
use wharfie_host::net::Error;

use super::view::Scene;
use crate::agent::keeper::{Keeper, now};

/// Who says what the plane sees.
pub(super) const PLANE: &str = "plane";
/// What a kernel without nftables means.
pub(super) const PLAIN: &str = "this kernel has no nftables: names lead to tasks instead of services' \
    addresses, and there are no firewalls";

/// Others are told of what lasts so long: much is over at once, such as what a container leaves that
/// is just ending.
const LASTING: Duration = Duration::from_millis(1_500);
/// What was said is forgotten if it is not said again within this time; in milliseconds.
const FORGET: i64 = 60_000;

/// What is known of faults.
#[derive(Debug, Default)]
pub(in crate::agent) struct Faults(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// By who said so: when, and what.
    by: BTreeMap<String, (i64, BTreeSet<NetworkFault>)>,
    /// What was seen of it last.
    shown: Vec<NetworkFault>,
}

impl Keeper {
    /// Takes note of all that somebody has to say now, in place of what was said before. The others
    /// are told of it. `source` is any word, another one for each who says something.
    pub(in crate::agent) fn set_network_faults(
        &self,
        source: &str,
        faults: BTreeSet<NetworkFault>,
    ) {
        let mut said = self.said();
        if faults.is_empty() {
            said.by.remove(source);
        } else {
            said.by.insert(source.to_owned(), (now(), faults));
        }
        // What others said may be over as well.
        let all = self.lasting_faults(&mut said);
        if said.shown != all {
            said.shown = all;
            self.news.send_modify(|news| news.tell());
        }
    }

    /// All that is said.
    pub(in crate::agent) fn network_faults(&self) -> Vec<NetworkFault> {
        self.lasting_faults(&mut self.said())
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.faults.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds still: what is about networks that are no more is over.
    fn lasting_faults(&self, said: &mut Said) -> Vec<NetworkFault> {
        let book = self.book.networks();
        let at = now();
        said.by.retain(|_, (time, _)| at - *time < FORGET);
        let each = said.by.values().flat_map(|(_, faults)| faults);
        let there =
            |f: &&NetworkFault| f.network.is_empty() || book.networks.contains_key(&f.network);
        let each: BTreeSet<&NetworkFault> = each.filter(there).collect();
        each.into_iter().cloned().collect()
    }

    /// Takes note of whether this node gets addresses of a network.
    pub(super) fn note_claim(&self, network: &str, refused: Option<&NoSlice>) {
        let fault = refused.map(|refused| NetworkFault {
            network: network.to_owned(),
            what: refused.to_string(),
            ..NetworkFault::default()
        });
        self.set_network_faults(&format!("slice/{network}"), fault.into_iter().collect());
    }
}

/// What one who looks again and again has to say.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Since when.
    since: BTreeMap<NetworkFault, Instant>,
    now: BTreeSet<NetworkFault>,
}

impl Round {
    /// Says something in this round; in the log only if it was not said in the one before.
    pub(super) fn say(&mut self, fault: NetworkFault) {
        if !self.since.contains_key(&fault) && !self.now.contains(&fault) {
            warn!("{}", fault.what);
        }
        self.now.insert(fault);
    }

    /// Ends the round: what has lasted for a while, and whether there is more that may.
    pub(super) fn end(&mut self) -> (BTreeSet<NetworkFault>, bool) {
        let said = std::mem::take(&mut self.now);
        let at = Instant::now();
        self.since.retain(|fault, _| said.contains(fault));
        for fault in said {
            self.since.entry(fault).or_insert(at);
        }
        let old = |since: &Instant| at.duration_since(*since) >= LASTING;
        let lasting = self.since.iter().filter(|(_, since)| old(since));
        let lasting: BTreeSet<NetworkFault> = lasting.map(|(f, _)| f.clone()).collect();
        let young = lasting.len() < self.since.len();
        (lasting, young)
    }
}

/// The network that an error of the kernel is about, if that is to be seen.
pub(super) fn network_of(scene: &Scene, error: &Error) -> String {
    let device = match error {
        Error::ForeignVxlan { wanted, .. } => wanted.clone(),
        Error::NoBridge { bridge, .. } => bridge.clone(),
        Error::Foreign { object } => object.clone(),
        _ => return String::new(),
    };
    let networks = scene.book.networks.iter();
    // Devices end with the network's number.
    let mut of = networks.filter(|(_, n)| device.contains(&format!("{:06x}", n.vni)));
    of.next().map(|(name, _)| name.clone()).unwrap_or_default()
}

/// What follows from what is wanted, and does not need the kernel to be seen. What is the whole
/// cluster's is said by the nodes that stacks are at home on.
pub(super) fn standing(scene: &Scene) -> Vec<NetworkFault> {
    let mut faults = Vec::new();
    let me = scene.here().map_or("", |n| n.id.as_str());
    for fault in scene.fixed().faults {
        let holder = fault.holder();
        let mut stacks = scene.stacks().iter();
        if !stacks.any(|s| s.project.name == holder.stack && s.home == me) {
            continue;
        }
        faults.push(NetworkFault {
            network: match &fault {
                network::Fault::Outside { network, .. }
                | network::Fault::Kept { network, .. }
                | network::Fault::Taken { network, .. } => network.clone(),
            },
            service: format!("{}/{}", holder.stack, holder.service),
            what: fault.to_string(),
            ..NetworkFault::default()
        });
    }
    for stack in scene.stacks().iter().filter(|s| s.home == me) {
        let services = stack.active.iter();
        let services = services.filter_map(|s| stack.project.any_service(s));
        for service in services {
            if let Err(why) = firewall::firewall(&stack.project, service) {
                let service = format!("{}/{}", stack.project.name, service.name);
                faults.push(NetworkFault {
                    what: format!(
                        "{service}: its firewall is not understood, so nothing passes: {why}"
                    ),
                    service,
                    ..NetworkFault::default()
                });
            }
        }
    }
    let name = scene.here().map_or("", |n| n.name.as_str());
    let routes = super::routes().into_iter().map(|(to, device)| Route {
        node: name.to_owned(),
        to,
        device,
    });
    let routes: Vec<Route> = routes.collect();
    for (name, subnet, route) in network::barred(&scene.book.networks, &routes) {
        faults.push(NetworkFault {
            what: format!("network {name}: its subnet {subnet} overlaps the route {route}, which came later: one of them has to change"),
            network: name,
            ..NetworkFault::default()
        });
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(what: &str) -> NetworkFault {
        NetworkFault {
            what: what.to_owned(),
            ..NetworkFault::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_told_until_it_is_over() {
        let mut round = Round::default();
        round.say(fault("a"));
        assert_eq!(round.end(), (BTreeSet::new(), true));
        tokio::time::advance(LASTING).await;
        round.say(fault("a"));
        round.say(fault("b"));
        assert_eq!(round.end(), ([fault("a")].into(), true));
        round.say(fault("a"));
        assert_eq!(round.end(), ([fault("a")].into(), false));
        assert_eq!(round.end(), (BTreeSet::new(), false));
        round.say(fault("a"));
        assert_eq!(round.end(), (BTreeSet::new(), true));
    }
}
