//! `wharfie dockermod`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::template::{fault, path, put, read};
use crate::agent::settings::{FILE, Given};
use crate::context::Context;
use crate::control::Client;
use crate::dockermod::import::{Becomes, Outcome, outcomes, without_comments};
use crate::dockermod::template;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// A template and its name.
type Named = (String, Map<String, Value>);

/// Takes over what was made for DockerMod.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie dockermod import conf.json")]
pub(crate) struct Dockermod {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Import(Import),
}

/// Takes over a DockerMod's conf.json and its templates, and says of each key what became of it.
///
/// Settings are added to the agent's file of settings; one that is there already stays. `wharfie
/// reload` applies them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie --dry-run dockermod import conf.json     only say what would be done\n  wharfie dockermod import conf.json --templates src/main/resources/templates"
)]
struct Import {
    /// Directory of templates, *.json [default: "templates" beside the file]
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
    /// The agent's file of settings [default: /etc/wharfie/wharfie.toml]
    #[arg(
        long,
        env = "WHARFIE_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// DockerMod's conf.json
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Dockermod {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let What::Import(import) = &self.what;
        import.run(context).await
    }
}

impl Import {
    async fn run(&self, context: &Context) -> Result<(), Failure> {
        // All is looked at before anything is done.
        let (file, text) = read(&self.file)?;
        let conf = template::object(&without_comments(&text)).map_err(|f| fault(&f, &file))?;
        let (mut outcomes, listen) = outcomes(&conf);
        let templates = self.templates()?;
        let settings = self.config.clone().unwrap_or_else(|| PathBuf::from(FILE));
        let there = match settings.exists() {
            true => Given::read(Some(&settings))?.dockermod_listen,
            false => None,
        };
        if !context.dry_run() {
            let agent = Client::new(context.socket());
            for (name, body) in &templates {
                put(&agent, &path(name)?, body).await?;
            }
            if let (Some(listen), None) = (&listen, &there) {
                add(&settings, listen)?;
            }
        }
        if let (Some(_), Some(there)) = (&listen, &there) {
            let said = format!(
                "{} says `dockermod-listen = \"{there}\"` already: that stays",
                settings.display()
            );
            for outcome in outcomes
                .iter_mut()
                .filter(|o| o.becomes == Becomes::Setting)
            {
                outcome.what.clone_from(&said);
            }
        }
        outcomes.extend(templates.iter().map(|(name, _)| Outcome {
            key: format!("templates/{name}.json"),
            becomes: Becomes::Template,
            what: format!("`wharfie template show {name}`"),
        }));
        self.show(&outcomes)?;
        if listen.is_some() && there.is_none() && self.format == Listing::Table {
            output::say(&if context.dry_run() {
                format!("the setting would be added to {}", settings.display())
            } else {
                format!(
                    "the setting is in {}: `wharfie reload` applies it",
                    settings.display()
                )
            });
        }
        Ok(())
    }

    fn show(&self, outcomes: &[Outcome]) -> Result<(), Failure> {
        if self.format == Listing::Json {
            return Ok(output::json(&serde_json::json!(outcomes))?);
        }
        let mut table = Table::new(20, ["KEY", "BECOMES", "WHAT"]);
        for outcome in outcomes {
            table.row([
                outcome.key.clone(),
                outcome.becomes.word().to_owned(),
                outcome.what.clone(),
            ]);
        }
        Ok(output::print(&table.render())?)
    }

    /// All templates, by name; the first that is none ends it.
    fn templates(&self) -> Result<Vec<Named>, Failure> {
        let beside = || {
            let dir = self.file.parent().unwrap_or(Path::new("."));
            Some(dir.join("templates")).filter(|d| d.is_dir())
        };
        let Some(dir) = self.templates.clone().or_else(beside) else {
            return Ok(Vec::new());
        };
        let cannot = |e: std::io::Error| {
            Failure::usage(format!(
                "cannot read the templates in {}: {e}",
                dir.display()
            ))
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(cannot)? {
            files.push(entry.map_err(cannot)?.path());
        }
        files.retain(|f| f.extension().is_some_and(|e| e == "json"));
        files.sort();
        let one = |file: PathBuf| {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            path(&name)?;
            let (shown, text) = read(&file)?;
            let body = template::parse(&without_comments(&text)).map_err(|f| fault(&f, &shown))?;
            Ok((name.into_owned(), body))
        };
        files.into_iter().map(one).collect()
    }
}

/// Adds the setting at the end of a file, which is made if it is not there.
fn add(file: &Path, listen: &str) -> Result<(), Failure> {
    let line = format!("\n# from DockerMod\ndockermod-listen = \"{listen}\"\n");
    let made = match file.parent() {
        Some(dir) => std::fs::create_dir_all(dir),
        None => Ok(()),
    };
    let mut options = std::fs::File::options();
    let opened = made.and_then(|()| options.create(true).append(true).open(file));
    opened
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|e| {
            Failure::failed(format!("cannot write to {}: {e}", file.display()))
                .help("run as root, or name another file with --config")
        })
}
