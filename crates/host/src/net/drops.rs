//! What firewalls dropped.

/// The group of `nfnetlink_log` that dropped packets are sent to. Not the kernel's log: that says
/// nothing of what happens in containers' namespaces unless it is told to (`nf_log_all_netns`).
pub(crate) const GROUP: u16 = 7700;
