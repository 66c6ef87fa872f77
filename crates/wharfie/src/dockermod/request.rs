//! What is asked for: `{"action": …}` and its fields.

use serde_json::{Map, Value};

use super::reply;

/// Containers that one request makes at most.
pub(super) const MOST_INSTANCES: u64 = 1000;
/// Seconds of grace at most.
const MOST_GRACE: u64 = 3600;

/// An action, understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// A node is to be asked again.
    Register(String),
    /// A node is to be left out.
    Unregister(String),
    /// New containers: one on some node, or so many spread over all.
    Create(Source, Option<usize>),
    /// Something is to be done with a container, given by id, prefix or name.
    On(String, Verb),
    /// What there is on this node, or on all.
    List(Listed, bool),
}

/// What a new container is made from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// A template, by name.
    Template(String),
    /// An image.
    Image(String),
    /// The whole request to the Engine.
    Raw(Map<String, Value>),
}

/// What is done with a container. Grace is in seconds; the container's own if unset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop(Option<u64>),
    Kill,
    Restart(Option<u64>),
    Delete,
    Inspect,
    Shutdown(Option<u64>),
}

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    Containers,
    Images,
}

impl Action {
    /// Understands a request; else the reply to it.
    pub(super) fn parse(request: &Map<String, Value>) -> Result<Self, Value> {
        let fields = Fields(request);
        let on = |verb| Ok(Self::On(fields.text("id")?, verb));
        match fields.text("action")?.as_str() {
            "register" => Ok(Self::Register(fields.text("hostname")?)),
            "unregister" => Ok(Self::Unregister(fields.text("hostname")?)),
            "create-container" => {
                // As in DockerMod a template counts more than an image.
                let source = match request.get("template") {
                    Some(_) => Source::Template(fields.text("template")?),
                    None => Source::Image(fields.text("image")?),
                };
                Ok(Self::Create(source, fields.instances()?))
            }
            "create-raw-container" => {
                let body = Source::Raw(fields.object("body")?);
                Ok(Self::Create(body, fields.instances()?))
            }
            "start-container" => on(Verb::Start),
            "stop-container" if fields.flag("kill")? => on(Verb::Kill),
            "stop-container" => on(Verb::Stop(fields.grace()?)),
            "restart-container" => on(Verb::Restart(fields.grace()?)),
            "delete-container" => on(Verb::Delete),
            "inspect-container" => on(Verb::Inspect),
            "shutdown-container" => on(Verb::Shutdown(fields.grace()?)),
            "list-containers" => Ok(Self::List(Listed::Containers, fields.flag("all")?)),
            "list-images" => Ok(Self::List(Listed::Images, fields.flag("all")?)),
            _ => Err(reply::no_such_action()),
        }
    }
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Result<&Value, Value> {
        let there = self.0.get(name).filter(|v| !v.is_null() && *v != "");
        there.ok_or_else(|| reply::error(format!("{name} must be specified")))
    }

    fn text(&self, name: &str) -> Result<String, Value> {
        let text = self.get(name)?.as_str().map(str::to_owned);
        text.ok_or_else(|| reply::error(format!("{name} must be a text")))
    }

    fn object(&self, name: &str) -> Result<Map<String, Value>, Value> {
        let object = self.get(name)?.as_object().cloned();
        object.ok_or_else(|| reply::error(format!("{name} must be an object")))
    }

    fn flag(&self, name: &str) -> Result<bool, Value> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(reply::error(format!("{name} must be true or false"))),
        }
    }

    fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Value> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|n| *n <= most) {
                Some(number) => Ok(Some(number)),
                None => Err(reply::error(format!(
                    "{name} must be a whole number from 0 to {most}"
                ))),
            },
        }
    }

    /// As in DockerMod none is one.
    fn instances(&self) -> Result<Option<usize>, Value> {
        let number = self.number("instances", MOST_INSTANCES)?;
        Ok(number.map(|n| usize::try_from(n.max(1)).unwrap_or(1)))
    }

    fn grace(&self) -> Result<Option<u64>, Value> {
        self.number("timeout", MOST_GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(request: Value) -> Result<Action, Value> {
        Action::parse(request.as_object().unwrap())
    }

    #[test]
    fn actions_are_understood() {
        let raw = json!({"Image": "a"}).as_object().cloned().unwrap();
        for (request, action) in [
            (
                json!({"action": "register", "hostname": "h1"}),
                Action::Register("h1".into()),
            ),
            (
                json!({"action": "unregister", "hostname": "h1"}),
                Action::Unregister("h1".into()),
            ),
            (
                json!({"action": "create-container", "template": "t", "image": "i", "instances": 2}),
                Action::Create(Source::Template("t".into()), Some(2)),
            ),
            (
                json!({"action": "create-container", "image": "i", "instances": 0}),
                Action::Create(Source::Image("i".into()), Some(1)),
            ),
            (
                json!({"action": "create-raw-container", "body": {"Image": "a"}}),
                Action::Create(Source::Raw(raw), None),
            ),
            (
                json!({"action": "stop-container", "id": "a"}),
                Action::On("a".into(), Verb::Stop(None)),
            ),
            (
                json!({"action": "stop-container", "id": "a", "timeout": 3}),
                Action::On("a".into(), Verb::Stop(Some(3))),
            ),
            (
                json!({"action": "stop-container", "id": "a", "kill": true}),
                Action::On("a".into(), Verb::Kill),
            ),
            (
                json!({"action": "list-containers"}),
                Action::List(Listed::Containers, false),
            ),
            (
                json!({"action": "list-images", "all": true}),
                Action::List(Listed::Images, true),
            ),
        ] {
            assert_eq!(parse(request.clone()), Ok(action), "{request}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let missing = |field: &str| reply::error(format!("{field} must be specified"));
        for (request, said) in [
            (json!({}), missing("action")),
            (json!({"action": null}), missing("action")),
            (json!({"action": "dance"}), reply::no_such_action()),
            (json!({"action": 3}), reply::error("action must be a text")),
            (json!({"action": "register"}), missing("hostname")),
            (json!({"action": "unregister"}), missing("hostname")),
            (json!({"action": "create-container"}), missing("image")),
            (
                json!({"action": "create-container", "template": ""}),
                missing("template"),
            ),
            (json!({"action": "create-raw-container"}), missing("body")),
            (
                json!({"action": "create-raw-container", "body": "x"}),
                reply::error("body must be an object"),
            ),
            (json!({"action": "start-container"}), missing("id")),
            (json!({"action": "stop-container"}), missing("id")),
            (json!({"action": "restart-container"}), missing("id")),
            (json!({"action": "delete-container"}), missing("id")),
            (json!({"action": "inspect-container"}), missing("id")),
            (json!({"action": "shutdown-container"}), missing("id")),
            (
                json!({"action": "start-container", "id": ""}),
                missing("id"),
            ),
            (
                json!({"action": "list-images", "all": "yes"}),
                reply::error("all must be true or false"),
            ),
            (
                json!({"action": "create-container", "image": "i", "instances": -1}),
                reply::error("instances must be a whole number from 0 to 1000"),
            ),
            (
                json!({"action": "create-container", "image": "i", "instances": 1001}),
                reply::error("instances must be a whole number from 0 to 1000"),
            ),
            (
                json!({"action": "stop-container", "id": "a", "timeout": "x"}),
                reply::error("timeout must be a whole number from 0 to 3600"),
            ),
        ] {
            assert_eq!(parse(request.clone()), Err(said), "{request}");
        }
    }
}
