//! `wharfie director status`.

use clap::Args;
use serde_json::json;

use crate::api_director::{DirectorLine, DirectorTable};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// Shows who has which address: name, address, containers, node.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie director status\n  wharfie director status --format json\n  wharfie director status --all     with addresses that are reserved for those who are gone"
)]
pub(super) struct Status {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// With addresses that are reserved for those who are gone
    #[arg(short, long)]
    all: bool,
}

impl Status {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        let table: DirectorTable = agent.get("/v1/director/table").await?;
        let Some(settings) = &table.settings else {
            return Err(Failure::failed("there is no director")
                .help("`wharfie director init` says which addresses and which zone there are"));
        };
        let shown = |l: &&DirectorLine| !l.published && (self.all || !l.reserved);
        let lines = table.lines.iter().filter(shown);
        if matches!(self.format, Listing::Json) {
            return Ok(output::lines(lines.map(|l| {
                json!({
                    "Name": l.dns_name,
                    "Owner": l.owner,
                    "Stack": l.stack,
                    "Service": l.name,
                    "Addresses": l.addresses,
                    "Node": l.node,
                    "Containers": l.containers,
                    "Reserved": l.reserved,
                    "Lacks": l.lacks,
                })
                .to_string()
            }))?);
        }
        let mut out = Table::new(
            10,
            ["NAME", "ADDRESS", "OWNER", "CONTAINERS", "NODE", "STATE"],
        );
        let mut notes = Vec::new();
        for line in lines {
            let lacks = line.lacks.iter();
            notes.extend(lacks.map(|why| format!("{}: {why}", line.owner)));
            let addresses: Vec<String> = line.addresses.iter().map(ToString::to_string).collect();
            let containers: Vec<String> = line
                .containers
                .iter()
                .map(|c| match c.node == line.node {
                    true => c.name.clone(),
                    false => format!("{} ({})", c.name, c.node),
                })
                .collect();
            let name = match line.dns_name.as_str() {
                "" => line.name.clone(),
                name => name.to_owned(),
            };
            out.row([
                name,
                addresses.join(", "),
                line.owner.clone(),
                containers.join(", "),
                line.node.clone(),
                line.state(),
            ]);
        }
        output::print(&out.render())?;
        output::lines(notes)?;
        if table.lines.iter().all(|l| l.reserved || l.published) && settings.ranges.is_empty() {
            output::warn(
                "there are no addresses to give: `wharfie director init --range` says which",
            );
        }
        Ok(output::lines(
            table.faults.iter().map(|f| format!("! {f}")),
        )?)
    }
}
