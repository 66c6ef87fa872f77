//! What a template is: a request that makes a container, as Docker's API takes it
//! (`POST /containers/create`).

use serde_json::{Map, Value};

/// Bytes of a template at most.
pub(crate) const LARGEST: usize = 1 << 20;
/// Characters of a name at most.
const LONGEST_NAME: usize = 128;

/// What is wrong with a name, if anything is.
pub(crate) fn name_fault(name: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let first = name.chars().next();
    let is_name = first.is_some_and(|c| c.is_ascii_alphanumeric())
        && name.chars().all(fine)
        && name.len() <= LONGEST_NAME;
    (!is_name).then(|| {
        format!(
            "{name:?} is no name for a template: letters, digits, `-`, `_` and `.`, the first a letter or digit, {LONGEST_NAME} at most"
        )
    })
}

/// Where something is wrong with a template, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Line and column, from 1, where there is a place.
    pub(crate) place: Option<(usize, usize)>,
    /// What.
    pub(crate) what: String,
}

impl Fault {
    fn new(what: &str) -> Self {
        Self {
            place: None,
            what: what.to_owned(),
        }
    }

    /// With the name of where it came from: `web.json:3:5: …`.
    pub(crate) fn of(&self, file: &str) -> String {
        match self.place {
            Some((line, column)) => format!("{file}:{line}:{column}: {}", self.what),
            None => format!("{file}: {}", self.what),
        }
    }
}

/// A JSON object.
pub(crate) fn object(text: &str) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Fault::new("it is no JSON object")),
        Err(e) => {
            let whole = e.to_string();
            let what = whole.split(" at line ").next().unwrap_or(&whole);
            Err(Fault {
                place: Some((e.line(), e.column())),
                what: format!("it is no JSON: {what}"),
            })
        }
    }
}

/// A template, from its text.
pub(crate) fn parse(text: &str) -> Result<Map<String, Value>, Fault> {
    if text.len() > LARGEST {
        return Err(Fault::new("a template has 1 MiB at most"));
    }
    let template = object(text)?;
    check(&template)?;
    Ok(template)
}

/// Whether an object can be a template.
pub(crate) fn check(template: &Map<String, Value>) -> Result<(), Fault> {
    match template.get("Image") {
        Some(Value::String(image)) if !image.is_empty() => Ok(()),
        None => Err(Fault::new(
            "it has no `Image`: a template is the body of Docker's `POST /containers/create`",
        )),
        Some(_) => Err(Fault::new("`Image` must be the name of an image")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, said) in [
            (
                "{\n  \"Image\": \"a\"\n  \"Cmd\": []\n}",
                "t:3:3: it is no JSON: expected `,` or `}`",
            ),
            ("", "t:1:0: it is no JSON: EOF while parsing a value"),
            ("[]", "t: it is no JSON object"),
            ("{}", "t: it has no `Image`"),
            (r#"{"Image": 3}"#, "t: `Image` must be"),
            (r#"{"Image": ""}"#, "t: `Image` must be"),
        ] {
            let fault = parse(text).unwrap_err().of("t");
            assert!(fault.starts_with(said), "{fault}");
        }
        assert!(parse(r#"{"Image": "a", "HostConfig": {}}"#).is_ok());
        assert!(parse(&" ".repeat(LARGEST + 1)).is_err());
    }

    #[test]
    fn names() {
        for name in ["web", "a.b-c_D", "0"] {
            assert_eq!(name_fault(name), None);
        }
        for name in ["", ".a", "a/b", "../a", "ä", "a b", &"a".repeat(129)] {
            assert!(name_fault(name).is_some(), "{name}");
        }
    }
}
