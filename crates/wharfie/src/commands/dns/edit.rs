//! `wharfie dns add` and `rm`.

use clap::Args;

use super::tell;
use crate::api_dns::{AddRecord, Edited, RemoveRecord};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;

/// Adds records to the zone.
///
/// Names are written without the zone; "@" is the zone itself, "*.test" everything below "test".
/// Data is written as in a zone file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie dns add www A 192.0.2.10 192.0.2.11\n  wharfie dns add www A 192.0.2.12 --replace --ttl 5m\n  wharfie dns add wiki CNAME wiki.example.net.\n  wharfie dns add @ MX '10 mail.example.net.'"
)]
pub(super) struct Add {
    /// Name in the zone
    #[arg(value_name = "NAME")]
    name: String,
    /// Type: A, AAAA, CAA, CNAME, MX, NS, PTR, SRV, TXT, or TYPE with a number
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Data
    #[arg(value_name = "VALUE", required = true)]
    values: Vec<String>,
    /// How long they may be kept by those who asked [default: 1h, or as the others of the name and type]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Put them in place of what was added for the name and type
    #[arg(long)]
    replace: bool,
}

/// Removes records that were added to the zone.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie dns rm www                    all that was added for it\n  wharfie dns rm www A\n  wharfie dns rm www A 192.0.2.10"
)]
pub(super) struct Rm {
    /// Name in the zone
    #[arg(value_name = "NAME")]
    name: String,
    /// Only those of this type
    #[arg(value_name = "TYPE")]
    kind: Option<String>,
    /// Only the one with this data
    #[arg(value_name = "VALUE")]
    value: Option<String>,
}

/// Seconds of a duration such as 90, 5m or 1h.
fn seconds(text: &str) -> Result<u32, Failure> {
    let plain = text.parse::<u32>().ok();
    let units = || {
        let nanoseconds = wharfie_compose::units::parse_duration(text).ok()?;
        u32::try_from(nanoseconds / 1_000_000_000).ok()
    };
    // Times to live have 31 bits (RFC 2181 section 8).
    let read = plain.or_else(units).filter(|s| *s <= i32::MAX as u32);
    read.ok_or_else(|| {
        Failure::usage(format!("--ttl: {text:?} is no duration"))
            .help("write it as in 60, 5m or 1h")
    })
}

impl Add {
    pub(super) async fn run(&self, agent: &Client, context: &Context) -> Result<(), Failure> {
        let wanted = AddRecord {
            name: self.name.clone(),
            kind: self.kind.clone(),
            values: self.values.clone(),
            ttl: self.ttl.as_deref().map(seconds).transpose()?,
            replace: self.replace,
            dry_run: context.dry_run(),
        };
        let edited: Edited = agent.tell("/v1/dns/add", &wanted).await?;
        tell(&edited, context.dry_run())
    }
}

impl Rm {
    pub(super) async fn run(&self, agent: &Client, context: &Context) -> Result<(), Failure> {
        let wanted = RemoveRecord {
            name: self.name.clone(),
            kind: self.kind.clone(),
            value: self.value.clone(),
            dry_run: context.dry_run(),
        };
        let edited: Edited = agent.tell("/v1/dns/remove", &wanted).await?;
        tell(&edited, context.dry_run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_units() {
        assert_eq!(seconds("60").unwrap(), 60);
        assert_eq!(seconds("1h30m").unwrap(), 5_400);
        assert!(seconds("soon").is_err() && seconds("-5s").is_err());
        assert!(seconds("99999999999").is_err());
    }
}
