//! Which containers a command means: those of services of a project, or any by their own names,
//! their ids, or what their ids begin with, wherever they are.

use crate::api::Node;
use crate::context::{Context, Target, check_services};
use crate::control::{Container, ContainerEvent, Control};
use crate::failure::{Failure, Message};

/// What the names mean that a command was given.
#[derive(Debug)]
pub(crate) struct Meant {
    /// The project; there may be none if all names are those of containers.
    target: Option<Target>,
    /// Services of the project; all are meant if nothing is named.
    pub(crate) services: Vec<String>,
    /// Containers that were named themselves.
    pub(crate) named: Vec<Container>,
}

impl Meant {
    /// The project, if services of it are meant.
    pub(crate) fn target(&self) -> Option<&Target> {
        let only_named = self.services.is_empty() && !self.named.is_empty();
        self.target.as_ref().filter(|_| !only_named)
    }

    /// Name of the project; empty if containers of any project may be meant.
    pub(crate) fn project(&self) -> &str {
        match self.target() {
            Some(target) if self.named.is_empty() => &target.name,
            _ => "",
        }
    }

    /// The containers that are meant as they are now, without those of `run` that were not named
    /// themselves.
    pub(crate) async fn containers(&self, control: &Control) -> Result<Vec<Container>, Failure> {
        let project = self.project();
        let of = Some(project).filter(|p| !p.is_empty());
        let mut containers = control.list(of, false).await?;
        containers.retain(|c| self.means(c));
        Ok(containers)
    }

    /// Whether a container is meant.
    pub(crate) fn means(&self, c: &Container) -> bool {
        self.is_named(&c.id) || (!c.oneoff && self.is_of(c.project(), &c.service))
    }

    /// Whether the container is meant that something happened to.
    pub(crate) fn concerns(&self, event: &ContainerEvent) -> bool {
        let label = |name: &str| event.attributes.get(name).map_or("", String::as_str);
        let oneoff = label(wharfie_core::labels::ONEOFF).eq_ignore_ascii_case("true");
        let project = label(wharfie_core::labels::PROJECT);
        self.is_named(&event.id) || (!oneoff && self.is_of(project, &event.service))
    }

    /// Whether a container was named itself.
    fn is_named(&self, id: &str) -> bool {
        self.named.iter().any(|n| n.id == id)
    }

    fn is_of(&self, project: &str, service: &str) -> bool {
        let known = |s: &String| s == service;
        self.target().is_some_and(|t| t.name == project)
            && (self.services.is_empty() || self.services.iter().any(known))
    }
}

/// Connects, and finds out what names mean. Without names the project is meant.
pub(crate) async fn look(context: &Context, names: &[String]) -> Result<(Control, Meant), Failure> {
    let target = context.any_target();
    let is_service = |target: &Target, name: &String| {
        let project = target.project();
        project.is_some_and(|p| p.any_service(name).is_some())
    };
    let clear = match &target {
        Ok(target) => names.iter().all(|n| is_service(target, n)),
        Err(_) => names.is_empty(),
    };
    if clear {
        let target = target?;
        let meant = Meant {
            target: Some(target),
            services: names.to_vec(),
            named: Vec::new(),
        };
        return Ok((Control::connect(context).await?, meant));
    }
    let control = match Control::connect(context).await {
        Ok(control) => control,
        Err(failure) => {
            // The files are all there is to know names by.
            if let Some(project) = target.as_ref().ok().and_then(Target::project) {
                check_services(project, names)?;
            }
            return Err(failure);
        }
    };
    let all = control.list(None, false).await?;
    let mut meant = Meant {
        target: None,
        services: Vec::new(),
        named: Vec::new(),
    };
    for name in names {
        let in_files = target.as_ref().is_ok_and(|t| is_service(t, name));
        // Without files the containers tell which services there are.
        let runs = |c: &Container| !c.oneoff && &c.service == name;
        let without = target.as_ref().ok().filter(|t| t.loaded.is_none());
        let on_engine =
            without.is_some_and(|t| all.iter().any(|c| c.project() == t.name && runs(c)));
        if in_files || on_engine {
            meant.services.push(name.clone());
            continue;
        }
        match named(&all, name)? {
            Some(container) => meant.named.push(container.clone()),
            None => {
                let project = target.as_ref().map_or("", |t| t.name.as_str());
                let away = out_of_reach(&control, project, name, None).await;
                return Err(away.unwrap_or_else(|| unknown(target, name)));
            }
        }
    }
    meant.target = target.ok();
    Ok((control, meant))
}

/// The container with a name, an id, or an id that begins so.
fn named<'c>(all: &'c [Container], name: &str) -> Result<Option<&'c Container>, Failure> {
    let called: Vec<&Container> = all.iter().filter(|c| c.name == name).collect();
    let found = match called.as_slice() {
        [] if name.is_empty() => return Ok(None),
        [] => all.iter().filter(|c| c.id.starts_with(name)).collect(),
        _ => called,
    };
    match found.as_slice() {
        [] => Ok(None),
        [container] => Ok(Some(container)),
        several => {
            let shown: Vec<String> = several
                .iter()
                .map(|c| {
                    let id = super::ps::short_id(c);
                    match c.node.as_str() {
                        "" => format!("{} ({id})", c.name),
                        node => format!("{} ({id}, on node {node})", c.name),
                    }
                })
                .collect();
            Err(Failure::usage(format!(
                "{name:?} may be any of {} containers: {}",
                several.len(),
                shown.join(", ")
            ))
            .help("write more of the id"))
        }
    }
}

