//! What follows from changed files: the rules of `develop.watch`, without any I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use wharfie_host::build::ignore::Ignore;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Files are copied into the containers.
    Sync,
    /// The image is built again.
    Rebuild,
    /// The containers are restarted.
    Restart,
    /// Files are copied, then the containers restarted.
    SyncRestart,
    /// Files are copied, then a command is run in the containers.
    SyncExec,
}

impl Action {
    /// From its name in a file.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "sync" => Self::Sync,
            "rebuild" => Self::Rebuild,
            "restart" => Self::Restart,
            "sync+restart" => Self::SyncRestart,
            "sync+exec" => Self::SyncExec,
            _ => return None,
        })
    }

    /// Whether files are copied.
    pub(crate) fn syncs(self) -> bool {
        matches!(self, Self::Sync | Self::SyncRestart | Self::SyncExec)
    }
}

/// Patterns and the directory that they start from.
#[derive(Debug, Clone)]
pub(crate) struct Patterns {
    root: PathBuf,
    ignore: Ignore,
}

impl Patterns {
    /// Reads patterns, which are those of a `.dockerignore`.
    pub(crate) fn parse(root: &Path, text: &str) -> Result<Self, String> {
        let ignore =
            Ignore::parse(text).map_err(|bad| format!("{:?}: {}", bad.text, bad.reason))?;
        Ok(Self {
            root: root.to_owned(),
            ignore,
        })
    }

    fn match_path(&self, path: &Path) -> bool {
        let inside = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        inside.is_some_and(|inside| self.ignore.ignores(inside))
    }
}

/// What editors leave beside the files, and what git keeps: never of interest.
pub(crate) const NEVER: &str = "**/.git\n**/4913\n**/*~\n**/.*.sw?\n**/.*.swpx\n**/.#*\n**/#*#\n**/.*.kate-swp\n**/.goutputstream-*\n**/.idea\n**/*___jb_old___\n**/*___jb_tmp___\n";

/// What makes the containers and is no part of them: left out of the first copy.
pub(crate) const MAKING: &str = "**/Dockerfile\n**/compose.yaml\n**/compose.yml\n**/docker-compose.yaml\n**/docker-compose.yml\n**/compose.override.yaml\n**/compose.override.yml\n**/docker-compose.override.yaml\n**/docker-compose.override.yml\n";

/// One rule of a service.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// The service.
    pub(crate) service: String,
    /// The file or directory that is watched, without links.
    pub(crate) path: PathBuf,
    /// What is done.
    pub(crate) action: Action,
    /// Where files go in the containers.
    pub(crate) target: String,
    /// If there are any, only what they match counts.
    pub(crate) include: Option<Patterns>,
    /// What they match does not count.
    pub(crate) ignore: Vec<Patterns>,
}

impl Rule {
    /// Whether a changed path is of interest.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        path.starts_with(&self.path)
            && self.include.as_ref().is_none_or(|i| i.match_path(path))
            && !self.ignore.iter().any(|i| i.match_path(path))
    }

    /// Where a path goes in the containers.
    pub(crate) fn target_of(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.path).unwrap_or(Path::new(""));
        let target = self.target.trim_end_matches('/');
        match inside.as_os_str().is_empty() {
            true => self.target.clone(),
            false => format!("{target}/{}", inside.display()),
        }
    }
}

/// What is to be done, each thing once. Images are built first, then files copied, then containers
/// restarted, then commands run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Services whose images are built.
    pub(crate) rebuild: BTreeSet<String>,
    /// Files to copy by service, and where they go in its containers. One file may go to several
    /// places.
    pub(crate) sync: BTreeMap<String, BTreeSet<(PathBuf, String)>>,
    /// Services whose containers are restarted.
    pub(crate) restart: BTreeSet<String>,
    /// Indices of the rules whose commands are run.
    pub(crate) exec: BTreeSet<usize>,
}

