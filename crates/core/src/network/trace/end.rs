//! Who is meant by what was typed: a container, a service, a node, or somebody outside.

use std::net::IpAddr;

use crate::network::names::{Answer, Catalog, Data, Kind, Outside};
use crate::network::{Node, Running, VipKey, World};
use crate::seen::{Health, State};

/// A container and the node that it is on.
pub(super) type Place<'a> = (&'a Node, &'a Running);

/// One end of a way.
#[derive(Debug, Clone)]
pub(super) enum End<'a> {
    /// A container; whether its service was named, so that another of its tasks would do as well.
    Container(Place<'a>, bool),
    /// The address of a service.
    Service(VipKey),
    /// A host.
    Host(&'a Node),
    /// An address that nobody of the cluster has.
    Outside(IpAddr),
}

/// The end that a word means. `asker` is the other end, if that is known: its stack goes first, and
/// names are what they are for it. `outside` are the addresses that the hosts' resolvers know.
pub(super) fn end<'a>(
    world: &World<'a>,
    word: &str,
    asker: Option<&End<'a>>,
    outside: &[IpAddr],
) -> Option<End<'a>> {
    let place = match asker {
        Some(End::Container(place, _)) => Some(*place),
        _ => None,
    };
    if word == "host" {
        let own = match asker {
            Some(End::Container((node, _), _)) => Some(*node),
            Some(End::Host(node)) => Some(*node),
            _ => None,
        };
        let me = || world.nodes.iter().find(|n| n.id == world.me);
        return own.or_else(me).map(End::Host);
    }
    if let Ok(address) = word.parse() {
        return Some(of_address(world, address, place));
    }
    let stack = place.map_or("", |(_, c)| c.stack.as_str());
    if let Some((place, of_service)) = container(world, word, stack) {
        return Some(End::Container(place, of_service));
    }
    if let Some(node) = world.nodes.iter().find(|n| n.name == word) {
        return Some(End::Host(node));
    }
    let known = place.and_then(|place| answered(world, place, word));
    if let Some(address) = known.and_then(|a| a.first().copied()) {
        return Some(of_address(world, address, place));
    }
    outside.first().map(|a| End::Outside(*a))
}

/// Whose address it is. On networks of one node only its own containers are meant.
fn of_address<'a>(world: &World<'a>, address: IpAddr, asker: Option<Place<'a>>) -> End<'a> {
    let has = |vip: &crate::network::Vip| vip.addresses().any(|a| a == address);
    if let Some((key, _)) = world.vips.iter().find(|(_, vip)| has(vip)) {
        return End::Service(key.clone());
    }
    let near = |node: &Node| match asker {
        Some((own, _)) => own.id == node.id,
        None => node.id == world.me,
    };
    for node in world.nodes {
        for container in &node.containers {
            let at = container.networks.iter();
            let shared = |name: &String| near(node) || world.networks.contains_key(name);
            let mut at = at.filter(|(name, _)| shared(name));
            if at.any(|(_, a)| a.addresses().any(|a| a == address)) {
                return End::Container((node, container), false);
            }
        }
        let mut own = node.own.values().flat_map(|a| a.addresses());
        if node.address == Some(address) || own.any(|a| a == address) {
            return End::Host(node);
        }
    }
    match asker {
        // The gateway that a network's file says: every node has it for its own containers.
        Some((node, _)) if is_gateway(world, address) => End::Host(node),
        _ => End::Outside(address),
    }
}

fn is_gateway(world: &World, address: IpAddr) -> bool {
    let pools = world.networks.values().flat_map(|n| n.pools());
    let mut gateways = pools.filter_map(|p| p.gateway);
    gateways.any(|g| g == address)
}

