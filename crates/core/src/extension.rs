//! `x-wharfie`: Wharfie's own settings in Compose files, of a stack and of a service. The loader
//! refuses what is not known.

use std::net::IpAddr;

use serde_json::Value;
use wharfie_compose::model::{Extensions, Project, Service};

/// Name of the attribute.
pub const KEY: &str = "x-wharfie";

/// What the agent does about the containers of a service (`x-wharfie.heal`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Heal {
    /// As `restart` and `deploy.restart_policy` say.
    #[default]
    Auto,
    /// Whatever ends is started again.
    Always,
    /// Nothing: they are left alone.
    Never,
}

/// What becomes of a service's local data when its node is lost (`x-wharfie.volumes`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Volumes {
    /// The service stays with it, and waits for its node.
    #[default]
    Stay,
    /// The service may start elsewhere without it.
    Fresh,
}

/// What a service does on the smaller side of a parted cluster (`x-wharfie.when-isolated`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenIsolated {
    /// It goes on.
    #[default]
    Keep,
    /// It stops.
    Stop,
}

/// Which task a client of a service's address gets (`x-wharfie.affinity`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Any, one after the other.
    #[default]
    None,
    /// The same each time, as long as the tasks are the same.
    Client,
}

/// Whether somebody wants an address of the surrounding network (`x-wharfie.address`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LanAddress {
    /// The file says nothing: the director's settings decide.
    #[default]
    Unsaid,
    /// None.
    No,
    /// One of those that there are, or these.
    Yes(Vec<IpAddr>),
    /// It says something else, which nobody understands.
    Wrong,
}

impl LanAddress {
    /// Reads `true`, `false`, or addresses with blanks or commas between them.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text.trim().to_ascii_lowercase().as_str() {
            "" => Self::Unsaid,
            "true" | "yes" | "auto" => Self::Yes(Vec::new()),
            "false" | "no" | "none" => Self::No,
            text => {
                let parts = text.split([' ', ',']);
                let parts = parts.filter(|p| !matches!(*p, "" | "true"));
                let all: Result<_, _> = parts.map(str::parse).collect();
                all.map_or(Self::Wrong, Self::Yes)
            }
        }
    }
}

fn read<'a>(extensions: &'a Extensions, setting: &str) -> Option<&'a Value> {
    extensions.get(KEY)?.get(setting)
}

/// A setting of a service: its own, or the stack's.
pub(crate) fn setting<'a>(
    project: &'a Project,
    service: &'a Service,
    setting: &str,
) -> Option<&'a Value> {
    let own = read(&service.extensions, setting);
    own.or_else(|| read(&project.extensions, setting))
}

/// What is done about the containers of a service.
#[must_use]
pub fn heal(project: &Project, service: &Service) -> Heal {
    match setting(project, service, "heal").and_then(Value::as_str) {
        Some("always") => Heal::Always,
        Some("never") => Heal::Never,
        _ => Heal::Auto,
    }
}

/// Which task a client of a service's address gets.
#[must_use]
pub fn affinity(project: &Project, service: &Service) -> Affinity {
    match setting(project, service, "affinity").and_then(Value::as_str) {
        Some("client") => Affinity::Client,
        _ => Affinity::None,
    }
}

