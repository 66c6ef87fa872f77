//! The steps of a load, and what they share.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{LoadOptions, Loaded, mark_of};
use crate::check::Findings;
use crate::discover::{self, Found};
use crate::node::{Map, Mark, Node};
use crate::paths::Base;
use crate::source::Sources;
use crate::template::{self, Variables};
use crate::{Fault, Faults, Project, consistency, environment, normalize, yaml};

pub(super) type Environment = BTreeMap<String, String>;

pub(super) struct Loader<'a> {
    pub(super) options: &'a LoadOptions,
    pub(super) current: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) sources: Sources,
    pub(super) faults: Faults,
    pub(super) warnings: Vec<String>,
    /// Files that services extend, parsed once.
    pub(super) extended: HashMap<PathBuf, Option<Rc<Node>>>,
}

/// Where a set of files is loaded: what variables mean, and what relative paths are relative to.
pub(super) struct Context<'a> {
    pub(super) environment: &'a Environment,
    /// Absolute directory of the set.
    pub(super) directory: &'a Path,
    /// The same directory, seen from the including project.
    pub(super) base: &'a Path,
    /// Files on the way here, to find cycles.
    pub(super) included: &'a [PathBuf],
}

impl<'a> Context<'a> {
    pub(super) fn home(&self) -> Option<&'a str> {
        self.environment.get("HOME").map(String::as_str)
    }

    /// What paths that are read now are relative to.
    pub(super) fn here(&self) -> Base<'a> {
        Base {
            directory: self.directory,
            home: self.home(),
        }
    }

    /// What paths in the model are relative to.
    pub(super) fn seen(&self) -> Base<'a> {
        Base {
            directory: self.base,
            home: self.home(),
        }
    }
}

pub(super) struct Scope<'a> {
    pub(super) environment: &'a Environment,
    pub(super) warnings: &'a mut Vec<String>,
}

impl Variables for Scope<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    fn unset(&mut self, name: &str) {
        let warning = format!("The \"{name}\" variable is not set. Defaulting to a blank string.");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}
impl<'a> Loader<'a> {
    pub(super) fn new(options: &'a LoadOptions, found: &Found) -> Self {
        Self {
            options,
            current: std::path::absolute(&options.working_dir).unwrap_or_default(),
            directory: found.directory.clone(),
            sources: Sources::default(),
            faults: Faults::default(),
            warnings: found.warnings.clone(),
            extended: HashMap::new(),
        }
    }

    pub(super) fn fault(&mut self, mark: Mark, message: impl Into<String>) {
        let fault = self.sources.fault(mark, message);
        self.faults.push(fault);
    }

    pub(super) fn take_findings(&mut self, findings: Findings) {
        for fault in findings.faults {
            let mut shown = self.sources.fault(fault.mark, fault.message);
            shown.help = fault.help;
            self.faults.push(shown);
        }
        for (mark, message) in findings.warnings {
            let place = self.sources.location(mark).map(|l| format!("{l}: "));
            self.warnings
                .push(format!("{}{message}", place.unwrap_or_default()));
        }
    }

    pub(super) fn project(&mut self, found: &Found) -> Option<Loaded> {
        let mut environment = found.environment.clone();
        let documents: Vec<(PathBuf, Vec<Node>)> = found
            .files
            .iter()
            .filter_map(|f| Some((f.clone(), self.parse(f)?)))
            .collect();
        if !self.faults.is_empty() {
            return None;
        }
        let name = self.name(&documents, &environment)?;
        environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
        let context = Context {
            environment: &environment,
            directory: &found.directory,
            base: &found.directory,
            included: &[],
        };
        let mut tree = self.model(documents, &context)?;
        if tree.as_map().is_none_or(Map::is_empty) {
            self.faults.push(Fault::new("the compose file is empty"));
            return None;
        }
        tree.set("name", Node::from(name.as_str()));
        if self.options.normalize {
            normalize::implied(&mut tree, &name, &environment);
        }
        if !self.options.interpolate {
            return Some(self.untyped(tree, name, found));
        }
        let project = self.typed(&tree, found, environment)?;
        Some(Loaded {
            project,
            warnings: std::mem::take(&mut self.warnings),
            tree,
            sources: std::mem::take(&mut self.sources),
        })
    }

    /// Without interpolation values have no types yet: the tree is all there is.
    pub(super) fn untyped(&mut self, tree: Node, name: String, found: &Found) -> Loaded {
        let project = Project {
            name,
            working_dir: found.directory.clone(),
            ..Project::default()
        };
        Loaded {
            project,
            warnings: std::mem::take(&mut self.warnings),
            tree,
            sources: std::mem::take(&mut self.sources),
        }
    }