/// That what is meant was, when last heard of, on a node that is away now.
async fn out_of_reach(
    control: &Control,
    project: &str,
    name: &str,
    index: Option<u32>,
) -> Option<Failure> {
    if !control.several() {
        return None;
    }
    let nodes: Vec<Node> = control.agent().get("/v1/nodes").await.ok()?;
    let (node, container) = last_seen(&nodes, project, name, index)?;
    let what = format!("container {container} is out of reach: {}", node.away());
    Some(Failure::NoEngine(Message {
        what,
        help: Some("what runs there goes on".to_owned()),
    }))
}

/// The node that is away and had a container with this name, id, or of this service; and the
/// container's name.
fn last_seen<'n>(
    nodes: &'n [Node],
    project: &str,
    name: &str,
    index: Option<u32>,
) -> Option<(&'n Node, &'n str)> {
    nodes.iter().filter(|n| !n.may_answer()).find_map(|node| {
        let mut containers = node.report.as_ref()?.containers.iter();
        let container = containers.find(|c| {
            let of_service = c.project == project && c.service == name && !c.oneoff;
            let of_service = of_service && index.is_none_or(|i| c.number == i);
            c.name == name || of_service || (!name.is_empty() && c.id.starts_with(name))
        })?;
        Some((node, container.name.as_str()))
    })
}

/// Nothing is called so.
fn unknown(target: Result<Target, Failure>, name: &str) -> Failure {
    let what = format!("no such service or container: {name}");
    match target {
        // Without a project a name can only be that of a container.
        Err(failure) if failure.text().contains("no compose file found") => {
            Failure::usage(format!("no such container: {name}")).help(format!(
                "services need a project, but {}; `wharfie ps -A` lists all containers",
                failure.text().trim_end_matches('.')
            ))
        }
        Err(failure) => failure,
        Ok(target) => match target.project() {
            None => Failure::failed(what).help(format!(
                "project {:?} has no container of such a service; `wharfie ps -A` lists all containers",
                target.name
            )),
            Some(project) => {
                let known: Vec<&str> = project.services.keys().map(String::as_str).collect();
                Failure::usage(what).help(format!(
                    "the services of project {:?} are: {}; `wharfie ps -A` lists all containers",
                    project.name,
                    known.join(", ")
                ))
            }
        },
    }
}

/// Which of the containers of a service is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// One that runs, if there is one.
    Any,
    /// One that runs.
    Running,
}

/// One container: the one that is named itself, or that with the number, or the first, of a service;
/// and the way to it.
pub(crate) async fn one(
    context: &Context,
    name: &str,
    index: Option<u32>,
    taken: Taken,
) -> Result<(Control, Container), Failure> {
    let (control, meant) = look(context, &[name.to_owned()]).await?;
    let mut containers = meant.containers(&control).await?;
    if meant.named.is_empty() {
        containers.retain(|c| index.is_none_or(|i| c.number == i));
    }
    let first = containers
        .into_iter()
        .min_by_key(|c| (!c.is_running(), c.number));
    let runs = |c: &Container| c.is_running() || taken == Taken::Any;
    match (first, meant.named.first(), index) {
        (Some(container), _, _) if runs(&container) => Ok((control.at(&container), container)),
        (_, Some(container), _) => Err(Failure::failed(format!(
            "container {} is not running",
            container.name
        ))
        .help(format!("start it with `wharfie start {name}`"))),
        (_, None, index) => {
            let away = out_of_reach(&control, meant.project(), name, index).await;
            Err(away.unwrap_or_else(|| none(name, index, taken)))
        }
    }
}

/// That a service has no such container.
pub(crate) fn none(service: &str, index: Option<u32>, taken: Taken) -> Failure {
    match (index, taken) {
        (Some(index), Taken::Running) => Failure::failed(format!(
            "service {service:?} has no running container number {index}"
        )),
        (Some(index), Taken::Any) => Failure::failed(format!(
            "service {service:?} has no container number {index}"
        )),
        (None, Taken::Running) => Failure::failed(format!("service {service:?} is not running"))
            .help(format!("start it with `wharfie up -d {service}`")),
        (None, Taken::Any) => Failure::failed(format!("service {service:?} has no container"))
            .help(format!("make one with `wharfie create {service}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, name: &str, node: &str) -> Container {
        Container {
            id: id.to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            ..Container::default()
        }
    }

    #[test]
    fn containers_are_found_by_name_id_and_prefix() {
        let all = [
            container("aa11", "x-db-1", "alpha"),
            container("aa22", "x-web-1", "alpha"),
            container("bb33", "x-web-1", "beta"),
            container("cc44", "aa", ""),
        ];
        let id = |name: &str| named(&all, name).map(|c| c.map(|c| c.id.as_str()));
        assert_eq!(id("x-db-1").unwrap(), Some("aa11"));
        assert_eq!(id("bb").unwrap(), Some("bb33"));
        assert_eq!(id("aa").unwrap(), Some("cc44"));
        assert_eq!(id("x-web").unwrap(), None);
        assert_eq!(id("").unwrap(), None);
        let text = id("x-web-1").unwrap_err().text();
        assert!(
            text.contains("on node alpha") && text.contains("(bb33, on node beta)"),
            "{text}"
        );
        assert!(id("a").unwrap_err().text().contains("any of 2 containers"));
    }

    #[test]
    fn named_containers_need_no_project() {
        let meant = Meant {
            target: None,
            services: Vec::new(),
            named: vec![container("aa11", "x", "")],
        };
        assert!(meant.means(&container("aa11", "renamed", "")));
        assert!(!meant.means(&container("aa22", "x", "")));
        assert!(meant.target().is_none() && meant.project().is_empty());
    }
}
