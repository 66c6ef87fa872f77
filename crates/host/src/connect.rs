//! The connection to an Engine.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Error;
use crate::build::Builder;
use crate::dial::{self, BoxedStream, Dialer};

/// Seconds a request may wait for the beginning of its answer.
const TIMEOUT: u64 = 120;
/// Seconds in which an Engine must answer a ping: one that hangs never does.
const PING_TIMEOUT: u64 = 10;
/// Where the Engine listens unless told otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Version of an Engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub usize, pub usize);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The oldest API that is used: Engine 20.10.
const OLDEST: ApiVersion = ApiVersion(1, 41);

/// What an Engine says of itself (`GET /version`).
#[derive(Debug, Clone, Default)]
pub struct EngineVersion {
    /// Version of the Engine.
    pub engine: String,
    /// Newest API it speaks.
    pub api: String,
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub arch: String,
}

/// A connection to an Engine; clones share it.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) docker: Docker,
    pub(crate) api: ApiVersion,
    builder: Builder,
    address: Arc<str>,
    dialer: Dialer,
    runtime_dir: Arc<Path>,
}

impl Engine {
    /// Connects to the Engine at `host` (`unix:///path`), or at the usual place, and agrees on
    /// the newest API both speak.
    ///
    /// # Errors
    /// The Engine is not running, may not be used, or is older than 20.10.
    pub async fn connect(host: Option<&str>) -> Result<Self, Error> {
        let address = host.filter(|h| !h.is_empty()).unwrap_or(DEFAULT_HOST);
        let Some(path) = address.strip_prefix("unix://") else {
            return Err(Error::BadAddress {
                address: address.to_owned(),
            });
        };
        let dialer = Dialer::unix(path);
        let pong = match ping(&dialer).await {
            Ok(pong) => pong,
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Error::NotPermitted {
                    address: address.to_owned(),
                });
            }
            Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                return Err(Error::Hangs {
                    address: address.to_owned(),
                    seconds: PING_TIMEOUT,
                });
            }
            Err(_) => {
                return Err(Error::NotRunning {
                    address: address.to_owned(),
                });
            }
        };
        // Its own client keeps connections: it is the faster one.
        let client = |version: &ClientVersion| Docker::connect_with_unix(path, TIMEOUT, version);
        Self::agree(client, pong, address, dialer).await
    }

    /// Connects to an Engine that is reached in some other way, and agrees on the newest API both
    /// speak. `label` is what it is called in messages, such as `node beta`.
    ///
    /// # Errors
    /// It cannot be reached, does not answer, or is older than 20.10.
    pub async fn connect_through(dialer: Dialer, label: &str) -> Result<Self, Error> {
        let pong = ping(&dialer).await.map_err(|e| Error::Unreachable {
            address: label.to_owned(),
            reason: match e.kind() {
                std::io::ErrorKind::TimedOut => {
                    format!("its Engine does not answer within {PING_TIMEOUT} s")
                }
                _ => e.to_string(),
            },
        })?;
        let client = |version: &ClientVersion| dial::client(dialer.clone(), TIMEOUT, version);
        Self::agree(client, pong, label, dialer.clone()).await
    }

    /// Agrees on an API with an Engine that has answered.
    async fn agree(
        client: impl Fn(&ClientVersion) -> Result<Docker, bollard::errors::Error>,
        Pong { api, podman }: Pong,
        address: &str,
        dialer: Dialer,
    ) -> Result<Self, Error> {
        let failed = |e| Error::from_engine("cannot talk to the Engine", e);
        let version = match api {
            Some(api) if api < *API_DEFAULT_VERSION => api,
            _ => *API_DEFAULT_VERSION,
        };
        let mut docker = client(&version).map_err(failed)?;
        if api.is_none() {
            docker = docker.negotiate_version().await.map_err(failed)?;
        }
        let version = docker.client_version();
        let api = ApiVersion(version.major_version, version.minor_version);
        let engine = Self {
            api,
            // Every Docker Engine since 18.09 has BuildKit, whatever its default is.
            builder: if podman || buildkit_is_off() {
                Builder::Classic
            } else {
                Builder::BuildKit(api)
            },
            docker,
            dialer,
            address: address.into(),
            runtime_dir: Path::new(crate::memory::RUNTIME_DIR).into(),
        };
        if engine.api < OLDEST {
            let version = engine.version().await?;
            return Err(Error::TooOld {
                engine: version.engine,
                api: engine.api.to_string(),
            });
        }
        Ok(engine)
    }

    /// The API version in use.
    #[must_use]
    pub fn api(&self) -> ApiVersion {
        self.api
    }

    /// What images are built with: BuildKit, unless the Engine has none or the environment says
    /// `DOCKER_BUILDKIT=0`.
    #[must_use]
    pub fn builder(&self) -> Builder {
        self.builder
    }

    /// The same connection with another builder.
    #[must_use]
    pub fn with_builder(mut self, builder: Builder) -> Self {
        self.builder = builder;
        self
    }

    /// The same connection that keeps secrets under another directory than `/run/wharfie`: each
    /// agent of a machine has its own.
    #[must_use]
    pub fn with_runtime_dir(mut self, dir: &Path) -> Self {
        self.runtime_dir = dir.into();
        self
    }

    /// Where secrets are kept in memory.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// The Engine's address, as `unix:///path`, or what it is called if it is reached otherwise.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Path of the Engine's socket, if it is on this host.
    pub(crate) fn socket(&self) -> Option<&str> {
        self.address.strip_prefix("unix://")
    }

    /// Whether the Engine is on this host: then it has the same files and processes as we.
    pub(crate) fn is_here(&self) -> bool {
        self.socket().is_some()
    }

    /// A connection of its own to the Engine's socket.
    pub(crate) async fn dial(&self) -> std::io::Result<BoxedStream> {
        self.dialer.dial().await
    }

    /// What the Engine says of itself.
    ///
    /// # Errors
    /// The Engine cannot be reached.
    pub async fn version(&self) -> Result<EngineVersion, Error> {
        let version = self
            .docker
            .version()
            .await
            .map_err(|e| Error::from_engine("cannot ask the Engine for its version", e))?;
        Ok(EngineVersion {
            engine: version.version.unwrap_or_default(),
            api: version.api_version.unwrap_or_default(),
            os: version.os.unwrap_or_default(),
            arch: version.arch.unwrap_or_default(),
        })
    }

    /// The client for a request that may take this long beyond the usual.
    pub(crate) fn patient(&self, extra: u64) -> Docker {
        self.docker
            .clone()
            .with_timeout(Duration::from_secs(TIMEOUT.saturating_add(extra)))
    }
}

