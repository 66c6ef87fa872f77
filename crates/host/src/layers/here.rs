//! What the Engine says of the images it has.

use bollard::query_parameters::{ListImagesOptionsBuilder, TagImageOptionsBuilder};
use futures_util::{FutureExt, StreamExt, stream};

use super::Digest;
use super::split::estimate;
use crate::image::can_be_image;
use crate::{Engine, Error};

/// Questions to the Engine at a time.
const PARALLEL: usize = 16;

/// An image on an Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Here {
    pub(super) id: Digest,
    /// The layers' digests, the lowest first.
    pub(super) layers: Vec<Digest>,
    /// Bytes of all layers.
    pub(super) size: u64,
}

impl Engine {
    /// An image by reference or id; `None` if it is not here.
    pub(super) async fn image_here(&self, image: &str) -> Result<Option<Here>, Error> {
        if !can_be_image(image) {
            return Ok(None);
        }
        let context = || format!("cannot inspect image {image}");
        let found = self.docker.inspect_image(image).await;
        let found = match found.map_err(|e| Error::from_engine(context(), e)) {
            Ok(found) => found,
            Err(e) if e.is_not_found() => return Ok(None),
            // A name that cannot be one.
            Err(Error::Refused { status: 400, .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let strange = |what: &str| Error::Refused {
            context: context(),
            message: format!("the Engine names no {what} of it"),
            status: 500,
        };
        let layers = found.root_fs.and_then(|r| r.layers).unwrap_or_default();
        let layers = layers
            .iter()
            .map(|l| Digest::parse(l))
            .collect::<Option<_>>();
        Ok(Some(Here {
            id: found
                .id
                .and_then(|id| Digest::parse(&id))
                .ok_or_else(|| strange("id"))?,
            layers: layers.ok_or_else(|| strange("layers"))?,
            size: found.size.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
        }))
    }

    /// About how large each layer of an image is.
    pub(super) async fn layer_sizes(&self, image: &Here) -> Result<Vec<u64>, Error> {
        let history = self.docker.image_history(&image.id.to_string()).await;
        let history =
            history.map_err(|e| Error::from_engine("cannot read an image's history", e))?;
        let sizes = history
            .iter()
            .rev()
            .map(|h| u64::try_from(h.size).unwrap_or(0));
        let sizes: Vec<u64> = sizes.collect();
        Ok(estimate(&sizes, image.layers.len(), image.size))
    }

    /// All images that are here.
    pub(super) async fn images_here(&self) -> Result<Vec<Here>, Error> {
        let options = ListImagesOptionsBuilder::default().build();
        let images = self.docker.list_images(Some(options)).await;
        let images = images.map_err(|e| Error::from_engine("cannot list images", e))?;
        let ids: Vec<String> = images.into_iter().map(|image| image.id).collect();
        let ask = |id: String| async move { self.image_here(&id).await }.boxed();
        let found = stream::iter(ids.into_iter().map(ask)).buffer_unordered(PARALLEL);
        let found: Vec<Result<Option<Here>, Error>> = found.collect().await;
        // An image that is strange or gone by now has no layers that we could count on.
        Ok(found.into_iter().filter_map(|f| f.ok().flatten()).collect())
    }

    /// Whether images are kept in containerd rather than by the Engine itself. They then have
    /// other ids, and are loaded whole.
    pub(super) async fn keeps_in_containerd(&self) -> Result<bool, Error> {
        let info = self.docker.info().await;
        let info = info.map_err(|e| Error::from_engine("cannot ask the Engine what it is", e))?;
        let status = info.driver_status.unwrap_or_default();
        Ok(status
            .iter()
            .any(|pair| matches!(&pair[..], [key, value] if key == "driver-type" && value.contains("snapshotter"))))
    }

    /// Gives an image a name.
    pub(super) async fn name_image(&self, id: &Digest, name: &Name) -> Result<(), Error> {
        let options = TagImageOptionsBuilder::default()
            .repo(&name.repository)
            .tag(&name.tag)
            .build();
        let tagged = self.docker.tag_image(&id.to_string(), Some(options)).await;
        tagged.map_err(|e| Error::from_engine(format!("cannot name an image {name}"), e))
    }
}

/// A name that an image can be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    repository: String,
    tag: String,
}

impl Name {
    /// The name in what a user wrote; `None` if that is an id of the image, or has a digest:
    /// Docker gives such names only to what it pulls itself.
    pub(super) fn of(written: &str, ids: &[&Digest]) -> Option<Self> {
        let digits = written.strip_prefix("sha256:").unwrap_or(written);
        let is_id = !digits.is_empty() && ids.iter().any(|id| id.hex().starts_with(digits));
        if is_id || written.contains('@') {
            return None;
        }
        let last = written.rfind('/').map_or(0, |at| at + 1);
        let (repository, tag) = match written[last..].split_once(':') {
            Some((name, tag)) => (&written[..last + name.len()], tag),
            None => (written, "latest"),
        };
        Some(Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_ids() {
        let id = Digest::of("x");
        let name = |written: &str| Name::of(written, &[&id]).map(|n| n.to_string());
        assert_eq!(name("app").as_deref(), Some("app:latest"));
        assert_eq!(
            name("host:5000/app").as_deref(),
            Some("host:5000/app:latest")
        );
        assert_eq!(name("host:5000/app:2").as_deref(), Some("host:5000/app:2"));
        assert_eq!(name("cafe").as_deref(), Some("cafe:latest"));
        assert_eq!(name(&id.to_string()), None);
        assert_eq!(name(id.short()), None);
        assert_eq!(name(&format!("app@{id}")), None);
    }
}
