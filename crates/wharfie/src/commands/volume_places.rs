//! Which nodes have which local volumes, for `wharfie volume`.

use std::collections::{BTreeMap, BTreeSet};

use wharfie_core::labels;
use wharfie_host::VolumeDetails;

use crate::agent::fleet;
use crate::api::{Node, TiedVolume};
use crate::context::Context;
use crate::control::{Client, Control};
use crate::failure::Failure;

/// Which nodes have which volumes.
pub(super) struct Known {
    pub(super) control: Control,
    pub(super) agent: Client,
    pub(super) nodes: Vec<Node>,
    /// By the nodes that answer.
    seen: Vec<(String, Vec<VolumeDetails>)>,
    pub(super) tied: BTreeMap<String, TiedVolume>,
}

impl Known {
    pub(super) async fn look(context: &Context) -> Result<Self, Failure> {
        let control = Control::connect(context).await?;
        let seen = control.everywhere(|engine| async move { engine.volume_details("").await });
        let seen = seen.await?;
        let agent = Client::new(context.socket());
        let (nodes, tied) = match agent.get::<Vec<Node>>("/v1/nodes").await {
            // With -H it is about that Engine alone.
            Ok(nodes) if nodes.len() < 2 || control.several() => {
                let tied: Vec<TiedVolume> = agent.get("/v1/volumes").await?;
                (nodes, tied)
            }
            Ok(_) | Err(Failure::NoAgent) => Default::default(),
            Err(failure) => return Err(failure),
        };
        Ok(Self {
            control,
            agent,
            nodes,
            seen,
            tied: tied.into_iter().map(|t| (t.name.clone(), t)).collect(),
        })
    }

    /// How the node with an id is called.
    pub(super) fn called(&self, id: &str) -> String {
        let node = self.nodes.iter().find(|n| n.id == id);
        node.map_or_else(|| id.chars().take(10).collect(), |n| n.name.clone())
    }

    /// Whether a volume is tied to the node that it was seen on.
    fn tie(&self, volume: &str, node: &str) -> Option<&TiedVolume> {
        let tied = self.tied.get(volume);
        tied.filter(|t| node.is_empty() || self.called(&t.node) == node)
    }

    /// The node that has a volume: the one that is named, else that of which everybody knows, else the
    /// only one.
    pub(super) fn holder(
        &self,
        name: &str,
        named: Option<&str>,
        flag: &str,
    ) -> Result<&Node, Failure> {
        if let Some(named) = named {
            return fleet::find(&self.nodes, named);
        }
        if let Some(tied) = self.tied.get(name) {
            let Some(node) = self.nodes.iter().find(|n| n.id == tied.node) else {
                let text = format!("volume {name} is on a node that is no longer a member");
                return Err(Failure::failed(text)
                    .help("`wharfie volume rm --force` forgets it: what it held is lost"));
            };
            return Ok(node);
        }
        let having = self.seen.iter();
        let having = having.filter(|(_, of)| of.iter().any(|v| v.name == name));
        let having: Vec<&str> = having.map(|(node, _)| node.as_str()).collect();
        match having.as_slice() {
            [] => Err(Failure::failed(format!("no node has a volume {name}"))
                .help("`wharfie volume ls` shows what there is")),
            [""] => {
                let me = self.nodes.iter().find(|n| n.me);
                me.ok_or(Failure::NoAgent)
            }
            [node] => fleet::find(&self.nodes, node),
            several => Err(Failure::usage(format!(
                "several nodes have a volume {name}: {}",
                several.join(", ")
            ))
            .help(format!("say which one is meant with {flag} NODE"))),
        }
    }
}

/// A volume in the listing.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) driver: String,
    pub(super) stack: String,
    pub(super) tied: bool,
    pub(super) size: Option<u64>,
}

/// What is seen, and what is known of nodes that do not answer.
pub(super) fn rows(known: &Known, sizes: &BTreeMap<String, BTreeMap<String, u64>>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (node, volumes) in &known.seen {
        for volume in volumes.iter().filter(|v| v.scope != "global") {
            let tie = known.tie(&volume.name, node);
            let label = volume.labels.get(labels::PROJECT);
            let stack = tie.map(|t| &t.stack).filter(|s| !s.is_empty()).or(label);
            rows.push(Row {
                name: volume.name.clone(),
                node: node.clone(),
                driver: volume.driver.clone(),
                stack: stack.cloned().unwrap_or_default(),
                tied: tie.is_some(),
                size: sizes.get(node).and_then(|of| of.get(&volume.name)).copied(),
            });
        }
    }
    let answered: BTreeSet<&str> = known.seen.iter().map(|(n, _)| n.as_str()).collect();
    for tie in known.tied.values() {
        let node = known.called(&tie.node);
        // Made together with its tasks: it may not be there yet.
        if !answered.contains("") && !answered.contains(node.as_str()) {
            rows.push(Row {
                name: tie.name.clone(),
                node,
                driver: "local".to_owned(),
                stack: tie.stack.clone(),
                tied: true,
                size: None,
            });
        }
    }
    rows.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
    rows
}
