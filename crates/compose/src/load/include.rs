//! `include`: other projects' files put in (compose-spec 14).

use std::path::{Path, PathBuf};

use super::loader::{Context, Loader};
use crate::node::{Entry, Map, Node, Value};
use crate::{discover, paths};

impl Loader<'_> {
    pub(super) fn include(&mut self, layer: &mut Node, path: &Path, context: &Context) {
        let Some(includes) = layer.remove("include") else {
            return;
        };
        let mut trail = context.included.to_vec();
        trail.push(path.to_owned());
        for include in includes.as_seq().unwrap_or_default() {
            let Some(imported) = self.included(include, &trail, context) else {
                continue;
            };
            for section in [
                "services", "volumes", "networks", "secrets", "configs", "models",
            ] {
                let Some(Value::Map(resources)) = imported.get(section).map(|n| n.value.clone())
                else {
                    continue;
                };
                if layer.get(section).is_none_or(Node::is_null) {
                    layer.set(section, Node::new(Value::Map(Map::new()), include.mark));
                }
                let Some(target) = layer.get_mut(section).and_then(Node::as_map_mut) else {
                    continue;
                };
                let mut conflicts = Vec::new();
                for (name, entry) in resources {
                    match target.get(&name) {
                        Some(existing) if existing.node == entry.node => {}
                        Some(existing) => conflicts.push((name, existing.key)),
                        None => {
                            target.insert(
                                name,
                                Entry {
                                    key: entry.key,
                                    node: entry.node,
                                },
                            );
                        }
                    }
                }
                for (name, mark) in conflicts {
                    self.fault(
                        mark,
                        format!("`{section}.{name}` conflicts with one of an included file"),
                    );
                }
            }
        }
    }

    pub(super) fn included(
        &mut self,
        include: &Node,
        trail: &[PathBuf],
        context: &Context,
    ) -> Option<Node> {
        let strings = |key: &str| -> Vec<String> {
            include.items(key).iter().filter_map(Node::text).collect()
        };
        let files: Vec<PathBuf> = strings("path")
            .iter()
            .map(|p| PathBuf::from(context.here().join(p)))
            .collect();
        let Some(main) = files.first() else {
            self.fault(include.mark, "an include needs `path`");
            return None;
        };
        if trail.contains(main) {
            let steps: Vec<String> = trail
                .iter()
                .chain([main])
                .map(|p| self.shown(p).display().to_string())
                .collect();
            self.fault(
                include.mark,
                format!("include cycle: {}", steps.join(" includes ")),
            );
            return None;
        }
        let directory = match include.get("project_directory").and_then(Node::as_str) {
            Some(dir) => PathBuf::from(context.here().join(dir)),
            None => main.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        let env_files: Vec<PathBuf> = match strings("env_file") {
            listed if listed.is_empty() => Some(directory.join(".env"))
                .into_iter()
                .filter(|f| f.is_file())
                .collect(),
            listed => listed
                .iter()
                .map(|f| PathBuf::from(context.here().join(f)))
                .collect(),
        };
        let mut environment = context.environment.clone();
        match discover::env_files(&env_files, context.environment) {
            Ok(values) => {
                for (name, value) in values {
                    environment.entry(name).or_insert(value);
                }
            }
            Err(fault) => {
                self.fault(include.mark, fault.message);
                return None;
            }
        }
        let documents: Vec<(PathBuf, Vec<Node>)> = files
            .iter()
            .filter_map(|f| Some((f.clone(), self.parse(f)?)))
            .collect();
        if !self.faults.is_empty() {
            return None;
        }
        let base = paths::relative(context.directory, &directory);
        let inner = Context {
            environment: &environment,
            directory: &directory,
            base: &base,
            included: trail,
        };
        self.model(documents, &inner)
    }
}
