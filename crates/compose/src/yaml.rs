//! YAML text into trees, with places, merge keys, and bounds on what a file may cost.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use crate::node::{Entry, Map, Mark, Node, Tag, Value};

/// Nesting deeper than this is refused: no real file comes near, and recursion stays shallow.
const MAX_DEPTH: usize = 100;
/// Nodes that aliases may add to one file; an alias bomb stops here after some milliseconds.
const MAX_ALIASED_NODES: usize = 200_000;

/// What is wrong with a file's YAML.
#[derive(Debug)]
pub(crate) struct YamlFault {
    pub(crate) message: String,
    pub(crate) mark: Mark,
}

/// Parses every document of a file.
///
/// Faults that leave the structure readable (duplicate keys, unknown tags) are collected;
/// a syntax error ends the file and is the last fault.
pub(crate) fn parse(text: &str, file: u16) -> Result<Vec<Node>, Vec<YamlFault>> {
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        file,
        anchors: HashMap::new(),
        open_anchors: Vec::new(),
        aliased: 0,
        faults: Vec::new(),
    };
    let mut documents = Vec::new();
    match builder.stream(&mut documents) {
        Ok(()) if builder.faults.is_empty() => Ok(documents),
        Ok(()) => Err(builder.faults),
        Err(fault) => {
            builder.faults.push(fault);
            Err(builder.faults)
        }
    }
}

struct Builder<'input> {
    events: Parser<'input, StrInput<'input>>,
    file: u16,
    anchors: HashMap<usize, Node>,
    open_anchors: Vec<usize>,
    aliased: usize,
    faults: Vec<YamlFault>,
}

type Step<T> = Result<T, YamlFault>;

impl<'input> Builder<'input> {
    fn stream(&mut self, documents: &mut Vec<Node>) -> Step<()> {
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart
                | Event::DocumentStart(..)
                | Event::DocumentEnd
                | Event::Anchor(..) => {}
                Event::StreamEnd => break,
                other => {
                    self.anchors.clear();
                    let node = self.node(other, span, 0)?;
                    documents.push(node);
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Step<Option<(Event<'input>, Span)>> {
        self.events
            .find(|event| !matches!(event, Ok((Event::Anchor(..), _))))
            .transpose()
            .map_err(|e| syntax_fault(&e, self.file))
    }

    fn required(&mut self) -> Step<(Event<'input>, Span)> {
        self.next()?.ok_or_else(|| YamlFault {
            message: "the file ends too early".to_owned(),
            mark: Mark {
                file: self.file,
                ..Mark::default()
            },
        })
    }

    fn mark(&self, span: &Span) -> Mark {
        let (start, end) = (&span.start, &span.end);
        let length = if end.line() == start.line() {
            end.col().saturating_sub(start.col())
        } else {
            1
        };
        #[allow(clippy::cast_possible_truncation)] // files are bounded far below 4 GiB
        Mark {
            file: self.file,
            line: start.line() as u32,
            column: start.col() as u32 + 1,
            length: length.max(1) as u32,
        }
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Step<Node> {
        let mark = self.mark(&span);
        if depth > MAX_DEPTH {
            return Err(YamlFault {
                message: format!("nested more than {MAX_DEPTH} levels deep"),
                mark,
            });
        }
        let (mut node, anchor, tag) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag_name = tag
                    .as_ref()
                    .map(|t| format!("{}{}", t.handle(), t.suffix()));
                let value = scalar(&text, style, tag_name.as_deref());
                (Node::new(value, mark), anchor, tag)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(anchor);
                let mut seq = Vec::new();
                loop {
                    let (event, span) = self.required()?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    seq.push(self.node(event, span, depth + 1)?);
                }
                self.close(anchor);
                (Node::new(Value::Seq(seq), mark), anchor, tag)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(anchor);
                let map = self.mapping(depth)?;
                self.close(anchor);
                (Node::new(Value::Map(map), mark), anchor, tag)
            }
            Event::Alias(anchor) => return self.alias(anchor, mark),
            _ => {
                return Err(YamlFault {
                    message: "unexpected end of a block".to_owned(),
                    mark,
                });
            }
        };
        if let Some(tag) = tag {
            node.tag = match (tag.handle(), tag.suffix()) {
                ("!", "reset") => Tag::Reset,
                ("!", "override") => Tag::Override,
                _ => Tag::None,
            };
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn open(&mut self, anchor: usize) {
        if anchor > 0 {
            self.open_anchors.push(anchor);
        }
    }

    fn close(&mut self, anchor: usize) {
        if anchor > 0 {
            self.open_anchors.pop();
        }
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Step<Node> {
        if self.open_anchors.contains(&anchor) {
            return Err(YamlFault {
                message: "this alias is inside the value it stands for".to_owned(),
                mark,
            });
        }
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(YamlFault {
                message: "this alias has no anchor before it".to_owned(),
                mark,
            });
        };
        self.aliased += node.size();
        if self.aliased > MAX_ALIASED_NODES {
            return Err(YamlFault {
                message: format!("aliases expand to more than {MAX_ALIASED_NODES} values"),
                mark,
            });
        }
        Ok(node.clone())
    }

    fn mapping(&mut self, depth: usize) -> Step<Map> {
        let mut map = Map::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, span) = self.required()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key_mark = self.mark(&span);
            let is_merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, _) if text == "<<");
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.required()?;
            let value = self.node(event, span, depth + 1)?;
            if is_merge {
                self.merge_key(value, &mut merged);
                continue;
            }
            let Value::Str(name) = key.value else {
                self.faults.push(YamlFault {
                    message: format!(
                        "a key must be a string, not {}; put it in quotes",
                        key.kind()
                    ),
                    mark: key_mark,
                });
                continue;
            };
            if let Some(first) = map.get(&name) {
                let line = first.key.line;
                self.faults.push(YamlFault {
                    message: format!("`{name}` is already defined on line {line}"),
                    mark: key_mark,
                });
                continue;
            }
            map.insert(
                name,
                Entry {
                    key: key_mark,
                    node: value,
                },
            );
        }
        // Explicit keys win over merged ones, and earlier merged mappings over later ones.
        for node in merged {
            if let Value::Map(other) = node.value {
                for (key, entry) in other {
                    map.entry(key).or_insert(entry);
                }
            }
        }
        Ok(map)
    }

    fn merge_key(&mut self, value: Node, merged: &mut Vec<Node>) {
        let mark = value.mark;
        let values = match value.value {
            Value::Map(_) => vec![value],
            Value::Seq(seq) => seq,
            _ => vec![value],
        };
        for node in values {
            if node.as_map().is_some() {
                merged.push(node);
            } else {
                self.faults.push(YamlFault {
                    message: format!(
                        "`<<` takes a mapping or a list of mappings, not {}",
                        node.kind()
                    ),
                    mark,
                });
            }
        }
    }
}

