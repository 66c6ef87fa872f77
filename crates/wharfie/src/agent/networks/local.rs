//! This node's part of networks: the slices that it gives addresses from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use wharfie_cluster::{Key, Options, Record};
use wharfie_compose::model::Project;
use wharfie_core::Share;
use wharfie_core::network::{self, Claims, Fixed, SLICE, Slice, slice_name};
use wharfie_host::translate::Given;

use super::walls::has_wall;
use super::{NetworkBook, Puts};
use crate::agent::keeper::{Keeper, now, with_replica};
use crate::failure::Failure;

/// An address that was given is not given again for so long, seen or not; in milliseconds.
const REST: i64 = 60_000;

/// Addresses that were given to containers, by network: when, and the last one.
#[derive(Debug, Default)]
pub(in crate::agent) struct Addressing {
    given: Mutex<BTreeMap<String, Recent>>,
}

#[derive(Debug, Default)]
struct Recent {
    times: BTreeMap<IpAddr, i64>,
    last: Option<IpAddr>,
}

impl Keeper {
    /// A project as this node carries it out: with its part of the networks of those of its services
    /// that have tasks here. What it lacks of them it claims.
    ///
    /// # Errors
    /// There is no part left of a network, or it cannot be written.
    pub(in crate::agent) async fn localize(
        self: &Arc<Self>,
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
        let names: Vec<String> = names
            .filter(|n| !n.external)
            .map(|n| n.name.clone())
            .collect();
        for name in names {
            self.claim(&name).await?;
        }
        let book = self.book.networks();
        let fixed = book.fixed(&self.book.stacks());
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
        if puts.is_empty() {
            return Ok(Vec::new());
        }
        let records = with_replica(&self.replica, move |r| {
            let at = u64::try_from(now()).unwrap_or(0);
            let options = Options { history: 1 };
            let each = puts.into_iter();
            each.map(|(key, value)| {
                let id = (key.kind.as_str(), key.name.as_str());
                r.put(id, value, (note, at), options, None)
            })
            .collect()
        });
        let records: Vec<Record> = records.await?;
        self.reread()?;
        Ok(records)
    }

    /// Claims a slice of a network, if this node has no address left to give there.
    async fn claim(self: &Arc<Self>, name: &str) -> Result<(), Failure> {
        let book = self.book.networks();
        let Some(object) = book.networks.get(name) else {
            return Ok(());
        };
        let none = Claims::new();
        let claims = book.slices.get(name).unwrap_or(&none);
        let me = self.fleet.id();
        let fixed = book.fixed(&self.book.stacks()).on(name);
        let used = self.used_here(name);
        if network::choose(object, claims, &me, &fixed, &used, None).is_some() {
            return Ok(());
        }
        let called = |id: &str| {
            self.fleet
                .by_id(id)
                .map_or_else(|| id.to_owned(), |n| n.name)
        };
        let index = network::claim(name, object, claims, &me, called);
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
    /// that is there.
    pub(in crate::agent) fn addresses(
        self: &Arc<Self>,
        project: Option<&Project>,
    ) -> impl Fn(&str, &str) -> Option<Given> + Send + Sync + use<> {
        let (keeper, book) = (Arc::clone(self), self.book.networks());
        let fixed = book.fixed(&self.book.stacks());
        let alone = self.is_alone();
        let walled: BTreeSet<String> = project
            .map(|project| {
                let services = project.services.values();
                let walled = services.filter(|s| has_wall(project, s));
                walled.map(|s| s.name.clone()).collect()
            })
            .unwrap_or_default();
        move |service, name| {
            let given = match alone {
                true => None,
                false => keeper.give(name, &book, &fixed),
            }?;
            if walled.contains(service) {
                let (v4, v6) = (given.v4.map(IpAddr::V4), given.v6.map(IpAddr::V6));
                let addresses: Vec<IpAddr> = v4.into_iter().chain(v6).collect();
                keeper.holds.hold(&addresses, now());
            }
            Some(given)
        }
    }

    fn give(&self, name: &str, book: &NetworkBook, fixed: &Fixed) -> Option<Given> {
        let object = book.networks.get(name)?;
        let claims = book.slices.get(name)?;
        let me = self.fleet.id();
        let fixed = fixed.on(name);
        let own = network::own(object, claims, &me, &fixed)?;
        let used = self.used_here(name);
        let given = &self.addressing.given;
        let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = given.entry(name.to_owned()).or_default();
        // Several are made at once.
        let used = used.into_iter().chain(recent.times.keys().copied());
        let used = used.collect();
        let chosen = network::choose(object, claims, &me, &fixed, &used, recent.last)?;
        let (v4, v6) = (chosen.v4.map(IpAddr::V4), chosen.v6.map(IpAddr::V6));
        for address in v4.iter().chain(&v6) {
            recent.times.insert(*address, now());
        }
        recent.last = v4.or(v6);
        let gateway = own.gateway.v4.map(IpAddr::V4);
        Some(Given {
            v4: chosen.v4,
            v6: chosen.v6,
            resolver: gateway.or(own.gateway.v6.map(IpAddr::V6)),
        })
    }
}
