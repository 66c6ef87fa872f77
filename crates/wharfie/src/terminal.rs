//! The user's terminal: its size, and raw mode while a container has it.

use std::io;
use std::os::fd::AsFd;

use rustix::termios::{self, OptionalActions, Termios};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether a stream is a terminal.
pub(crate) fn is_terminal(stream: impl AsFd) -> bool {
    termios::isatty(stream)
}

/// Columns and rows of the terminal a stream is, if it is one.
pub(crate) fn size(stream: impl AsFd) -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Raw mode of standard input, until dropped.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Hands every key to us, unread by the terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = termios::tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin, OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone by now; there is nothing left to do about it.
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Tells when the terminal's size changes.
pub(crate) struct Resizes(Signal);

impl Resizes {
    /// From now on changes are seen.
    pub(crate) fn listen() -> io::Result<Self> {
        signal(SignalKind::window_change()).map(Self)
    }

    /// Waits for a change and returns the new size.
    pub(crate) async fn next(&mut self) -> (u16, u16) {
        loop {
            if self.0.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            if let Some(size) = size(rustix::stdio::stdout()) {
                return size;
            }
        }
    }
}
