//! `wharfie network trace`.

use clap::Args;

use crate::api_network::{TraceNetwork, Traced};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// Says why A reaches B, or does not, hop by hop.
///
/// It follows the first packet of a connection: what the name leads to, the service's address, the
/// firewall of A, the way between the hosts, the firewall of B, and with --port whether somebody listens.
/// The exit code is 1 if B is not reached. No packet is sent.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie network trace web db --port 5432\n  wharfie network trace shop/web/2 db --port 53 --protocol udp\n  wharfie network trace web 10.128.0.5\n  wharfie network trace web example.org --port 443"
)]
pub(super) struct Trace {
    /// Who connects: a service, stack/service, stack/service/number, a container, an address, a node or
    /// "host"
    #[arg(value_name = "A")]
    from: String,
    /// To whom: the same, or a name outside
    #[arg(value_name = "B")]
    to: String,
    /// Port of B
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Protocol: tcp, udp, sctp or icmp
    #[arg(long, default_value = "tcp", value_name = "NAME")]
    protocol: String,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
}

impl Trace {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        let wanted = TraceNetwork {
            from: self.from.clone(),
            to: self.to.clone(),
            protocol: self.protocol.clone(),
            port: self.port,
        };
        let traced: Traced = agent.tell("/v1/networks/trace", &wanted).await?;
        match self.format {
            Listing::Json => {
                let text = serde_json::to_string(&traced);
                output::text(&text.map_err(|e| Failure::failed(e.to_string()))?)?;
            }
            Listing::Table => {
                let mut table = Table::with(0, Vec::new());
                for hop in &traced.way.hops {
                    let mark = if hop.passes { "pass" } else { "STOP" };
                    table.row([mark.to_owned(), hop.place.clone(), hop.why.clone()]);
                }
                output::print(table.render().trim_start_matches('\n'))?;
                output::lines(traced.way.notes.iter().map(|n| format!("but {n}")))?;
                output::text(&traced.verdict)?;
            }
        }
        match traced.arrives {
            true => Ok(()),
            false => Err(Failure::Exit(1)),
        }
    }
}
