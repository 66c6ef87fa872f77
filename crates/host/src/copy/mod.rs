//! Files into containers and out of them, as `docker cp` does it.

mod pack;
mod place;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

pub use place::{Landing, Place, landing};

use crate::archive::Incoming;
use crate::{Engine, Error};
use place::{link_target, means_directory, split};
use unpack::Unpacking;

/// Seconds that a transfer may take before the Engine answers.
const TRANSFER: u64 = 24 * 3600;
/// Links that are followed one after the other.
const LINKS: usize = 40;
/// Bits of the modes that the Engine tells, which are Go's.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;

/// A file or directory of this machine that is to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSource {
    path: PathBuf,
    /// Its name in the archive; `.` for the content of a directory.
    name: String,
    /// Whether it is a directory.
    pub directory: bool,
}

impl LocalSource {
    /// Looks at a path. A link is followed if `follow`, or if the path ends in a slash.
    ///
    /// # Errors
    /// There is nothing, or it cannot be read.
    pub fn open(path: &str, follow: bool) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::Local(format!("cannot read {path}: {e}"));
        let as_directory = means_directory(path);
        let absolute = std::path::absolute(path).map_err(failed)?;
        let real = if follow || as_directory {
            std::fs::canonicalize(path).map_err(failed)?
        } else {
            absolute.clone()
        };
        let directory = std::fs::symlink_metadata(&real).map_err(failed)?.is_dir();
        if as_directory && !directory {
            return Err(Error::Local(format!("{path} is not a directory")));
        }
        pack::check(&real)?;
        // The name as written, even where a link leads elsewhere.
        let written = absolute.to_string_lossy();
        let content = path.rsplit('/').next() == Some(".") || path.ends_with("..");
        let (_, name) = split(&written);
        Ok(Self {
            path: real,
            name: if content || name.is_empty() {
                ".".to_owned()
            } else {
                name
            },
            directory,
        })
    }
}

/// A file or directory of a container that is to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSource {
    path: String,
    /// Its name if it is another than that of `path`, because a link was followed.
    name: Option<String>,
    /// Whether it is a directory.
    pub directory: bool,
}

/// What is at a path in a container.
struct There {
    directory: bool,
    symlink: bool,
}

impl Engine {
    /// What is at a path of a container (`HEAD /containers/{id}/archive`).
    async fn look(&self, id: &str, path: &str) -> Result<Option<There>, Error> {
        let options = ContainerArchiveInfoOptionsBuilder::default()
            .path(path)
            .build();
        let found = self
            .docker
            .get_container_archive_info(id, Some(options))
            .await;
        match found.map_err(|e| Error::from_engine(format!("cannot look at {path} in {id}"), e)) {
            Ok(found) => Ok(Some(There {
                directory: found.file_mode & DIRECTORY != 0,
                symlink: found.file_mode & SYMLINK != 0,
            })),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Where a symbolic link of a container leads to. The Engine tells it only in the archive.
    async fn link(&self, id: &str, path: &str) -> Result<String, Error> {
        let failed = |e: io::Error| Error::Local(format!("cannot read the link {path}: {e}"));
        let mut bytes = Vec::new();
        let mut pieces = Box::pin(self.download(id, path));
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().map_err(failed)?.next();
        let target = match entry {
            Some(entry) => entry.and_then(|e| Ok(e.link_name()?.map(|l| l.into_owned()))),
            None => Ok(None),
        };
        match target.map_err(failed)? {
            Some(target) => Ok(link_target(path, &target.to_string_lossy())),
            None => Err(failed(io::Error::other("it is no link"))),
        }
    }

    /// The path behind symbolic links, and what is there.
    async fn follow(&self, id: &str, path: &str) -> Result<(String, Option<There>), Error> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            match self.look(id, &path).await? {
                Some(there) if there.symlink => path = self.link(id, &path).await?,
                there => return Ok((path, there)),
            }
        }
        Err(Error::Local(format!("{path} leads to itself")))
    }

    /// Looks at the place in a container that something is to be copied to. Links are followed.
    ///
    /// # Errors
    /// The Engine refuses, or links lead nowhere.
    pub async fn destination(&self, id: &str, path: &str) -> Result<Place, Error> {
        let written = rooted(path);
        let (path, there) = self.follow(id, &written).await?;
        Ok(Place {
            exists: there.is_some(),
            directory: there.is_some_and(|t| t.directory),
            path,
        })
    }

    /// Looks at something in a container that is to be copied; a link is followed if `follow`.
    ///
    /// # Errors
    /// There is nothing, or the Engine refuses.
    pub async fn source(
        &self,
        id: &str,
        path: &str,
        follow: bool,
    ) -> Result<ContainerSource, Error> {
        let written = rooted(path);
        let (path, there) = if follow {
            self.follow(id, &written).await?
        } else {
            (written.clone(), self.look(id, &written).await?)
        };
        let Some(there) = there else {
            return Err(Error::Local(format!("there is no {path} in the container")));
        };
        Ok(ContainerSource {
            // What a link leads to keeps the link's name.
            name: (path != written).then(|| split(&written).1),
            path,
            directory: there.directory,
        })
    }

