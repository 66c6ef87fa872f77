//! `wharfie network rm`.

use clap::Args;

use super::known::{Known, Local};
use crate::agent::fleet;
use crate::api_network::{NetworkRemoved, RemoveNetwork};
use crate::commands::image::on;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Removes networks that nobody wants and no container is on; those of the cluster on all nodes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie network rm shared\n  wharfie network rm --node h2 old      a network of one node, if several have one of that name"
)]
pub(super) struct Rm {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Node to remove a network of its own from [default: the one that has it]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

impl Rm {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let known = Known::look(context).await?;
        let mut failures = Vec::new();
        for name in &self.names {
            let done = match known.of_cluster(name).filter(|_| self.node.is_none()) {
                Some(_) => of_cluster(context, &known, name).await,
                None => self.of_node(context, &known, name).await,
            };
            failures.extend(done.err());
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Failure::all(failures)),
        }
    }

    async fn of_node(&self, context: &Context, known: &Known, name: &str) -> Result<(), Failure> {
        let named = self.node.as_ref().map(|n| fleet::find(&known.nodes, n));
        let named = named.transpose()?;
        let of = |l: &&Local| {
            let node = named.is_none_or(|n| l.node.is_empty() || l.node == n.name);
            node && l.is(name)
        };
        let having: Vec<&Local> = known.local.iter().filter(of).collect();
        let local = match having.as_slice() {
            [] => return Err(Known::none(name)),
            [one] => *one,
            several => {
                let nodes: Vec<&str> = several.iter().map(|l| l.node.as_str()).collect();
                return Err(Failure::usage(format!(
                    "several nodes have a network {name} of their own: {}",
                    nodes.join(", ")
                ))
                .help("say which one is meant with --node NODE"));
            }
        };
        if !local.containers.is_empty() {
            return Err(Failure::failed(format!(
                "network {name} stays: containers are on it: {}",
                local.containers.join(", ")
            ))
            .help("`wharfie down`, or remove them, first"));
        }
        let at = match local.node.as_str() {
            "" => String::new(),
            node => format!(" on {node}"),
        };
        if context.dry_run() {
            return output::text(&format!("remove network {name}{at}"));
        }
        let node = known.nodes.iter();
        let mut node = node.filter(|n| n.name == local.node || (local.node.is_empty() && n.me));
        let wanted = RemoveNetwork {
            name: local.network.name.clone(),
        };
        match node.next() {
            // It knows what is wanted.
            Some(node) => {
                let path = format!("/v1/networks/drop{}", on(node));
                let _: bool = known.agent.tell(&path, &wanted).await?;
            }
            None => {
                let control = known.control.at_node(&local.node);
                let id = &local.network.id;
                control.engine().remove_local_network(id).await?;
            }
        }
        output::text(&format!("removed {name}{at}"))
    }
}

async fn of_cluster(context: &Context, known: &Known, name: &str) -> Result<(), Failure> {
    if context.dry_run() {
        return output::text(&format!("remove network {name} on all nodes"));
    }
    let wanted = RemoveNetwork {
        name: name.to_owned(),
    };
    let removed: NetworkRemoved = known.agent.tell("/v1/networks/remove", &wanted).await?;
    output::text(&match removed.nodes.is_empty() {
        true => format!("removed {name}"),
        false => format!("removed {name} on {}", removed.nodes.join(", ")),
    })?;
    for node in removed.away {
        output::warn(&format!(
            "node {node} is away: `wharfie network prune --node {node}` removes its part once it is back"
        ));
    }
    Ok(())
}
