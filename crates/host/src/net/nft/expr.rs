//! Expressions: what a rule is made of. Named as in `nft --debug=netlink`.

use super::super::netlink::attributes::Attributes;

/// One of the sixteen 32-bit registers (`NFT_REG32_00` and on). Long values take several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) u8);

impl Register {
    const FIRST: u32 = 8;

    fn number(self) -> u32 {
        Self::FIRST + u32::from(self.0)
    }
}

/// `enum nft_cmp_ops`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal = 0,
    Differs = 1,
}

/// `enum nft_meta_keys`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    /// The ethertype, in network order.
    Protocol = 1,
    Mark = 3,
    InName = 6,
    OutName = 7,
    Family = 15,
    Layer4 = 16,
}

/// `enum nft_ct_keys`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ct {
    State = 0,
    Direction = 1,
    Status = 2,
    Mark = 3,
}

/// `enum ip_conntrack_dir`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Original = 0,
    Reply = 1,
}

/// What of the header: `enum nft_payload_bases`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// `enum nft_nat_types`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NatKind {
    Destination,
}

/// `enum nft_reject_types`, with the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reject {
    TcpReset,
    /// `NFT_REJECT_ICMPX_PORT_UNREACH`, which both families have.
    PortUnreachable,
}

/// What is asked of the routing table: the kind of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fib {
    SourceType,
    DestinationType,
}

/// What becomes of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Goto(String),
    Jump(String),
}

/// A step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expr {
    Payload {
        base: Base,
        offset: u32,
        length: u32,
        to: Register,
    },
    Meta {
        key: Meta,
        to: Register,
    },
    SetMeta {
        key: Meta,
        from: Register,
    },
    Ct {
        key: Ct,
        to: Register,
    },
    SetCt {
        key: Ct,
        from: Register,
    },
    Cmp {
        from: Register,
        op: Compare,
        value: Vec<u8>,
    },
    Range {
        from: Register,
        low: Vec<u8>,
        high: Vec<u8>,
    },
    /// The bits of the mask stay, and then those of `flip`, if there are any, are turned over.
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        flip: Option<Vec<u8>>,
    },
    Lookup {
        set: String,
        from: Register,
        inverted: bool,
    },
    /// In a map: the value goes into `to`; of a verdict map it becomes the verdict (`None`).
    Map {
        map: String,
        from: Register,
        to: Option<Register>,
    },
    Immediate {
        to: Register,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    Counter,
    Log {
        prefix: String,
        group: Option<u16>,
    },
    /// So many a second at most, with as many at once.
    Limit {
        a_second: u64,
        at_once: u32,
    },
    Reject(Reject),
    /// Counts up, round and round.
    Next {
        modulus: u32,
        to: Register,
    },
    /// `jhash`
    Hash {
        from: Register,
        length: u32,
        modulus: u32,
        seed: u32,
        to: Register,
    },
    Nat {
        kind: NatKind,
        ipv6: bool,
        address: Register,
        port: Option<Register>,
    },
    Masquerade,
    /// Out by the device with this index, in tables of devices.
    Forward {
        device: Register,
    },
    Fib {
        of: Fib,
        to: Register,
    },
    /// A match of iptables (`linux/netfilter/nf_tables_compat.h`), for chains that it lists: it knows no
    /// other form. The bytes are the kernel's structure of that name and revision.
    Extension {
        name: &'static str,
        revision: u32,
        info: Vec<u8>,
    },
}

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFT_REG_VERDICT: u32 = 0;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_JUMP: u32 = 0_u32.wrapping_sub(3);
const NFT_GOTO: u32 = 0_u32.wrapping_sub(4);
const NFT_RETURN: u32 = 0_u32.wrapping_sub(5);

/// A value, as expressions and elements have it.
pub(super) fn value(attributes: &mut Attributes<'_>, kind: u16, bytes: &[u8]) {
    attributes.nest(kind, |data| {
        data.bytes(NFTA_DATA_VALUE, bytes);
    });
}

