//! The times that the Engine writes before lines of logs: read, so that nothing is shown twice
//! when a container starts again, and taken away unless the user wants them.

/// Length of `2026-11-21T04:56:43.665312962Z`.
const STAMP: usize = 30;

/// Cuts the output of one stream of a container, sent with times, into pieces.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    /// What may be the beginning of a time.
    carried: Vec<u8>,
    /// Whether the next byte continues a line.
    within_line: bool,
    /// Time of the piece that is being read.
    current: String,
}

/// A piece of output, at most a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// When it was written; sorts by time.
    pub(crate) time: String,
    /// Whether it begins a line.
    pub(crate) begins: bool,
    /// The text without the time.
    pub(crate) text: Vec<u8>,
}

impl Stamps {
    /// The pieces of a chunk.
    pub(crate) fn cut(&mut self, chunk: &[u8]) -> Vec<Piece> {
        let mut bytes = std::mem::take(&mut self.carried);
        bytes.extend_from_slice(chunk);
        let mut pieces = Vec::new();
        let mut first = true;
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            // Long lines come in several messages, each with a time of its own.
            let may_have_time = first || !self.within_line;
            first = false;
            let text = match stamp(line).filter(|_| may_have_time) {
                Some(time) => {
                    time.clone_into(&mut self.current);
                    line.get(time.len() + 1..).unwrap_or_default()
                }
                None if !self.within_line && line.len() <= STAMP && !line.ends_with(b"\n") => {
                    self.carried = line.to_vec();
                    break;
                }
                None => line,
            };
            pieces.push(Piece {
                time: self.current.clone(),
                begins: !self.within_line,
                text: text.to_vec(),
            });
            self.within_line = !line.ends_with(b"\n");
        }
        pieces
    }

    /// What is left at the end of the stream.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        self.within_line = false;
        std::mem::take(&mut self.carried)
    }
}

/// The time a line begins with. Docker's has nine digits behind the second; Podman's has none, and
/// a zone that need not be Z.
fn stamp(line: &[u8]) -> Option<&str> {
    const SECONDS: &[u8] = b"0000-00-00T00:00:00";
    let matches = |text: &[u8], form: &[u8]| {
        text.len() == form.len()
            && text.iter().zip(form).all(|(&b, &form)| match form {
                b'0' => b.is_ascii_digit(),
                form => b == form,
            })
    };
    let end = line.iter().take(STAMP + 6).position(|&b| b == b' ')?;
    let (seconds, rest) = line.get(..end)?.split_at_checked(SECONDS.len())?;
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            fraction.get(digits..).filter(|_| digits > 0)?
        }
        None => rest,
    };
    let known = zone == b"Z" || matches(zone, b"+00:00") || matches(zone, b"-00:00");
    let time = std::str::from_utf8(line.get(..end)?).ok()?;
    (known && matches(seconds, SECONDS)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: &str = "2026-11-21T04:56:43.665312962Z";
    const T2: &str = "2026-11-21T04:56:44.000000001Z";

    fn cut(stamps: &mut Stamps, chunk: &str) -> Vec<(String, bool, String)> {
        let piece = |p: Piece| {
            (
                p.time,
                p.begins,
                String::from_utf8_lossy(&p.text).into_owned(),
            )
        };
        stamps
            .cut(chunk.as_bytes())
            .into_iter()
            .map(piece)
            .collect()
    }

    fn piece(time: &str, begins: bool, text: &str) -> (String, bool, String) {
        (time.to_owned(), begins, text.to_owned())
    }

    #[test]
    fn times_are_taken_off() {
        let mut stamps = Stamps::default();
        assert_eq!(
            cut(&mut stamps, &format!("{T1} one\n{T2} two\n")),
            [piece(T1, true, "one\n"), piece(T2, true, "two\n")]
        );
        assert_eq!(
            cut(&mut stamps, &format!("{T2} \n")),
            [piece(T2, true, "\n")]
        );
    }

    #[test]
    fn podmans_times_are_shorter() {
        let mut stamps = Stamps::default();
        for time in ["2026-11-21T04:56:43Z", "2026-11-21T04:56:43+01:00"] {
            assert_eq!(
                cut(&mut stamps, &format!("{time} one\n")),
                [piece(time, true, "one\n")]
            );
        }
        let not = "2026-11-21T04:56:43X one is no time at all\n";
        assert_eq!(cut(&mut stamps, not)[0].2, not);
    }

    #[test]
    fn messages_of_a_long_line_each_have_one() {
        let mut stamps = Stamps::default();
        assert_eq!(
            cut(&mut stamps, &format!("{T1} long")),
            [piece(T1, true, "long")]
        );
        assert_eq!(
            cut(&mut stamps, &format!("{T2} er\n")),
            [piece(T2, false, "er\n")]
        );
        assert_eq!(
            cut(&mut stamps, &format!("{T2} x\n")),
            [piece(T2, true, "x\n")]
        );
    }

    #[test]
    fn a_time_may_be_cut_in_two() {
        let mut stamps = Stamps::default();
        assert_eq!(cut(&mut stamps, &T1[..10]), []);
        assert_eq!(
            cut(&mut stamps, &format!("{} a\n", &T1[10..])),
            [piece(T1, true, "a\n")]
        );
    }

    #[test]
    fn what_has_no_time_is_kept() {
        let mut stamps = Stamps::default();
        assert_eq!(
            cut(&mut stamps, "no time here\n"),
            [piece("", true, "no time here\n")]
        );
        assert_eq!(cut(&mut stamps, "end"), []);
        assert_eq!(stamps.end(), b"end");
    }
}
