//! This node's part of networks: the slices that it gives addresses from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use wharfie_cluster::{Key, Record};
use wharfie_compose::model::Project;
use wharfie_core::Share;
use wharfie_core::network::{self, Addresses, Claims, Fixed, SLICE, Slice, slice_name};
use wharfie_host::translate::Given;

use super::view::running;
use super::walls::has_wall;
use super::{NetworkBook, has, resolver};
use crate::agent::keeper::{Keeper, Puts, now};
use crate::failure::Failure;

/// An address that was given is not given again for so long, seen or not; in milliseconds.
const REST: i64 = 60_000;

/// Addresses that were given to containers, by network: when, and the last one.
#[derive(Debug, Default)]
pub(in crate::agent) struct Addressing {
    given: Mutex<BTreeMap<String, Recent>>,
    /// Who makes bridges does it alone.
    pub(super) bridging: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Recent {
    times: BTreeMap<IpAddr, i64>,
    last: Option<IpAddr>,
}

/// Addresses that a file gives to services, by service and name of the network.
fn statics(project: &Project) -> BTreeMap<(String, String), Vec<IpAddr>> {
    let mut all = BTreeMap::new();
    for service in project.services.values() {
        for (key, at) in &service.networks {
            let (Some(at), Some(network)) = (at, project.networks.get(key)) else {
                continue;
            };
            let said = [&at.ipv4_address, &at.ipv6_address];
            let said: Vec<IpAddr> = said.into_iter().filter_map(|a| a.parse().ok()).collect();
            all.insert((service.name.clone(), network.name.clone()), said);
        }
    }
    all
}

impl Keeper {
    /// A project as this node carries it out: with its part of the networks of those of its services
    /// that have tasks here. What it lacks of them it claims.
    ///
    /// # Errors
    /// There is no part left of a network, or it cannot be written.
    pub(in crate::agent) async fn localize(
        &self,
        mut project: Project,
        share: Option<&Share>,
    ) -> Result<Project, Failure> {
        if self.is_alone() || self.book.networks().networks.is_empty() {
            return Ok(project);
        }
        let here = |service: &String| share.is_none_or(|s| s.here(service).next().is_some());
        let services = project.services.iter().filter(|(name, _)| here(name));
        let keys: BTreeSet<&String> = services.flat_map(|(_, s)| s.networks.keys()).collect();
        let names = keys.into_iter().filter_map(|k| project.networks.get(k));
        let names: Vec<(String, bool)> = names.map(|n| (n.name.clone(), n.external)).collect();
        let fixed = self.fixed();
        for (name, external) in names {
            self.claim(&name, &fixed).await?;
            if external {
                self.bridge(&name).await?;
            }
        }
        let book = self.book.networks();
        let me = self.fleet.id();
        network::localize(&mut project, &book.networks, &book.slices, &me, &fixed);
        Ok(project)
    }

    /// Writes what is about networks; what was written.
    pub(in crate::agent) async fn put_networks(
        &self,
        puts: Puts,
        note: &'static str,
    ) -> Result<Vec<Record>, Failure> {
        let records = self.put_all(puts, note).await?;
        if !records.is_empty() {
            self.reread()?;
        }
        Ok(records)
    }

    /// Claims a slice of a network, if this node has no address left to give there.
    pub(super) async fn claim(&self, name: &str, fixed: &Fixed) -> Result<(), Failure> {
        let book = self.book.networks();
        let Some(object) = book.networks.get(name) else {
            return Ok(());
        };
        let none = Claims::new();
        let claims = book.slices.get(name).unwrap_or(&none);
        let me = self.fleet.id();
        let used = self.used_here(name);
        if network::choose(object, claims, &me, &fixed.on(name), &used, None).is_some() {
            return Ok(());
        }
        let called = |id: &str| {
            self.fleet
                .by_id(id)
                .map_or_else(|| id.to_owned(), |n| n.name)
        };
        let index = network::claim(name, object, claims, &me, called);
        self.note_claim(name, index.as_ref().err());
        let index = index.map_err(|e| Failure::failed(e.to_string()))?;
        let slice = Slice {
            node: me,
            since: now(),
        };
        let value = serde_json::to_value(slice).ok();
        let put = (Key::new(SLICE, slice_name(name, index)), value);
        let records = self.put_networks(vec![put], "claim").await?;
        self.fleet.tell(records);
        Ok(())
    }

