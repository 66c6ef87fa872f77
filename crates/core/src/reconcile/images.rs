//! Which images must be pulled or built (compose-spec, `pull_policy`).

use wharfie_compose::model::{Project, Service};

use super::{Refusal, UpOptions};
use crate::names;
use crate::plan::Operation;
use crate::seen::Seen;

/// What a policy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    Missing,
    Never,
    Build,
    /// Pull if the image got its name longer ago than this, in seconds.
    Older(i64),
}

fn policy(text: &str) -> Policy {
    const DAY: i64 = 86_400;
    match text {
        "always" => Policy::Always,
        "never" => Policy::Never,
        "build" => Policy::Build,
        "daily" => Policy::Older(DAY),
        "weekly" => Policy::Older(7 * DAY),
        _ => match text
            .strip_prefix("every_")
            .map(wharfie_compose::units::parse_duration)
        {
            Some(Ok(nanoseconds)) => Policy::Older(nanoseconds / 1_000_000_000),
            _ => Policy::Missing,
        },
    }
}

/// What must be done to have a service's image; `None` if it is here.
pub(super) fn prepare(
    project: &Project,
    service: &Service,
    seen: &Seen,
    options: &UpOptions,
) -> Result<Option<Operation>, Refusal> {
    let image = names::image(project, service);
    let present = seen.images.get(&image);
    let name = service.name.clone();
    let refuse = |why: &str| {
        Err(Refusal::NoImage {
            service: service.name.clone(),
            image: image.clone(),
            why: why.to_owned(),
        })
    };
    if options.images_done {
        return if present.is_some() {
            Ok(None)
        } else {
            refuse("it was not found after it was pulled or built")
        };
    }
    let policy = policy(options.pull.as_deref().unwrap_or(&service.pull_policy));
    let build = || {
        Ok(Some(Operation::BuildImage {
            service: name.clone(),
            image: image.clone(),
        }))
    };
    let pull = || {
        Ok(Some(Operation::PullImage {
            service: name.clone(),
            image: image.clone(),
        }))
    };

    if service.build.is_some() {
        if options.no_build {
            return match present {
                Some(_) => Ok(None),
                None if service.image.is_empty() || policy == Policy::Never => {
                    refuse("--no-build says not to build it")
                }
                None => pull(),
            };
        }
        return match present {
            _ if options.build || policy == Policy::Build => build(),
            None => build(),
            Some(_) => Ok(None),
        };
    }
    match (policy, present) {
        (Policy::Build, None) => refuse("it has no `build` to make it from"),
        (Policy::Never, None) => refuse("its pull policy is `never`"),
        (Policy::Always, _) | (Policy::Missing | Policy::Older(_), None) => pull(),
        (Policy::Older(seconds), Some(image)) if options.now - image.tagged > seconds => pull(),
        (_, Some(_)) => Ok(None),
    }
}
