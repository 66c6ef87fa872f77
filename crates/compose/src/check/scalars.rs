//! Scalars: types, ranges, formats.

use super::Checker;
use crate::node::{Node, Value};
use crate::schema::Shape;
use crate::short;

impl Checker<'_> {
    pub(super) fn text(&mut self, node: Node) -> Node {
        match node.value {
            Value::Str(_) => node,
            Value::Int(_) | Value::Big(_) | Value::Float(_) | Value::Bool(_) | Value::Time(_) => {
                let message = format!("`{}` must be a string, not {}", self.path(), node.kind());
                self.help(node.mark, message, Some("put it in quotes".to_owned()));
                node
            }
            _ => self.wrong(node, "a string"),
        }
    }

    pub(super) fn scalar(&mut self, node: Node, any: bool) -> Node {
        match &node.value {
            Value::Str(_) => node,
            Value::Int(_) | Value::Big(_) | Value::Float(_) => self.as_text(node),
            Value::Bool(_) if any => self.as_text(node),
            Value::Null if any && self.cast => Node::str("", node.mark),
            Value::Null if any => node,
            _ => self.wrong(node, "a string or a number"),
        }
    }

    pub(super) fn as_text(&self, node: Node) -> Node {
        match node.text() {
            Some(text) if self.cast => Node::str(text, node.mark),
            _ => node,
        }
    }

    pub(super) fn choice(&mut self, node: Node, words: &[&str]) -> Node {
        match &node.value {
            Value::Str(text) if self.is_open(text) || words.contains(&text.as_str()) => node,
            Value::Str(text) => {
                let message = format!("`{}` cannot be `{text}`", self.path());
                let help = format!("it takes one of: {}", words.join(", "));
                self.help(node.mark, message, Some(help));
                node
            }
            _ => self.wrong(node, "a string"),
        }
    }

    pub(super) fn boolean(&mut self, node: Node) -> Node {
        let Value::Str(text) = &node.value else {
            return match node.value {
                Value::Bool(_) => node,
                _ => self.wrong(node, "true or false"),
            };
        };
        if self.is_open(text) {
            return node;
        }
        let value = match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "y" | "on" => true,
            "false" | "no" | "n" | "off" => false,
            _ => {
                let why = format!("{text:?} is neither true nor false");
                return self.refuse(node, &why);
            }
        };
        if !matches!(text.to_ascii_lowercase().as_str(), "true" | "false") {
            let warning = format!("{text:?} is not a boolean in YAML 1.2; write {value}");
            self.findings.warnings.push((node.mark, warning));
        }
        if self.cast {
            Node::new(Value::Bool(value), node.mark)
        } else {
            node
        }
    }

    pub(super) fn integer(&mut self, node: Node, min: i64, max: i64) -> Node {
        let number = match &node.value {
            Value::Int(n) => *n,
            #[allow(clippy::cast_possible_truncation)] // whole and in range: checked
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 9e15 => *f as i64,
            Value::Str(text) if self.is_open(text) => return node,
            Value::Str(text) => match text.trim().parse() {
                Ok(n) => n,
                Err(_) => {
                    let why = format!("{text:?} is not a whole number");
                    return self.refuse(node, &why);
                }
            },
            _ => return self.wrong(node, "a whole number"),
        };
        if number < min || number > max {
            let why = match (min, max) {
                (0, i64::MAX) => format!("{number} is below zero"),
                _ => format!("{number} is not between {min} and {max}"),
            };
            return self.refuse(node, &why);
        }
        if self.cast {
            Node::new(Value::Int(number), node.mark)
        } else {
            node
        }
    }

    pub(super) fn parsed(
        &mut self,
        node: Node,
        what: &str,
        parse: fn(&str) -> Result<Value, String>,
    ) -> Node {
        match &node.value {
            Value::Int(_) | Value::Float(_) => node,
            Value::Str(text) if self.is_open(text) => node,
            Value::Str(text) => match parse(text) {
                Ok(value) if self.cast => Node::new(value, node.mark),
                Ok(_) => node,
                Err(message) => self.refuse(node, &message),
            },
            _ => self.wrong(node, what),
        }
    }

    pub(super) fn command(&mut self, node: Node) -> Node {
        match &node.value {
            Value::Null | Value::Seq(_) if node.is_null() => node,
            Value::Seq(_) => self.list(node, &Shape::Text, false),
            Value::Str(_) if !self.cast => node,
            Value::Str(line) => match short::words(line) {
                Ok((words, dropped)) => {
                    if let Some(dropped) = dropped {
                        let path = self.path();
                        self.findings.warnings.push((
                            node.mark,
                            format!("`{path}` is not run by a shell: `{}` is left out, as docker compose does; use [\"sh\", \"-c\", …]", dropped.trim()),
                        ));
                    }
                    let words = words.into_iter().map(|w| Node::str(w, node.mark)).collect();
                    Node::new(Value::Seq(words), node.mark)
                }
                Err(message) => self.refuse(node, &message),
            },
            _ => self.wrong(node, "a string or a list of strings"),
        }
    }

    pub(super) fn wrong(&mut self, node: Node, what: &str) -> Node {
        self.expected(&node, what);
        node
    }

    pub(super) fn refuse(&mut self, node: Node, why: &str) -> Node {
        let message = format!("`{}`: {why}", self.path());
        self.fault(node.mark, message);
        node
    }

    /// Whether a string may still change: it has a variable that was not replaced.
    pub(super) fn is_open(&self, text: &str) -> bool {
        !self.cast && text.contains('$')
    }
}
