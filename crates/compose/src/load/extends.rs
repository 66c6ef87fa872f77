//! `extends`: a service over another (compose-spec 05, extends).

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::loader::{Context, Loader};
use crate::merge;
use crate::node::{Map, Mark, Node, Value};
use crate::paths::{self, Base};

impl Loader<'_> {
    pub(super) fn extend_all(&mut self, layer: &mut Node, path: &Path, context: &Context) {
        let names: Vec<String> = layer
            .children("services")
            .filter(|(_, s)| s.get("extends").is_some())
            .map(|(n, _)| n.clone())
            .collect();
        for name in names {
            let Some(services) = layer.get("services") else {
                return;
            };
            let mut trail = Vec::new();
            if let Some(service) = self.extended_service(&name, services, path, context, &mut trail)
                && let Some(services) = layer.get_mut("services")
            {
                services.set(&name, service);
            }
        }
    }

    /// A service with what it extends merged below it; `None` after a fault.
    pub(super) fn extended_service(
        &mut self,
        name: &str,
        services: &Node,
        path: &Path,
        context: &Context,
        trail: &mut Vec<(PathBuf, String)>,
    ) -> Option<Node> {
        let mut service = services.get(name)?.clone();
        let Some(extends) = service.remove("extends") else {
            return Some(service);
        };
        let base_name = extends.get("service").and_then(Node::as_str)?.to_owned();
        let here = (path.to_owned(), name.to_owned());
        if trail.contains(&here) {
            let steps: Vec<String> = trail
                .iter()
                .chain([&here])
                .map(|(file, service)| format!("{service} in {}", self.shown(file).display()))
                .collect();
            self.fault(
                extends.mark,
                format!("circular reference: {}", steps.join(" extends ")),
            );
            return None;
        }
        trail.push(here);
        let base = match extends.get("file").and_then(Node::as_str) {
            None => {
                if services.get(&base_name).is_none() {
                    let message = format!(
                        "service `{name}` extends `{base_name}`, which is not in {}",
                        self.shown(path).display()
                    );
                    self.fault(extends.mark, message);
                    return None;
                }
                self.extended_service(&base_name, services, path, context, trail)?
            }
            Some(file) => {
                let target = PathBuf::from(context.here().join(file));
                let tree = self.extended_file(&target, extends.mark, context)?;
                let Some(services) = tree.get("services").filter(|s| s.get(&base_name).is_some())
                else {
                    let message = format!(
                        "service `{name}` extends `{base_name}`, which is not in {}",
                        self.shown(&target).display()
                    );
                    self.fault(extends.mark, message);
                    return None;
                };
                let target_dir = target.parent().unwrap_or(Path::new("/")).to_owned();
                let inner = Context {
                    environment: context.environment,
                    directory: &target_dir,
                    base: &target_dir,
                    included: context.included,
                };
                let mut base =
                    self.extended_service(&base_name, services, &target, &inner, trail)?;
                // Paths of the other file are relative to it; seen from here they lead there.
                let from_here = paths::relative(context.directory, &target_dir);
                paths::resolve_service(
                    &mut base,
                    Base {
                        directory: &from_here,
                        home: context.home(),
                    },
                );
                base
            }
        };
        trail.pop();
        Some(merge::services(base, service))
    }

    pub(super) fn extended_file(
        &mut self,
        path: &Path,
        mark: Mark,
        context: &Context,
    ) -> Option<Rc<Node>> {
        if let Some(known) = self.extended.get(path) {
            return known.clone();
        }
        if !path.is_file() {
            let message = format!("cannot read {}: no such file", self.shown(path).display());
            self.fault(mark, message);
            return None;
        }
        let before = self.faults.0.len();
        let mut tree = Node::new(Value::Map(Map::new()), Mark::default());
        for document in self.parse(path)? {
            let layer = self.layer(document, context);
            tree = merge::files(tree, layer);
        }
        let tree = (self.faults.0.len() == before).then(|| Rc::new(tree));
        self.extended.insert(path.to_owned(), tree.clone());
        tree
    }
}
