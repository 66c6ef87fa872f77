//! The texts that were read, so that every fault can show its line.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::NamedSource;

use crate::fault::{Fault, Location, Source};
use crate::node::Mark;

/// Larger files are refused: no Compose file comes near, and memory stays bounded.
const MAX_BYTES: u64 = 4 << 20;

/// All texts of one load.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    texts: Vec<(PathBuf, Source)>,
}

impl Sources {
    /// Reads a file (`-` is standard input); returns its index and text.
    pub(crate) fn read(&mut self, path: &Path, shown: PathBuf) -> Result<(u16, Arc<str>), Fault> {
        let name = shown.display().to_string();
        let bytes = if path == Path::new("-") {
            read_bounded(std::io::stdin().lock(), &name)?
        } else {
            let file = std::fs::File::open(path).map_err(|e| cannot_read(&name, &e))?;
            if file.metadata().is_ok_and(|m| m.is_dir()) {
                return Err(Fault::new(format!("{name} is a directory, not a file")));
            }
            read_bounded(file, &name)?
        };
        let text = String::from_utf8(bytes).map_err(|e| {
            let valid = e.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&e.as_bytes()[..valid]).into_owned();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            Fault::new(format!("{name}:{line}:{column}: not valid UTF-8"))
                .help("save the file in UTF-8 encoding")
        })?;
        let text: Arc<str> = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.into(),
            None => text.into(),
        };
        Ok((self.add(shown, Arc::clone(&text))?, text))
    }

    fn add(&mut self, shown: PathBuf, text: Arc<str>) -> Result<u16, Fault> {
        let index = u16::try_from(self.texts.len())
            .map_err(|_| Fault::new("more than 65535 files are included"))?;
        let source = Arc::new(NamedSource::new(shown.display().to_string(), text));
        self.texts.push((shown, source));
        Ok(index)
    }

    /// A fault at a mark; without a place if the mark has none.
    pub(crate) fn fault(&self, mark: Mark, message: impl Into<String>) -> Fault {
        let fault = Fault::new(message);
        match self.texts.get(usize::from(mark.file)) {
            Some((path, source)) if mark.line > 0 => {
                fault.at(path, source, mark.line, mark.column, mark.length)
            }
            _ => fault,
        }
    }

    /// The place of a mark.
    pub(crate) fn location(&self, mark: Mark) -> Option<Location> {
        let (file, _) = self
            .texts
            .get(usize::from(mark.file))
            .filter(|_| mark.line > 0)?;
        Some(Location {
            file: file.clone(),
            line: mark.line,
            column: mark.column,
        })
    }
}

/// Reads an environment or label file, within the same bound.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    let invalid = |why: String| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid(format!(
            "it is larger than {} MiB",
            MAX_BYTES >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|_| invalid("it is not valid UTF-8".to_owned()))
}

fn read_bounded(reader: impl std::io::Read, name: &str) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| cannot_read(name, &e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(
            Fault::new(format!("{name} is larger than {} MiB", MAX_BYTES >> 20))
                .help("split it with `include`"),
        );
    }
    Ok(bytes)
}

fn cannot_read(name: &str, error: &std::io::Error) -> Fault {
    Fault::new(format!("cannot read {name}: {error}"))
}
