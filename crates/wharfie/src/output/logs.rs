//! Containers' output, line by line, each line behind the name of its container.

use std::collections::HashMap;
use std::io::{self, Write};

use super::style;

/// Which stream a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line that never ends is cut here.
const LONGEST_LINE: usize = 1 << 20;

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogStyle {
    /// Names before the lines.
    pub(crate) prefix: bool,
    /// Names in colours.
    pub(crate) colour: bool,
}

/// Writes the output of many containers to two streams.
pub(crate) struct LogPrinter<O, E> {
    out: O,
    err: E,
    style: LogStyle,
    width: usize,
    sources: HashMap<String, Source>,
    colours: HashMap<String, anstyle::Style>,
}

struct Source {
    name: String,
    colour: anstyle::Style,
    /// Beginnings of lines, of standard output and standard error.
    begun: [Vec<u8>; 2],
}

/// A printer to our own output.
pub(crate) type OwnPrinter = LogPrinter<io::Stdout, Box<dyn Write>>;

impl OwnPrinter {
    /// What containers write to standard error goes to ours, or with the rest if `joined`.
    pub(crate) fn own(style: LogStyle, joined: bool) -> Self {
        let err: Box<dyn Write> = if joined {
            Box::new(io::stdout())
        } else {
            Box::new(io::stderr())
        };
        Self::new(io::stdout(), err, style)
    }
}

impl<O: Write, E: Write> LogPrinter<O, E> {
    /// A printer to the given streams.
    pub(crate) fn new(out: O, err: E, style: LogStyle) -> Self {
        Self {
            out,
            err,
            style,
            width: 0,
            sources: HashMap::new(),
            colours: HashMap::new(),
        }
    }

    /// Makes prefixes wide enough for a name, and gives it the next colour.
    pub(crate) fn expect(&mut self, name: &str) {
        self.width = self.width.max(name.chars().count());
        let next = self.colours.len();
        self.colours
            .entry(name.to_owned())
            .or_insert_with(|| style::rainbow(next));
    }

    /// Makes a container known by its `id`. Containers of one name have one colour.
    pub(crate) fn add(&mut self, id: &str, name: &str) {
        self.expect(name);
        let colour = self.colours.get(name).copied().unwrap_or_default();
        self.sources.entry(id.to_owned()).or_insert_with(|| Source {
            name: name.to_owned(),
            colour,
            begun: [Vec::new(), Vec::new()],
        });
    }

    /// The name of a container; its id if it is not known.
    pub(crate) fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.sources.get(id).map_or(id, |s| &s.name)
    }

    /// Writes the whole lines of what a container said and keeps the rest for later.
    pub(crate) fn write(&mut self, id: &str, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let Some(source) = self.sources.get_mut(id) else {
            return Ok(());
        };
        let begun = &mut source.begun[stream as usize];
        begun.extend_from_slice(bytes);
        let end = match begun.iter().rposition(|&b| b == b'\n') {
            Some(newline) => newline + 1,
            None if begun.len() >= LONGEST_LINE => begun.len(),
            None => return Ok(()),
        };
        let rest = begun.split_off(end);
        let lines = std::mem::replace(begun, rest);
        self.emit(id, stream, &lines)
    }

    /// Writes what is left of a container that says no more.
    pub(crate) fn end(&mut self, id: &str) -> io::Result<()> {
        for stream in [Stream::Out, Stream::Err] {
            let rest = match self.sources.get_mut(id) {
                Some(source) => std::mem::take(&mut source.begun[stream as usize]),
                None => return Ok(()),
            };
            if !rest.is_empty() {
                self.emit(id, stream, &rest)?;
            }
        }
        Ok(())
    }

    /// Writes a remark of our own about a container, in its colour.
    pub(crate) fn remark(&mut self, id: &str, remark: &str) -> io::Result<()> {
        self.end(id)?;
        let Some(source) = self.sources.get(id) else {
            return Ok(());
        };
        let (on, off) = escapes(source.colour, self.style.colour);
        writeln!(self.out, "{on}{} {remark}{off}", source.name)?;
        self.out.flush()
    }

    fn emit(&mut self, id: &str, stream: Stream, lines: &[u8]) -> io::Result<()> {
        let Some(source) = self.sources.get(id) else {
            return Ok(());
        };
        let prefix = if self.style.prefix {
            let (on, off) = escapes(source.colour, self.style.colour);
            format!("{on}{:<width$}  | {off}", source.name, width = self.width)
        } else {
            String::new()
        };
        let mut text = Vec::with_capacity(lines.len() + prefix.len());
        let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
        for line in lines.split(|&b| b == b'\n') {
            text.extend_from_slice(prefix.as_bytes());
            text.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            text.push(b'\n');
        }
        match stream {
            Stream::Out => self.out.write_all(&text).and_then(|()| self.out.flush()),
            Stream::Err => self.err.write_all(&text).and_then(|()| self.err.flush()),
        }
    }
}

