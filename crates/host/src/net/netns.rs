//! Network namespaces: the host's own, and those of containers.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;

/// A network namespace, held open: it stays what it is when its process ends and the number of
/// that process is given to another.
#[derive(Clone)]
pub struct Namespace {
    file: Arc<File>,
    name: Arc<str>,
    here: bool,
}

impl Namespace {
    /// The one that this thread is in: the host's.
    pub fn here() -> Result<Self, Error> {
        let mut namespace = Self::at(Path::new("/proc/thread-self/ns/net"))?;
        namespace.here = true;
        namespace.name = "this host".into();
        Ok(namespace)
    }

    /// That of a process, such as a container's first.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        Self::at(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// That of a file, such as `/var/run/docker/netns/…`.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let doing = || format!("open the network namespace {}", path.display());
        let file = File::open(path).map_err(|error| Error::system(doing(), error))?;
        Ok(Self {
            file: Arc::new(file),
            name: path.display().to_string().into(),
            here: false,
        })
    }

    /// A number that no other namespace has at the same time.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.ino())
    }

    /// Whether both are the same namespace, as with `network_mode: host` or `service:`.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    /// Calls a function in the namespace. A thread cannot be trusted to get back out, so one is
    /// made for it, and ends with it. Sockets opened there belong to the namespace for good.
    pub(crate) fn inside<T: Send>(
        &self,
        doing: &str,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, Error> {
        let failed = |error| Error::system(format!("{doing} in {}", self.name), error);
        if self.here {
            return work().map_err(failed);
        }
        let file = &self.file;
        let in_thread = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| {
            let joined = scope.spawn(in_thread).join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(failed)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({}, {})", self.name, self.id())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
