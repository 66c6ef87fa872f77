//! Rules, put together from matches that read as nft writes them.

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::super::Mac;
use super::super::netlink::attributes::Attributes;
use super::MARK;
use super::expr::{
    Base, Compare, Ct, Direction, Expr, Fib, Meta, NatKind, Register, Reject, Verdict,
};
use super::field::{Field, Type};

/// A rule: its steps, and a note for whoever lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(super) steps: Vec<Expr>,
    note: String,
}

/// Where matches load what they compare.
const SCRATCH: Register = Register(0);
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;
/// `IP_CT_NEW`, `_ESTABLISHED`, `_RELATED` as bits of `ct state`.
const ESTABLISHED_OR_RELATED: u32 = 0b0110;
const NEW: u32 = 0b1000;
/// `IPS_DST_NAT`
const STATUS_DNAT: u32 = 1 << 5;
/// `IP_CT_DIR_ORIGINAL` and so on are one byte.
const NOTE_LIMIT: usize = 200;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Words for whoever lists the rule.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(crate) fn step(mut self, step: Expr) -> Self {
        self.steps.push(step);
        self
    }

    pub(crate) fn steps(mut self, steps: impl IntoIterator<Item = Expr>) -> Self {
        self.steps.extend(steps);
        self
    }

    fn equals(self, load: Expr, value: impl Into<Vec<u8>>) -> Self {
        self.step(load).step(Expr::Cmp {
            from: SCRATCH,
            op: Compare::Equal,
            value: value.into(),
        })
    }

    /// Only one family: must stand before a look at an address, in tables of both.
    pub(crate) fn family(self, ipv6: bool) -> Self {
        let family = if ipv6 { IPV6 } else { IPV4 };
        self.equals(meta(Meta::Family), [family])
    }

    /// The same in tables of the bridge, which tell by the ethertype.
    pub(crate) fn ethertype(self, ipv6: bool) -> Self {
        let ethertype: u16 = if ipv6 { 0x86dd } else { 0x0800 };
        self.equals(meta(Meta::Protocol), ethertype.to_be_bytes())
    }

    pub(crate) fn protocol(self, protocol: u8) -> Self {
        self.equals(meta(Meta::Layer4), [protocol])
    }

    pub(crate) fn in_interface(self, name: &str) -> Self {
        self.equals(meta(Meta::InName), interface(name))
    }

    pub(crate) fn not_in_interface(self, name: &str) -> Self {
        self.step(meta(Meta::InName)).step(Expr::Cmp {
            from: SCRATCH,
            op: Compare::Differs,
            value: Field::Interface(name.to_owned()).bytes(),
        })
    }

    pub(crate) fn not_out_interface(self, name: &str) -> Self {
        self.step(meta(Meta::OutName)).step(Expr::Cmp {
            from: SCRATCH,
            op: Compare::Differs,
            value: Field::Interface(name.to_owned()).bytes(),
        })
    }

    pub(crate) fn out_interface(self, name: &str) -> Self {
        self.equals(meta(Meta::OutName), interface(name))
    }

    pub(crate) fn destination_port(self, port: u16) -> Self {
        self.equals(port_load(SCRATCH), port.to_be_bytes())
    }

    pub(crate) fn destination_ports(self, low: u16, high: u16) -> Self {
        self.step(port_load(SCRATCH)).step(Expr::Range {
            from: SCRATCH,
            low: low.to_be_bytes().to_vec(),
            high: high.to_be_bytes().to_vec(),
        })
    }

    /// The source or destination lies in a subnet.
    pub(crate) fn within(self, end: End, subnet: IpNet) -> Self {
        let load = self.step(address_load(end, subnet.addr().is_ipv6(), SCRATCH));
        let masked = if subnet.prefix_len() == subnet.max_prefix_len() {
            load
        } else {
            load.step(Expr::Bitwise {
                from: SCRATCH,
                to: SCRATCH,
                mask: Field::from(subnet.netmask()).bytes(),
                flip: None,
            })
        };
        masked.step(Expr::Cmp {
            from: SCRATCH,
            op: Compare::Equal,
            value: Field::from(subnet.network()).bytes(),
        })
    }

    /// An ICMPv6 message of a range of kinds.
    pub(crate) fn icmpv6_types(self, low: u8, high: u8) -> Self {
        let load = Expr::Payload {
            base: Base::Transport,
            offset: 0,
            length: 1,
            to: SCRATCH,
        };
        self.protocol(ICMPV6).step(load).step(Expr::Range {
            from: SCRATCH,
            low: vec![low],
            high: vec![high],
        })
    }

    /// What is loaded is, or is not, in a set.
    pub(crate) fn in_set(self, load: &[Load], set: &str, is: bool) -> Self {
        self.steps(loads(load)).step(Expr::Lookup {
            set: set.to_owned(),
            from: SCRATCH,
            inverted: !is,
        })
    }

    /// What is loaded says in a map what becomes of the packet; if it is not there, the next rule
    /// does.
    pub(crate) fn verdict_map(self, load: &[Load], map: &str) -> Self {
        self.steps(loads(load)).step(Expr::Map {
            map: map.to_owned(),
            from: SCRATCH,
            to: None,
        })
    }

    /// What is loaded has a number in one map, which says in another what becomes of the packet; the key
    /// there is zero and the number. So
    /// elements come to the first at the same cost whatever is in it; of a map with verdicts the
    /// kernel goes through all each time one comes.
    pub(crate) fn numbered_verdict(self, load: &[Load], numbers: &str, verdicts: &str) -> Self {
        let map = |map: &str, from, to| Expr::Map {
            map: map.to_owned(),
            from,
            to,
        };
        // Beside what is loaded. `nft` does not know how long that is which comes out of a map: it would
        // look for the rest of the next key behind it, and abort, whoever lists whatever rules. It
        // does know how long the zeros were into which the number is put.
        let (key, number) = (Register(4), Register(5));
        let rule = self.steps(loads(load)).step(Expr::Immediate {
            to: key,
            value: vec![0; 8],
        });
        let rule = rule.step(map(numbers, SCRATCH, Some(number)));
        rule.step(map(verdicts, key, None))
    }

    fn any_bit(self, load: Expr, bits: u32) -> Self {
        let mask = bits.to_ne_bytes().to_vec();
        let bitwise = Expr::Bitwise {
            from: SCRATCH,
            to: SCRATCH,
            mask,
            flip: None,
        };
        self.step(load).step(bitwise).step(Expr::Cmp {
            from: SCRATCH,
            op: Compare::Differs,
            value: vec![0; 4],
        })
    }

    pub(crate) fn established(self) -> Self {
        self.any_bit(ct(Ct::State), ESTABLISHED_OR_RELATED)
    }

    pub(crate) fn begins_connection(self) -> Self {
        self.any_bit(ct(Ct::State), NEW)
    }

    pub(crate) fn direction(self, direction: Direction) -> Self {
        self.equals(ct(Ct::Direction), [direction as u8])
    }

    /// The connection's destination was replaced, as for published ports.
    pub(crate) fn destination_was_changed(self) -> Self {
        self.any_bit(ct(Ct::Status), STATUS_DNAT)
    }

    /// The destination was not replaced.
    pub(crate) fn destination_was_kept(self) -> Self {
        let mask = STATUS_DNAT.to_ne_bytes().to_vec();
        let bitwise = Expr::Bitwise {
            from: SCRATCH,
            to: SCRATCH,
            mask,
            flip: None,
        };
        self.step(ct(Ct::Status)).step(bitwise).step(Expr::Cmp {
            from: SCRATCH,
            op: Compare::Equal,
            value: vec![0; 4],
        })
    }

    /// The destination is an address of this host.
    pub(crate) fn for_this_host(self) -> Self {
        let fib = Expr::Fib {
            of: Fib::DestinationType,
            to: SCRATCH,
        };
        self.equals(fib, LOCAL.to_ne_bytes())
    }

    /// The source is an address of this host.
    pub(crate) fn sent_by_this_host(self) -> Self {
        let fib = Expr::Fib {
            of: Fib::SourceType,
            to: SCRATCH,
        };
        self.equals(fib, LOCAL.to_ne_bytes())
    }

    pub(crate) fn counter(self) -> Self {
        self.step(Expr::Counter)
    }

    pub(crate) fn log(self, prefix: impl Into<String>, group: Option<u16>) -> Self {
        let prefix = prefix.into();
        self.step(Expr::Log { prefix, group })
    }

    pub(crate) fn limit(self, a_second: u64, at_once: u32) -> Self {
        self.step(Expr::Limit { a_second, at_once })
    }

    pub(crate) fn reject(self, how: Reject) -> Self {
        self.step(Expr::Reject(how))
    }

    pub(crate) fn verdict(self, verdict: Verdict) -> Self {
        self.step(Expr::Verdict(verdict))
    }

    pub(crate) fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    pub(crate) fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    /// The destination becomes what a map has at some fields and a number that is drawn.
    pub(crate) fn dnat(
        self,
        fields: &[Load],
        draw: Draw,
        map: &str,
        ipv6: bool,
        port: NewPort,
    ) -> Self {
        let next = fields.iter().map(|field| field.kind().registers()).sum();
        let rule = self
            .steps(loads(fields))
            .steps(draw.steps(Register(next)))
            .step(Expr::Map {
                map: map.to_owned(),
                from: SCRATCH,
                to: Some(SCRATCH),
            });
        let behind = Register(if ipv6 { Type::Ip6 } else { Type::Ip4 }.registers());
        let immediate = |port: u16| Expr::Immediate {
            to: behind,
            value: port.to_be_bytes().to_vec(),
        };
        let (given, register) = match port {
            NewPort::Same => (None, None),
            NewPort::Given(port) => (Some(immediate(port)), Some(behind)),
            NewPort::FromMap => (None, Some(behind)),
        };
        rule.steps(given).step(Expr::Nat {
            kind: NatKind::Destination,
            ipv6,
            address: SCRATCH,
            port: register,
        })
    }

    /// The connection gets the mark that a map has at some fields.
    pub(crate) fn mark_connection(self, fields: &[Load], map: &str) -> Self {
        let lookup = Expr::Map {
            map: map.to_owned(),
            from: SCRATCH,
            to: Some(SCRATCH),
        };
        self.steps(loads(fields)).step(lookup).step(Expr::SetCt {
            key: Ct::Mark,
            from: SCRATCH,
        })
    }

    /// The connection has one of our marks: some bits are as given.
    pub(crate) fn connection_mark(self, mask: u32, mark: u32) -> Self {
        let masked = Expr::Bitwise {
            from: SCRATCH,
            to: SCRATCH,
            mask: mask.to_ne_bytes().to_vec(),
            flip: None,
        };
        self.step(ct(Ct::Mark)).equals(masked, mark.to_ne_bytes())
    }

    /// The connection gets one of our marks: some bits become as given, the others stay.
    pub(crate) fn set_connection_mark(self, mask: u32, mark: u32) -> Self {
        let bits = Expr::Bitwise {
            from: SCRATCH,
            to: SCRATCH,
            mask: (!mask).to_ne_bytes().to_vec(),
            flip: Some((mark & mask).to_ne_bytes().to_vec()),
        };
        self.step(ct(Ct::Mark)).step(bits).step(Expr::SetCt {
            key: Ct::Mark,
            from: SCRATCH,
        })
    }

    /// The packet gets the connection's mark.
    pub(crate) fn restore_mark(self) -> Self {
        self.step(ct(Ct::Mark)).step(Expr::SetMeta {
            key: Meta::Mark,
            from: SCRATCH,
        })
    }

    /// The source becomes an address of the device that the packet leaves by.
    pub(crate) fn masquerade(self) -> Self {
        self.step(Expr::Masquerade)
    }

    /// The packet is for this hardware address.
    pub(crate) fn destination_mac(self, mac: Mac) -> Self {
        self.equals(Load::DestinationMac.step(SCRATCH), mac.0)
    }

    /// The packet is for several: its hardware address is a group's.
    pub(crate) fn for_group(self) -> Self {
        let load = Expr::Payload {
            base: Base::Link,
            offset: 0,
            length: 1,
            to: SCRATCH,
        };
        let bit = Expr::Bitwise {
            from: SCRATCH,
            to: SCRATCH,
            mask: vec![1],
            flip: None,
        };
        self.step(load).equals(bit, [1])
    }

    /// The packet leaves by a device.
    pub(crate) fn forward(self, device: u32) -> Self {
        let value = device.to_ne_bytes().to_vec();
        self.step(Expr::Immediate { to: SCRATCH, value })
            .step(Expr::Forward { device: SCRATCH })
    }

    /// The packet leaves by the device that a map has at some fields; if there is none, the next
    /// rule says what becomes of it.
    pub(crate) fn forward_by(self, fields: &[Load], map: &str) -> Self {
        let lookup = Expr::Map {
            map: map.to_owned(),
            from: SCRATCH,
            to: Some(SCRATCH),
        };
        let forward = Expr::Forward { device: SCRATCH };
        self.steps(loads(fields)).step(lookup).step(forward)
    }

    /// The steps as bytes: the list of a rule message.
    pub(super) fn write(&self, list: &mut Attributes<'_>) {
        for step in &self.steps {
            step.write(list);
        }
    }

    /// The comment: the note, our mark, and a number made of the steps. A rule that someone
    /// changed or put in has another, or none.
    pub(super) fn comment(&self) -> String {
        let mut bytes = Vec::new();
        self.write(&mut Attributes(&mut bytes));
        let digest = Sha256::digest(&bytes);
        let tag = format!(
            "{MARK} {:02x}{:02x}{:02x}{:02x}",
            digest[0], digest[1], digest[2], digest[3]
        );
        if self.note.is_empty() {
            return tag;
        }
        let note: String = self.note.chars().take(NOTE_LIMIT / 4).collect();
        format!("{note} ({tag})")
    }
}

