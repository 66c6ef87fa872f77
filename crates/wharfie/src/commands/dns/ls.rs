//! `wharfie dns ls` and `export`.

use clap::Args;
use serde_json::json;

use crate::api_dns::{RecordInfo, ZoneInfo};
use crate::control::Client;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// Lists all records of the zone with whose they are, and who did not get the name that he wants.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie dns ls\n  wharfie dns ls www              www, and all below it\n  wharfie dns ls --format json"
)]
pub(super) struct Ls {
    /// Only this name, and those below it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
}

/// Prints the zone as a zone file.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie dns export > zone.db")]
pub(super) struct Export {}

/// Whether a name is one that was asked for, or below it.
fn is_asked_for(record: &RecordInfo, wanted: &str, zone: &str) -> bool {
    let zone = zone.trim_end_matches('.');
    let wanted = wanted.trim_end_matches('.').to_ascii_lowercase();
    let short = match wanted.strip_suffix(zone) {
        Some("") => "@",
        Some(short) => short.strip_suffix('.').unwrap_or(&wanted),
        None => &wanted,
    };
    record.name == short || record.name.ends_with(&format!(".{short}"))
}

impl Ls {
    pub(super) async fn run(&self, agent: &Client) -> Result<(), Failure> {
        let zone: ZoneInfo = agent.get("/v1/dns").await?;
        let asked = |r: &&RecordInfo| match &self.name {
            Some(name) => is_asked_for(r, name, &zone.zone),
            None => true,
        };
        let records: Vec<&RecordInfo> = zone.records.iter().filter(asked).collect();
        if self.format == Listing::Json {
            output::lines(records.iter().map(|r| {
                json!({
                    "Name": r.name,
                    "TTL": r.ttl,
                    "Type": r.kind,
                    "Value": r.value,
                    "Of": r.of,
                })
                .to_string()
            }))?;
        } else {
            let mut table = Table::new(0, ["NAME", "TTL", "TYPE", "VALUE", "OF"]);
            for record in &records {
                table.row([
                    record.name.clone(),
                    record.ttl.to_string(),
                    record.kind.clone(),
                    record.value.clone(),
                    record.of.clone(),
                ]);
            }
            output::print(&table.render())?;
        }
        if let Some(name) = &self.name
            && records.is_empty()
        {
            return Err(Failure::failed(format!("{} has no name {name}", zone.zone))
                .help("`wharfie dns ls` shows all of them"));
        }
        // Standard output has records only, so that others can read it.
        zone.conflicts.iter().for_each(|c| output::warn(c));
        if !zone.answers {
            output::warn("this node does not answer for the zone: `wharfie status` says why");
        }
        Ok(())
    }
}

impl Export {
    pub(super) async fn run(&self, agent: &Client) -> Result<(), Failure> {
        let text: String = agent.get("/v1/dns/export").await?;
        Ok(output::print_raw(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_for_short_or_whole() {
        let record = |name: &str| RecordInfo {
            name: name.to_owned(),
            ..RecordInfo::default()
        };
        let asked = |name: &str, wanted: &str| is_asked_for(&record(name), wanted, "z.example.");
        assert!(asked("www", "WWW") && asked("www", "www.z.example.") && asked("a.www", "www"));
        assert!(asked("@", "z.example") && asked("@", "@"));
        assert!(!asked("www", "w") && !asked("awww", "www") && !asked("@", "www"));
    }
}
