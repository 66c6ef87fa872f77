//! Which containers a command means.

use crate::context::Target;
use crate::control::{Container, Control};
use crate::failure::Failure;

/// The containers of a project's services (of all if none is named), without those of `run`.
pub(crate) async fn containers(
    control: &Control,
    target: &Target,
    services: &[String],
) -> Result<Vec<Container>, Failure> {
    let mut containers = control.containers(&target.name).await?;
    containers.retain(|c| !c.oneoff);
    check_known(target, &containers, services)?;
    containers.retain(|c| services.is_empty() || services.contains(&c.service));
    Ok(containers)
}

/// Without files the containers tell which services there are.
pub(crate) fn check_known(
    target: &Target,
    containers: &[Container],
    services: &[String],
) -> Result<(), Failure> {
    if target.loaded.is_some() {
        return Ok(());
    }
    match services
        .iter()
        .find(|s| containers.iter().all(|c| &c.service != *s))
    {
        Some(service) => Err(Failure::failed(format!(
            "no such service: project {:?} has no container of {service}",
            target.name
        ))),
        None => Ok(()),
    }
}

/// One container of a service: the one with this number, or the first, one that runs if there is
/// one.
pub(crate) async fn any(
    control: &Control,
    target: &Target,
    service: &str,
    index: Option<u32>,
) -> Result<Container, Failure> {
    let containers = control.containers(&target.name).await?;
    let of_service = containers
        .into_iter()
        .filter(|c| !c.oneoff && c.service == service)
        .filter(|c| index.is_none_or(|i| c.number == i));
    let first = of_service.min_by_key(|c| (!c.is_running(), c.number));
    first.ok_or_else(|| match index {
        Some(index) => Failure::failed(format!(
            "service {service:?} has no container number {index}"
        )),
        None => Failure::failed(format!("service {service:?} has no container"))
            .help(format!("make one with `wharfie create {service}`")),
    })
}

/// One running container of a service: the one with this number, or the first.
pub(crate) async fn running(
    control: &Control,
    target: &Target,
    service: &str,
    index: Option<u32>,
) -> Result<Container, Failure> {
    let containers = control.containers(&target.name).await?;
    let mut of_service = containers
        .into_iter()
        .filter(|c| !c.oneoff && c.service == service)
        .filter(|c| index.is_none_or(|i| c.number == i))
        .collect::<Vec<_>>();
    of_service.sort_by_key(|c| (!c.is_running(), c.number));
    match (of_service.into_iter().next(), index) {
        (Some(container), _) if container.is_running() => Ok(container),
        (_, Some(index)) => Err(Failure::failed(format!(
            "service {service:?} has no running container number {index}"
        ))),
        (_, None) => Err(
            Failure::failed(format!("service {service:?} is not running"))
                .help(format!("start it with `wharfie up -d {service}`")),
        ),
    }
}
