//! Changes of files, in batches: an editor's save, or a switch of branches, is one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::EventKind;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::failure::Failure;

/// A batch is complete when nothing has changed for this long.
const SILENCE: Duration = Duration::from_millis(300);
/// A batch waits for silence no longer than this.
const LONGEST: Duration = Duration::from_secs(3);

/// Watches files and directories.
pub(crate) struct Changes {
    /// Watching ends with it.
    _watcher: RecommendedWatcher,
    events: mpsc::UnboundedReceiver<notify::Result<notify::Event>>,
    roots: Vec<PathBuf>,
}

impl Changes {
    /// Watches files, and directories with all that is in them.
    pub(crate) fn watch(roots: Vec<PathBuf>) -> Result<Self, Failure> {
        let (sender, events) = mpsc::unbounded_channel();
        let send = move |event| {
            // Without a receiver nobody wants to know.
            let _ = sender.send(event);
        };
        let mut watcher = notify::recommended_watcher(send).map_err(|e| failed(&e))?;
        let mut watched = BTreeSet::new();
        for root in &roots {
            // Editors replace files: what is watched of a file is its directory.
            let (path, mode) = match root.parent() {
                Some(parent) if !root.is_dir() => (parent, RecursiveMode::NonRecursive),
                _ => (root.as_path(), RecursiveMode::Recursive),
            };
            if watched.insert((path.to_owned(), mode == RecursiveMode::Recursive)) {
                watcher.watch(path, mode).map_err(|e| failed(&e))?;
            }
        }
        Ok(Self {
            _watcher: watcher,
            events,
            roots,
        })
    }

    /// Waits for the next batch of paths that came, went or changed: files, and directories that
    /// are gone.
    pub(crate) async fn next(&mut self) -> Result<BTreeSet<PathBuf>, Failure> {
        let mut batch = BTreeSet::new();
        while batch.is_empty() {
            let Some(event) = self.events.recv().await else {
                return Err(Failure::failed("changes of files can no longer be seen"));
            };
            self.take(event, &mut batch)?;
        }
        let end = Instant::now() + LONGEST;
        loop {
            let until = (Instant::now() + SILENCE).min(end);
            match timeout_at(until, self.events.recv()).await {
                Ok(Some(event)) => self.take(event, &mut batch)?,
                Ok(None) | Err(_) => return Ok(batch),
            }
            if Instant::now() >= end {
                return Ok(batch);
            }
        }
    }

    fn take(
        &self,
        event: notify::Result<notify::Event>,
        batch: &mut BTreeSet<PathBuf>,
    ) -> Result<(), Failure> {
        let event = event.map_err(|e| failed(&e))?;
        if event.need_rescan() {
            // Some events were lost: anything may have changed.
            self.roots.iter().for_each(|root| files(root, batch));
        }
        if matches!(event.kind, EventKind::Access(_)) {
            return Ok(());
        }
        for path in &event.paths {
            // What was in a new directory before it was watched has had no event of its own.
            if path.is_dir() && !path.is_symlink() {
                if matches!(
                    event.kind,
                    EventKind::Create(_) | EventKind::Modify(notify::event::ModifyKind::Name(_))
                ) {
                    files(path, batch);
                }
            } else {
                batch.insert(path.clone());
            }
        }
        Ok(())
    }
}

/// Adds a file, or all files in a directory. What cannot be read or is gone is left out.
pub(crate) fn files(path: &Path, into: &mut BTreeSet<PathBuf>) {
    if path.is_symlink() || !path.is_dir() {
        if path.exists() || path.is_symlink() {
            into.insert(path.to_owned());
        }
        return;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.for_each(|entry| files(&entry.path(), into));
}

fn failed(error: &notify::Error) -> Failure {
    let failure = Failure::failed(format!("cannot watch files: {error}"));
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            failure.help("raise `sysctl fs.inotify.max_user_watches`, or watch fewer directories")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_come_in_batches() {
        let dir = std::env::temp_dir().join(format!("wharfie-changes-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("watched")).unwrap();
        let dir = dir.canonicalize().unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        let roots = vec![dir.join("watched"), dir.join("file")];
        let mut changes = Changes::watch(roots).unwrap();
        std::fs::create_dir_all(dir.join("watched/new/deep")).unwrap();
        std::fs::write(dir.join("watched/new/deep/a"), "a").unwrap();
        std::fs::write(dir.join("file"), "b").unwrap();
        // They may come in more than one.
        let mut seen = BTreeSet::new();
        let expected = [dir.join("file"), dir.join("watched/new/deep/a")];
        while !expected.iter().all(|path| seen.contains(path)) {
            seen.extend(changes.next().await.unwrap());
        }
        std::fs::remove_dir_all(dir.join("watched/new")).unwrap();
        while !seen.contains(&dir.join("watched/new")) {
            seen.extend(changes.next().await.unwrap());
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
