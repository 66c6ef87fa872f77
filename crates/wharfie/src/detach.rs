//! The keys that leave a container without ending it.

/// Keys that are looked for in what is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    /// As it was written.
    text: String,
    /// How many of them were typed; they are held back until it is clear what they mean.
    typed: usize,
}

impl Default for DetachKeys {
    /// Ctrl-P, Ctrl-Q.
    fn default() -> Self {
        Self {
            sequence: vec![16, 17],
            text: "ctrl-p,ctrl-q".to_owned(),
            typed: 0,
        }
    }
}

/// Reads a sequence such as `ctrl-p,ctrl-q` or `ctrl-x,x`, as docker does.
pub(crate) fn parse(text: &str) -> Result<DetachKeys, String> {
    let sequence: Option<Vec<u8>> = text.split(',').map(key).collect();
    match sequence {
        Some(sequence) => Ok(DetachKeys {
            sequence,
            text: text.to_owned(),
            typed: 0,
        }),
        None => Err("write keys like ctrl-p,ctrl-q or ctrl-x,x".to_owned()),
    }
}

fn key(text: &str) -> Option<u8> {
    let control = text
        .get(..5)
        .filter(|start| start.eq_ignore_ascii_case("ctrl-"));
    match (control, text.as_bytes()) {
        (Some(_), [.., key]) if text.len() == 6 => {
            let key = key.to_ascii_uppercase();
            matches!(key, b'@'..=b'_').then(|| key & 0x1f)
        }
        (None, [key]) if key.is_ascii() => Some(*key),
        _ => None,
    }
}

impl DetachKeys {
    /// The sequence as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What of the typed bytes goes on, and whether the sequence is complete: the rest of what
    /// was typed is then dropped.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut on = Vec::with_capacity(bytes.len() + self.typed);
        for &byte in bytes {
            if self.sequence.get(self.typed) != Some(&byte) {
                // It was not meant so: what was held back goes on.
                on.extend_from_slice(&self.sequence[..self.typed]);
                self.typed = 0;
            }
            if self.sequence.get(self.typed) == Some(&byte) {
                self.typed += 1;
            } else {
                on.push(byte);
            }
            if self.typed == self.sequence.len() {
                return (on, true);
            }
        }
        (on, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DetachKeys::default());
        assert_eq!(parse("CTRL-X,x").unwrap().sequence, [24, b'x']);
        assert_eq!(parse("ctrl-@,ctrl-_").unwrap().sequence, [0, 31]);
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "ctrl-p,", "é"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_found_in_what_is_typed() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.pass(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(keys.pass(&[16]), (vec![], false));
        assert_eq!(keys.pass(b"a"), (vec![16, b'a'], false));
        assert_eq!(keys.pass(&[16, 16]), (vec![16], false));
        assert_eq!(keys.pass(&[17, b'z']), (vec![], true));
        let mut keys = DetachKeys::default();
        assert_eq!(keys.pass(&[b'a', 16, 17]), (vec![b'a'], true));
    }
}
