use std::time::Instant;

use anyhow::Result;
use clap::Args;
use wharfie_lab::{Lab, Subnet, cancel_on_signals};

use super::{EngineName, print};

/// Make a lab; it stays until `down`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab up 3\n  wharfie-lab up 2 --engine 28 --client c1")]
pub(super) struct Up {
    /// How many hosts: h1, h2 and so on
    #[arg(default_value_t = 1)]
    hosts: usize,
    /// Which Docker Engine they run; repeated, it is given host by host
    #[arg(long, value_enum, default_value = "debian")]
    engine: Vec<EngineName>,
    /// A client beside the hosts; may be repeated
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<String>,
    /// The LAN
    #[arg(long, default_value_t)]
    subnet: Subnet,
    /// A further argument for every dockerd; may be repeated
    #[arg(long = "dockerd-arg", value_name = "ARG", allow_hyphen_values = true)]
    dockerd_args: Vec<String>,
}

impl Up {
    pub(super) fn run(self) -> Result<()> {
        cancel_on_signals()?;
        let begun = Instant::now();
        let mut builder = Lab::builder()
            .hosts(self.hosts)
            .subnet(self.subnet)
            .dockerd_args(self.dockerd_args);
        // The last one named goes for the hosts that follow, too.
        for number in 1..=self.hosts {
            if let Some(engine) = self.engine.get(number - 1).or(self.engine.last()) {
                builder = builder.engine_of(number, (*engine).into());
            }
        }
        for client in &self.clients {
            builder = builder.client(client);
        }
        let mut lab = builder.start()?;
        lab.keep()?;
        let mut text = format!(
            "{} is up after {:.1} s\n",
            lab.name(),
            begun.elapsed().as_secs_f64()
        );
        for host in lab.hosts() {
            let (name, address) = (host.name(), host.address());
            text += &format!("  {name}  {address}  {}\n", host.docker_host());
        }
        for client in lab.clients_so_far() {
            text += &format!("  {}  {}\n", client.name(), client.address());
        }
        print(&text)
    }
}
