//! The build context: the directory, its Dockerfile and what of it stays at home.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use super::BuildError;
use super::ignore::Ignore;

pub(super) const DOCKERIGNORE: &str = ".dockerignore";

/// A context directory that was found fit to be sent.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) root: PathBuf,
    pub(super) ignore: Ignore,
    /// Name of the Dockerfile in what is sent.
    pub(super) dockerfile: String,
    /// Files that are sent instead of, or besides, those of the directory.
    pub(super) extra: Vec<(String, Vec<u8>)>,
}

impl Context {
    /// Looks at the directory, the Dockerfile and the ignore file. Blocks.
    pub(super) fn open(dir: &Path, dockerfile: &str, inline: &str) -> Result<Self, BuildError> {
        let root = match fs::canonicalize(dir) {
            Ok(root) if root.is_dir() => root,
            Ok(_) => {
                return Err(BuildError::ContextNotDirectory {
                    path: dir.to_owned(),
                });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(BuildError::ContextMissing {
                    path: dir.to_owned(),
                });
            }
            Err(source) => {
                return Err(BuildError::Unreadable {
                    path: dir.to_owned(),
                    source,
                });
            }
        };
        let given = if inline.is_empty() {
            Some(locate(&root, dockerfile)?)
        } else {
            None
        };
        let own = given.as_ref().map(|(path, _)| {
            let mut name = path.clone().into_os_string();
            name.push(DOCKERIGNORE);
            PathBuf::from(name)
        });
        let given = given.map(|(_, real)| real);
        let general = read_if_there(&root.join(DOCKERIGNORE))?;
        let own = match own {
            Some(path) => read_if_there(&path)?.map(|rules| (path, rules)),
            None => None,
        };
        let specific = own.is_some();
        let (ignore_path, rules) =
            own.unwrap_or_else(|| (root.join(DOCKERIGNORE), general.clone().unwrap_or_default()));
        let mut ignore = Ignore::parse(&String::from_utf8_lossy(&rules)).map_err(|bad| {
            BuildError::IgnoreFile {
                path: ignore_path,
                line: bad.line,
                text: bad.text,
                reason: bad.reason,
            }
        })?;

        let mut extra = Vec::new();
        let inside = given.as_ref().and_then(|path| relative(&root, path));
        let (name, hide) = match (&given, inside) {
            (Some(_), Some(name)) => {
                let hide = ignore.ignores(&name);
                ignore.keep(&name);
                (name, hide)
            }
            (given, _) => {
                let text = match given {
                    Some(path) => fs::read(path).map_err(|source| BuildError::Unreadable {
                        path: path.clone(),
                        source,
                    })?,
                    None => inline.as_bytes().to_vec(),
                };
                let name = free_name(&root, &text);
                extra.push((name.clone(), text));
                (name, true)
            }
        };

        // The Engine reads `.dockerignore` only to see whether that file and the Dockerfile
        // are to be taken out of the context again before the first step.
        let hide_ignore = general.is_none() || ignore.ignores(DOCKERIGNORE);
        let pattern = escape(&name);
        let sent = match general {
            _ if hide_ignore && hide => Some(format!("{DOCKERIGNORE}\n{pattern}\n").into_bytes()),
            Some(_) if hide_ignore => Some(format!("{DOCKERIGNORE}\n").into_bytes()),
            Some(mut text) => {
                if specific || !extra.is_empty() {
                    let sign = if hide { "" } else { "!" };
                    text.extend(format!("\n!{DOCKERIGNORE}\n{sign}{pattern}\n").into_bytes());
                }
                Some(text)
            }
            None => None,
        };
        extra.extend(sent.map(|text| (DOCKERIGNORE.to_owned(), text)));
        Ok(Self {
            root,
            ignore,
            dockerfile: name,
            extra,
        })
    }
}

/// The Dockerfile and, if it has one, the ignore file of its own: names and contents.
pub(super) fn dockerfile(
    root: &Path,
    dockerfile: &str,
    inline: &str,
) -> Result<Vec<(String, Vec<u8>)>, BuildError> {
    if !inline.is_empty() {
        return Ok(vec![("Dockerfile".to_owned(), inline.as_bytes().to_vec())]);
    }
    let (path, real) = locate(root, dockerfile)?;
    let text = fs::read(&real).map_err(|source| BuildError::Unreadable { path: real, source })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut files = vec![(name.clone().into_owned(), text)];
    let mut own = path.clone().into_os_string();
    own.push(DOCKERIGNORE);
    if let Some(rules) = read_if_there(Path::new(&own))? {
        files.push((format!("{name}{DOCKERIGNORE}"), rules));
    }
    Ok(files)
}

/// The Dockerfile as named, and its real path; "Dockerfile" may also be written "dockerfile".
fn locate(root: &Path, dockerfile: &str) -> Result<(PathBuf, PathBuf), BuildError> {
    let name = if dockerfile.is_empty() {
        "Dockerfile"
    } else {
        dockerfile
    };
    let mut path = root.join(name);
    if name == "Dockerfile" && !path.exists() && root.join("dockerfile").exists() {
        path = root.join("dockerfile");
    }
    match fs::canonicalize(&path) {
        Ok(real) if real.is_file() => Ok((path, real)),
        Ok(_) => Err(BuildError::DockerfileNotFile { path }),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(BuildError::DockerfileMissing { path })
        }
        Err(source) => Err(BuildError::Unreadable { path, source }),
    }
}

