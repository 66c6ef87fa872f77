//! `wharfie exec`.

use clap::Args;

use super::pick::{self, Taken};
use crate::context::Context;
use crate::control::ExecOptions;
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Manner};

/// Runs a command in a running container of a service.
///
/// It gets a terminal if we have one. The exit code is the command's.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie exec web sh\n  wharfie exec -u root --index 2 web id\n  wharfie exec -T db pg_dump shop > shop.sql"
)]
pub(crate) struct Exec {
    /// Leave the command running in the background
    #[arg(short, long, conflicts_with = "tty")]
    detach: bool,
    /// Set an environment variable (several are possible; without a value ours is taken)
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Number of the container, if the service has several
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// Pass our input on ("--interactive=false" does not)
    #[arg(
        short,
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    interactive: bool,
    /// Give the command a terminal even if our output is none
    #[arg(short, long, conflicts_with = "no_tty")]
    tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long, alias = "no-TTY")]
    no_tty: bool,
    /// Give the command extended privileges
    #[arg(long)]
    privileged: bool,
    /// User to run as
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: String,
    /// Directory to run in
    #[arg(
        short,
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "DIR"
    )]
    workdir: String,
    /// The service, or a container by name or id
    service: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let found = pick::one(context, &self.service, self.index, Taken::Running).await?;
        let (control, container) = found;
        if context.dry_run() {
            return Ok(output::lines([format!(
                "run {:?} in container {}",
                self.command.join(" "),
                container.name
            )])?);
        }
        let tty = !self.detach && !self.no_tty && (self.tty || session::on_terminal());
        let options = ExecOptions {
            command: self.command.clone(),
            environment: environment(&self.env),
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
            tty,
            interactive: self.interactive && !self.detach,
            privileged: self.privileged,
            detach: self.detach,
        };
        let Some(session) = control.exec(&container.id, &options).await? else {
            return Ok(());
        };
        let manner = Manner {
            tty,
            input: options.interactive,
            signals_to: None,
        };
        match session::converse(&control, session, manner).await? {
            0 => Ok(()),
            code => Err(Failure::Exit(u8::try_from(code).unwrap_or(1))),
        }
    }
}

/// Variables for a container; those without a value are taken from ours, where they are set.
pub(super) fn environment(given: &[String]) -> Vec<String> {
    let value = |entry: &String| match entry.contains('=') {
        true => Some(entry.clone()),
        false => std::env::var(entry)
            .ok()
            .map(|value| format!("{entry}={value}")),
    };
    given.iter().filter_map(value).collect()
}
