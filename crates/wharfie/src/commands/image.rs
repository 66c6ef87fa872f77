//! `wharfie image`: images of all nodes.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::api::{FetchImage, Fetching, ImagesRemoved, Node, PruneImages, RemoveImage};
use crate::context::Context;
use crate::control::Client;
use crate::failure::{Failure, Message};
use crate::output::progress::{Progress, State};
use crate::output::table::Table;
use crate::output::{self, Listing, warn};
use crate::signals::Interrupts;

/// Shows images of all nodes, and brings them from node to node without a registry.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie image ls                    which nodes have which images\n  wharfie image push shop/web:2       gives it to all nodes\n  wharfie image pull shop/web:2       takes it to this node from those that have it\n  wharfie image rm shop/web:1         removes it on all nodes\n  wharfie image prune                 removes what has no name and no container"
)]
pub(crate) struct Image {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Lists images with the nodes that have them
    #[command(after_help = "Example:\n  wharfie image ls --format json")]
    Ls(Ls),
    /// Gives an image to other nodes, without a registry
    #[command(
        after_help = "Examples:\n  wharfie image push shop/web:2          to all nodes\n  wharfie image push shop/web:2 n2 n3    to two of them"
    )]
    Push(Push),
    /// Takes an image to this node from nodes that have it, without a registry
    #[command(after_help = "Example:\n  wharfie image pull shop/web:2 --from n2")]
    Pull(Pull),
    /// Removes an image on all nodes, or some
    #[command(after_help = "Example:\n  wharfie image rm shop/web:1 n2")]
    Rm(Rm),
    /// Removes images without a name that no container uses, on all nodes
    #[command(after_help = "Example:\n  wharfie image prune --all")]
    Prune(Prune),
}

#[derive(Debug, Args)]
struct Ls {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct Push {
    /// Name or id
    image: String,
    /// Nodes to give it to [default: all]
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Debug, Args)]
struct Pull {
    /// Name or id
    image: String,
    /// Node to take it from (several are possible) [default: all that have it]
    #[arg(long, value_name = "NODE")]
    from: Vec<String>,
}

#[derive(Debug, Args)]
struct Rm {
    /// Name or id
    image: String,
    /// Nodes to remove it on [default: all that have it]
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Remove it even if it has several names or stopped containers use it
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Prune {
    /// Remove images that have a name, too
    #[arg(short, long)]
    all: bool,
}

impl Image {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        let nodes: Vec<Node> = agent.get("/v1/nodes").await?;
        let work = async {
            match &self.what {
                What::Ls(ls) => ls.run(&nodes),
                What::Push(push) => push.run(context, &agent, &nodes).await,
                What::Pull(pull) => pull.run(context, &agent).await,
                What::Rm(rm) => rm.run(context, &agent, &nodes).await,
                What::Prune(prune) => prune.run(context, &agent, &nodes).await,
            }
        };
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            done = work => done,
            () = interrupts.next() => Err(Failure::Interrupted(Message::new("interrupted"))),
        }
    }
}

/// An image, and who has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    names: Vec<String>,
    id: String,
    size: u64,
    nodes: Vec<String>,
}

/// The images of all nodes that answer, by name. An image that has other names on other nodes has
/// a row for each.
fn rows(nodes: &[Node]) -> Vec<Row> {
    let mut rows: BTreeMap<(Vec<String>, String), Row> = BTreeMap::new();
    for node in nodes.iter().filter(|n| n.may_answer()) {
        for image in node.report.iter().flat_map(|r| &r.images) {
            let mut names = image.tags.clone();
            names.sort();
            let row = rows.entry((names.clone(), image.id.clone())).or_default();
            row.names = names;
            row.id.clone_from(&image.id);
            row.size = image.size;
            row.nodes.push(node.name.clone());
        }
    }
    rows.into_values().collect()
}

/// Says which nodes are not asked.
fn tell_of_those_away(nodes: &[Node]) {
    for node in nodes.iter().filter(|n| !n.may_answer()) {
        warn(&node.away());
    }
}

impl Ls {
    fn run(&self, nodes: &[Node]) -> Result<(), Failure> {
        tell_of_those_away(nodes);
        let rows = rows(nodes);
        if self.quiet {
            return Ok(output::lines(rows.iter().map(|r| &r.id))?);
        }
        if self.format == Listing::Json {
            let list = rows
                .into_iter()
                .map(|r| json!({ "ID": r.id, "Names": r.names, "Size": r.size, "Nodes": r.nodes }));
            return Ok(output::json(&Value::Array(list.collect()))?);
        }
        let mut table = Table::new(12, ["IMAGE", "ID", "SIZE", "NODES"]);
        for row in rows {
            let id = row.id.strip_prefix("sha256:").unwrap_or(&row.id);
            let name = match row.names.is_empty() {
                true => "<none>".to_owned(),
                false => row.names.join(", "),
            };
            table.row([
                name,
                id.chars().take(12).collect(),
                output::bytes::decimal(row.size),
                row.nodes.join(", "),
            ]);
        }
        Ok(output::print(&table.render())?)
    }
}

