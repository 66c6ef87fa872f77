//! `wharfie dns`: the zone that IT delegates to the cluster.

mod check;
mod edit;
mod import;
mod ls;

use clap::{Args, Subcommand};

use crate::api_dns::Edited;
use crate::context::Context;
use crate::control::Client;
use crate::failure::{Failure, Message};
use crate::output;
use crate::signals::Interrupts;

/// Shows and changes the zone that IT delegates to the cluster, and checks whether it is found.
///
/// Services and nodes have their names by themselves; records of your own stand beside them.
/// `wharfie director init --zone NAME` says which zone it is.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie dns ls\n  wharfie dns add www A 192.0.2.10\n  wharfie dns import zone.db\n  wharfie dns check         whether it is found, and what IT has to enter"
)]
pub(crate) struct Dns {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Ls(ls::Ls),
    Add(edit::Add),
    Rm(edit::Rm),
    Import(import::Import),
    Export(ls::Export),
    Check(check::Check),
}

impl Dns {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut interrupts = Interrupts::listen()?;
        let work = async {
            let agent = Client::new(context.socket());
            match &self.what {
                What::Ls(ls) => ls.run(&agent).await,
                What::Add(add) => add.run(&agent, context).await,
                What::Rm(rm) => rm.run(&agent, context).await,
                What::Import(import) => import.run(&agent, context).await,
                What::Export(export) => export.run(&agent).await,
                What::Check(check) => check.run(&agent).await,
            }
        };
        tokio::select! {
            done = work => done,
            () = interrupts.next() => Err(Failure::Interrupted(Message::new("interrupted"))),
        }
    }
}

/// Says what became of a change, or would.
fn tell(edited: &Edited, dry_run: bool) -> Result<(), Failure> {
    let (add, remove) = match dry_run {
        true => ("add", "remove"),
        false => ("added", "removed"),
    };
    let gone = edited.removed.iter().map(|r| format!("{remove} {r}"));
    let new = edited.added.iter().map(|r| format!("{add} {r}"));
    output::lines(gone.chain(new))?;
    if edited.added.is_empty() && edited.removed.is_empty() {
        output::say("nothing changes: it is so already");
    }
    edited.notes.iter().for_each(|note| output::warn(note));
    Ok(())
}
