//! What is set up in the network namespaces of containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::flows::Flows;
use wharfie_core::director::Led;
use wharfie_core::network::balance::Balanced;
use wharfie_core::network::{self, VipKey};
use wharfie_host::net::{
    Cable, ContainerFirewall, Error, Firewall, Gateway, Namespace, Replies, Vip, Vips, cables,
};

/// The network namespace of a running container, with the addresses of services in it.
pub(super) struct Inside {
    pid: u32,
    pub(super) namespace: Namespace,
    vips: Vips,
    wanted: Vec<Vip>,
    wall: Option<(ContainerFirewall, Firewall)>,
    /// Ways back of published connections.
    replies: Option<(Replies, Vec<Gateway>)>,
    /// Its cables, and the networks that it was on when they were looked at.
    cables: (Networks, BTreeSet<Cable>),
    flows: Flows,
}

type Networks = BTreeMap<String, network::Attachment>;

/// An address of the surrounding network in a container's namespace: of a service beside it, or its own.
pub(super) fn of_lan(led: &Led, container: &network::Running) -> Option<Vip> {
    let own = |ip: &IpAddr| {
        container
            .networks
            .values()
            .any(|at| at.addresses().any(|a| a == *ip))
    };
    let is_beside = match &led.network {
        Some(network) => container.networks.contains_key(network),
        None => led.tasks.iter().any(own),
    };
    is_beside.then(|| Vip {
        address: led.address,
        ports: Vec::new(),
        backends: led.tasks.clone(),
        affinity: false,
    })
}

/// What is wanted in a container's namespace.
pub(super) struct Wanted {
    pub(super) vips: Vec<Vip>,
    pub(super) wall: Option<Firewall>,
    pub(super) gateways: Vec<Gateway>,
}

impl Inside {
    /// That of a process.
    pub(super) fn open(pid: u32) -> Result<Self, Error> {
        let namespace = Namespace::of_process(pid)?;
        Ok(Self {
            pid,
            vips: Vips::open(&namespace)?,
            namespace,
            wanted: Vec::new(),
            wall: None,
            replies: None,
            cables: Default::default(),
            flows: Flows::default(),
        })
    }

    /// Whether it is the namespace of a process.
    pub(super) fn is_of(&self, pid: u32) -> bool {
        Namespace::of_process(pid).is_ok_and(|n| n.is_same(&self.namespace))
    }

    /// Whether the kernel has its firewall.
    pub(super) fn is_walled(&self) -> bool {
        self.wall.is_some()
    }

    /// Whether its process is still there: made anew it is another.
    pub(super) fn is_alive(&self) -> bool {
        self.is_of(self.pid)
    }

    /// The cables by which it is on its networks.
    pub(super) fn cables(&mut self, networks: &Networks) -> &BTreeSet<Cable> {
        let (known, found) = &mut self.cables;
        if known != networks {
            // Without them it is reached as well.
            *found = cables(&self.namespace).unwrap_or_default();
            known.clone_from(networks);
        }
        found
    }

    /// Makes it what is wanted; repairs what others broke.
    pub(super) fn apply(&mut self, wanted: Wanted, repair: bool) -> Result<(), Error> {
        // First: what it may do comes before what it can.
        self.wall(wanted.wall, repair)?;
        self.reply(wanted.gateways, repair)?;
        if self.wanted != wanted.vips || (repair && !self.vips.is_intact()?) {
            self.vips.apply(&wanted.vips)?;
            let backends = wanted.vips.iter().flat_map(|v| &v.backends);
            self.flows.lead(backends.copied());
            self.wanted = wanted.vips;
        }
        Ok(())
    }

    /// Ends its UDP flows to tasks that are not there any more.
    pub(super) fn end_flows(&mut self, there: &BTreeSet<IpAddr>, late: bool) {
        self.flows.end(&self.namespace, there, late);
    }

    /// Answers to published connections go back by the host that they came by.
    fn reply(&mut self, wanted: Vec<Gateway>, repair: bool) -> Result<(), Error> {
        let (mut open, known) = match (self.replies.take(), wanted.is_empty()) {
            (None, true) => return Ok(()),
            (Some((mut open, _)), true) => return open.purge(),
            (Some(open), false) => open,
            (None, false) => (Replies::open(&self.namespace)?, Vec::new()),
        };
        if known != wanted || repair {
            open.apply(&wanted)?;
        }
        self.replies = Some((open, wanted));
        Ok(())
    }

    fn wall(&mut self, wanted: Option<Firewall>, repair: bool) -> Result<(), Error> {
        let Some(wanted) = wanted else {
            return match self.wall.take() {
                Some((mut open, _)) => open.purge(),
                None => Ok(()),
            };
        };
        let (mut open, before) = match self.wall.take() {
            Some((mut open, known)) => {
                if known == wanted && (!repair || open.is_intact()?) {
                    self.wall = Some((open, known));
                    return Ok(());
                }
                (open, Some(known))
            }
            None => (ContainerFirewall::open(&self.namespace)?, None),
        };
        let applied = open.apply(&wanted).map(drop);
        // It is replaced whole, or stays what it was.
        let known = if applied.is_ok() {
            Some(wanted)
        } else {
            before
        };
        self.wall = known.map(|known| (open, known));
        applied
    }
}

/// The addresses of services that a container can reach.
pub(super) fn vips(
    balanced: &BTreeMap<VipKey, Balanced>,
    container: &network::Running,
) -> Vec<Vip> {
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
