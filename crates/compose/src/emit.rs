//! YAML text from a value: block style, two spaces, quotes where the reference has them.

use serde_json::Value;

/// Writes a value as a YAML document.
pub(crate) fn emit(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, out),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, out),
        other => {
            out.push_str(&scalar(other, 0));
            out.push('\n');
        }
    }
}

fn mapping(map: &serde_json::Map<String, Value>, indent: usize, out: &mut String) {
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 || !out.ends_with("- ") {
            pad(indent, out);
        }
        out.push_str(&text(key, 0));
        out.push(':');
        child(value, indent + 2, out);
    }
}

fn child(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            mapping(map, indent, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            sequence(items, indent, out);
        }
        other => {
            out.push(' ');
            out.push_str(&scalar(other, indent));
            out.push('\n');
        }
    }
}

fn sequence(items: &[Value], indent: usize, out: &mut String) {
    for item in items {
        pad(indent, out);
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(map, indent + 2, out),
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                sequence(inner, indent + 2, out);
            }
            other => {
                out.push_str(&scalar(other, indent + 2));
                out.push('\n');
            }
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => text(s, indent),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
    }
}

/// A text, in the style that the reference's YAML library (Go, yaml.v3) chooses for it.
fn text(s: &str, indent: usize) -> String {
    let allowed = Allowed::of(s);
    if s.contains('\n') {
        // The key of a mapping cannot be a block.
        return if indent > 0 && allowed.block {
            block(s, indent)
        } else {
            double_quoted(s)
        };
    }
    if !is_text(s) {
        double_quoted(s)
    } else if allowed.plain {
        s.to_owned()
    } else if allowed.single {
        format!("'{}'", s.replace('\'', "''"))
    } else {
        double_quoted(s)
    }
}

/// The styles that a text can be written in.
struct Allowed {
    plain: bool,
    single: bool,
    block: bool,
}

impl Allowed {
    fn of(s: &str) -> Self {
        let blank = |c: Option<char>| c.is_none_or(|c| matches!(c, ' ' | '\t') || is_break(c));
        let (mut indicators, mut special, mut tabs, mut breaks) = (false, false, false, false);
        let (mut break_space, mut space_break) = (false, false);
        indicators |= s.starts_with("---") || s.starts_with("...");
        let mut before = None;
        let mut chars = s.chars().peekable();
        while let Some(c) = chars.next() {
            let next = chars.peek().copied();
            indicators |= match c {
                '#' => blank(before),
                ':' => blank(next),
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
                | '@' | '`' => before.is_none(),
                '?' | '-' => before.is_none() && blank(next),
                _ => false,
            };
            tabs |= c == '\t';
            special |= c != '\t' && !is_break(c) && !is_printable(c);
            special |= is_break(c) && c != '\n';
            breaks |= is_break(c);
            break_space |= c == ' ' && before.is_some_and(is_break);
            space_break |= is_break(c) && before == Some(' ');
            before = Some(c);
        }
        let edge = |c: char| c == ' ' || is_break(c);
        let single = !(break_space || space_break || tabs || special);
        Self {
            plain: single && !breaks && !indicators && !s.starts_with(edge) && !s.ends_with(edge),
            single,
            block: !(space_break || special || s.ends_with(' ')),
        }
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

fn block(s: &str, indent: usize) -> String {
    let hint = if s.starts_with([' ', '\n']) { "2" } else { "" };
    let chomping = if s == "\n" || s.ends_with("\n\n") {
        "+"
    } else if s.ends_with('\n') {
        ""
    } else {
        "-"
    };
    let mut out = format!("|{hint}{chomping}");
    let body = s.strip_suffix('\n').unwrap_or(s);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(indent, &mut out);
            out.push_str(line);
        }
    }
    out
}

fn double_quoted(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether a text without quotes would be read as text, and not as something else, in YAML 1.1
/// or 1.2.
fn is_text(s: &str) -> bool {
    const WORDS: [&str; 39] = [
        "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "y",
        "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off",
        "OFF", ".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf",
        "-.Inf", "-.INF",
    ];
    if WORDS.contains(&s) {
        return false;
    }
    match s.as_bytes().first() {
        Some(b'.') => s.parse::<f64>().is_err(),
        Some(b'+' | b'-' | b'0'..=b'9') => {
            !(is_date(s) || is_number(&s.replace('_', "")) || is_base_60(s))
        }
        _ => true,
    }
}

/// `1`, `0x1f`, `0o17`, `017`, `0b1`, `1.5e3`, with or without a sign.
fn is_number(s: &str) -> bool {
    let digits = s.strip_prefix(['+', '-']).unwrap_or(s);
    let lower = digits.to_ascii_lowercase();
    let radix = |prefix: &str, digit: fn(&u8) -> bool| {
        lower
            .strip_prefix(prefix)
            .is_some_and(|d| !d.is_empty() && d.as_bytes().iter().all(digit))
    };
    if radix("0x", u8::is_ascii_hexdigit)
        || radix("0o", |b| (b'0'..=b'7').contains(b))
        || radix("0b", |b| (b'0'..=b'1').contains(b))
    {
        return true;
    }
    // What is left must look like a decimal: Rust reads `inf` and `nan` too.
    lower.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && lower
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-'))
        && lower.parse::<f64>().is_ok()
}

/// Numbers of YAML 1.1 such as `12:34`.
fn is_base_60(s: &str) -> bool {
    let s = s.strip_prefix(['+', '-']).unwrap_or(s);
    let mut parts = s.split(':');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let Some((last, middle)) = rest.split_last() else {
        return false;
    };
    let sixty = |p: &str| match p.as_bytes() {
        [d] => d.is_ascii_digit(),
        [t, d] => (b'0'..=b'5').contains(t) && d.is_ascii_digit(),
        _ => false,
    };
    let (last, fraction) = last.split_once('.').unwrap_or((last, ""));
    let digits = |p: &str| p.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    first.starts_with(|c: char| c.is_ascii_digit())
        && digits(first)
        && middle.iter().all(|p| sixty(p))
        && sixty(last)
        && digits(fraction)
}

/// `2024-01-31`, alone or with a time behind it.
fn is_date(s: &str) -> bool {
    let (date, time) = match s.find(['T', 't', ' ']) {
        Some(at) => (&s[..at], Some(&s[at + 1..])),
        None => (s, None),
    };
    let part = |p: &str, most: u32| p.len() <= 2 && p.parse::<u32>().is_ok_and(|n| n <= most);
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next(), parts.next(), parts.next());
    let whole = parts.next().is_none()
        && year.is_some_and(|y| y.len() == 4 && y.bytes().all(|b| b.is_ascii_digit()))
        && month.is_some_and(|m| part(m, 12))
        && day.is_some_and(|d| part(d, 31));
    whole
        && time.is_none_or(|t| {
            let clock = t.split(['.', 'Z', '+', '-']).next().unwrap_or_default();
            let parts: Vec<&str> = clock.split(':').collect();
            parts.len() == 3 && part(parts[0], 23) && part(parts[1], 59) && part(parts[2], 59)
        })
}
