//! Validates a tree against the schema and brings it to one form: long syntaxes only,
//! mappings where lists of `K=V` are allowed, every scalar in its own type.

mod collections;
mod scalars;

use crate::node::{Map, Mark, Node, Tag, Value};
use crate::schema::{self, Shape};
use crate::units;

/// A fault of a tree, at a mark.
#[derive(Debug)]
pub(crate) struct TreeFault {
    pub(crate) mark: Mark,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) faults: Vec<TreeFault>,
    pub(crate) warnings: Vec<(Mark, String)>,
}

/// Validates and canonicalises one file's tree.
///
/// With `cast` unset (`--no-interpolate`) scalars stay as they were written, since a variable
/// may stand for any of them.
pub(crate) fn canonical(tree: Node, cast: bool, findings: &mut Findings) -> Node {
    let mut checker = Checker {
        findings,
        path: Vec::new(),
        cast,
    };
    checker.check(tree, &Shape::Object(&schema::PROJECT))
}

/// Faults for attributes that must be there once all files are merged.
pub(crate) fn required(tree: &Node, findings: &mut Findings) {
    missing(
        tree,
        &Shape::Object(&schema::PROJECT),
        &mut Vec::new(),
        findings,
    );
}

fn missing(node: &Node, shape: &Shape, path: &mut Vec<String>, findings: &mut Findings) {
    match shape {
        Shape::Object(object) | Shape::OptionalObject(object) | Shape::Short(_, object) => {
            let Some(map) = node.as_map() else { return };
            for field in object.fields {
                match map.get(field.name) {
                    Some(entry) => {
                        path.push(field.name.to_owned());
                        missing(&entry.node, &field.shape, path, findings);
                        path.pop();
                    }
                    None if field.required => findings.faults.push(TreeFault {
                        mark: node.mark,
                        message: format!("`{}` needs `{}`", path.join("."), field.name),
                        help: None,
                    }),
                    None => {}
                }
            }
        }
        Shape::List(inner) | Shape::Set(inner) | Shape::OneOrMany(inner) => {
            for (i, item) in node.as_seq().unwrap_or_default().iter().enumerate() {
                path.push(format!("[{i}]"));
                missing(item, inner, path, findings);
                path.pop();
            }
        }
        Shape::Dict(inner) | Shape::Named(inner) | Shape::Names(inner, _) => {
            for (key, entry) in node.as_map().into_iter().flatten() {
                path.push(key.clone());
                missing(&entry.node, inner, path, findings);
                path.pop();
            }
        }
        _ => {}
    }
}

struct Checker<'a> {
    findings: &'a mut Findings,
    path: Vec<String>,
    cast: bool,
}

