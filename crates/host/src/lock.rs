//! One change of a project at a time on one host.

use std::fs::File;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// Holds off other changes of the same project until it is dropped. It ends with the process,
/// however that ends.
#[derive(Debug)]
pub struct ProjectLock {
    _file: File,
}

impl ProjectLock {
    /// Takes the lock of a project on an Engine, if it is free.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn try_take(engine: &str, project: &str) -> Result<Option<Self>, Error> {
        let (path, file) = open(engine, project)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(failed(&path, e.into())),
        }
    }

    /// Takes the lock, waiting until it is free.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub async fn take(engine: &str, project: &str) -> Result<Self, Error> {
        let (path, file) = open(engine, project)?;
        let locked = tokio::task::spawn_blocking(move || {
            flock(&file, FlockOperation::LockExclusive).map(|()| file)
        });
        match locked.await {
            Ok(Ok(file)) => Ok(Self { _file: file }),
            Ok(Err(e)) => Err(failed(&path, e.into())),
            Err(e) => Err(Error::Local(format!(
                "cannot wait for {}: {e}",
                path.display()
            ))),
        }
    }
}

fn failed(path: &std::path::Path, error: std::io::Error) -> Error {
    Error::Local(format!("cannot lock {}: {error}", path.display()))
}

fn open(engine: &str, project: &str) -> Result<(PathBuf, File), Error> {
    // The address is part of the name: several Engines may run on one machine.
    let name: String = format!("{project}@{engine}")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_@.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let uid = rustix::process::getuid().as_raw();
    let mut last = None;
    for dir in [
        PathBuf::from("/run/wharfie/locks"),
        std::env::temp_dir().join(format!("wharfie-{uid}")),
    ] {
        if let Err(e) = std::fs::create_dir_all(&dir) {
            last = Some(failed(&dir, e));
            continue;
        }
        let path = dir.join(&name);
        match File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
        {
            Ok(file) => return Ok((path, file)),
            Err(e) => last = Some(failed(&path, e)),
        }
    }
    Err(last.unwrap_or_else(|| Error::Local("no directory for locks".to_owned())))
}
