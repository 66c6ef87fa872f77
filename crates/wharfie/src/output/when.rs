//! Moments as `--since` and `--until` take them, and as they are shown.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A moment: a date and time (in the local time zone unless it names one), seconds since 1970,
/// or a span before `now` such as `42m`.
pub(crate) fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{text:?} is neither a time (2013-01-02T13:23:37Z, seconds since 1970) nor a span (42m, 1h30m)"
        )
    };
    if let Some(span) = span(text) {
        return now.checked_sub(span).map_err(|_| wrong());
    }
    if let Some(moment) = unix(text) {
        return Ok(moment);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let local: DateTime = text
        .parse::<DateTime>()
        .or_else(|_| text.parse::<Date>().map(DateTime::from))
        .map_err(|_| wrong())?;
    local
        .to_zoned(zone.clone())
        .map(|z| z.timestamp())
        .map_err(|_| wrong())
}

/// [`parse`] with the clock and time zone of this machine, for clap.
pub(crate) fn parse_now(text: &str) -> Result<Timestamp, String> {
    parse(text, Timestamp::now(), &TimeZone::system())
}

/// Seconds since 1970, perhaps with a fraction.
fn unix(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(whole.parse().ok()?, nanos).ok()
}

/// A span in Go's notation: `42m`, `1h30m`, `1.5s`, `100ms`.
fn span(text: &str) -> Option<SignedDuration> {
    let nanos = wharfie_compose::units::parse_duration(text).ok()?;
    text.ends_with(|c: char| c.is_ascii_alphabetic())
        .then(|| SignedDuration::from_nanos(nanos))
}

/// A moment as `docker ps` shows it: `2026-11-21 04:56:42 +0000 UTC`.
pub(crate) fn show(seconds: i64, zone: &TimeZone) -> String {
    let Ok(moment) = Timestamp::from_second(seconds) else {
        return String::new();
    };
    moment
        .to_zoned(zone.clone())
        .strftime("%Y-%m-%d %H:%M:%S %z %Z")
        .to_string()
}

/// Seconds since 1970, now.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Nanoseconds since 1970, now.
pub(crate) fn now_nanos() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<String, String> {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        parse(text, now, &zone).map(|t| t.to_string())
    }

    #[test]
    fn moments_and_spans_are_read() {
        for (text, moment) in [
            ("42m", "2026-11-21T11:18:00Z"),
            ("1h30m", "2026-11-21T10:30:00Z"),
            ("1.5s", "2026-11-21T11:59:58.5Z"),
            ("2013-01-02T13:23:37Z", "2013-01-02T13:23:37Z"),
            ("2013-01-02T13:23:37.5+02:00", "2013-01-02T11:23:37.5Z"),
            ("2013-01-02T13:23:37", "2013-01-02T12:23:37Z"),
            ("2013-01-02T13:23", "2013-01-02T12:23:00Z"),
            ("2013-01-02", "2013-01-01T23:00:00Z"),
            ("1136073600", "2006-01-01T00:00:00Z"),
            ("1136073600.25", "2006-01-01T00:00:00.25Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(moment), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "soon", "42 parsecs", "2013-13-01", "1.2.3"] {
            assert!(at(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_shown_as_docker_does() {
        assert_eq!(
            show(1_795_323_402, &TimeZone::UTC),
            "2026-11-22 04:56:42 +0000 UTC"
        );
    }
}