/// What an answer to a ping tells.
struct Pong {
    /// The newest API.
    api: Option<ClientVersion>,
    /// Whether it is Podman, which speaks the Engine's API but has no BuildKit.
    podman: bool,
}

/// Whether the user wants the classic builder, in the way the Docker CLI is told so.
fn buildkit_is_off() -> bool {
    std::env::var("DOCKER_BUILDKIT").is_ok_and(|v| matches!(v.as_str(), "0" | "false"))
}

/// Asks whether the Engine is there and which API it speaks (`GET /_ping`, header
/// `Api-Version`). The client would ask `/version`, for which an Engine asks containerd and
/// runc: 6 ms rather than 0.3; and it hides why it cannot connect.
async fn ping(dialer: &Dialer) -> std::io::Result<Pong> {
    let asked = async {
        let mut stream = dialer.dial().await?;
        stream
            .write_all(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.take(16 << 10).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match tokio::time::timeout(Duration::from_secs(PING_TIMEOUT), asked).await {
        Ok(answered) => answered?,
        Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
    };
    if !answer.starts_with(b"HTTP/1.") {
        return Err(std::io::Error::other("its Engine does not answer"));
    }
    let answer = String::from_utf8_lossy(&answer);
    Ok(Pong {
        api: api_version(&answer),
        podman: header(&answer, "libpod-api-version").is_some(),
    })
}

/// A header of an answer.
fn header<'a>(answer: &'a str, wanted: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}

/// The API version in an answer's headers.
fn api_version(answer: &str) -> Option<ClientVersion> {
    let value = header(answer, "api-version")?;
    let (major, minor) = value.split_once('.')?;
    Some(ClientVersion {
        major_version: major.parse().ok()?,
        minor_version: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions() {
        let version = api_version("HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n\r\nOK").unwrap();
        assert_eq!((version.major_version, version.minor_version), (1, 41));
        assert!(api_version("HTTP/1.1 200 OK\r\n\r\nOK").is_none());
        assert!(api_version("Api-Version: x").is_none());
    }
}