/// The nodes that are named, or all of these that answer.
fn chosen<'n>(
    nodes: &'n [Node],
    named: &[String],
    of_all: impl Fn(&Node) -> bool,
) -> Result<Vec<&'n Node>, Failure> {
    if named.is_empty() {
        return Ok(nodes
            .iter()
            .filter(|n| n.may_answer() && of_all(n))
            .collect());
    }
    let found = named
        .iter()
        .map(|name| crate::agent::fleet::find(nodes, name));
    found.collect()
}

/// Whether a node has an image.
pub(super) fn has(node: &Node, image: &str) -> bool {
    let report = node.report.as_ref();
    report.is_some_and(|r| r.image(image).is_some())
}

/// How a node is called in a path. One that is in no cluster has no id.
pub(super) fn on(node: &Node) -> String {
    match node.id.as_str() {
        "" => String::new(),
        id => format!("?on={id}"),
    }
}

/// Lets a node take an image.
pub(super) async fn take(
    agent: &Client,
    path: &str,
    wanted: &FetchImage,
    subject: &str,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.update(subject, "Taking", State::Working);
    let took = agent.lines(path, wanted, |line| match line {
        Fetching::At { text, .. } => {
            progress.detail(subject, &text);
            None
        }
        Fetching::Note { text } => {
            progress.line(&format!("{subject}: {text}"));
            None
        }
        Fetching::Done { .. } => Some(Ok(())),
        Fetching::Failed { fault } => Some(Err(Failure::from(fault))),
    });
    let took = took.await.and_then(|took| took);
    match &took {
        Ok(()) => progress.update(subject, "Here", State::Done),
        Err(_) => progress.update(subject, "Error", State::Failed),
    }
    took
}

/// One failure of all, each with the node it is of.
fn all_of(results: Vec<(String, Result<(), Failure>)>) -> Result<(), Failure> {
    let failures: Vec<Failure> = results
        .into_iter()
        .filter_map(|(node, result)| match result.err()? {
            Failure::Failed(words) => Some(Failure::Failed(Message {
                what: format!("{node}: {}", words.what),
                ..words
            })),
            other => Some(other),
        })
        .collect();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::all(failures)),
    }
}

impl Push {
    async fn run(&self, context: &Context, agent: &Client, nodes: &[Node]) -> Result<(), Failure> {
        // What is here is meant, if it is here: others may have another one under this name.
        let here = nodes.iter().find(|n| n.me).filter(|n| has(n, &self.image));
        let from: Vec<String> = match here {
            Some(me) => vec![me.name.clone()],
            None => {
                let having = nodes
                    .iter()
                    .filter(|n| n.may_answer() && has(n, &self.image));
                having.map(|n| n.name.clone()).collect()
            }
        };
        if from.is_empty() {
            return Err(Failure::failed(format!("no node has {}", self.image))
                .help("`wharfie image ls` shows what there is"));
        }
        if self.nodes.is_empty() {
            tell_of_those_away(nodes);
        }
        let to = chosen(nodes, &self.nodes, |n| !from.contains(&n.name))?;
        if to.is_empty() {
            output::say(&format!("There is no other node to give {} to", self.image));
            return Ok(());
        }
        if context.dry_run() {
            let lines = to
                .iter()
                .map(|n| format!("give image {} to {}", self.image, n.name));
            return Ok(output::lines(lines)?);
        }
        let progress = context.progress();
        progress.title("Giving");
        let wanted = FetchImage {
            image: self.image.clone(),
            from,
        };
        let work = join_all(to.into_iter().map(|node| async {
            let path = format!("/v1/images/fetch{}", on(node));
            let subject = format!("{} to {}", self.image, node.name);
            let took = take(agent, &path, &wanted, &subject, &progress).await;
            (node.name.clone(), took)
        }));
        all_of(progress.during(work).await)
    }
}

impl Pull {
    async fn run(&self, context: &Context, agent: &Client) -> Result<(), Failure> {
        if context.dry_run() {
            return Ok(output::lines([format!("take image {}", self.image)])?);
        }
        let progress = context.progress();
        progress.title("Taking");
        let wanted = FetchImage {
            image: self.image.clone(),
            from: self.from.clone(),
        };
        let work = take(agent, "/v1/images/fetch", &wanted, &self.image, &progress);
        progress.during(work).await
    }
}

