//! `wharfie node`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::{Labels, Node as Member, NodeState};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing, bytes, format, when};

/// Lists, describes, labels, drains and removes the nodes of the cluster.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie node ls\n  wharfie node inspect h2\n  wharfie node label h2 rack=7 ssd=true\n  wharfie node drain h3\n  wharfie node rm h3"
)]
pub(crate) struct Node {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Ls(Ls),
    Inspect(Inspect),
    Label(Label),
    Drain(Drain),
    Undrain(Undrain),
    Rm(Rm),
}

/// Lists the nodes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfie node ls\n  wharfie node ls --format json")]
struct Ls {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

/// Shows all that is known of nodes, as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie node inspect h2")]
struct Inspect {
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// Sets labels of a node, or removes them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie node label h2 rack=7\n  wharfie node label h2 rack-       remove the label \"rack\""
)]
struct Label {
    /// Name, id, or beginning of the id
    #[arg(value_name = "NODE")]
    node: String,
    /// Labels
    #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
    labels: Vec<String>,
}

/// Has everything that runs on nodes go to others.
///
/// Tasks with local data stay and wait: move their volumes, or take them down.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie node drain h3")]
struct Drain {
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// Lets tasks come to nodes again that were drained.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie node undrain h3")]
struct Undrain {
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// Removes nodes from the cluster.
///
/// A removed node is cut off at once, everywhere, and its key is not let in again. What it runs goes
/// on there, on its own.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie node rm h3")]
struct Rm {
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

impl Node {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        match &self.what {
            What::Ls(ls) => ls.run(&agent).await,
            What::Inspect(inspect) => {
                let nodes = nodes(&agent).await?;
                for wanted in &inspect.nodes {
                    let node = crate::agent::fleet::find(&nodes, wanted)?;
                    let text = serde_json::to_string_pretty(node);
                    output::text(&text.map_err(|e| Failure::failed(e.to_string()))?)?;
                }
                Ok(())
            }
            What::Label(label) => label.run(&agent).await,
            What::Drain(d) => drain(&agent, &d.nodes, true).await,
            What::Undrain(u) => drain(&agent, &u.nodes, false).await,
            What::Rm(rm) => {
                let nodes = nodes(&agent).await?;
                // All of them are there, or nothing is done.
                let found = rm
                    .nodes
                    .iter()
                    .map(|n| crate::agent::fleet::find(&nodes, n));
                for node in found.collect::<Result<Vec<_>, _>>()? {
                    let path = format!("/v1/nodes/{}", node.id);
                    let _: Value = agent.delete(&path).await?;
                    output::say(&format!(
                        "Removed {}: what it runs goes on there, on its own",
                        node.name
                    ));
                }
                Ok(())
            }
        }
    }
}

async fn drain(agent: &Client, names: &[String], drained: bool) -> Result<(), Failure> {
    let nodes = nodes(agent).await?;
    // All of them are there, or nothing is done.
    let found = names.iter().map(|n| crate::agent::fleet::find(&nodes, n));
    for node in found.collect::<Result<Vec<_>, _>>()? {
        let path = format!("/v1/nodes/{}/drain", node.id);
        let () = agent.tell(&path, &crate::api::Drain { drained }).await?;
        output::say(&match drained {
            true => format!("Draining {}: what can run elsewhere goes there", node.name),
            false => format!("{} takes tasks again", node.name),
        });
    }
    Ok(())
}

/// The nodes, as the agent knows them.
pub(super) async fn nodes(agent: &Client) -> Result<Vec<Member>, Failure> {
    agent.get("/v1/nodes").await
}

/// What is not well with a node, in words.
pub(super) fn troubles(node: &Member) -> Vec<String> {
    let mut troubles = Vec::new();
    if node.state != NodeState::Up {
        troubles.push(node.away());
    }
    if let Some(why) = node.report.as_ref().and_then(|r| r.engine_away.as_ref()) {
        troubles.push(format!("node {}: {why}", node.name));
    }
    if node.report.as_ref().is_some_and(|r| r.unwritable) {
        troubles.push(format!(
            "node {}: what is wanted cannot be written there: is its disk full?",
            node.name
        ));
    }
    // What is known of one that is away is old.
    let report = node.report.as_ref().filter(|_| node.may_answer());
    let faults = report.into_iter().flat_map(|r| &r.network_faults);
    troubles.extend(faults.map(|f| format!("node {}: {}", node.name, f.what)));
    if let Some(skew) = node.skew.filter(|s| s.abs() > 5_000) {
        troubles.push(format!(
            "node {}: its clock is {} s {} of the one here",
            node.name,
            skew.abs() / 1000,
            if skew > 0 { "ahead" } else { "behind" }
        ));
    }
    troubles
}

impl Ls {
    async fn run(&self, agent: &Client) -> Result<(), Failure> {
        let nodes = nodes(agent).await?;
        if self.quiet {
            return Ok(output::lines(nodes.into_iter().map(|n| n.name))?);
        }
        if matches!(self.format, Listing::Json) {
            return Ok(output::lines(nodes.iter().map(|n| row(n).to_string()))?);
        }
        let headers = [
            "NAME",
            "ID",
            "STATE",
            "SINCE",
            "CONTAINERS",
            "CPUS",
            "MEMORY",
            "ENGINE",
            "ADDRESS",
            "LABELS",
        ];
        let mut table = Table::new(0, headers);
        for node in &nodes {
            let report = node.report.clone().unwrap_or_default();
            let running = report.containers.iter().filter(|c| c.is_running()).count();
            // What is known of one that is away is old.
            let running = match node.may_answer() {
                true => running.to_string(),
                false => "-".to_owned(),
            };
            let labels: Vec<String> = node
                .labels
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            let drained = if node.drained { ", drained" } else { "" };
            let here = if node.me { " (here)" } else { "" };
            let state = format!("{}{drained}{here}", state(node.state));
            table.row([
                node.name.clone(),
                node.id.chars().take(10).collect(),
                state,
                format::ago(node.since / 1000, when::now()),
                running,
                report.cpus.to_string(),
                bytes::binary(report.memory),
                report.engine,
                node.addresses.first().cloned().unwrap_or_default(),
                labels.join(","),
            ]);
        }
        output::text(table.render().trim_end())
    }
}

/// The word for a state.
pub(super) fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Suspect => "suspect",
        NodeState::Down => "down",
        NodeState::Removed => "removed",
    }
}