/// The destination port of a packet whose destination is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewPort {
    Same,
    Given(u16),
    /// It follows the address in the map.
    FromMap,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// What is loaded into the registers, one after another, to look it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Address {
        end: End,
        ipv6: bool,
    },
    Protocol,
    DestinationPort,
    InInterface,
    OutInterface,
    SourceMac,
    DestinationMac,
    /// This number.
    Given(u32),
}

/// A name to compare with; a `*` at its end stands for anything.
fn interface(name: &str) -> Vec<u8> {
    match name.strip_suffix('*') {
        Some(beginning) => beginning.as_bytes().to_vec(),
        None => Field::Interface(name.to_owned()).bytes(),
    }
}

impl Load {
    fn kind(self) -> Type {
        match self {
            Self::Address { ipv6: false, .. } => Type::Ip4,
            Self::Address { ipv6: true, .. } => Type::Ip6,
            Self::Protocol => Type::Protocol,
            Self::DestinationPort => Type::Port,
            Self::InInterface | Self::OutInterface => Type::Interface,
            Self::SourceMac | Self::DestinationMac => Type::Mac,
            Self::Given(_) => Type::Mark,
        }
    }

    fn step(self, to: Register) -> Expr {
        let meta = |key| Expr::Meta { key, to };
        match self {
            Self::Address { end, ipv6 } => address_load(end, ipv6, to),
            Self::Protocol => meta(Meta::Layer4),
            Self::DestinationPort => port_load(to),
            Self::InInterface => meta(Meta::InName),
            Self::OutInterface => meta(Meta::OutName),
            Self::SourceMac | Self::DestinationMac => Expr::Payload {
                base: Base::Link,
                offset: if self == Self::SourceMac { 6 } else { 0 },
                length: 6,
                to,
            },
            Self::Given(number) => Expr::Immediate {
                to,
                value: number.to_ne_bytes().to_vec(),
            },
        }
    }
}

