//! The network device (`linux/if_tun.h`): packets in big pieces, with what a network card would
//! have to know before each.
//!
//! It has Ethernet headers (TAP) where none were needed, since the kernel takes big packets in a
//! UDP tunnel from no other kind (`virtio_net_hdr_tnl_to_skb` counts them in, Linux 6.17). Nobody
//! asks for hardware addresses on it: the one that sets it up switches that off (`IFF_NOARP`).
#![allow(unsafe_code)] // the ioctls of such a device have no safe form

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{IntegerSetter, Setter, Updater, ioctl, opcode};

use crate::vnet;

/// `IFNAMSIZ`.
const NAME: usize = 16;
const IFF_TAP: u16 = 2;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const CSUM: usize = 1;
const TSO: usize = 2 | 4;
const TSO_ECN: usize = 8;
/// Since Linux 6.2.
const USO: usize = 0x20 | 0x40;
/// Since Linux 6.17.
const UDP_TUNNEL: usize = 0x80 | 0x100;

/// `linux/sockios.h`
const SIOCGIFHWADDR: u32 = 0x8927;

/// `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    flags: u16,
    rest: [u8; 22],
}

/// One queue of a device. The kernel puts a flow into one of them.
pub(crate) struct Queue {
    file: OwnedFd,
    /// Whether big packets in a UDP tunnel pass.
    pub(crate) tunnels: bool,
    /// The device's hardware address, which packets for the host have.
    pub(crate) address: [u8; 6],
}

/// Makes a device with so many queues. It is gone when all are closed.
pub(crate) fn open(name: &str, queues: usize) -> io::Result<Vec<Queue>> {
    (0..queues).map(|_| Queue::open(name, queues > 1)).collect()
}

impl Queue {
    fn open(name: &str, many: bool) -> io::Result<Self> {
        if name.is_empty() || name.len() >= NAME || name.bytes().any(|b| b == b'/' || b == b'%') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("no device can be called {name:?}"),
            ));
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let mut request = Request {
            name: [0; NAME],
            flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | if many { IFF_MULTI_QUEUE } else { 0 },
            rest: [0; 22],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        let number = |value: usize| i32::try_from(value).unwrap_or_default();
        // SAFETY: TUNSETIFF reads and writes a `struct ifreq` (40 bytes on 64 bit), which this is; the
        // others read an int or take a number.
        let (tunnels, address) = unsafe {
            ioctl(
                &file,
                Updater::<{ opcode::write::<i32>(b'T', 202) }, Request>::new(&mut request),
            )?;
            ioctl(
                &file,
                Setter::<{ opcode::write::<i32>(b'T', 220) }, i32>::new(1), // TUNSETVNETLE
            )?;
            ioctl(
                &file,
                Setter::<{ opcode::write::<i32>(b'T', 216) }, i32>::new(number(vnet::LENGTH)),
            )?;
            let offload = |features| {
                ioctl(
                    &file,
                    IntegerSetter::<{ opcode::write::<u32>(b'T', 208) }>::new_usize(features),
                )
            };
            let least = CSUM | TSO | TSO_ECN;
            let tunnels = offload(least | USO | UDP_TUNNEL).is_ok();
            if !tunnels && offload(least | USO).is_err() {
                offload(least)?;
            }
            // SIOCGIFHWADDR: a `struct sockaddr`, whose family is where flags were.
            ioctl(&file, Updater::<SIOCGIFHWADDR, Request>::new(&mut request))?;
            let mut address = [0; 6];
            address.copy_from_slice(&request.rest[..6]);
            (tunnels, address)
        };
        Ok(Self {
            file,
            tunnels,
            address,
        })
    }

    /// Reads one packet, with what is before it; nothing if there is none.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.file, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes one packet, with what is before it.
    pub(crate) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(&self.file, parts)?;
        Ok(())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
