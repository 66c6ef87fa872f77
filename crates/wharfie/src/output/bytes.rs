//! Numbers of bytes as docker writes them.

/// In steps of 1000, with three digits: `1.99MB`, `682B`.
pub(crate) fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, 3, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// In steps of 1024, with four digits: `23.54GiB`, `452KiB`.
pub(crate) fn binary(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    scaled(bytes, 1024.0, 4, &units)
}

#[allow(clippy::cast_precision_loss)] // at most four digits are shown
fn scaled(bytes: u64, step: f64, digits: usize, units: &[&str]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// A number from 0 to 9999 with so many digits that mean something, without zeros at the end.
fn significant(value: f64, digits: usize) -> String {
    let whole = match value {
        v if v >= 1000.0 => 4,
        v if v >= 100.0 => 3,
        v if v >= 10.0 => 2,
        _ => 1,
    };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (682, "682B"),
            (999, "999B"),
            (1000, "1kB"),
            (1040, "1.04kB"),
            (1_985_599, "1.99MB"),
            (123_456_789, "123MB"),
            (20_000_000_000, "20GB"),
        ] {
            assert_eq!(decimal(bytes), text);
        }
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (462_848, "452KiB"),
            (25_276_000_000, "23.54GiB"),
            (u64::MAX, "16EiB"),
        ] {
            assert_eq!(binary(bytes), text);
        }
    }
}
