//! `wharfie network`: networks of the cluster, and those of single nodes.

mod create;
mod drops;
mod inspect;
mod known;
mod ls;
mod prune;
mod rm;
mod trace;

use clap::{Args, Subcommand};

pub(super) use prune::everything;

use crate::context::Context;
use crate::failure::{Failure, Message};
use crate::signals::Interrupts;

/// Shows networks of all nodes, says why somebody reaches somebody or not, makes and removes networks.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie network ls\n  wharfie network inspect shop_default\n  wharfie network trace web db --port 5432    why web reaches db, or does not\n  wharfie network drops vault                 what its firewall drops\n  wharfie network prune                       removes what nobody wants any more"
)]
pub(crate) struct Network {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Trace(trace::Trace),
    Drops(drops::Drops),
    Create(create::Create),
    Rm(rm::Rm),
    Prune(prune::Prune),
}

impl Network {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut interrupts = Interrupts::listen()?;
        let work = async {
            match &self.what {
                What::Ls(ls) => ls.run(context).await,
                What::Inspect(inspect) => inspect.run(context).await,
                What::Trace(trace) => trace.run(context).await,
                What::Drops(drops) => drops.run(context).await,
                What::Create(create) => create.run(context).await,
                What::Rm(rm) => rm.run(context).await,
                What::Prune(prune) => prune.run(context).await,
            }
        };
        tokio::select! {
            done = work => done,
            () = interrupts.next() => Err(Failure::Interrupted(Message::new("interrupted"))),
        }
    }
}
