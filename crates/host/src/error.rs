//! What can go wrong with an Engine, in words for the user.

use bollard::errors::Error as EngineError;

/// A failure, with what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nothing answers at the Engine's address.
    #[error(
        "the Docker Engine is not running: nothing answers at {address}; start it with `systemctl start docker` (or `dockerd &`)"
    )]
    NotRunning {
        /// Where it was looked for.
        address: String,
    },
    /// Something listens at the Engine's address, but does not answer.
    #[error(
        "the Docker Engine at {address} does not answer within {seconds} s: it hangs; restart it with `systemctl restart docker`"
    )]
    Hangs {
        /// Where it listens.
        address: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The Engine's socket may not be used.
    #[error(
        "no permission to use the Docker Engine at {address}: run as root, or join the group of the socket (`usermod -aG docker $USER`, then log in again)"
    )]
    NotPermitted {
        /// The socket.
        address: String,
    },
    /// An Engine of another host cannot be reached.
    #[error("cannot reach the Docker Engine of {address}: {reason}")]
    Unreachable {
        /// What it is called.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The address has a form that is not known.
    #[error("{address} is not an Engine address: use unix:///path")]
    BadAddress {
        /// The address.
        address: String,
    },
    /// The Engine's API is too old.
    #[error("the Docker Engine {engine} has API {api}; at least 1.41 (Engine 20.10) is needed")]
    TooOld {
        /// The Engine's version.
        engine: String,
        /// Its API version.
        api: String,
    },
    /// The Engine went away in the middle.
    #[error(
        "the Docker Engine went away: {reason}; once it runs again, the same command finishes what is left"
    )]
    Gone {
        /// What was seen.
        reason: String,
    },
    /// The Engine refused a request.
    #[error("{context}: {message}")]
    Refused {
        /// What was to be done.
        context: String,
        /// The Engine's words, or ours where we know better.
        message: String,
        /// HTTP status.
        status: u16,
    },
    /// A container did not become what was waited for.
    #[error("{0}")]
    Wait(String),
    /// A build failed.
    #[error("{0}")]
    Build(String),
    /// Something local failed.
    #[error("{0}")]
    Local(String),
    /// The work was given up because other work failed or the user asked for it.
    #[error("{0} was not done")]
    Cancelled(String),
}

impl Error {
    /// Translates an error of the client. `context` says what was to be done, as in
    /// "cannot start demo-web-1".
    pub(crate) fn from_engine(context: impl Into<String>, error: EngineError) -> Self {
        let context = context.into();
        match error {
            EngineError::DockerResponseServerError {
                status_code,
                message,
            } => Self::Refused {
                message: plain(&message),
                context,
                status: status_code,
            },
            EngineError::DockerStreamError { error } => Self::Refused {
                message: plain(&error),
                context,
                status: 500,
            },
            EngineError::SocketNotFoundError(address) => Self::NotRunning { address },
            EngineError::RequestTimeoutError => Self::Gone {
                reason: format!("{context}: no answer in time"),
            },
            other => Self::Gone {
                reason: format!("{context}: {}", chain(&other)),
            },
        }
    }

    /// Whether the thing that was meant is not there (HTTP 404).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether containerd still has the task of a start that a dying Engine cut off: the
    /// container can then never be started.
    #[must_use]
    pub(crate) fn is_left_over_task(&self) -> bool {
        let Self::Refused { message, .. } = self else {
            return false;
        };
        let task = message.starts_with("task ") && message.contains("already exists");
        task || message.contains("id already in use")
    }

    /// Whether the Engine is out of reach, or has just gone away.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.is_engine_away() || matches!(self, Self::Gone { .. })
    }

    /// Whether the Engine cannot be reached or used at all.
    #[must_use]
    pub fn is_engine_away(&self) -> bool {
        matches!(
            self,
            Self::NotRunning { .. }
                | Self::Hangs { .. }
                | Self::NotPermitted { .. }
                | Self::Unreachable { .. }
                | Self::BadAddress { .. }
                | Self::TooOld { .. }
        )
    }
}

/// The Engine's message without its own wrapping.
fn plain(message: &str) -> String {
    let message = message.trim();
    let message = message
        .strip_prefix("Error response from daemon: ")
        .unwrap_or(message);
    message.to_owned()
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
