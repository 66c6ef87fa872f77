//! Where a copy goes: the rules of `docker cp`, which are those of `cp -a` with a twist for
//! paths that end in `/.`.

/// The place that a copy is to go to, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Path, with a slash or `/.` at the end if it was written with one.
    pub path: String,
    /// Whether there is something.
    pub exists: bool,
    /// Whether that is a directory.
    pub directory: bool,
}

/// Directory that an archive is unpacked in, and the name that its top gets there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    /// A directory.
    pub directory: String,
    /// New name of the archive's top; nothing leaves its own.
    pub name: Option<String>,
}

/// Decides where something lands.
///
/// # Errors
/// Why it cannot be copied there.
pub fn landing(source_is_directory: bool, to: &Place) -> Result<Landing, String> {
    if to.exists && to.directory {
        return Ok(Landing {
            directory: to.path.clone(),
            name: None,
        });
    }
    if to.exists && source_is_directory {
        return Err(format!(
            "{} is a file: a directory cannot be copied onto it",
            to.path
        ));
    }
    if !source_is_directory && means_directory(&to.path) {
        return Err(format!("there is no directory {}", to.path));
    }
    let (directory, name) = split(&to.path);
    Ok(Landing {
        directory,
        name: Some(name),
    })
}

/// Whether a path is written as that of a directory.
pub(super) fn means_directory(path: &str) -> bool {
    path.ends_with('/') || last(path) == "."
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The parent of a path and its last part, which is `.` for the content of a directory.
pub(super) fn split(path: &str) -> (String, String) {
    let mut clean = clean(path);
    if last(path) == "." && path != "." {
        clean = format!("{}/.", clean.trim_end_matches('/'));
    }
    match clean.rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((parent, name)) => (parent.to_owned(), name.to_owned()),
        None => (".".to_owned(), clean),
    }
}

/// A path without `.`, `..` and doubled slashes, as far as that can be told from its text.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Path of a symbolic link's target. A relative one starts where the link is.
pub(super) fn link_target(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return clean(target);
    }
    let (parent, _) = split(&clean(link));
    clean(&format!("{parent}/{target}"))
}

/// What an entry of an archive is called where it lands. `content` says that the archive is what
/// is in a directory, so that the top has no name of its own; `name` is the top's new name.
pub(super) fn renamed(entry: &str, content: bool, name: Option<&str>) -> String {
    let entry = clean(&format!("/{entry}"));
    let entry = entry.trim_start_matches('/');
    // A new name of "." makes the top's content land in the directory itself.
    let name = match name {
        Some(".") => "",
        Some(name) => name,
        None => return entry.to_owned(),
    };
    let rest = match (content, entry.split_once('/')) {
        (true, _) => entry,
        (false, Some((_, rest))) => rest,
        (false, None) => "",
    };
    [name, rest]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, exists: bool, directory: bool) -> Place {
        Place {
            path: path.to_owned(),
            exists,
            directory,
        }
    }

    fn lands(source_is_directory: bool, to: Place) -> Option<(String, Option<String>)> {
        let landing = landing(source_is_directory, &to).ok()?;
        Some((landing.directory, landing.name))
    }

    fn at(directory: &str, name: Option<&str>) -> Option<(String, Option<String>)> {
        Some((directory.to_owned(), name.map(str::to_owned)))
    }

    #[test]
    fn copies_land_as_with_docker_cp() {
        for is_directory in [true, false] {
            let to = place("/tmp", true, true);
            assert_eq!(lands(is_directory, to), at("/tmp", None));
            let to = place("/tmp/new", false, false);
            assert_eq!(lands(is_directory, to), at("/tmp", Some("new")));
        }
        let file = place("/tmp/f", true, false);
        assert_eq!(lands(false, file.clone()), at("/tmp", Some("f")));
        assert_eq!(lands(true, file), None);
        let none = place("/tmp/new/", false, false);
        assert_eq!(lands(true, none.clone()), at("/tmp", Some("new")));
        assert_eq!(lands(false, none), None);
        assert_eq!(lands(false, place("/tmp/new/.", false, false)), None);
        assert_eq!(lands(false, place("f", false, false)), at(".", Some("f")));
        assert_eq!(lands(false, place("/f", false, false)), at("/", Some("f")));
    }

    #[test]
    fn paths_are_split() {
        for (path, parent, name) in [
            ("/a/b", "/a", "b"),
            ("/a/b/", "/a", "b"),
            ("/a/b/.", "/a/b", "."),
            ("/a", "/", "a"),
            ("/", "/", ""),
            ("/.", "/", "."),
            ("a", ".", "a"),
            ("a/../b", ".", "b"),
            (".", ".", "."),
            ("./", ".", "."),
            ("a/.", "a", "."),
        ] {
            assert_eq!(split(path), (parent.to_owned(), name.to_owned()), "{path}");
        }
        assert_eq!(clean("/../a//b/./c/.."), "/a/b");
        assert_eq!(clean("../a/../.."), "../..");
        assert_eq!(link_target("/a/link", "b"), "/a/b");
        assert_eq!(link_target("/a/link/", "../b"), "/b");
        assert_eq!(link_target("/a/link", "/x/"), "/x");
    }

    #[test]
    fn entries_are_renamed() {
        assert_eq!(renamed("d/", false, None), "d");
        assert_eq!(renamed("d/x", false, Some("new")), "new/x");
        assert_eq!(renamed("d/", false, Some("new")), "new");
        assert_eq!(renamed("./x", true, Some("new")), "new/x");
        assert_eq!(renamed("./", true, Some("new")), "new");
        assert_eq!(renamed("./x", true, None), "x");
        assert_eq!(renamed("/x/y", true, None), "x/y");
        assert_eq!(renamed("../../x", false, None), "x");
        assert_eq!(renamed("d/x", false, Some(".")), "x");
    }
}
