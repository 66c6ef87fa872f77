//! The `.env` dialect (compose-spec, environment files): comments, `export`, quotes with
//! escapes, values over several lines, variables, and names whose value is inherited.

use std::collections::BTreeMap;

use crate::template::{self, Variables};

/// A fault with its line, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DotenvFault {
    pub(crate) line: u32,
    pub(crate) message: String,
}

/// Names and values in the order of the file.
pub(crate) type Pairs = Vec<(String, String)>;

/// Values come from the outside first, then from earlier lines of the file.
struct Scope<'a> {
    outer: &'a dyn Fn(&str) -> Option<String>,
    file: &'a BTreeMap<String, String>,
}

impl Variables for Scope<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.outer)(name).or_else(|| self.file.get(name).cloned())
    }

    fn unset(&mut self, _name: &str) {}
}

/// Parses a file; `outer` gives values for names without one and for variables in values.
pub(crate) fn parse(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<Pairs, DotenvFault> {
    parse_after(text, outer, BTreeMap::new())
}

/// The same, for a file that comes after others: `known` has their values.
pub(crate) fn parse_after(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
    mut known: BTreeMap<String, String>,
) -> Result<Pairs, DotenvFault> {
    let text = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .replace("\r\n", "\n");
    let mut pairs = Pairs::new();
    let mut rest = text.as_str();
    loop {
        rest = skip_blank(rest);
        if rest.is_empty() {
            return Ok(pairs);
        }
        let line = line_of(&text, rest);
        let at = |message: String| DotenvFault { line, message };
        let (name, separator, after) = name(rest).map_err(at)?;
        if separator != Some('=') && separator != Some(':') {
            if let Some(value) = outer(name) {
                known.insert(name.to_owned(), value.clone());
                pairs.push((name.to_owned(), value));
            }
            rest = after;
            continue;
        }
        let mut scope = Scope {
            outer,
            file: &known,
        };
        let (value, after) = value(after, &mut scope).map_err(at)?;
        known.insert(name.to_owned(), value.clone());
        pairs.push((name.to_owned(), value));
        rest = after;
    }
}

/// Parses a file in `raw` format: what stands behind `=` is the value, as it is.
pub(crate) fn parse_raw(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<Pairs, DotenvFault> {
    let mut pairs = Pairs::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim(), outer(line.trim())),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(DotenvFault {
                line: number,
                message: format!("{name:?} is not a variable name"),
            });
        }
        if let Some(value) = value {
            pairs.push((name.to_owned(), value));
        }
    }
    Ok(pairs)
}

fn line_of(text: &str, rest: &str) -> u32 {
    let offset = text.len() - rest.len();
    let lines = text[..offset].matches('\n').count() + 1;
    u32::try_from(lines).unwrap_or(u32::MAX)
}

fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        match text.strip_prefix('#') {
            Some(comment) => text = comment.find('\n').map_or("", |i| &comment[i..]),
            None => return text,
        }
    }
}

/// A name, the character that ends it (`None` at the end of the line), and what follows.
fn name(text: &str) -> Result<(&str, Option<char>, &str), String> {
    let text = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start_matches([' ', '\t']),
        _ => text,
    };
    let end = text.find(['=', ':', '\n', '#']).unwrap_or(text.len());
    // A comment behind a bare name ends it too.
    let separator = text[end..].chars().next();
    let name = text[..end].trim_end();
    if name.is_empty() {
        return Err("a line must begin with a variable name".to_owned());
    }
    if name.contains(char::is_whitespace) {
        return Err(format!("a variable name cannot contain a space: {name:?}"));
    }
    if let Some(c) = name
        .chars()
        .find(|c| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')))
    {
        return Err(format!(
            "unexpected character {c:?} in variable name {name:?}"
        ));
    }
    let rest = match separator {
        Some('#') => text[end..].find('\n').map_or("", |i| &text[end + i..]),
        Some(c) => &text[end + c.len_utf8()..],
        None => "",
    };
    let separator = separator.filter(|c| matches!(c, '=' | ':'));
    Ok((name, separator, rest))
}

/// A value and what follows it.
fn value<'a>(text: &'a str, scope: &mut Scope) -> Result<(String, &'a str), String> {
    let text = text.trim_start_matches([' ', '\t', '\u{b}', '\u{c}']);
    match text.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(text, quote, scope),
        _ => {
            let end = text.find('\n').unwrap_or(text.len());
            let line = &text[..end];
            // A `#` begins a comment only behind a space.
            let line = line.find(" #").map_or(line, |i| &line[..i]);
            let value = template::substitute(line.trim_end(), scope)?;
            Ok((value, &text[end..]))
        }
    }
}

fn quoted<'a>(text: &'a str, quote: char, scope: &mut Scope) -> Result<(String, &'a str), String> {
    let mut escaped = false;
    let end = text
        .char_indices()
        .skip(1)
        .find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        })
        .map(|(i, _)| i)
        .ok_or_else(|| {
            let line = text.lines().next().unwrap_or_default();
            format!("a quote is not closed: {line}")
        })?;
    let raw = &text[1..end];
    let rest = &text[end + 1..];
    // What follows on the line may only be a comment.
    let line_end = rest.find('\n').unwrap_or(rest.len());
    let rest = &rest[line_end..];
    let value = if quote == '"' {
        template::substitute(&unescape(raw), scope)?
    } else {
        raw.replace("\\'", "'")
    };
    Ok((value, rest))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('0') => {
                let digits: String = chars
                    .clone()
                    .take(3)
                    .take_while(|c| c.is_digit(8))
                    .collect();
                let code = u32::from_str_radix(&digits, 8).unwrap_or(0);
                out.extend(char::from_u32(code));
                chars.by_ref().take(digits.len()).for_each(drop);
            }
            Some('$') => out.push_str("$$"),
            Some(other @ ('"' | '\\')) => out.push(other),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text, &|name| (name == "OUT").then(|| "outer".to_owned())).unwrap()
    }

    fn one(text: &str) -> String {
        parsed(text).pop().unwrap().1
    }

    #[test]
    fn dialect() {
        assert_eq!(one("A=b"), "b");
        assert_eq!(one("export A = b # c"), "b");
        assert_eq!(one("A=b#c"), "b#c");
        assert_eq!(one("A: yaml style"), "yaml style");
        assert_eq!(one("A='$B \\n'"), "$B \\n");
        assert_eq!(one("A=\"two\\nlines\""), "two\nlines");
        assert_eq!(one("A=\"over\nlines\" # c"), "over\nlines");
        assert_eq!(one("B=1\nA=${B}-${OUT}-${C:-d}"), "1-outer-d");
        assert_eq!(one("A="), "");
        assert_eq!(
            parsed("OUT\nNONE\n"),
            vec![("OUT".to_owned(), "outer".to_owned())]
        );
        assert_eq!(parsed("# only\n\n"), vec![]);
        assert_eq!(one("A=1\r\nB=2\r\n"), "2");
    }

    #[test]
    fn faults_have_lines() {
        let fault = |text| parse(text, &|_| None).unwrap_err();
        assert_eq!(fault("A=1\nB C=2").line, 2);
        assert_eq!(fault("A=\"open").line, 1);
        assert_eq!(fault("\n\n=x").line, 3);
    }
}