fn loads(fields: &[Load]) -> Vec<Expr> {
    let mut next = SCRATCH.0;
    let step = |field: &Load| {
        let step = field.step(Register(next));
        next += field.kind().registers();
        step
    };
    fields.iter().map(step).collect()
}

fn meta(key: Meta) -> Expr {
    Expr::Meta { key, to: SCRATCH }
}

fn ct(key: Ct) -> Expr {
    Expr::Ct { key, to: SCRATCH }
}

fn address_load(end: End, ipv6: bool, to: Register) -> Expr {
    let (offset, length) = match (end, ipv6) {
        (End::Source, false) => (12, 4),
        (End::Destination, false) => (16, 4),
        (End::Source, true) => (8, 16),
        (End::Destination, true) => (24, 16),
    };
    Expr::Payload {
        base: Base::Network,
        offset,
        length,
        to,
    }
}

/// TCP, UDP, SCTP, DCCP and UDP-Lite all have the destination port at the same place.
fn port_load(to: Register) -> Expr {
    Expr::Payload {
        base: Base::Transport,
        offset: 2,
        length: 2,
        to,
    }
}

/// How a number below a modulus is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draw {
    /// One after another.
    InTurn(u32),
    /// By the hash of the source address.
    BySource { modulus: u32, ipv6: bool },
}

