//! Directories and sockets, and whether we may use them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::Finding;

/// What is at a place that is to be a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A directory of this owner and mode, and whether we may write in it.
    Directory {
        owner: u32,
        mode: u32,
        writable: bool,
    },
    /// Nothing yet; whether we may make it.
    Nothing { creatable: bool },
    /// Something that is no directory, or that we may not look at.
    Other(String),
}

/// What is where the agent's socket is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Socket {
    /// An agent listens.
    Answers,
    /// A socket that nobody listens on.
    Dead,
    /// Somebody listens, but not for us.
    Forbidden,
    Nothing,
    /// Something that is no socket.
    Other,
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    user: u32,
    state: (PathBuf, Place),
    run: (PathBuf, Place),
    socket: (PathBuf, Socket),
}

pub(super) fn probe(state: &Path, socket: &Path) -> Facts {
    let run = socket.parent().unwrap_or(Path::new("/"));
    Facts {
        user: rustix::process::geteuid().as_raw(),
        state: (state.to_owned(), place(state)),
        run: (run.to_owned(), place(run)),
        socket: (socket.to_owned(), socket_at(socket)),
    }
}

fn place(path: &Path) -> Place {
    let writable = |p: &Path| access(p, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Place::Directory {
            owner: meta.uid(),
            mode: meta.mode() & 0o7777,
            writable: writable(path),
        },
        Ok(_) => Place::Other("it is no directory".to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Place::Nothing {
            creatable: existing(path).is_some_and(writable),
        },
        Err(e) => Place::Other(e.to_string()),
    }
}

/// The nearest directory above that is there.
pub(super) fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|p| p.is_dir())
}

fn socket_at(path: &Path) -> Socket {
    match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => Socket::Answers,
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Socket::Forbidden,
            Err(_) => Socket::Dead,
        },
        Ok(_) => Socket::Other,
        Err(_) => Socket::Nothing,
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let (state, run) = (&facts.state, &facts.run);
    vec![
        directory("state directory", &state.0, &state.1, facts.user, 0o077),
        directory("run directory", &run.0, &run.1, facts.user, 0o002),
        agent(&facts.socket.0, &facts.socket.1),
    ]
}

/// Judges a directory in whose mode no bit of `forbidden` may be set.
fn directory(check: &str, path: &Path, place: &Place, user: u32, forbidden: u32) -> Finding {
    let path = path.display();
    match place {
        Place::Other(why) => Finding::broken(check, format!("{path}: {why}")).mend(format!(
            "move {path} out of the way, or set another directory"
        )),
        Place::Nothing { creatable: true } => Finding::ok(
            check,
            format!("{path} is not there yet; the agent makes it"),
        ),
        Place::Nothing { creatable: false } => Finding::broken(
            check,
            format!("{path} is not there, and we may not make it"),
        )
        .mend("run `wharfie` as root, or set another directory"),
        Place::Directory {
            writable: false, ..
        } => Finding::broken(check, format!("{path} may not be written by us"))
            .mend("run `wharfie` as root, or set another directory"),
        Place::Directory { mode, .. } if mode & forbidden != 0 => Finding::warning(
            check,
            format!("{path} has mode {mode:04o}: others may look at what is Wharfie's own"),
        )
        .mend(format!("chmod {:04o} {path}", mode & !forbidden)),
        Place::Directory { owner, .. } if *owner != user => {
            Finding::warning(check, format!("{path} belongs to user {owner}, not to us"))
                .mend(format!("chown {user} {path}"))
        }
        Place::Directory { .. } => Finding::ok(check, path.to_string()),
    }
}

fn agent(path: &Path, socket: &Socket) -> Finding {
    let path = path.display();
    match socket {
        Socket::Answers => Finding::ok("agent", format!("one listens at {path}")),
        Socket::Nothing => Finding::ok("agent", "none runs"),
        Socket::Dead => Finding::warning(
            "agent",
            format!("none runs, but one left its socket {path}: it did not end in order"),
        )
        .mend("look why with `journalctl -u wharfie`, and start it: `systemctl start wharfie`"),
        Socket::Forbidden => Finding::warning("agent", format!("we may not use its socket {path}"))
            .mend("run as root, or join the group of the socket"),
        Socket::Other => Finding::broken("agent", format!("{path} is no socket"))
            .mend(format!("move {path} out of the way")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn state(place: Place) -> Finding {
        directory("state directory", Path::new("/s"), &place, 0, 0o077)
    }

    #[test]
    fn directories_are_judged() {
        let good = Place::Directory {
            owner: 0,
            mode: 0o700,
            writable: true,
        };
        assert_eq!(state(good).verdict, Verdict::Ok);
        assert_eq!(
            state(Place::Nothing { creatable: true }).verdict,
            Verdict::Ok
        );
        assert_eq!(
            state(Place::Nothing { creatable: false }).verdict,
            Verdict::Broken
        );
        let open = state(Place::Directory {
            owner: 0,
            mode: 0o755,
            writable: true,
        });
        assert_eq!(open.verdict, Verdict::Warning);
        assert_eq!(open.mend.as_deref(), Some("chmod 0700 /s"));
        let theirs = state(Place::Directory {
            owner: 5,
            mode: 0o700,
            writable: true,
        });
        assert_eq!(theirs.verdict, Verdict::Warning);
    }

    #[test]
    fn places_are_seen_as_they_are() {
        let dir = std::env::temp_dir().join(format!("wharfie-paths-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert!(matches!(
            place(&dir),
            Place::Directory { writable: true, .. }
        ));
        assert_eq!(
            place(&dir.join("not/yet")),
            Place::Nothing { creatable: true }
        );
        fs::write(dir.join("file"), "").unwrap();
        assert!(matches!(place(&dir.join("file")), Place::Other(_)));
        assert_eq!(socket_at(&dir.join("file")), Socket::Other);
        let path = dir.join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(socket_at(&path), Socket::Answers);
        drop(listener);
        assert_eq!(socket_at(&path), Socket::Dead);
        assert_eq!(agent(&path, &Socket::Dead).verdict, Verdict::Warning);
        fs::remove_dir_all(&dir).unwrap();
    }
}
