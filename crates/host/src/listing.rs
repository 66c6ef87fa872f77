//! What listings show of images and volumes beyond what decisions need.

use std::collections::{BTreeMap, HashMap};

use bollard::query_parameters::{ListImagesOptions, ListVolumesOptionsBuilder};
use wharfie_core::labels;
use wharfie_core::report::{Report, ReportedImage};

use crate::{Engine, Error};

/// An image in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDetails {
    /// Id (`sha256:…`).
    pub id: String,
    /// Operating system, architecture and perhaps its variant, as in `linux/amd64`.
    pub platform: String,
    /// Bytes.
    pub size: u64,
    /// When its name was last given to it (RFC 3339), if ever.
    pub tagged: Option<String>,
}

/// A volume in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeDetails {
    /// Name on the Engine.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Where it is on the host.
    pub mountpoint: String,
    /// `local` or `global`.
    pub scope: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// How Go writes a time that was never set.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// What the Engine's host is (`GET /info`, `GET /version`), as the beginning of a report.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn host(&self) -> Result<Report, Error> {
        let version = self.version().await?;
        let info = self.docker.info().await;
        let info = info.map_err(|e| Error::from_engine("cannot ask the Engine what it is", e))?;
        Ok(Report {
            cpus: info.ncpu.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            memory: info
                .mem_total
                .and_then(|n| u64::try_from(n).ok())
                .unwrap_or(0),
            engine: version.engine,
            os: version.os,
            arch: version.arch,
            engine_labels: labels(info.labels.unwrap_or_default()),
            generic: generic(info.generic_resources.unwrap_or_default()),
            ..Report::default()
        })
    }

    /// All images that have a name, by id (`GET /images/json`).
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn all_images(&self) -> Result<Vec<ReportedImage>, Error> {
        let list = self.docker.list_images(None::<ListImagesOptions>).await;
        let list = list.map_err(|e| Error::from_engine("cannot list images", e))?;
        let mut images: Vec<ReportedImage> = list
            .into_iter()
            .map(|image| {
                let mut tags = image.repo_tags;
                tags.retain(|t| t != "<none>:<none>");
                tags.sort();
                ReportedImage {
                    id: image.id,
                    tags,
                    size: u64::try_from(image.size).unwrap_or(0),
                }
            })
            .filter(|image| !image.tags.is_empty())
            .collect();
        images.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(images)
    }

    /// An image by reference or id (`GET /images/{name}/json`); `None` if it is not here.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn image_details(&self, reference: &str) -> Result<Option<ImageDetails>, Error> {
        let found = self.docker.inspect_image(reference).await;
        let found =
            found.map_err(|e| Error::from_engine(format!("cannot inspect image {reference}"), e));
        let image = match found {
            Ok(image) => image,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e),
        };
        let platform = [image.os, image.architecture, image.variant];
        let platform: Vec<String> = platform
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .collect();
        let tagged = image.metadata.and_then(|m| m.last_tag_time);
        Ok(Some(ImageDetails {
            id: image.id.unwrap_or_default(),
            platform: platform.join("/"),
            size: image.size.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
            tagged: tagged.filter(|t| t != NEVER),
        }))
    }

    /// The volumes with a project's label, all if its name is empty, by name (`GET /volumes`).
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn volume_details(&self, project: &str) -> Result<Vec<VolumeDetails>, Error> {
        let mut filters = HashMap::new();
        if !project.is_empty() {
            let label = format!("{}={project}", labels::PROJECT);
            filters.insert("label".to_owned(), vec![label]);
        }
        let options = ListVolumesOptionsBuilder::default()
            .filters(&filters)
            .build();
        let list = self.docker.list_volumes(Some(options)).await;
        let list = list.map_err(|e| Error::from_engine("cannot list volumes", e))?;
        let mut volumes: Vec<VolumeDetails> = list
            .volumes
            .unwrap_or_default()
            .into_iter()
            .map(|v| VolumeDetails {
                name: v.name,
                driver: v.driver,
                mountpoint: v.mountpoint,
                scope: v.scope.map(|s| s.to_string()).unwrap_or_default(),
                labels: v.labels.into_iter().collect(),
            })
            .collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }
}
/// Labels as the Engine lists them, `key=value`.
fn labels(lines: Vec<String>) -> BTreeMap<String, String> {
    let pairs = lines.iter().map(|l| l.split_once('=').unwrap_or((l, "")));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// How many of each resource an Engine declares (`node-generic-resources`): a number of them, or
/// each by its name.
fn generic(list: Vec<bollard::models::GenericResourcesInner>) -> BTreeMap<String, i64> {
    let mut all: BTreeMap<String, i64> = BTreeMap::new();
    for resource in list {
        if let Some(named) = resource.named_resource_spec {
            *all.entry(named.kind.unwrap_or_default()).or_default() += 1;
        }
        if let Some(number) = resource.discrete_resource_spec {
            let count = number.value.unwrap_or(0);
            *all.entry(number.kind.unwrap_or_default()).or_default() += count;
        }
    }
    all
}
