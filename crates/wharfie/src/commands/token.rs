//! `wharfie token`.

use clap::Args;
use serde_json::json;

use crate::api::{TokenReply, TokenRequest};
use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;
use crate::output::{self, Listing};

/// Makes a token that lets one node join this one's cluster.
///
/// The first token founds the cluster: from then on the agent listens for other nodes (7700/udp).
/// A token is good once, and for a limited time. Who has it can join: pass it on as a secret.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie token                  then, on the new node: wharfie join TOKEN\n  wharfie token --count 2        for two new nodes\n  wharfie token --ttl 10m"
)]
pub(crate) struct Token {
    /// For how long it is good
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    ttl: String,

    /// How many tokens to make, one for each new node
    #[arg(short = 'n', long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,

    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
}

impl Token {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let nanoseconds = wharfie_compose::units::parse_duration(&self.ttl).unwrap_or(0);
        let ttl = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0);
        if ttl == 0 {
            return Err(Failure::usage(format!(
                "--ttl: {:?} is no duration of a second or more",
                self.ttl
            ))
            .help("write it as in 10m, 1h or 48h"));
        }
        let control = Control::acting(context).await?;
        let request = TokenRequest { ttl };
        let mut tokens: Vec<TokenReply> = Vec::new();
        for _ in 0..self.count {
            tokens.push(control.agent().tell("/v1/cluster/token", &request).await?);
        }
        if matches!(self.format, Listing::Json) {
            return Ok(output::lines(tokens.iter().map(|reply| {
                json!({
                    "Token": reply.token,
                    "Expires": reply.expires,
                    "Addresses": reply.addresses,
                })
                .to_string()
            }))?);
        }
        let each = if self.count == 1 { "" } else { "Each " };
        output::say(&format!(
            "{each}{} once, for {}. On the new node:  wharfie join TOKEN",
            if each.is_empty() { "Good" } else { "good" },
            self.ttl
        ));
        if tokens.iter().any(|reply| reply.addresses.is_empty()) {
            output::warn(
                "no address of this node is known: the new node must find it by multicast, or set `cluster-advertise` in the settings here",
            );
        }
        Ok(output::lines(tokens.iter().map(|reply| &reply.token))?)
    }
}