fn escapes(style: anstyle::Style, wanted: bool) -> (String, &'static str) {
    if wanted {
        (style.render().to_string(), "\x1b[0m")
    } else {
        (String::new(), "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: LogStyle = LogStyle {
        prefix: true,
        colour: false,
    };

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn prefixes_are_aligned() -> io::Result<()> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = LogPrinter::new(&mut out, &mut err, PLAIN);
        printer.add("1", "a-1");
        printer.add("2", "longer-1");
        printer.write("1", Stream::Out, b"one\r\ntwo\n")?;
        printer.write("2", Stream::Err, b"three\n")?;
        assert_eq!(text(&out), "a-1       | one\na-1       | two\n");
        assert_eq!(text(&err), "longer-1  | three\n");
        Ok(())
    }

    #[test]
    fn partial_lines_wait_for_their_end() -> io::Result<()> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = LogPrinter::new(&mut out, &mut err, PLAIN);
        printer.add("1", "a-1");
        printer.write("1", Stream::Out, b"par")?;
        printer.write("1", Stream::Err, b"other\n")?;
        printer.write("1", Stream::Out, b"tial\nno end")?;
        printer.remark("1", "exited with code 3")?;
        assert_eq!(
            text(&out),
            "a-1  | partial\na-1  | no end\na-1 exited with code 3\n"
        );
        assert_eq!(text(&err), "a-1  | other\n");
        Ok(())
    }

    #[test]
    fn empty_lines_are_lines() -> io::Result<()> {
        let mut out = Vec::new();
        let style = LogStyle {
            prefix: false,
            colour: true,
        };
        let mut printer = LogPrinter::new(&mut out, io::sink(), style);
        printer.add("1", "a-1");
        printer.write("1", Stream::Out, b"a\n\n")?;
        printer.write("1", Stream::Out, b"\n")?;
        assert_eq!(text(&out), "a\n\n\n");
        Ok(())
    }

    #[test]
    fn endless_lines_are_cut() -> io::Result<()> {
        let mut out = Vec::new();
        let mut printer = LogPrinter::new(&mut out, io::sink(), PLAIN);
        printer.add("1", "a");
        printer.write("1", Stream::Out, &vec![b'x'; LONGEST_LINE])?;
        assert_eq!(out.len(), LONGEST_LINE + "a  | \n".len());
        Ok(())
    }

    #[test]
    fn each_container_has_its_colour() -> io::Result<()> {
        let mut out = Vec::new();
        let style = LogStyle {
            prefix: true,
            colour: true,
        };
        let mut printer = LogPrinter::new(&mut out, io::sink(), style);
        printer.add("1", "a-1");
        printer.add("2", "b-1");
        printer.add("3", "a-1");
        for id in ["1", "2", "3"] {
            printer.write(id, Stream::Out, b"x\n")?;
        }
        assert_eq!(
            text(&out),
            "\x1b[36ma-1  | \x1b[0mx\n\x1b[33mb-1  | \x1b[0mx\n\x1b[36ma-1  | \x1b[0mx\n"
        );
        Ok(())
    }
}
