//! Has the kernel and the resolver do what follows from what is wanted and what is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wharfie_core::State;
use wharfie_core::director::{self, Led};
use wharfie_core::network::balance::balance;
use wharfie_core::network::encrypt::Plan;
use wharfie_core::network::{self, Catalog, Outside, bridge_name};
use wharfie_core::report::NetworkFault;
use wharfie_edge::dns;
use wharfie_edge::forward::Forwards;
use wharfie_host::net::{
    Cable, ENCRYPTION_DEVICE, Error as NetError, IsolatedNetwork, Isolation, Isolator, Namespace,
    VXLAN_PORT,
};

use super::drops::heard;
use super::encrypt::{self, Cipher, Plans, Sealing};
use super::faults::{PLAIN, PLANE, Round, network_of, standing};
use super::inside::{Inside, Wanted, of_lan, vips};
use super::laps::Laps;
use super::ports::{Doors, Ports};
use super::processes::Processes;
use super::resolver;
use super::shorten::Shorten;
use super::spans::Spans;
use super::view::Scene;
use super::walls::{Holds, Walls, for_kernel, walls};
use crate::agent::keeper::{Keeper, now};

/// Changes come in crowds: so long is waited for the others.
const CROWD: Duration = Duration::from_millis(3);
/// How often is looked whether somebody else changed something.
const REPAIR: Duration = Duration::from_secs(10);
/// After its start an agent waits so long for what other nodes say.
const HEARING: Duration = Duration::from_secs(2);
/// The pause after something failed.
const AGAIN: Duration = Duration::from_secs(1);
const DNS: u16 = 53;
/// Where systemd answers for names.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// Whom it asks.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// What the kernel is to be told.
struct Look {
    scene: Scene,
    doors: Doors,
    walls: Walls,
    plans: Plans,
    sealing: Option<Sealing>,
}

