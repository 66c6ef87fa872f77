//! What can go wrong with a store, in words for the user.

use std::path::{Path, PathBuf};

use crate::replica::{Key, Refusal};

/// A failure, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refuses.
    #[error(
        "cannot use the state in {}: {reason}; nothing that was there is lost: make room or give access, and try again", path.display()
    )]
    Disk {
        /// File or directory.
        path: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// Another process has it open.
    #[error(
        "the state in {} is in use by another agent; stop that one, or give this one another --state-dir", path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error(
        "the state in {} has format {found}, and this wharfie knows formats up to {known}: it was written by a newer version; install that one again", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// Something in it cannot be understood.
    #[error("the state is damaged: {0}; move it away and deploy again, or restore a copy of it")]
    Damaged(String),
    /// A version must not be written.
    #[error("{key} cannot be kept: {refusal}")]
    Refused {
        /// Which object.
        key: Key,
        /// Why not.
        refusal: Refusal,
    },
}

impl Error {
    /// The same, with the file's path where it was not known.
    pub(super) fn at(self, file: &Path) -> Self {
        let unknown = |path: PathBuf| {
            if path.as_os_str().is_empty() {
                file.to_owned()
            } else {
                path
            }
        };
        match self {
            Self::Disk { path, reason } => Self::Disk {
                path: unknown(path),
                reason,
            },
            Self::InUse { path } => Self::InUse {
                path: unknown(path),
            },
            Self::Newer { path, found, known } => Self::Newer {
                path: unknown(path),
                found,
                known,
            },
            other => other,
        }
    }
}

fn disk(reason: impl ToString) -> Error {
    Error::Disk {
        path: PathBuf::new(),
        reason: reason.to_string(),
    }
}

impl From<redb::DatabaseError> for Error {
    fn from(error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::InUse {
                path: PathBuf::new(),
            },
            redb::DatabaseError::Storage(e) => e.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::StorageError> for Error {
    fn from(error: redb::StorageError) -> Self {
        match error {
            redb::StorageError::Corrupted(what) => Self::Damaged(what),
            redb::StorageError::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                Self::Damaged(e.to_string())
            }
            redb::StorageError::Io(e) => disk(e),
            other => disk(other),
        }
    }
}

impl From<redb::TransactionError> for Error {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(e) => e.into(),
            other => disk(other),
        }
    }
}

impl From<redb::TableError> for Error {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(e) => e.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::CommitError> for Error {
    fn from(error: redb::CommitError) -> Self {
        match error {
            redb::CommitError::Storage(e) => e.into(),
            other => disk(other),
        }
    }
}

impl From<redb::SetDurabilityError> for Error {
    fn from(error: redb::SetDurabilityError) -> Self {
        disk(error)
    }
}
