//! `wharfie dns import`.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use super::tell;
use crate::api_dns::{Edited, ImportRecords};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output;

/// The largest zone file, in bytes: as JSON it has to fit a request to the agent.
const LARGEST: u64 = 8 << 20;

/// Adds the records of a zone file to the zone.
///
/// All that is wrong with the file is said at once, and nothing is imported before it is right. SOA
/// of the zone, and those of its NS that are nodes, are left out: the cluster makes them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie dns import zone.db --dry-run     what it would add\n  wharfie dns import zone.db\n  wharfie dns import --replace zone.db     what was added and is not in the file goes"
)]
pub(super) struct Import {
    /// The zone file ("-" is standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Remove what was added and is not in the file
    #[arg(long)]
    replace: bool,
}

impl Import {
    pub(super) async fn run(&self, agent: &Client, context: &Context) -> Result<(), Failure> {
        let (file, text) = self.read()?;
        let wanted = ImportRecords {
            file: file.clone(),
            text,
            replace: self.replace,
            dry_run: context.dry_run(),
        };
        let edited: Edited = agent.tell("/v1/dns/import", &wanted).await?;
        if !edited.faults.is_empty() {
            edited.faults.iter().for_each(|fault| output::say(fault));
            let count = match edited.faults.len() {
                1 => "a fault".to_owned(),
                n => format!("{n} faults"),
            };
            return Err(Failure::usage(format!(
                "{file} has {count}: nothing was imported"
            )));
        }
        tell(&edited, context.dry_run())
    }

    /// The file, and what to call it.
    fn read(&self) -> Result<(String, String), Failure> {
        let name = match self.file.to_str() {
            Some("-") => "standard input".to_owned(),
            _ => self.file.display().to_string(),
        };
        let failed = |e: std::io::Error| Failure::usage(format!("cannot read {name}: {e}"));
        let mut text = String::new();
        let read = match self.file.to_str() {
            Some("-") => std::io::stdin().take(LARGEST + 1).read_to_string(&mut text),
            _ => std::fs::File::open(&self.file)
                .map_err(failed)?
                .take(LARGEST + 1)
                .read_to_string(&mut text),
        };
        if read.map_err(failed)? as u64 > LARGEST {
            return Err(
                Failure::usage(format!("{name} has more than {} MiB", LARGEST >> 20))
                    .help("divide it into several files"),
            );
        }
        Ok((name, text))
    }
}
