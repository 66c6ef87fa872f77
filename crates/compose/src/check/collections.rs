//! Lists and mappings, and the forms that may be either.

use super::{Checker, distance, is_name, place};
use crate::node::{Entry, Map, Mark, Node, Tag, Value};
use crate::schema::{self, Field, Object, Shape};
use crate::short;

impl Checker<'_> {
    pub(super) fn list(&mut self, node: Node, inner: &Shape, distinct: bool) -> Node {
        let mark = node.mark;
        let Value::Seq(items) = node.value else {
            return self.wrong(node, "a list");
        };
        let mut out: Vec<Node> = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            self.within(&format!("[{i}]"), |this| match inner {
                Shape::Short(expand, object) if item.as_map().is_none() => {
                    out.extend(this.expand(item, *expand, object));
                }
                _ => out.push(this.check(item, inner)),
            });
        }
        if distinct {
            for (i, item) in out.iter().enumerate() {
                if out[..i].contains(item) {
                    let message = format!(
                        "`{}` lists {} twice",
                        self.path(),
                        item.text().unwrap_or_default()
                    );
                    self.fault(item.mark, message);
                }
            }
        }
        Node::new(Value::Seq(out), mark)
    }

    pub(super) fn short(
        &mut self,
        node: Node,
        expand: short::Expand,
        object: &'static Object,
    ) -> Node {
        if node.as_map().is_some() {
            return self.object(node, object);
        }
        let fallback = node.clone();
        self.expand(node, expand, object)
            .into_iter()
            .next()
            .unwrap_or(fallback)
    }

    pub(super) fn expand(
        &mut self,
        node: Node,
        expand: short::Expand,
        object: &Object,
    ) -> Vec<Node> {
        let text = match &node.value {
            Value::Str(text) => text.clone(),
            // Ports are the one short syntax that may be a bare number.
            Value::Int(n) if object.name == "a port" => n.to_string(),
            _ => {
                let what = format!("a string or {}", object.name);
                return vec![self.wrong(node, &what)];
            }
        };
        if self.is_open(&text)
            && matches!(object.name, "a port" | "a volume of a service" | "a device")
        {
            return vec![node];
        }
        match expand(&text) {
            Ok(nodes) => nodes.into_iter().map(|n| place(n, node.mark)).collect(),
            Err(message) => vec![self.refuse(node, &message)],
        }
    }

    pub(super) fn object(&mut self, node: Node, object: &'static Object) -> Node {
        let mark = node.mark;
        let Value::Map(map) = node.value else {
            return self.wrong(node, "a mapping");
        };
        let mut out = Map::with_capacity(map.len());
        for (key, entry) in map {
            let node = if let Some(Field { shape, .. }) = object.field(&key) {
                self.within(&key, |this| this.check(entry.node, shape))
            } else if key.starts_with("x-") && object.extensions {
                let shape = schema::extension(object, &key);
                self.within(&key, |this| this.check(entry.node, &shape))
            } else {
                self.unknown(&key, entry.key, object);
                continue;
            };
            out.insert(
                key,
                Entry {
                    key: entry.key,
                    node,
                },
            );
        }
        Node::new(Value::Map(out), mark)
    }

    pub(super) fn unknown(&mut self, key: &str, mark: Mark, object: &Object) {
        let place = if self.path.is_empty() {
            object.name.to_owned()
        } else {
            format!("`{}`", self.path())
        };
        let nearest = object
            .fields
            .iter()
            .map(|f| (distance(key, f.name), f.name))
            .min()
            .filter(|(d, name)| *d <= 2 && *d < name.len().max(2));
        let help = nearest.map(|(_, name)| format!("did you mean `{name}`?"));
        self.help(mark, format!("unknown attribute `{key}` in {place}"), help);
    }

    pub(super) fn dict(&mut self, node: Node, inner: &Shape, named: bool) -> Node {
        let mark = node.mark;
        let Value::Map(map) = node.value else {
            return self.wrong(node, "a mapping");
        };
        let mut out = Map::with_capacity(map.len());
        for (key, entry) in map {
            if named && !is_name(&key) {
                let message = format!(
                    "`{key}` is not a valid name in `{}`: it may have letters, digits, `.`, `_` and `-`",
                    self.path()
                );
                self.fault(entry.key, message);
                continue;
            }
            let node = self.within(&key, |this| this.check(entry.node, inner));
            out.insert(
                key,
                Entry {
                    key: entry.key,
                    node,
                },
            );
        }
        Node::new(Value::Map(out), mark)
    }

    pub(super) fn names(&mut self, node: Node, inner: &Shape, bare: fn() -> Node) -> Node {
        let mark = node.mark;
        let Value::Seq(items) = node.value else {
            return self.dict(node, inner, true);
        };
        let mut out = Map::new();
        for (i, item) in items.into_iter().enumerate() {
            let item = self.within(&format!("[{i}]"), |this| this.text(item));
            if let Value::Str(name) = item.value {
                if out.contains_key(&name) {
                    let message = format!("`{}` lists {name} twice", self.path());
                    self.fault(item.mark, message);
                }
                let node = place(bare(), item.mark);
                out.insert(
                    name,
                    Entry {
                        key: item.mark,
                        node,
                    },
                );
            }
        }
        Node::new(Value::Map(out), mark)
    }

    pub(super) fn pairs(&mut self, node: Node, empty: bool) -> Node {
        let mark = node.mark;
        let unset = |mark| {
            if empty {
                Node::str("", mark)
            } else {
                Node::new(Value::Null, mark)
            }
        };
        let mut out = Map::new();
        match node.value {
            Value::Map(map) => {
                for (key, entry) in map {
                    let node = if entry.node.tag == Tag::Reset {
                        entry.node
                    } else if entry.node.is_null() && self.cast {
                        unset(entry.node.mark)
                    } else if entry.node.is_null() {
                        entry.node
                    } else {
                        self.within(&key, |this| this.scalar(entry.node, true))
                    };
                    out.insert(
                        key,
                        Entry {
                            key: entry.key,
                            node,
                        },
                    );
                }
            }
            Value::Seq(items) => {
                for (i, item) in items.into_iter().enumerate() {
                    let item = self.within(&format!("[{i}]"), |this| this.text(item));
                    let Value::Str(text) = &item.value else {
                        continue;
                    };
                    let (key, node) = match text.split_once('=') {
                        Some((key, value)) => (key, Node::str(value, item.mark)),
                        None => (text.as_str(), unset(item.mark)),
                    };
                    out.insert(
                        key.to_owned(),
                        Entry {
                            key: item.mark,
                            node,
                        },
                    );
                }
            }
            _ => return self.wrong(node, "a mapping or a list of KEY=VALUE"),
        }
        Node::new(Value::Map(out), mark)
    }

    pub(super) fn hosts(&mut self, node: Node) -> Node {
        let mark = node.mark;
        let mut out = Map::new();
        let add = |out: &mut Map, host: &str, address: &str, key: Mark| {
            let address = address
                .strip_prefix('[')
                .and_then(|a| a.strip_suffix(']'))
                .unwrap_or(address);
            let entry = out.entry(host.to_owned()).or_insert_with(|| Entry {
                key,
                node: Node::new(Value::Seq(Vec::new()), key),
            });
            if let Some(seq) = entry.node.as_seq_mut() {
                seq.push(Node::str(address, key));
            }
        };
        match node.value {
            Value::Map(map) => {
                for (host, entry) in map {
                    let values = match entry.node.value {
                        Value::Seq(items) => items,
                        _ => vec![entry.node],
                    };
                    for value in values {
                        let value = self.within(&host, |this| this.text(value));
                        if let Some(address) = value.as_str() {
                            add(&mut out, &host, address, value.mark);
                        }
                    }
                }
            }
            Value::Seq(items) => {
                for (i, item) in items.into_iter().enumerate() {
                    let item = self.within(&format!("[{i}]"), |this| this.text(item));
                    let Some(text) = item.as_str() else { continue };
                    match text.split_once('=').or_else(|| text.split_once(':')) {
                        Some((host, address)) if !host.is_empty() => {
                            add(&mut out, host, address, item.mark)
                        }
                        _ => {
                            let why = format!(
                                "{text:?} is not a host with an address, such as \"name=10.0.0.1\""
                            );
                            self.within(&format!("[{i}]"), |this| this.refuse(item, &why));
                        }
                    }
                }
            }
            _ => return self.wrong(node, "a mapping or a list of \"host=address\""),
        }
        Node::new(Value::Map(out), mark)
    }

    pub(super) fn ssh(&mut self, node: Node) -> Node {
        let pairs = self.pairs(node, false);
        let mark = pairs.mark;
        match pairs.value {
            Value::Map(_) => pairs,
            value => Node::new(value, mark),
        }
    }

    pub(super) fn options(&mut self, node: Node) -> Node {
        let mark = node.mark;
        let Value::Map(map) = node.value else {
            return self.wrong(node, "a mapping");
        };
        let mut out = Map::new();
        for (key, entry) in map {
            let node = self.within(&key, |this| {
                let mark = entry.node.mark;
                let items = match entry.node.value {
                    Value::Seq(items) => items,
                    _ => vec![entry.node],
                };
                let items = items
                    .into_iter()
                    .map(|item| this.scalar(item, true))
                    .collect();
                Node::new(Value::Seq(items), mark)
            });
            out.insert(
                key,
                Entry {
                    key: entry.key,
                    node,
                },
            );
        }
        Node::new(Value::Map(out), mark)
    }

    pub(super) fn ulimit(&mut self, node: Node) -> Node {
        let mark = node.mark;
        let Value::Map(map) = node.value else {
            return node;
        };
        let mut out = Map::new();
        for (key, entry) in map {
            if matches!(key.as_str(), "soft" | "hard") {
                let node = self.within(&key, |this| this.integer(entry.node, i64::MIN, i64::MAX));
                out.insert(
                    key,
                    Entry {
                        key: entry.key,
                        node,
                    },
                );
            } else if !key.starts_with("x-") {
                let message = format!("unknown attribute `{key}` in `{}`", self.path());
                self.help(
                    entry.key,
                    message,
                    Some("a limit has `soft` and `hard`".to_owned()),
                );
            }
        }
        for name in ["soft", "hard"] {
            if !out.contains_key(name) {
                let message = format!("`{}` needs `{name}`", self.path());
                self.fault(mark, message);
            }
        }
        Node::new(Value::Map(out), mark)
    }
}
