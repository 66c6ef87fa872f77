//! Has the kernel and the resolver do what follows from what is wanted and what is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, warn};
use wharfie_core::State;
use wharfie_core::network::balance::{Balanced, balance};
use wharfie_core::network::overlay::overlays;
use wharfie_core::network::{self, Catalog, MTU, Outside, VipKey, bridge_name};
use wharfie_edge::dns;
use wharfie_host::net::{
    ContainerFirewall, Endpoint, Firewall, IsolatedNetwork, Isolation, Isolator, Mac, Namespace,
    Overlay, Overlays, VXLAN_PORT, Vip, Vips,
};

use super::view::Scene;
use super::walls::{Holds, Walls, for_kernel, walls};
use crate::agent::keeper::{Keeper, now};

/// Changes come in crowds: so long is waited for the others.
const CROWD: Duration = Duration::from_millis(3);
/// How often is looked whether somebody else changed something.
const REPAIR: Duration = Duration::from_secs(10);
/// The pause after something failed.
const AGAIN: Duration = Duration::from_secs(1);
const DNS: u16 = 53;

/// The network namespace of a running container, with the addresses of services in it.
struct Inside {
    pid: u32,
    namespace: Namespace,
    vips: Vips,
    wanted: Vec<Vip>,
    wall: Option<(ContainerFirewall, Firewall)>,
}

/// What the kernel was told.
#[derive(Default)]
struct Plane {
    overlays: Option<Overlays>,
    wanted: Vec<Overlay>,
    isolator: Option<Isolator>,
    /// UDP port of the cluster.
    port: u16,
    /// What agents before this one held was let go.
    tidied: bool,
    /// The kernel has no nftables: services have no addresses of their own here.
    plain: bool,
    /// By the ids of containers.
    inside: BTreeMap<String, Inside>,
    /// What went wrong last: it is said once.
    said: BTreeSet<String>,
}

