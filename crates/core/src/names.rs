//! Names on the Engine.

use wharfie_compose::model::{Project, Service};

/// Name of a container: `container_name`, or `<project>-<service>-<number>`.
#[must_use]
pub fn container(project: &str, service: &Service, number: u32) -> String {
    if service.container_name.is_empty() {
        format!("{project}-{}-{number}", service.name)
    } else {
        service.container_name.clone()
    }
}

/// Image of a service: `image`, or `<project>-<service>` for one that is built.
#[must_use]
pub fn image(project: &Project, service: &Service) -> String {
    if service.image.is_empty() {
        format!("{}-{}", project.name, service.name)
    } else {
        service.image.clone()
    }
}
