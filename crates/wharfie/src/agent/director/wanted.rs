//! What is to be in the kernel: the addresses that this node holds, and all that is needed for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use wharfie_core::director::{Director, Led, Stand, beside, lead};
use wharfie_core::network::World;
use wharfie_core::schedule::{self, Standing, Tasks};
use wharfie_host::net::{Mac, Redirected, Redirecting};

use super::around::Known;
use super::decide::{self, Nodes};
use crate::agent::keeper::Keeper;
use crate::agent::world::{Side, View};
use crate::agent::{networks, world};

/// What is to be.
pub(super) struct Wanted {
    /// Id of this node.
    pub(super) me: String,
    /// How sure it is of what it holds.
    pub(super) stand: Stand,
    /// Addresses that this node holds.
    pub(super) led: Vec<Led>,
    /// Others, whose tasks it reaches all the same: who did not hear of a move gets there too.
    passed: Vec<Led>,
    /// Those that may be somebody else's: no other node held them just before.
    pub(super) new: BTreeSet<IpAddr>,
    /// Other nodes that held them just before.
    pub(super) from: BTreeMap<IpAddr, String>,
    /// How long those stay without an agent that do not stay for ever.
    pub(super) lasting: BTreeMap<IpAddr, Duration>,
    subnets: BTreeSet<String>,
    /// The other nodes by the hardware addresses of their devices.
    pub(super) hardware: BTreeMap<Mac, Known>,
    /// Devices that may have addresses.
    pub(super) devices: BTreeSet<String>,
    /// Devices by which something is reached, and the one that was said.
    pub(super) links: BTreeSet<String>,
    /// The device that was said.
    pub(super) device: Option<String>,
    /// The nodes that answer.
    pub(super) nodes: Nodes,
    /// Some of them do so since a moment only.
    pub(super) unsettled: bool,
}

impl Wanted {
    /// What is led on.
    pub(super) fn redirecting(&self) -> Redirecting {
        Redirecting {
            addresses: self
                .led
                .iter()
                .chain(&self.passed)
                .map(redirected)
                .collect(),
            subnets: self.subnets.iter().filter_map(|s| s.parse().ok()).collect(),
            no_way_back: Vec::new(),
        }
    }
}

fn redirected(led: &Led) -> Redirected {
    Redirected {
        address: led.address,
        tasks: led.tasks.clone(),
        here: led.here,
    }
}

impl Keeper {
    /// What this node is to hold. Which of it others would take over is looked at now and then, and
    /// otherwise known from the last time.
    pub(super) fn led_here(&self, director: &Director, last: &mut Lasting) -> Wanted {
        let book = self.book.director();
        let scene = self.scene();
        // What runs on a node that is back may be what ran there before: it is about to end, or has.
        let back = self.back();
        let (led, mut passed) = scene.with(|world| {
            let nodes = decide::back_last(world.nodes, &back);
            let world = World {
                nodes: &nodes,
                ..*world
            };
            let led = lead(&world, &book.addresses);
            (led, beside(&world, &book.addresses))
        });
        passed.retain(|p| led.iter().all(|l| l.address != p.address));
        let me = self.fleet.id();
        let given = book.addresses.values();
        let holders = given.flat_map(|a| a.all().map(|ip| (ip, a.node.clone())));
        let holders: BTreeMap<IpAddr, String> = holders.collect();
        let mut seen = self.around.holders();
        let new = seen.note(holders, &me);
        let from = |led: &Led| Some((led.address, seen.of(&led.address, &me)?.to_owned()));
        let from = led.iter().filter_map(from).collect();
        drop(seen);
        // Containers on this host: what comes from beside them goes back by way of the host.
        let containers = scene.here().into_iter().flat_map(|n| &n.containers);
        let of: BTreeSet<IpAddr> = containers
            .flat_map(|c| c.networks.values())
            .flat_map(wharfie_core::network::Attachment::addresses)
            .collect();
        let mut routes = networks::routes();
        // The default route leads everywhere.
        routes.retain(|(to, _)| to.prefix() > 0);
        let mut subnets: BTreeSet<String> = BTreeSet::new();
        for (to, device) in &routes {
            if *device != director.device && of.iter().any(|a| to.contains(*a)) {
                subnets.insert(to.to_string());
            }
        }
        for object in scene.book.networks.values() {
            subnets.extend(object.pools().map(|p| p.subnet.to_string()));
        }
        let device = director.device_of(&self.fleet.me().name).map(str::to_owned);
        let links = routes.iter().map(|(_, device)| device);
        let links = links.chain(&device).cloned().collect();
        let near = routes.into_iter();
        let near = near.filter(|(to, _)| director.ranges.iter().any(|r| r.range.overlaps(to)));
        let devices = device.iter().cloned().chain(near.map(|(_, device)| device));
        let live = scene.nodes().filter(|n| n.live).map(|n| n.id.clone());
        let names = scene.nodes().filter(|n| n.id != me);
        let names: Vec<String> = names.map(|n| n.name.clone()).collect();
        Wanted {
            stand: self.stand(),
            unsettled: !back.is_empty(),
            lasting: last.of(self, &me, &led, director, &names),
            led,
            passed,
            devices: devices.collect(),
            links,
            new,
            from,
            subnets,
            hardware: self.hardware(),
            device,
            nodes: Nodes {
                live: live.collect(),
                count: scene.nodes().count(),
            },
            me,
        }
    }

