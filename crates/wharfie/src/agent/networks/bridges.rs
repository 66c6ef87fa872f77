//! Bridges that are made for themselves: of networks on which no plan of their own stack puts somebody
//! here. Every node needs those of published ports, and a stack may use a network of another.

use std::sync::Arc;

use tracing::{info, warn};
use wharfie_compose::model::{Network as Definition, Project};
use wharfie_core::network::overlay::networks_here;
use wharfie_core::network::{self, BRIDGES, bridge_name};

use super::view::Scene;
use crate::agent::keeper::Keeper;
use crate::failure::Failure;

impl Keeper {
    /// Makes the bridges that are missed here, and removes those of networks that are no more; whether
    /// something was changed, and what went wrong.
    pub(super) async fn keep_bridges(self: &Arc<Self>, scene: &Scene) -> (bool, Vec<String>) {
        let (mut changed, mut failed) = (false, Vec::new());
        let wanted = scene.with(|world| {
            let names = networks_here(world).into_iter();
            names.map(str::to_owned).collect::<Vec<_>>()
        });
        for name in wanted {
            let Some(object) = scene.book.networks.get(&name) else {
                continue;
            };
            if scene.bridges.contains(&bridge_name(object.vni)) || self.is_busy(&object.stack) {
                continue;
            }
            match self.bridge(&name).await {
                Ok(made) => changed |= made,
                Err(failure) => failed.push(failure.text().to_owned()),
            }
        }
        let known = |bridge: &str| {
            let mut networks = scene.book.networks.values();
            networks.any(|n| bridge_name(n.vni) == bridge)
        };
        let ours = scene.bridges.iter().filter(|b| b.starts_with(BRIDGES));
        let stale: Vec<&String> = ours.filter(|b| !known(b)).collect();
        if !stale.is_empty() {
            changed |= self.drop_bridges(scene, &stale).await;
        }
        (changed, failed)
    }

    /// Whether somebody acts on a stack: its plan makes what it needs.
    pub(super) fn is_busy(&self, stack: &str) -> bool {
        let slots = self.slots();
        let slot = slots.iter().find(|s| s.name == stack);
        slot.is_some_and(|s| s.is_asked() || s.kept.try_lock().is_err())
    }

    /// Makes the bridge of a network of the cluster; whether it was missing.
    ///
    /// # Errors
    /// There is no part left of the network, or the Engine refuses it.
    pub(super) async fn bridge(&self, name: &str) -> Result<bool, Failure> {
        // One at a time: two of one name would be made.
        let _turn = self.addressing.bridging.lock().await;
        let book = self.book.networks();
        let Some(object) = book.networks.get(name) else {
            return Ok(false);
        };
        let bridge = bridge_name(object.vni);
        if super::host::bridges().contains_key(&bridge) {
            return Ok(false);
        }
        let fixed = self.fixed();
        self.claim(name, &fixed).await?;
        let book = self.book.networks();
        let owner = self.book.stacks().get(&object.stack).cloned();
        let mut project = match owner {
            Some(entry) => entry.stack.project.clone(),
            None => Project::default(),
        };
        let definition = project.networks.entry(object.key.clone());
        definition.or_insert_with(|| Definition {
            name: name.to_owned(),
            ..Definition::default()
        });
        let me = self.fleet.id();
        network::localize(&mut project, &book.networks, &book.slices, &me, &fixed);
        if let Some(definition) = project.networks.get(&object.key) {
            let engine = self.engine()?;
            engine
                .make_network(&project.name, &object.key, definition)
                .await?;
            info!(network = name, bridge, "made, since it is needed here");
        }
        Ok(true)
    }

    /// Removes bridges that nobody wants or is on.
    async fn drop_bridges(&self, scene: &Scene, stale: &[&String]) -> bool {
        let Ok(engine) = self.engine() else {
            return false;
        };
        let _turn = self.addressing.bridging.lock().await;
        let mut networks = match engine.bridged_networks().await {
            Ok(networks) => networks,
            Err(e) => {
                warn!("{e}");
                return false;
            }
        };
        let containers = scene.here().map(|n| n.containers.as_slice());
        let used = |name: &str| {
            let mut all = containers.unwrap_or_default().iter();
            all.any(|c| c.networks.contains_key(name))
        };
        let mut changed = false;
        for bridge in stale {
            let Some(name) = networks.remove(*bridge).filter(|name| !used(name)) else {
                continue;
            };
            match engine.drop_network(&name).await {
                Ok(()) => {
                    info!(network = name, bridge, "removed: nobody wants it");
                    changed = true;
                }
                Err(e) => warn!("{e}"),
            }
        }
        changed
    }
}
