//! Taking from one node.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::staging::Staging;
use super::status::{Bytes as Amount, Tracker};
use super::wire::{self, Answer, Frame, Part, Request, invalid};
use super::{BoxedStream, Contents, Digest, Source};

/// How long a node may take to be reached.
const OPENING: Duration = Duration::from_secs(10);
/// How long nothing may come from a node: those at work say something every few seconds.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a node may take to say that this was all.
const ENDING: Duration = Duration::from_secs(1);
/// Pieces that may wait for the disk.
const WAITING: usize = 8;
/// Layers that an image may have: Docker allows fewer.
const MOST_LAYERS: usize = 1000;

/// Why a node did not give what it was asked for.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It does not have the image.
    Missing,
    /// It, or the way to it, failed; it may be asked again.
    Broken(String),
    /// What it gave is not what it should be: it is not asked again.
    Corrupt(String),
    /// Something is wrong on this side: nobody else is asked either.
    Here(String),
}

impl Trouble {
    /// In words that name the node.
    pub(super) fn of(&self, node: &str) -> String {
        match self {
            Self::Missing => format!("{node} has no such image"),
            Self::Broken(why) | Self::Corrupt(why) | Self::Here(why) => format!("{node}: {why}"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Broken(match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "the connection was lost".to_owned(),
            _ => error.to_string(),
        })
    }
}

/// What came from a node.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Bytes, of what is whole and what is not.
    pub(super) bytes: u64,
    /// Why that is not all.
    pub(super) trouble: Option<Trouble>,
}

/// A layer that is asked for.
#[derive(Debug, Clone)]
pub(super) struct Want {
    /// The digest of the file that the node gives.
    pub(super) blob: Digest,
    /// The digest under which it is told of.
    pub(super) diff: Digest,
}

/// Begins a stream with a request.
async fn ask(source: &dyn Source, request: &Request) -> Result<BoxedStream, Trouble> {
    let open = async {
        let mut stream = source.open().await?;
        wire::greet(&mut stream).await?;
        wire::say(&mut stream, request).await?;
        wire::greeted(&mut stream).await?;
        Ok::<_, io::Error>(stream)
    };
    match timeout(OPENING, open).await {
        Ok(stream) => Ok(stream?),
        Err(_) => Err(Trouble::Broken(format!(
            "no answer within {} s",
            OPENING.as_secs()
        ))),
    }
}

/// The next frame; nothing for too long is an error.
async fn next(stream: &mut BoxedStream) -> Result<Frame, Trouble> {
    match timeout(SILENCE, wire::receive(stream)).await {
        Ok(frame) => Ok(frame?),
        Err(_) => Err(Trouble::Broken(format!(
            "nothing came for {} s",
            SILENCE.as_secs()
        ))),
    }
}

/// The next words that say something.
async fn words(stream: &mut BoxedStream) -> Result<Answer, Trouble> {
    loop {
        let Frame::Words(words) = next(stream).await? else {
            return Err(invalid("bytes came where words were expected").into());
        };
        match wire::read(&words)? {
            Answer::Working => {}
            Answer::Missing => return Err(Trouble::Missing),
            Answer::Failed { reason } => return Err(Trouble::Broken(reason)),
            answer => return Ok(answer),
        }
    }
}