/// `path` as a name in the context, if it is in there and can be written as text.
fn relative(root: &Path, path: &Path) -> Option<String> {
    path.strip_prefix(root).ok()?.to_str().map(str::to_owned)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, BuildError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BuildError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// A name for a Dockerfile from elsewhere: the same for the same text, so that the cache
/// of the builder is not upset.
fn free_name(root: &Path, text: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    loop {
        text.hash(&mut hasher);
        let name = format!(".dockerfile.{:016x}", hasher.finish());
        if fs::symlink_metadata(root.join(&name)).is_err() {
            return name;
        }
    }
}

/// A pattern that matches only this name.
fn escape(name: &str) -> String {
    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\' | '!' | '#');
    name.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory that is gone at the end.
    pub(in super::super) struct Scratch(pub(in super::super) PathBuf);

    impl Scratch {
        pub(in super::super) fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("wharfie-context-{}-{number}", std::process::id());
            let scratch = Self(std::env::temp_dir().join(name));
            fs::create_dir_all(&scratch.0).unwrap();
            for (name, text) in files {
                let path = scratch.0.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            scratch
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn extra(context: &Context) -> Vec<(&str, &str)> {
        context
            .extra
            .iter()
            .map(|(n, t)| (n.as_str(), std::str::from_utf8(t).unwrap()))
            .collect()
    }

    #[test]
    fn the_dockerfile_is_found_or_named() {
        let dir = Scratch::new(&[("dockerfile", "FROM scratch"), ("sub/x", "")]);
        assert_eq!(
            Context::open(&dir.0, "Dockerfile", "").unwrap().dockerfile,
            "dockerfile"
        );
        let fault = Context::open(&dir.0, "nope/Dockerfile", "").unwrap_err();
        assert!(
            fault
                .to_string()
                .contains(&format!("{}/nope/Dockerfile", dir.0.display())),
            "{fault}"
        );
        let fault = Context::open(&dir.0, "sub", "").unwrap_err();
        assert!(
            matches!(fault, BuildError::DockerfileNotFile { .. }),
            "{fault}"
        );
        let fault = Context::open(&dir.0.join("gone"), "Dockerfile", "").unwrap_err();
        assert!(
            matches!(fault, BuildError::ContextMissing { .. }),
            "{fault}"
        );
        let fault = Context::open(&dir.0.join("sub/x"), "Dockerfile", "").unwrap_err();
        assert!(
            matches!(fault, BuildError::ContextNotDirectory { .. }),
            "{fault}"
        );
    }

    #[test]
    fn bad_ignore_files_are_named() {
        let dir = Scratch::new(&[("Dockerfile", ""), (".dockerignore", "ok\n[a-\n")]);
        let fault = Context::open(&dir.0, "Dockerfile", "")
            .unwrap_err()
            .to_string();
        assert!(
            fault.contains(".dockerignore:2: bad pattern \"[a-\""),
            "{fault}"
        );
    }

    #[test]
    fn dockerfiles_from_elsewhere_are_put_in_and_hidden() {
        let dir = Scratch::new(&[("in/a", ""), ("Outside", "FROM scratch")]);
        let context = Context::open(&dir.0.join("in"), "../Outside", "").unwrap();
        let name = context.dockerfile.as_str();
        assert!(name.starts_with(".dockerfile."));
        let hidden = format!(".dockerignore\n{name}\n");
        assert_eq!(
            extra(&context),
            [(name, "FROM scratch"), (".dockerignore", hidden.as_str())]
        );

        // The same text in the file itself gives the same name.
        let inline = Context::open(&dir.0.join("in"), "", "FROM scratch").unwrap();
        assert_eq!(inline.dockerfile, context.dockerfile);

        // An ignore file that is part of the context keeps its rules.
        fs::write(dir.0.join("in/.dockerignore"), "b").unwrap();
        let inline = Context::open(&dir.0.join("in"), "", "FROM scratch").unwrap();
        let kept = format!("b\n!.dockerignore\n{name}\n");
        assert_eq!(extra(&inline)[1], (".dockerignore", kept.as_str()));
    }

    #[test]
    fn the_dockerfiles_own_ignore_file_comes_first() {
        let dir = Scratch::new(&[
            ("d/Web[1]", "FROM scratch"),
            ("d/Web[1].dockerignore", "d"),
            (".dockerignore", "*"),
        ]);
        let context = Context::open(&dir.0, "d/Web[1]", "").unwrap();
        assert!(context.ignore.ignores("d/x") && !context.ignore.ignores("e"));
        assert!(!context.ignore.ignores("d/Web[1]"));
        let text = "*\n!.dockerignore\nd/Web\\[1\\]\n";
        assert_eq!(extra(&context), [(".dockerignore", text)]);
    }
}