fn syntax_fault(error: &ScanError, file: u16) -> YamlFault {
    let marker = error.marker();
    #[allow(clippy::cast_possible_truncation)] // files are bounded far below 4 GiB
    YamlFault {
        message: format!("not valid YAML: {}", error.info()),
        mark: Mark {
            file,
            line: marker.line() as u32,
            column: marker.col() as u32 + 1,
            length: 1,
        },
    }
}

/// Resolves a scalar as the reference's YAML library does: the core schema of YAML 1.2, the
/// octal and underscored numbers of 1.1, and dates.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Value {
    let string = || Value::Str(text.to_owned());
    match tag {
        Some("tag:yaml.org,2002:str" | "!!str") => return string(),
        Some("tag:yaml.org,2002:int" | "tag:yaml.org,2002:float" | "tag:yaml.org,2002:bool") => {
            return scalar(text, ScalarStyle::Plain, None);
        }
        Some("tag:yaml.org,2002:null") => return Value::Null,
        Some("!reset" | "!override") if text.is_empty() => return Value::Null,
        _ => {}
    }
    if style != ScalarStyle::Plain {
        return string();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return string();
    }
    if let Some(time) = timestamp(text) {
        return Value::Time(time);
    }
    let plain = text.replace('_', "");
    integer(&plain)
        .or_else(|| float(&plain))
        .unwrap_or_else(string)
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let n = if negative { -magnitude } else { magnitude };
    Some(if let Ok(n) = i64::try_from(n) {
        Value::Int(n)
    } else if let Ok(n) = u64::try_from(n) {
        Value::Big(n)
    } else {
        #[allow(clippy::cast_precision_loss)]
        Value::Float(n as f64)
    })
}

/// A float by YAML 1.2's pattern; Rust's own parser alone would also take `inf` and `1e`.
fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(i) => (&unsigned[..i], Some(&unsigned[i + 1..])),
        None => (unsigned, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    (mantissa_ok && exponent_ok)
        .then(|| text.parse().ok())
        .flatten()
        .map(Value::Float)
}

/// A date (`2001-01-31`) or a time with one, in RFC 3339; `None` if the text is neither.
fn timestamp(text: &str) -> Option<String> {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(i) => (&text[..i], Some(text[i + 1..].trim())),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let number =
        |s: &str, max: usize| (1..=max).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if parts.next().is_some()
        || year.len() != 4
        || !number(year, 4)
        || !number(month, 2)
        || !number(day, 2)
    {
        return None;
    }
    let month: u8 = month.parse().ok().filter(|m| (1..=12).contains(m))?;
    let day: u8 = day.parse().ok().filter(|d| (1..=31).contains(d))?;
    match time {
        None => Some(format!("{year}-{month:02}-{day:02}T00:00:00Z")),
        Some(time) => {
            let digits = time
                .bytes()
                .take_while(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'))
                .count();
            let clock = &time[..digits];
            if clock.split(':').count() != 3 {
                return None;
            }
            let zone = time[digits..].trim();
            let zone = if zone.is_empty() { "Z" } else { zone };
            Some(format!("{year}-{month:02}-{day:02}T{clock}{zone}"))
        }
    }
}
