//! A set of files into one tree: each document is a layer, merged over those before it.

use std::path::PathBuf;

use super::loader::{Context, Environment, Loader, Scope};
use crate::check::{self, Findings};
use crate::node::{Map, Mark, Node, Value};
use crate::{consistency, merge, normalize, paths, template};

impl Loader<'_> {
    /// Reads a set of files into one tree, with everything they extend and include.
    pub(super) fn model(
        &mut self,
        files: Vec<(PathBuf, Vec<Node>)>,
        context: &Context,
    ) -> Option<Node> {
        let mut tree = Node::new(Value::Map(Map::new()), Mark::default());
        for (path, documents) in files {
            for document in documents {
                if document.is_null() {
                    continue;
                }
                let before = self.faults.0.len();
                let mut layer = self.layer(document, context);
                if self.faults.0.len() > before {
                    continue;
                }
                self.extend_all(&mut layer, &path, context);
                self.include(&mut layer, &path, context);
                tree = merge::files(tree, layer);
            }
        }
        if !self.faults.is_empty() {
            return None;
        }
        let mut findings = Findings::default();
        if self.options.interpolate {
            check::required(&tree, &mut findings);
        }
        normalize::defaults(&mut tree, &mut findings);
        consistency::shapes(&tree, &mut findings);
        self.take_findings(findings);
        if self.options.resolve_paths || context.base != context.directory {
            paths::resolve(&mut tree, context.seen());
        }
        if self.options.interpolate {
            normalize::environment_values(&mut tree, context.environment, false);
        }
        Some(tree)
    }

    /// One document with its variables replaced, validated, in canonical form.
    pub(super) fn layer(&mut self, mut document: Node, context: &Context) -> Node {
        if self.options.interpolate {
            self.interpolate(&mut document, context.environment);
        }
        let mut findings = Findings::default();
        let mut layer = check::canonical(document, self.options.interpolate, &mut findings);
        self.take_findings(findings);
        if let Some(version) = layer.as_map_mut().and_then(|m| m.shift_remove("version")) {
            let place = self.sources.location(version.key).map(|l| format!("{l}: "));
            self.warnings.push(format!(
                "{}the attribute `version` is obsolete and ignored; remove it",
                place.unwrap_or_default()
            ));
        }
        layer
    }

    pub(super) fn interpolate(&mut self, node: &mut Node, environment: &Environment) {
        match &mut node.value {
            Value::Str(text) if text.contains('$') => {
                let mut scope = Scope {
                    environment,
                    warnings: &mut self.warnings,
                };
                match template::substitute(text, &mut scope) {
                    Ok(replaced) => *text = replaced,
                    Err(message) => self.fault(node.mark, message),
                }
            }
            Value::Seq(seq) => seq
                .iter_mut()
                .for_each(|n| self.interpolate(n, environment)),
            Value::Map(map) => map
                .values_mut()
                .for_each(|e| self.interpolate(&mut e.node, environment)),
            _ => {}
        }
    }
}
