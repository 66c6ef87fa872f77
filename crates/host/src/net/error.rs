//! What can go wrong with the kernel's network, in words for the user.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

/// A failure, with what it was about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel refused one object of ours.
    #[error("the kernel refused {object}: {reason}")]
    Refused {
        /// What was to be made, changed, removed or read.
        object: String,
        /// The kernel's words, and the error.
        reason: String,
        /// The error's number, from `errno.h`.
        errno: i32,
    },
    /// A part of the kernel is missing.
    #[error("this kernel has no {what}: {reason}")]
    NotSupported {
        /// What is missing.
        what: &'static str,
        /// What was seen.
        reason: String,
    },
    /// Something of the system failed.
    #[error("cannot {doing}: {reason}")]
    System {
        /// What was to be done.
        doing: String,
        /// Why not.
        reason: String,
        /// Whether what it was done to is not there (any more).
        gone: bool,
    },
    /// A bridge that an overlay is to be attached to is not there.
    #[error("there is no bridge {bridge} for the overlay {vni}")]
    NoBridge {
        /// The device's name.
        bridge: String,
        /// The overlay's number.
        vni: u32,
    },
    /// A VXLAN device of someone else is in the way.
    #[error(
        "the VXLAN device {device} (VNI {vni}, UDP port {port}) is not Wharfie's and is in the way of {wanted}: remove it, or give Wharfie another VXLAN port"
    )]
    ForeignVxlan {
        /// The other's device.
        device: String,
        /// Its VNI.
        vni: u32,
        /// Its UDP port.
        port: u16,
        /// Our device.
        wanted: String,
    },
    /// A device or table has a name of ours, but not our mark.
    #[error("{object} has a name that Wharfie uses but is not Wharfie's: rename or remove it")]
    Foreign {
        /// What it is.
        object: String,
    },
    /// A device that an address is to be on is not there.
    #[error("there is no network device {device} on this host")]
    NoDevice {
        /// Its name.
        device: String,
    },
    /// It is there, but down.
    #[error("the network device {device} is down")]
    DeviceDown {
        /// Its name.
        device: String,
    },
    /// An address that a service is to have is one of the host's already.
    #[error(
        "this host has the address {address} already (on {device}), and not from Wharfie: remove it there, or give the service another"
    )]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The device that has it.
        device: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn system(doing: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self::System {
            doing: doing.into(),
            gone: error.kind() == io::ErrorKind::NotFound,
            reason: error.to_string(),
        }
    }

    pub(crate) fn refused(object: impl Into<String>, errno: i32, words: Option<&str>) -> Self {
        let error = io::Error::from_raw_os_error(errno);
        Self::Refused {
            object: object.into(),
            reason: words.map_or_else(|| error.to_string(), |words| format!("{words} ({error})")),
            errno,
        }
    }

    /// Whether what was meant is not there (any more): the namespace, the device, the table.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Refused { errno, .. } => [Errno::NOENT, Errno::NODEV, Errno::NXIO, Errno::SRCH]
                .iter()
                .any(|gone| gone.raw_os_error() == *errno),
            Self::System { gone, .. } => *gone,
            Self::NoBridge { .. } | Self::NoDevice { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Refused { errno: seen, .. } if *seen == errno.raw_os_error())
    }
}
