//! UDP flows that lead to somebody who is not there any more.
//!
//! The kernel leads a flow where its first packet went, and a client that goes on sending from the
//! same port never lets it end: it would talk to nobody, or to whoever gets the address next. TCP
//! needs no help: its clients see that nobody answers, and connect anew.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tracing::warn;
use wharfie_host::net::{Namespace, Protocol, forget};

/// Where the flows of a network namespace were led.
#[derive(Debug, Default)]
pub(super) struct Flows {
    to: BTreeSet<IpAddr>,
    /// Gone, and to be looked at once more: a packet may have come while rules were changed.
    late: BTreeSet<IpAddr>,
}

impl Flows {
    /// New ones are led to these, from now on also.
    pub(super) fn lead(&mut self, to: impl Iterator<Item = IpAddr>) {
        self.to.extend(to);
    }

    /// Whose flows are to be ended, of those that are not among `there`; `late`: also those that were
    /// gone before.
    fn gone(&mut self, there: &BTreeSet<IpAddr>, late: bool) -> BTreeSet<IpAddr> {
        let mut gone: BTreeSet<IpAddr> = self.to.difference(there).copied().collect();
        self.to.retain(|a| there.contains(a));
        // Who came again is led to as any other.
        self.late.retain(|a| !there.contains(a));
        let before = std::mem::take(&mut self.late);
        self.late.clone_from(&gone);
        match late {
            true => gone.extend(before),
            false => self.late.extend(before),
        }
        gone
    }

    /// Ends those that lead to an address where nobody is: their next packets go to another task.
    pub(super) fn end(&mut self, namespace: &Namespace, there: &BTreeSet<IpAddr>, late: bool) {
        let gone = self.gone(there, late);
        if gone.is_empty() {
            return;
        }
        if let Err(e) = forget(namespace, &gone, Protocol::Udp) {
            warn!("UDP clients of tasks that ended may go on talking to nobody: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[u8]) -> BTreeSet<IpAddr> {
        numbers.iter().map(|n| [10, 0, 0, *n].into()).collect()
    }

    #[test]
    fn who_is_gone_is_forgotten_and_once_more_later() {
        let mut flows = Flows::default();
        flows.lead(set(&[1, 2]).into_iter());
        assert_eq!(flows.gone(&set(&[1, 2, 3]), true), set(&[]));
        // Not among the tasks any more, but there: it may say its last words.
        flows.lead(set(&[1]).into_iter());
        assert_eq!(flows.gone(&set(&[1, 2]), false), set(&[]));
        assert_eq!(flows.gone(&set(&[1]), false), set(&[2]));
        assert_eq!(flows.gone(&set(&[1]), false), set(&[]));
        assert_eq!(flows.gone(&set(&[1]), true), set(&[2]));
        assert_eq!(flows.gone(&set(&[1]), true), set(&[]));
    }

    #[test]
    fn who_came_again_is_left_alone() {
        let mut flows = Flows::default();
        flows.lead(set(&[2]).into_iter());
        assert_eq!(flows.gone(&set(&[]), true), set(&[2]));
        assert_eq!(flows.gone(&set(&[2]), true), set(&[]));
    }
}
