//! The normalised model as JSON and YAML, and configuration hashes, as the reference writes them.

use std::cmp::Ordering;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::model::{Project, Service};
use crate::schema::{self, Object, Shape};

/// Which of the reference's two outputs is meant; they differ in small ways.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Without nested `x-*`, with empty structures, device limits in capital letters.
    Json,
    /// With `x-*`, without empty structures.
    Yaml,
}

/// The project as JSON text, indented by two spaces.
#[must_use]
pub fn to_json(project: &Project) -> String {
    // A `$` is doubled, so that the output can be loaded again.
    value_to_json(&project_value(project, Form::Json)).replace('$', "$$")
}

/// The project as YAML text.
#[must_use]
pub fn to_yaml(project: &Project) -> String {
    value_to_yaml(&project_value(project, Form::Yaml)).replace('$', "$$")
}

/// Any value as JSON text, indented by two spaces.
#[must_use]
pub fn value_to_json(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() // a Value always serialises
}

/// Any value as YAML text.
#[must_use]
pub fn value_to_yaml(value: &Value) -> String {
    let mut out = String::new();
    crate::emit::emit(value, &mut out);
    out
}

fn project_value(project: &Project, form: Form) -> Value {
    let mut value = serde_json::to_value(project).unwrap_or_default(); // plain data always serialises
    if let Value::Object(map) = &mut value {
        for section in [
            "services", "networks", "volumes", "secrets", "configs", "models",
        ] {
            let empty = map
                .get(section)
                .and_then(Value::as_object)
                .is_some_and(Map::is_empty);
            if empty && section != "services" {
                map.shift_remove(section);
            }
        }
        for section in ["secrets", "configs"] {
            for object in map
                .get_mut(section)
                .and_then(Value::as_object_mut)
                .into_iter()
                .flatten()
            {
                // Content that came from a variable is not shown.
                if let Some(object) = object
                    .1
                    .as_object_mut()
                    .filter(|o| o.contains_key("environment"))
                {
                    object.shift_remove("content");
                }
            }
        }
        if form == Form::Json {
            // The reference's JSON has no models.
            map.shift_remove("models");
            map.sort_keys();
        }
    }
    shape(&mut value, &Shape::Object(&schema::PROJECT), form, true);
    value
}

/// Walks a value along the schema and gives it the form.
fn shape(value: &mut Value, of: &Shape, form: Form, top: bool) {
    match (of, value) {
        (
            Shape::Object(object) | Shape::OptionalObject(object) | Shape::Short(_, object),
            Value::Object(map),
        ) => {
            structure(map, object, form, top);
        }
        (Shape::List(inner) | Shape::Set(inner) | Shape::OneOrMany(inner), Value::Array(items)) => {
            items.iter_mut().for_each(|v| shape(v, inner, form, false));
        }
        (Shape::Dict(inner) | Shape::Named(inner) | Shape::Names(inner, _), Value::Object(map)) => {
            map.values_mut().for_each(|v| shape(v, inner, form, false));
            if form == Form::Yaml {
                sort(map);
            }
        }
        (Shape::Environment | Shape::Labels | Shape::Options, Value::Object(map))
            if form == Form::Yaml =>
        {
            sort(map)
        }
        (Shape::Ssh, Value::Array(keys)) if form == Form::Yaml => {
            for key in keys {
                if let Some((id, path)) = key.as_str().and_then(|k| k.split_once('=')) {
                    *key = format!("{id}: {path}").into();
                }
            }
        }
        (Shape::Gpus, Value::Array(items)) => {
            let inner = Shape::Object(&schema::GPU_REQUEST);
            items.iter_mut().for_each(|v| shape(v, &inner, form, false));
        }
        _ => {}
    }
}

fn structure(map: &mut Map<String, Value>, object: &'static Object, form: Form, top: bool) {
    for field in object.fields {
        if let Some(value) = map.get_mut(field.name) {
            shape(value, &field.shape, form, false);
        }
    }
    for (_, value) in map.iter_mut().filter(|(key, _)| key.starts_with("x-")) {
        sort_all(value, form);
    }
    match form {
        Form::Json => {
            if !top {
                map.retain(|key, _| !key.starts_with("x-"));
            }
            if matches!(object.name, "a block I/O limit" | "a block I/O weight") {
                *map = std::mem::take(map)
                    .into_iter()
                    .map(|(key, value)| (key[..1].to_uppercase() + &key[1..], value))
                    .collect();
            }
        }
        Form::Yaml => {
            for key in ["ipam", "resources", "placement", "exec"] {
                if map
                    .get(key)
                    .and_then(Value::as_object)
                    .is_some_and(is_blank)
                {
                    map.shift_remove(key);
                }
            }
            for key in ["command", "entrypoint"] {
                if map.get(key).is_some_and(Value::is_null) {
                    map.shift_remove(key);
                }
            }
        }
    }
}

