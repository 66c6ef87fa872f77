//! `wharfie cp`.

use std::io::{IsTerminal, Read, Write};

use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use tokio::sync::mpsc;
use wharfie_host::copy::{self, ContainerSource, Landing, LocalSource};

use super::lifecycle::to_each;
use super::pick::{self, Taken};
use crate::context::Context;
use crate::control::{Container, Control};
use crate::failure::Failure;
use crate::output;

/// Copies files between the containers of a service, or one container, and this machine.
///
/// To a service copies to each of its containers; from a service takes the first one. A path that
/// ends in "/." means what is in a directory. "-" is an archive (tar) on standard input or output.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie cp ./site/. web:/srv/www           what is in a directory, to all containers\n  wharfie cp --index 2 web:/var/log/app .    a directory of the second container\n  wharfie cp db:/etc/my.cnf - | tar x        as an archive"
)]
pub(crate) struct Cp {
    /// Include containers made by "run"
    #[arg(long)]
    all: bool,
    /// Keep owners; files copied to a container get the container's user
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Number of the container, if the service has several
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// What is copied: SERVICE:PATH or CONTAINER:PATH, a path, or "-"
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    source: String,
    /// Where it goes: SERVICE:PATH or CONTAINER:PATH, a path, or "-"
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    destination: String,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// A path in the containers of a service.
    Service(String, String),
    /// A path here.
    Local(String),
    /// Standard input or output.
    Pipe,
}

/// Reads an end as docker compose does: what looks like a path is one.
fn end(text: &str) -> End {
    match text.split_once(':') {
        _ if text == "-" => End::Pipe,
        Some((service, path)) if !text.starts_with(['/', '.']) && !service.is_empty() => {
            End::Service(service.to_owned(), path.to_owned())
        }
        _ => End::Local(text.to_owned()),
    }
}

impl Cp {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match (end(&self.source), end(&self.destination)) {
            (End::Service(..), End::Service(..)) => Err(Failure::usage(
                "cannot copy between services: copy to this machine first",
            )),
            (End::Service(_, path), _) | (_, End::Service(_, path)) if path.is_empty() => {
                Err(Failure::usage("the path in the container is empty"))
            }
            (End::Service(service, path), to) => self.from(context, &service, &path, &to).await,
            (from, End::Service(service, path)) => self.to(context, &service, &path, &from).await,
            _ => Err(Failure::usage(
                "neither end is in a container: write one as SERVICE:PATH",
            )),
        }
    }

    async fn from(
        &self,
        context: &Context,
        service: &str,
        path: &str,
        to: &End,
    ) -> Result<(), Failure> {
        let (control, mut containers) = self.containers(context, service).await?;
        containers.truncate(1);
        let Some(container) = containers.first() else {
            return Ok(());
        };
        let control = control.at(container);
        let engine = control.engine();
        let source = engine
            .source(&container.id, path, self.follow_link)
            .await
            .map_err(|e| named(&container.name, e))?;
        let End::Local(local) = to else {
            if std::io::stdout().is_terminal() {
                return Err(Failure::usage("an archive is nothing to look at")
                    .help("send standard output to a file or a program"));
            }
            return archive_out(&control, container, &source).await;
        };
        let place = copy::local_destination(local)?;
        let landing = copy::landing(source.directory, &place).map_err(Failure::failed)?;
        let what = format!("copy {}:{path} to {local}", container.name);
        let (source, landing) = (&source, &landing);
        self.each(context, &control, &containers, &what, |c| async move {
            let copied = engine.copy_out(&c.id, source, landing, self.archive).await;
            Ok(copied?)
        })
        .await
    }

    async fn to(
        &self,
        context: &Context,
        service: &str,
        path: &str,
        from: &End,
    ) -> Result<(), Failure> {
        let source = match from {
            End::Local(local) => Some(LocalSource::open(local, self.follow_link)?),
            _ => None,
        };
        let (control, containers) = self.containers(context, service).await?;
        // Every container is looked at before any is changed.
        let landings = containers
            .iter()
            .map(|c| landing(&control, c, path, source.as_ref()));
        let landings = try_join_all(landings).await?;
        let what = format!("copy {} to {service}:{path}", self.source);
        let Some(source) = &source else {
            if context.dry_run() {
                return Ok(output::lines([what])?);
            }
            return self.archive_in(&control, &containers, &landings).await;
        };
        let by_id: std::collections::BTreeMap<&str, Landing> = containers
            .iter()
            .map(|c| c.id.as_str())
            .zip(landings)
            .collect();
        let (by_id, by_node) = (&by_id, &control);
        self.each(context, &control, &containers, &what, |c| async move {
            let Some(landing) = by_id.get(c.id.as_str()) else {
                return Ok(());
            };
            let control = by_node.at(c);
            let engine = control.engine();
            let copied = engine.copy_in(&c.id, source, landing, self.archive).await;
            copied.map_err(|e| named(&c.name, e))
        })
        .await
    }

    /// The containers of the service that are meant, or the one that is called so.
    async fn containers(
        &self,
        context: &Context,
        service: &str,
    ) -> Result<(Control, Vec<Container>), Failure> {
        let (control, meant) = pick::look(context, &[service.to_owned()]).await?;
        let Some(target) = meant.target() else {
            return Ok((control, meant.named));
        };
        let mut containers = control.containers(&target.name).await?;
        containers.retain(|c| c.service == service);
        containers.retain(|c| match self.index {
            Some(index) => !c.oneoff && c.number == index,
            None => self.all || !c.oneoff,
        });
        match containers.is_empty() {
            false => Ok((control, containers)),
            true => Err(pick::none(service, self.index, Taken::Any)),
        }
    }

    async fn each<'c, F>(
        &self,
        context: &Context,
        control: &Control,
        containers: &'c [Container],
        what: &str,
        act: impl Fn(&'c Container) -> F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        if control.dry_run() {
            return Ok(output::lines([what])?);
        }
        to_each(context, control, containers, ["", "Copying", "Copied"], act).await
    }

    /// Standard input into each container.
    async fn archive_in(
        &self,
        control: &Control,
        containers: &[Container],
        landings: &[Landing],
    ) -> Result<(), Failure> {
        if std::io::stdin().is_terminal() {
            return Err(Failure::usage("standard input is no archive")
                .help("pipe one in: `tar c FILES | wharfie cp - SERVICE:PATH`"));
        }
        let (senders, receivers): (Vec<_>, Vec<_>) =
            containers.iter().map(|_| mpsc::channel(4)).unzip();
        // Ends with its readers, or with the process.
        std::thread::spawn(move || feed(&senders));
        let work = containers.iter().zip(landings).zip(receivers).map(
            |((c, landing), receiver)| async move {
                let archive = futures_util::stream::unfold(receiver, |mut r| async move {
                    r.recv().await.map(|piece| (piece, r))
                });
                let control = control.at(c);
                let engine = control.engine();
                let sent = engine.upload(&c.id, &landing.directory, archive, self.archive);
                sent.await.map_err(|e| named(&c.name, e))
            },
        );
        let failures: Vec<Failure> = join_all(work)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Failure::all(failures)),
        }
    }
}