/// Keeps networks as they are to be, for ever.
pub(in crate::agent) async fn keep(keeper: Arc<Keeper>) {
    let (catalog, catalogs) = watch::channel(Arc::new(Catalog::default()));
    let server = dns::Server::new(dns::Settings::default(), catalogs);
    let port = keeper.settings.borrow().cluster.listen.port();
    let mut plane = Plane {
        port,
        ..Plane::default()
    };
    let mut repaired = tokio::time::Instant::now();
    loop {
        let mut pause = REPAIR;
        let mut scene = keeper.scene();
        if plane.plain {
            // Names lead to tasks themselves.
            let mut book = scene.book.as_ref().clone();
            book.vips.clear();
            scene.book = Arc::new(book);
        }
        let resolvers = resolvers(&scene);
        let known = asked(&resolvers);
        let walls = scene.with(|world| walls(world, &known));
        let idle = scene.book.networks.is_empty() && walls.is_empty();
        if !idle || plane.isolator.is_some() || !plane.inside.is_empty() {
            let made = scene.with(|world| Catalog::of(world, Outside::default()));
            catalog.send_replace(Arc::new(made));
            let failed = server.listen(&resolvers).await;
            for (address, error) in &failed {
                plane.say(format!("nothing can be answered at {address}: {error}"));
            }
            let pids = pids(&keeper, (&scene, &walls), &plane).await;
            let repair = repaired.elapsed() >= REPAIR;
            if repair {
                repaired = tokio::time::Instant::now();
            }
            let holds = Arc::clone(&keeper);
            let work = move || {
                let walls = (&walls, &known);
                let done = plane.apply(&scene, walls, &pids, &holds.holds, repair);
                if repair {
                    holds.holds.expire(now());
                }
                (plane, done)
            };
            let Ok((back, done)) = tokio::task::spawn_blocking(work).await else {
                return;
            };
            plane = back;
            if !done || !failed.is_empty() {
                pause = AGAIN;
            } else {
                plane.said.clear();
            }
        }
        tokio::select! {
            () = keeper.network_news.notified() => tokio::time::sleep(CROWD).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Networks of the cluster that have their bridge here.
fn bridges(scene: &Scene) -> impl Iterator<Item = (&String, &network::Network, String)> {
    let networks = scene.book.networks.iter();
    networks
        .map(|(name, n)| (name, n, bridge_name(n.vni)))
        .filter(|(_, _, bridge)| scene.bridges.contains(bridge))
}

/// Where this node's containers ask for names.
fn resolvers(scene: &Scene) -> BTreeSet<SocketAddr> {
    let Some(here) = scene.here() else {
        return BTreeSet::new();
    };
    let none = network::Claims::new();
    let each = bridges(scene).filter_map(|(name, object, _)| {
        let claims = scene.book.slices.get(name).unwrap_or(&none);
        let own = network::own(object, claims, &here.id, &BTreeSet::new())?;
        let v4 = own.gateway.v4.map(IpAddr::V4);
        v4.or(own.gateway.v6.map(IpAddr::V6))
    });
    each.map(|address| SocketAddr::new(address, DNS)).collect()
}

/// Everybody whom a container may ask for names: this node, and those that the host asks.
fn asked(own: &BTreeSet<SocketAddr>) -> BTreeSet<IpAddr> {
    let file = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let lines = file.lines().filter_map(|l| l.strip_prefix("nameserver"));
    let outside = lines.filter_map(|l| l.trim().parse().ok());
    own.iter().map(SocketAddr::ip).chain(outside).collect()
}

/// First processes of the containers whose namespaces are not known yet.
async fn pids(
    keeper: &Keeper,
    (scene, walls): (&Scene, &Walls),
    plane: &Plane,
) -> BTreeMap<String, u32> {
    let mut pids = BTreeMap::new();
    let (Some(here), Ok(engine)) = (scene.here(), keeper.engine()) else {
        return pids;
    };
    for container in here
        .containers
        .iter()
        .filter(|c| is_served(scene, walls, c))
    {
        // Made anew it is another process.
        let known = plane.inside.get(&container.id);
        let same = |i: &Inside| Namespace::of_process(i.pid).is_ok_and(|n| n.is_same(&i.namespace));
        if known.is_some_and(same) {
            continue;
        }
        let pid = match engine.inspect(&container.id).await {
            Ok(inspected) => inspected.state.and_then(|s| s.pid),
            Err(e) => {
                debug!(container = container.name, "{e}");
                None
            }
        };
        // One that has just ended has none.
        let pid = pid.and_then(|p| u32::try_from(p).ok()).filter(|p| *p > 0);
        pids.extend(pid.map(|p| (container.id.clone(), p)));
    }
    pids
}

/// Whether something is to be set up in a container's namespace.
fn is_served(scene: &Scene, walls: &Walls, container: &network::Running) -> bool {
    let on = |name: &String| scene.book.networks.contains_key(name);
    let served = container.networks.keys().any(on) || walls.contains_key(&service_of(container));
    container.state == State::Running && container.joined.is_empty() && served
}

/// A container's stack and service.
fn service_of(container: &network::Running) -> (String, String) {
    (container.stack.clone(), container.service.clone())
}

impl Plane {
    fn say(&mut self, what: String) {
        if !self.said.contains(&what) {
            warn!("{what}");
            self.said.insert(what);
        }
    }

    /// Has the kernel do what is to be; whether all could be done.
    fn apply(
        &mut self,
        scene: &Scene,
        walls: (&Walls, &BTreeSet<IpAddr>),
        pids: &BTreeMap<String, u32>,
        holds: &Holds,
        repair: bool,
    ) -> bool {
        let mut failed = Vec::new();
        if let Err(e) = self.part(scene) {
            failed.push(e.to_string());
        }
        if let Err(e) = self.span(scene, repair) {
            failed.push(e.to_string());
        }
        failed.extend(self.serve(scene, walls, pids, holds, repair));
        if !self.tidied {
            // An agent before this one may have left some.
            holds.tidy();
            self.tidied = true;
        }
        let done = failed.is_empty();
        failed.into_iter().for_each(|f| self.say(f));
        done
    }

    /// Keeps networks apart on this host.
    fn part(&mut self, scene: &Scene) -> Result<(), wharfie_host::net::Error> {
        let own = |name: &String| scene.here().and_then(|n| n.own.get(name).copied());
        let networks = bridges(scene).map(|(name, object, bridge)| {
            let pools = object.pools().filter_map(|p| p.gateway);
            let own = own(name).unwrap_or_default();
            let addresses: BTreeSet<IpAddr> = own.addresses().chain(pools).collect();
            IsolatedNetwork {
                bridge,
                gateways: addresses.into_iter().collect(),
                internal: object.internal,
            }
        });
        let isolation = Isolation {
            networks: networks.collect(),
            ports: vec![VXLAN_PORT],
            closed: vec![self.port],
            peers: scene.peers().collect(),
            underlay: None,
        };
        if isolation.networks.is_empty() {
            return match self.isolator.take() {
                Some(mut isolator) => isolator.purge(),
                None => Ok(()),
            };
        }
        let mut isolator = match self.isolator.take() {
            Some(open) => open,
            None => Isolator::open(&Namespace::here()?)?,
        };
        isolator.apply(&isolation)?;
        self.isolator = Some(isolator);
        Ok(())
    }

    /// Joins the bridges of a network on all hosts.
    fn span(&mut self, scene: &Scene, repair: bool) -> Result<(), wharfie_host::net::Error> {
        let Some(local) = scene.here().and_then(|n| n.address) else {
            return Ok(());
        };
        let remote = scene.with(overlays);
        let each = bridges(scene).filter_map(|(name, object, bridge)| {
            let overlay = remote.get(name)?;
            let mut endpoints: BTreeMap<(Mac, IpAddr), Vec<IpAddr>> = BTreeMap::new();
            for (address, at) in &overlay.remote {
                let of = endpoints.entry((Mac(at.mac.0), at.host)).or_default();
                of.push(*address);
            }
            let endpoints = endpoints.into_iter();
            let endpoints = endpoints.filter(|((_, host), _)| host.is_ipv4() == local.is_ipv4());
            Some(Overlay {
                network: name.clone(),
                vni: object.vni,
                bridge,
                mtu: u32::from(MTU),
                port: VXLAN_PORT,
                local,
                endpoints: endpoints
                    .map(|((mac, host), addresses)| Endpoint {
                        mac,
                        addresses,
                        host,
                    })
                    .collect(),
            })
        });
        let wanted: Vec<Overlay> = each.collect();
        if wanted == self.wanted && self.overlays.is_some() && !repair {
            return Ok(());
        }
        let open = match self.overlays.take() {
            Some(open) => open,
            None => Overlays::open(&Namespace::here()?)?,
        };
        let open = self.overlays.insert(open);
        self.wanted.clear();
        open.apply(&wanted)?;
        self.wanted = wanted;
        Ok(())
    }

    /// Leads services' addresses to their tasks, in the namespaces of this node's containers; what
    /// went wrong.
    fn serve(
        &mut self,
        scene: &Scene,
        (walls, resolvers): (&Walls, &BTreeSet<IpAddr>),
        pids: &BTreeMap<String, u32>,
        holds: &Holds,
        repair: bool,
    ) -> Vec<String> {
        let balanced = scene.with(balance);
        let containers = scene
            .here()
            .map(|n| n.containers.as_slice())
            .unwrap_or_default();
        let served: BTreeMap<&String, &network::Running> = containers
            .iter()
            .filter(|c| is_served(scene, walls, c))
            .map(|c| (&c.id, c))
            .collect();
        self.inside.retain(|id, _| served.contains_key(id));
        let mut failed = Vec::new();
        for (id, container) in served {
            let wall = walls.get(&service_of(container));
            let wall = wall.map(|rules| for_kernel(&container.name, rules, resolvers));
            let wanted = (vips(&balanced, container), wall);
            match self.serve_one(id, pids.get(id).copied(), wanted, repair) {
                Ok(true) => {
                    let at = container.networks.values();
                    holds.lift(at.flat_map(network::Attachment::addresses));
                }
                Ok(false) => {}
                Err(e) => {
                    self.plain |= matches!(e, wharfie_host::net::Error::NotSupported { .. });
                    self.inside.remove(id);
                    failed.push(format!("container {}: {e}", container.name));
                }
            }
        }
        failed
    }

    /// The same for one container; whether it is there.
    fn serve_one(
        &mut self,
        id: &str,
        pid: Option<u32>,
        (wanted, wall): (Vec<Vip>, Option<Firewall>),
        repair: bool,
    ) -> Result<bool, wharfie_host::net::Error> {
        if let Some(pid) = pid {
            let namespace = Namespace::of_process(pid)?;
            let known = self.inside.get(id);
            if known.is_none_or(|k| !k.namespace.is_same(&namespace)) {
                let vips = Vips::open(&namespace)?;
                let inside = Inside {
                    pid,
                    namespace,
                    vips,
                    wanted: Vec::new(),
                    wall: None,
                };
                self.inside.insert(id.to_owned(), inside);
            }
        }
        let Some(inside) = self.inside.get_mut(id) else {
            return Ok(false);
        };
        // First: what it may do comes before what it can.
        inside.wall(wall, repair)?;
        if inside.wanted != wanted || (repair && !inside.vips.is_intact()?) {
            inside.vips.apply(&wanted)?;
            inside.wanted = wanted;
        }
        Ok(true)
    }
}

impl Inside {
    fn wall(
        &mut self,
        wanted: Option<Firewall>,
        repair: bool,
    ) -> Result<(), wharfie_host::net::Error> {
        let Some(wanted) = wanted else {
            return match self.wall.take() {
                Some((mut open, _)) => open.purge(),
                None => Ok(()),
            };
        };
        let mut open = match self.wall.take() {
            Some((mut open, known)) => {
                if known == wanted && (!repair || open.is_intact()?) {
                    self.wall = Some((open, known));
                    return Ok(());
                }
                open
            }
            None => ContainerFirewall::open(&self.namespace)?,
        };
        open.apply(&wanted)?;
        self.wall = Some((open, wanted));
        Ok(())
    }
}

/// The addresses of services that a container can reach.
fn vips(balanced: &BTreeMap<VipKey, Balanced>, container: &network::Running) -> Vec<Vip> {
    let mut all = Vec::new();
    let on = |key: &VipKey| container.networks.contains_key(&key.network);
    for (_, of) in balanced.iter().filter(|(key, _)| on(key)) {
        let affinity = of.affinity != wharfie_core::extension::Affinity::None;
        let make = |address: IpAddr, backends: Vec<IpAddr>| Vip {
            address,
            ports: Vec::new(),
            backends,
            affinity,
        };
        if let Some(v4) = of.vip.v4 {
            let backends = of.backends.iter().filter_map(|b| b.v4.map(IpAddr::V4));
            all.push(make(v4.into(), backends.collect()));
        }
        if let Some(v6) = of.vip.v6 {
            let backends = of.backends.iter().filter_map(|b| b.v6.map(IpAddr::V6));
            all.push(make(v6.into(), backends.collect()));
        }
    }
    all
}
