//! Mounts, secrets and configs of a container.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions,
};
use wharfie_compose::model::{self, BindOptions, FileObject, FileReference, MountKind, Project};

use super::{Wanted, map, positive, text};
use crate::ApiVersion;

/// A file copied into a container before its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Injected {
    /// Absolute path in the container.
    pub(crate) target: String,
    /// What is copied.
    pub(crate) content: Content,
    /// Owner.
    pub(crate) uid: u64,
    /// Group.
    pub(crate) gid: u64,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Where the content of an injected file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// In the project.
    Text(String),
    /// In a file of this host, read when the container is made.
    File(PathBuf),
}

/// Mounts in the forms the Engine takes them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) binds: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    pub(super) anonymous: Vec<String>,
    pub(super) tmpfs: HashMap<String, String>,
    pub(super) injected: Vec<Injected>,
}

pub(super) fn mounts(wanted: &Wanted, api: ApiVersion) -> Mounts {
    let service = wanted.service;
    let mut out = Mounts::default();
    for tmpfs in &service.tmpfs {
        let (target, options) = tmpfs.split_once(':').unwrap_or((tmpfs, ""));
        out.tmpfs.insert(target.to_owned(), options.to_owned());
    }
    for mount in &service.volumes {
        volume(wanted, mount, api, &mut out);
    }
    // Volumes that the image alone declares were anonymous too.
    for (target, name) in &wanted.inherited {
        if !service.volumes.iter().any(|m| m.target == *target) {
            out.binds.push(format!("{name}:{target}"));
        }
    }
    for secret in &service.secrets {
        if let Some(object) = wanted.project.secrets.get(&secret.source) {
            let target = if secret.target.starts_with('/') {
                secret.target.clone()
            } else {
                format!("/run/secrets/{}", secret.target)
            };
            file(object, secret, target, wanted.project, &mut out);
        }
    }
    for config in &service.configs {
        if let Some(object) = wanted.project.configs.get(&config.source) {
            let target = match config.target.as_str() {
                "" => format!("/{}", config.source),
                absolute if absolute.starts_with('/') => absolute.to_owned(),
                relative => format!("/{relative}"),
            };
            file(object, config, target, wanted.project, &mut out);
        }
    }
    if service.use_api_socket {
        let socket = wanted.socket.unwrap_or("/var/run/docker.sock");
        out.binds.push(format!("{socket}:/var/run/docker.sock"));
    }
    out
}

fn volume(wanted: &Wanted, mount: &model::Mount, api: ApiVersion, out: &mut Mounts) {
    match mount.kind {
        MountKind::Bind => bind(mount, api, out),
        MountKind::Volume => {
            let options = mount.volume.clone().unwrap_or_default();
            let named = wanted
                .project
                .volumes
                .get(&mount.source)
                .map(|v| v.name.clone());
            let inherited = wanted.inherited.get(&mount.target).cloned();
            let source = named.or(inherited);
            let special = !options.labels.is_empty() || !options.subpath.is_empty();
            match source {
                Some(source) if !special => {
                    let mut modes = vec![if mount.read_only { "ro" } else { "rw" }];
                    if options.nocopy {
                        modes.push("nocopy");
                    }
                    let relabel = mount
                        .bind
                        .iter()
                        .map(|b| b.selinux.as_str())
                        .filter(|s| !s.is_empty());
                    modes.extend(relabel);
                    out.binds
                        .push(format!("{source}:{}:{}", mount.target, modes.join(",")));
                }
                None if !special && !mount.read_only && !options.nocopy => {
                    out.anonymous.push(mount.target.clone())
                }
                source => out.mounts.push(Mount {
                    typ: Some(MountType::VOLUME),
                    source,
                    target: text(&mount.target),
                    read_only: mount.read_only.then_some(true),
                    consistency: text(&mount.consistency),
                    volume_options: Some(MountVolumeOptions {
                        no_copy: options.nocopy.then_some(true),
                        labels: map(options.labels.into_iter().collect()),
                        subpath: text(&options.subpath),
                        driver_config: None,
                    }),
                    ..Mount::default()
                }),
            }
        }
        MountKind::Tmpfs => {
            let options = mount.tmpfs.clone().unwrap_or_default();
            out.mounts.push(Mount {
                typ: Some(MountType::TMPFS),
                target: text(&mount.target),
                read_only: mount.read_only.then_some(true),
                consistency: text(&mount.consistency),
                tmpfs_options: Some(MountTmpfsOptions {
                    size_bytes: positive(options.size.0),
                    mode: positive(options.mode),
                    options: None,
                }),
                ..Mount::default()
            });
        }
        MountKind::Image => out.mounts.push(Mount {
            typ: Some(MountType::IMAGE),
            source: text(&mount.source),
            target: text(&mount.target),
            read_only: Some(true),
            image_options: mount.image.as_ref().map(|i| MountImageOptions {
                subpath: text(&i.subpath),
            }),
            ..Mount::default()
        }),
        MountKind::Npipe => out.mounts.push(Mount {
            typ: Some(MountType::NPIPE),
            source: text(&mount.source),
            target: text(&mount.target),
            ..Mount::default()
        }),
        MountKind::Cluster => out.mounts.push(Mount {
            typ: Some(MountType::CLUSTER),
            source: text(&mount.source),
            target: text(&mount.target),
            ..Mount::default()
        }),
    }
}

