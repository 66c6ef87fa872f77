//! Networks that people make and remove by hand.

use wharfie_cluster::Key;
use wharfie_core::network::{self, Asked, NETWORK, SLICE, VIP, slice_name, vip_name};

use super::show::wanting;
use crate::agent::keeper::{Keeper, Puts, now};
use crate::api_network::{CreateNetwork, NetworkInfo, NetworkRemoved};
use crate::failure::Failure;

impl Keeper {
    /// Writes a network that is no stack's. Nodes make their part of it when they need it.
    pub(super) async fn create_network(
        &self,
        wanted: CreateNetwork,
    ) -> Result<NetworkInfo, Failure> {
        let name = wanted.network.name.clone();
        if self.is_alone() {
            return Err(
                Failure::failed("there is one node only, whose networks are its Engine's")
                    .help(format!("`docker network create {name}` makes one there")),
            );
        }
        let book = self.book.networks();
        if book.networks.contains_key(&name) {
            return Err(Failure::failed(format!(
                "there is a network {name} already"
            )));
        }
        let asked = Asked {
            stack: "",
            key: "",
            network: &wanted.network,
        };
        let made = network::allot(asked, &book.networks, &self.routes(), &self.pools(), now());
        let made = made.map_err(|refusal| Failure::failed(refusal.to_string()))?;
        let put = (Key::new(NETWORK, &name), serde_json::to_value(&made).ok());
        let records = self.put_networks(vec![put], "network create").await?;
        self.fleet.tell(records);
        let made = self.network_infos().into_iter().find(|n| n.name == name);
        made.ok_or_else(|| Failure::failed(format!("network {name} is gone at once")))
    }

    /// Fails if a network is wanted, or containers are on it: on any node if it is one of the cluster.
    pub(super) fn may_remove_network(&self, name: &str) -> Result<(), Failure> {
        let stacks = self.book.stacks();
        let stacks = wanting(stacks.values().map(|e| &*e.stack), name);
        if !stacks.is_empty() {
            let who = match stacks.as_slice() {
                [one] => format!("stack {one} wants it"),
                several => format!("stacks want it: {}", several.join(", ")),
            };
            return Err(Failure::failed(format!("network {name} stays: {who}"))
                .help("`wharfie down` takes a stack down, with its networks"));
        }
        let spans = self.book.networks().networks.contains_key(name);
        let mut users = Vec::new();
        for node in self.fleet.nodes().into_iter().filter(|n| spans || n.me) {
            for container in node.report.iter().flat_map(|r| &r.containers) {
                if container.attachments.contains_key(name) {
                    users.push(format!("{} on {}", container.name, node.name));
                }
            }
        }
        match users.is_empty() {
            true => Ok(()),
            false => Err(Failure::failed(format!(
                "network {name} stays: containers are on it: {}",
                users.join(", ")
            ))
            .help("remove them first")),
        }
    }

    /// Forgets a network of the cluster: its object, who gives which addresses, and the services'.
    pub(super) async fn forget_network(&self, name: &str) -> Result<(), Failure> {
        let book = self.book.networks();
        let mut puts: Puts = vec![(Key::new(NETWORK, name), None)];
        let slices = book.slices.get(name).into_iter().flatten();
        puts.extend(slices.map(|(i, _)| (Key::new(SLICE, slice_name(name, *i)), None)));
        let vips = book.vips.keys().filter(|k| k.network == name);
        puts.extend(vips.map(|key| (Key::new(VIP, vip_name(key)), None)));
        let records = self.put_networks(puts, "network rm").await?;
        self.fleet.tell(records);
        self.wake_planes();
        Ok(())
    }

    /// Removes what this node's Engine has of a network; whether it had it.
    pub(super) async fn drop_network(&self, name: &str) -> Result<bool, Failure> {
        let engine = self.engine().map_err(Failure::from)?;
        let removed = engine.remove_local_network(name).await;
        removed.map_err(|e| {
            let node = self.fleet.me().name;
            Failure::failed(format!("node {node}: {}", Failure::from(e).text()))
        })
    }

    /// Removes a network of the cluster everywhere. Engines first: should one refuse, the network
    /// stays, and what is gone is made again when it is needed.
    pub(super) async fn remove_network<F>(
        &self,
        name: &str,
        ask: impl Fn(crate::api::Node) -> F,
    ) -> Result<NetworkRemoved, Failure>
    where
        F: Future<Output = Result<bool, Failure>>,
    {
        if !self.book.networks().networks.contains_key(name) {
            return Err(Failure::failed(format!(
                "the cluster has no network {name}"
            )));
        }
        self.may_remove_network(name)?;
        let (there, away): (Vec<_>, Vec<_>) = self
            .fleet
            .members()
            .into_iter()
            .partition(|n| n.me || n.may_answer());
        let asked = there.into_iter().map(|node| {
            let (called, asked) = (node.name.clone(), ask(node));
            async move { (called, asked.await) }
        });
        let mut removed = NetworkRemoved {
            away: away.into_iter().map(|n| n.name).collect(),
            ..NetworkRemoved::default()
        };
        for (node, answer) in futures_util::future::join_all(asked).await {
            match answer {
                Ok(true) => removed.nodes.push(node),
                Ok(false) => {}
                // It went away just now.
                Err(Failure::NoEngine(_)) => removed.away.push(node),
                Err(failure) => return Err(failure),
            }
        }
        self.forget_network(name).await?;
        Ok(removed)
    }
}
