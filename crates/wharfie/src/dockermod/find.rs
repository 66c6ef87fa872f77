//! Which container is meant by an id, the beginning of one, or a name, wherever it is.

use serde_json::Value;

/// A container on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Index of its node.
    pub(super) node: usize,
    /// Its id.
    pub(super) id: String,
    /// Its names, with a slash before each.
    names: Vec<String>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The container.
    One(Known),
    /// Nothing.
    Nothing,
    /// More than one that may be meant.
    Several(Vec<Known>),
}

/// The containers of an Engine's list (`GET /containers/json`).
pub(super) fn known(node: usize, list: &[u8]) -> Option<Vec<Known>> {
    let list: Vec<Value> = serde_json::from_slice(list).ok()?;
    let container = |value: &Value| {
        let names = value["Names"].as_array();
        Some(Known {
            node,
            id: value["Id"].as_str()?.to_owned(),
            names: names
                .into_iter()
                .flatten()
                .filter_map(|n| n.as_str().map(str::to_owned))
                .collect(),
        })
    };
    Some(list.iter().filter_map(container).collect())
}

/// Whether a text is a whole id: then the first that has it is meant.
pub(super) fn is_whole(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The container that is meant: the one with this id, else with this name, else whose id begins so.
pub(super) fn choose(wanted: &str, containers: &[Known]) -> Found {
    let name = format!("/{}", wanted.trim_start_matches('/'));
    let rules: [&dyn Fn(&Known) -> bool; 3] =
        [&|c| c.id == wanted, &|c| c.names.contains(&name), &|c| {
            c.id.starts_with(wanted)
        }];
    for rule in rules {
        let mut fit: Vec<Known> = containers.iter().filter(|c| rule(c)).cloned().collect();
        // Two nodes may keep the same Engine.
        fit.sort_by(|a, b| (&a.id, a.node).cmp(&(&b.id, b.node)));
        fit.dedup_by(|a, b| a.id == b.id);
        match fit.len() {
            0 => {}
            1 => return Found::One(fit.remove(0)),
            _ => return Found::Several(fit),
        }
    }
    Found::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn containers() -> Vec<Known> {
        let list = |node, list: Value| known(node, list.to_string().as_bytes()).unwrap();
        let mut all = list(
            0,
            json!([
                {"Id": "abc1", "Names": ["/web"]},
                {"Id": "abd2", "Names": ["/db", "/web/db"]},
            ]),
        );
        all.extend(list(
            1,
            json!([
                {"Id": "bcd3", "Names": ["/web"]},
                {"Id": "cde4", "Names": ["/abc"]},
                {"Id": "abd2", "Names": ["/db"]},
                {"Id": "ff", "Names": null},
                {"Id": "ff01", "Names": []},
            ]),
        ));
        all
    }

    fn ids(wanted: &str) -> Vec<String> {
        match choose(wanted, &containers()) {
            Found::One(one) => vec![one.id],
            Found::Nothing => Vec::new(),
            Found::Several(several) => several.into_iter().map(|c| c.id).collect(),
        }
    }

    #[test]
    fn ids_names_and_beginnings() {
        assert_eq!(ids("abc1"), ["abc1"]);
        assert_eq!(ids("b"), ["bcd3"]);
        assert_eq!(ids("ab"), ["abc1", "abd2"]);
        assert_eq!(ids("/db"), ["abd2"], "two nodes with one Engine");
        assert_eq!(ids("web"), ["abc1", "bcd3"], "one name on two nodes");
        assert_eq!(ids("abc"), ["cde4"], "a name counts more than a beginning");
        assert_eq!(ids("ff"), ["ff"], "an id counts more than a beginning");
        assert!(ids("nope").is_empty());
    }

    #[test]
    fn whole_ids() {
        assert!(is_whole(&"0a".repeat(32)));
        assert!(!is_whole(&"0g".repeat(32)));
        assert!(!is_whole("0a"));
    }

    #[test]
    fn what_is_no_list_is_no_list() {
        assert!(known(0, br#"{"message": "x"}"#).is_none());
    }
}
