//! Devices, neighbours and routes: rtnetlink (`linux/rtnetlink.h`).

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::netlink::message::{
    self, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE,
};
use super::netlink::{Said, Socket};
use super::{Error, Namespace};

/// How often a list is asked for that changes while it is read.
const ATTEMPTS: u32 = 5;
/// How many changes are sent at once: their answers must fit the socket's buffer.
const AT_ONCE: usize = 1_000;

/// Marks routes, rules and neighbours as ours, where devices have an alias. (`RTPROT_*`; those up
/// to 192 that are in use are in `/etc/iproute2/rt_protos`.)
pub(crate) const PROTOCOL: u8 = 0x57;

/// A change, and what may be the case already.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    message: RouteNetlinkMessage,
    flags: u16,
    tolerated: &'static [Errno],
}

impl Change {
    /// Makes something that must not be there yet.
    pub(crate) fn create(message: RouteNetlinkMessage) -> Self {
        Self {
            message,
            flags: NLM_F_CREATE | NLM_F_EXCL,
            tolerated: &[],
        }
    }

    /// Makes something, in place of what has the same key.
    pub(crate) fn replace(message: RouteNetlinkMessage) -> Self {
        Self {
            message,
            flags: NLM_F_CREATE | NLM_F_REPLACE,
            tolerated: &[],
        }
    }

    /// Changes something that is there.
    pub(crate) fn modify(message: RouteNetlinkMessage) -> Self {
        Self {
            message,
            flags: 0,
            tolerated: &[],
        }
    }

    /// Removes something, if it is there.
    pub(crate) fn remove(message: RouteNetlinkMessage) -> Self {
        let tolerated = &[
            Errno::NOENT,
            Errno::NODEV,
            Errno::SRCH,
            Errno::NXIO,
            Errno::ADDRNOTAVAIL,
        ];
        Self {
            message,
            flags: 0,
            tolerated,
        }
    }
}

/// A socket for rtnetlink.
pub(crate) struct Route {
    socket: Socket,
}

impl Route {
    pub(crate) fn open(namespace: &Namespace) -> Result<Self, Error> {
        let socket = Socket::open(namespace, NETLINK_ROUTE)?;
        Ok(Self { socket })
    }

    /// All objects of a kind. Those that the library cannot read are left out.
    pub(crate) fn list(
        &mut self,
        about: &str,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..ATTEMPTS {
            let mut bytes = Vec::new();
            let sequence = self.socket.next_sequence();
            write(&mut bytes, request, NLM_F_DUMP, sequence);
            let answers = self.socket.talk(&bytes)?;
            if answers.interrupted {
                continue;
            }
            let mut objects = Vec::new();
            for answer in answers.all {
                match answer.said {
                    Said::Object { kind, body } => objects.extend(read(kind, &body)),
                    Said::Done => {}
                    Said::Refused { errno, words } => {
                        let about = format!("to list {about}");
                        return Err(Error::refused(about, errno, words.as_deref()));
                    }
                }
            }
            return Ok(objects);
        }
        Err(Error::System {
            doing: format!("list {about}"),
            reason: "they change all the time".into(),
            gone: false,
        })
    }

    pub(crate) fn links(&mut self) -> Result<Vec<LinkMessage>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let all = self.list("the network devices", &request)?;
        let link = |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        };
        Ok(all.into_iter().filter_map(link).collect())
    }

    /// Makes changes, in order. One that is refused does not keep back the others; the first is
    /// told of, by its number in words from `describe`.
    pub(crate) fn change(
        &mut self,
        changes: &[Change],
        describe: impl Fn(usize) -> String,
    ) -> Result<(), Error> {
        let mut first = None;
        for (part, some) in changes.chunks(AT_ONCE).enumerate() {
            let mut bytes = Vec::new();
            let mut sequences = Vec::with_capacity(some.len());
            for (index, change) in some.iter().enumerate() {
                let sequence = self.socket.next_sequence();
                sequences.push(sequence);
                let ack = if index + 1 == some.len() {
                    NLM_F_ACK
                } else {
                    0
                };
                write(&mut bytes, &change.message, change.flags | ack, sequence);
            }
            for answer in self.socket.talk(&bytes)?.all {
                let Said::Refused { errno, words } = answer.said else {
                    continue;
                };
                let index = sequences
                    .iter()
                    .position(|sequence| *sequence == answer.sequence);
                let Some((index, change)) = index.map(|index| (index, &some[index])) else {
                    continue;
                };
                if change
                    .tolerated
                    .iter()
                    .any(|error| error.raw_os_error() == errno)
                {
                    continue;
                }
                let object = || describe(part * AT_ONCE + index);
                first.get_or_insert_with(|| Error::refused(object(), errno, words.as_deref()));
            }
        }
        first.map_or(Ok(()), Err)
    }
}

fn write(bytes: &mut Vec<u8>, message: &RouteNetlinkMessage, flags: u16, sequence: u32) {
    message::write(bytes, message.message_type(), flags, sequence, |out| {
        let start = out.len();
        out.resize(start + message.buffer_len(), 0);
        message.serialize(&mut out[start..]);
    });
}

fn read(kind: u16, body: &[u8]) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, body).ok()
}
