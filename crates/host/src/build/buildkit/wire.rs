//! Protocol buffers, as little of them as BuildKit's messages need: two dozen fields do not
//! justify a code generator and the fifty crates around it.

/// A message being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80); // the low seven bits, and that more follow
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number; 0 is what a missing field means.
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
        self
    }

    /// Bytes, a text or an embedded message, also when empty.
    pub(super) fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A text; an empty one is what a missing field means.
    pub(super) fn text(self, field: u32, value: &str) -> Self {
        if value.is_empty() {
            return self;
        }
        self.bytes(field, value.as_bytes())
    }

    /// Entries of a map of texts.
    pub(super) fn map<'a>(
        self,
        field: u32,
        entries: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        entries.into_iter().fold(self, |message, (key, value)| {
            let entry = Self::default().text(1, key).text(2, value);
            message.bytes(field, &entry.done())
        })
    }

    /// The message.
    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number of any width.
    Number(u64),
    /// Bytes, a text or an embedded message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// As bytes; a number has none.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }

    /// As text; what is not UTF-8 in it is replaced.
    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// As a number; bytes are none.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }
}

/// The fields of a message in their order; it ends where the message is malformed.
pub(super) struct Fields<'a>(&'a [u8]);

/// Reads a message.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(u64::from(u32::from_le_bytes(
                self.take(4)?.try_into().ok()?,
            ))),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let map = [("k".to_owned(), "v".to_owned())];
        let inner = Message::default().number(1, u64::MAX).done();
        let message = Message::default()
            .number(1, 300)
            .number(2, 0)
            .text(3, "text")
            .text(4, "")
            .bytes(5, &inner)
            .map(16, map.iter().map(|(k, v)| (k, v)))
            .done();
        assert_eq!(message[..3], [0x08, 0xac, 0x02]);
        let read: Vec<_> = fields(&message).collect();
        assert_eq!(read[0], (1, Value::Number(300)));
        assert_eq!(read[1], (3, Value::Bytes(b"text")));
        assert_eq!(
            fields(read[2].1.bytes()).next(),
            Some((1, Value::Number(u64::MAX)))
        );
        assert_eq!(read[3].0, 16);
        assert_eq!(
            fields(read[3].1.bytes())
                .map(|(_, v)| v.text())
                .collect::<Vec<_>>(),
            ["k", "v"]
        );
        assert_eq!(read.len(), 4);
    }

    #[test]
    fn malformed_messages_end() {
        for bad in [&[0x0a, 5, 1][..], &[0xff; 12], &[0x0b], &[0x09, 1]] {
            assert_eq!(fields(bad).count(), 0, "{bad:?}");
        }
    }
}
