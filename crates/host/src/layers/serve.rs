//! The side that has the image.
//!
//! An Engine gives layers only as part of an archive of the whole image. It is read once for each
//! request: what was asked for is passed on while it comes, the rest is skipped.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::names::{self, Names};
use super::wire::{self, Answer, Part, Request, invalid};
use super::{Contents, Digest, Layer};
use crate::archive::Incoming;
use crate::{Engine, Error};

/// Archives that the Engine writes at a time: each takes room on its disk.
const ARCHIVES: usize = 4;
/// How long nothing may be said, or the other side takes us for dead.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the other side may take to say what it wants.
const QUESTION: Duration = Duration::from_secs(10);
/// How long the other side may take nothing: an archive is not kept open for nobody.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes of a layer in one piece.
const PIECE: usize = 256 << 10;
/// Pieces that may wait.
const WAITING: usize = 4;
/// Seconds that the Engine may take before an archive begins.
const ARCHIVE: u64 = 3600;
/// Images whose contents are remembered.
const REMEMBERED: usize = 64;

/// Gives the images of an Engine to other nodes; clones share what they know.
#[derive(Debug, Clone)]
pub struct Server {
    engine: Engine,
    archives: Arc<Semaphore>,
    /// By id, what took reading a whole archive to know.
    known: Arc<Mutex<BTreeMap<Digest, Contents>>>,
}

/// What goes from the thread that reads the archive to the stream.
enum Piece {
    Part {
        digest: Digest,
        size: u64,
        from: u64,
    },
    Data(Bytes),
}

impl Server {
    /// Serves this Engine's images.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            archives: Arc::new(Semaphore::new(ARCHIVES)),
            known: Arc::default(),
        }
    }

    /// Answers the one request of a stream. What is wrong with the image or the Engine is told to
    /// the other side.
    ///
    /// # Errors
    /// The stream broke, or what came is no request.
    pub async fn serve<S>(&self, mut stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        wire::greet(&mut stream).await?;
        let request = timeout(QUESTION, async {
            wire::greeted(&mut stream).await?;
            wire::hear::<Request>(&mut stream).await
        });
        let answer = match request.await.map_err(|_| io::ErrorKind::TimedOut)?? {
            Request::Describe { image } => {
                let work = self.describe(&image);
                meanwhile(&mut stream, work).await?.map(Answer::Contents)
            }
            Request::Send { image, parts } => self.send(&mut stream, &image, parts).await?,
        };
        let answer = answer.unwrap_or_else(|e| match e {
            e if e.is_not_found() => Answer::Missing,
            e => Answer::Failed {
                reason: e.to_string(),
            },
        });
        wire::say(&mut stream, &answer).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await
    }

    /// What is in an image.
    async fn describe(&self, image: &str) -> Result<Contents, Error> {
        let Some(here) = self.engine.image_here(image).await? else {
            return Err(Error::Refused {
                context: format!("cannot give {image}"),
                message: "there is no such image".to_owned(),
                status: 404,
            });
        };
        if let Some(known) = self.known().get(&here.id) {
            return Ok(known.clone());
        }
        if self.engine.keeps_in_containerd().await? {
            return self.look_into(&here.id, here.layers).await;
        }
        let sizes = self.engine.layer_sizes(&here).await?;
        let layers = here.layers.into_iter().zip(sizes);
        let contents = Contents {
            config: here.id.clone(),
            id: here.id,
            layers: layers
                .map(|(diff, size)| Layer {
                    blob: diff.clone(),
                    diff,
                    size,
                })
                .collect(),
        };
        self.remember(&contents);
        Ok(contents)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Contents>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, contents: &Contents) {
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.pop_first();
        }
        known.insert(contents.id.clone(), contents.clone());
    }

    /// What is in an image of containerd: only its archive tells the configuration's digest, and
    /// those of compressed layers.
    async fn look_into(&self, id: &Digest, diffs: Vec<Digest>) -> Result<Contents, Error> {
        let _slot = self.archives.acquire().await;
        let found = self
            .read_archive(id, |archive| {
                let (mut sizes, mut manifest) = (HashMap::new(), Value::Null);
                for entry in tar::Archive::new(archive).entries()? {
                    let mut entry = entry?;
                    let path = entry.path()?.to_string_lossy().into_owned();
                    if path == "manifest.json" {
                        manifest = serde_json::from_slice(&read_small(&mut entry)?)?;
                    } else if sizes.len() < 10_000 {
                        sizes.insert(path, entry.size());
                    }
                }
                Ok((sizes, manifest))
            })
            .await?;
        let (sizes, manifest) = found;
        let strange = || Error::Local(format!("the Engine's archive of {id} is not understood"));
        let paths = names::find_image(&manifest, diffs.len()).ok_or_else(strange)?;
        let mut layers = Vec::new();
        for (diff, path) in diffs.into_iter().zip(&paths.layers) {
            layers.push(Layer {
                diff,
                blob: names::digest_in(path).ok_or_else(strange)?,
                size: sizes.get(path).copied().unwrap_or(0),
            });
        }
        let contents = Contents {
            id: id.clone(),
            config: names::digest_in(&paths.config).ok_or_else(strange)?,
            layers,
        };
        self.remember(&contents);
        Ok(contents)
    }

    /// Reads an archive on a thread of its own.
    async fn read_archive<T: Send + 'static>(
        &self,
        image: &Digest,
        read: impl FnOnce(Incoming) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let context = format!("cannot read image {image}");
        let (sender, receiver) = mpsc::channel(WAITING);
        let thread = tokio::task::spawn_blocking(move || read(Incoming::new(receiver)));
        let client = self.engine.patient(ARCHIVE);
        let mut pieces = Box::pin(client.export_image(&image.to_string()));
        let mut failure = None;
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => {
                    if sender.send(piece).await.is_err() {
                        // The thread has what it wants, or says itself what is wrong.
                        break;
                    }
                }
                Err(e) => {
                    failure = Some(Error::from_engine(context.clone(), e));
                    break;
                }
            }
        }
        drop(sender);
        let read = thread.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        match (failure, read) {
            (_, Ok(read)) => Ok(read),
            (Some(failure), Err(_)) => Err(failure),
            (None, Err(e)) => Err(Error::Local(format!("{context}: {e}"))),
        }
    }

    /// Sends parts of an image; what is to be said at the end.
    async fn send<S>(
        &self,
        stream: &mut S,
        image: &str,
        parts: Vec<Part>,
    ) -> io::Result<Result<Answer, Error>>
    where
        S: AsyncWrite + Send + Unpin,
    {
        let described = meanwhile(stream, self.describe(image)).await?;
        let contents = match described {
            Ok(contents) => contents,
            Err(e) => return Ok(Err(e)),
        };
        let slot = meanwhile(stream, self.archives.acquire()).await?;
        let (sender, mut pieces) = mpsc::channel(WAITING);
        let work = async {
            let mut names = Names::new(&contents);
            let mut wanted: BTreeMap<Digest, u64> =
                parts.into_iter().map(|p| (p.digest, p.from)).collect();
            // Twice only if the files' names are of a kind that is not known beforehand.
            for _ in 0..2 {
                let sender = sender.clone();
                let read = move |archive| {
                    pass(archive, &mut names, &mut wanted, &sender)?;
                    Ok((names, wanted))
                };
                (names, wanted) = self.read_archive(&contents.id, read).await?;
                if wanted.is_empty() {
                    return Ok(Answer::Done);
                }
            }
            Err(Error::Local(format!(
                "the Engine's archive of {image} lacks what was asked for"
            )))
        };
        let mut work = std::pin::pin!(work);
        let mut result = None;
        loop {
            tokio::select! {
                biased;
                piece = pieces.recv(), if !pieces.is_empty() || result.is_none() => match piece {
                    Some(Piece::Part { digest, size, from }) => {
                        wire::say(stream, &Answer::Part { digest, size, from }).await?;
                    }
                    Some(Piece::Data(data)) => {
                        let given = timeout(STALLED, wire::give(stream, &data)).await;
                        given.map_err(|_| io::ErrorKind::TimedOut)??;
                    }
                    None => {}
                },
                done = &mut work, if result.is_none() => result = Some(done),
                () = tokio::time::sleep(SILENCE), if result.is_none() => {
                    wire::say(stream, &Answer::Working).await?;
                }
                else => break,
            }
        }
        drop(slot);
        Ok(result.unwrap_or_else(|| Err(Error::Cancelled("sending an image".to_owned()))))
    }
}

