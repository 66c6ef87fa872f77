//! `wharfie network ls`.

use clap::Args;
use serde_json::json;

use super::known::{Known, Local};
use crate::api_network::NetworkInfo;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// Lists the networks of the cluster, and those of single nodes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie network ls\n  wharfie network ls --filter scope=cluster\n  wharfie network ls --filter stack=shop --format json"
)]
pub(super) struct Ls {
    /// Only networks for which this holds: name=TEXT, stack=NAME, node=NAME, driver=NAME, scope=cluster or
    /// scope=local (several are possible)
    #[arg(long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<(Key, String)>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Stack,
    Node,
    Driver,
    Scope,
}

fn filter(text: &str) -> Result<(Key, String), String> {
    let keys = [
        ("name", Key::Name),
        ("stack", Key::Stack),
        ("node", Key::Node),
        ("driver", Key::Driver),
        ("scope", Key::Scope),
    ];
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let known = keys.iter().find(|(name, _)| *name == key);
    match known.filter(|_| text.contains('=')) {
        Some((_, key)) => Ok((*key, value.to_owned())),
        None => Err("write name=, stack=, node=, driver= or scope=, and a value".to_owned()),
    }
}

/// One network in the listing.
struct Row {
    name: String,
    scope: &'static str,
    driver: String,
    stack: String,
    subnets: Vec<String>,
    vni: Option<u32>,
    nodes: Vec<String>,
    containers: usize,
    notes: Vec<&'static str>,
}

impl From<&NetworkInfo> for Row {
    fn from(info: &NetworkInfo) -> Self {
        let object = &info.object;
        let mut notes = Vec::new();
        notes.extend(object.internal.then_some("internal"));
        notes.extend(object.attachable.then_some("attachable"));
        notes.extend(info.encrypted.then_some("encrypted"));
        notes.extend((!info.faults.is_empty()).then_some("faults"));
        Self {
            name: info.name.clone(),
            scope: "cluster",
            driver: "overlay".to_owned(),
            stack: object.stack.clone(),
            subnets: object.pools().map(|p| p.subnet.to_string()).collect(),
            vni: Some(object.vni),
            nodes: info.nodes.keys().cloned().collect(),
            containers: info.containers.len(),
            notes,
        }
    }
}

impl From<&Local> for Row {
    fn from(local: &Local) -> Self {
        let network = &local.network;
        let mut notes = Vec::new();
        notes.extend(network.internal.then_some("internal"));
        notes.extend(crate::sweep::is_ours(network).then_some("left over"));
        Self {
            name: network.name.clone(),
            scope: "local",
            driver: network.driver.clone(),
            stack: local.stack().to_owned(),
            subnets: network.subnets.clone(),
            vni: None,
            nodes: Some(local.node.clone())
                .filter(|n| !n.is_empty())
                .into_iter()
                .collect(),
            containers: local.containers.len(),
            notes,
        }
    }
}

impl Row {
    /// Whether it is to be shown. Of one key any value will do.
    fn passes(&self, filters: &[(Key, String)]) -> bool {
        let is = |(key, value): &(Key, String)| match key {
            Key::Name => self.name.contains(value),
            Key::Stack => self.stack == *value,
            Key::Node => self.nodes.contains(value),
            Key::Driver => self.driver == *value,
            Key::Scope => self.scope == value,
        };
        filters.iter().all(|(key, _)| {
            let mut same = filters.iter().filter(|(other, _)| other == key);
            same.any(is)
        })
    }
}

impl Ls {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let known = Known::look(context).await?;
        let cluster = known.cluster.iter().map(Row::from);
        let rows = cluster.chain(known.local.iter().map(Row::from));
        let rows: Vec<Row> = rows.filter(|r| r.passes(&self.filter)).collect();
        if self.quiet {
            let mut names: Vec<&String> = rows.iter().map(|r| &r.name).collect();
            names.dedup();
            return Ok(output::lines(names)?);
        }
        if self.format == Listing::Json {
            return Ok(output::lines(rows.iter().map(|r| {
                json!({
                    "Name": r.name,
                    "Scope": r.scope,
                    "Driver": r.driver,
                    "Stack": r.stack,
                    "Subnets": r.subnets,
                    "VNI": r.vni,
                    "Nodes": r.nodes,
                    "Containers": r.containers,
                    "Notes": r.notes,
                })
                .to_string()
            }))?);
        }
        let several = known.control.several();
        let mut titles: Vec<&str> = vec!["NETWORK", "SCOPE", "DRIVER", "STACK", "SUBNETS"];
        titles.extend(several.then_some(["VNI", "NODES"]).into_iter().flatten());
        titles.extend(["CONTAINERS", "NOTES"]);
        let titles = titles.into_iter().map(str::to_owned).collect();
        let mut table = Table::with(0, titles);
        for row in rows {
            let scope = row.scope.to_owned();
            let mut cells = vec![
                row.name,
                scope,
                row.driver,
                row.stack,
                row.subnets.join(", "),
            ];
            if several {
                let vni = row.vni.map_or_else(String::new, |v| v.to_string());
                cells.extend([vni, row.nodes.join(", ")]);
            }
            cells.extend([row.containers.to_string(), row.notes.join(", ")]);
            table.add(cells);
        }
        Ok(output::print(&table.render())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_one_key_add_up() {
        let row = Row {
            name: "shop_front".to_owned(),
            scope: "cluster",
            driver: "overlay".to_owned(),
            stack: "shop".to_owned(),
            subnets: Vec::new(),
            vni: None,
            nodes: vec!["h1".to_owned(), "h2".to_owned()],
            containers: 0,
            notes: Vec::new(),
        };
        let passes = |texts: &[&str]| {
            let filters: Vec<_> = texts.iter().map(|t| filter(t).unwrap()).collect();
            row.passes(&filters)
        };
        assert!(passes(&[]) && passes(&["name=front", "scope=cluster"]));
        assert!(passes(&["node=h2", "node=h3"]) && !passes(&["node=h3"]));
        assert!(!passes(&["stack=shop", "driver=bridge"]));
        assert!(filter("colour=red").is_err() && filter("name").is_err());
    }
}
