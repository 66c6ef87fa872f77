//! `wharfie inspect`.

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::control::{Container, Control};
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
        let target = context.target(&[])?;
        let control = Control::connect(context).await?;
        let containers = control.containers(&target.name).await?;
        let chosen = chosen(&containers, &self.names).map_err(|reason| {
            Failure::failed(reason).help("`wharfie ps -a` lists the containers of the project")
        })?;
        let found = chosen
            .iter()
            .map(|c| control.engine().inspect_raw(&c.id, self.size));
        let found = try_join_all(found).await?;
        Ok(output::print(&text(&Value::Array(found))?)?)
    }
}

/// The containers that are meant, each once, in the order of the names.
fn chosen<'c>(containers: &'c [Container], names: &[String]) -> Result<Vec<&'c Container>, String> {
    let mut chosen: Vec<&Container> = Vec::new();
    if names.is_empty() {
        chosen.extend(containers);
    }
    for name in names {
        for container in named(containers, name)? {
            if chosen.iter().all(|c| c.id != container.id) {
                chosen.push(container);
            }
        }
    }
    Ok(chosen)
}

/// The containers with a name: a service's, a container's own, or the beginning of an id.
fn named<'c>(containers: &'c [Container], name: &str) -> Result<Vec<&'c Container>, String> {
    let those = |fits: &dyn Fn(&&Container) -> bool| -> Vec<&'c Container> {
        containers.iter().filter(|c| fits(c)).collect()
    };
    let of_service = those(&|c| c.service == name && !c.oneoff);
    if !of_service.is_empty() {
        return Ok(of_service);
    }
    let by_name = those(&|c| c.name == name);
    if !by_name.is_empty() {
        return Ok(by_name);
    }
    let by_id = those(&|c| !name.is_empty() && c.id.starts_with(name));
    match by_id.len() {
        1 => Ok(by_id),
        0 => Err(format!("no container and no service is called {name:?}")),
        n => Err(format!("{n} ids begin with {name:?}: write more of it")),
    }
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
    fn names_are_services_containers_or_ids() {
        let all = [
            container("aa11", "db", "x-db-1", false),
            container("aa22", "web", "x-web-1", false),
            container("bb33", "web", "x-web-2", false),
            container("cc44", "web", "x-web-run-1", true),
        ];
        let ids = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let chosen = chosen(&all, &names)?;
            Ok::<_, String>(chosen.iter().map(|c| c.id.clone()).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[]).unwrap().len(), 4);
        assert_eq!(ids(&["web", "db"]).unwrap(), ["aa22", "bb33", "aa11"]);
        assert_eq!(ids(&["x-web-run-1"]).unwrap(), ["cc44"]);
        assert_eq!(ids(&["bb", "web"]).unwrap(), ["bb33", "aa22"]);
        assert!(ids(&["aa"]).unwrap_err().contains('2'));
        assert!(ids(&["db", "nope"]).is_err() && ids(&[""]).is_err());
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
