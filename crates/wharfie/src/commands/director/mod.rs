//! `wharfie director`: addresses of the surrounding network for services, and the zone.

mod import;
mod init;
mod ocdd;
mod release;
mod status;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::{Failure, Message};
use crate::signals::Interrupts;

/// Gives each service an address of the network around and a name, from what IT gave once.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie director init --zone apps.example.org --range 192.168.122.11-192.168.122.30\n  wharfie director status\n  wharfie director import ocdd.conf     takes over what OctoCopDD was told\n  wharfie director release              takes all of it off the machines again"
)]
pub(crate) struct Director {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Init(Box<init::Init>),
    Import(import::Import),
    Status(status::Status),
    Release(release::Release),
}

impl Director {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut interrupts = Interrupts::listen()?;
        let work = async {
            match &self.what {
                What::Init(init) => init.run(context).await,
                What::Import(import) => import.run(context).await,
                What::Status(status) => status.run(context).await,
                What::Release(release) => release.run(context).await,
            }
        };
        tokio::select! {
            done = work => done,
            () = interrupts.next() => Err(Failure::Interrupted(Message::new("interrupted"))),
        }
    }
}
