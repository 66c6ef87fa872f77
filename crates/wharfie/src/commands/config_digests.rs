//! `config --resolve-image-digests` and `--lock-image-digests`: images by what they are now.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use serde_json::{Map, Value, json};
use wharfie_compose::Project;

use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;

/// Asks registries, through the Engine, what they have under each name; names with digests.
pub(super) async fn pinned(
    context: &Context,
    images: impl Iterator<Item = String>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut pinned: BTreeMap<String, String> = images
        .filter(|i| !i.is_empty())
        .map(|i| (i, String::new()))
        .collect();
    if pinned.is_empty() {
        return Ok(pinned);
    }
    let control = Control::connect(context).await?;
    let engine = control.engine();
    let names = try_join_all(pinned.keys().map(|image| engine.pinned(image))).await?;
    pinned
        .values_mut()
        .zip(names)
        .for_each(|(slot, name)| *slot = name);
    Ok(pinned)
}

/// Puts the names with digests into a project.
pub(super) fn pin(project: &mut Project, pinned: &BTreeMap<String, String>) {
    for service in project.services.values_mut() {
        if let Some(name) = pinned.get(&service.image) {
            service.image.clone_from(name);
        }
    }
}

/// The override file that has nothing but images.
pub(super) fn lock(project: &Project) -> Value {
    let service = |image: &str| match image {
        "" => json!({}),
        image => json!({ "image": image }),
    };
    let services: Map<String, Value> = project
        .services
        .iter()
        .map(|(name, s)| (name.clone(), service(&s.image)))
        .collect();
    json!({ "services": services })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfie_compose::model::Service;

    #[test]
    fn a_lock_has_images_only() {
        let mut project = Project::default();
        for (name, image) in [("app", ""), ("web", "nginx")] {
            let service = Service {
                image: image.to_owned(),
                user: "root".to_owned(),
                ..Service::default()
            };
            project.services.insert(name.to_owned(), service);
        }
        let names = [("nginx".to_owned(), "docker.io/library/nginx@x".to_owned())];
        pin(&mut project, &BTreeMap::from(names));
        assert_eq!(
            lock(&project),
            json!({ "services": { "app": {}, "web": { "image": "docker.io/library/nginx@x" } } })
        );
    }
}
