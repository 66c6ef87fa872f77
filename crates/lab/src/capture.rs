//! What goes over the LAN, recorded: packet(7) sockets at all ports of the bridge.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with, sockopt,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the kernel keeps until it is read, in bytes: nothing must be missed on a busy machine.
const BUFFER: usize = 32 << 20;
/// How long a look for packets waits before it looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// All packets since [`Lab::capture`](crate::Lab::capture), as they are on the wire. It ends when
/// the value is dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Mutex<Recorded>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Recorded {
    packets: Vec<Vec<u8>>,
    over: bool,
}

fn lock(shared: &Mutex<Recorded>) -> MutexGuard<'_, Recorded> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Capture {
    /// Begins in a network namespace.
    pub(crate) fn start(namespace: &Path) -> Result<Self> {
        let file = File::open(namespace)
            .with_context(|| format!("cannot open {}", namespace.display()))?;
        // A thread has a network of its own, and a socket stays where it was made.
        let opened = std::thread::spawn(move || open(&file)).join();
        let socket = opened.map_err(|_| anyhow!("the thread that opens the socket panicked"))?;
        let socket = socket.context("cannot listen to the LAN")?;
        let shared = Arc::<Mutex<Recorded>>::default();
        let recorded = Arc::clone(&shared);
        let reader = std::thread::spawn(move || read(&socket, &recorded));
        Ok(Self {
            shared,
            reader: Some(reader),
        })
    }

    /// How many packets there were so far. One that passes several ports counts at each.
    pub fn count(&self) -> usize {
        lock(&self.shared).packets.len()
    }

    /// How many packets there were so far in which these bytes are.
    pub fn with(&self, bytes: &[u8]) -> usize {
        self.those_with(bytes).len()
    }

    /// The packets so far in which these bytes are.
    pub fn those_with(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let recorded = lock(&self.shared);
        let has = |packet: &&Vec<u8>| packet.windows(bytes.len()).any(|w| w == bytes);
        recorded.packets.iter().filter(has).cloned().collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        lock(&self.shared).over = true;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join(); // it has no result
        }
    }
}

fn open(namespace: &File) -> Result<OwnedFd> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(eth::ALL),
    )?;
    sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TURN))?;
    Ok(socket)
}

fn read(socket: &OwnedFd, recorded: &Mutex<Recorded>) {
    // The kernel may hand over as one what it is about to cut into packets.
    let mut buffer = vec![0; 1 << 17];
    while !lock(recorded).over {
        match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((read, _)) => {
                let packet = buffer[..read.min(buffer.len())].to_vec();
                lock(recorded).packets.push(packet);
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::NETDOWN) => {}
            Err(_) => return,
        }
    }
}
