//! Options that `up`, `create`, `plan` and `run` share: what the plan is to look like.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use wharfie_compose::Loaded;
use wharfie_core::Plan;
use wharfie_core::reconcile::UpOptions;

use super::images_of_others;
use crate::context::Context;
use crate::control::{Control, Execution, Seen};
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{warn, when};

/// Which images are pulled and built.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Images {
    /// Build images even if they are there
    #[arg(long, conflicts_with = "no_build")]
    pub(crate) build: bool,
    /// Never build images
    #[arg(long)]
    pub(crate) no_build: bool,
    /// When to pull images [default: each service's own policy]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) pull: Option<PullPolicy>,
    /// Say nothing about pulls
    #[arg(long)]
    pub(crate) quiet_pull: bool,
    /// Say nothing about builds
    #[arg(long)]
    pub(crate) quiet_build: bool,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Even if they are there
    Always,
    /// If they are not there
    #[value(alias = "if_not_present")]
    Missing,
    /// Not at all
    Never,
    /// Not at all: they are built
    Build,
}

impl Images {
    /// What executing a plan has to know.
    pub(crate) fn execution(&self) -> Execution {
        Execution {
            quiet_pull: self.quiet_pull,
            quiet_build: self.quiet_build,
            ..Execution::default()
        }
    }

    fn policy(&self) -> Option<String> {
        self.pull.map(|p| {
            match p {
                PullPolicy::Always => "always",
                PullPolicy::Missing => "missing",
                PullPolicy::Never => "never",
                PullPolicy::Build => "build",
            }
            .to_owned()
        })
    }
}

/// What the plan is to look like.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_excessive_bools)] // they are the options as typed
pub(crate) struct Shape {
    /// Images.
    #[command(flatten)]
    pub(crate) images: Images,
    /// Recreate containers even if nothing has changed
    #[arg(long, conflicts_with = "no_recreate")]
    pub(crate) force_recreate: bool,
    /// Keep containers even if something has changed
    #[arg(long)]
    pub(crate) no_recreate: bool,
    /// Remove containers of services that are not in the files
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", hide_env = true)]
    pub(crate) remove_orphans: bool,
    /// Number of containers of a service, in place of the file's (several are possible)
    #[arg(long = "scale", value_name = "SERVICE=NUMBER", value_parser = parse_scale)]
    pub(crate) scale: Vec<(String, u32)>,
    /// Node to run it on, by name or id [default: the one it is on, else this one]
    #[arg(long, value_name = "NODE")]
    pub(crate) on: Option<String>,

    /// Wait until what is wanted is durable on so many nodes
    #[arg(long, value_name = "NODES")]
    pub(crate) replicated: Option<usize>,
}

/// Where a stack is to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place<'a> {
    /// The node.
    pub(crate) on: Option<&'a str>,
    /// On how many nodes what is wanted must be durable.
    pub(crate) replicated: Option<usize>,
}

impl Shape {
    /// Where the stack is to be.
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            on: self.on.as_deref(),
            replicated: self.replicated,
        }
    }

    /// The options of a plan for services (all if none is named).
    pub(crate) fn up_options(&self, services: &[String]) -> UpOptions {
        UpOptions {
            services: services.to_vec(),
            force_recreate: self.force_recreate,
            no_recreate: self.no_recreate,
            remove_orphans: self.remove_orphans,
            scale: self.scale.iter().cloned().collect::<BTreeMap<_, _>>(),
            build: self.images.build,
            no_build: self.images.no_build,
            pull: self.images.policy(),
            now: when::now(),
            ..UpOptions::default()
        }
    }
}

/// Options of `up` and `plan` beyond [`Shape`].
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_excessive_bools)] // they are the options as typed
pub(crate) struct UpShape {
    /// What the plan is to look like.
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// Leave out the services that the named ones depend on
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Recreate also what the named services depend on
    #[arg(long, conflicts_with = "no_recreate")]
    pub(crate) always_recreate_deps: bool,
    /// Give recreated containers new anonymous volumes
    #[arg(short = 'V', long)]
    pub(crate) renew_anon_volumes: bool,
    /// Create containers, but do not start them
    #[arg(long)]
    pub(crate) no_start: bool,
    /// Seconds that containers may take to stop [default: each service's own time]
    #[arg(short, long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
}

