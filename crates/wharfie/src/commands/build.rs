//! `wharfie build`.

use std::collections::BTreeMap;

use clap::Args;
use wharfie_compose::model;
use wharfie_core::{Operation, Plan, names, reconcile};

use crate::context::{self, Context};
use crate::control::{BuildFlags, Control, Execution};
use crate::failure::Failure;
use crate::output::progress::{Progress, State};
use crate::output::{self, warn};
use crate::signals::Interrupts;

/// Builds the images of services that have a "build" section.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie build\n  wharfie build --no-cache --build-arg VERSION=2 web\n  wharfie build --ssh default --push web\n  wharfie build --progress plain 2> build.log"
)]
pub(crate) struct Build {
    /// Set a build argument (several are possible; without a value it is taken from the environment)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Builder to use (only "default", the Engine's own)
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
    /// Not possible here: the Engine's checks are told while it builds
    #[arg(long, hide = true)]
    check: bool,
    /// Memory the steps may use, as "512m" (the classic builder only)
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Do not use the cache
    #[arg(long)]
    no_cache: bool,
    /// Print the builds as a bake file, and do nothing
    #[arg(long)]
    print: bool,
    /// Add a provenance attestation ("true", "false", "mode=max" and the like)
    #[arg(long, value_name = "WHAT")]
    provenance: Option<String>,
    /// Pull base images even if they are there
    #[arg(long)]
    pull: bool,
    /// Push the images when they are built
    #[arg(long)]
    push: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Add an SBOM attestation ("true", "false")
    #[arg(long, value_name = "WHAT")]
    sbom: Option<String>,
    /// SSH agent for the build: "default", or an id with the agent's socket (several are possible)
    #[arg(long, value_name = "default|ID=SOCKET")]
    ssh: Vec<String>,
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
        if let Some(name) = self.builder.as_deref().filter(|n| *n != "default") {
            return Err(Failure::usage(format!(
                "--builder {name}: images are built with the Engine's own builder: leave it out"
            )));
        }
        if self.check {
            return Err(Failure::usage(
                "--check: the Engine's BuildKit tells its checks while it builds (lines with WARN): build without it",
            ));
        }
        let memory = self.memory.as_deref().map_or(Ok(0), memory)?;
        let loaded = context.load(&self.services)?;
        let project = &loaded.project;
        context::check_services(project, &self.services)?;
        let selection = reconcile::selection(project, &self.services, !self.with_dependencies)
            .map_err(|r| Failure::usage(r.to_string()))?;
        if self.print {
            let built = selection.into_values();
            let built = built.filter_map(|s| Some((s, s.build.as_ref()?)));
            let file = super::bake::file(project, built);
            return Ok(output::lines([format!("{file:#}")])?);
        }
        let mut plan = Plan::default();
        let mut built: Vec<(String, &Option<model::Build>)> = Vec::new();
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
        let control = Control::connect_for(context, &project.name, None).await?;
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
                ssh: self.ssh.iter().map(|a| parse_argument(a)).collect(),
                provenance: self.provenance.clone(),
                sbom: self.sbom.clone(),
                memory,
            },
            quiet_build: self.quiet,
            ..Execution::default()
        };
        let progress = context.progress_unless(self.quiet);
        progress.title("Building");
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            done = async {
                control.execute(Some(project), &seen, &plan, &execution, &progress).await?;
                if self.push && !control.dry_run() {
                    self.push(&control, &built, &progress).await?;
                }
                Ok(())
            } => done,
            () = interrupts.next() => {
                progress.finish();
                Err(Failure::Interrupted(crate::failure::Message::new("interrupted; nothing was built")))
            }
        }
    }
}

impl Build {
    /// Pushes what was built, under all its names.
    async fn push(
        &self,
        control: &Control,
        built: &[(String, &Option<model::Build>)],
        progress: &Progress,
    ) -> Result<(), Failure> {
        for (image, build) in built {
            let tags = build.iter().flat_map(|b| &b.tags);
            for name in std::iter::once(image).chain(tags) {
                let subject = format!("Image {name}");
                progress.update(&subject, "Pushing", State::Working);
                let mut say = |line: &str| progress.detail(&subject, line);
                match control.engine().push(name, &mut say).await {
                    Ok(()) => progress.update(&subject, "Pushed", State::Done),
                    Err(error) => {
                        progress.update(&subject, "Error", State::Failed);
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Bytes, as in "512m".
fn memory(text: &str) -> Result<i64, Failure> {
    let lower = text.trim().to_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match digits.strip_suffix(['k', 'm', 'g']) {
        Some(number) if digits.ends_with('k') => (number, 10),
        Some(number) if digits.ends_with('m') => (number, 20),
        Some(number) => (number, 30),
        None => (digits, 0),
    };
    let number: Option<i64> = digits.parse().ok().filter(|n| *n > 0);
    number
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| {
            Failure::usage(format!(
                "--memory {text:?} is no number of bytes: as in 512m"
            ))
        })
}

fn parse_argument(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}
