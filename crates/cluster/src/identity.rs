//! The key of a node, in a file of its own.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::id::NodeId;

/// Name of the file in the state directory.
pub const KEY_FILE: &str = "node.key";
/// Name of the file with the key that is to take its place.
const NEXT_FILE: &str = "node.key.next";

/// An Ed25519 key (RFC 8032): whoever has it is the node.
#[derive(Clone)]
pub struct Identity {
    secret: [u8; 32],
    id: NodeId,
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
        Self::of(rand::random())
    }

    fn of(secret: [u8; 32]) -> Self {
        // Any 32 bytes are a key, and the library refuses only another length.
        let pair = Ed25519KeyPair::from_seed_unchecked(&secret).ok();
        let public = pair.and_then(|p| p.public_key().as_ref().try_into().ok());
        Self {
            secret,
            id: public.map_or(NodeId::NONE, NodeId),
        }
    }

    /// The key in a directory; it is made, readable by its owner only, if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub fn load_or_make(dir: &Path) -> Result<Self, IdentityError> {
        Self::load(dir, KEY_FILE)
    }

    /// The key that a node is to have once it is let in with it; it is made if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub fn next(dir: &Path) -> Result<Self, IdentityError> {
        Self::load(dir, NEXT_FILE)
    }

    /// Whether there is such a key: it may have been let in, without an answer.
    #[must_use]
    pub fn has_next(dir: &Path) -> bool {
        dir.join(NEXT_FILE).exists()
    }

    /// It was not let in.
    pub fn drop_next(dir: &Path) {
        // If it stays, the next attempt is made with it.
        let _ = fs::remove_file(dir.join(NEXT_FILE));
    }

    fn load(dir: &Path, file: &str) -> Result<Self, IdentityError> {
        let path = dir.join(file);
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
                Ok(Self::of(key))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let identity = Self::new();
                identity.write(dir, &path).map_err(failed)?;
                Ok(identity)
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Puts the key of a directory aside, and the next one in its place: the node is a new one from
    /// now on.
    ///
    /// # Errors
    /// The files cannot be moved.
    pub fn renew(dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(KEY_FILE);
        let old = dir.join("node.key.old");
        let renew = || {
            match fs::remove_file(&old) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            match fs::hard_link(&path, &old) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            // At no time is there no key.
            fs::rename(dir.join(NEXT_FILE), &path)?;
            File::open(dir)?.sync_all()
        };
        renew().map_err(|e: std::io::Error| IdentityError::File {
            path: path.clone(),
            reason: e.to_string(),
        })
    }

    /// Who has it.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The key itself.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.secret
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
        let next = Identity::next(dir.path()).unwrap();
        assert_ne!(next.id(), first.id());
        assert_eq!(Identity::next(dir.path()).unwrap().id(), next.id());
        Identity::renew(dir.path()).unwrap();
        assert_eq!(Identity::load_or_make(dir.path()).unwrap().id(), next.id());
        assert!(!Identity::has_next(dir.path()));
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
