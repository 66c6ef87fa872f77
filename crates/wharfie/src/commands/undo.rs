//! `wharfie undo`.

use clap::Args;

use crate::api::What;
use crate::context::Context;
use crate::control::Control;
use crate::failure::{Failure, Message};
use crate::output;
use crate::signals::Interrupts;

/// Brings back what was wanted of a stack before.
///
/// What comes back is what the files said then: services, their number and settings. Images and
/// the content of volumes are what they are now.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie undo                  the last change of the stack of ./compose.yaml\n  wharfie undo shop --to 3      back to revision 3 (see `wharfie history shop`)"
)]
pub(crate) struct Undo {
    /// The revision to bring back [default: the one before the current]
    #[arg(long, value_name = "REVISION")]
    to: Option<String>,
    /// The stack [default: the files' project]
    #[arg(value_name = "STACK")]
    stack: Option<String>,
}

impl Undo {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let stack = context.stack(self.stack.as_ref())?;
        if context.dry_run() {
            return Err(Failure::usage("undo has no dry run")
                .help("`wharfie history` shows what each revision changed"));
        }
        let control = Control::acting(context).await?;
        let progress = context.progress();
        let mut interrupts = Interrupts::listen()?;
        let what = What::Undo {
            to: self.to.clone(),
        };
        let revision = tokio::select! {
            done = control.ask(&stack, what, None, &progress) => done?,
            () = interrupts.next() => {
                progress.finish();
                return Err(Failure::Interrupted(Message::new("interrupted; the agent goes on")));
            }
        };
        progress.finish();
        let revision = revision.map_or_else(String::new, |r| format!(", as revision {r}"));
        Ok(output::lines([format!(
            "Stack {stack} is as it was{revision}"
        )])?)
    }
}
