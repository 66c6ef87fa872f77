//! Waiting for a file.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ready {
    Read,
    Write,
}

/// Waits until a file is ready, at most so long; whether it is.
pub(crate) fn until(file: BorrowedFd<'_>, ready: Ready, longest: Duration) -> io::Result<bool> {
    let flags = match ready {
        Ready::Read => PollFlags::IN,
        Ready::Write => PollFlags::OUT,
    };
    let timeout = Timespec::try_from(longest).map_err(io::Error::other)?;
    match poll(&mut [PollFd::from_borrowed_fd(file, flags)], Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
