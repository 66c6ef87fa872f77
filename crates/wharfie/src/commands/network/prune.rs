//! `wharfie network prune`.

use clap::Args;
use wharfie_host::{Engine, LocalNetwork};

use crate::agent::fleet;
use crate::api::Node;
use crate::api_network::{PruneNetworks, Swept};
use crate::commands::image::on;
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output;
use crate::sweep::{Broom, sweep};

/// Removes what is left of networks that nobody wants any more.
///
/// That is bridges, VXLAN devices, tables of nftables and routes with Wharfie's mark, on the host and in
/// containers. While no agent runs, nothing is wanted: with --force everything of Wharfie's goes then,
/// services' addresses and firewalls of running containers too.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie network prune\n  wharfie network prune --all             on all nodes\n  wharfie --dry-run network prune         what would go\n  wharfie network prune --force           everything, once the agent is stopped for good"
)]
pub(super) struct Prune {
    /// On all nodes
    #[arg(short, long, conflicts_with = "node")]
    all: bool,
    /// On this node [default: the one here]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Without an agent: remove everything of Wharfie's from this host
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        let nodes: Vec<Node> = match agent.get("/v1/nodes").await {
            Ok(nodes) => nodes,
            Err(Failure::NoAgent) => return self.without_agent(context).await,
            Err(failure) => return Err(failure),
        };
        let named = self.node.as_ref().map(|n| fleet::find(&nodes, n));
        let named = named.transpose()?;
        let meant = |n: &&Node| match named {
            Some(named) => n.id == named.id,
            None => n.me || (self.all && n.may_answer()),
        };
        let mut failures = Vec::new();
        for node in nodes.iter().filter(meant) {
            let wanted = PruneNetworks {
                dry_run: context.dry_run(),
            };
            let path = format!("/v1/networks/prune{}", on(node));
            let swept: Result<Swept, Failure> = agent.tell(&path, &wanted).await;
            let of = match nodes.len() {
                1 => String::new(),
                _ => format!("{}: ", node.name),
            };
            match swept {
                Ok(swept) => tell(&swept, &of, context.dry_run())?,
                Err(failure) => failures.push(failure),
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Failure::all(failures)),
        }
    }

    async fn without_agent(&self, context: &Context) -> Result<(), Failure> {
        if !self.force && !context.dry_run() {
            return Err(Failure::usage(
                "no agent runs here: everything of Wharfie's networks would go, firewalls of running containers too",
            )
            .help("start the agent, or say --force; `wharfie --dry-run network prune` shows what would go"));
        }
        if self.all || self.node.is_some() {
            return Err(Failure::usage(
                "no agent runs here: other nodes cannot be asked",
            ));
        }
        let swept = everything(context.global.host.as_deref(), context.dry_run()).await?;
        tell(&swept, "", context.dry_run())
    }
}

/// Removes everything of ours from this host, and from the containers of its Engine.
pub(crate) async fn everything(host: Option<&str>, dry_run: bool) -> Result<Swept, Failure> {
    let engine = Engine::connect(host).await;
    let away = engine.as_ref().err().map(ToString::to_string);
    let nothing = |_: &LocalNetwork| false;
    let broom = Broom {
        wanted: &nothing,
        served: &|_| false,
        host: true,
        dry_run,
    };
    let mut swept = sweep(engine.ok().as_ref(), &broom).await?;
    let why = away.map(|why| format!("containers and the Engine's networks: {why}"));
    swept.kept.extend(why);
    Ok(swept)
}

/// Says what went and what stays.
fn tell(swept: &Swept, of: &str, dry_run: bool) -> Result<(), Failure> {
    let word = if dry_run { "remove" } else { "removed" };
    let removed = swept.removed.iter().map(|r| format!("{of}{word} {r}"));
    let kept = swept.kept.iter().map(|k| format!("{of}kept {k}"));
    let lines: Vec<String> = removed.chain(kept).collect();
    if lines.is_empty() {
        output::say(&format!("{of}nothing is left over"));
    }
    Ok(output::lines(lines)?)
}
