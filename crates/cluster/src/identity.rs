//! The key of a node, in a file of its own.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use iroh::SecretKey;

use crate::id::NodeId;

/// Name of the file in the state directory.
pub const KEY_FILE: &str = "node.key";

/// An Ed25519 key (RFC 8032): whoever has it is the node.
#[derive(Clone)]
pub struct Identity {
    key: SecretKey,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.id().short())
    }
}

/// The key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot use the node's key in {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file holds no key.
    #[error(
        "{path} holds no key; restore it, or remove it to make this node a new one that joins again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    /// A key of its own, kept nowhere.
    #[must_use]
    pub fn new() -> Self {
        Self {
            key: SecretKey::generate(),
        }
    }

    /// The key in a directory; it is made, readable by its owner only, if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub fn load_or_make(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(KEY_FILE);
        let failed = |e: std::io::Error| IdentityError::File {
            path: path.clone(),
            reason: e.to_string(),
        };
        match fs::read_to_string(&path) {
            Ok(text) => {
                let key = decode(text.trim());
                let key = key.ok_or_else(|| IdentityError::Damaged { path: path.clone() })?;
                let private = fs::Permissions::from_mode(0o600);
                fs::set_permissions(&path, private).map_err(failed)?;
                Ok(Self {
                    key: SecretKey::from_bytes(&key),
                })
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let identity = Self::new();
                identity.write(dir, &path).map_err(failed)?;
                Ok(identity)
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Puts the key of a directory aside: the node is a new one from now on.
    ///
    /// # Errors
    /// The file cannot be moved.
    pub fn retire(dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(KEY_FILE);
        match fs::rename(&path, dir.join("node.key.old")) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(IdentityError::File {
                path,
                reason: e.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Who has it.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(*self.key.public().as_bytes())
    }

    /// The key itself.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Either the whole key is there afterwards, or none.
    fn write(&self, dir: &Path, path: &Path) -> std::io::Result<()> {
        let draft = dir.join("node.key.new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        let text: String = self.secret().iter().map(|b| format!("{b:02x}")).collect();
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(dir)?.sync_all()
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let NodeId(key) = text.parse().ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_the_same_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_make(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let again = Identity::load_or_make(dir.path()).unwrap();
        assert_eq!(first.id(), again.id());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        Identity::retire(dir.path()).unwrap();
        assert_ne!(Identity::load_or_make(dir.path()).unwrap().id(), first.id());
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), "xyz").unwrap();
        let error = Identity::load_or_make(dir.path()).unwrap_err();
        assert!(error.to_string().contains("holds no key"), "{error}");
        assert_eq!(
            fs::read_to_string(dir.path().join(KEY_FILE)).unwrap(),
            "xyz"
        );
    }
}
