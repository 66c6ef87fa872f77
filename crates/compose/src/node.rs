//! The tree between text and model: YAML values that remember where they were written.

use indexmap::IndexMap;

/// Where a value was written. Line 0 means nowhere: it was filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// Index of the file among the loaded sources.
    pub(crate) file: u16,
    /// Line from 1.
    pub(crate) line: u32,
    /// Column in characters, from 1.
    pub(crate) column: u32,
    /// Length in characters, on its first line.
    pub(crate) length: u32,
}

/// What a tag asks the merge to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tag {
    #[default]
    None,
    /// `!reset`: drop the attribute, here and in the files below.
    Reset,
    /// `!override`: replace the attribute of the files below instead of merging.
    Override,
}

/// A value with its place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) mark: Mark,
    pub(crate) tag: Tag,
}

/// A YAML value, resolved as YAML 1.2 with the octal numbers of 1.1 (as Compose does).
#[derive(Debug, Clone, Default)]
pub(crate) enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number that only fits without a sign.
    Big(u64),
    Float(f64),
    Str(String),
    /// A date or time, in RFC 3339; only extensions may hold one.
    Time(String),
    Seq(Vec<Node>),
    Map(Map),
}

/// A mapping in the order of the file.
pub(crate) type Map = IndexMap<String, Entry>;

/// One entry of a mapping.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// Where the key was written.
    pub(crate) key: Mark,
    pub(crate) node: Node,
}

/// Equality of what is meant: places and tags do not count.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Big(a), Self::Big(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Str(a), Self::Str(b)) | (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Seq(a), Self::Seq(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self {
            value,
            ..Self::default()
        }
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Value::Str(text.to_owned()).into()
    }
}

impl Node {
    pub(crate) fn new(value: Value, mark: Mark) -> Self {
        Self {
            value,
            mark,
            tag: Tag::None,
        }
    }

    pub(crate) fn str(text: impl Into<String>, mark: Mark) -> Self {
        Self::new(Value::Str(text.into()), mark)
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_seq(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Seq(seq) => Some(seq),
            _ => None,
        }
    }

    pub(crate) fn as_seq_mut(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.value {
            Value::Seq(seq) => Some(seq),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key).map(|e| &e.node)
    }

    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.as_map_mut()?.get_mut(key).map(|e| &mut e.node)
    }

    /// The entries under a key that is a mapping; nothing otherwise.
    pub(crate) fn children_mut(&mut self, key: &str) -> impl Iterator<Item = (&String, &mut Self)> {
        self.get_mut(key)
            .and_then(Self::as_map_mut)
            .into_iter()
            .flatten()
            .map(|(k, e)| (k, &mut e.node))
    }

    /// The entries under a key that is a mapping; nothing otherwise.
    pub(crate) fn children(&self, key: &str) -> impl Iterator<Item = (&String, &Self)> {
        self.get(key)
            .and_then(Self::as_map)
            .into_iter()
            .flatten()
            .map(|(k, e)| (k, &e.node))
    }

    /// The elements of the list under a key; nothing otherwise.
    pub(crate) fn items(&self, key: &str) -> &[Self] {
        self.get(key).and_then(Self::as_seq).unwrap_or_default()
    }

    /// The elements of the list under a key; nothing otherwise.
    pub(crate) fn items_mut(&mut self, key: &str) -> &mut [Self] {
        self.get_mut(key)
            .and_then(Self::as_seq_mut)
            .map(Vec::as_mut_slice)
            .unwrap_or_default()
    }

    /// Sets a key of a mapping; does nothing to other values.
    pub(crate) fn set(&mut self, key: &str, node: Self) {
        if let Some(map) = self.as_map_mut() {
            let mark = node.mark;
            map.entry(key.to_owned())
                .and_modify(|e| e.node = node.clone())
                .or_insert(Entry { key: mark, node });
        }
    }

    /// Sets a key of a mapping unless it is there with a value.
    pub(crate) fn set_default(&mut self, key: &str, value: impl FnOnce() -> Self) {
        if self.get(key).is_none_or(Self::is_null) {
            self.set(key, value());
        }
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Self> {
        self.as_map_mut()?.shift_remove(key).map(|e| e.node)
    }

    /// What kind of value this is, in words for the user.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Big(_) | Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Time(_) => "a date",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// A scalar as text, as the reference prints it; `None` for null, lists and mappings.
    pub(crate) fn text(&self) -> Option<String> {
        match &self.value {
            Value::Bool(b) => Some(b.to_string()),
            Value::Int(n) => Some(n.to_string()),
            Value::Big(n) => Some(n.to_string()),
            Value::Float(f) => Some(format_float(*f)),
            Value::Str(s) | Value::Time(s) => Some(s.clone()),
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
        }
    }

    /// Number of nodes in the tree, this one included.
    pub(crate) fn size(&self) -> usize {
        1 + match &self.value {
            Value::Seq(seq) => seq.iter().map(Self::size).sum(),
            Value::Map(map) => map.values().map(|e| e.node.size()).sum(),
            _ => 0,
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::from(*n),
            Value::Big(n) => Json::from(*n),
            Value::Float(f) => number(*f),
            Value::Str(s) | Value::Time(s) => Json::String(s.clone()),
            Value::Seq(seq) => Json::Array(seq.iter().map(Self::to_json).collect()),
            Value::Map(map) => Json::Object(
                map.iter()
                    .map(|(k, e)| (k.clone(), e.node.to_json()))
                    .collect(),
            ),
        }
    }
}

/// A JSON number without a needless fraction.
fn number(f: f64) -> serde_json::Value {
    #[allow(clippy::cast_possible_truncation)] // whole and in range
    if f.fract() == 0.0 && f.abs() < 9e15 {
        return serde_json::Value::from(f as i64);
    }
    serde_json::Value::from(f)
}

/// A float as Go's `%v` prints it: shortest digits, an exponent from 1e6 on and below 1e-4.
pub(crate) fn format_float(f: f64) -> String {
    if f.is_nan() {
        return "NaN".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = f.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{f:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(rest) => ('-', rest),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{f}")
}
