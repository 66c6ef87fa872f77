//! The clock: hosts order changes by it, and certificates are valid by it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Finding;

/// A moment before this program was written: 2026-01-01.
const EARLIEST: u64 = 1_767_225_600;
/// A moment that no clock shows: 2100-01-01.
const LATEST: u64 = 4_102_444_800;

/// What keeps the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// `systemd-timesyncd`, and it has reached a server.
    Synchronised,
    /// `systemd-timesyncd`, and it has not.
    NotYet,
    /// Another program, which says nothing where we can read it.
    Other(&'static str),
    /// Nothing that we know of.
    None,
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Seconds since 1970.
    now: u64,
    keeper: Keeper,
}

pub(super) fn probe() -> Facts {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let there = |path: &str| fs::exists(path).unwrap_or(false);
    let daemons = [
        ("/run/chrony", "chronyd"),
        ("/run/chronyd.pid", "chronyd"),
        ("/run/ntpd.pid", "ntpd"),
        ("/run/ntpsec/ntpd.pid", "ntpd"),
        ("/run/ntpd.sock", "openntpd"),
        ("/run/ptp4l", "ptp4l"),
    ];
    let other = daemons.iter().find(|(path, _)| there(path));
    let keeper = if there("/run/systemd/timesync/synchronized") {
        Keeper::Synchronised
    } else if let Some((_, name)) = other {
        Keeper::Other(name)
    } else if there("/run/systemd/timesync") {
        Keeper::NotYet
    } else {
        Keeper::None
    };
    Facts {
        now: now.map_or(0, |d| d.as_secs()),
        keeper,
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let clock = if (EARLIEST..LATEST).contains(&facts.now) {
        Finding::ok("clock", "it shows a time that can be")
    } else {
        Finding::broken("clock", format!("it is wrong: {} s since 1970", facts.now))
            .mend("set it: `timedatectl set-ntp true`, or `date -s`")
    };
    let advice =
        "`timedatectl set-ntp true`, or install chrony: hosts order changes by their clocks";
    let keeper = match facts.keeper {
        Keeper::Synchronised => {
            Finding::ok("time server", "systemd-timesyncd keeps the clock right")
        }
        Keeper::Other(name) => Finding::ok("time server", format!("{name} keeps the clock")),
        Keeper::NotYet => Finding::warning(
            "time server",
            "systemd-timesyncd runs, but has reached no server since the start",
        )
        .mend("look why: `timedatectl timesync-status`"),
        Keeper::None => Finding::unknown(
            "time server",
            "no program is known here that keeps the clock right; the machine's host may",
        )
        .mend(advice),
    };
    vec![clock, keeper]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn verdicts(now: u64, keeper: Keeper) -> Vec<Verdict> {
        let findings = judge(&Facts { now, keeper });
        findings.iter().map(|f| f.verdict).collect()
    }

    #[test]
    fn the_clock_is_judged() {
        let now = 1_795_323_402;
        assert_eq!(
            verdicts(now, Keeper::Synchronised),
            [Verdict::Ok, Verdict::Ok]
        );
        assert_eq!(
            verdicts(0, Keeper::Other("chronyd")),
            [Verdict::Broken, Verdict::Ok]
        );
        assert_eq!(verdicts(now, Keeper::NotYet)[1], Verdict::Warning);
        assert_eq!(verdicts(now, Keeper::None)[1], Verdict::Unknown);
    }
}
