//! DockerMod's configuration, key by key: what becomes a setting of the agent, and what is not
//! needed any more, and why.

use serde::Serialize;
use serde_json::{Map, Value};

/// DockerMod's own port.
const PORT: u64 = 8080;
/// The service of DockerMod that spoke HTTP.
const HTTP: &str = "HttpService";

/// What becomes of a key, or of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// The key; `templates/NAME` for a template.
    pub(crate) key: String,
    /// In one word.
    pub(crate) becomes: Becomes,
    /// In full.
    pub(crate) what: String,
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Becomes {
    /// A setting of the agent.
    Setting,
    /// A template.
    Template,
    /// Something that the user has to do.
    ByHand,
    /// Nothing: Wharfie does without.
    NotNeeded,
    /// Nothing: DockerMod did not know it either.
    Unknown,
}

impl Becomes {
    /// As it is shown.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::Template => "template",
            Self::ByHand => "by hand",
            Self::NotNeeded => "not needed",
            Self::Unknown => "unknown",
        }
    }
}

/// What becomes of a configuration: of each key, and where the protocol is to be spoken.
pub(crate) fn outcomes(conf: &Map<String, Value>) -> (Vec<Outcome>, Option<String>) {
    let services = conf.get("services").and_then(Value::as_array);
    let http = services
        .into_iter()
        .flatten()
        .any(|s| s.as_str().is_some_and(|s| s.ends_with(HTTP)));
    let port = conf.get("restServicePort").unwrap_or(&Value::Null);
    let port = match port {
        Value::Null => Ok(PORT),
        value => value
            .as_u64()
            .filter(|p| (1..=65535).contains(p))
            .ok_or(value),
    };
    let listen = match port {
        Ok(port) if http => Some(format!("127.0.0.1:{port}")),
        _ => None,
    };
    let outcomes = conf.iter().map(|(key, value)| {
        let (becomes, what) = match key.as_str() {
            "services" => service(listen.as_deref(), http),
            "restServicePort" => rest_port(listen.as_deref(), &port),
            other => plain(other, value),
        };
        Outcome {
            key: key.clone(),
            becomes,
            what,
        }
    });
    (outcomes.collect(), listen)
}

fn service(listen: Option<&str>, http: bool) -> (Becomes, String) {
    match listen {
        Some(listen) => (
            Becomes::Setting,
            format!(
                "its {HTTP} is `dockermod-listen = \"{listen}\"`; DockerMod let in everybody who could reach it: for other hosts set `dockermod-listen = \"0.0.0.0:…\"` and a `dockermod-token`"
            ),
        ),
        None if http => (
            Becomes::ByHand,
            "set `dockermod-listen` to a port: `restServicePort` is none".to_owned(),
        ),
        None => (
            Becomes::NotNeeded,
            format!("without {HTTP} nothing listened, and nothing will"),
        ),
    }
}

fn rest_port(listen: Option<&str>, port: &Result<u64, &Value>) -> (Becomes, String) {
    match (listen, port) {
        (Some(listen), _) => (
            Becomes::Setting,
            format!("the port of `dockermod-listen = \"{listen}\"`"),
        ),
        (None, Err(value)) => (Becomes::ByHand, format!("{value} is no port")),
        (None, Ok(_)) => (
            Becomes::NotNeeded,
            format!("`services` has no {HTTP}, which used it"),
        ),
    }
}

fn plain(key: &str, value: &Value) -> (Becomes, String) {
    let local = |v: &Value| matches!(v.as_str(), Some("localhost" | "127.0.0.1" | "::1"));
    match key {
        "dockerHost" if !local(value) => (
            Becomes::ByHand,
            format!(
                "an agent keeps the Engine of its own host, by its socket: run one on {value} (`wharfie install`) and join it (`wharfie join`)"
            ),
        ),
        "hostname" => (
            Becomes::ByHand,
            format!(
                "`dockerInstance` is the node's name: call the node {value} if something relies on it"
            ),
        ),
        _ => match not_needed(key) {
            Some(why) => (Becomes::NotNeeded, why.to_owned()),
            None => (
                Becomes::Unknown,
                "DockerMod does not know it either".to_owned(),
            ),
        },
    }
}

