//! Whose the port of the index page is: the page makes way for services and containers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wharfie_core::Stack;
use wharfie_core::heal::Millis;
use wharfie_core::report::ReportedContainer;

/// A container that had the port and was removed may be about to be made again: so long the port is left to
/// it.
const RETURN: Millis = 60_000;

/// Containers of this host that have the port, or had it.
#[derive(Debug, Default)]
pub(super) struct Users {
    port: u16,
    /// By their ids: name, and when they were there last.
    containers: BTreeMap<String, (String, Millis)>,
}

impl Users {
    /// Who else is to have a port of this host, in words; `containers` are those of this host.
    pub(super) fn of<'s>(
        &mut self,
        port: u16,
        stacks: impl IntoIterator<Item = &'s Stack>,
        containers: &[ReportedContainer],
        now: Millis,
    ) -> Option<String> {
        if self.port != port {
            *self = Self {
                port,
                ..Self::default()
            };
        }
        // Those of stacks go by what is wanted: the port is free for them before they are started.
        for container in containers.iter().filter(|c| c.revision.is_empty()) {
            let mut ports = container.ports.iter();
            let has = ports
                .any(|p| p.public == Some(port) && p.protocol == "tcp" && is_on_networks(&p.ip));
            // One that is stopped wants it back when it is started.
            if has || self.containers.contains_key(&container.id) {
                let seen = (container.name.clone(), now);
                self.containers.insert(container.id.clone(), seen);
            }
        }
        self.containers.retain(|_, (_, seen)| now - *seen < RETURN);
        let mut stacks = stacks.into_iter();
        let service = stacks.find_map(|stack| publisher(stack, port));
        let mut names = self.containers.values();
        service.or_else(|| names.next().map(|(name, _)| format!("container {name}")))
    }
}

/// The service of a stack that publishes a port. On which nodes its tasks are changes: it counts on all.
fn publisher(stack: &Stack, port: u16) -> Option<String> {
    let number = port.to_string();
    let mut active = stack.active.iter();
    let name = active.find(|name| {
        let service = stack.project.any_service(name);
        let mut ports = service.iter().flat_map(|s| &s.ports);
        ports.any(|p| {
            let tcp = matches!(p.protocol.as_str(), "" | "tcp");
            tcp && p.published == number && is_on_networks(&p.host_ip)
        })
    })?;
    Some(format!("{}/{name}", stack.project.name))
}

/// Whether a port of such an address of the host is in the page's way: one that only programs of the host
/// itself reach is not.
fn is_on_networks(address: &str) -> bool {
    !address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfie_compose::model::{Port, Project, Service};
    use wharfie_core::seen::PortBinding;

    fn container(id: &str, ip: &str, public: Option<u16>) -> ReportedContainer {
        let port = PortBinding {
            ip: ip.to_owned(),
            public,
            private: 80,
            protocol: "tcp".to_owned(),
        };
        ReportedContainer {
            id: id.to_owned(),
            name: format!("c{id}"),
            ports: vec![port],
            ..ReportedContainer::default()
        }
    }

    fn stack(published: &str, host_ip: &str) -> Stack {
        let port = Port {
            target: 8080,
            published: published.to_owned(),
            host_ip: host_ip.to_owned(),
            ..Port::default()
        };
        let web = Service {
            name: "web".to_owned(),
            ports: vec![port],
            ..Service::default()
        };
        let project = Project {
            name: "shop".to_owned(),
            services: [("web".to_owned(), web)].into_iter().collect(),
            ..Project::default()
        };
        Stack {
            project,
            active: ["web".to_owned()].into_iter().collect(),
            ..Stack::default()
        }
    }

    #[test]
    fn the_page_makes_way_for_services() {
        let mut users = Users::default();
        let mut says = |stack: &Stack| users.of(80, [stack], &[], 0);
        assert_eq!(says(&stack("80", "")).as_deref(), Some("shop/web"));
        assert_eq!(says(&stack("80", "10.0.0.1")).as_deref(), Some("shop/web"));
        for (published, host_ip) in [("8080", ""), ("", ""), ("80", "127.0.0.1")] {
            assert_eq!(says(&stack(published, host_ip)), None);
        }
    }

    #[test]
    fn a_container_keeps_its_port_over_restarts() {
        let mut users = Users::default();
        let mut says = |containers: &[ReportedContainer], now| users.of(80, [], containers, now);
        assert_eq!(says(&[container("1", "", None)], 0), None, "not published");
        assert_eq!(says(&[container("1", "127.0.0.1", Some(80))], 0), None);
        let here = says(&[container("1", "0.0.0.0", Some(80))], 0);
        assert_eq!(here.as_deref(), Some("container c1"));
        // It is stopped for long, removed, and made anew.
        let stopped = says(&[container("1", "", None)], 10 * RETURN);
        assert_eq!(stopped.as_deref(), Some("container c1"));
        assert!(says(&[], 11 * RETURN - 1).is_some());
        let new = says(&[container("2", "::", Some(80))], 11 * RETURN);
        assert_eq!(new.as_deref(), Some("container c2"));
        assert_eq!(says(&[], 12 * RETURN), None);
    }

    #[test]
    fn another_port_is_another_matter() {
        let mut users = Users::default();
        let had = [container("1", "0.0.0.0", Some(80))];
        assert!(users.of(80, [], &had, 0).is_some());
        assert_eq!(users.of(81, [], &had, 0), None);
    }
}
