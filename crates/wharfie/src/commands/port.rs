//! `wharfie port`.

use clap::{Args, ValueEnum};

use super::pick::{self, Taken};
use super::ps;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::output::ports::join;

/// Shows where a port of a service is published.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie port web 80\n  curl http://$(wharfie port web 80)/")]
pub(crate) struct Port {
    /// Number of the container, if the service has several
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// The protocol
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// The service, or a container by name or id
    service: String,
    /// The port in the container
    #[arg(value_name = "PRIVATE_PORT")]
    port: u16,
}

/// Protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Port {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let found = pick::one(context, &self.service, self.index, Taken::Running).await?;
        let (_, container) = found;
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let ports = ps::ports_of(&container);
        let fits = |p: &&crate::output::ports::Port| {
            p.private == self.port && p.protocol == protocol && p.public != 0
        };
        match ports.iter().find(fits) {
            Some(p) => Ok(output::lines([join(&p.ip, &p.public.to_string())])?),
            None => Err(Failure::failed(format!(
                "container {} publishes no port {}/{protocol}",
                container.name, self.port
            ))),
        }
    }
}