    /// Static addresses of the tasks of all stacks.
    pub(super) fn fixed(&self) -> Fixed {
        let stacks = self.book.stacks();
        let seen = || {
            let nodes = self.fleet.remaining();
            let reports = nodes.iter().filter_map(|n| self.fleet.report_of(n));
            let containers: Vec<network::Running> = reports
                .flat_map(|r| r.containers.iter().map(running).collect::<Vec<_>>())
                .collect();
            has(containers.iter())
        };
        let stacks = stacks.values().map(|e| &*e.stack);
        self.book.networks().fixed(stacks, seen)
    }

    /// Addresses on a network that containers here have, or were given a moment ago.
    fn used_here(&self, name: &str) -> BTreeSet<IpAddr> {
        let report = self.fleet.report();
        let report = report.borrow();
        let on = report.containers.iter();
        let on = on.filter_map(|c| c.attachments.get(name));
        let mut used: BTreeSet<IpAddr> = on.flat_map(network::Attachment::addresses).collect();
        let given = &self.addressing.given;
        let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recent) = given.get_mut(name) {
            let at = now();
            recent.times.retain(|_, time| at - *time < REST);
            used.extend(recent.times.keys());
        }
        used
    }

    /// Gives addresses to new containers of a stack. Those whose service has a firewall are cut off until
    /// that is there; where there can be none, there are no such containers.
    pub(in crate::agent) fn addresses(
        self: &Arc<Self>,
        project: Option<&Project>,
    ) -> impl Fn(&str, &str) -> Result<Option<Given>, String> + Send + Sync + use<> {
        let (keeper, book) = (Arc::clone(self), self.book.networks());
        let fixed = self.fixed();
        let alone = self.is_alone();
        let walled: BTreeSet<String> = project
            .map(|project| {
                let services = project.services.values();
                let walled = services.filter(|s| has_wall(project, s));
                walled.map(|s| s.name.clone()).collect()
            })
            .unwrap_or_default();
        let said = project.map(statics).unwrap_or_default();
        let stack = project.map_or("", |p| &p.name);
        let waits = fixed.faults.iter().filter(|f| f.holder().stack == stack);
        let waits: BTreeMap<String, String> = waits
            .map(|f| (f.holder().service.clone(), f.to_string()))
            .collect();
        move |service, name| {
            // A service with a static address has one task.
            if let Some(why) = waits.get(service) {
                return Err(why.clone());
            }
            let given = match alone {
                true => None,
                false => keeper.give(name, &book, &fixed),
            };
            if walled.contains(service) {
                let (v4, v6) = given.as_ref().map(|g| (g.v4, g.v6)).unwrap_or_default();
                let own = said.get(&(service.to_owned(), name.to_owned()));
                let addresses = Addresses { v4, v6 };
                let addresses: Vec<IpAddr> = addresses
                    .all()
                    .chain(own.into_iter().flatten().copied())
                    .collect();
                let held = keeper.holds.before(&addresses, now());
                held.map_err(|e| {
                    let node = &keeper.fleet.me().name;
                    format!(
                        "{service} has a firewall, which cannot be on {node}: {e}; keep it away from there with \
                         `deploy.placement.constraints`"
                    )
                })?;
            }
            Ok(given)
        }
    }

    pub(super) fn give(&self, name: &str, book: &NetworkBook, fixed: &Fixed) -> Option<Given> {
        let object = book.networks.get(name)?;
        let claims = book.slices.get(name)?;
        let me = self.fleet.id();
        let own = book.own(name, &me, fixed)?;
        let fixed = fixed.on(name);
        let used = self.used_here(name);
        let given = &self.addressing.given;
        let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = given.entry(name.to_owned()).or_default();
        // Several are made at once.
        let used = used.into_iter().chain(recent.times.keys().copied());
        let used = used.collect();
        let chosen = network::choose(object, claims, &me, &fixed, &used, recent.last)?;
        let at = now();
        recent.times.extend(chosen.all().map(|a| (a, at)));
        recent.last = chosen.all().next();
        Some(Given {
            v4: chosen.v4,
            v6: chosen.v6,
            resolver: resolver(&own),
        })
    }
}
