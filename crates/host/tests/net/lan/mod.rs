//! Services' addresses on the LAN.

mod addresses;
mod ask;
mod gate;
mod moves;
mod redirect;

use std::time::{Duration, Instant};

/// Waits until something is the case.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < deadline, "it does not come about: {what}");
        #[allow(clippy::disallowed_methods)] // for a condition, and with a deadline
        std::thread::sleep(Duration::from_millis(10));
    }
}
