//! Sizes and durations as Compose files write them.

/// Parses a size such as `512`, `10m`, `1.5gb` or `2GiB` into bytes; units are powers of 1024.
///
/// # Errors
/// A message that says what is accepted.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    let invalid = || {
        format!(
            "invalid size {text:?}: write a number of bytes or one with a unit, such as 512m or 2g"
        )
    };
    let trimmed = text.trim();
    let digits_end = trimmed
        .rfind(|c: char| c.is_ascii_digit() || c == '.')
        .map(|i| i + 1)
        .ok_or_else(invalid)?;
    let (number, unit) = trimmed.split_at(digits_end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let factor = 1024_i64.pow(power);
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor).ok_or_else(invalid);
    }
    let value: f64 = number.parse().map_err(|_| invalid())?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let bytes = (value * factor as f64) as i64;
    if value < 0.0 {
        Err(invalid())
    } else {
        Ok(bytes)
    }
}

/// Nanoseconds of each unit, as Go's `time.ParseDuration` knows them, with days and weeks added.
const UNITS: [(&str, f64); 9] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86400e9),
];

/// Parses a duration such as `1m30s`, `1.5h` or `300ms` into nanoseconds.
///
/// # Errors
/// A message that says what is accepted.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid =
        || format!("invalid duration {text:?}: write numbers with units, such as 10s or 1m30s");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(invalid)?;
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == &rest[..unit_end])
            .map(|(_, f)| *f)
            .or((&rest[..unit_end] == "w").then_some(7.0 * 86400e9))
            .ok_or_else(invalid)?;
        total += number * factor;
        rest = &rest[unit_end..];
    }
    if total > 9.2e18 {
        return Err(invalid());
    }
    #[allow(clippy::cast_possible_truncation)] // bounded above
    let nanoseconds = total.round() as i64;
    Ok(if negative { -nanoseconds } else { nanoseconds })
}

/// Writes nanoseconds as Go's `time.Duration.String` does: `1m30s`, `1.5s`, `100ms`, `0s`.
#[must_use]
pub fn format_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let n = nanoseconds.unsigned_abs();
    if n == 0 {
        return "0s".to_owned();
    }
    let fraction = |value: u64, unit: u64| {
        let whole = value / unit;
        let rest = value % unit;
        if rest == 0 {
            return whole.to_string();
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        format!("{whole}.{}", digits.trim_end_matches('0'))
    };
    if n < 1_000 {
        return format!("{sign}{n}ns");
    }
    if n < 1_000_000 {
        return format!("{sign}{}µs", fraction(n, 1_000));
    }
    if n < 1_000_000_000 {
        return format!("{sign}{}ms", fraction(n, 1_000_000));
    }
    let minutes = n / 60_000_000_000;
    let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("10m"), Ok(10 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("64"), Ok(64));
        assert_eq!(parse_bytes("2 gb"), Ok(2 << 30));
        assert!(parse_bytes("ten").is_err());
        assert!(parse_bytes("1x").is_err());
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("1m30s", "1m30s"),
            ("90s", "1m30s"),
            ("1.5s", "1.5s"),
            ("100ms", "100ms"),
            ("2h", "2h0m0s"),
            ("0", "0s"),
            ("1d", "24h0m0s"),
        ] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), expected);
        }
        assert!(parse_duration("10").is_err());
        assert!(parse_duration("").is_err());
    }
}
