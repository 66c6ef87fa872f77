//! `x-wharfie`: Wharfie's own settings in Compose files, of a stack and of a service. The loader
//! refuses what is not known.

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

fn read(extensions: &Extensions) -> Option<Heal> {
    match extensions.get(KEY)?.get("heal")?.as_str()? {
        "always" => Some(Heal::Always),
        "never" => Some(Heal::Never),
        _ => Some(Heal::Auto),
    }
}

/// The setting of a service: its own, or the stack's.
#[must_use]
pub fn heal(project: &Project, service: &Service) -> Heal {
    let own = read(&service.extensions).or_else(|| read(&project.extensions));
    own.unwrap_or_default()
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
    fn the_services_own_counts_before_the_stacks() {
        let p = project(json!({"heal": "never"}), json!({"heal": "always"}));
        assert_eq!(heal(&p, &p.services["web"]), Heal::Always);
        assert_eq!(heal(&p, &Service::default()), Heal::Never);
        assert_eq!(heal(&Project::default(), &Service::default()), Heal::Auto);
    }
}
