//! Variables in text: `$A`, `${A}`, `${A:-default}`, `${A-default}`, `${A:?error}`,
//! `${A?error}`, `${A:+other}`, `${A+other}`, nested, and `$$` for `$` (compose-spec 12).

/// Nested defaults deeper than this are refused.
const MAX_DEPTH: usize = 50;
/// Text longer than this is not substituted into: nested defaults could otherwise grow it
/// without bound.
const MAX_LENGTH: usize = 4 << 20;

/// Where values come from, and where names that have none go.
pub(crate) trait Variables {
    /// The value of a variable; `None` if it is not set.
    fn get(&self, name: &str) -> Option<String>;
    /// Told of each variable that is not set and has no default.
    fn unset(&mut self, name: &str);
}

/// What follows a variable's name in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Default,
    Required,
    Replace,
}

/// A variable as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its default, as written; empty without one.
    pub default: String,
    /// What it is replaced with when set, as written (`${A:+x}`).
    pub alternate: String,
    /// Whether it must be set.
    pub required: bool,
}

struct Braced<'a> {
    name: &'a str,
    /// Operator, whether an empty value counts as unset, and the operand.
    operation: Option<(Operator, bool, &'a str)>,
}

enum Part<'a> {
    Text(&'a str),
    Dollar,
    Variable(Braced<'a>),
}

/// Replaces every variable of a text.
pub(crate) fn substitute(text: &str, variables: &mut dyn Variables) -> Result<String, String> {
    expand(text, variables, 0)
}

fn expand(text: &str, variables: &mut dyn Variables, depth: usize) -> Result<String, String> {
    if depth > MAX_DEPTH {
        return Err(format!(
            "variables are nested more than {MAX_DEPTH} levels deep"
        ));
    }
    let mut out = String::with_capacity(text.len());
    for part in parts(text)? {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Dollar => out.push('$'),
            Part::Variable(braced) => out.push_str(&value(&braced, variables, depth)?),
        }
        if out.len() > MAX_LENGTH {
            return Err("the text grows too long by its variables".to_owned());
        }
    }
    Ok(out)
}

fn value(braced: &Braced, variables: &mut dyn Variables, depth: usize) -> Result<String, String> {
    let found = variables.get(braced.name);
    let Some((operator, empty_is_unset, operand)) = braced.operation else {
        return Ok(found.unwrap_or_else(|| {
            variables.unset(braced.name);
            String::new()
        }));
    };
    let usable = found.filter(|v| !(empty_is_unset && v.is_empty()));
    match (operator, usable) {
        (Operator::Default | Operator::Required, Some(value)) => Ok(value),
        (Operator::Default, None) | (Operator::Replace, Some(_)) => {
            expand(operand, variables, depth + 1)
        }
        (Operator::Replace, None) => Ok(String::new()),
        (Operator::Required, None) => {
            let reason = expand(operand, variables, depth + 1)?;
            Err(if reason.is_empty() {
                format!("required variable {} is not set", braced.name)
            } else {
                format!("required variable {} is not set: {reason}", braced.name)
            })
        }
    }
}

