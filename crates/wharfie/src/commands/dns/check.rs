//! `wharfie dns check`.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde_json::json;

use crate::api_dns::{CheckZone, Checked};
use crate::control::Client;
use crate::failure::Failure;
use crate::output::{self, Listing};

/// Port of DNS.
const PORT: u16 = 53;

/// Looks at the zone from outside in, and says what IT has to enter.
///
/// It asks the servers of the zone above whether they lead to the nodes, each node whether it answers,
/// and resolvers whether they find each name. The exit code is 1 if something is wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie dns check\n  wharfie dns check --resolver 10.0.0.53 --parent 10.0.0.2\n  wharfie dns check --quiet || echo broken"
)]
pub(super) struct Check {
    /// Resolver that people use (several are possible) [default: those of this host]
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    resolver: Vec<SocketAddr>,
    /// Server of the zone above (several are possible) [default: those that the resolver finds]
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    parent: Vec<SocketAddr>,
    /// How many names the resolvers are asked for
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    names: usize,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print only what is wrong
    #[arg(short, long)]
    quiet: bool,
}

/// An address, with a port or without.
fn server(text: &str) -> Result<SocketAddr, String> {
    let plain = text.parse::<IpAddr>().map(|a| SocketAddr::new(a, PORT));
    let whole = plain.or_else(|_| text.parse());
    whole.map_err(|_| "write an address such as 10.0.0.53, or 10.0.0.53:5353".to_owned())
}

impl Check {
    pub(super) async fn run(&self, agent: &Client) -> Result<(), Failure> {
        let wanted = CheckZone {
            resolvers: self.resolver.clone(),
            parents: self.parent.clone(),
            names: self.names,
        };
        let checked: Checked = agent.tell("/v1/dns/check", &wanted).await?;
        let faults = checked.findings.iter().filter(|f| f.level == "fault");
        let faults = faults.count();
        let shown = checked.findings.iter();
        let shown = shown.filter(|f| !self.quiet || f.level != "ok");
        match self.format {
            Listing::Json => output::lines(
                shown.map(|f| json!({ "Level": f.level, "What": f.what }).to_string()),
            )?,
            Listing::Table => {
                output::lines(shown.map(|f| format!("{}: {}", f.level, f.what)))?;
                if !self.quiet {
                    output::print_raw(&format!("\n{}", checked.delegation))?;
                }
            }
        }
        match faults {
            0 => Ok(()),
            1 => Err(Failure::failed("something is wrong with the zone")),
            n => Err(Failure::failed(format!(
                "{n} things are wrong with the zone"
            ))),
        }
    }
}
