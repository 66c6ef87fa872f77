//! Giving up in order: Ctrl-C while a lab is made must not leave half a lab.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static CANCELLED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGINT, SIGTERM and SIGHUP make [`LabBuilder::start`](crate::LabBuilder::start) fail
/// soon, having removed what it made, instead of ending the process. A second signal ends it at once.
pub fn cancel_on_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the first signal must find the flag unset.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            128 + signal,
            Arc::clone(&CANCELLED),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&CANCELLED)))
        .with_context(|| format!("cannot handle signal {signal}"))?;
    }
    Ok(())
}

pub(crate) fn is_set() -> bool {
    CANCELLED.load(Ordering::Relaxed)
}

/// Between two steps: an error if a signal has come.
pub(crate) fn check() -> Result<()> {
    ensure!(!is_set(), "interrupted");
    Ok(())
}
