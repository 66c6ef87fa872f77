//! Netlink sockets, spoken to synchronously: the kernel has answered everything before `send`
//! returns, so that nothing here ever waits.

pub(crate) mod attributes;
pub(crate) mod message;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket as Raw, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force,
    set_socket_send_buffer_size, set_socket_send_buffer_size_force, set_socket_timeout,
    socket_send_buffer_size,
};
use rustix::net::{RecvFlags, SendFlags, recv, send};

pub(crate) use message::{Answer, Said};

use super::{Error, Namespace};

/// Room for answers: a batch that is refused as a whole has an answer for each of its messages.
const RECEIVE_ROOM: usize = 8 << 20;
/// The kernel fills at most 32 KiB of it at a time.
const BUFFER: usize = 64 << 10;
/// What the kernel's own structure takes of the room for one message.
const OVERHEAD: usize = 4 << 10;

/// A netlink socket of one namespace.
pub(crate) struct Socket {
    raw: Raw,
    sequence: u32,
    buffer: Vec<u8>,
}

/// All that was answered to one `send`.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) all: Vec<Answer>,
    /// `NLM_F_DUMP_INTR`: what was listed changed meanwhile.
    pub(crate) interrupted: bool,
}

impl Socket {
    /// Opens one in a namespace. It stays there, whoever uses it.
    pub(crate) fn open(namespace: &Namespace, protocol: isize) -> Result<Self, Error> {
        let raw = namespace.inside("open a netlink socket", || {
            let mut raw = match Raw::new(protocol) {
                Err(e) if e.raw_os_error() == Some(Errno::PROTONOSUPPORT.raw_os_error()) => {
                    return Ok(Err(e));
                }
                raw => raw?,
            };
            raw.bind_auto()?;
            raw.connect(&SocketAddr::new(0, 0))?;
            Ok(Ok(raw))
        })?;
        let raw = raw.map_err(|e| Error::NotSupported {
            what: match protocol {
                NETLINK_NETFILTER => "nftables",
                _ => "such netlink sockets",
            },
            reason: e.to_string(),
        })?;
        // What is not there on an old kernel costs words in errors, no more.
        let _ = raw.set_ext_ack(true);
        let _ = raw.set_cap_ack(true);
        let _ = raw.set_netlink_get_strict_chk(true);
        if set_socket_recv_buffer_size_force(raw.as_fd(), RECEIVE_ROOM).is_err() {
            let _ = set_socket_recv_buffer_size(raw.as_fd(), RECEIVE_ROOM);
        }
        Ok(Self {
            raw,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// The next free number for a message.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends messages in one piece, and takes all answers.
    pub(crate) fn talk(&mut self, messages: &[u8]) -> Result<Answers, Error> {
        self.make_room(messages.len());
        let sent = send(self.raw.as_fd(), messages, SendFlags::empty());
        sent.map_err(|error| Error::system("send to the kernel", error))?;
        let mut answers = Answers::default();
        loop {
            match recv(self.raw.as_fd(), &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, size)) => message::read(&self.buffer[..size], &mut answers),
                Err(Errno::AGAIN) => return Ok(answers),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::system("read the kernel's answer", error)),
            }
        }
    }

    /// Has the kernel tell of its own accord what happens in a group.
    pub(crate) fn join(&mut self, group: u32) -> Result<(), Error> {
        let joined = self.raw.add_membership(group);
        joined.map_err(|error| Error::system("listen to the kernel", error))
    }

    /// What the kernel has told of its own accord since; `None` if some of it was lost.
    pub(crate) fn told(&mut self) -> Result<Option<Answers>, Error> {
        let mut answers = Answers::default();
        let mut complete = true;
        loop {
            match recv(self.raw.as_fd(), &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, size)) => message::read(&self.buffer[..size], &mut answers),
                Err(Errno::AGAIN) => return Ok(complete.then_some(answers)),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => complete = false,
                Err(error) => return Err(Error::system("listen to the kernel", error)),
            }
        }
    }

    /// Waits for what the kernel tells of its own accord; nothing if there is nothing in this time.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<Answers, Error> {
        let patience = patience.max(Duration::from_millis(1)); // none at all would be for ever
        let mut answers = Answers::default();
        let failed = |error: Errno| Error::system("listen to the kernel", error);
        set_socket_timeout(self.raw.as_fd(), Timeout::Recv, Some(patience)).map_err(failed)?;
        match recv(self.raw.as_fd(), &mut self.buffer[..], RecvFlags::empty()) {
            Ok((_, size)) => message::read(&self.buffer[..size], &mut answers),
            // Some were lost because nobody listened for long.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(answers)
    }

    /// A batch must fit the socket's buffer as a whole.
    fn make_room(&self, size: usize) {
        let wanted = size.saturating_add(OVERHEAD);
        let room = socket_send_buffer_size(self.raw.as_fd()).unwrap_or(0);
        if room < wanted && set_socket_send_buffer_size_force(self.raw.as_fd(), wanted).is_err() {
            let _ = set_socket_send_buffer_size(self.raw.as_fd(), wanted);
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}
