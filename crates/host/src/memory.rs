//! Secrets and configs that are in no file of the host are kept in memory: in a tmpfs of ours,
//! from which they are mounted read-only, so that they are never written to a disk.
//!
//! They are gone with the next boot of the host. The container cannot start then, and is made anew
//! by the next `up`.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use bollard::models::{Mount, MountType};
use bollard::query_parameters::ListContainersOptionsBuilder;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::translate::Injected;
use crate::{Engine, Error, inject};

/// Where agents and the command line keep what is gone with the next boot.
pub(crate) const RUNTIME_DIR: &str = "/run/wharfie";
/// What statfs calls tmpfs, and its simpler kin.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// The files of a container that is being made. Until it is dropped no sweep takes them.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: PathBuf,
    _lock: File,
    /// How they get into the container.
    pub(crate) mounts: Vec<Mount>,
}

impl Kept {
    /// Takes them away: there will be no container.
    pub(crate) fn discard(self) {
        // What stays is swept later.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |e| Error::Local(format!("cannot keep secrets in {path}: {e}"))
}

/// Makes sure that what is in a directory is in memory only.
fn in_memory(dir: &Path) -> Result<(), std::io::Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let kind = || rustix::fs::statfs(dir).map(|s| s.f_type);
    if matches!(kind()?, TMPFS | RAMFS) {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("wharfie", dir, "tmpfs", flags, Some(c"mode=0700"))?;
    Ok(())
}

/// Takes a directory's lock if it is free.
fn lock(dir: &Path) -> Option<File> {
    let file = File::open(dir).ok()?;
    let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
    taken.is_ok().then_some(file)
}

impl Engine {
    /// The files of this Engine's containers: there may be several Engines on one machine.
    fn kept_dir(&self) -> PathBuf {
        let key = self.address().bytes().map(|b| {
            let plain = b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            if plain { char::from(b) } else { '_' }
        });
        self.runtime_dir()
            .join("secrets")
            .join(key.collect::<String>())
    }

    /// Puts files into memory for a container. `None` if that cannot be done here: without the
    /// rights to make a tmpfs or to give files away, and for an Engine whose users are others
    /// than the host's or which is on another host.
    pub(crate) async fn keep(
        &self,
        container: &str,
        files: &[Injected],
    ) -> Result<Option<Kept>, Error> {
        if !self.is_here() || !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        // Who owns a file matters only where not everybody may read it.
        if files.iter().any(|f| f.mode & 0o004 == 0) && self.remaps_users().await? {
            return Ok(None);
        }
        let root = self.runtime_dir().join("secrets");
        match in_memory(&root) {
            Ok(()) => {}
            // A container, or another place where even root mounts nothing.
            Err(e) if Errno::from_io_error(&e) == Some(Errno::PERM) => return Ok(None),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::ROFS) => return Ok(None),
            Err(e) => return Err(failed(&root)(e)),
        }
        let parent = self.kept_dir();
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder
            .recursive(true)
            .create(&parent)
            .map_err(failed(&parent))?;
        let dir = (0_u32..).map(|n| parent.join(format!("{container}.{n}")));
        let mut made = None;
        for dir in dir {
            match builder.recursive(false).create(&dir) {
                Ok(()) => {
                    made = Some(dir);
                    break;
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&dir)(e)),
            }
        }
        let Some(dir) = made else { return Ok(None) };
        let Some(lock) = lock(&dir) else {
            return Err(failed(&dir)(std::io::ErrorKind::NotFound.into()));
        };
        let mut kept = Kept {
            mounts: Vec::new(),
            _lock: lock,
            dir,
        };
        for (number, file) in files.iter().enumerate() {
            let path = kept.dir.join(number.to_string());
            match write(&path, file) {
                Ok(()) => kept.mounts.push(Mount {
                    typ: Some(MountType::BIND),
                    source: Some(path.display().to_string()),
                    target: Some(file.target.clone()),
                    read_only: Some(true),
                    ..Mount::default()
                }),
                Err(error) => {
                    kept.discard();
                    return Err(error);
                }
            }
        }
        Ok(Some(kept))
    }

    /// Whether the users in containers are others than the host's (`GET /info`).
    async fn remaps_users(&self) -> Result<bool, Error> {
        let info = self.docker.info().await;
        let info = info.map_err(|e| Error::from_engine("cannot ask the Engine what it is", e))?;
        let mut options = info.security_options.into_iter().flatten();
        Ok(options.any(|o| o.contains("name=userns") || o.contains("name=rootless")))
    }

    /// Whether a container cannot start because its files were lost with a boot of the host.
    pub(crate) fn has_lost_files(&self, error: &Error) -> bool {
        let dir = self.kept_dir().display().to_string();
        matches!(error, Error::Refused { message, .. } if message.contains(&dir))
    }

    /// Removes the files of containers that are gone, whoever removed them
    /// (`GET /containers/json`). What cannot be removed now is by the next sweep.
    pub(crate) async fn sweep(&self) {
        let dirs: Vec<(PathBuf, File)> = match fs::read_dir(self.kept_dir()) {
            Ok(entries) => entries
                .filter_map(|e| Some(e.ok()?.path()))
                // Those of containers that are being made are locked.
                .filter_map(|dir| lock(&dir).map(|lock| (dir, lock)))
                .collect(),
            Err(_) => return,
        };
        if dirs.is_empty() {
            return;
        }
        // Only now: a container that was made before its lock was free is in the list.
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let Ok(containers) = self.docker.list_containers(Some(options)).await else {
            return;
        };
        let used: HashSet<PathBuf> = containers
            .into_iter()
            .flat_map(|c| c.mounts.unwrap_or_default())
            .filter_map(|m| Some(Path::new(&m.source?).parent()?.to_owned()))
            .collect();
        for (dir, _lock) in dirs {
            if !used.contains(&dir) {
                let _ = fs::remove_dir_all(&dir);
            }
        }
    }
}

/// Writes a file that nobody else can read before it has its owner and mode.
fn write(path: &Path, file: &Injected) -> Result<(), Error> {
    let content = inject::content(file)?;
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut out = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        out.write_all(&content)?;
        let id = |id: u64| u32::try_from(id).ok();
        chown(path, id(file.uid), id(file.gid))?;
        out.set_permissions(Permissions::from_mode(file.mode))
    };
    write().map_err(failed(path))
}
