//! `wharfie inspect`.

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::Value;

use super::pick;
use crate::context::Context;
use crate::control::Container;
use crate::failure::Failure;
use crate::output;

/// Shows all that the Engine knows of containers, as JSON.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie inspect web                all containers of a service\n  wharfie inspect demo-web-2         one container, by name or the beginning of its id\n  wharfie inspect web | jq '.[0].NetworkSettings.Networks'"
)]
pub(crate) struct Inspect {
    /// Also the sizes of the containers' files
    #[arg(short, long)]
    size: bool,
    /// Services, names of containers, or beginnings of their ids [default: all containers]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl Inspect {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = pick::look(context, &self.names).await?;
        let containers = match self.names.is_empty() {
            // Those of `run` too.
            true => control.containers(meant.project()).await?,
            false => in_order(meant.containers(&control).await?, &self.names),
        };
        let found = containers.iter().map(|c| {
            let control = control.at(c);
            async move { control.engine().inspect_raw(&c.id, self.size).await }
        });
        let found = try_join_all(found).await?;
        Ok(output::print(&text(&Value::Array(found))?)?)
    }
}

/// The containers in the order of the names that mean them.
fn in_order(mut containers: Vec<Container>, names: &[String]) -> Vec<Container> {
    let place = |c: &Container| {
        let means = |name: &String| {
            c.service == *name || c.name == *name || c.id.starts_with(name.as_str())
        };
        names.iter().position(means)
    };
    containers.sort_by_key(place);
    containers
}

/// JSON as `docker inspect` sets it.
fn text(value: &Value) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes, formatter,
    ))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, service: &str, name: &str, oneoff: bool) -> Container {
        Container {
            id: id.to_owned(),
            service: service.to_owned(),
            name: name.to_owned(),
            oneoff,
            ..Container::default()
        }
    }

    #[test]
    fn the_order_is_that_of_the_names() {
        let all = vec![
            container("aa11", "db", "x-db-1", false),
            container("aa22", "web", "x-web-1", false),
            container("bb33", "web", "x-web-2", false),
            container("cc44", "web", "x-web-run-1", true),
        ];
        let names = ["cc", "web", "x-db-1"].map(str::to_owned);
        let ids: Vec<String> = in_order(all, &names).into_iter().map(|c| c.id).collect();
        assert_eq!(ids, ["cc44", "aa22", "bb33", "aa11"]);
    }

    #[test]
    fn it_is_set_as_by_docker() {
        let value = serde_json::json!([{"Id": "a", "Args": [], "State": {"Pid": 1}}]);
        assert_eq!(
            text(&value).unwrap(),
            "[\n    {\n        \"Id\": \"a\",\n        \"Args\": [],\n        \"State\": {\n            \"Pid\": 1\n        }\n    }\n]\n"
        );
    }
}
