//! How things are shown: tables, numbers, progress, logs.

pub(crate) mod bytes;
pub(crate) mod format;
pub(crate) mod logs;
pub(crate) mod ports;
pub(crate) mod progress;
pub(crate) mod stamps;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod when;

use std::io::{self, Write};

use serde_json::Value;

/// How a listing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Listing {
    /// Columns with headers.
    Table,
    /// JSON.
    Json,
}

/// Prints a line.
pub(crate) fn text(line: &str) -> Result<(), crate::failure::Failure> {
    Ok(lines([line])?)
}

/// Writes lines to standard output in one go.
pub(crate) fn lines<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) -> io::Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
    print(&text)
}

/// Writes text to standard output; unlike `print!` it tells when the reader is gone.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes text to standard output as it is: what users wrote is no colour of ours.
pub(crate) fn print_raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a value as one line of JSON.
pub(crate) fn json(value: &Value) -> io::Result<()> {
    print(&format!("{value}\n"))
}

/// A warning to the user, on standard error.
pub(crate) fn warn(message: &str) {
    let (on, off) = (style::WARNING.render(), style::WARNING.render_reset());
    say(&format!("{on}warning:{off} {message}"));
}

/// A line to the user, on standard error; if nobody can read it, so be it.
pub(crate) fn say(line: &str) {
    let mut err = anstream::stderr().lock();
    let _ = writeln!(err, "{line}");
}
