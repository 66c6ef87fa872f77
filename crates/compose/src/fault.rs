//! What is wrong with a file: every fault with its place, never only the first.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Path as the user gave it.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// The text of a file, kept so that a fault can show its line.
pub(crate) type Source = Arc<NamedSource<Arc<str>>>;

/// One fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where.
    pub location: Option<Location>,
    source: Option<Source>,
    span: Option<SourceSpan>,
}

impl Fault {
    /// A fault that has no place in a file.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            location: None,
            source: None,
            span: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the place: `line` and `column` from 1, `length` in characters.
    #[must_use]
    pub(crate) fn at(
        mut self,
        file: &Path,
        source: &Source,
        line: u32,
        column: u32,
        length: u32,
    ) -> Self {
        self.location = Some(Location {
            file: file.to_owned(),
            line,
            column,
        });
        let (start, bytes) = byte_range(source.inner(), line, column, length);
        self.span = Some((start, bytes).into());
        self.source = Some(Arc::clone(source));
        self
    }
}

/// Byte offset and length of a place given in lines and characters.
fn byte_range(text: &str, line: u32, column: u32, length: u32) -> (usize, usize) {
    let start_of_line: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1) as usize)
        .map(str::len)
        .sum();
    let rest = &text[start_of_line..];
    let content = rest.split('\n').next().unwrap_or("");
    let mut chars = content
        .char_indices()
        .skip(column.saturating_sub(1) as usize);
    let from = chars.next().map_or(content.len(), |(i, _)| i);
    let to = content
        .char_indices()
        .nth((column.saturating_sub(1) + length) as usize)
        .map_or(content.len(), |(i, _)| i);
    (start_of_line + from, to.saturating_sub(from))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{location}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Fault {}

impl Diagnostic for Fault {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_deref().map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(
            None, span,
        ))))
    }
}

/// All faults of a project; never empty when returned as an error.
#[derive(Debug, Clone, Default)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Adds one.
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails with all of them, in file order, if there is any.
    ///
    /// # Errors
    /// The faults themselves.
    pub fn into_result(mut self) -> Result<(), Self> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by_key(|f| {
            f.location
                .as_ref()
                .map(|l| (l.file.clone(), l.line, l.column))
        });
        Err(self)
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
