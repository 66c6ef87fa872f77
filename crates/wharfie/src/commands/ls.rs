//! `wharfie ls`.

use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// Lists projects that have containers.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie ls                      projects that run\n  wharfie ls -a --format json     all, as JSON\n  wharfie ls --filter name=demo"
)]
pub(crate) struct Ls {
    /// Show stopped projects too
    #[arg(short, long)]
    all: bool,
    /// Only projects whose name contains a text ("name=TEXT")
    #[arg(long, value_name = "name=TEXT", value_parser = parse_filter)]
    filter: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

fn parse_filter(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("name", name)) => Ok(name.to_owned()),
        _ => Err("write name=TEXT".to_owned()),
    }
}

impl Ls {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let control = Control::connect(context).await?;
        let mut projects = control.projects(self.all).await?;
        projects
            .retain(|p| self.filter.is_empty() || self.filter.iter().any(|f| p.name.contains(f)));
        if self.quiet {
            return Ok(output::lines(projects.iter().map(|p| &p.name))?);
        }
        if self.format == Listing::Json {
            let list = projects.into_iter().map(|p| {
                let mut entry =
                    json!({ "Name": p.name, "Status": p.status, "ConfigFiles": p.config_files });
                if !p.nodes.is_empty() {
                    entry["Node"] = p.nodes.join(",").into();
                }
                entry
            });
            return Ok(output::json(&Value::Array(list.collect()))?);
        }
        let several = control.several();
        let mut titles = vec!["NAME".to_owned(), "STATUS".to_owned()];
        titles.extend(several.then(|| "NODE".to_owned()));
        titles.push("CONFIG FILES".to_owned());
        let mut table = Table::with(20, titles);
        for p in projects {
            let mut cells = vec![p.name, p.status];
            cells.extend(several.then(|| p.nodes.join(", ")));
            cells.push(p.config_files);
            table.add(cells);
        }
        Ok(output::print(&table.render())?)
    }
}