impl Checker<'_> {
    fn fault(&mut self, mark: Mark, message: impl Into<String>) {
        self.help(mark, message, None);
    }

    fn help(&mut self, mark: Mark, message: impl Into<String>, help: Option<String>) {
        self.findings.faults.push(TreeFault {
            mark,
            message: message.into(),
            help,
        });
    }

    /// The path of the value at hand, as in `services.web.ports[0]`.
    fn path(&self) -> String {
        let mut text = String::new();
        for part in &self.path {
            if !text.is_empty() && !part.starts_with('[') {
                text.push('.');
            }
            text.push_str(part);
        }
        text
    }

    fn expected(&mut self, node: &Node, what: &str) {
        let message = format!("`{}` must be {what}, not {}", self.path(), node.kind());
        self.fault(node.mark, message);
    }

    fn within<T>(&mut self, part: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(part.to_owned());
        let result = body(self);
        self.path.pop();
        result
    }

    fn check(&mut self, node: Node, shape: &Shape) -> Node {
        if node.tag == Tag::Reset {
            return node;
        }
        // A null resets nothing and sets nothing, where no shape below gives it a meaning.
        let mark = node.mark;
        let tag = node.tag;
        let mut checked = self.check_value(node, shape);
        if checked.mark.line == 0 {
            checked.mark = mark;
        }
        checked.tag = tag;
        checked
    }

    fn check_value(&mut self, node: Node, shape: &Shape) -> Node {
        match shape {
            Shape::Any => node,
            Shape::Text => self.text(node),
            Shape::OptionalText if node.is_null() => node,
            Shape::OptionalText => self.text(node),
            Shape::Scalar => self.scalar(node, false),
            Shape::Port => match node.value {
                Value::Float(_) => self.wrong(node, "a string or a whole number"),
                _ => self.scalar(node, false),
            },
            Shape::Value => self.scalar(node, true),
            Shape::Flag => match node.value {
                Value::Str(_) => node,
                Value::Bool(b) if self.cast => Node::str(b.to_string(), node.mark),
                Value::Bool(_) => node,
                _ => self.wrong(node, "a string or a boolean"),
            },
            Shape::Choice(words) => self.choice(node, words),
            Shape::Matching(accepts, what) => match &node.value {
                Value::Str(text) if self.is_open(text) || accepts(text) => node,
                Value::Str(text) => {
                    let message = format!("`{}` cannot be `{text}`: it takes {what}", self.path());
                    self.fault(node.mark, message);
                    node
                }
                _ => self.wrong(node, "a string"),
            },
            Shape::Bool => self.boolean(node),
            Shape::StrictBool => match node.value {
                Value::Bool(_) => node,
                _ => self.wrong(node, "true or false"),
            },
            Shape::Int(min, max) => self.integer(node, *min, *max),
            Shape::StrictInt => match node.value {
                Value::Int(_) => node,
                // The reference cuts the fraction off.
                #[allow(clippy::cast_possible_truncation)]
                Value::Float(f) => Node::new(Value::Int(f as i64), node.mark),
                _ => self.wrong(node, "a whole number"),
            },
            Shape::Size if matches!(node.value, Value::Float(f) if f.fract() != 0.0) => {
                let why = "a size is a whole number of bytes; put it in quotes with a unit, such as \"1.5g\"";
                self.refuse(node, why)
            }
            #[allow(clippy::cast_possible_truncation)] // whole: checked above
            Shape::Size if matches!(node.value, Value::Float(_)) => match node.value {
                Value::Float(f) => Node::new(Value::Int(f as i64), node.mark),
                _ => node,
            },
            Shape::Number => self.parsed(node, "a number", |text| {
                text.trim()
                    .parse::<f64>()
                    .map(Value::Float)
                    .map_err(|_| format!("{text:?} is not a number"))
            }),
            Shape::Size => self.parsed(node, "a size", |text| {
                units::parse_bytes(text).map(Value::Int)
            }),
            Shape::SizeText => match node.value {
                Value::Str(_) => self.parsed(node, "a size", |text| {
                    units::parse_bytes(text).map(Value::Int)
                }),
                _ => self.wrong(node, "a string with a size, such as \"512m\""),
            },
            Shape::Duration => match &node.value {
                Value::Str(text) if self.is_open(text) => node,
                Value::Str(text) => match units::parse_duration(text) {
                    Ok(_) => node,
                    Err(message) => self.refuse(node, &message),
                },
                _ => self.wrong(node, "a duration, such as 10s or 1m30s"),
            },
            Shape::Mode => match &node.value {
                Value::Int(_) => node,
                #[allow(clippy::cast_possible_truncation)] // whole: checked
                Value::Float(f) if f.fract() == 0.0 => Node::new(Value::Int(*f as i64), node.mark),
                Value::Str(text) if self.is_open(text) => node,
                Value::Str(text) => match i64::from_str_radix(text, 8) {
                    Ok(bits) if self.cast => Node::new(Value::Int(bits), node.mark),
                    Ok(_) => node,
                    Err(_) => self.refuse(node, "it takes an octal file mode, such as \"0440\""),
                },
                _ => self.wrong(node, "a file mode, such as \"0440\""),
            },
            Shape::Count => match &node.value {
                Value::Int(_) => node,
                Value::Str(text)
                    if self.is_open(text)
                        || text.eq_ignore_ascii_case("all")
                        || text.parse::<i64>().is_ok() =>
                {
                    node
                }
                Value::Str(_) => self.refuse(node, "it takes a number or `all`"),
                _ => self.wrong(node, "a number or `all`"),
            },
            Shape::External => match &node.value {
                Value::Bool(_) | Value::Str(_) => self.boolean(node),
                Value::Map(map) => {
                    let unknown: Vec<(String, Mark)> = map
                        .iter()
                        .filter(|(k, _)| *k != "name" && !k.starts_with("x-"))
                        .map(|(k, e)| (k.clone(), e.key))
                        .collect();
                    for (key, mark) in unknown {
                        let message = format!("`{key}` is not an attribute of `external`");
                        self.fault(mark, message);
                    }
                    node
                }
                _ => self.wrong(node, "true or false"),
            },
            Shape::List(inner) => self.list(node, inner, false),
            Shape::Set(inner) => self.list(node, inner, true),
            Shape::Words => match node.value {
                Value::Str(_) => Node::new(
                    Value::Seq(vec![Node {
                        tag: Tag::None,
                        ..node.clone()
                    }]),
                    node.mark,
                ),
                _ => self.list(node, &Shape::Text, false),
            },
            Shape::OneOrMany(inner) => match node.value {
                Value::Seq(_) => self.list(node, inner, false),
                _ => {
                    let mark = node.mark;
                    let item = self.check(node, inner);
                    Node::new(Value::Seq(vec![item]), mark)
                }
            },
            Shape::Command => self.command(node),
            Shape::Test => match node.value {
                Value::Str(_) if !self.cast => node,
                Value::Str(_) => {
                    let mark = node.mark;
                    Node::new(Value::Seq(vec![Node::str("CMD-SHELL", mark), node]), mark)
                }
                Value::Seq(_) => self.list(node, &Shape::Text, false),
                _ => self.wrong(node, "a string or a list of strings"),
            },
            Shape::Environment => self.pairs(node, false),
            Shape::Labels => self.pairs(node, true),
            Shape::Hosts => self.hosts(node),
            Shape::Ssh => self.ssh(node),
            Shape::Options => self.options(node),
            Shape::Dict(inner) => self.dict(node, inner, false),
            Shape::Named(inner) => self.dict(node, inner, true),
            Shape::Names(inner, bare) => self.names(node, inner, *bare),
            Shape::OptionalObject(_) if node.is_null() => node,
            Shape::Object(object) | Shape::OptionalObject(object) => self.object(node, object),
            Shape::Short(expand, object) => self.short(node, *expand, object),
            Shape::Ulimit => match &node.value {
                Value::Map(_) => self.ulimit(node),
                _ => self.integer(node, i64::MIN, i64::MAX),
            },
            Shape::Gpus => match &node.value {
                Value::Str(text) if text == "all" => {
                    let mark = node.mark;
                    let mut request = Node::new(Value::Map(Map::new()), mark);
                    request.set("count", node);
                    Node::new(Value::Seq(vec![request]), mark)
                }
                _ => self.list(node, &Shape::Object(&schema::GPU_REQUEST), false),
            },
        }
    }
}

/// Gives filled-in nodes the place of the short form they come from.
fn place(mut node: Node, mark: Mark) -> Node {
    if node.mark.line == 0 {
        node.mark = mark;
    }
    match &mut node.value {
        Value::Seq(seq) => {
            for item in seq {
                *item = place(std::mem::take(item), mark);
            }
        }
        Value::Map(map) => {
            for entry in map.values_mut() {
                entry.key = mark;
                entry.node = place(std::mem::take(&mut entry.node), mark);
            }
        }
        _ => {}
    }
    node
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
