//! Networks over several nodes: every decision about them, pure.
//!
//! | what | who decides | kept as |
//! | --- | --- | --- |
//! | VNI and subnets of a network ([`allot()`]) | its stack's coordinator | object [`NETWORK`] |
//! | which node gives out which addresses ([`claim`]) | each node for itself | object [`SLICE`] |
//! | addresses of services ([`vip::changes`]) | the stack's coordinator | object [`VIP`] |
//! | addresses of containers ([`choose`]) | the container's node | its report |
//! | the address that a node's packets come from ([`underlay`]) | the node itself | its report |
//!
//! Everything else follows from these objects, the stacks and the reports ([`World`]): forwarding
//! entries ([`overlay`]), names ([`Catalog`]), tasks behind the addresses of services ([`balance`]),
//! firewalls ([`firewall`]) and why somebody reaches somebody or not ([`trace()`]).
//!
//! Nobody is asked before something is chosen, so parts of a cluster that cannot see each other may
//! choose the same. Searches begin at hashes, so that this is rare; when it happens all nodes see
//! the same loser ([`conflicts`], [`repairs`]).

mod allot;
pub mod balance;
mod cidr;
mod conflict;
pub mod encrypt;
pub mod firewall;
mod fixed;
mod layout;
mod local;
mod names;
mod object;
mod offered;
pub mod overlay;
pub mod publish;
mod slice;
pub mod trace;
pub mod underlay;
pub mod vip;
mod world;

pub use allot::{Asked, Refusal, Route, Settings, allot, spans};
pub use cidr::Cidr;
pub use conflict::{Clash, Conflict, barred, conflicts, renumber};
pub use fixed::{Fault, Fixed, Holder, fixed};
pub use layout::{Addresses, Layout};
pub use local::{BRIDGE, BRIDGES, MTU, bridge_name, localize};
pub use names::{Answer, Asker, Catalog, Data, Kind, Outside, Record, ZONE};
pub use object::{
    Claims, NETWORK, Network, Networks, Pool, SLICE, Slice, Slices, VIP, Vip, VipKey, Vips,
    slice_name, slice_of_name, vip_name, vip_of_name,
};
pub use offered::{Offered, offered};
pub use slice::{NoSlice, Own, Repairs, choose, claim, own, repairs, slices_of, stale};
pub use trace::trace;
pub use world::{Attachment, Local, Mac, Node, Running, World};
