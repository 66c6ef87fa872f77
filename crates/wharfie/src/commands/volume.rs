//! `wharfie volume`: local volumes of all nodes.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::image::on;
use super::volume_places::{Known, rows};
use crate::agent::fleet;
use crate::api::{MoveVolumes, Moving, Node, RemoveVolume};
use crate::context::Context;
use crate::failure::{Failure, Message};
use crate::output::progress::State;
use crate::output::table::Table;
use crate::output::{self, Listing, bytes};
use crate::signals::Interrupts;

/// Shows local volumes of all nodes, moves them to other nodes, and removes them.
///
/// What uses a volume of a stack runs where the volume is, and goes with it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie volume ls                     which nodes have which volumes\n  wharfie volume move shop_data h2      the volume, and what uses it\n  wharfie volume rm shop_old"
)]
pub(crate) struct Volume {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Ls(Ls),
    Inspect(Inspect),
    Move(Move),
    Rm(Rm),
}

/// Lists the volumes of all nodes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie volume ls\n  wharfie volume ls --size          also how large they are\n  wharfie volume ls --format json"
)]
struct Ls {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Show sizes too; the Engines walk through all volumes for it
    #[arg(short, long)]
    size: bool,
}

/// Shows all that is known of volumes, as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie volume inspect shop_data")]
struct Inspect {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Moves volumes to another node, with the tasks that use them.
///
/// The tasks are stopped, the content is sent and compared, and the tasks are started there; then the
/// old volumes are removed. Whatever fails before all is there, the volumes are where they were and the
/// tasks run there again. Volumes that are used together are moved together.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie volume move shop_data h2\n  wharfie volume move shop_data shop_uploads h2\n  wharfie volume move --from h1 cache h3     h2 has one of that name, too"
)]
struct Move {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Node to move them to
    #[arg(value_name = "NODE")]
    to: String,
    /// Node to move them from [default: the one that has them]
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    /// Keep the old volumes
    #[arg(long)]
    keep: bool,
}

/// Removes volumes that no container has.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie volume rm shop_old\n  wharfie volume rm --node h2 cache      h1 has one of that name, too\n  wharfie volume rm --force shop_data    its node does not come back"
)]
struct Rm {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Node to remove them on [default: the one that has them]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// If the node is away, only forget that they are there: stacks begin with new ones elsewhere
    #[arg(short, long)]
    force: bool,
}

impl Volume {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut interrupts = Interrupts::listen()?;
        let work = async {
            match &self.what {
                What::Ls(ls) => ls.run(context).await,
                What::Inspect(inspect) => inspect.run(context).await,
                What::Move(go) => go.run(context).await,
                What::Rm(rm) => rm.run(context).await,
            }
        };
        tokio::select! {
            done = work => done,
            () = interrupts.next() => Err(Failure::Interrupted(Message::new("interrupted"))),
        }
    }
}

impl Ls {
    async fn run(&self, context: &Context) -> Result<(), Failure> {
        let known = Known::look(context).await?;
        let mut sizes: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        if self.size {
            let of = known
                .control
                .everywhere(|engine| async move { engine.volume_sizes().await });
            sizes.extend(of.await?);
        }
        let rows = rows(&known, &sizes);
        if self.quiet {
            let names: BTreeSet<&String> = rows.iter().map(|r| &r.name).collect();
            return Ok(output::lines(names)?);
        }
        if self.format == Listing::Json {
            return Ok(output::lines(rows.iter().map(|r| {
                json!({
                    "Name": r.name,
                    "Node": r.node,
                    "Driver": r.driver,
                    "Stack": r.stack,
                    "Tied": r.tied,
                    "Size": r.size,
                })
                .to_string()
            }))?);
        }
        let several = known.control.several();
        let mut titles = vec!["VOLUME".to_owned()];
        titles.extend(several.then(|| "NODE".to_owned()));
        titles.extend(["DRIVER", "STACK", "TIED"].map(str::to_owned));
        titles.extend(self.size.then(|| "SIZE".to_owned()));
        let mut table = Table::with(0, titles);
        for row in rows {
            let mut cells = vec![row.name];
            cells.extend(several.then_some(row.node));
            let tied = if row.tied { "yes" } else { "" };
            cells.extend([row.driver, row.stack, tied.to_owned()]);
            let size = row.size.map_or_else(|| "-".to_owned(), bytes::decimal);
            cells.extend(self.size.then_some(size));
            table.add(cells);
        }
        Ok(output::print(&table.render())?)
    }
}

