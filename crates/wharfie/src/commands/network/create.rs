//! `wharfie network create`.

use clap::Args;
use wharfie_compose::model;

use crate::api_network::{CreateNetwork, NetworkInfo};
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::output;

/// Makes a network of the cluster that is no stack's: stacks have it as `external: true`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie network create shared\n  wharfie network create --subnet 10.9.0.0/16 --internal backend"
)]
pub(super) struct Create {
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// Subnet, one for each family [default: one that is free]
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    /// Part of a subnet that addresses are chosen from
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,
    /// Gateway of a subnet [default: each node has one of its own]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// No way out of it
    #[arg(long)]
    internal: bool,
    /// Containers of no stack may join
    #[arg(long)]
    attachable: bool,
    /// With IPv6
    #[arg(long)]
    ipv6: bool,
    /// Label (several are possible)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Option of the driver (several are possible)
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
}

impl Create {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let begins = self.name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || !self.name.chars().all(plain) {
            return Err(
                Failure::usage(format!("{:?} is no name of a network", self.name))
                    .help("letters, digits, `_`, `.` and `-`, the first one a letter or a digit"),
            );
        }
        let wanted = CreateNetwork {
            network: self.definition(),
        };
        if context.dry_run() {
            return output::text(&format!("create network {}", self.name));
        }
        let agent = Client::new(context.socket());
        let made: NetworkInfo = agent.tell("/v1/networks", &wanted).await?;
        output::text(&made.name)
    }

    /// As a file would say it.
    fn definition(&self) -> model::Network {
        let pairs = |texts: &[String]| {
            let each = texts.iter().map(|t| t.split_once('=').unwrap_or((t, "")));
            each.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        let pools = self.subnet.iter().map(|subnet| {
            // What belongs to which subnet its family says.
            let v6 = subnet.contains(':');
            let of = |texts: &[String]| {
                let own = texts.iter().find(|t| t.contains(':') == v6);
                own.cloned().unwrap_or_default()
            };
            model::IpamPool {
                subnet: subnet.clone(),
                ip_range: of(&self.ip_range),
                gateway: of(&self.gateway),
                ..model::IpamPool::default()
            }
        });
        let mut network = model::Network {
            name: self.name.clone(),
            internal: self.internal,
            attachable: self.attachable,
            driver_opts: pairs(&self.options),
            labels: pairs(&self.labels),
            ..model::Network::default()
        };
        network.ipam.config = pools.collect();
        let has_v6 = self.ipv6 || self.subnet.iter().any(|s| s.contains(':'));
        network.enable_ipv6 = has_v6.then_some(true);
        if self.subnet.is_empty() {
            // Refused with the reason, not passed over.
            network.ipam.config = self
                .ip_range
                .first()
                .or(self.gateway.first())
                .map(|_| model::IpamPool {
                    ip_range: self.ip_range.first().cloned().unwrap_or_default(),
                    gateway: self.gateway.first().cloned().unwrap_or_default(),
                    ..model::IpamPool::default()
                })
                .into_iter()
                .collect();
        }
        network
    }
}
