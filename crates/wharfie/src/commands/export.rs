//! `wharfie export`.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt;

use super::lifecycle::to_each;
use super::pick::{self, Taken};
use crate::context::Context;
use crate::control::{Container, Control};
use crate::failure::Failure;
use crate::output;

/// Writes all files of a container as an archive (tar).
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie export -o web.tar web\n  wharfie export --index 2 web | tar t"
)]
pub(crate) struct Export {
    /// Number of the container, if the service has several
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// File to write to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The service, or a container by name or id
    service: String,
}

impl Export {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match &self.output {
            Some(path) => check(path)?,
            None if std::io::stdout().is_terminal() => {
                return Err(Failure::usage("an archive is nothing to look at")
                    .help("write it to a file with -o, or send standard output elsewhere"));
            }
            None => {}
        }
        let found = pick::one(context, &self.service, self.index, Taken::Any).await?;
        let (control, container) = found;
        let containers = std::slice::from_ref(&container);
        let words = ["export", "Exporting", "Exported"];
        match &self.output {
            _ if context.dry_run() => Ok(output::lines([format!(
                "export container {}",
                container.name
            )])?),
            Some(path) => {
                to_each(context, &control, containers, words, |c| {
                    to_file(&control, c, path)
                })
                .await
            }
            None => write(&control, &container, &mut std::io::stdout()).await,
        }
    }
}

/// Fails if there can be no such file.
fn check(path: &Path) -> Result<(), Failure> {
    let at = path.display();
    if path.is_dir() {
        return Err(Failure::failed(format!("{at} is a directory")));
    }
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) if !parent.is_dir() => Err(Failure::failed(format!(
            "there is no directory {}",
            parent.display()
        ))),
        _ => Ok(()),
    }
}

async fn to_file(control: &Control, container: &Container, path: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", path.display()));
    if fs::symlink_metadata(path).is_ok_and(|m| !m.is_file()) {
        // A pipe or a device is written to, not replaced.
        let mut file = File::options().write(true).open(path).map_err(failed)?;
        return write(control, container, &mut file).await;
    }
    // Under the name only when it is whole, so that no half of it can be taken for all.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = Unfinished(PathBuf::from(name));
    let mut file = File::create_new(&part.0).map_err(failed)?;
    write(control, container, &mut file).await?;
    fs::rename(&part.0, path).map_err(failed)
}

/// A file that is removed unless it was given its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // it was renamed
    }
}

async fn write(
    control: &Control,
    container: &Container,
    to: &mut impl Write,
) -> Result<(), Failure> {
    let mut pieces = Box::pin(control.engine().export(&container.name));
    let mut interrupts = crate::signals::Interrupts::listen()?;
    loop {
        tokio::select! {
            piece = pieces.next() => match piece {
                Some(piece) => to.write_all(&piece?)?,
                None => return Ok(to.flush()?),
            },
            () = interrupts.next() => return Err(Failure::Exit(130)),
        }
    }
}
