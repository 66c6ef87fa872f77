//! The agent's log: on standard error, as text or JSON, changeable while it runs.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layered;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::settings::{Format, Level};

/// What the lines are written by: the registry below a filter.
type Filtered = Layered<reload::Layer<Targets, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// A log that has begun.
pub(super) struct Log {
    level: reload::Handle<Targets, Registry>,
    lines: reload::Handle<Lines, Filtered>,
}

/// Libraries speak only of what is wrong, unless everything is wanted.
fn filter(level: Level) -> Targets {
    let own = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let others = match level {
        Level::Trace => LevelFilter::DEBUG,
        Level::Error => LevelFilter::ERROR,
        _ => LevelFilter::WARN,
    };
    Targets::new()
        .with_default(others)
        .with_target("wharfie", own)
}

fn lines(format: Format) -> Lines {
    match format {
        Format::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_writer(std::io::stderr)
            .boxed(),
        Format::Text => fmt::layer()
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
    }
}

/// Begins to log.
pub(super) fn begin(level: Level, format: Format) -> Log {
    let (level, level_handle) = reload::Layer::new(filter(level));
    let (lines, lines_handle) = reload::Layer::new(lines(format));
    // A second agent in one process would find the first one's log: it is the same.
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(lines)
        .try_init();
    Log {
        level: level_handle,
        lines: lines_handle,
    }
}

impl Log {
    /// Logs like this from now on.
    pub(super) fn apply(&self, level: Level, format: Format) {
        // They fail only if the log is gone.
        let _ = self.level.reload(filter(level));
        let _ = self.lines.reload(lines(format));
    }
}