impl Inspect {
    async fn run(&self, context: &Context) -> Result<(), Failure> {
        let known = Known::look(context).await?;
        let mut all = Vec::new();
        for name in &self.names {
            let look = known.control.everywhere(|engine| {
                let name = name.clone();
                async move {
                    let found = engine.volume(&name).await?;
                    let users = match &found {
                        Some(_) => engine.volume_users(&name).await?,
                        None => Vec::new(),
                    };
                    Ok(found.map(|v| (v, users)))
                }
            });
            let mut copies = Vec::new();
            for (node, found) in look.await? {
                let Some((volume, users)) = found else {
                    continue;
                };
                let users: Vec<String> = users.into_iter().map(|u| u.name).collect();
                copies.push(json!({
                    "Node": node,
                    "Driver": volume.driver,
                    "Mountpoint": volume.mountpoint,
                    "CreatedAt": volume.created,
                    "Options": volume.options,
                    "Labels": volume.labels,
                    "Containers": users,
                }));
            }
            let tied = known.tied.get(name);
            if copies.is_empty() && tied.is_none() {
                return Err(Failure::failed(format!("no node has a volume {name}"))
                    .help("`wharfie volume ls` shows what there is"));
            }
            let tied = tied.map(|t| json!({"Node": known.called(&t.node), "Stack": t.stack}));
            all.push(json!({"Name": name, "Tied": tied, "Volumes": copies}));
        }
        Ok(output::json(&Value::Array(all))?)
    }
}

impl Move {
    async fn run(&self, context: &Context) -> Result<(), Failure> {
        let known = Known::look(context).await?;
        let to = fleet::find(&known.nodes, &self.to)?;
        let mut from: Option<&Node> = None;
        let names: BTreeSet<&String> = self.names.iter().collect();
        for name in &names {
            let node = known.holder(name, self.from.as_deref(), "--from")?;
            if let Some(other) = from.filter(|o| o.id != node.id) {
                return Err(Failure::usage(format!(
                    "the volumes are on different nodes: {} and {}",
                    other.name, node.name
                )));
            }
            from = Some(node);
        }
        let Some(from) = from else { return Ok(()) };
        if from.id == to.id {
            let names: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
            let text = format!("{} is on node {} already", names.join(" and "), to.name);
            return Err(Failure::usage(text));
        }
        if let Some(away) = [from, to].into_iter().find(|n| !n.me && !n.may_answer()) {
            return Err(fleet::unreachable(away.away()));
        }
        let said: Vec<String> = names
            .iter()
            .map(|n| format!("volume {n} from {} to {}", from.name, to.name))
            .collect();
        if context.dry_run() {
            return Ok(output::lines(said.iter().map(|s| format!("move {s}")))?);
        }
        let progress = context.progress();
        progress.title("Moving");
        let subject = said.join(", ");
        let subject = subject.strip_prefix("volume ").unwrap_or(&subject);
        progress.update(subject, "Moving", State::Working);
        let wanted = MoveVolumes {
            names: names.into_iter().cloned().collect(),
            to: to.id.clone(),
            keep: self.keep,
        };
        let path = format!("/v1/volumes/move{}", on(from));
        let moved = known.agent.lines(&path, &wanted, |line| match line {
            Moving::At { text } => {
                progress.detail(subject, &text);
                None
            }
            Moving::Note { text } => {
                progress.line(&text);
                None
            }
            Moving::Done => Some(Ok(())),
            Moving::Failed { fault } => Some(Err(Failure::from(fault))),
        });
        let moved = progress.during(moved).await;
        let moved = moved.unwrap_or_else(|failure| match failure {
            Failure::NoEngine(_) => Err(Failure::failed(format!(
                "node {} went away in the middle of it",
                from.name
            ))
            .help(
                "what was not moved stays, and runs where it was: `wharfie volume ls` shows where",
            )),
            other => Err(other),
        });
        match &moved {
            Ok(()) => progress.update(subject, "Moved", State::Done),
            Err(_) => progress.update(subject, "Error", State::Failed),
        }
        progress.finish();
        moved
    }
}

impl Rm {
    async fn run(&self, context: &Context) -> Result<(), Failure> {
        let known = Known::look(context).await?;
        let mut failures = Vec::new();
        for name in &self.names {
            if let Err(failure) = self.remove(context, &known, name).await {
                failures.push(failure);
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Failure::all(failures)),
        }
    }

    async fn remove(&self, context: &Context, known: &Known, name: &str) -> Result<(), Failure> {
        let wanted = RemoveVolume {
            name: name.to_owned(),
        };
        let tied = known.tied.get(name).filter(|_| self.node.is_none());
        let tied = tied.map(|t| known.nodes.iter().find(|n| n.id == t.node));
        let away = tied.filter(|n| n.is_none_or(|n| !n.me && !n.may_answer()));
        if let Some(node) = away.filter(|_| self.force) {
            let of = node.map_or("a node that is no longer a member", |n| &n.name);
            if context.dry_run() {
                let line = format!("forget that volume {name} is on {of}");
                return Ok(output::lines([line])?);
            }
            let () = known.agent.tell("/v1/volumes/forget", &wanted).await?;
            return Ok(output::lines([format!(
                "forgot {name}, which was on {of}"
            )])?);
        }
        let node = known.holder(name, self.node.as_deref(), "--node")?;
        if !node.me && !node.may_answer() {
            return Err(fleet::unreachable(node.away()).help(
                "if it does not come back: `wharfie volume rm --force` forgets what it had",
            ));
        }
        if context.dry_run() {
            return Ok(output::lines([format!(
                "remove volume {name} on {}",
                node.name
            )])?);
        }
        let path = format!("/v1/volumes/remove{}", on(node));
        let () = known.agent.tell(&path, &wanted).await?;
        Ok(output::lines([format!("removed {name} on {}", node.name)])?)
    }
}