/// Every variable of a text, nested ones included.
pub(crate) fn variables_of(text: &str, out: &mut Vec<Variable>) {
    for part in parts(text).unwrap_or_default() {
        if let Part::Variable(Braced { name, operation }) = part {
            let mut variable = Variable {
                name: name.to_owned(),
                default: String::new(),
                alternate: String::new(),
                required: false,
            };
            if let Some((operator, _, operand)) = operation {
                match operator {
                    Operator::Default => operand.clone_into(&mut variable.default),
                    Operator::Replace => operand.clone_into(&mut variable.alternate),
                    Operator::Required => variable.required = true,
                }
                variables_of(operand, out);
            }
            out.push(variable);
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        if at > 0 {
            parts.push(Part::Text(&rest[..at]));
        }
        let after = &rest[at + 1..];
        rest = if let Some(rest) = after.strip_prefix('$') {
            parts.push(Part::Dollar);
            rest
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing_brace(inner).ok_or_else(|| invalid(text))?;
            parts.push(Part::Variable(braced(&inner[..end], text)?));
            &inner[end + 1..]
        } else {
            let length = name_length(after);
            // A dollar sign before anything else is just that, as in `costs 5$`.
            parts.push(if length == 0 {
                Part::Dollar
            } else {
                Part::Variable(Braced {
                    name: &after[..length],
                    operation: None,
                })
            });
            &after[length..]
        };
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

fn braced<'a>(inner: &'a str, whole: &str) -> Result<Braced<'a>, String> {
    let length = name_length(inner);
    let (name, rest) = inner.split_at(length);
    if name.is_empty() {
        return Err(invalid(whole));
    }
    if rest.is_empty() {
        return Ok(Braced {
            name,
            operation: None,
        });
    }
    let (empty_is_unset, rest) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let operator = match rest.as_bytes().first() {
        Some(b'-') => Operator::Default,
        Some(b'?') => Operator::Required,
        Some(b'+') => Operator::Replace,
        _ => return Err(invalid(whole)),
    };
    Ok(Braced {
        name,
        operation: Some((operator, empty_is_unset, &rest[1..])),
    })
}

/// Offset of the brace that closes a `${`, over nested ones.
fn closing_brace(inner: &str) -> Option<usize> {
    let bytes = inner.as_bytes();
    let mut open = 1_usize;
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'$' && bytes.get(i + 1) == Some(&b'{') {
            open += 1;
            i += 1;
        } else if bytes[i] == b'}' {
            open -= 1;
            if open == 0 {
                return Some(i);
            }
        }
        i += 1;
    }
    None
}

fn name_length(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len())
}

fn invalid(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    format!("invalid variable in {shown:?}: write ${{NAME}}, or $$ for a dollar sign")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Env(BTreeMap<String, String>, Vec<String>);

    impl Variables for Env {
        fn get(&self, name: &str) -> Option<String> {
            self.0.get(name).cloned()
        }
        fn unset(&mut self, name: &str) {
            self.1.push(name.to_owned());
        }
    }

    fn sub(text: &str) -> Result<String, String> {
        let set = [("A", "a"), ("E", ""), ("B", "b")];
        let env = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        substitute(text, &mut Env(env.collect(), Vec::new()))
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("$A/${A}", "a/a"),
            ("$$A$$", "$A$"),
            ("${X:-d} ${X-d} ${E:-d} ${E-d}", "d d d "),
            ("${A:+r}${E:+r}${E+r}${X+r}", "rr"),
            ("${X:-${Y:-${A}}}", "a"),
            ("${X:-a}b}", "ab}"),
            ("${A:?e}${E?e}", "a"),
            ("${X:-http://h:80/?q=-1}", "http://h:80/?q=-1"),
            ("${X}", ""),
            ("5$ $1 $", "5$ $1 $"),
        ] {
            assert_eq!(sub(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn faults() {
        for text in [
            "${",
            "${A",
            "${}",
            "${5}",
            "${A!b}",
            "${A:b}",
            "${E:?gone}",
            "${X?}",
        ] {
            assert!(sub(text).is_err(), "{text}");
        }
        assert!(sub("${E:?set $A}").unwrap_err().contains("set a"));
    }

    proptest! {
        #[test]
        fn text_without_dollars_stays(text in "[^$]*") {
            prop_assert_eq!(sub(&text).unwrap(), text);
        }

        #[test]
        fn escaped_text_comes_back(text in ".*") {
            prop_assert_eq!(sub(&text.replace('$', "$$")).unwrap(), text);
        }

        #[test]
        fn never_panics(text in "[${}A:?+\\-x ]{0,40}") {
            let _ = sub(&text);
        }

        #[test]
        fn a_default_is_used_as_it_is(default in "[a-z0-9 /:.?+-]*") {
            prop_assert_eq!(sub(&format!("${{X-{default}}}")).unwrap(), default);
        }
    }
}