    pub(super) fn typed(
        &mut self,
        tree: &Node,
        found: &Found,
        environment: Environment,
    ) -> Option<Project> {
        let mut json = tree.to_json();
        for section in ["networks", "volumes"] {
            // `data:` with nothing behind it is a volume with all defaults.
            for (_, value) in json
                .get_mut(section)
                .and_then(serde_json::Value::as_object_mut)
                .into_iter()
                .flatten()
            {
                if value.is_null() {
                    *value = serde_json::Value::Object(serde_json::Map::new());
                }
            }
        }
        let mut project: Project = match serde_json::from_value(json) {
            Ok(project) => project,
            Err(error) => {
                // The check has seen every value; what comes here has no known place.
                self.faults
                    .push(Fault::new(format!("the model cannot be read: {error}")));
                return None;
            }
        };
        project.working_dir.clone_from(&found.directory);
        project.files.clone_from(&found.files);
        project.environment = environment;
        project.profiles.clone_from(&found.profiles);
        for (name, service) in &mut project.services {
            service.name.clone_from(name);
        }
        let is_active = |s: &crate::model::Service, profiles: &[String]| {
            let named = |p: &String| profiles.iter().any(|a| a == p || a == "*");
            s.profiles.is_empty() || s.profiles.iter().any(named)
        };
        // To name a service is to activate its profiles, as the reference does.
        for name in &self.options.services {
            if let Some(service) = project.services.get(name)
                && !is_active(service, &project.profiles)
            {
                project.profiles.extend(service.profiles.clone());
            }
        }
        for (name, service) in std::mem::take(&mut project.services) {
            let set = if is_active(&service, &project.profiles) {
                &mut project.services
            } else {
                &mut project.disabled_services
            };
            set.insert(name, service);
        }
        if self.options.check_consistency {
            for (path, message) in consistency::check(&mut project) {
                let fault = self.sources.fault(mark_of(tree, &path), message);
                self.faults.push(fault);
            }
        }
        if !self.options.all_resources {
            project.drop_unused();
        }
        for (path, fault) in environment::resolve(&mut project, self.options.resolve_environment) {
            let mark = mark_of(tree, &path);
            let mut shown = self.sources.fault(mark, fault.message);
            shown.help = fault.help;
            self.faults.push(shown);
        }
        Some(project)
    }

    /// Path as the user knows it: relative to the current directory where it is below.
    pub(super) fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.current).unwrap_or(path).to_owned()
    }

    pub(super) fn parse(&mut self, path: &Path) -> Option<Vec<Node>> {
        let shown = if path == Path::new("-") {
            PathBuf::from("stdin")
        } else {
            self.shown(path)
        };
        let (index, text) = match self.sources.read(path, shown) {
            Ok(read) => read,
            Err(fault) => {
                self.faults.push(fault);
                return None;
            }
        };
        match yaml::parse(&text, index) {
            Ok(documents) => Some(documents),
            Err(faults) => {
                for fault in faults {
                    self.fault(fault.mark, fault.message);
                }
                None
            }
        }
    }

    /// `-p`, `COMPOSE_PROJECT_NAME`, the files' `name`, or the directory's name.
    pub(super) fn name(
        &mut self,
        documents: &[(PathBuf, Vec<Node>)],
        environment: &Environment,
    ) -> Option<String> {
        let explicit = self
            .options
            .project_name
            .clone()
            .or_else(|| environment.get("COMPOSE_PROJECT_NAME").cloned())
            .filter(|n| !n.is_empty());
        if let Some(name) = explicit {
            if discover::normalize_name(&name) != name {
                self.faults
                    .push(Fault::new(format!("invalid project name {name:?}")).help(
                    "use lower-case letters, digits, `-` and `_`, beginning with a letter or digit",
                ));
                return None;
            }
            return Some(name);
        }
        let written = documents
            .iter()
            .flat_map(|(_, docs)| docs)
            .filter_map(|d| d.get("name"))
            .rfind(|n| n.as_str().is_some_and(|t| !t.is_empty()));
        if let Some(node) = written {
            let text = node.as_str().unwrap_or_default();
            let mut scope = Scope {
                environment,
                warnings: &mut self.warnings,
            };
            let name = if self.options.interpolate {
                template::substitute(text, &mut scope)
            } else {
                Ok(text.to_owned())
            };
            match name.map(|n| discover::normalize_name(&n)) {
                Ok(name) if !name.is_empty() => return Some(name),
                Ok(_) => {}
                Err(message) => {
                    self.fault(node.mark, message);
                    return None;
                }
            }
        }
        let directory = self
            .directory
            .file_name()
            .map(|n| n.to_string_lossy().into_owned());
        let name = discover::normalize_name(&directory.unwrap_or_default());
        if name.is_empty() {
            self.faults.push(
                Fault::new("the project has no name")
                    .help("give one with -p, or `name:` in the file"),
            );
            return None;
        }
        Some(name)
    }
}
