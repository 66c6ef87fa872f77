//! Local volumes: what an Engine says of them, and their content, read and written where it is on
//! the host.

mod pack;
mod transfer;
mod unpack;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveVolumeOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wharfie_core::labels;

pub use transfer::{receive, send};

use crate::{ApiVersion, Engine, Error};

/// An API whose listing of sizes has the form that is read here, and that newer Engines answer too.
const SIZES: ApiVersion = ApiVersion(1, 44);

/// A volume of an Engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalVolume {
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Where its content is on the host.
    pub mountpoint: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl LocalVolume {
    /// Why its content cannot be read on the host, if it cannot: it is the driver's affair.
    #[must_use]
    pub fn foreign(&self) -> Option<String> {
        let option = |key: &str| self.options.get(key).map_or("", String::as_str);
        if self.driver != "local" {
            return Some(format!("its driver is {}", self.driver));
        }
        // The Engine mounts such a one while containers run; until then its directory is empty.
        let device = option("device");
        let mounted = !device.is_empty() || !matches!(option("type"), "" | "none");
        mounted.then(|| format!("it is a mount of {device:?} ({})", option("type")))
    }

    /// Where its content is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.mountpoint)
    }

    /// Whether nothing is in it.
    ///
    /// # Errors
    /// Its content cannot be read here.
    pub fn is_empty(&self) -> Result<bool, Error> {
        let mut entries = std::fs::read_dir(&self.mountpoint).map_err(|e| self.unreadable(&e))?;
        Ok(entries.next().is_none())
    }

    /// Bytes of the files in it. Blocks.
    ///
    /// # Errors
    /// Its content cannot be read here.
    pub fn size(&self) -> Result<u64, Error> {
        pack::size(Path::new(&self.mountpoint)).map_err(|e| self.unreadable(&e))
    }

    fn unreadable(&self, e: &std::io::Error) -> Error {
        Error::Local(format!(
            "the content of volume {} cannot be read at {}: {e}; the agent must be on the Engine's \
             host, and root",
            self.name, self.mountpoint
        ))
    }
}

/// A container that has a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeUser {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Project, if it is of one.
    pub project: String,
    /// Service, if it is of one.
    pub service: String,
    /// Number within the service, from 1; 0 if it has none.
    pub number: u32,
    /// Whether `run` made it.
    pub oneoff: bool,
    /// Whether it runs, or is paused.
    pub running: bool,
}

impl Engine {
    /// A volume (`GET /volumes/{name}`); `None` if there is none.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn volume(&self, name: &str) -> Result<Option<LocalVolume>, Error> {
        check_name(name)?;
        let found = self.docker.inspect_volume(name).await;
        match found.map_err(|e| Error::from_engine(format!("cannot inspect volume {name}"), e)) {
            Ok(v) => Ok(Some(LocalVolume {
                name: v.name,
                driver: v.driver,
                mountpoint: v.mountpoint,
                created: v.created_at.map(|t| t.to_string()).unwrap_or_default(),
                options: v.options.into_iter().collect(),
                labels: v.labels.into_iter().collect(),
            })),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a volume as another one is (`POST /volumes/create`).
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn create_volume_like(&self, other: &LocalVolume) -> Result<LocalVolume, Error> {
        let request = VolumeCreateRequest {
            name: Some(other.name.clone()),
            driver: Some(other.driver.clone()),
            driver_opts: Some(other.options.clone().into_iter().collect()),
            labels: Some(other.labels.clone().into_iter().collect()),
            ..VolumeCreateRequest::default()
        };
        let context = format!("cannot create volume {}", other.name);
        let made = self.docker.create_volume(request).await;
        made.map_err(|e| Error::from_engine(&context, e))?;
        let made = self.volume(&other.name).await?;
        made.ok_or_else(|| Error::Local(format!("{context}: it is gone at once")))
    }

    /// Removes a volume that no container has (`DELETE /volumes/{name}`); false if there was none.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn remove_volume(&self, name: &str) -> Result<bool, Error> {
        check_name(name)?;
        let options = None::<RemoveVolumeOptions>;
        let removed = self.docker.remove_volume(name, options).await;
        match removed.map_err(|e| Error::from_engine(format!("cannot remove volume {name}"), e)) {
            Ok(()) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The containers that have a volume, also those that do not run.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn volume_users(&self, name: &str) -> Result<Vec<VolumeUser>, Error> {
        let filters = HashMap::from([("volume".to_owned(), vec![name.to_owned()])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let list = self.docker.list_containers(Some(options)).await;
        let context = format!("cannot list the containers with volume {name}");
        let list = list.map_err(|e| Error::from_engine(context, e))?;
        let user = |c: bollard::models::ContainerSummary| {
            // The filter takes destinations of mounts as well.
            let mounts = c.mounts.into_iter().flatten();
            let has = mounts.into_iter().any(|m| m.name.as_deref() == Some(name));
            let of = c.labels.unwrap_or_default();
            let label = |key: &str| of.get(key).cloned().unwrap_or_default();
            let state = c.state.map(|s| s.to_string()).unwrap_or_default();
            let names = c.names.unwrap_or_default();
            let called = names.first().map(|n| n.trim_start_matches('/').to_owned());
            has.then(|| VolumeUser {
                id: c.id.unwrap_or_default(),
                name: called.unwrap_or_default(),
                project: label(labels::PROJECT),
                service: label(labels::SERVICE),
                number: label(labels::NUMBER).parse().unwrap_or(0),
                oneoff: label(labels::ONEOFF).eq_ignore_ascii_case("true"),
                running: matches!(state.as_str(), "running" | "paused" | "restarting"),
            })
        };
        Ok(list.into_iter().filter_map(user).collect())
    }

    /// Bytes of all volumes by name, as far as the Engine knows. It walks all of them.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn volume_sizes(&self) -> Result<BTreeMap<String, u64>, Error> {
        let api = self.api().min(SIZES);
        let path = format!("/v{api}/system/df?type=volume");
        let answer: Value = self.get_json(&path, "cannot tell sizes of volumes").await?;
        let volumes = answer["Volumes"].as_array().cloned().unwrap_or_default();
        let each = volumes.iter().filter_map(|v| {
            let size = v["UsageData"]["Size"].as_u64()?;
            Some((v["Name"].as_str()?.to_owned(), size))
        });
        Ok(each.collect())
    }
}

/// A name goes into a path.
fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match begins && name.chars().all(plain) {
        true => Ok(()),
        false => Err(Error::Local(format!("{name:?} is no name of a volume"))),
    }
}

#[cfg(test)]
mod tests;