/// Sends standard input to all who still listen.
fn feed(senders: &[mpsc::Sender<std::io::Result<Bytes>>]) {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let piece = Bytes::copy_from_slice(&buffer[..count]);
                for sender in senders {
                    // Who does not listen any more has failed, and says so.
                    let _ = sender.blocking_send(Ok(piece.clone()));
                }
            }
            Err(e) => {
                for sender in senders {
                    let failure = std::io::Error::new(e.kind(), format!("standard input: {e}"));
                    let _ = sender.blocking_send(Err(failure));
                }
                return;
            }
        }
    }
}

/// Where a source (an archive if there is none) lands in a container.
async fn landing(
    control: &Control,
    container: &Container,
    path: &str,
    source: Option<&LocalSource>,
) -> Result<Landing, Failure> {
    let control = control.at(container);
    let engine = control.engine();
    let place = engine
        .destination(&container.id, path)
        .await
        .map_err(|e| named(&container.name, e))?;
    let Some(source) = source else {
        if !place.directory {
            return Err(Failure::failed(format!(
                "{}:{path} is not a directory: an archive needs one",
                container.name
            )));
        }
        return Ok(Landing {
            directory: place.path,
            name: None,
        });
    };
    let landing = copy::landing(source.directory, &place)
        .map_err(|reason| Failure::failed(format!("{}: {reason}", container.name)))?;
    if !place.exists
        && !engine
            .has_directory(&container.id, &landing.directory)
            .await?
    {
        return Err(Failure::failed(format!(
            "{}: there is no directory {}",
            container.name, landing.directory
        )));
    }
    Ok(landing)
}

async fn archive_out(
    control: &Control,
    container: &Container,
    source: &ContainerSource,
) -> Result<(), Failure> {
    let mut pieces = Box::pin(control.engine().copy_out_archive(&container.id, source));
    let mut out = std::io::stdout();
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece?)?;
    }
    Ok(out.flush()?)
}

/// An error with the name of the container it is about.
fn named(container: &str, error: wharfie_host::Error) -> Failure {
    match Failure::from(error) {
        Failure::Failed(mut message) => {
            message.what = format!("{container}: {}", message.what);
            Failure::Failed(message)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read() {
        let service = |s: &str, p: &str| End::Service(s.to_owned(), p.to_owned());
        let local = |p: &str| End::Local(p.to_owned());
        assert_eq!(end("web:/tmp"), service("web", "/tmp"));
        assert_eq!(end("web:a:b"), service("web", "a:b"));
        assert_eq!(end("web:"), service("web", ""));
        assert_eq!(end("-"), End::Pipe);
        assert_eq!(end("file"), local("file"));
        assert_eq!(end("./a:b"), local("./a:b"));
        assert_eq!(end("/a:b"), local("/a:b"));
        assert_eq!(end(":b"), local(":b"));
    }
}