/// What a container is answered when it asks for a name; nothing if it does not ask this node's kind.
pub(super) fn answered(world: &World, (node, asker): Place, word: &str) -> Option<Vec<IpAddr>> {
    // It asks the node that it is on.
    let there = World {
        me: &node.id,
        ..*world
    };
    let catalog = Catalog::of(&there, Outside::default());
    let mut addresses = asker.networks.values().flat_map(|a| a.addresses());
    let asker = addresses.find_map(|a| catalog.asker(a))?;
    let name = match word.split_once('/') {
        // As it would be asked for.
        Some((stack, rest)) => match rest.split_once('/') {
            Some((service, number)) => format!("{number}.{service}.{stack}"),
            None => format!("{rest}.{stack}"),
        },
        None => word.to_owned(),
    };
    match catalog.lookup(&asker, &name.to_lowercase(), Kind::Any, 0) {
        Answer::Found { records, .. } => {
            let each = records.into_iter().filter_map(|r| match r {
                Data::A(a) => Some(a.into()),
                Data::Aaaa(a) => Some(a.into()),
                _ => None,
            });
            Some(each.collect())
        }
        Answer::Nothing => Some(Vec::new()),
        Answer::NoName | Answer::Elsewhere => None,
    }
}

/// Whether a container is one that is meant.
type Test<'a> = &'a dyn Fn(&Running) -> bool;

/// The container that a word means, those that run first, and whether it names a service.
fn container<'a>(world: &World<'a>, word: &str, stack: &str) -> Option<(Place<'a>, bool)> {
    let all = || {
        let each = world.nodes.iter();
        each.flat_map(|n| n.containers.iter().map(move |c| (n, c)))
    };
    let by = |is: Test| -> Vec<Place<'a>> {
        let mut found: Vec<Place> = all().filter(|(_, c)| is(c)).collect();
        found.sort_by_key(|(n, c)| {
            let other = c.stack != stack;
            let runs = c.state == State::Running && n.live;
            let well = matches!(c.health, Health::None | Health::Healthy);
            (other, !runs, !well, c.number, c.id.as_str())
        });
        found
    };
    let parts: Vec<&str> = word.split('/').collect();
    let tries: [(Test, bool); 5] = [
        (&|c| c.name == word, false),
        (&|c| word.len() >= 12 && c.id.starts_with(word), false),
        (
            &|c| match parts[..] {
                [stack, service, number] => {
                    let own = c.stack == stack && c.service == service;
                    own && !c.oneoff && number.parse() == Ok(c.number)
                }
                // Of the asker's own stack, or of whichever there is.
                [service, number] => {
                    !c.oneoff && c.service == service && number.parse() == Ok(c.number)
                }
                _ => false,
            },
            false,
        ),
        (
            &|c| !c.oneoff && parts[..] == [c.stack.as_str(), c.service.as_str()],
            true,
        ),
        (&|c| !c.oneoff && c.service == word, true),
    ];
    let mut found = tries
        .iter()
        .filter_map(|(is, service)| Some((*by(is).first()?, *service)));
    found.next().or_else(|| {
        Some((
            *by(&|c| word.len() >= 4 && c.id.starts_with(word)).first()?,
            false,
        ))
    })
}

/// The container whose namespace a container is in: its own, or the one it joined.
pub(super) fn seat((node, container): Place<'_>) -> Place<'_> {
    // The Engine lets nobody join who has joined another: one step is enough.
    let joined = |c: &&Running| !container.joined.is_empty() && c.id == container.joined;
    let other = node.containers.iter().find(joined);
    (node, other.unwrap_or(container))
}

/// Whether a container is on the host's own network (`network_mode: host`).
pub(super) fn is_hosts(container: &Running) -> bool {
    container.networks.contains_key("host")
}

/// What a container is called.
pub(super) fn called((node, container): Place) -> String {
    format!("{} on {}", task(container), node.name)
}

/// The same without its node.
pub(super) fn task(container: &Running) -> String {
    match container.service.is_empty() || container.oneoff {
        true => container.name.clone(),
        false => format!(
            "{}/{}/{}",
            container.stack, container.service, container.number
        ),
    }
}
