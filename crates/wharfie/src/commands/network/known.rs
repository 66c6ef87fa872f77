//! What is known of networks: those of the cluster, and those that Engines have beside them.

use wharfie_core::labels;
use wharfie_core::report::ReportedContainer;
use wharfie_host::LocalNetwork;

use crate::api::Node;
use crate::api_network::NetworkInfo;
use crate::context::Context;
use crate::control::{Client, Control};
use crate::failure::Failure;
use crate::sweep::is_ours;

/// Which networks there are.
pub(super) struct Known {
    pub(super) control: Control,
    pub(super) agent: Client,
    pub(super) nodes: Vec<Node>,
    /// Those of the cluster.
    pub(super) cluster: Vec<NetworkInfo>,
    /// Those of single nodes, with the nodes' names (empty if there is one only).
    pub(super) local: Vec<Local>,
}

/// A network of one node.
pub(super) struct Local {
    pub(super) node: String,
    pub(super) network: LocalNetwork,
    /// Names of the containers on it.
    pub(super) containers: Vec<String>,
}

impl Local {
    /// The stack it was made for; empty if for none.
    pub(super) fn stack(&self) -> &str {
        self.network
            .labels
            .get(labels::PROJECT)
            .map_or("", String::as_str)
    }

    /// Whether a name or the beginning of an id means it.
    pub(super) fn is(&self, called: &str) -> bool {
        self.network.name == called || (called.len() >= 4 && self.network.id.starts_with(called))
    }
}

impl Known {
    pub(super) async fn look(context: &Context) -> Result<Self, Failure> {
        let control = Control::connect(context).await?;
        let seen = control.everywhere(|engine| async move {
            let networks = engine.local_networks().await?;
            let containers = engine.all_containers(false).await?.into_iter();
            let containers = containers.map(ReportedContainer::from);
            Ok((networks, containers.collect::<Vec<_>>()))
        });
        let seen = seen.await?;
        let agent = Client::new(context.socket());
        let (nodes, cluster) = match agent.get::<Vec<Node>>("/v1/nodes").await {
            // With -H it is about that Engine alone.
            Ok(nodes) if nodes.len() < 2 || control.several() => {
                let cluster: Vec<NetworkInfo> = agent.get("/v1/networks").await?;
                (nodes, cluster)
            }
            Ok(_) | Err(Failure::NoAgent) => Default::default(),
            Err(failure) => return Err(failure),
        };
        let mut local = Vec::new();
        for (node, (networks, containers)) in seen {
            for network in networks {
                // A node's part of a network of the cluster.
                if is_ours(&network) && cluster.iter().any(|n| n.name == network.name) {
                    continue;
                }
                let on = |c: &&ReportedContainer| c.attachments.contains_key(&network.name);
                let containers = containers.iter().filter(on);
                local.push(Local {
                    node: node.clone(),
                    containers: containers.map(|c| c.name.clone()).collect(),
                    network,
                });
            }
        }
        local.sort_by(|a, b| (&a.network.name, &a.node).cmp(&(&b.network.name, &b.node)));
        Ok(Self {
            control,
            agent,
            nodes,
            cluster,
            local,
        })
    }

    /// The network of the cluster with a name.
    pub(super) fn of_cluster(&self, name: &str) -> Option<&NetworkInfo> {
        self.cluster.iter().find(|n| n.name == name)
    }

    /// That there is no such network.
    pub(super) fn none(name: &str) -> Failure {
        Failure::failed(format!("there is no network {name}"))
            .help("`wharfie network ls` shows what there is")
    }
}
