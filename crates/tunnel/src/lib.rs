//! WireGuard (<https://www.wireguard.com/papers/wireguard.pdf>) in user space, for hosts whose
//! kernel has none: one device, its peers, and a socket that it is configured by as any other
//! implementation is.
//!
//! The protocol is boringtun's. What is here is the way of the packets, which is what costs: they
//! come from the kernel and go back to it in pieces of up to 64 KiB, with all that a network card
//! would have to know (`vnet`), are divided (`segment`) and joined (`coalesce`) on the way, and go
//! over the wire as many at a time (`udp`).

mod batch;
mod checksum;
mod coalesce;
mod device;
mod inbound;
mod key;
mod outbound;
mod segment;
mod serve;
mod table;
mod tap;
pub mod uapi;
mod udp;
mod vnet;
mod wait;

pub use key::{NoKey, PrivateKey, PublicKey};
pub use serve::{Client, Settings, Tunnel};