/// Decides what follows from changed paths. A service that is built again gets new containers:
/// files that its image has anew are not copied, and nothing is restarted.
pub(crate) fn decide(rules: &[Rule], changed: &BTreeSet<PathBuf>) -> Batch {
    let mut batch = Batch::default();
    for path in changed {
        for (index, rule) in rules.iter().enumerate().filter(|(_, r)| r.matches(path)) {
            let service = rule.service.clone();
            if rule.action.syncs() {
                let files = batch.sync.entry(service.clone()).or_default();
                files.insert((path.clone(), rule.target_of(path)));
            }
            match rule.action {
                Action::Rebuild => drop(batch.rebuild.insert(service)),
                Action::Restart | Action::SyncRestart => drop(batch.restart.insert(service)),
                Action::SyncExec => drop(batch.exec.insert(index)),
                Action::Sync => {}
            }
        }
    }
    batch.restart.retain(|s| !batch.rebuild.contains(s));
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(service: &str, path: &str, action: Action, target: &str) -> Rule {
        Rule {
            service: service.to_owned(),
            path: path.into(),
            action,
            target: target.to_owned(),
            include: None,
            ignore: vec![Patterns::parse(Path::new("/"), NEVER).unwrap()],
        }
    }

    fn changed(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn files_go_where_the_rule_says() {
        let site = rule("web", "/p/site", Action::Sync, "/srv/");
        let file = rule(
            "web",
            "/p/nginx.conf",
            Action::SyncRestart,
            "/etc/nginx.conf",
        );
        let batch = decide(
            &[site, file],
            &changed(&["/p/site/a/b", "/p/nginx.conf", "/p/site2/c", "/p/other"]),
        );
        let files: Vec<(String, &str)> = batch.sync["web"]
            .iter()
            .map(|(from, to)| (from.display().to_string(), to.as_str()))
            .collect();
        assert_eq!(
            files,
            [
                ("/p/nginx.conf".to_owned(), "/etc/nginx.conf"),
                ("/p/site/a/b".to_owned(), "/srv/a/b")
            ]
        );
        assert_eq!(batch.restart, set(&["web"]));
        assert!(batch.rebuild.is_empty() && batch.exec.is_empty());
    }

    #[test]
    fn patterns_choose() {
        let mut rule = rule("web", "/p/site", Action::Sync, "/srv");
        let root = Path::new("/p/site");
        rule.include = Some(Patterns::parse(root, "*.html\nimages").unwrap());
        rule.ignore
            .push(Patterns::parse(root, "images/raw").unwrap());
        rule.ignore
            .push(Patterns::parse(Path::new("/p"), "site/draft.html").unwrap());
        for (path, matches) in [
            ("/p/site/index.html", true),
            ("/p/site/images/a.png", true),
            ("/p/site/images/raw/a.png", false),
            ("/p/site/draft.html", false),
            ("/p/site/style.css", false),
            ("/p/site/images/.a.png.swp", false),
            ("/p/site/images/a.png~", false),
            ("/p/site/images/.git/HEAD", false),
            ("/p/index.html", false),
        ] {
            assert_eq!(rule.matches(Path::new(path)), matches, "{path}");
        }
        assert!(Patterns::parse(root, "[a").is_err());
    }

    #[test]
    fn everything_is_done_once() {
        let rules = [
            rule("app", "/p/src", Action::Rebuild, ""),
            rule("app", "/p/src", Action::Restart, ""),
            rule("job", "/p/src", Action::SyncExec, "/src"),
            rule("job", "/p/src/deep", Action::SyncExec, "/deep"),
            rule("idle", "/p/src", Action::Restart, ""),
        ];
        let batch = decide(&rules, &changed(&["/p/src/a", "/p/src/b"]));
        assert_eq!(batch.rebuild, set(&["app"]));
        // New containers need no restart.
        assert_eq!(batch.restart, set(&["idle"]));
        assert_eq!(batch.exec, BTreeSet::from([2]));
        assert_eq!(batch.sync["job"].len(), 2);
        let deep = decide(&rules, &changed(&["/p/src/deep/c"]));
        assert_eq!(deep.exec, BTreeSet::from([2, 3]));
        assert_eq!(deep.sync["job"].len(), 2, "to both places");
        assert_eq!(decide(&rules, &changed(&["/q"])), Batch::default());
    }
}