    /// Whether there is a directory in a container.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn has_directory(&self, id: &str, path: &str) -> Result<bool, Error> {
        let (_, there) = self.follow(id, path).await?;
        Ok(there.is_some_and(|t| t.directory))
    }

    /// Unpacks an archive in a directory of a container (`PUT /containers/{id}/archive`). The
    /// files get the container's user as owner if `own`, else the archive's.
    ///
    /// # Errors
    /// The Engine refuses: there is no such directory, or it cannot be written to; or the archive
    /// ends in an error.
    pub async fn upload(
        &self,
        id: &str,
        directory: &str,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        own: bool,
    ) -> Result<(), Error> {
        let mut options = UploadToContainerOptionsBuilder::default()
            .path(directory)
            .no_overwrite_dir_non_dir("true");
        if own {
            options = options.copy_uidgid("true");
        }
        // An error of the archive reaches us only as a broken connection: it is noted down.
        let fault = std::sync::Arc::new(std::sync::Mutex::new(None));
        let noted = std::sync::Arc::clone(&fault);
        let archive = archive.inspect(move |piece| {
            if let (Err(e), Ok(mut noted)) = (piece, noted.lock()) {
                *noted = Some(e.to_string());
            }
        });
        let sent = self
            .patient(TRANSFER)
            .upload_to_container(id, Some(options.build()), bollard::body_try_stream(archive))
            .await;
        let fault = fault.lock().ok().and_then(|mut f| f.take());
        match (fault, sent) {
            (Some(fault), _) => Err(Error::Local(format!("cannot copy {fault}"))),
            (None, Err(e)) => Err(Error::from_engine(format!("cannot copy to {directory}"), e)),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Copies a file or directory into a container.
    ///
    /// # Errors
    /// The Engine refuses, or the source cannot be read.
    pub async fn copy_in(
        &self,
        id: &str,
        source: &LocalSource,
        to: &Landing,
        own: bool,
    ) -> Result<(), Error> {
        let name = to.name.clone().unwrap_or_else(|| source.name.clone());
        let archive = pack::pack(vec![(source.path.clone(), name)]);
        self.upload(id, &to.directory, archive, own).await
    }

    /// Copies files and directories to absolute paths of a container. Directories on the way are
    /// made; the files get the container's user as owner.
    ///
    /// # Errors
    /// The Engine refuses, or a file cannot be read.
    pub async fn copy_files_in(
        &self,
        id: &str,
        files: Vec<(PathBuf, String)>,
    ) -> Result<(), Error> {
        let files = files
            .into_iter()
            .map(|(from, to)| (from, place::clean(&to).trim_start_matches('/').to_owned()));
        let archive = pack::pack(files.collect());
        self.upload(id, "/", archive, true).await
    }

    /// A file or directory of a container as an archive (`GET /containers/{id}/archive`).
    pub fn download(
        &self,
        id: &str,
        path: &str,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + use<> {
        let context = format!("cannot copy {path}");
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(path)
            .build();
        self.docker
            .download_from_container(id, Some(options))
            .map(move |piece| piece.map_err(|e| Error::from_engine(context.clone(), e)))
    }

    /// A source as an archive.
    pub fn copy_out_archive(
        &self,
        id: &str,
        source: &ContainerSource,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + use<> {
        self.download(id, &source.path)
    }

    /// Copies a file or directory of a container to this machine. The files keep their owners if
    /// `owners`, else they are ours.
    ///
    /// # Errors
    /// The Engine refuses, or something cannot be written.
    pub async fn copy_out(
        &self,
        id: &str,
        source: &ContainerSource,
        to: &Landing,
        owners: bool,
    ) -> Result<(), Error> {
        let (_, name) = split(&source.path);
        let mut landing = to.clone();
        if landing.name.is_none() {
            landing.name.clone_from(&source.name);
        }
        let unpacking = Unpacking {
            landing,
            content: matches!(name.as_str(), "." | ""),
            owners,
        };
        let (sender, receiver) = mpsc::channel(4);
        let thread = tokio::task::spawn_blocking(move || unpacking.unpack(Incoming::new(receiver)));
        let mut pieces = Box::pin(self.download(id, &source.path));
        let mut failure = None;
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => {
                    if sender.send(piece).await.is_err() {
                        // The thread gave up, and says why.
                        break;
                    }
                }
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        drop(sender);
        let unpacked = thread.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        match (failure, unpacked) {
            (Some(failure), _) => Err(failure),
            (None, Err(e)) => Err(Error::Local(format!(
                "cannot write to {}: {e}",
                Path::new(&to.directory).display()
            ))),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Looks at the place on this machine that something is to be copied to.
///
/// # Errors
/// It cannot be looked at, or there is no directory that it could be in.
pub fn local_destination(path: &str) -> Result<Place, Error> {
    let failed = |e: io::Error| Error::Local(format!("cannot write to {path}: {e}"));
    match std::fs::canonicalize(path) {
        Ok(real) => Ok(Place {
            directory: std::fs::metadata(&real).map_err(failed)?.is_dir(),
            exists: true,
            path: real.to_string_lossy().into_owned(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let (parent, _) = split(path);
            if !Path::new(&parent).is_dir() {
                return Err(Error::Local(format!("there is no directory {parent}")));
            }
            Ok(Place {
                path: path.to_owned(),
                exists: false,
                directory: false,
            })
        }
        Err(e) => Err(failed(e)),
    }
}

/// A path in a container starts at its root, whether written so or not.
fn rooted(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}
