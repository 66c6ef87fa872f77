//! `wharfie tunnel`, which agents start.

use std::path::PathBuf;

use clap::Args;
use wharfie_tunnel::{Settings, Tunnel as Device};

use crate::failure::Failure;

/// Encrypts packets between nodes, for an agent: it starts this where the kernel has no WireGuard.
#[derive(Debug, Args)]
#[command(hide = true)]
#[command(after_help = "Example:\n  wharfie tunnel wwg0 /run/wharfie/wharfie.tunnel 4789")]
pub(crate) struct Tunnel {
    /// The device
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it is configured, as any WireGuard in user space
    #[arg(value_name = "SOCKET")]
    socket: PathBuf,
    /// UDP port of VXLAN
    #[arg(value_name = "PORT")]
    vxlan: Option<u16>,
}

impl Tunnel {
    /// Does it, until it is told to end.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        // Not with the one that started it. It fails where that is so already.
        let _ = rustix::process::setsid();
        let settings = Settings {
            name: self.name,
            socket: self.socket,
            vxlan: self.vxlan,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let work = || Device::start(settings).and_then(Device::serve);
        let ended = tokio::task::spawn_blocking(work).await;
        ended
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|e| Failure::failed(format!("the tunnel: {e}")))
    }
}
