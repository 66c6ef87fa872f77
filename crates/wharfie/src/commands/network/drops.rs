//! `wharfie network drops`.

use clap::Args;
use futures_util::future::join_all;

use crate::api::Node;
use crate::api_network::{AskDrops, DroppedPacket, RuleHits};
use crate::commands::image::on;
use crate::commands::node::nodes;
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Listing};

/// Shows what containers' firewalls (`x-wharfie.firewall`) accepted and dropped, rule by rule.
///
/// With --follow each packet that is dropped is shown as it happens, if the firewall says `log: true`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie network drops\n  wharfie network drops shop/vault\n  wharfie network drops --follow vault"
)]
pub(super) struct Drops {
    /// Services, as "service" or "stack/service", or containers [default: all]
    #[arg(value_name = "SERVICE|CONTAINER")]
    of: Vec<String>,
    /// Show packets as they are dropped
    #[arg(short, long)]
    follow: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
}

impl Drops {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let agent = Client::new(context.socket());
        let all = nodes(&agent).await?;
        let there: Vec<&Node> = all.iter().filter(|n| n.me || n.may_answer()).collect();
        let wanted = AskDrops {
            of: self.of.clone(),
        };
        if self.follow {
            return self.follow(&agent, &there, &wanted).await;
        }
        let (agent, wanted) = (&agent, &wanted);
        let asked = there.iter().map(|node| async move {
            let path = format!("/v1/networks/drops{}", on(node));
            agent.tell::<Vec<RuleHits>>(&path, wanted).await
        });
        let mut rows = Vec::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(hits) => rows.extend(hits),
                // Others are shown all the same.
                Err(failure @ Failure::NoEngine(_)) => output::warn(&failure.text()),
                Err(failure) => return Err(failure),
            }
        }
        rows.sort_by(|a, b| (&a.container, &a.node).cmp(&(&b.container, &b.node)));
        if rows.is_empty() && !self.of.is_empty() {
            return Err(Failure::failed(format!(
                "no container of {} runs with a firewall",
                self.of.join(", ")
            ))
            .help("`x-wharfie.firewall` of a service, or of the whole stack, gives it one"));
        }
        if self.format == Listing::Json {
            let lines = rows.iter().map(serde_json::to_string);
            let lines: Result<Vec<String>, _> = lines.collect();
            return Ok(output::lines(
                lines.map_err(|e| Failure::failed(e.to_string()))?,
            )?);
        }
        let titles = [
            "CONTAINER",
            "NODE",
            "DIRECTION",
            "RULE",
            "ACTION",
            "PACKETS",
            "BYTES",
        ];
        let mut table = Table::new(0, titles);
        for r in rows {
            table.row([
                r.container,
                r.node,
                r.direction,
                r.rule,
                r.action,
                r.packets.to_string(),
                r.bytes.to_string(),
            ]);
        }
        Ok(output::print(&table.render())?)
    }

    async fn follow(
        &self,
        agent: &Client,
        nodes: &[&Node],
        wanted: &AskDrops,
    ) -> Result<(), Failure> {
        let each = nodes.iter().map(|node| async move {
            let path = format!("/v1/networks/drops/follow{}", on(node));
            let lines = agent.lines(&path, wanted, |packet: DroppedPacket| {
                let line = match self.format {
                    Listing::Json => serde_json::to_string(&packet).unwrap_or_default(),
                    Listing::Table => format!("{}  {}", packet.container, packet.text),
                };
                // A reader that has gone away is the end of it.
                output::text(&line).err().map(Err::<(), Failure>)
            });
            lines.await.and_then(|done| done)
        });
        let mut failures = join_all(each).await.into_iter().filter_map(Result::err);
        failures.next().map_or(Ok(()), Err)
    }
}