/// What the kernel was told.
#[derive(Default)]
struct Plane {
    spans: Spans,
    shorten: Shorten,
    isolator: Option<(Isolator, Isolation)>,
    cipher: Cipher,
    ports: Ports,
    /// UDP port of the cluster.
    port: u16,
    /// What agents before this one held was let go.
    tidied: bool,
    /// There is a container that is to have a firewall, and whose namespace is not known yet.
    unwalled: bool,
    /// The kernel has no nftables: services have no addresses of their own here.
    plain: bool,
    /// By the ids of containers.
    inside: BTreeMap<String, Inside>,
    /// What goes wrong, as the others are told of it.
    faults: Round,
    laps: Laps,
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
    let mut forwards = Forwards::default();
    let mut processes = Processes::new();
    let begun = tokio::time::Instant::now();
    let mut repaired = tokio::time::Instant::now();
    // Whether it is written down that something of ours is in the kernel.
    let mut noted = None;
    loop {
        if plane.is_idle() && !keeper.has_networks() {
            plane = Plane {
                port,
                ..Plane::default()
            };
            keeper.set_network_faults(PLANE, BTreeSet::new());
            if noted != Some(false) && keeper.leave_nothing().await {
                noted = Some(false);
            }
            keeper.network_news.notified().await;
            continue;
        }
        if noted != Some(true) {
            keeper.note_traces().await;
            noted = Some(true);
        }
        let mut pause = REPAIR;
        plane.laps.begin();
        let mut scene = keeper.scene();
        plane.laps.lap("scene");
        let (changed, mut failed) = keeper.keep_bridges(&scene).await;
        if changed {
            scene = keeper.scene();
            // The others are told of it.
            keeper.news.send_modify(|news| news.tell());
        }
        if plane.plain {
            // Names lead to tasks themselves.
            let mut book = scene.book.as_ref().clone();
            book.vips.clear();
            scene.book = Arc::new(book);
            plane.say(PLAIN.to_owned());
        }
        standing(&scene)
            .into_iter()
            .for_each(|f| plane.faults.say(f));
        plane.laps.lap("bridges");
        let resolvers = resolvers(&scene);
        let known = asked(&resolvers);
        let walls = scene.with(|world| walls(world, &known));
        plane.laps.lap("walls");
        let made = scene.with(|world| Catalog::of(world, Outside::default()));
        catalog.send_replace(Arc::new(made));
        plane.laps.lap("names");
        let deaf = server.listen(&resolvers).await.into_iter();
        failed.extend(deaf.map(|(at, error)| format!("nothing can be answered at {at}: {error}")));
        let mut doors = Doors::of(&scene);
        failed.append(&mut doors.clashes);
        plane.laps.lap("doors");
        failed.extend(keeper.repair(&scene).await);
        let taken = forwards.set(&doors.forwards);
        failed.extend(doors.without(&taken));
        plane.laps.lap("repair");
        let plans = encrypt::plans(&scene);
        let blocked = encrypt::blocked(&plans, &scene);
        let sealing = keeper.sealing();
        pause = pause.min(keeper.turn_keys());
        let ready = failed.is_empty();
        failed.extend(blocked);
        failed.into_iter().for_each(|f| plane.say(f));
        let new = plane.unknown(&scene, &walls);
        plane.laps.lap("plans");
        let repair = repaired.elapsed() >= REPAIR;
        if repair {
            repaired = tokio::time::Instant::now();
            keeper.tidy_slices(&scene).await;
        }
        if begun.elapsed() < HEARING && scene.nodes().any(|n| !n.heard) {
            // What an agent before this one made goes on until the others have said what they have.
            tokio::select! {
                () = keeper.network_news.notified() => {}
                () = tokio::time::sleep(HEARING / 10) => {}
            }
            continue;
        }
        let look = Arc::new(Look {
            scene,
            doors,
            walls,
            plans,
            sealing,
        });
        // Those that were started again have another namespace.
        plane.inside.retain(|id, _| !new.contains(id));
        processes.ask(&keeper, new);
        let pids = processes.take();
        let Some((back, done)) = plane.work(&keeper, &look, pids, repair).await else {
            return;
        };
        plane = back;
        plane.laps.end();
        let (lasting, young) = plane.faults.end();
        keeper.set_network_faults(PLANE, lasting);
        if !done || !ready || young {
            pause = pause.min(AGAIN);
        }
        tokio::select! {
            () = keeper.network_news.notified() => tokio::time::sleep(CROWD).await,
            () = processes.come() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Networks of the cluster that have their bridge here.
pub(super) fn bridges(scene: &Scene) -> impl Iterator<Item = (&String, &network::Network, String)> {
    let networks = scene.book.networks.iter();
    networks
        .map(|(name, n)| (name, n, bridge_name(n.vni)))
        .filter(|(_, _, bridge)| scene.bridges.contains(bridge))
}

/// Where this node's containers ask for names.
pub(super) fn resolvers(scene: &Scene) -> BTreeSet<SocketAddr> {
    let Some(here) = scene.here() else {
        return BTreeSet::new();
    };
    let fixed = scene.fixed();
    let each = bridges(scene).filter_map(|(name, ..)| {
        let own = scene.book.own(name, &here.id, &fixed)?;
        resolver(&own)
    });
    each.map(|address| SocketAddr::new(address, DNS)).collect()
}

/// Everybody whom a container may ask for names: this node, and those that the host asks.
pub(super) fn asked(own: &BTreeSet<SocketAddr>) -> BTreeSet<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let outside = outside(&read("/etc/resolv.conf"), || read(BEHIND_STUB));
    own.iter().map(SocketAddr::ip).chain(outside).collect()
}

/// Those that the host asks. The Engine has containers ask those behind systemd's stub themselves,
/// which is for the host alone (systemd-resolved(8)).
fn outside(file: &str, behind: impl FnOnce() -> String) -> BTreeSet<IpAddr> {
    let mut servers = nameservers(file);
    if servers == [STUB].into() {
        servers.extend(nameservers(&behind()));
    }
    servers
}

fn nameservers(file: &str) -> BTreeSet<IpAddr> {
    let lines = file.lines().filter_map(|l| l.strip_prefix("nameserver"));
    lines.filter_map(|l| l.trim().parse().ok()).collect()
}

/// Whether something is to be set up in a container's namespace.
fn is_served(scene: &Scene, walls: &Walls, container: &network::Running) -> bool {
    let on = |name: &String| scene.book.networks.contains_key(name);
    let addressed = || {
        scene
            .director
            .addresses
            .values()
            .any(|a| a.node == scene.me)
    };
    // Without an address it is on the network of the host, or on none.
    let is_addressed = |c: &network::Running| {
        let mut at = c.networks.values();
        at.any(|a| a.addresses().next().is_some())
    };
    let served = container.networks.keys().any(on)
        || walls.contains_key(&service_of(container))
        || addressed();
    let is_own = container.joined.is_empty() && is_addressed(container);
    container.state == State::Running && is_own && served
}

/// A container's stack and service.
pub(super) fn service_of(container: &network::Running) -> (String, String) {
    (container.stack.clone(), container.service.clone())
}

impl Plane {
    /// Whether nothing of ours is in the kernel.
    fn is_idle(&self) -> bool {
        let inside = self.inside.is_empty() && self.ports.is_idle();
        self.isolator.is_none() && self.cipher.is_idle() && self.spans.is_idle() && inside
    }

    /// Containers whose namespaces are not known yet.
    fn unknown(&self, scene: &Scene, walls: &Walls) -> Vec<String> {
        let containers = scene.here().map(|n| n.containers.as_slice());
        let containers = containers.unwrap_or_default().iter();
        let known = |c: &&network::Running| self.inside.get(&c.id).is_some_and(Inside::is_alive);
        let new = containers.filter(|c| is_served(scene, walls, c) && !known(c));
        new.map(|c| c.id.clone()).collect()
    }

    /// Has the kernel do what is to be, where that may wait; whether all could be done.
    async fn work(
        mut self,
        keeper: &Arc<Keeper>,
        look: &Arc<Look>,
        pids: BTreeMap<String, u32>,
        repair: bool,
    ) -> Option<(Self, bool)> {
        let (keeper, look) = (Arc::clone(keeper), Arc::clone(look));
        let work = move || {
            let done = self.apply(&look, &pids, &keeper.holds, repair);
            let namespace = |id: &str| Some(self.inside.get(id)?.namespace.clone());
            let heard = heard(&look.scene, &look.walls, namespace);
            let failed = keeper.logged.listen(heard);
            failed.into_iter().for_each(|f| self.say(f));
            if repair {
                keeper.holds.expire(now());
            }
            (self, done)
        };
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Says that something is not as it should be, in this round.
    fn say(&mut self, what: String) {
        self.faults.say(NetworkFault {
            what,
            ..NetworkFault::default()
        });
    }

    /// Has the kernel do what is to be; whether all could be done.
    fn apply(
        &mut self,
        look: &Look,
        pids: &BTreeMap<String, u32>,
        holds: &Holds,
        repair: bool,
    ) -> bool {
        let Look { scene, doors, .. } = look;
        let (plans, sealing) = (&look.plans, look.sealing.as_ref());
        let mut failed = Vec::new();
        // First: nothing goes in clear that should not.
        let here = bridges(scene).next().is_some();
        let sealed = match here {
            true => {
                let spans = &self.spans;
                let is_used = |address: &IpAddr| spans.sends_to(*address);
                self.cipher.apply((scene, plans), is_used, sealing, repair)
            }
            false => self.cipher.purge(),
        };
        self.laps.lap("seal");
        let mut is_sealed = sealed.is_ok();
        if let Err(e) = sealed {
            failed.push(e.to_string());
        }
        if let Err(e) = self.part(scene, plans, repair) {
            // A kernel without nftables has to do without.
            is_sealed &= matches!(e, NetError::NotSupported { .. });
            failed.push(words(e));
        }
        self.laps.lap("part");
        let mut done = true;
        // Where it is not certain that nothing goes in clear, nothing new is joined.
        if is_sealed && let Err(e) = self.spans.apply(scene, repair) {
            let network = network_of(scene, &e);
            let what = e.to_string();
            self.faults.say(NetworkFault {
                what: match network.is_empty() {
                    true => what,
                    false => format!("network {network}: {what}"),
                },
                network,
                ..NetworkFault::default()
            });
            done = false;
        }
        self.laps.lap("spans");
        let led = scene.with(|world| director::beside(world, &scene.director.addresses));
        let (faulty, cables) = self.serve((scene, doors, &led), &look.walls, pids, holds, repair);
        failed.extend(faulty);
        self.laps.lap("serve");
        self.shorten
            .apply(scene, self.spans.wanted(), cables, repair);
        self.laps.lap("shorten");
        // Last: who comes by them finds the way back.
        if let Err(e) = self.ports.apply(doors, repair) {
            failed.push(words(e));
        }
        self.laps.lap("ports");
        // After all that leads new packets elsewhere.
        let there = scene.there();
        if let Err(e) = self.ports.end_flows(&led, &there, repair) {
            failed.push(words(e));
        }
        for inside in self.inside.values_mut() {
            inside.end_flows(&there, repair);
        }
        self.laps.lap("flows");
        if !self.tidied {
            // An agent before this one may have left some. Those of containers whose namespaces are not
            // known yet wait for their firewalls.
            if !self.unwalled {
                holds.tidy();
                self.tidied = true;
            }
        }
        done &= failed.is_empty();
        failed.into_iter().for_each(|f| self.say(f));
        done
    }

    /// Keeps networks apart on this host.
    fn part(&mut self, scene: &Scene, plans: &Plans, repair: bool) -> Result<(), NetError> {
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
        let is_blocked = |peer: &IpAddr| {
            let other = plans.get(peer);
            other.is_some_and(|o| matches!(o.plan, Plan::Blocked(_)))
        };
        let isolation = Isolation {
            networks: networks.collect(),
            ports: vec![VXLAN_PORT],
            closed: vec![self.port],
            peers: scene.peers().filter(|p| !is_blocked(p)).collect(),
            underlay: Some(ENCRYPTION_DEVICE.to_owned()),
            encrypted: self.cipher.sealed(),
        };
        if isolation.networks.is_empty() {
            return match self.isolator.take() {
                Some((mut isolator, _)) => isolator.purge(),
                None => Ok(()),
            };
        }
        let mut isolator = match self.isolator.take() {
            Some((open, known)) if known == isolation && !repair => {
                self.isolator = Some((open, known));
                return Ok(());
            }
            Some((open, _)) => open,
            None => Isolator::open(&Namespace::here()?)?,
        };
        isolator.apply(&isolation)?;
        self.isolator = Some((isolator, isolation));
        Ok(())
    }

    /// Leads services' addresses to their tasks, in the namespaces of this node's containers; what
    /// went wrong, and the cables of those whose namespaces are as they are to be.
    fn serve(
        &mut self,
        (scene, doors, led): (&Scene, &Doors, &[Led]),
        walls: &Walls,
        pids: &BTreeMap<String, u32>,
        holds: &Holds,
        repair: bool,
    ) -> (Vec<String>, BTreeSet<Cable>) {
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
        // The Engine may start it again at any moment, with a namespace that has no rules yet.
        let ended = containers.iter().filter(|c| c.state != State::Running);
        for container in ended.filter(|c| walls.contains_key(&service_of(c))) {
            let at = container.networks.values();
            let addresses: Vec<IpAddr> = at.flat_map(network::Attachment::addresses).collect();
            holds.hold(&addresses, now(), repair);
        }
        let (mut failed, mut cables) = (Vec::new(), BTreeSet::new());
        self.unwalled = false;
        for (id, container) in served {
            let wall = walls.get(&service_of(container));
            let wall = wall.map(|rules| for_kernel(&container.name, rules));
            let is_walled = wall.is_some();
            let mut vips = vips(&balanced, container);
            vips.extend(led.iter().filter_map(|l| of_lan(l, container)));
            let wanted = Wanted {
                vips,
                wall,
                gateways: doors.gateways(scene, container),
            };
            match self.serve_one(id, pids.get(id).copied(), wanted, repair) {
                Ok(true) => {
                    let at = container.networks.values();
                    holds.lift(at.flat_map(network::Attachment::addresses));
                    if let Some(inside) = self.inside.get_mut(id) {
                        cables.extend(inside.cables(&container.networks));
                    }
                }
                Ok(false) => self.unwalled |= is_walled,
                Err(e) => {
                    let known = self.inside.get(id);
                    let has_wall = known.is_some_and(|i| i.is_walled() && i.is_alive());
                    if !has_wall {
                        self.inside.remove(id);
                    }
                    if is_walled && !has_wall && !matches!(e, NetError::NotSupported { .. }) {
                        // Rather nothing passes than everything.
                        let at = container.networks.values();
                        let at = at.flat_map(network::Attachment::addresses);
                        holds.hold(&at.collect::<Vec<_>>(), now(), repair);
                    }
                    failed.push(match e {
                        NetError::NotSupported { .. } => {
                            self.plain = true;
                            PLAIN.to_owned()
                        }
                        e => format!("container {}: {e}", container.name),
                    });
                }
            }
        }
        (failed, cables)
    }

    /// The same for one container; whether it is there.
    fn serve_one(
        &mut self,
        id: &str,
        pid: Option<u32>,
        wanted: Wanted,
        repair: bool,
    ) -> Result<bool, NetError> {
        if let Some(pid) = pid {
            let known = self.inside.get(id);
            if known.is_none_or(|inside| !inside.is_of(pid)) {
                self.inside.insert(id.to_owned(), Inside::open(pid)?);
            }
        }
        let Some(inside) = self.inside.get_mut(id) else {
            return Ok(false);
        };
        inside.apply(wanted, repair)?;
        Ok(true)
    }
}

/// What is said of a failure.
fn words(error: NetError) -> String {
    match error {
        NetError::NotSupported { .. } => PLAIN.to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_behind_the_stub_are_asked_as_well() {
        let all = |text: &str| -> BTreeSet<IpAddr> {
            let each = text.split_whitespace();
            each.map(|a| a.parse().unwrap()).collect()
        };
        let behind = || "# by systemd\nnameserver 10.0.0.2\nnameserver fd00::2\n".to_owned();
        let of = |file: &str| outside(file, behind);
        assert_eq!(
            of("nameserver 127.0.0.53\noptions edns0\n"),
            all("127.0.0.53 10.0.0.2 fd00::2")
        );
        assert_eq!(of("nameserver 10.0.0.1\nsearch a.b\n"), all("10.0.0.1"));
        assert_eq!(
            of("nameserver 127.0.0.53\nnameserver 10.0.0.1\n"),
            all("127.0.0.53 10.0.0.1")
        );
    }
}
