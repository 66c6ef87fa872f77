//! Images from registries.

use std::collections::HashMap;

use bollard::models::ImageDeleteResponseItem;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, PruneImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures_util::StreamExt;

use crate::registry::{self, Login};
use crate::{Engine, Error};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemovedImages {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// Ids of images and layers that are gone.
    pub deleted: Vec<String>,
    /// Bytes that are free now, where the Engine says so.
    pub freed: u64,
}

/// Whether a text can be a name or an id of an image. It becomes part of a path, and must not lead
/// to anything else.
pub(crate) fn can_be_image(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:/@".contains(&b);
    text.bytes().all(allowed) && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

impl RemovedImages {
    fn of(items: Vec<ImageDeleteResponseItem>) -> Self {
        let mut removed = Self::default();
        for item in items {
            removed.untagged.extend(item.untagged);
            removed.deleted.extend(item.deleted);
        }
        removed
    }
}

impl Engine {
    /// Removes a name of an image, and the image with its last one (`DELETE /images/{name}`).
    ///
    /// # Errors
    /// There is no such image, or a container uses it and it is not forced.
    pub async fn remove_image(&self, image: &str, force: bool) -> Result<RemovedImages, Error> {
        if !can_be_image(image) {
            return Err(Error::Local(format!("{image:?} is no name of an image")));
        }
        let options = RemoveImageOptionsBuilder::default().force(force).build();
        let client = self.patient(600);
        let removed = client.remove_image(image, Some(options), None).await;
        let failed = |e| Error::from_engine(format!("cannot remove image {image}"), e);
        removed.map(RemovedImages::of).map_err(failed)
    }

    /// Removes the images that no container uses and that have no name; with `named` also those
    /// that have one (`POST /images/prune`).
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn remove_unused_images(&self, named: bool) -> Result<RemovedImages, Error> {
        let dangling = if named { "false" } else { "true" };
        let filters = HashMap::from([("dangling".to_owned(), vec![dangling.to_owned()])]);
        let options = PruneImagesOptionsBuilder::default()
            .filters(&filters)
            .build();
        let pruned = self.patient(600).prune_images(Some(options)).await;
        let pruned = pruned.map_err(|e| Error::from_engine("cannot remove unused images", e))?;
        let freed = pruned.space_reclaimed.unwrap_or(0);
        Ok(RemovedImages {
            freed: u64::try_from(freed).unwrap_or(0),
            ..RemovedImages::of(pruned.images_deleted.unwrap_or_default())
        })
    }

    /// Pulls an image (`POST /images/create`); `progress` gets each change of state.
    ///
    /// # Errors
    /// The registry does not have it, cannot be reached, or refuses.
    pub async fn pull(
        &self,
        image: &str,
        platform: &str,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Error> {
        // Without a tag the Engine would pull them all.
        let named =
            if image.contains('@') || image.rsplit('/').next().is_some_and(|n| n.contains(':')) {
                image.to_owned()
            } else {
                format!("{image}:latest")
            };
        let mut options = CreateImageOptionsBuilder::default().from_image(&named);
        if !platform.is_empty() {
            options = options.platform(platform);
        }
        let login = registry::credentials(registry::of_image(&named)).await?;
        let login = login.map(Login::header);
        let mut stream = self.docker.create_image(Some(options.build()), None, login);
        let failed = |e| Error::from_engine(format!("cannot pull {image}"), e);
        while let Some(info) = stream.next().await {
            let info = info.map_err(failed)?;
            if let Some(message) = info.error_detail.and_then(|e| e.message) {
                return Err(Error::Refused {
                    context: format!("cannot pull {image}"),
                    message,
                    status: 500,
                });
            }
            if let Some(status) = info.status {
                let id = info.id.map(|id| format!("{id}: ")).unwrap_or_default();
                progress(&format!("{id}{status}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::can_be_image;

    #[test]
    fn what_leads_elsewhere_is_no_image() {
        for good in [
            "app",
            "host:5000/shop/web_1:2.0-a",
            "a@sha256:00",
            "sha256:cafe",
        ] {
            assert!(can_be_image(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "../containers/x",
            "a/../b",
            "a?force=1",
            "a b",
            "a%2f",
            "a//b",
        ] {
            assert!(!can_be_image(bad), "{bad}");
        }
    }
}
