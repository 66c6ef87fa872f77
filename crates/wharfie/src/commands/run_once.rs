//! `wharfie run`.

use std::hash::{BuildHasher, Hasher};

use clap::Args;
use wharfie_compose::Loaded;
use wharfie_compose::model::Service;
use wharfie_core::reconcile::{self, UpOptions};
use wharfie_core::wanted::Definition;
use wharfie_core::{Intent, Operation, Plan};

use super::run_overrides::Overrides;
use super::shape::{Images, Shape};
use crate::context::{self, Context};
use crate::control::{Control, OneOff, Seen};
use crate::failure::{Failure, Message};
use crate::output;
use crate::output::progress::Progress;
use crate::session::{self, Manner};
use crate::signals::Interrupts;
use wharfie_core::reconcile::lifecycle as plans;

/// Runs a one-off command in a new container of a service.
///
/// What the service depends on is started first. Its ports are published only with -P. It gets a
/// terminal if we have one. The exit code is the command's.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie run --rm web sh\n  wharfie run --rm -T -e DEBUG=1 test make check\n  wharfie run -d --name seed -p 8080:80 web"
)]
#[allow(clippy::struct_excessive_bools)] // they are the options as typed
pub(crate) struct Run {
    /// What is different from the service.
    #[command(flatten)]
    overrides: Overrides,
    /// Images.
    #[command(flatten)]
    images: Images,
    /// Leave the container running in the background, and print its id
    #[arg(short, long)]
    detach: bool,
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
    /// Give the command no terminal
    #[arg(short = 'T', long = "no-tty", alias = "no-TTY")]
    no_tty: bool,
    /// Give the command a terminal even if our output is none
    #[arg(short, long, conflicts_with = "no_tty")]
    tty: bool,
    /// Give the container this name
    #[arg(long)]
    name: Option<String>,
    /// Do not start the services that it depends on
    #[arg(long)]
    no_deps: bool,
    /// Say nothing of our own
    #[arg(short, long)]
    quiet: bool,
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Remove the container when it has ended
    #[arg(long = "rm")]
    remove: bool,
    /// Give the container the service's names on its networks
    #[arg(long)]
    use_aliases: bool,
    /// The service
    service: String,
    /// The command and its arguments, in place of the service's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Run {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let named = [self.service.clone()];
        let mut loaded = context.load(&named)?;
        context::check_services(&loaded.project, &named)?;
        super::providers::up(context, &mut loaded, &named, self.no_deps).await?;
        let Some(service) = loaded.project.any_service(&self.service) else {
            return Err(Failure::usage(format!("no such service: {}", self.service)));
        };
        let tty = !self.detach && !self.no_tty && (self.tty || session::on_terminal());
        let mut service = self
            .overrides
            .apply(service, &loaded.project, &self.command)?;
        service.tty = tty;
        service.stdin_open = self.interactive && !self.detach;
        let name = self.name.clone().unwrap_or_else(|| {
            let chance = std::hash::RandomState::new().build_hasher().finish();
            format!(
                "{}-{}-run-{:012x}",
                loaded.project.name,
                self.service,
                chance >> 16
            )
        });
        let control = Control::connect_for(context, &loaded.project.name, None).await?;
        let mut interrupts = Interrupts::listen()?;
        let seen = tokio::select! {
            seen = self.prepare(context, &control, &loaded) => seen?,
            () = interrupts.next() => {
                return Err(Failure::Interrupted(Message::new("interrupted; nothing was run")));
            }
        };
        drop(interrupts);
        if context.dry_run() {
            return Ok(output::lines([
                format!("create container {name}"),
                format!("start container {name}"),
            ])?);
        }
        let wanted = OneOff {
            project: &loaded.project,
            service: &service,
            seen: &seen,
            name,
            use_aliases: self.use_aliases,
            auto_remove: self.remove && self.detach,
        };
        let id = control.create_one_off(&wanted).await?;
        let outcome = self.hold(&control, &id, &service).await;
        if self.remove && !self.detach {
            control.remove(&id).await?;
        }
        match outcome? {
            0 => Ok(()),
            code => Err(Failure::Exit(u8::try_from(code).unwrap_or(1))),
        }
    }

    /// Starts the container and stays with it to its end; its exit code.
    async fn hold(&self, control: &Control, id: &str, service: &Service) -> Result<i64, Failure> {
        if self.detach {
            control.start(id).await?;
            if !self.quiet {
                output::lines([id])?;
            }
            return Ok(0);
        }
        // What it says first must not be lost.
        let session = control.attach(id, service.stdin_open).await?;
        control.start(id).await?;
        let manner = Manner {
            tty: service.tty,
            input: service.stdin_open,
            signals_to: Some(id),
        };
        session::converse(control, session, manner).await
    }

    /// Makes everything that the container needs: images, networks, volumes, other services.
    async fn prepare(
        &self,
        context: &Context,
        control: &Control,
        loaded: &Loaded,
    ) -> Result<Seen, Failure> {
        let project = &loaded.project;
        let quiet = self.quiet;
        let progress = context.progress_unless(quiet);
        let shape = Shape {
            images: self.images.clone(),
            remove_orphans: self.remove_orphans,
            ..Shape::default()
        };
        let options = UpOptions {
            no_deps: self.no_deps,
            ..shape.up_options(std::slice::from_ref(&self.service))
        };
        let mut execution = self.images.execution();
        execution.quiet_pull |= quiet;
        execution.quiet_build |= quiet;
        let mut seen = control.observe(project).await?;
        // As if the service had no container: then all it needs is in the plan.
        let plan_for = |seen: &Seen, options: &UpOptions| {
            let mut seen = seen.clone();
            seen.containers.retain(|c| c.service != self.service);
            control.plan_up(loaded, &seen, options)
        };
        let mut plan = plan_for(&seen, &options)?;
        control.check(loaded, &plan)?;
        if !control.dry_run() {
            let images = plan.images_only();
            if !images.is_empty() {
                control
                    .execute(Some(project), &seen, &images, &execution, &progress)
                    .await?;
            }
            if self
                .bring_up_others(context, loaded, &options, &plan, &progress)
                .await?
                || !images.is_empty()
            {
                seen = control.observe(project).await?;
                let options = UpOptions {
                    images_done: true,
                    ..options
                };
                plan = plan_for(&seen, &options)?;
            }
        }
        let plan = without_containers(&plan, &self.service);
        control
            .execute(Some(project), &seen, &plan, &execution, &progress)
            .await?;
        progress.finish();
        if plan.is_empty() {
            Ok(seen)
        } else {
            control.observe(project).await
        }
    }
}