/// Asks a node what is in an image.
pub(super) async fn describe(source: &dyn Source, image: &str) -> Result<Contents, Trouble> {
    let request = Request::Describe {
        image: image.to_owned(),
    };
    let mut stream = ask(source, &request).await?;
    match words(&mut stream).await? {
        Answer::Contents(contents) if contents.layers.len() <= MOST_LAYERS => Ok(contents),
        Answer::Contents(_) => Err(invalid("it says the image has too many layers").into()),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Trouble {
    invalid("it answered something else than it was asked").into()
}

/// Takes layers from a node, as many as come.
pub(super) async fn take(
    source: &dyn Source,
    image: &Digest,
    wants: &[Want],
    staging: &Staging,
    tracker: &Tracker,
) -> Taken {
    let mut taken = Taken::default();
    let result = take_all(source, image, wants, staging, tracker, &mut taken.bytes).await;
    taken.trouble = result.err();
    taken
}

async fn take_all(
    source: &dyn Source,
    image: &Digest,
    wants: &[Want],
    staging: &Staging,
    tracker: &Tracker,
    bytes: &mut u64,
) -> Result<(), Trouble> {
    let mut open: BTreeMap<&Digest, (&Want, u64)> = wants
        .iter()
        .map(|w| (&w.blob, (w, staging.begun(&w.blob))))
        .collect();
    let part = |(digest, (_, from)): (&&Digest, &(&Want, u64))| Part {
        digest: (*digest).clone(),
        from: *from,
    };
    let request = Request::Send {
        image: image.to_string(),
        parts: open.iter().map(part).collect(),
    };
    let mut stream = ask(source, &request).await?;
    while !open.is_empty() {
        let Answer::Part { digest, size, from } = words(&mut stream).await? else {
            return Err(unexpected());
        };
        let Some((want, expected)) = open.remove(&digest) else {
            return Err(invalid("it sent what it was not asked for").into());
        };
        if from != expected || size < from {
            return Err(invalid("it sent another part than it was asked for").into());
        }
        let room = staging.room().map_err(|e| here(staging, &e))?;
        if size - from > room {
            return Err(Trouble::Here(format!(
                "{} more are needed in {}, and there is room for {}",
                Amount(size - from),
                staging.dir().display(),
                Amount(room)
            )));
        }
        tracker.layer(&want.diff, |layer| {
            (layer.done, layer.total) = (from, size);
            layer.from = Some(source.name().to_owned());
        });
        let right = take_one(&mut stream, &digest, (from, size), staging, |count| {
            *bytes += count;
            tracker.layer(&want.diff, |layer| layer.done += count);
        });
        if right.await? {
            tracker.layer(&want.diff, |layer| layer.whole = true);
            continue;
        }
        tracker.layer(&want.diff, |layer| layer.done = 0);
        let what = format!(
            "what came of {} is not what its digest says",
            digest.short()
        );
        return Err(if from == 0 {
            Trouble::Corrupt(what)
        } else {
            // The beginning was here before: nobody knows whose fault it is.
            Trouble::Broken(format!("{what}; it is taken anew"))
        });
    }
    // The other side ends in order. All is here, so that nothing of it matters any more.
    let _ = timeout(ENDING, words(&mut stream)).await;
    Ok(())
}

/// Takes the bytes of one layer; whether they are right.
async fn take_one(
    stream: &mut BoxedStream,
    digest: &Digest,
    (from, size): (u64, u64),
    staging: &Staging,
    mut count: impl FnMut(u64),
) -> Result<bool, Trouble> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING);
    let (keeper, named) = (staging.clone(), digest.clone());
    let mut left = size - from;
    // Disk and digest have a thread, so that the network does not wait for them.
    let thread = tokio::task::spawn_blocking(move || {
        let mut writer = keeper.writer(&named, from)?;
        let mut missing = size - from;
        while missing > 0 {
            // Nothing more comes: what came stays for the next time.
            let Some(piece) = receiver.blocking_recv() else {
                return Ok(None);
            };
            writer.write(&piece)?;
            missing -= u64::try_from(piece.len()).unwrap_or(missing).min(missing);
        }
        writer.finish().map(Some)
    });
    let mut trouble = None;
    while left > 0 {
        let piece = match next(stream).await {
            Ok(Frame::Data(piece)) => piece,
            Ok(Frame::Words(words)) => match wire::read(&words) {
                Ok(Answer::Working) => continue,
                Ok(Answer::Failed { reason }) => {
                    trouble = Some(Trouble::Broken(reason));
                    break;
                }
                Ok(Answer::Missing) => {
                    trouble = Some(Trouble::Missing);
                    break;
                }
                Ok(_) => {
                    trouble = Some(unexpected());
                    break;
                }
                Err(e) => {
                    trouble = Some(e.into());
                    break;
                }
            },
            Err(e) => {
                trouble = Some(e);
                break;
            }
        };
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if length > left || length == 0 {
            trouble = Some(invalid("it sent more or less than it said").into());
            break;
        }
        left -= length;
        if sender.send(piece).await.is_err() {
            // The thread cannot write, and says why.
            break;
        }
        count(length);
    }
    drop(sender);
    let written = thread.await.unwrap_or_else(|e| Err(io::Error::other(e)));
    match (written, trouble) {
        (Err(e), _) => Err(here(staging, &e)),
        (_, Some(trouble)) => Err(trouble),
        (Ok(Some(right)), None) => Ok(right),
        (Ok(None), None) => Err(Trouble::Broken("it ended too early".to_owned())),
    }
}

fn here(staging: &Staging, error: &io::Error) -> Trouble {
    let dir = staging.dir().display();
    Trouble::Here(if error.kind() == io::ErrorKind::StorageFull {
        format!("there is no room left in {dir}; make some")
    } else {
        format!("cannot write in {dir}: {error}")
    })
}
