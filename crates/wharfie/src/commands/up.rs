//! `wharfie up`.

use std::time::Duration;

use clap::Args;
use wharfie_compose::Loaded;
use wharfie_compose::model::Project;
use wharfie_core::Intent;
use wharfie_core::reconcile::UpOptions;
use wharfie_core::wanted::Definition;

use super::attached::{self, Attached};
use super::providers;
use super::shape::{self, Place, Ready, UpShape};
use super::watch::Watching;
use crate::context::Context;
use crate::control::{Control, Execution, Seen};
use crate::failure::{Failure, Message};
use crate::output::logs::LogStyle;
use crate::output::progress::{Progress, State};
use crate::output::style;
use crate::signals::Interrupts;

/// Creates and starts containers, networks and volumes as the files say.
///
/// Containers are recreated only if their configuration or image has changed. Without -d the
/// output of the containers is shown; the first Ctrl-C stops them, a second one kills them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie up                         start, and show the output\n  wharfie up -d --wait               start, and return when all is healthy\n  wharfie up -d --scale os=2         two containers of one service\n  wharfie up --dry-run               show what would be done\n  wharfie up --exit-code-from test   run until one service ends"
)]
#[allow(clippy::struct_excessive_bools)] // they are the options as typed
pub(crate) struct Up {
    /// What the plan is to look like.
    #[command(flatten)]
    up: UpShape,
    /// Return when the containers run, and leave them running
    #[arg(short, long)]
    detach: bool,
    /// Return when the services run, or are healthy where they have a health check; implies -d
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, requires = "wait", value_name = "SECONDS")]
    wait_timeout: Option<u32>,
    /// Stop all when a container ends
    #[arg(long, conflicts_with_all = ["detach", "wait"])]
    abort_on_container_exit: bool,
    /// Stop all when a container fails
    #[arg(long, conflicts_with_all = ["detach", "wait", "abort_on_container_exit"])]
    abort_on_container_failure: bool,
    /// Return the exit code of this service; implies --abort-on-container-exit
    #[arg(long, conflicts_with_all = ["detach", "wait", "abort_on_container_failure"], value_name = "SERVICE")]
    exit_code_from: Option<String>,
    /// Show the output of these services only (several are possible)
    #[arg(long, conflicts_with_all = ["attach_dependencies", "detach"], value_name = "SERVICE")]
    attach: Vec<String>,
    /// Show the output of what the named services depend on too
    #[arg(long, conflicts_with = "detach")]
    attach_dependencies: bool,
    /// Do not show the output of these services (several are possible)
    #[arg(long, conflicts_with = "detach", value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// Show no colours
    #[arg(long)]
    no_color: bool,
    /// Show no names before lines
    #[arg(long)]
    no_log_prefix: bool,
    /// Show the time of each line
    #[arg(long)]
    timestamps: bool,
    /// For scripts of docker compose: nothing is ever asked
    #[arg(short = 'y', long)]
    #[allow(dead_code)] // there is nothing to answer
    yes: bool,
    /// Watch source files, and bring changes into the containers as "develop.watch" says
    #[arg(short, long, conflicts_with_all = ["detach", "wait", "no_start"])]
    watch: bool,
    /// Services to bring up, with those they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Up {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut loaded = shape::load(context, &self.services, &self.up.shape)?;
        self.check(&loaded.project)?;
        providers::up(context, &mut loaded, &self.services, self.up.no_deps).await?;
        let watching = match self.watch {
            true => Some(Watching::new(
                context,
                &loaded,
                &self.services,
                self.up.shape.images.quiet_build,
                true,
            )?),
            false => None,
        };
        if self.up.shape.images.no_build && watching.as_ref().is_some_and(Watching::rebuilds) {
            return Err(Failure::usage(
                "--no-build does not go with a rule of `develop.watch` that rebuilds",
            ));
        }
        let mut options = self.up.up_options(&self.services);
        options.wait = self.wait;
        let execution = self.up.shape.images.execution();
        if self.detach || self.wait || self.up.no_start || context.dry_run() {
            let place = self.up.shape.place();
            return act(
                context,
                &loaded,
                place,
                &options,
                &execution,
                self.wait_timeout,
            )
            .await;
        }
        let name = &loaded.project.name;
        let place = self.up.shape.place();
        let control = Control::acting_for(context, name, place.on).await?;
        let control = control.replicated(place.replicated);
        let progress = context.progress();
        let mut interrupts = Interrupts::listen()?;
        let ready = tokio::select! {
            ready = shape::prepare(&control, &loaded, &options, &execution, &progress) => ready?,
            () = interrupts.next() => return Err(interrupted(&progress)),
        };
        show_unchanged(&ready, &loaded.project, &options.services, &progress);
        let started = tokio::sync::Notify::new();
        let work = async {
            let done = bring_up(&control, &loaded, &options, &ready, &progress);
            done.await.inspect(|()| started.notify_one())
        };
        let attached = Attached {
            control: &control,
            project: &loaded.project,
            progress: &progress,
            style: LogStyle {
                prefix: !self.no_log_prefix,
                colour: !self.no_color && style::stdout_has_colour(),
            },
            timestamps: self.timestamps,
            services: self.attached_services(&loaded),
            policy: self.policy(),
            stay: self.watch,
            timeout: self.up.timeout.map(i64::from),
        };
        let attached = attached.run(&ready, work, interrupts);
        let Some(watching) = watching else {
            return attached.await;
        };
        let watch = async {
            started.notified().await;
            match watching.run().await {
                Err(failure) if !matches!(failure, Failure::Interrupted(_)) => failure,
                // The attached part takes care of that.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            done = attached => done,
            failure = watch => Err(failure),
        }
    }

    fn check(&self, project: &Project) -> Result<(), Failure> {
        let mut named: Vec<String> = self.attach.iter().chain(&self.no_attach).cloned().collect();
        named.extend(self.exit_code_from.clone());
        crate::context::check_services(project, &named)
    }

    fn policy(&self) -> attached::Policy {
        match &self.exit_code_from {
            Some(service) => attached::Policy::ExitCodeFrom(service.clone()),
            None if self.abort_on_container_exit => attached::Policy::AbortOnExit,
            None if self.abort_on_container_failure => attached::Policy::AbortOnFailure,
            None => attached::Policy::KeepOn,
        }
    }

    /// The services whose output is shown.
    fn attached_services(&self, loaded: &Loaded) -> Vec<String> {
        let project = &loaded.project;
        let chosen: Vec<String> = if !self.attach.is_empty() {
            self.attach.clone()
        } else if self.services.is_empty() || self.attach_dependencies {
            let selection =
                wharfie_core::reconcile::selection(project, &self.services, self.up.no_deps);
            let selection = selection.unwrap_or_default().into_keys().map(str::to_owned);
            let quiet = |s: &String| {
                project
                    .any_service(s)
                    .is_some_and(|s| s.attach == Some(false))
            };
            selection.filter(|s| !quiet(s)).collect()
        } else {
            self.services.clone()
        };
        chosen
            .into_iter()
            .filter(|s| !self.no_attach.contains(s))
            .collect()
    }
}

