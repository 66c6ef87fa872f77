//! Addresses of services on the surrounding LAN: having them, telling the neighbours, and leading
//! what is sent there to tasks.

mod addresses;
mod ask;
mod device;
mod packet;
mod redirect;

pub use addresses::{LanAddress, LanAddresses, LanChanges};
pub use ask::{Conflicts, announce, probe};
pub use device::{LanDevice, device, device_of};
pub use redirect::{Redirected, Redirecting, Redirector};

/// Connections that are led on have this in the upper half of their mark; the lower half is others'.
pub(crate) const MARK: u32 = 0x5744_0000;
pub(crate) const MARK_MASK: u32 = 0xffff_0000;
