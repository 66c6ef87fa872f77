//! Where the time of a round goes, for whoever looks why one took long (`--log-level debug`).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tracing::debug;

/// Rounds that take less are not spoken of.
const LONG: Duration = Duration::from_millis(10);

/// The steps of one round.
#[derive(Default)]
pub(super) struct Laps {
    begun: Option<Instant>,
    last: Option<Instant>,
    said: String,
}

impl Laps {
    /// A round begins.
    pub(super) fn begin(&mut self) {
        self.begun = Some(Instant::now());
        self.last = self.begun;
        self.said.clear();
    }

    /// A step is done.
    pub(super) fn lap(&mut self, step: &str) {
        if let Some(last) = self.last.replace(Instant::now()) {
            let took = last.elapsed().as_secs_f64() * 1000.0;
            // Writing to a string cannot fail.
            let _ = write!(self.said, " {step} {took:.1}");
        }
    }

    /// The round is done.
    pub(super) fn end(&mut self) {
        let took = self.begun.take().map(|begun| begun.elapsed());
        if let Some(took) = took.filter(|took| *took >= LONG) {
            let millis = took.as_secs_f64() * 1000.0;
            debug!("a round of networks took {millis:.1} ms:{}", self.said);
        }
    }
}
