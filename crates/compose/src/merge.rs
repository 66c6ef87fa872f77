//! Two trees in canonical form become one: the later file over the earlier
//! (compose-spec 13, merge).

use crate::node::{Entry, Map, Node, Tag, Value};
use crate::schema::{self, Key, Merge, Shape};

/// Merges a whole file over another.
pub(crate) fn files(base: Node, over: Node) -> Node {
    let merged = merge(base, over, &Shape::Object(&schema::PROJECT), Merge::Deep);
    without_resets(merged)
}

/// Merges a service over the one it extends.
pub(crate) fn services(base: Node, over: Node) -> Node {
    merge(base, over, &Shape::Object(&schema::SERVICE), Merge::Deep)
}

/// Drops what `!reset` marks, and applies the rules for repeated elements of one list.
pub(crate) fn without_resets(node: Node) -> Node {
    clean(node, &Shape::Object(&schema::PROJECT), Merge::Deep)
}

fn clean(mut node: Node, shape: &Shape, rule: Merge) -> Node {
    node.value = match node.value {
        Value::Map(map) => Value::Map(
            map.into_iter()
                .filter(|(_, e)| e.node.tag != Tag::Reset)
                .map(|(key, entry)| {
                    let (shape, rule) = child(shape, &key);
                    let node = clean(entry.node, &shape, rule);
                    (
                        key,
                        Entry {
                            key: entry.key,
                            node,
                        },
                    )
                })
                .collect(),
        ),
        Value::Seq(seq) => {
            let inner = element(shape);
            let seq = seq
                .into_iter()
                // On an element of a list `!reset` has no effect, as in the reference.
                .map(|n| clean(n, &inner, Merge::Deep))
                .collect();
            Value::Seq(match rule {
                Merge::Unique(key) => unique(seq, key),
                _ => seq,
            })
        }
        other => other,
    };
    node.tag = Tag::None;
    node
}

fn merge(base: Node, over: Node, shape: &Shape, rule: Merge) -> Node {
    match over.tag {
        Tag::Override | Tag::Reset => return over,
        Tag::None => {}
    }
    if base.tag == Tag::Reset {
        return over;
    }
    if over.is_null() && rule != Merge::Replace {
        return base;
    }
    match rule {
        Merge::Replace => return over,
        Merge::Logging
            if driver(&base) != driver(&over)
                && driver(&base).is_some()
                && driver(&over).is_some() =>
        {
            return over;
        }
        Merge::Subnets => return subnets(base, over),
        _ => {}
    }
    let mark = base.mark;
    match (base.value, over.value) {
        // A ulimit is one value, whichever way it is written.
        (_, value) if matches!(shape, Shape::Ulimit) => Node::new(value, over.mark),
        (Value::Map(base), Value::Map(over)) => {
            Node::new(Value::Map(maps(base, over, shape)), mark)
        }
        (Value::Seq(base), Value::Seq(over)) => {
            let seq: Vec<Node> = base.into_iter().chain(over).collect();
            Node::new(
                Value::Seq(match rule {
                    Merge::Unique(key) => unique(seq, key),
                    _ => seq,
                }),
                mark,
            )
        }
        (_, value) => Node::new(value, over.mark),
    }
}

fn maps(mut base: Map, over: Map, shape: &Shape) -> Map {
    for (key, entry) in over {
        let (shape, rule) = child(shape, &key);
        match base.get_mut(&key) {
            Some(existing) => {
                let below = std::mem::take(&mut existing.node);
                let merged = merge(below, entry.node, &shape, rule);
                // Faults of the result are shown where it was last written.
                if merged.mark.line != 0 {
                    existing.key = entry.key;
                }
                existing.node = merged;
            }
            None => {
                base.insert(key, entry);
            }
        }
    }
    base
}

/// Shape and merge rule of a key of a mapping.
fn child(shape: &Shape, key: &str) -> (Shape, Merge) {
    match shape {
        Shape::Object(object) | Shape::OptionalObject(object) | Shape::Short(_, object) => object
            .field(key)
            .map_or((Shape::Any, Merge::Deep), |f| (f.shape, f.merge)),
        Shape::Dict(inner) | Shape::Named(inner) | Shape::Names(inner, _) => (**inner, Merge::Deep),
        // `extra_hosts`: addresses of one name add up, without repetition.
        Shape::Hosts => (Shape::Any, Merge::Unique(Key::Text)),
        // A variable set again replaces, also by nothing.
        Shape::Environment | Shape::Labels => (Shape::Any, Merge::Replace),
        _ => (Shape::Any, Merge::Deep),
    }
}

/// Shape of the elements of a list.
fn element(shape: &Shape) -> Shape {
    match shape {
        Shape::List(inner) | Shape::Set(inner) | Shape::OneOrMany(inner) => **inner,
        Shape::Gpus => Shape::Object(&schema::GPU_REQUEST),
        _ => Shape::Any,
    }
}

fn driver(logging: &Node) -> Option<&str> {
    logging.get("driver")?.as_str()
}

/// Keeps the last of the elements with one key, in the place of the first.
fn unique(seq: Vec<Node>, key: Key) -> Vec<Node> {
    let mut out: indexmap::IndexMap<String, Node> = indexmap::IndexMap::with_capacity(seq.len());
    for node in seq {
        out.insert(key_of(&node, key), node);
    }
    out.into_values().collect()
}

fn key_of(node: &Node, key: Key) -> String {
    let field = |name: &str| node.get(name).and_then(Node::text);
    match key {
        Key::Name => {
            let text = node.text().unwrap_or_default();
            text.split('=').next().unwrap_or_default().to_owned()
        }
        Key::Text => node.text().unwrap_or_default(),
        Key::Target => field("target").unwrap_or_default(),
        Key::Path => field("path").unwrap_or_default(),
        Key::Mount(folder) => field("target")
            .unwrap_or_else(|| format!("{folder}/{}", field("source").unwrap_or_default())),
        Key::Port => format!(
            "{}:{}:{}/{}",
            field("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned()),
            field("published").unwrap_or_default(),
            field("target").unwrap_or_default(),
            field("protocol").unwrap_or_else(|| "tcp".to_owned()),
        ),
    }
}

/// The later pools count; each is merged over the earlier pool of the same subnet.
fn subnets(base: Node, over: Node) -> Node {
    let mark = over.mark;
    let (Value::Seq(pools), Value::Seq(others)) = (base.value, over.value) else {
        return Node::new(Value::Null, mark);
    };
    let merged = others
        .into_iter()
        .map(|other| {
            let subnet = other.get("subnet").and_then(Node::text);
            let same = pools
                .iter()
                .find(|p| p.get("subnet").and_then(Node::text) == subnet);
            match (same.and_then(Node::as_map), other.value) {
                (Some(below), Value::Map(over)) => Node::new(
                    Value::Map(maps(below.clone(), over, &Shape::Any)),
                    other.mark,
                ),
                (_, value) => Node::new(value, other.mark),
            }
        })
        .collect();
    Node::new(Value::Seq(merged), mark)
}