impl UpShape {
    /// The options of a plan for services (all if none is named).
    pub(crate) fn up_options(&self, services: &[String]) -> UpOptions {
        UpOptions {
            no_deps: self.no_deps,
            always_recreate_deps: self.always_recreate_deps,
            renew_anonymous_volumes: self.renew_anon_volumes,
            no_start: self.no_start,
            timeout: self.timeout.map(i64::from),
            ..self.shape.up_options(services)
        }
    }
}

/// Reads `SERVICE=NUMBER`.
pub(crate) fn parse_scale(text: &str) -> Result<(String, u32), String> {
    let Some((service, number)) = text.split_once('=') else {
        return Err("write SERVICE=NUMBER, as in web=3".to_owned());
    };
    match number.parse() {
        Ok(number) if !service.is_empty() => Ok((service.to_owned(), number)),
        _ => Err(format!(
            "{number:?} is no number of containers: write SERVICE=NUMBER, as in web=3"
        )),
    }
}

/// A plan that is ready: the images are there, and nothing stands against it.
#[derive(Default)]
pub(crate) struct Ready {
    /// What it was made from.
    pub(crate) seen: Seen,
    /// What is to be done.
    pub(crate) plan: Plan,
}

/// Plans, checks, and prepares the images. With `--dry-run` images are left alone, and the plan
/// is the first one, with images in it.
pub(crate) async fn prepare(
    control: &Control,
    loaded: &Loaded,
    options: &UpOptions,
    execution: &Execution,
    progress: &Progress,
) -> Result<Ready, Failure> {
    let mut seen = control.observe(&loaded.project).await?;
    let mut plan = control.plan_up(loaded, &seen, options)?;
    if !control.dry_run()
        && images_of_others::take_from_others(control, &seen, options, &plan, progress).await?
    {
        seen = control.observe(&loaded.project).await?;
        plan = control.plan_up(loaded, &seen, options)?;
    }
    wharfie_core::spare::create(&loaded.project, &seen, &mut plan);
    let silent = loaded
        .project
        .environment
        .get("COMPOSE_IGNORE_ORPHANS")
        .is_some_and(|v| truthy(v));
    for notice in &plan.notices {
        if !(silent && notice.contains("orphan")) {
            warn(notice);
        }
    }
    control.check(loaded, &plan)?;
    if control.dry_run() || !plan.prepares_images() {
        return Ok(Ready { seen, plan });
    }
    let images = plan.images_only();
    control
        .execute(Some(&loaded.project), &seen, &images, execution, progress)
        .await?;
    let seen = control.observe(&loaded.project).await?;
    let options = UpOptions {
        images_done: true,
        ..options.clone()
    };
    let mut plan = control.plan_up(loaded, &seen, &options)?;
    wharfie_core::spare::create(&loaded.project, &seen, &mut plan);
    Ok(Ready { seen, plan })
}

fn truthy(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "1" | "true" | "t" | "yes" | "y" | "on"
    )
}

/// Loads the files with the services active, and makes sure that they and those that are scaled
/// exist.
pub(crate) fn load(
    context: &Context,
    services: &[String],
    shape: &Shape,
) -> Result<Loaded, Failure> {
    let mut named = services.to_vec();
    named.extend(shape.scale.iter().map(|(s, _)| s.clone()));
    let loaded = context.load(services)?;
    crate::context::check_services(&loaded.project, &named)?;
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_read() {
        assert_eq!(parse_scale("web=3"), Ok(("web".to_owned(), 3)));
        for wrong in ["web", "web=", "=3", "web=-1", "web=x"] {
            assert!(parse_scale(wrong).is_err(), "{wrong}");
        }
    }
}
