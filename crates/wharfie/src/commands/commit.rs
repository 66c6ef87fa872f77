//! `wharfie commit`.

use clap::{ArgAction, Args};
use wharfie_host::CommitOptions;

use super::pick::{self, Taken};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::output::progress::State;

/// Makes an image of what a container's files are now, without its volumes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie commit web shop/web:debug\n  wharfie commit -m \"with tools\" -c 'CMD [\"sh\"]' web shop/web:tools"
)]
pub(crate) struct Commit {
    /// Author
    #[arg(
        short,
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    author: String,
    /// Instruction as in a Dockerfile (several are possible)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Number of the container, if the service has several
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// Message
    #[arg(
        short,
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    message: String,
    /// Halt the container meanwhile
    #[arg(
        short,
        long,
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pause: bool,
    /// The service, or a container by name or id
    service: String,
    /// Name of the image [default: none, it is known by its id]
    #[arg(
        value_name = "REPOSITORY[:TAG]",
        default_value = "",
        hide_default_value = true
    )]
    reference: String,
}

impl Commit {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let found = pick::one(context, &self.service, self.index, Taken::Any).await?;
        let (control, container) = found;
        if context.dry_run() {
            let what = format!("make an image of container {}", container.name);
            return Ok(output::lines([what])?);
        }
        let options = CommitOptions {
            reference: self.reference.clone(),
            author: self.author.clone(),
            message: self.message.clone(),
            changes: self.changes.clone(),
            pause: self.pause,
        };
        let progress = context.progress();
        let subject = format!("Container {}", container.name);
        progress.update(&subject, "Committing", State::Working);
        let work = async {
            let made = control.engine().commit(&container.name, &options).await;
            match &made {
                Ok(id) => progress.update(&subject, &format!("Committed as {id}"), State::Done),
                Err(_) => progress.update(&subject, "Error", State::Failed),
            }
            made
        };
        progress.during(work).await?;
        Ok(())
    }
}
