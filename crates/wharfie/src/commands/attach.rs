//! `wharfie attach`.

use clap::{ArgAction, Args};

use super::pick::{self, Taken};
use crate::context::Context;
use crate::control::State;
use crate::detach::{self, DetachKeys};
use crate::failure::Failure;
use crate::output;
use crate::session::{self, End, Leaving, Manner};

/// Connects our input and output with those of a container.
///
/// Ends with the container, with its exit code. On its terminal Ctrl-P Ctrl-Q leaves it running.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie attach web\n  wharfie attach --no-stdin --sig-proxy=false --index 2 web   only watch"
)]
pub(crate) struct Attach {
    /// Keys that leave the container running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", value_parser = detach::parse)]
    detach_keys: Option<DetachKeys>,
    /// Number of the container, if the service has several
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// Do not pass our input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the process; else they end only this command
    #[arg(
        long,
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    sig_proxy: bool,
    /// The service, or a container by name or id
    service: String,
}

impl Attach {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let found = pick::one(context, &self.service, self.index, Taken::Running).await?;
        let (control, container) = found;
        if container.state == State::Paused {
            return Err(Failure::failed(format!(
                "container {} is paused: nothing comes of it",
                container.name
            ))
            .help(format!("`wharfie unpause {}` lets it go on", self.service)));
        }
        if context.dry_run() {
            let what = format!("attach to container {}", container.name);
            return Ok(output::lines([what])?);
        }
        let config = control.engine().inspect(&container.id).await?.config;
        let has = |what: Option<bool>| what.unwrap_or(false);
        let config = config.unwrap_or_default();
        let tty = has(config.tty);
        let input = has(config.open_stdin) && !self.no_stdin;
        // Before its output ends: a container that is restarted would be waited for again.
        let mut ended = Box::pin(control.wait(&container.id));
        let keys = self.detach_keys.as_ref().map(DetachKeys::text);
        let session = control
            .engine()
            .attach_until(&container.id, input, keys)
            .await?;
        let manner = Manner {
            tty,
            input,
            signals_to: self.sig_proxy.then_some(container.id.as_str()),
        };
        let leaving = Leaving {
            keys: (tty && input).then(|| self.detach_keys.clone().unwrap_or_default()),
            with_input: has(config.stdin_once),
        };
        let talk = session::talk(&control, session, manner, leaving);
        let mut talk = std::pin::pin!(talk);
        let mut code = None;
        let end = loop {
            tokio::select! {
                end = &mut talk => break end?,
                done = &mut ended, if code.is_none() => code = Some(done),
            }
        };
        if let End::Detached = end {
            return Ok(());
        }
        let code = match code {
            Some(code) => code?,
            None => ended.await?,
        };
        match code {
            0 => Ok(()),
            code => Err(Failure::Exit(u8::try_from(code).unwrap_or(1))),
        }
    }
}
