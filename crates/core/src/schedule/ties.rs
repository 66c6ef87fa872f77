//! What ties a service to a node: its local data.

use std::path::Path;

use wharfie_compose::model::{MountKind, Project, Service, Volume};

use crate::extension;

/// Places that every host has: a bind mount of one of them ties to none.
const COMMON: [&str; 9] = [
    "/var/run",
    "/run",
    "/dev",
    "/proc",
    "/sys",
    "/etc",
    "/lib/modules",
    "/usr",
    "/tmp",
];

/// The local data of a service.
#[derive(Debug, Clone, Default)]
pub(super) struct Ties {
    /// Local volumes: names on the Engine, and whether they are made elsewhere.
    pub(super) volumes: Vec<(String, bool)>,
    /// A path on the host with files of its own.
    pub(super) files: Option<String>,
}

impl Ties {
    pub(super) fn of(project: &Project, service: &Service) -> Self {
        if extension::volumes(project, service) == extension::Volumes::Fresh {
            return Self::default();
        }
        let mut ties = Self::default();
        for mount in &service.volumes {
            match mount.kind {
                MountKind::Volume if !mount.source.is_empty() => {
                    let volume = project.volumes.get(&mount.source);
                    if volume.is_some_and(is_shared) {
                        continue;
                    }
                    let name = volume.map_or(&mount.source, |v| &v.name);
                    let external = volume.is_some_and(|v| v.external);
                    ties.volumes.push((name.clone(), external));
                }
                MountKind::Bind if is_own(project, &mount.source, mount.read_only) => {
                    ties.files.get_or_insert_with(|| mount.source.clone());
                }
                _ => {}
            }
        }
        // Files of secrets and configs are read on the node itself.
        let secrets = service.secrets.iter();
        let secrets = secrets.filter_map(|s| project.secrets.get(&s.source));
        let configs = service.configs.iter();
        let configs = configs.filter_map(|c| project.configs.get(&c.source));
        let mut files = secrets.chain(configs).map(|o| &o.file);
        if let Some(file) = files.find(|f| !f.is_empty() && is_own(project, f, true)) {
            ties.files.get_or_insert_with(|| file.clone());
        }
        ties
    }
}

/// Whether a volume is the same on all nodes.
fn is_shared(volume: &Volume) -> bool {
    let option = |key: &str| volume.driver_opts.get(key).map_or("", String::as_str);
    let network = ["nfs", "nfs4", "cifs", "ceph", "glusterfs"];
    !matches!(volume.driver.as_str(), "" | "local")
        || network.contains(&option("type"))
        || option("o").split(',').any(|o| o.starts_with("addr="))
}

/// Whether a path holds what other nodes do not have: it is in the project's directory, or is
/// written to.
fn is_own(project: &Project, path: &str, read_only: bool) -> bool {
    let (path, dir) = (Path::new(path), &project.working_dir);
    if !dir.as_os_str().is_empty() && path.starts_with(dir) {
        return true;
    }
    let common = COMMON.iter().any(|c| path.starts_with(c));
    !read_only && !common && path != Path::new("/") && !path.as_os_str().is_empty()
}
