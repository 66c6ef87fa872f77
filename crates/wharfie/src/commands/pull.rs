//! `wharfie pull`.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use wharfie_core::{Operation, Plan, names, reconcile};

use crate::context::{self, Context};
use crate::control::{Control, Execution};
use crate::failure::Failure;
use crate::output::warn;
use crate::signals::Interrupts;
use wharfie_core::reconcile::lifecycle as plans;

/// Pulls the images of services.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie pull\n  wharfie pull --policy missing --ignore-buildable web"
)]
#[allow(clippy::struct_excessive_bools)] // they are the options as typed
pub(crate) struct Pull {
    /// Leave out images that can be built
    #[arg(long)]
    ignore_buildable: bool,
    /// Go on after failures, and only warn of them
    #[arg(long)]
    ignore_pull_failures: bool,
    /// Also pull what the named services depend on
    #[arg(long)]
    include_deps: bool,
    /// When to pull [default: always]
    #[arg(long, value_enum, value_name = "POLICY")]
    policy: Option<Policy>,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// Only those that are not there
    Missing,
    /// All
    Always,
}

impl Pull {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let loaded = context.load(&self.services)?;
        let project = &loaded.project;
        context::check_services(project, &self.services)?;
        let control = Control::connect_for(context, &project.name, None).await?;
        let seen = control.observe(project).await?;
        let selection = reconcile::selection(project, &self.services, !self.include_deps)
            .map_err(|r| Failure::usage(r.to_string()))?;
        let (mut plan, mut wanted) = (Plan::default(), BTreeSet::new());
        for service in selection.into_values() {
            let image = names::image(project, service);
            let buildable = service.build.is_some();
            let nowhere_else = service.image.is_empty() || service.provider.is_some();
            let there = self.policy == Some(Policy::Missing) && seen.images.contains_key(&image);
            if nowhere_else
                || there
                || (buildable && self.ignore_buildable)
                || !wanted.insert(image.clone())
            {
                continue;
            }
            let service = service.name.clone();
            plan.push(Operation::PullImage { service, image }, Vec::new());
        }
        let progress = context.progress_unless(self.quiet);
        progress.title("Pulling");
        let mut interrupts = Interrupts::listen()?;
        let execution = Execution {
            quiet_pull: self.quiet,
            ..Execution::default()
        };
        // A plan ends at its first failure; those that may fail are plans of their own.
        let parts = if self.ignore_pull_failures && !context.dry_run() {
            (0..plan.steps.len())
                .map(|i| plans::only(&plan, i))
                .collect()
        } else {
            vec![plan]
        };
        let work = parts
            .iter()
            .map(|p| control.execute(Some(project), &seen, p, &execution, &progress));
        tokio::select! {
            results = futures_util::future::join_all(work) => {
                let failures: Vec<Failure> = results.into_iter().filter_map(Result::err).collect();
                for failure in failures {
                    match failure {
                        Failure::Failed(m) if self.ignore_pull_failures => warn(&m.what),
                        failure => return Err(failure),
                    }
                }
                Ok(())
            }
            () = interrupts.next() => {
                progress.finish();
                Err(Failure::Interrupted(crate::failure::Message::new("interrupted")))
            }
        }
    }
}