/// The short form makes a missing directory; the Engine does that only for its own short form.
fn bind(mount: &model::Mount, api: ApiVersion, out: &mut Mounts) {
    // Without any options it is made too, as docker compose does.
    let make = mount.bind.as_ref().is_none_or(|b| b.create_host_path);
    let options = mount.bind.clone().unwrap_or_default();
    let plain = mount.consistency.is_empty() && options.recursive.is_empty();
    // SELinux labels can only be asked for in the short form.
    if (make || !options.selinux.is_empty()) && plain {
        let mut modes = vec![if mount.read_only { "ro" } else { "rw" }];
        modes.extend(
            [options.selinux.as_str(), options.propagation.as_str()]
                .into_iter()
                .filter(|o| !o.is_empty()),
        );
        out.binds.push(format!(
            "{}:{}:{}",
            mount.source,
            mount.target,
            modes.join(",")
        ));
        return;
    }
    out.mounts.push(Mount {
        typ: Some(MountType::BIND),
        source: text(&mount.source),
        target: text(&mount.target),
        read_only: mount.read_only.then_some(true),
        consistency: text(&mount.consistency),
        bind_options: Some(bind_options(&options, make, api)),
        ..Mount::default()
    });
}

fn bind_options(options: &BindOptions, make: bool, api: ApiVersion) -> MountBindOptions {
    MountBindOptions {
        propagation: match options.propagation.as_str() {
            "private" => Some(MountBindOptionsPropagationEnum::PRIVATE),
            "rprivate" => Some(MountBindOptionsPropagationEnum::RPRIVATE),
            "shared" => Some(MountBindOptionsPropagationEnum::SHARED),
            "rshared" => Some(MountBindOptionsPropagationEnum::RSHARED),
            "slave" => Some(MountBindOptionsPropagationEnum::SLAVE),
            "rslave" => Some(MountBindOptionsPropagationEnum::RSLAVE),
            _ => None,
        },
        non_recursive: (options.recursive == "disabled").then_some(true),
        create_mountpoint: make.then_some(true),
        read_only_non_recursive: (options.recursive == "writable" && api >= ApiVersion(1, 44))
            .then_some(true),
        read_only_force_recursive: (options.recursive == "readonly" && api >= ApiVersion(1, 44))
            .then_some(true),
    }
}

/// Whether a secret or config is copied into its containers, and not mounted.
fn is_injected(object: &FileObject, reference: &FileReference) -> bool {
    let owned = !reference.uid.is_empty() || !reference.gid.is_empty() || reference.mode.is_some();
    object.file.is_empty() || owned
}

/// A secret or config: its file is mounted, unless owner or mode are asked for or there is no
/// file; then it is copied.
fn file(
    object: &FileObject,
    reference: &FileReference,
    target: String,
    project: &Project,
    out: &mut Mounts,
) {
    if !is_injected(object, reference) {
        out.mounts.push(Mount {
            typ: Some(MountType::BIND),
            source: Some(object.file.clone()),
            target: Some(target),
            read_only: Some(true),
            ..Mount::default()
        });
        return;
    }
    let content = if object.file.is_empty() {
        let from_variable = || {
            project
                .environment
                .get(&object.environment)
                .cloned()
                .unwrap_or_default()
        };
        Content::Text(if object.content.is_empty() {
            from_variable()
        } else {
            object.content.clone()
        })
    } else {
        Content::File(PathBuf::from(&object.file))
    };
    out.injected.push(Injected {
        target,
        content,
        uid: reference.uid.parse().unwrap_or(0),
        gid: reference.gid.parse().unwrap_or(0),
        mode: reference
            .mode
            .and_then(|m| u32::try_from(m.0).ok())
            .unwrap_or(0o444),
    });
}
