//! Images to registries, and images from containers.

use std::collections::HashMap;

use bollard::models::ContainerConfig;
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, PruneImagesOptionsBuilder, PushImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use wharfie_core::labels;

use crate::registry::{self, Login};
use crate::{Engine, Error};

/// Seconds that the Engine may take to write a container's files down.
const COMMIT: u64 = 3600;

/// How an image is made from a container.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Name of the image, perhaps with a tag; empty for none.
    pub reference: String,
    /// Author.
    pub author: String,
    /// Message.
    pub message: String,
    /// Instructions as in a Dockerfile, such as `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// Whether the container is halted meanwhile.
    pub pause: bool,
}

/// A reference without its tag, and the tag if it has one.
fn split(reference: &str) -> (&str, Option<&str>) {
    let last = reference.rfind('/').map_or(0, |at| at + 1);
    match reference[last..].split_once(':') {
        Some((_, tag)) if !reference.contains('@') => {
            (&reference[..reference.len() - tag.len() - 1], Some(tag))
        }
        _ => (reference, None),
    }
}

impl Engine {
    /// Pushes an image (`POST /images/{name}/push`); `progress` gets each change of state. A
    /// reference without a tag means `latest`.
    ///
    /// # Errors
    /// There is no such image, or the registry cannot be reached or refuses.
    pub async fn push(
        &self,
        reference: &str,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Error> {
        let context = || format!("cannot push {reference}");
        let (name, tag) = split(reference);
        let options = PushImageOptionsBuilder::default()
            .tag(tag.unwrap_or("latest"))
            .build();
        let login = registry::credentials(registry::of_image(reference)).await?;
        let login = login.map(Login::header);
        let mut stream = self.docker.push_image(name, Some(options), login);
        let mut last = None;
        while let Some(info) = stream.next().await {
            let info = info.map_err(|e| Error::from_engine(context(), e))?;
            if let Some(message) = info.error_detail.and_then(|e| e.message) {
                return Err(Error::Refused {
                    context: context(),
                    message,
                    status: 500,
                });
            }
            // A line for each new state, not for each percent.
            if info.status.is_some() && info.status != last {
                last = info.status;
                progress(last.as_deref().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Makes an image of what a container's files are now (`POST /commit`); its id.
    ///
    /// # Errors
    /// The Engine refuses: the name or an instruction is none.
    pub async fn commit(&self, container: &str, wanted: &CommitOptions) -> Result<String, Error> {
        let context = match wanted.reference.as_str() {
            "" => format!("cannot make an image of {container}"),
            name => format!("cannot make image {name} of {container}"),
        };
        let (repository, tag) = split(&wanted.reference);
        let changes = wanted.changes.join("\n");
        let mut options = CommitContainerOptionsBuilder::default()
            .container(container)
            .comment(&wanted.message)
            .author(&wanted.author)
            .pause(wanted.pause);
        // No instructions at all would be a fault.
        if !changes.is_empty() {
            options = options.changes(&changes);
        }
        if !repository.is_empty() {
            options = options.repo(repository).tag(tag.unwrap_or("latest"));
        }
        // The container's own configuration counts where this one says nothing.
        let config = ContainerConfig::default();
        let made = self
            .patient(COMMIT)
            .commit_container(options.build(), config)
            .await;
        let made = made.map_err(|e| Error::from_engine(context, e))?;
        Ok(made.id)
    }

    /// Removes the images of a project that builds have left without a name
    /// (`POST /images/prune`).
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn prune_images(&self, project: &str) -> Result<(), Error> {
        let filters = HashMap::from([
            ("dangling".to_owned(), vec!["true".to_owned()]),
            (
                "label".to_owned(),
                vec![format!("{}={project}", labels::PROJECT)],
            ),
        ]);
        let options = PruneImagesOptionsBuilder::default()
            .filters(&filters)
            .build();
        let pruned = self.patient(600).prune_images(Some(options)).await;
        pruned.map_err(|e| Error::from_engine("cannot remove old images", e))?;
        Ok(())
    }

    /// All files of a container as an archive (`GET /containers/{id}/export`).
    pub fn export(
        &self,
        container: &str,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + use<> {
        let context = format!("cannot export {container}");
        self.docker
            .export_container(container)
            .map(move |piece| piece.map_err(|e| Error::from_engine(context.clone(), e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split() {
        assert_eq!(split("a/b"), ("a/b", None));
        assert_eq!(split("a/b:1"), ("a/b", Some("1")));
        assert_eq!(split("host:5000/b"), ("host:5000/b", None));
        assert_eq!(split("host:5000/b:1"), ("host:5000/b", Some("1")));
        assert_eq!(split(""), ("", None));
    }
}
