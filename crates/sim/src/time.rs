//! Virtual time, and what the machines' clocks make of it.

/// Microseconds since the run began.
pub(crate) type Micros = u64;

/// A millisecond.
pub(crate) const MS: Micros = 1_000;
/// A second.
pub(crate) const SEC: Micros = 1_000_000;

/// What clocks show when a run begins, in milliseconds since 1970.
const BEGIN: i64 = 1_790_000_000_000;

/// The clock of a machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wall {
    /// By how many milliseconds it is wrong.
    pub(crate) skew: i64,
    /// By how many microseconds it goes wrong in a second.
    pub(crate) drift: i64,
}

impl Wall {
    /// What it shows, in milliseconds since 1970.
    pub(crate) fn millis(&self, now: Micros) -> i64 {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let drifted = now / 1_000_000 * self.drift;
        BEGIN + self.skew + (now + drifted) / 1_000
    }
}
