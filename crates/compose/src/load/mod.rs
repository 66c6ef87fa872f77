//! The way from files to a [`Project`]: discover, parse, interpolate, check, extend, include,
//! merge, fill in, read into the model, and check what refers to what.

mod extends;
mod include;
mod layers;
mod loader;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::discover;
use crate::node::{Mark, Node, Value};
use crate::source::Sources;
use crate::template::{self, Variable};
use crate::{Fault, Faults, Location, Project};
use loader::Loader;

/// What to load and how. `Default` loads the project of `working_dir` in full.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Files (`-f`), later ones over earlier ones; `-` is standard input. Empty: discover.
    pub files: Vec<String>,
    /// Project directory (`--project-directory`).
    pub project_directory: Option<PathBuf>,
    /// Project name (`-p`).
    pub project_name: Option<String>,
    /// Active profiles (`--profile`); `*` is all.
    pub profiles: Vec<String>,
    /// Services that are meant: their profiles are active.
    pub services: Vec<String>,
    /// Environment files (`--env-file`) in place of `.env`.
    pub env_files: Vec<PathBuf>,
    /// Current directory.
    pub working_dir: PathBuf,
    /// Process environment.
    pub environment: BTreeMap<String, String>,
    /// Replace variables (`--no-interpolate` unsets it).
    pub interpolate: bool,
    /// Fill in defaults and implied parts (`--no-normalize` unsets it).
    pub normalize: bool,
    /// Make paths absolute (`--no-path-resolution` unsets it).
    pub resolve_paths: bool,
    /// Check references between elements (`--no-consistency` unsets it).
    pub check_consistency: bool,
    /// Read `env_file`s into `environment` (`--no-env-resolution` unsets it).
    pub resolve_environment: bool,
    /// Keep networks, volumes and others that no service uses (`--all-resources`).
    pub all_resources: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            project_directory: None,
            project_name: None,
            profiles: Vec::new(),
            services: Vec::new(),
            env_files: Vec::new(),
            working_dir: PathBuf::from("."),
            environment: BTreeMap::new(),
            interpolate: true,
            normalize: true,
            resolve_paths: true,
            check_consistency: true,
            resolve_environment: true,
            all_resources: false,
        }
    }
}

/// A loaded project and what was noticed on the way.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Notices for the user, such as variables that are not set.
    pub warnings: Vec<String>,
    tree: Node,
    sources: Sources,
}

impl Loaded {
    /// Where an attribute was written; `path` as in `services.web.ports[0].mode`. The nearest
    /// written ancestor counts when the attribute itself was filled in.
    #[must_use]
    pub fn locate(&self, path: &str) -> Option<Location> {
        self.sources.location(mark_of(&self.tree, path))
    }

    /// A fault of an attribute, at its place, with its line shown.
    #[must_use]
    pub fn fault_at(&self, path: &str, message: impl Into<String>) -> Fault {
        self.sources.fault(mark_of(&self.tree, path), message)
    }

    /// The merged tree, for output that must keep variables as they were written.
    #[must_use]
    pub fn model(&self) -> serde_json::Value {
        self.tree.to_json()
    }
}

fn mark_of(tree: &Node, path: &str) -> Mark {
    let mut node = tree;
    let mut best = tree.mark;
    let mut rest = path;
    while !rest.is_empty() {
        let next = if let Some(index) = rest.strip_prefix('[') {
            let Some((index, after)) = index.split_once(']') else {
                break;
            };
            rest = after.strip_prefix('.').unwrap_or(after);
            let item = index
                .parse::<usize>()
                .ok()
                .and_then(|i| node.as_seq()?.get(i));
            item.map(|n| (n.mark, n))
        } else {
            // Names may hold dots: the longest key that fits is meant.
            let Some(map) = node.as_map() else { break };
            let fits = |k: &str| {
                rest.strip_prefix(k)
                    .is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']))
            };
            let Some((key, entry)) = map
                .iter()
                .filter(|(k, _)| fits(k))
                .max_by_key(|(k, _)| k.len())
            else {
                break;
            };
            rest = &rest[key.len()..];
            rest = rest.strip_prefix('.').unwrap_or(rest);
            Some((entry.key, &entry.node))
        };
        let Some((mark, found)) = next else { break };
        if mark.line > 0 {
            best = mark;
        }
        node = found;
    }
    best
}

/// Loads a project.
///
/// # Errors
/// Every fault found, each with its place.
pub fn load(options: &LoadOptions) -> Result<Loaded, Faults> {
    let found = discover::discover(options)?;
    let mut loader = Loader::new(options, &found);
    let result = loader.project(&found);
    match result {
        Some(loaded) if loader.faults.is_empty() => Ok(loaded),
        _ => {
            if loader.faults.is_empty() {
                loader
                    .faults
                    .push(Fault::new("the project could not be loaded"));
            }
            loader.faults.into_result()?;
            Err(Faults::default())
        }
    }
}

/// Every variable that the files refer to, with its default, by name.
///
/// # Errors
/// Every fault of the files' YAML.
pub fn variables(options: &LoadOptions) -> Result<BTreeMap<String, Variable>, Faults> {
    fn walk(node: &Node, out: &mut Vec<Variable>) {
        match &node.value {
            Value::Str(text) => template::variables_of(text, out),
            Value::Seq(seq) => seq.iter().for_each(|n| walk(n, out)),
            Value::Map(map) => map.values().for_each(|e| walk(&e.node, out)),
            _ => {}
        }
    }
    let found = discover::discover(options)?;
    let mut loader = Loader::new(options, &found);
    let mut list = Vec::new();
    for file in &found.files {
        for document in loader.parse(file).iter().flatten() {
            walk(document, &mut list);
        }
    }
    loader.faults.into_result()?;
    let mut out: BTreeMap<String, Variable> = BTreeMap::new();
    for variable in list {
        out.entry(variable.name.clone()).or_insert(variable);
    }
    Ok(out)
}