/// Why Wharfie does without.
fn not_needed(key: &str) -> Option<&'static str> {
    Some(match key {
        "main" => "there is one program",
        "dockerHost" | "dockerPort" => {
            "the agent uses the Engine's socket; if nothing else needs the Engine's TCP port, close it: whoever reaches it is root"
        }
        "clusterAddress" => "nodes join with `wharfie token` and `wharfie join`, and trust by key",
        "announceInterval" | "registerConsumer" => "nodes notice each other, and each other's end",
        "trackingServiceInterval" => "containers are seen by the Engine's events, at once",
        "taskTimeout" => "nodes have 2.5 s to answer; those known to be down are not asked",
        "newContainerTimeout" => "nodes have 15 s to make a container",
        _ => return None,
    })
}

/// JSON without comments, which DockerMod's parser took: `//` and `/* */`. Places stay the same.
pub(crate) fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let mut in_text = false;
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('\\', Some(_)) if in_text => {
                plain.push(c);
                plain.extend(rest.next());
            }
            ('"', _) => {
                in_text = !in_text;
                plain.push(c);
            }
            ('/', Some('/')) if !in_text => {
                plain.push(' ');
                while let Some(c) = rest.next_if(|c| *c != '\n') {
                    plain.push(blank(c));
                }
            }
            ('/', Some('*')) if !in_text => {
                plain.push(' ');
                let mut last = ' ';
                let mut seen = 0;
                for c in rest.by_ref() {
                    plain.push(blank(c));
                    seen += 1;
                    // The star that opens it does not close it.
                    if last == '*' && c == '/' && seen > 2 {
                        break;
                    }
                    last = c;
                }
            }
            _ => plain.push(c),
        }
    }
    plain
}

fn blank(c: char) -> char {
    if c == '\n' { c } else { ' ' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcomes_of(conf: Value) -> (Vec<(String, Becomes, String)>, Option<String>) {
        let (outcomes, listen) = outcomes(conf.as_object().unwrap());
        let parts = outcomes.into_iter().map(|o| (o.key, o.becomes, o.what));
        (parts.collect(), listen)
    }

    #[test]
    fn every_key_of_dockermod_has_its_outcome() {
        let conf = json!({
            "main": "com.deblox.docker.DockerMod",
            "services": ["x.ContainerTrackingService", "x.HttpService"],
            "clusterAddress": "deblox", "dockerHost": "localhost", "dockerPort": 5555,
            "announceInterval": 1250, "trackingServiceInterval": 10000, "taskTimeout": 2500,
            "newContainerTimeout": 15000, "hostname": "h9", "restServicePort": 9090,
            "registerConsumer": true, "colour": "red",
        });
        let (found, listen) = outcomes_of(conf);
        assert_eq!(listen.as_deref(), Some("127.0.0.1:9090"));
        let short: Vec<(&str, Becomes)> = found.iter().map(|(k, b, _)| (k.as_str(), *b)).collect();
        let expected = [
            ("main", Becomes::NotNeeded),
            ("services", Becomes::Setting),
            ("clusterAddress", Becomes::NotNeeded),
            ("dockerHost", Becomes::NotNeeded),
            ("dockerPort", Becomes::NotNeeded),
            ("announceInterval", Becomes::NotNeeded),
            ("trackingServiceInterval", Becomes::NotNeeded),
            ("taskTimeout", Becomes::NotNeeded),
            ("newContainerTimeout", Becomes::NotNeeded),
            ("hostname", Becomes::ByHand),
            ("restServicePort", Becomes::Setting),
            ("registerConsumer", Becomes::NotNeeded),
            ("colour", Becomes::Unknown),
        ];
        assert_eq!(short, expected);
    }

    #[test]
    fn without_its_http_service_nothing_listens() {
        assert_eq!(outcomes_of(json!({"restServicePort": 1})).1, None);
        let (found, listen) = outcomes_of(json!({"services": ["a.HttpService"]}));
        assert_eq!(listen.as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(found[0].1, Becomes::Setting);
        let bad = json!({"services": ["a.HttpService"], "restServicePort": "x"});
        let (found, listen) = outcomes_of(bad);
        assert_eq!(listen, None);
        assert_eq!((found[0].1, found[1].1), (Becomes::ByHand, Becomes::ByHand));
        let elsewhere = outcomes_of(json!({"dockerHost": "h2"})).0;
        assert_eq!(elsewhere[0].1, Becomes::ByHand);
    }

    #[test]
    fn comments_go_and_places_stay() {
        let text = "// one\n{\"a\": \"// no \\\" /*\", /* two\n// */ \"b\": 1} /*/ x */";
        let plain = without_comments(text);
        assert_eq!(plain.len(), text.len());
        assert_eq!(plain.lines().count(), text.lines().count());
        let value: Value = serde_json::from_str(&plain).unwrap();
        assert_eq!(value, json!({"a": "// no \" /*", "b": 1}));
    }
}
