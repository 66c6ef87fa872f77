//! A small cluster to look at: nodes, stacks and containers with addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use wharfie_compose::model::{Deploy, Network as Wanted, Project, Service, ServiceNetwork};
use wharfie_core::network::{
    Answer, Attachment, Catalog, Data, Kind, Local, Mac, Network, Networks, Node, Outside, Pool,
    Running, Vip, VipKey, Vips, World,
};
use wharfie_core::{Health, Stack, State};

/// Everything that a [`World`] borrows. The first node is the one that looks.
#[derive(Default)]
pub(crate) struct Small {
    pub(crate) nodes: Vec<Node>,
    pub(crate) stacks: Vec<Stack>,
    pub(crate) networks: Networks,
    pub(crate) vips: Vips,
    pub(crate) local: BTreeMap<String, Local>,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) fn network(subnet: &str, vni: u32) -> Network {
    Network {
        vni,
        v4: Some(Pool::chosen(subnet.parse().unwrap())),
        ..Network::default()
    }
}

/// A stack whose services are on networks `stack_key`: `("web", &["front", "back"])`.
pub(crate) fn stack(name: &str, services: &[(&str, &[&str])]) -> Stack {
    let mut project = Project {
        name: name.to_owned(),
        ..Project::default()
    };
    for (service, networks) in services {
        for key in *networks {
            let network = Wanted {
                name: match key.strip_prefix('=') {
                    Some(shared) => shared.to_owned(),
                    None => format!("{name}_{key}"),
                },
                ..Wanted::default()
            };
            project.networks.insert((*key).to_owned(), network);
        }
        let networks = networks.iter().map(|k| ((*k).to_owned(), None)).collect();
        let definition = Service {
            name: (*service).to_owned(),
            networks,
            ..Service::default()
        };
        project.services.insert((*service).to_owned(), definition);
    }
    Stack {
        active: project.services.keys().cloned().collect(),
        project,
        ..Stack::default()
    }
}

impl Small {
    /// Nodes that are called so, live, with addresses 192.168.0.1 and following.
    pub(crate) fn nodes(names: &[&str]) -> Self {
        let nodes = (1..).zip(names).map(|(i, name)| Node {
            id: format!("id-{name}"),
            name: (*name).to_owned(),
            address: Some(Ipv4Addr::new(192, 168, 0, i).into()),
            live: true,
            ..Node::default()
        });
        Self {
            nodes: nodes.collect(),
            ..Self::default()
        }
    }

    pub(crate) fn service(&mut self, stack: &str, service: &str) -> &mut Service {
        let stack = self.stacks.iter_mut().find(|s| s.project.name == stack);
        stack.unwrap().project.services.get_mut(service).unwrap()
    }

    pub(crate) fn dnsrr(&mut self, stack: &str, service: &str) {
        let deploy = Deploy {
            endpoint_mode: "dnsrr".to_owned(),
            ..Deploy::default()
        };
        self.service(stack, service).deploy = Some(deploy);
    }

    pub(crate) fn attach(&mut self, stack: &str, service: &str, key: &str, to: ServiceNetwork) {
        let networks = &mut self.service(stack, service).networks;
        networks.insert(key.to_owned(), Some(to));
    }

    pub(crate) fn vip(&mut self, network: &str, stack: &str, service: &str, address: &str) {
        let key = VipKey {
            network: network.to_owned(),
            stack: stack.to_owned(),
            service: service.to_owned(),
        };
        let vip = Vip {
            v4: Some(v4(address)),
            ..Vip::default()
        };
        self.vips.insert(key, vip);
    }

    /// A container of task `stack/service/number` on a node, healthy or without a health check.
    pub(crate) fn runs(&mut self, node: &str, task: &str, at: &[(&str, &str)]) -> &mut Running {
        let parts: Vec<&str> = task.split('/').collect();
        let (stack, service, number) = match parts[..] {
            [stack, service, number] => (stack, service, number.parse().unwrap()),
            _ => ("", "", 0),
        };
        let networks: BTreeMap<String, Attachment> = at
            .iter()
            .map(|(network, address)| {
                let address = v4(address);
                let [_, a, b, c] = address.octets();
                let attachment = Attachment {
                    v4: Some(address),
                    v6: None,
                    mac: Some(Mac([2, 0, 0, a, b, c])),
                };
                ((*network).to_owned(), attachment)
            })
            .collect();
        let name = task.replace('/', "-");
        let container = Running {
            id: format!("{name:x<64}"),
            name,
            stack: stack.to_owned(),
            service: service.to_owned(),
            number,
            state: State::Running,
            health: Health::None,
            networks,
            ..Running::default()
        };
        let node = self.nodes.iter_mut().find(|n| n.name == node).unwrap();
        node.containers.push(container);
        node.containers.last_mut().unwrap()
    }

    pub(crate) fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|n| n.name == name).unwrap()
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        let stacks: Vec<&Stack> = self.stacks.iter().collect();
        look(&World {
            me: self.nodes.first().map_or("", |n| &n.id),
            nodes: &self.nodes,
            stacks: &stacks,
            networks: &self.networks,
            vips: &self.vips,
            local: &self.local,
        })
    }

    pub(crate) fn catalog(&self) -> Catalog {
        self.look(|w| Catalog::of(w, Outside::default()))
    }

    pub(crate) fn ask(&self, from: &str, name: &str, kind: Kind) -> Answer {
        let catalog = self.catalog();
        let asker = catalog.asker(ip(from)).expect("the asker is on a network");
        catalog.lookup(&asker, name, kind, 0)
    }

    /// IPv4 addresses that somebody finds by a name, in order; or what else is answered.
    pub(crate) fn finds(&self, from: &str, name: &str) -> Result<Vec<String>, Answer> {
        match self.ask(from, name, Kind::A) {
            Answer::Found { records, .. } => {
                let mut found: Vec<Ipv4Addr> = records
                    .into_iter()
                    .map(|r| match r {
                        Data::A(a) => a,
                        other => panic!("{other:?} is no IPv4 address"),
                    })
                    .collect();
                found.sort();
                Ok(found.into_iter().map(|a| a.to_string()).collect())
            }
            other => Err(other),
        }
    }
}
