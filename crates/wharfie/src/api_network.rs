//! What is said of networks over the agent's socket.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use wharfie_compose::model;
use wharfie_core::network::trace::Way;
use wharfie_core::network::{Mac, Network};

/// One network in `GET /v1/networks`: those of the cluster, with what all nodes have of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NetworkInfo {
    /// Name on the Engines.
    pub(crate) name: String,
    /// What is kept of it.
    pub(crate) object: Network,
    /// Whether packets between nodes are encrypted.
    #[serde(default)]
    pub(crate) encrypted: bool,
    /// Stacks whose services are on it.
    pub(crate) stacks: Vec<String>,
    /// What nodes have of it, by name.
    pub(crate) nodes: BTreeMap<String, NodePart>,
    /// Services with an address of their own, as `stack/service`.
    pub(crate) services: BTreeMap<String, Vec<IpAddr>>,
    /// Containers of all nodes.
    pub(crate) containers: Vec<Attached>,
    /// What is not as it should be.
    pub(crate) faults: Vec<String>,
}

/// What a node has of a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodePart {
    /// Parts of the subnets that it gives addresses from: first and last.
    pub(crate) slices: Vec<String>,
    /// What its containers have as gateway.
    pub(crate) gateway: Vec<IpAddr>,
    /// Its own addresses.
    pub(crate) own: Vec<IpAddr>,
    /// Hardware address of its bridge, if that is there.
    pub(crate) bridge: Option<Mac>,
    /// Why what is said of it is old, if so.
    pub(crate) away: Option<String>,
}

/// A container on a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attached {
    /// Id.
    pub(crate) id: String,
    /// Name.
    pub(crate) name: String,
    /// Name of its node.
    pub(crate) node: String,
    /// Stack; empty if it is of none.
    pub(crate) stack: String,
    /// Service; empty if it is of none.
    pub(crate) service: String,
    /// State.
    pub(crate) state: String,
    /// Addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Hardware address, once it runs.
    pub(crate) mac: Option<Mac>,
}

/// `POST /v1/networks`: a network of the cluster that is no stack's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CreateNetwork {
    /// As a file would say it.
    pub(crate) network: model::Network,
}

/// `POST /v1/networks/remove`: a network of the cluster, on all nodes; with `/v1/networks/drop` what
/// the Engine of the node that `?on=NODE` names has of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RemoveNetwork {
    /// Its name.
    pub(crate) name: String,
}

/// The answer to [`RemoveNetwork`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct NetworkRemoved {
    /// Names of the nodes whose Engines had it.
    pub(crate) nodes: Vec<String>,
    /// Nodes that are away, and keep what they have of it for now.
    pub(crate) away: Vec<String>,
}

/// `POST /v1/networks/trace`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TraceNetwork {
    /// Who connects.
    pub(crate) from: String,
    /// To whom.
    pub(crate) to: String,
    /// Name of the protocol.
    pub(crate) protocol: String,
    /// Port.
    pub(crate) port: Option<u16>,
}

/// The answer to [`TraceNetwork`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Traced {
    /// Hop by hop.
    #[serde(flatten)]
    pub(crate) way: Way,
    /// Whether it arrives.
    pub(crate) arrives: bool,
    /// All of it in a line.
    pub(crate) verdict: String,
}

/// `POST /v1/networks/listeners`: who listens in the network namespace of a container of the node that
/// `?on=NODE` names, or of its host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listeners {
    /// Id; empty for the host.
    pub(crate) container: String,
    /// Name of the protocol.
    pub(crate) protocol: String,
    /// Port.
    pub(crate) port: u16,
    /// Address that is connected to.
    pub(crate) address: IpAddr,
}

/// The answer to [`Listeners`]; nothing if it cannot be seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listening {
    /// Whether somebody does.
    pub(crate) yes: bool,
    /// In words.
    pub(crate) why: String,
}

/// `POST /v1/networks/prune`: what is wanted no longer goes from the node that `?on=NODE` names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PruneNetworks {
    /// Only say what would go.
    pub(crate) dry_run: bool,
}

/// What of networks was removed from a node, or stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swept {
    /// What is gone, a line each.
    pub(crate) removed: Vec<String>,
    /// What stays and why, a line each.
    pub(crate) kept: Vec<String>,
}

/// `POST /v1/networks/drops`: what firewalls did on the node that `?on=NODE` names; with
/// `/v1/networks/drops/follow` each packet that is dropped from now on, a line each.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct AskDrops {
    /// Services, as `service` or `stack/service`, or names of containers; all if there are none.
    pub(crate) of: Vec<String>,
}

/// How often a rule of a container's firewall decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleHits {
    /// Name of the node.
    pub(crate) node: String,
    /// Name of the container.
    pub(crate) container: String,
    /// `ingress` or `egress`.
    pub(crate) direction: String,
    /// Where the rule is in the file, such as `ingress[0]`; `default` for what matches none.
    pub(crate) rule: String,
    /// `accept` or `drop`.
    pub(crate) action: String,
    /// Packets: those that begin a connection, or are dropped.
    pub(crate) packets: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// A packet that a firewall dropped, as long as somebody listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DroppedPacket {
    /// Name of the container.
    pub(crate) container: String,
    /// In a line.
    pub(crate) text: String,
}
