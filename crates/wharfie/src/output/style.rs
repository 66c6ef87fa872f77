//! Colours. What is written through `anstream` loses them where they are not wanted.

use anstyle::{AnsiColor, Effects, Style};

/// The word `error`.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// The word `warning`.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().effects(Effects::BOLD);
/// The word `help`.
pub(crate) const HELP: Style = AnsiColor::Cyan.on_default();
/// What is done.
pub(crate) const DONE: Style = AnsiColor::Green.on_default();
/// What goes on.
pub(crate) const WORKING: Style = AnsiColor::Yellow.on_default();
/// Times and counts.
pub(crate) const QUIET: Style = AnsiColor::Blue.on_default();
/// What failed.
pub(crate) const FAILED: Style = AnsiColor::Red.on_default();

/// The colours that containers get in turn.
const RAINBOW: [AnsiColor; 5] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
];

/// The colour of the n-th container.
pub(crate) fn rainbow(n: usize) -> Style {
    let style = RAINBOW[n % RAINBOW.len()].on_default();
    if (n / RAINBOW.len()).is_multiple_of(2) {
        style
    } else {
        style.effects(Effects::BOLD)
    }
}

/// When colours and cursor movements are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ansi {
    /// Nowhere.
    Never,
    /// Everywhere.
    Always,
    /// On terminals, unless `NO_COLOR` is set.
    #[default]
    Auto,
}

impl Ansi {
    /// Makes this the choice of the whole process.
    pub(crate) fn apply(self) {
        match self {
            Self::Never => anstream::ColorChoice::Never,
            Self::Always => anstream::ColorChoice::Always,
            Self::Auto => anstream::ColorChoice::Auto,
        }
        .write_global();
    }
}

/// Whether standard output shows colours.
pub(crate) fn stdout_has_colour() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}