    /// Whether those who are left without this node are too few to decide.
    fn is_needed(&self) -> bool {
        let members = self.fleet.remaining();
        View::side_of(&members, |n| !n.me && n.may_answer()) == Side::Smaller
    }

    /// Where the tasks of stacks would be if this node were gone.
    fn without_me(&self, names: BTreeSet<&str>, me: &str) -> BTreeMap<String, Tasks> {
        let mut view = self.view();
        for place in view.places.iter_mut().filter(|p| p.id == me) {
            place.standing = Standing::Gone("has no agent".to_owned());
        }
        let stacks = self.book.stacks();
        let cluster = view.cluster(&stacks);
        let placed = |name: &str| {
            let entry = stacks.get(name)?;
            let mut running = view.running(name);
            for tasks in running.values_mut() {
                tasks.retain(|_, node| node != me);
            }
            let current = world::tasks(&entry.assignments);
            Some(schedule::place(&entry.stack, &current, &running, &cluster).tasks)
        };
        let each = names.into_iter();
        each.map(|name| (name.to_owned(), placed(name).unwrap_or_default()))
            .collect()
    }
}

/// Where tasks would be if this node were gone, by stack, as was looked last.
#[derive(Debug, Default)]
pub(super) struct Lasting(BTreeMap<String, Tasks>);

impl Lasting {
    /// It is to be looked at again.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    fn of(
        &mut self,
        keeper: &Keeper,
        me: &str,
        led: &[Led],
        director: &Director,
        others: &[String],
    ) -> BTreeMap<IpAddr, Duration> {
        // Where the others may not decide without this node, they take nothing over.
        if others.is_empty() || keeper.is_needed() {
            return BTreeMap::new();
        }
        let stacks = led.iter().filter_map(|l| l.owner.stack());
        let unknown: BTreeSet<&str> = stacks.filter(|s| !self.0.contains_key(*s)).collect();
        if !unknown.is_empty() {
            self.0.extend(keeper.without_me(unknown, me));
        }
        let none = Tasks::new();
        let mut all = BTreeMap::new();
        for led in led {
            let tasks = led.owner.stack().and_then(|s| self.0.get(s));
            let tasks = tasks.unwrap_or(&none);
            let others = others.iter().map(String::as_str);
            let of = (&led.owner, led.address);
            if let Some(lasts) = decide::lasts(of, me, tasks, director, others) {
                all.insert(led.address, lasts);
            }
        }
        all
    }
}