impl Run {
    /// Asks the agent for the services that the container depends on; whether there are any.
    async fn bring_up_others(
        &self,
        context: &Context,
        loaded: &Loaded,
        options: &UpOptions,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<bool, Failure> {
        let project = &loaded.project;
        let selection = reconcile::selection(project, &options.services, self.no_deps);
        let others = selection.map_err(|e| Failure::usage(e.to_string()))?;
        let others: Vec<String> = others
            .into_keys()
            .filter(|s| *s != self.service)
            .map(str::to_owned)
            .collect();
        let busy = plan.steps.iter().any(|s| {
            let of = s.operation.container();
            of.is_some_and(|(service, _)| service != self.service)
        });
        if others.is_empty() || !busy {
            return Ok(false);
        }
        let control = Control::acting_for(context, &project.name, None).await?;
        let intent = Intent::Up {
            project: Box::new(Definition::from(project)),
            options: UpOptions {
                services: others,
                no_deps: true,
                ..options.clone()
            },
        };
        control
            .act(&project.name, intent, Some(loaded), plan, progress)
            .await?;
        Ok(true)
    }
}

/// The plan without the containers of a service.
fn without_containers(plan: &Plan, service: &str) -> Plan {
    plans::filter_map(plan, |operation| {
        let of = match operation {
            Operation::CreateContainer { service, .. }
            | Operation::RecreateContainer { service, .. }
            | Operation::StartContainer { service, .. }
            | Operation::RestartContainer { service, .. }
            | Operation::StopContainer { service, .. }
            | Operation::RemoveContainer { service, .. }
            | Operation::Wait { service, .. } => Some(service.as_str()),
            _ => None,
        };
        (of != Some(service)).then(|| operation.clone())
    })
}
