//! `wharfie template`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::api::TemplateInfo;
use crate::context::Context;
use crate::control::Client;
use crate::dockermod::template;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// Keeps templates of containers, for requests in DockerMod's protocol.
///
/// A template is a JSON document as Docker's API takes it to create a container. All nodes have
/// all templates.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie template put web web.json     keep web.json as template \"web\"\n  wharfie template ls\n  wharfie template show web\n  wharfie template rm web"
)]
pub(crate) struct Template {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Ls(Ls),
    Show(Show),
    Put(Put),
    Rm(Rm),
}

/// Lists templates.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfie template ls\n  wharfie template ls --format json")]
struct Ls {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

/// Prints a template.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie template show web > web.json")]
struct Show {
    /// The template
    #[arg(value_name = "NAME")]
    name: String,
}

/// Keeps a template, in place of the one that had its name.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie template put web web.json\n  echo '{\"Image\": \"busybox\", \"Cmd\": [\"sleep\", \"60\"]}' | wharfie template put nap"
)]
struct Put {
    /// The template
    #[arg(value_name = "NAME")]
    name: String,
    /// The document ("-" is standard input)
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

/// Removes templates. Containers made from them stay.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie template rm web")]
struct Rm {
    /// The templates
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl Template {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        match &self.what {
            What::Ls(ls) => ls.run(&agent).await,
            What::Show(show) => {
                let body: Value = agent.get(&path(&show.name)?).await?;
                let text = serde_json::to_string_pretty(&body).unwrap_or_default();
                Ok(output::print(&format!("{text}\n"))?)
            }
            What::Put(put) => put.run(&agent, context).await,
            What::Rm(rm) => rm.run(&agent, context).await,
        }
    }
}

impl Ls {
    async fn run(&self, agent: &Client) -> Result<(), Failure> {
        let templates: Vec<TemplateInfo> = agent.get("/v1/templates").await?;
        if self.quiet {
            return Ok(output::lines(templates.iter().map(|t| &t.name))?);
        }
        if self.format == Listing::Json {
            return Ok(output::json(&serde_json::json!(templates))?);
        }
        let mut table = Table::new(20, ["NAME", "IMAGE", "REVISION", "WHEN"]);
        for template in templates {
            let when = Timestamp::from_millisecond(template.time).unwrap_or_default();
            table.row([
                template.name,
                template.image,
                template.revision.to_string(),
                when.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            ]);
        }
        Ok(output::print(&table.render())?)
    }
}

impl Put {
    async fn run(&self, agent: &Client, context: &Context) -> Result<(), Failure> {
        let path = path(&self.name)?;
        let (file, text) = read(&self.file)?;
        let body = template::parse(&text).map_err(|f| fault(&f, &file))?;
        if context.dry_run() {
            return Ok(output::lines([format!("keep template {}", self.name)])?);
        }
        put(agent, &path, &body).await.map(drop)
    }
}

impl Rm {
    async fn run(&self, agent: &Client, context: &Context) -> Result<(), Failure> {
        let paths: Result<Vec<String>, Failure> = self.names.iter().map(|n| path(n)).collect();
        let mut failures = Vec::new();
        for (name, path) in self.names.iter().zip(paths?) {
            if context.dry_run() {
                output::lines([format!("remove template {name}")])?;
            } else if let Err(failure) = agent.delete::<()>(&path).await {
                failures.push(failure);
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Failure::all(failures)),
        }
    }
}

/// Where the agent has a template.
pub(super) fn path(name: &str) -> Result<String, Failure> {
    match template::name_fault(name) {
        Some(fault) => Err(Failure::usage(fault)),
        None => Ok(format!("/v1/templates/{name}")),
    }
}

/// Has the agent keep a template.
pub(super) async fn put(
    agent: &Client,
    path: &str,
    body: &Map<String, Value>,
) -> Result<TemplateInfo, Failure> {
    agent.put(path, body).await
}

/// Tells what is wrong with a file.
pub(super) fn fault(fault: &template::Fault, file: &str) -> Failure {
    Failure::usage(fault.of(file))
}

/// A file, or standard input, and what to call it.
pub(super) fn read(file: &Path) -> Result<(String, String), Failure> {
    let name = match file.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => file.display().to_string(),
    };
    let text = match file.to_str() {
        Some("-") => {
            let mut text = String::new();
            let most = template::LARGEST as u64 + 1;
            let read = std::io::stdin().take(most).read_to_string(&mut text);
            read.map(|_| text)
        }
        _ => std::fs::read_to_string(file),
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(e) => Err(Failure::usage(format!("cannot read {name}: {e}"))),
    }
}