/// Whether a service wants an address of the surrounding network.
#[must_use]
pub fn address(project: &Project, service: &Service) -> LanAddress {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match setting(project, service, "address") {
        None => LanAddress::Unsaid,
        Some(Value::Array(list)) => {
            LanAddress::read(&list.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        Some(value) => LanAddress::read(&text(value)),
    }
}

/// Whether each task of a service has an address of its own (`x-wharfie.address-per`).
#[must_use]
pub fn address_per_task(project: &Project, service: &Service) -> bool {
    let value = setting(project, service, "address-per").and_then(Value::as_str);
    value == Some("task")
}

/// Further names of a service in the delegated zone (`x-wharfie.names`).
pub fn names(service: &Service) -> impl Iterator<Item = &str> {
    let names = read(&service.extensions, "names").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str)
}

/// Who cares for a service (`x-wharfie.owner`).
#[must_use]
pub fn owner<'a>(project: &'a Project, service: &'a Service) -> Option<&'a str> {
    setting(project, service, "owner").and_then(Value::as_str)
}

/// What becomes of a service's local data when its node is lost.
#[must_use]
pub fn volumes(project: &Project, service: &Service) -> Volumes {
    match setting(project, service, "volumes").and_then(Value::as_str) {
        Some("fresh") => Volumes::Fresh,
        _ => Volumes::Stay,
    }
}

/// Whether a service runs only on the side of a parted cluster that sees most members
/// (`x-wharfie.singleton`).
#[must_use]
pub fn singleton(project: &Project, service: &Service) -> bool {
    let value = setting(project, service, "singleton").and_then(Value::as_bool);
    value.unwrap_or_default()
}

/// What a service does on the smaller side of a parted cluster.
#[must_use]
pub fn when_isolated(project: &Project, service: &Service) -> WhenIsolated {
    match setting(project, service, "when-isolated").and_then(Value::as_str) {
        Some("stop") => WhenIsolated::Stop,
        _ => WhenIsolated::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(value: serde_json::Value) -> Service {
        Service {
            extensions: [(KEY.to_owned(), value)].into(),
            ..Service::default()
        }
    }

    fn project(own: serde_json::Value, of_service: serde_json::Value) -> Project {
        Project {
            services: [("web".to_owned(), service(of_service))].into(),
            extensions: [(KEY.to_owned(), own)].into(),
            ..Project::default()
        }
    }

    #[test]
    fn an_address_is_asked_for_in_several_ways() {
        let one = |value: serde_json::Value| {
            let p = project(json!({}), json!({"address": value}));
            address(&p, &p.services["web"])
        };
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(one(json!(true)), LanAddress::Yes(Vec::new()));
        assert_eq!(one(json!(false)), LanAddress::No);
        assert_eq!(
            one(json!("10.0.0.5")),
            LanAddress::Yes(vec![at("10.0.0.5")])
        );
        let both = json!(["10.0.0.5", "fd00::5"]);
        assert_eq!(
            one(both),
            LanAddress::Yes(vec![at("10.0.0.5"), at("fd00::5")])
        );
        assert_eq!(
            LanAddress::read(" 10.0.0.5, fd00::5"),
            LanAddress::Yes(vec![at("10.0.0.5"), at("fd00::5")])
        );
        for wrong in ["10.0.0.999", "10.0.0.5 ten", "maybe"] {
            assert_eq!(LanAddress::read(wrong), LanAddress::Wrong, "{wrong}");
        }
        let p = Project::default();
        assert_eq!(address(&p, &Service::default()), LanAddress::Unsaid);
    }

    #[test]
    fn the_services_own_counts_before_the_stacks() {
        let p = project(json!({"heal": "never"}), json!({"heal": "always"}));
        assert_eq!(heal(&p, &p.services["web"]), Heal::Always);
        assert_eq!(heal(&p, &Service::default()), Heal::Never);
        assert_eq!(heal(&Project::default(), &Service::default()), Heal::Auto);

        let own = json!({"volumes": "stay", "singleton": false, "when-isolated": "keep"});
        let all = json!({"volumes": "fresh", "singleton": true, "when-isolated": "stop"});
        let p = project(all, own);
        let (web, other) = (&p.services["web"], &Service::default());
        assert_eq!(volumes(&p, web), Volumes::Stay);
        assert_eq!(volumes(&p, other), Volumes::Fresh);
        assert!(!singleton(&p, web) && singleton(&p, other));
        assert_eq!(when_isolated(&p, web), WhenIsolated::Keep);
        assert_eq!(when_isolated(&p, other), WhenIsolated::Stop);
        let p = project(json!({"affinity": "client"}), json!({"affinity": "none"}));
        assert_eq!(affinity(&p, &p.services["web"]), Affinity::None);
        assert_eq!(affinity(&p, other), Affinity::Client);
        let none = Project::default();
        assert_eq!(volumes(&none, other), Volumes::Stay);
        assert!(!singleton(&none, other));
        assert_eq!(when_isolated(&none, other), WhenIsolated::Keep);
    }
}