impl Draw {
    fn steps(self, to: Register) -> Vec<Expr> {
        /// Any number, but the same for good: another would send clients elsewhere.
        const SEED: u32 = 0x7768_6172;
        // Not in place: the kernel refuses a hash whose source and destination overlap.
        const FROM: Register = Register(8);
        match self {
            Self::InTurn(modulus) => vec![Expr::Next { modulus, to }],
            Self::BySource { modulus, ipv6 } => {
                let length = if ipv6 { 16 } else { 4 };
                let hash = Expr::Hash {
                    from: FROM,
                    length,
                    modulus,
                    seed: SEED,
                    to,
                };
                vec![address_load(End::Source, ipv6, FROM), hash]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_tells_one_rule_from_another() {
        let rule = Rule::new().protocol(TCP).destination_port(80).accept();
        let other = Rule::new().protocol(TCP).destination_port(81).accept();
        assert_eq!(rule.comment(), rule.clone().comment());
        assert_ne!(rule.comment(), other.comment());
        assert!(rule.comment().starts_with("wharfie "));
        let noted = rule.clone().note("web".repeat(200)).comment();
        assert!(noted.starts_with("webweb") && noted.len() < 254, "{noted}");
    }

    #[test]
    fn fields_are_loaded_one_after_another() {
        let ipv6 = true;
        let load = [
            Load::Address {
                end: End::Destination,
                ipv6,
            },
            Load::Protocol,
            Load::DestinationPort,
        ];
        let steps = loads(&load);
        let places: Vec<u8> = steps
            .iter()
            .map(|step| match step {
                Expr::Payload { to, .. } | Expr::Meta { to, .. } => to.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(places, [0, 4, 5]);
    }
}
