//! Relative paths of a tree, made relative to a directory (compose-spec: relative paths are
//! resolved from the directory of the file, or the project directory).

use std::path::{Component, Path, PathBuf};

use crate::node::{Node, Value};

/// What relative paths are relative to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base<'a> {
    /// The directory.
    pub(crate) directory: &'a Path,
    /// What `~` stands for.
    pub(crate) home: Option<&'a str>,
}

impl Base<'_> {
    /// Joins and cleans, without looking at the file system. Absolute paths stay as they are.
    pub(crate) fn join(&self, path: &str) -> String {
        if let Some(expanded) = self.expand_home(path) {
            return expanded;
        }
        if path.starts_with('/') {
            return path.to_owned();
        }
        clean(&self.directory.join(path)).display().to_string()
    }

    fn expand_home(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix('~')?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        Some(format!("{}{rest}", self.home?.trim_end_matches('/')))
    }
}

/// Removes `.` and `..` and doubled slashes by text.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if out.file_name().is_some_and(|n| n != "..") {
                    out.pop();
                } else if !out.has_root() {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() {
        out.push(".");
    }
    out
}

/// The path from one directory to another, both absolute or both relative to one place.
pub(crate) fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to) = (clean(from), clean(to));
    let mut from = from.components().peekable();
    let mut to = to.components().peekable();
    while let (Some(a), Some(b)) = (from.peek(), to.peek()) {
        if a != b {
            break;
        }
        from.next();
        to.next();
    }
    let mut out: PathBuf = from.map(|_| "..").collect();
    out.extend(to);
    clean(&out)
}

/// Whether a build context is fetched rather than read from a directory.
pub(crate) fn is_remote_context(context: &str) -> bool {
    [
        "http://",
        "https://",
        "git://",
        "ssh://",
        "github.com/",
        "git@",
    ]
    .iter()
    .any(|p| context.starts_with(p))
        || context.contains("://")
}

/// Resolves every relative path of a tree in canonical form.
pub(crate) fn resolve(tree: &mut Node, base: Base) {
    for (_, service) in tree.children_mut("services") {
        resolve_service(service, base);
    }
    for section in ["configs", "secrets"] {
        for (_, object) in tree.children_mut(section) {
            set_path(object.get_mut("file"), base);
        }
    }
    for (_, volume) in tree.children_mut("volumes") {
        let driver = volume
            .get("driver")
            .and_then(Node::as_str)
            .map(str::to_owned);
        let Some(options) = volume.get_mut("driver_opts") else {
            continue;
        };
        let bind = options
            .get("o")
            .and_then(Node::as_str)
            .is_some_and(|o| o.split(',').any(|o| o == "bind"));
        // A local volume bound to a directory is a bind mount in disguise.
        if bind && driver.as_deref().is_none_or(|d| d == "local") {
            set_path(options.get_mut("device"), base);
        }
    }
}

/// Resolves every relative path of a service in canonical form.
pub(crate) fn resolve_service(service: &mut Node, base: Base) {
    if let Some(build) = service.get_mut("build") {
        if let Some(context) = build.get_mut("context") {
            set_context(context, base);
        }
        for (_, context) in build.children_mut("additional_contexts") {
            set_context(context, base);
        }
        for (_, key) in build.children_mut("ssh") {
            set_path(Some(key), base);
        }
    }
    for list in ["env_file", "label_file"] {
        for file in service.items_mut(list) {
            match &file.value {
                Value::Str(_) => set_path(Some(file), base),
                _ => set_path(file.get_mut("path"), base),
            }
        }
    }
    set_path(
        service.get_mut("extends").and_then(|e| e.get_mut("file")),
        base,
    );
    if let Some(develop) = service.get_mut("develop") {
        for rule in develop.items_mut("watch") {
            set_path(rule.get_mut("path"), base);
        }
    }
    for mount in service.items_mut("volumes") {
        if mount.get("type").and_then(Node::as_str) == Some("bind") {
            set_path(mount.get_mut("source"), base);
        }
    }
}

fn set_path(node: Option<&mut Node>, base: Base) {
    if let Some(Node {
        value: Value::Str(path),
        ..
    }) = node
    {
        // Windows paths are for another machine's file system.
        let windows = path.starts_with(r"\\") || path.as_bytes().get(1) == Some(&b':');
        if !path.is_empty() && !windows {
            *path = base.join(path);
        }
    }
}

fn set_context(node: &mut Node, base: Base) {
    if let Value::Str(context) = &node.value {
        let special = ["service:", "target:", "docker-image:", "oci-layout:"]
            .iter()
            .any(|p| context.starts_with(p));
        if !special && !is_remote_context(context) {
            set_path(Some(node), base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_and_relating() {
        assert_eq!(clean(Path::new("a/./b/../c//d")), Path::new("a/c/d"));
        assert_eq!(clean(Path::new("/../a")), Path::new("/a"));
        assert_eq!(clean(Path::new("../../a/..")), Path::new("../.."));
        assert_eq!(clean(Path::new("./")), Path::new("."));
        assert_eq!(
            relative(Path::new("/a/b"), Path::new("/a/c/d")),
            Path::new("../c/d")
        );
        assert_eq!(relative(Path::new("/a"), Path::new("/a")), Path::new("."));
    }
}