/// Sorts the keys of what the user made up, at every depth.
fn sort_all(value: &mut Value, form: Form) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|v| sort_all(v, form)),
        Value::Object(map) => {
            map.values_mut().for_each(|v| sort_all(v, form));
            match form {
                Form::Json => map.sort_keys(),
                Form::Yaml => sort(map),
            }
        }
        _ => {}
    }
}

/// Sorts keys as the reference's YAML library does.
fn sort(map: &mut Map<String, Value>) {
    if map.len() < 2 {
        return;
    }
    let mut entries: Vec<(String, Value)> = std::mem::take(map).into_iter().collect();
    entries.sort_by(|(a, _), (b, _)| natural(a, b));
    *map = entries.into_iter().collect();
}

/// Numbers within names count by their value: `a2` comes before `a10`. Letters come after
/// everything else.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else {
        return a.len().cmp(&b.len());
    };
    let (x, y) = (a[at], b[at]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (false, false) => {}
        // Within a number letters come first: the number ends there.
        (x_is, _) => {
            let in_number = at > 0 && a[at - 1].is_ascii_digit();
            return if x_is == in_number {
                Ordering::Less
            } else {
                Ordering::Greater
            };
        }
    }
    let zeros = x == '0' || y == '0';
    let lead = a[..at]
        .iter()
        .rev()
        .take_while(|c| c.is_ascii_digit())
        .any(|&c| c != '0');
    let number = |text: &[char]| -> (u64, usize) {
        let start = u64::from(zeros && lead);
        let digits: Vec<u64> = text[at..]
            .iter()
            .map_while(|c| c.to_digit(10))
            .map(u64::from)
            .collect();
        (
            digits
                .iter()
                .fold(start, |n, d| n.saturating_mul(10).saturating_add(*d)),
            digits.len(),
        )
    };
    number(&a).cmp(&number(&b)).then(x.cmp(&y))
}

/// Whether a structure says nothing: a hook's unset command counts as nothing.
fn is_blank(map: &Map<String, Value>) -> bool {
    map.values().all(Value::is_null)
}

/// The configuration hash of a service: the reference's `config --hash`, so that it and we
/// agree on which containers are up to date.
///
/// What does not change a container is left out: build, pull policy, scale, dependencies, profiles.
#[must_use]
pub fn config_hash(service: &Service) -> String {
    let mut service = service.clone();
    service.build = None;
    service.pull_policy.clear();
    service.scale = None;
    service.depends_on.clear();
    service.profiles.clear();
    if let Some(deploy) = &mut service.deploy {
        deploy.replicas = None;
    }
    hash(
        serde_json::to_value(&service).unwrap_or_default(),
        "services",
    ) // plain data always serialises
}

/// Hashes one element of a section in the reference's JSON form.
fn hash(mut value: Value, section: &str) -> String {
    if let Some(field) = schema::PROJECT.field(section)
        && let Shape::Named(inner) | Shape::Dict(inner) = field.shape
    {
        shape(&mut value, inner, Form::Json, false);
    }
    // Go's encoder escapes what is special in HTML.
    let text = value
        .to_string()
        .replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// The configuration hash of a network, as the reference labels it.
#[must_use]
pub fn network_hash(network: &crate::model::Network) -> String {
    hash(
        serde_json::to_value(network).unwrap_or_default(),
        "networks",
    ) // plain data always serialises
}

/// The configuration hash of a volume, as the reference labels it.
#[must_use]
pub fn volume_hash(volume: &crate::model::Volume) -> String {
    let mut volume = volume.clone();
    if volume.driver.is_empty() {
        // The reference hashes the driver that the Engine would choose.
        "local".clone_into(&mut volume.driver);
    }
    // Plain data always serialises.
    hash(serde_json::to_value(volume).unwrap_or_default(), "volumes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_natural_order() {
        let mut names = [
            "b", "a10", "a2", "a", "a-b", "ab", "A", "a02", "a1b", "a1-", "1", "x-9", "x-10",
        ];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            [
                "1", "A", "a", "a-b", "a1b", "a1-", "a2", "a02", "a10", "ab", "b", "x-9", "x-10"
            ]
        );
    }
}
