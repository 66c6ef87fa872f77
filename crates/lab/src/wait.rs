//! Waiting for something to become true, with a deadline instead of a sleep for luck.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long to rest between two looks: short at first, so that what is quick stays quick.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Repeats `look` until it succeeds and returns what it returned. When `deadline` has passed
/// first, the error is the one seen last.
///
/// ```
/// # use std::time::Duration;
/// # use anyhow::ensure;
/// let mut seen = 0;
/// wharfie_lab::eventually(Duration::from_secs(2), || {
///     seen += 1;
///     ensure!(seen == 3, "seen {seen} of 3");
///     Ok(())
/// }).unwrap();
/// ```
pub fn eventually<T>(deadline: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => {
                return Err(last).context(format!("not within {deadline:?}; last seen"));
            }
            Err(_) => {}
        }
        rest(pause.min(end.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The opposite of [`eventually`]: `look` must succeed again and again for the whole of `period`.
pub fn throughout(period: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < period {
        look().with_context(|| format!("no longer so after {:?}", start.elapsed()))?;
        rest(LONGEST_PAUSE);
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the rest between two looks; everything else waits through this module"
)]
fn rest(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn the_error_says_what_was_last_seen() {
        let mut looks = 0;
        let error = eventually(Duration::from_millis(30), || -> Result<()> {
            looks += 1;
            bail!("look number {looks}")
        })
        .expect_err("never true");
        let text = format!("{error:#}");
        assert!(text.contains(&format!("look number {looks}")), "{text}");
        assert!(looks > 1);
    }

    #[test]
    fn what_breaks_within_the_period_is_an_error() {
        let mut looks = 0;
        let broken = throughout(Duration::from_secs(60), || {
            looks += 1;
            anyhow::ensure!(looks < 2, "gone");
            Ok(())
        });
        assert!(format!("{:#}", broken.expect_err("breaks")).contains("gone"));
    }
}
