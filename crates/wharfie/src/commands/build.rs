//! `wharfie build`.

use std::collections::BTreeMap;

use clap::Args;
use wharfie_core::{Operation, Plan, names, reconcile};

use crate::context::{self, Context};
use crate::control::{BuildFlags, Control, Execution};
use crate::failure::Failure;
use crate::output::warn;
use crate::signals::Interrupts;

/// Builds the images of services that have a "build" section.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie build\n  wharfie build --no-cache --build-arg VERSION=2 web\n  wharfie build --progress plain 2> build.log"
)]
pub(crate) struct Build {
    /// Set a build argument (several are possible; without a value it is taken from the environment)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Do not use the cache
    #[arg(long)]
    no_cache: bool,
    /// Pull base images even if they are there
    #[arg(long)]
    pull: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Also build what the named services depend on
    #[arg(long)]
    with_dependencies: bool,
    /// Services to build [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Build {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let loaded = context.load(&self.services)?;
        let project = &loaded.project;
        context::check_services(project, &self.services)?;
        let selection = reconcile::selection(project, &self.services, !self.with_dependencies)
            .map_err(|r| Failure::usage(r.to_string()))?;
        let mut plan = Plan::default();
        let mut built: Vec<(String, &Option<wharfie_compose::model::Build>)> = Vec::new();
        for service in selection.into_values().filter(|s| s.build.is_some()) {
            let same = (names::image(project, service), &service.build);
            if built.contains(&same) {
                continue;
            }
            built.push(same);
            let operation = Operation::BuildImage {
                service: service.name.clone(),
                image: names::image(project, service),
            };
            // One after the other: an image may be made from another one.
            let after = plan.steps.len().checked_sub(1).into_iter().collect();
            plan.push(operation, after);
        }
        if plan.is_empty() {
            warn("no service to build: none has a `build` section");
            return Ok(());
        }
        let control = Control::connect(context).await?;
        control.check(&loaded, &plan)?;
        let seen = control.observe(project).await?;
        let execution = Execution {
            build: BuildFlags {
                no_cache: self.no_cache,
                pull: self.pull,
                args: self
                    .build_args
                    .iter()
                    .map(|a| parse_argument(a))
                    .collect::<BTreeMap<_, _>>(),
            },
            quiet_build: self.quiet,
            ..Execution::default()
        };
        let progress = context.progress_unless(self.quiet);
        progress.title("Building");
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            done = control.execute(Some(project), &seen, &plan, &execution, &progress) => done,
            () = interrupts.next() => {
                progress.finish();
                Err(Failure::Interrupted(crate::failure::Message::new("interrupted; nothing was built")))
            }
        }
    }
}

fn parse_argument(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}
