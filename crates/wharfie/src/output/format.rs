//! Numbers, spans and texts as docker compose writes them.

use serde_json::Value;

/// A span of time in rough words: `About a minute`, `3 hours`.
pub(crate) fn span(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago a moment was, both in seconds since 1970: `2 minutes ago`.
pub(crate) fn ago(moment: i64, now: i64) -> String {
    format!("{} ago", span(now - moment))
}

/// A text of at most `width` characters, its end replaced by an ellipsis if it is longer.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

/// A text in double quotes, with what would not be seen escaped.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// JSON in one line with `<`, `>` and `&` escaped, as the reference writes it.
pub(crate) fn html_safe(value: &Value) -> String {
    value
        .to_string()
        .replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_rough_words() {
        let day = 24 * 3600;
        for (seconds, words) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (2 * day, "2 days"),
            (13 * day, "13 days"),
            (14 * day, "2 weeks"),
            (60 * day, "2 months"),
            (730 * day, "2 years"),
        ] {
            assert_eq!(span(seconds), words, "{seconds} s");
        }
        assert_eq!(ago(100, 220), "2 minutes ago");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(
            shorten("sh -c 'trap 'exit 0' TERM", 20),
            "sh -c 'trap 'exit 0…"
        );
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(quote("a \"b\"\n\u{1}"), r#""a \"b\"\n\x01""#);
    }

    #[test]
    fn arrows_are_escaped_in_json() {
        assert_eq!(
            html_safe(&Value::from("1->2 & <")),
            r#""1-\u003e2 \u0026 \u003c""#
        );
    }
}