impl Rm {
    async fn run(&self, context: &Context, agent: &Client, nodes: &[Node]) -> Result<(), Failure> {
        if self.nodes.is_empty() {
            tell_of_those_away(nodes);
        }
        let on_these = chosen(nodes, &self.nodes, |n| has(n, &self.image))?;
        if on_these.is_empty() {
            return Err(Failure::failed(format!("no node has {}", self.image))
                .help("`wharfie image ls` shows what there is"));
        }
        let image = self.image.clone();
        let wanted = RemoveImage {
            image: self.image.clone(),
            force: self.force,
        };
        let said = format!("remove image {image}");
        removing(context, agent, on_these, "remove", &wanted, &said).await
    }
}

impl Prune {
    async fn run(&self, context: &Context, agent: &Client, nodes: &[Node]) -> Result<(), Failure> {
        tell_of_those_away(nodes);
        let on_these = chosen(nodes, &[], |_| true)?;
        let wanted = PruneImages { named: self.all };
        let said = "remove unused images";
        removing(context, agent, on_these, "prune", &wanted, said).await
    }
}

/// Removes on several nodes, and tells what went.
async fn removing(
    context: &Context,
    agent: &Client,
    nodes: Vec<&Node>,
    how: &str,
    wanted: &(impl serde::Serialize + Sync),
    said: &str,
) -> Result<(), Failure> {
    if context.dry_run() {
        return Ok(output::lines(
            nodes.iter().map(|n| format!("{said} on {}", n.name)),
        )?);
    }
    let asked = nodes.into_iter().map(|node| async {
        let path = format!("/v1/images/{how}{}", on(node));
        let removed: Result<ImagesRemoved, Failure> = agent.tell(&path, wanted).await;
        (node.name.clone(), removed)
    });
    let mut results = Vec::new();
    for (node, removed) in join_all(asked).await {
        let told = removed.and_then(|removed| {
            let untagged = removed
                .untagged
                .iter()
                .map(|n| format!("{node}: untagged {n}"));
            let deleted = removed
                .deleted
                .iter()
                .map(|id| format!("{node}: deleted {id}"));
            output::lines(untagged.chain(deleted))?;
            if removed.freed > 0 {
                let freed = output::bytes::decimal(removed.freed);
                output::lines([format!("{node}: {freed} are free now")])?;
            }
            Ok(())
        });
        results.push((node, told));
    }
    all_of(results)
}

#[cfg(test)]
mod tests {
    use wharfie_core::report::{Report, ReportedImage};

    use super::*;
    use crate::api::NodeState;

    fn node(name: &str, images: &[(&str, &[&str])]) -> Node {
        let image = |(id, tags): &(&str, &[&str])| ReportedImage {
            id: format!("sha256:{id}"),
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            size: 5,
        };
        Node {
            id: format!("{name}-id"),
            name: name.to_owned(),
            me: name == "n1",
            state: NodeState::Up,
            since: 0,
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            version: String::new(),
            skew: None,
            drained: false,
            report: Some(Report {
                images: images.iter().map(image).collect(),
                ..Report::default()
            }),
        }
    }

    #[test]
    fn an_image_is_listed_once_with_all_that_have_it() {
        let mut away = node("n3", &[("bb", &["b:1"])]);
        away.state = NodeState::Down;
        let nodes = [
            node("n1", &[("bb", &["b:1"]), ("aa", &["a:1", "a:0"])]),
            node("n2", &[("aa", &["a:0", "a:1"]), ("cc", &["a:2"])]),
            away,
        ];
        let rows = rows(&nodes);
        let told: Vec<(String, String)> = rows
            .iter()
            .map(|r| (r.names.join(","), r.nodes.join(",")))
            .collect();
        let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(told, [("a:0,a:1", "n1,n2"), ("a:2", "n2"), ("b:1", "n1")]);
    }

    #[test]
    fn nodes_are_those_named_or_all_that_fit() {
        let nodes = [node("n1", &[("aa", &["a:1"])]), node("n2", &[])];
        let names = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(|n| (*n).to_owned()).collect();
            let found = chosen(&nodes, &named, |n| has(n, "a:1"));
            found.map(|f| f.iter().map(|n| n.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["n1"]);
        assert_eq!(names(&["n2"]).unwrap(), ["n2"]);
        assert!(names(&["n4"]).unwrap_err().text().contains("no such node"));
    }
}
