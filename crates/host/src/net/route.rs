//! Devices, neighbours and routes: rtnetlink (`linux/rtnetlink.h`).

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
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

/// `linux/rtnetlink.h`, `linux/netlink.h`.
const RTM_NEWLINK: u16 = 16;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Marks routes, rules and neighbours as ours, where devices have an alias. (`RTPROT_*`; those up
/// to 192 that are in use are in `/etc/iproute2/rt_protos`.)
pub(crate) const PROTOCOL: u8 = 0x57;

/// Bytes of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// What is read of devices: `IFLA_ADDRESS`, `IFLA_IFNAME`, `IFLA_MTU`, `IFLA_LINK`, `IFLA_MASTER`,
/// `IFLA_LINKINFO`, `IFLA_IFALIAS`. The rest is left out before the library sees it: for each attribute, counters
/// above all, it writes down what to say if it cannot be read, which takes longer than all else.
const OF_LINKS: [u16; 7] = [1, 3, 4, 5, 10, 18, 20];

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
                    Said::Object {
                        kind: kind @ RTM_NEWLINK,
                        body,
                    } => objects.extend(read(kind, &shortened(&body))),
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

    /// All routing rules, then all routes, of IPv4 and then of IPv6.
    pub(crate) fn rules_and_routes(&mut self) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut seen = Vec::new();
        for ipv6 in [false, true] {
            let mut rules = RuleMessage::default();
            rules.header.family = family(ipv6);
            let rules = RouteNetlinkMessage::GetRule(rules);
            let mut routes = RouteMessage::default();
            routes.header.address_family = family(ipv6);
            let routes = RouteNetlinkMessage::GetRoute(routes);
            seen.extend(self.list("the routing rules", &rules)?);
            seen.extend(self.list("the routes", &routes)?);
        }
        Ok(seen)
    }

    /// One object: what the kernel answers to a question for it.
    pub(crate) fn one(
        &mut self,
        about: impl FnOnce() -> String,
        request: &RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let mut bytes = Vec::new();
        let sequence = self.socket.next_sequence();
        write(&mut bytes, request, 0, sequence);
        for answer in self.socket.talk(&bytes)?.all {
            match answer.said {
                Said::Object { kind, body } => {
                    let body = if kind == RTM_NEWLINK {
                        shortened(&body)
                    } else {
                        body
                    };
                    return Ok(read(kind, &body));
                }
                Said::Done => {}
                Said::Refused { errno, words } => {
                    let about = format!("to look up {}", about());
                    return Err(Error::refused(about, errno, words.as_deref()));
                }
            }
        }
        Ok(None)
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

    /// One device, without a look at the others.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let mut request = LinkMessage::default();
        request.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let mut bytes = Vec::new();
        let sequence = self.socket.next_sequence();
        let request = RouteNetlinkMessage::GetLink(request);
        write(&mut bytes, &request, NLM_F_ACK, sequence);
        for answer in self.socket.talk(&bytes)?.all {
            match answer.said {
                Said::Object { kind, body } => {
                    if let Some(RouteNetlinkMessage::NewLink(link)) = read(kind, &shortened(&body))
                    {
                        return Ok(Some(link));
                    }
                }
                Said::Done => {}
                Said::Refused { errno, .. } if errno == Errno::NODEV.raw_os_error() => {
                    return Ok(None);
                }
                Said::Refused { errno, words } => {
                    let about = format!("to look at the device {name}");
                    return Err(Error::refused(about, errno, words.as_deref()));
                }
            }
        }
        Ok(None)
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

pub(crate) fn family(ipv6: bool) -> AddressFamily {
    match ipv6 {
        true => AddressFamily::Inet6,
        false => AddressFamily::Inet,
    }
}

fn write(bytes: &mut Vec<u8>, message: &RouteNetlinkMessage, flags: u16, sequence: u32) {
    message::write(bytes, message.message_type(), flags, sequence, |out| {
        let start = out.len();
        out.resize(start + message.buffer_len(), 0);
        message.serialize(&mut out[start..]);
    });
}

/// A device without the attributes that nobody reads.
fn shortened(body: &[u8]) -> Vec<u8> {
    let Some((header, mut rest)) = body.split_at_checked(LINK_HEADER) else {
        return body.to_vec();
    };
    let mut short = header.to_vec();
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK;
        let padded = length.next_multiple_of(4).clamp(4, rest.len());
        let (attribute, others) = rest.split_at(padded);
        if OF_LINKS.contains(&kind) {
            short.extend_from_slice(attribute);
        }
        rest = others;
    }
    short
}

/// The change of a device that the kernel told of.
pub(crate) fn told(kind: u16, body: &[u8]) -> Option<RouteNetlinkMessage> {
    read(kind, &shortened(body))
}

fn read(kind: u16, body: &[u8]) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_devices_only_what_is_needed_is_read() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        let (name, mtu) = (
            LinkAttribute::IfName("wbr1".into()),
            LinkAttribute::Mtu(1450),
        );
        let address = LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]);
        let kept = [name.clone(), address.clone(), mtu.clone()];
        let others = [
            LinkAttribute::TxQueueLen(1),
            LinkAttribute::Qdisc("x".into()),
        ];
        let [queue, discipline] = others;
        link.attributes = vec![queue, name, discipline, address, mtu];
        let message = RouteNetlinkMessage::NewLink(link);
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        let Some(RouteNetlinkMessage::NewLink(read)) = read(RTM_NEWLINK, &shortened(&body)) else {
            panic!("it cannot be read");
        };
        assert_eq!((read.header.index, read.attributes), (7, kept.to_vec()));
        // What is cut off is not read further than it goes.
        for length in 0..body.len() {
            shortened(&body[..length]);
        }
    }
}