fn row(node: &Member) -> Value {
    let report = node.report.clone().unwrap_or_default();
    json!({
        "Name": node.name,
        "ID": node.id,
        "State": state(node.state),
        "Drained": node.drained,
        "Here": node.me,
        "Since": node.since,
        "Containers": report.containers.len(),
        "CPUs": report.cpus,
        "Memory": report.memory,
        "Engine": report.engine,
        "Version": node.version,
        "Addresses": node.addresses,
        "Underlay": report.underlay,
        "Labels": node.labels,
    })
}

impl Label {
    async fn run(&self, agent: &Client) -> Result<(), Failure> {
        let mut labels: BTreeMap<String, Option<String>> = BTreeMap::new();
        for text in &self.labels {
            let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
                (Some((key, value)), _) => (key, Some(value.to_owned())),
                (None, Some(key)) => (key, None),
                (None, None) => ("", None),
            };
            if key.is_empty() {
                return Err(Failure::usage(format!("{text:?} is no label"))
                    .help("write KEY=VALUE, or KEY- to remove it"));
            }
            labels.insert(key.to_owned(), value);
        }
        let nodes = nodes(agent).await?;
        let node = crate::agent::fleet::find(&nodes, &self.node)?;
        let path = format!("/v1/nodes/{}", node.id);
        let _: Value = agent.tell(&path, &Labels { labels }).await?;
        Ok(())
    }
}
