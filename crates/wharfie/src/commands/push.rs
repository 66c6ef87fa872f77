//! `wharfie push`.

use clap::Args;
use futures_util::StreamExt;
use wharfie_compose::model::Service;
use wharfie_core::reconcile;

use crate::context::{self, Context};
use crate::control::Control;
use crate::failure::{Failure, Message};
use crate::output;
use crate::output::progress::{Progress, State};
use crate::output::warn;
use crate::signals::Interrupts;

/// Pushes the images that are built here to their registries.
///
/// Services without a "build" section or without an "image" to name it are left out. Credentials
/// are those of `docker login`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie build && wharfie push\n  wharfie push --ignore-push-failures web"
)]
pub(crate) struct Push {
    /// Go on after failures, and only warn of them
    #[arg(long)]
    ignore_push_failures: bool,
    /// Also push what the named services depend on
    #[arg(long)]
    include_deps: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Pushes at a time where there is no limit.
const AT_ONCE: usize = 8;

impl Push {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let loaded = context.load(&self.services)?;
        let project = &loaded.project;
        context::check_services(project, &self.services)?;
        let selection = reconcile::selection(project, &self.services, !self.include_deps)
            .map_err(|r| Failure::usage(r.to_string()))?;
        let progress = context.progress_unless(self.quiet);
        progress.title("Pushing");
        let mut references: Vec<String> = Vec::new();
        let mut left_out: Vec<&str> = Vec::new();
        for (name, service) in &selection {
            match references_of(service) {
                Some(more) => references.extend(more),
                None => left_out.push(*name),
            }
        }
        references.sort();
        references.dedup();
        let control = Control::connect_for(context, &project.name, None).await?;
        if context.dry_run() {
            return Ok(output::lines(
                references.iter().map(|r| format!("push image {r}")),
            )?);
        }
        for service in left_out {
            progress.update(service, "Skipped", State::Done);
        }
        let at_once = usize::try_from(context.global.parallel).unwrap_or(AT_ONCE);
        let mut interrupts = Interrupts::listen()?;
        let work = futures_util::stream::iter(&references)
            .map(|reference| push(&control, reference, &progress))
            .buffer_unordered(at_once.max(1))
            .collect::<Vec<_>>();
        let results = tokio::select! {
            results = progress.during(work) => results,
            () = interrupts.next() => {
                progress.finish();
                return Err(Failure::Interrupted(Message::new("interrupted")));
            }
        };
        let mut failures = Vec::new();
        for failure in results.into_iter().filter_map(Result::err) {
            match failure {
                Failure::Failed(m) if self.ignore_push_failures => warn(&m.what),
                failure => failures.push(failure),
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Failure::all(failures)),
        }
    }
}

/// The names that a service's image is pushed under, if it is made here and has one.
fn references_of(service: &Service) -> Option<Vec<String>> {
    let build = service.build.as_ref()?;
    if service.image.is_empty() {
        return None;
    }
    let mut references = vec![service.image.clone()];
    references.extend(build.tags.iter().cloned());
    Some(references)
}

async fn push(control: &Control, reference: &str, progress: &Progress) -> Result<(), Failure> {
    let subject = format!("Image {reference}");
    progress.update(&subject, "Pushing", State::Working);
    let mut note = |line: &str| progress.detail(&subject, line);
    let pushed = control.engine().push(reference, &mut note).await;
    match &pushed {
        Ok(()) => progress.update(&subject, "Pushed", State::Done),
        Err(_) => progress.update(&subject, "Error", State::Failed),
    }
    Ok(pushed?)
}
