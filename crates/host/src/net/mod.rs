//! What is done to the network of one host: overlays, services' addresses, firewalls and published
//! ports, through netlink. No program is run for it, and nothing here decides.
//!
//! All is plain data in, and a `Result` out; calls block for as long as the kernel takes. What is
//! made carries our mark (an alias on devices, a comment on tables, a protocol number on neighbours,
//! rules and routes), is changed in one transaction where the kernel has any, and can be looked at
//! again: `apply` repairs what others broke.

mod balance;
mod conntrack;
mod drops;
mod encryption;
mod error;
mod firewall;
mod gate;
mod hold;
mod isolation;
mod lan;
mod listening;
mod mac;
mod netlink;
mod netns;
mod nft;
mod overlay;
mod protocol;
mod published;
mod purge;
mod reply;
mod route;
mod turns;
mod vip;

pub use conntrack::forget;
pub use drops::{Dropped, Drops};
pub use encryption::{ENCRYPTION_DEVICE, ENCRYPTION_PORT, EncryptedPeer, Encrypter, Encryption};
pub use error::Error;
pub use firewall::{Action, ContainerFirewall, Firewall, FirewallRule, Hits, Way};
pub use gate::Gate;
pub use hold::Hold;
pub use isolation::{IsolatedNetwork, Isolation, Isolator};
pub use lan::{
    Conflicts, LanAddress, LanAddresses, LanChanges, LanDevice, Redirected, Redirecting,
    Redirector, announce, device, device_of, probe,
};
pub use listening::{Listener, listeners};
pub use mac::Mac;
pub use netns::Namespace;
pub use overlay::{
    Cable, Changes, Endpoint, Overlay, Overlays, Shortcut, Shortcuts, VXLAN_PORT, Watch, cables,
};
pub use protocol::Protocol;
pub use published::{Published, Publisher, Publishing};
pub use purge::{Purged, purge, purgeable};
pub use reply::{Gateway, Replies};
pub use vip::{Vip, VipPort, Vips};
