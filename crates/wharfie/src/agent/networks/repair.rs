//! What a node puts right after a cut: others may have claimed the parts of networks that it gives
//! addresses from.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use tracing::{info, warn};
use wharfie_cluster::Key;
use wharfie_core::network::{self, Claims, SLICE, Slice, slice_name};

use super::holder_of;
use super::view::Scene;
use crate::agent::glimpse::Sign;
use crate::agent::keeper::{Keeper, Puts, now};

/// Who claimed something a moment ago may be a member that is not known here yet; in milliseconds.
const SETTLED: i64 = 300_000;

impl Keeper {
    /// Puts right what is wrong with the addresses of this node's containers; what cannot be.
    pub(super) async fn repair(self: &Arc<Self>, scene: &Scene) -> Vec<String> {
        let mut failed: Vec<String> = Vec::new();
        for conflict in network::conflicts(&scene.book.networks) {
            if matches!(conflict.what, network::Clash::Given(_)) {
                failed.push(conflict.to_string());
            }
        }
        let Some(here) = scene.here() else {
            return failed;
        };
        let none = Claims::new();
        let fixed = scene.fixed();
        for (name, object) in &scene.book.networks {
            let on = here.containers.iter();
            let on = on.filter_map(|c| Some((c, c.networks.get(name)?)));
            let on: Vec<_> = on.collect();
            let holders = fixed.holders.get(name);
            let is_given = |c: &network::Running, a: &IpAddr| {
                let holder = holders.and_then(|of| of.get(a));
                holder.is_some_and(|h| *h == holder_of(c))
            };
            let all = on
                .iter()
                .flat_map(|(c, at)| at.addresses().filter(|a| !is_given(c, a)));
            let all: BTreeSet<IpAddr> = all.collect();
            if all.is_empty() {
                continue;
            }
            let claims = scene.book.slices.get(name).unwrap_or(&none);
            let fixed = fixed.on(name);
            let repairs = network::repairs(object, claims, &scene.me, &all, &fixed);
            let claim = repairs.claim.iter().map(|index| {
                let slice = Slice {
                    node: scene.me.clone(),
                    since: now(),
                };
                let value = serde_json::to_value(slice).ok();
                (Key::new(SLICE, slice_name(name, *index)), value)
            });
            match self.put_networks(claim.collect(), "claim again").await {
                Ok(records) => self.fleet.tell(records),
                Err(e) => failed.push(e.text().to_owned()),
            }
            for (container, at) in on {
                // A network that has another subnet by now is made anew, with its containers.
                let inside = at.addresses().all(|a| object.contains(a));
                if inside && at.addresses().any(|a| repairs.moves.contains(&a)) {
                    failed.extend(self.readdress(name, container).await.err());
                }
            }
        }
        failed
    }

    /// Gives a container another address on a network. It goes on; what it talks to there is cut off.
    async fn readdress(
        self: &Arc<Self>,
        name: &str,
        container: &network::Running,
    ) -> Result<(), String> {
        if self.is_busy(&container.stack) {
            return Ok(());
        }
        let words =
            |e: String| format!("container {} has an address of others: {e}", container.name);
        let fixed = self.fixed();
        let claimed = self.claim(name, &fixed).await;
        claimed.map_err(|f| words(f.text().to_owned()))?;
        let book = self.book.networks();
        let given = self.give(name, &book, &fixed);
        let given = given.ok_or_else(|| words("there is none left for it".to_owned()))?;
        let engine = self.engine().map_err(|f| words(f.what))?;
        let to = (given.v4, given.v6);
        let moved = engine.readdress(name, &container.id, to).await;
        moved.map_err(|e| words(e.to_string()))?;
        info!(
            container = container.name,
            network = name,
            "another node gives out its address: it has a new one"
        );
        self.signs.add(Sign::Changed(container.id.clone()));
        Ok(())
    }

    /// Removes claims of nodes that are no members any longer. One node does it.
    pub(super) async fn tidy_slices(&self, scene: &Scene) {
        let live = scene.nodes().filter(|n| n.live).map(|n| &n.id).min();
        if live != Some(&scene.me) {
            return;
        }
        let members: BTreeSet<&str> = scene.nodes().map(|n| n.id.as_str()).collect();
        let mut puts = Puts::new();
        for (name, object) in &scene.book.networks {
            let Some(claims) = scene.book.slices.get(name) else {
                continue;
            };
            let old = |index: &u32| claims.get(index).is_some_and(|s| now() - s.since > SETTLED);
            let stale = network::stale(object, claims, &members);
            let stale = stale.into_iter().filter(old);
            puts.extend(stale.map(|index| (Key::new(SLICE, slice_name(name, index)), None)));
        }
        match self.put_networks(puts, "tidy").await {
            Ok(records) => self.fleet.tell(records),
            Err(e) => warn!("{}", e.text()),
        }
    }
}