/// A verdict, as expressions and elements have it.
pub(super) fn verdict(attributes: &mut Attributes<'_>, kind: u16, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (NF_ACCEPT, None),
        Verdict::Drop => (NF_DROP, None),
        Verdict::Return => (NFT_RETURN, None),
        Verdict::Goto(chain) => (NFT_GOTO, Some(chain)),
        Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
    };
    attributes.nest(kind, |data| {
        data.nest(NFTA_DATA_VERDICT, |inner| {
            inner.u32_be(NFTA_VERDICT_CODE, code);
            if let Some(chain) = chain {
                inner.text(NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

impl Expr {
    /// Writes it as an element of a rule's list.
    pub(super) fn write(&self, list: &mut Attributes<'_>) {
        list.nest(NFTA_LIST_ELEM, |element| {
            element
                .text(NFTA_EXPR_NAME, self.name())
                .nest(NFTA_EXPR_DATA, |data| self.data(data));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Ct { .. } | Self::SetCt { .. } => "ct",
            Self::Cmp { .. } => "cmp",
            Self::Range { .. } => "range",
            Self::Bitwise { .. } => "bitwise",
            Self::Lookup { .. } | Self::Map { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Counter => "counter",
            Self::Log { .. } => "log",
            Self::Limit { .. } => "limit",
            Self::Reject(_) => "reject",
            Self::Next { .. } => "numgen",
            Self::Hash { .. } => "hash",
            Self::Nat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Forward { .. } => "fwd",
            Self::Fib { .. } => "fib",
            Self::Extension { .. } => "match",
        }
    }

    /// The attributes of each kind: the numbers are those of `enum nft_<name>_attributes`.
    fn data(&self, data: &mut Attributes<'_>) {
        match self {
            Self::Payload {
                base,
                offset,
                length,
                to,
            } => {
                data.u32_be(1, to.number()).u32_be(2, *base as u32);
                data.u32_be(3, *offset).u32_be(4, *length);
            }
            Self::Meta { key, to } => {
                data.u32_be(2, *key as u32).u32_be(1, to.number());
            }
            Self::SetMeta { key, from } => {
                data.u32_be(2, *key as u32).u32_be(3, from.number());
            }
            Self::Ct { key, to } => {
                data.u32_be(2, *key as u32).u32_be(1, to.number());
            }
            Self::SetCt { key, from } => {
                data.u32_be(2, *key as u32).u32_be(4, from.number());
            }
            Self::Cmp {
                from,
                op,
                value: bytes,
            } => {
                data.u32_be(1, from.number()).u32_be(2, *op as u32);
                value(data, 3, bytes);
            }
            Self::Range { from, low, high } => {
                data.u32_be(1, from.number()).u32_be(2, 0); // `NFT_RANGE_EQ`
                value(data, 3, low);
                value(data, 4, high);
            }
            Self::Bitwise {
                from,
                to,
                mask,
                flip,
            } => {
                let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
                data.u32_be(1, from.number()).u32_be(2, to.number());
                data.u32_be(3, length);
                value(data, 4, mask);
                let flip = flip.clone().unwrap_or_else(|| vec![0; mask.len()]);
                value(data, 5, &flip);
            }
            Self::Lookup {
                set,
                from,
                inverted,
            } => {
                data.text(1, set).u32_be(2, from.number());
                data.u32_be(5, u32::from(*inverted)); // `NFT_LOOKUP_F_INV`
            }
            Self::Map { map, from, to } => {
                data.text(1, map).u32_be(2, from.number());
                data.u32_be(3, to.map_or(NFT_REG_VERDICT, Register::number));
            }
            Self::Immediate { to, value: bytes } => {
                data.u32_be(1, to.number());
                value(data, 2, bytes);
            }
            Self::Verdict(said) => {
                data.u32_be(1, NFT_REG_VERDICT);
                verdict(data, 2, said);
            }
            Self::Counter => drop(data.u64_be(1, 0).u64_be(2, 0)),
            Self::Log { prefix, group } => {
                data.text(2, prefix);
                if let Some(group) = group {
                    data.u16_be(1, *group);
                }
            }
            Self::Limit { a_second, at_once } => {
                data.u64_be(1, *a_second).u64_be(2, 1);
                data.u32_be(3, *at_once).u32_be(4, 0); // packets, not bytes
            }
            Self::Reject(how) => {
                let (kind, code) = match how {
                    Reject::TcpReset => (1, 0),
                    Reject::PortUnreachable => (2, 1),
                };
                data.u32_be(1, kind).u8(2, code);
            }
            Self::Next { modulus, to } => {
                data.u32_be(1, to.number()).u32_be(2, *modulus);
                data.u32_be(3, 0).u32_be(4, 0); // `NFT_NG_INCREMENTAL`, no offset
            }
            Self::Hash {
                from,
                length,
                modulus,
                seed,
                to,
            } => {
                data.u32_be(1, from.number()).u32_be(2, to.number());
                data.u32_be(3, *length).u32_be(4, *modulus);
                data.u32_be(5, *seed).u32_be(6, 0).u32_be(7, 0); // no offset, `NFT_HASH_JENKINS`
            }
            Self::Nat {
                kind,
                ipv6,
                address,
                port,
            } => {
                let kind = match kind {
                    NatKind::Destination => 1,
                };
                data.u32_be(1, kind).u32_be(2, if *ipv6 { 10 } else { 2 });
                data.u32_be(3, address.number());
                if let Some(port) = port {
                    data.u32_be(5, port.number());
                }
            }
            Self::Masquerade => {}
            Self::Forward { device } => drop(data.u32_be(1, device.number())),
            Self::Fib { of, to } => {
                // `NFT_FIB_RESULT_ADDRTYPE` of `NFTA_FIB_F_SADDR` or `NFTA_FIB_F_DADDR`
                let (result, flags) = match of {
                    Fib::SourceType => (3, 1),
                    Fib::DestinationType => (3, 2),
                };
                data.u32_be(1, to.number())
                    .u32_be(2, result)
                    .u32_be(3, flags);
            }
            Self::Extension {
                name,
                revision,
                info,
            } => {
                data.text(1, name).u32_be(2, *revision).bytes(3, info);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(expr: &Expr) -> Vec<u8> {
        let mut out = Vec::new();
        expr.write(&mut Attributes(&mut out));
        out
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As captured from `nft add rule … ip daddr 10.0.0.1` (but that nft names register 1).
    #[test]
    #[cfg(target_endian = "little")]
    fn payload_and_cmp_are_encoded_as_nft_does() {
        let load = Expr::Payload {
            base: Base::Network,
            offset: 16,
            length: 4,
            to: Register(0),
        };
        let element = "34000180"; // 52 bytes, NFTA_LIST_ELEM, nested
        let name = "0c000100".to_owned() + "7061796c6f616400"; // "payload\0"
        let data = "24000280".to_owned()
            + "0800010000000008" // dreg
            + "0800020000000001" // network header
            + "0800030000000010"
            + "0800040000000004";
        assert_eq!(hex(&written(&load)), format!("{element}{name}{data}"));
        let compare = Expr::Cmp {
            from: Register(0),
            op: Compare::Equal,
            value: vec![10, 0, 0, 1],
        };
        let data = "20000280".to_owned()
            + "0800010000000008"
            + "0800020000000000"
            + "0c000380"
            + "08000100"
            + "0a000001";
        assert!(
            hex(&written(&compare)).ends_with(&data),
            "{}",
            hex(&written(&compare))
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_verdict_names_its_chain() {
        let go = Expr::Verdict(Verdict::Goto("web".into()));
        let data = "0800010000000000".to_owned() // the verdict register
            + "18000280" + "14000280"
            + "08000100fffffffc" // NFT_GOTO
            + "0800020077656200";
        assert!(
            hex(&written(&go)).ends_with(&data),
            "{}",
            hex(&written(&go))
        );
    }
}