/// Says now and then that it goes on, until the work is done.
async fn meanwhile<T>(
    stream: &mut (impl AsyncWrite + Unpin),
    work: impl Future<Output = T>,
) -> io::Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        match timeout(SILENCE, &mut work).await {
            Ok(done) => return Ok(done),
            Err(_) => wire::say(stream, &Answer::Working).await?,
        }
    }
}

/// Goes through an archive once, and takes what is wanted off the list. Blocks.
fn pass(
    archive: impl Read,
    names: &mut Names,
    wanted: &mut BTreeMap<Digest, u64>,
    to: &mpsc::Sender<Piece>,
) -> io::Result<()> {
    let put = |piece| {
        to.blocking_send(piece)
            .map_err(|_| io::ErrorKind::BrokenPipe)
    };
    for entry in tar::Archive::new(archive).entries()? {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut entry = entry?;
        // Layers that are the same are there once, and as links.
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        if Names::tells(&path) && entry.size() <= names::MOST {
            names.learn(&path, &read_small(&mut entry)?);
            continue;
        }
        let size = entry.size();
        let Some((digest, from)) = names.find(&path).and_then(|d| wanted.remove_entry(d)) else {
            continue;
        };
        if from > size {
            return Err(invalid(format!(
                "{digest} has {size} bytes, and is to be sent from {from} on"
            )));
        }
        io::copy(&mut entry.by_ref().take(from), &mut io::sink())?;
        put(Piece::Part { digest, size, from })?;
        let mut left = size - from;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; length];
            entry.read_exact(&mut piece)?;
            put(Piece::Data(piece.into()))?;
            left -= u64::try_from(length).unwrap_or(left);
        }
    }
    Ok(())
}

fn read_small(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    entry.take(names::MOST).read_to_end(&mut text)?;
    Ok(text)
}