/// Brings a project to what the options say, and returns.
pub(crate) async fn act(
    context: &Context,
    loaded: &Loaded,
    place: Place<'_>,
    options: &UpOptions,
    execution: &Execution,
    limit: Option<u32>,
) -> Result<(), Failure> {
    let control = Control::acting_for(context, &loaded.project.name, place.on).await?;
    let control = control.replicated(place.replicated);
    let progress = context.progress();
    let mut interrupts = Interrupts::listen()?;
    let work = async {
        let ready = shape::prepare(&control, loaded, options, execution, &progress).await?;
        if !control.dry_run() {
            show_unchanged(&ready, &loaded.project, &options.services, &progress);
        }
        let work = bring_up(&control, loaded, options, &ready, &progress);
        within(limit, work).await
    };
    tokio::select! {
        done = work => done?,
        () = interrupts.next() => return Err(interrupted(&progress)),
    }
    progress.finish();
    Ok(())
}

/// Asks the agent to bring a project up, whose images are there.
async fn bring_up(
    control: &Control,
    loaded: &Loaded,
    options: &UpOptions,
    ready: &Ready,
    progress: &Progress,
) -> Result<(), Failure> {
    let intent = Intent::Up {
        project: Box::new(Definition::from(&loaded.project)),
        options: options.clone(),
    };
    let name = &loaded.project.name;
    control
        .prepared(&ready.seen)
        .act(name, intent, Some(loaded), &ready.plan, progress)
        .await?;
    if control.several() && !control.dry_run() {
        let placed = control.placement(&loaded.project, options, &ready.seen);
        for task in placed.await?.iter().filter(|t| t.node.is_none()) {
            progress.line(&format!("task {} waits: {}", task.task, task.why));
        }
    }
    Ok(())
}

/// Says which containers are as they should be.
fn show_unchanged(ready: &Ready, project: &Project, services: &[String], progress: &Progress) {
    let Seen { containers, .. } = &ready.seen;
    let subjects: Vec<String> = ready
        .plan
        .steps
        .iter()
        .map(|s| s.operation.subject())
        .collect();
    for container in containers.iter().filter(|c| !c.oneoff && c.is_running()) {
        let subject = format!("Container {}", container.name);
        let known = project.any_service(&container.service).is_some();
        let meant = known && (services.is_empty() || services.contains(&container.service));
        if meant && !subjects.contains(&subject) {
            progress.update(&subject, "Running", State::Done);
        }
    }
    if ready.plan.is_empty() {
        progress.line("Nothing to do: everything is as the files say");
    }
}

fn interrupted(progress: &Progress) -> Failure {
    progress.finish();
    Failure::Interrupted(Message::new(
        "interrupted; what was done so far stays, and the agent finishes what was begun",
    ))
    .help("`wharfie ps` shows how far it is, `wharfie down` takes it down")
}

/// Does the work within a number of seconds, if there is a limit.
pub(super) async fn within<T>(
    seconds: Option<u32>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(seconds) = seconds else {
        return work.await;
    };
    match tokio::time::timeout(Duration::from_secs(seconds.into()), work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::TimedOut(Message::new(format!(
            "the services were not all running or healthy within {seconds} s"
        )))
        .help("`wharfie ps` shows their state, `wharfie logs` what they say")),
    }
}
