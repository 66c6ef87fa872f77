//! Netlink attributes: length, kind, value, each at a multiple of four bytes.

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// Writes attributes to the end of a message. Numbers of nftables and conntrack are in network
/// order (`be`).
pub(crate) struct Attributes<'a>(pub(crate) &'a mut Vec<u8>);

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.write(kind, |out| out.extend_from_slice(value))
    }

    /// A text, ended by a zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.write(kind, |out| {
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        })
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u16_be(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn u64_be(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes in an attribute.
    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.write(kind | NLA_F_NESTED, |out| inner(&mut Attributes(out)))
    }

    fn write(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        value(self.0);
        // Callers keep lists short enough (`nft::batch`); a length that lies would be refused.
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// The attributes in bytes of the kernel: kind and value. Ends at what is not one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The value of the first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(seen, value)| (seen == kind).then_some(value))
}

/// A text of the kernel, up to its zero.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// A number in network order.
pub(crate) fn be_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A long number in network order.
pub(crate) fn be_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut out = Vec::new();
        Attributes(&mut out).text(1, "ab").nest(2, |inner| {
            inner.u32_be(3, 0x0102_0304).u8(4, 9);
        });
        let expected = [
            &7_u16.to_ne_bytes()[..],
            &1_u16.to_ne_bytes(),
            b"ab\0\0",
            &20_u16.to_ne_bytes(),
            &0x8002_u16.to_ne_bytes(),
            &8_u16.to_ne_bytes(),
            &3_u16.to_ne_bytes(),
            &[1, 2, 3, 4],
            &5_u16.to_ne_bytes(),
            &4_u16.to_ne_bytes(),
            &[9, 0, 0, 0],
        ];
        assert_eq!(out, expected.concat());
        let nested = attribute(&out, 2).unwrap();
        assert_eq!(attribute(nested, 3).and_then(be_u32), Some(0x0102_0304));
        assert_eq!(attribute(&out, 1).map(text).as_deref(), Some("ab"));
        assert_eq!(attribute(&out, 9), None);
    }
}
