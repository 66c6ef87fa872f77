//! Nodes of a lab that give images to each other, with faults on the way.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wharfie_host::layers::{Digest, Fetcher, Server, Source};
use wharfie_host::{BoxedStream, Engine};
use wharfie_lab::{EngineKind, Host, Lab, Request, base_archive, prerequisites};

/// A lab, or none where there can be none.
pub(crate) fn lab(hosts: usize, kind: EngineKind, args: &[&str]) -> Option<Lab> {
    if let Some(reason) = prerequisites::unavailable() {
        assert!(
            std::env::var_os("CI").is_none(),
            "cannot be tested: {reason}"
        );
        eprintln!("skipped: {reason}");
        return None;
    }
    let builder = Lab::builder().hosts(hosts).engine(kind);
    Some(builder.dockerd_args(args.iter().copied()).start().unwrap())
}

/// What goes wrong with a stream, counted in bytes that came through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is cut off after so many bytes.
    Cut(u64),
    /// It is cut off so, and the node cannot be reached any more.
    Die(u64),
    /// This byte is another one.
    Spoil(u64),
}

/// A node that gives images.
pub(crate) struct Node {
    name: String,
    server: Server,
    /// What goes wrong with the streams after the first, which only asks.
    pub(crate) faults: Mutex<Vec<Fault>>,
    /// Bytes that came from it.
    pub(crate) sent: Arc<AtomicU64>,
    pub(crate) opened: AtomicUsize,
    /// Done when the second stream is opened.
    #[allow(clippy::type_complexity)]
    pub(crate) between: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    dead: Arc<Mutex<bool>>,
}

impl Node {
    pub(crate) async fn of(host: &Host) -> Arc<Self> {
        let engine = Engine::connect(Some(&host.docker_host())).await.unwrap();
        Arc::new(Self {
            name: host.name().to_owned(),
            server: Server::new(engine),
            faults: Mutex::default(),
            sent: Arc::default(),
            opened: AtomicUsize::default(),
            between: Mutex::default(),
            dead: Arc::default(),
        })
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn with(self: Arc<Self>, faults: &[Fault]) -> Arc<Self> {
        self.faults.lock().unwrap().extend(faults.iter().rev());
        self
    }
}

impl Source for Node {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async {
            if *self.dead.lock().unwrap() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let first = self.opened.fetch_add(1, Ordering::Relaxed) == 0;
            if !first && let Some(between) = self.between.lock().unwrap().take() {
                tokio::task::block_in_place(between);
            }
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let server = self.server.clone();
            // A reader that goes away is what some tests are about.
            tokio::spawn(async move { server.serve(theirs).await });
            let fault = if first {
                None
            } else {
                self.faults.lock().unwrap().pop()
            };
            Ok(Box::new(Faulty {
                stream: ours,
                fault,
                passed: 0,
                sent: Arc::clone(&self.sent),
                dead: Arc::clone(&self.dead),
            }) as BoxedStream)
        }
        .boxed()
    }
}

struct Faulty {
    stream: tokio::io::DuplexStream,
    fault: Option<Fault>,
    passed: u64,
    sent: Arc<AtomicU64>,
    dead: Arc<Mutex<bool>>,
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.fault {
            Some(Fault::Cut(at)) if self.passed >= at => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Some(Fault::Die(at)) if self.passed >= at => {
                *self.dead.lock().unwrap() = true;
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            _ => {}
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = u64::try_from(buffer.filled().len() - before).unwrap();
        if let Some(Fault::Spoil(at)) = self.fault
            && (self.passed..self.passed + count).contains(&at)
        {
            let at = before + usize::try_from(at - self.passed).unwrap();
            buffer.filled_mut()[at] ^= 1;
        }
        self.passed += count;
        self.sent.fetch_add(count, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Takes images to a host.
pub(crate) async fn fetcher(host: &Host) -> Fetcher {
    let engine = Engine::connect(Some(&host.docker_host())).await.unwrap();
    Fetcher::new(engine, &staging(host))
}

/// Where it keeps what is not whole.
pub(crate) fn staging(host: &Host) -> PathBuf {
    host.dir().join("staging")
}

/// Bytes that are kept there.
pub(crate) fn staged(host: &Host) -> u64 {
    let images = std::fs::read_dir(staging(host)).into_iter().flatten();
    let files = images.flat_map(|image| std::fs::read_dir(image.unwrap().path()).unwrap());
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

/// An image, in the form that Engines load.
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) archive: Vec<u8>,
}

/// An image: the base that every Engine of the lab has, and layers of so many random bytes, of
/// which each is a file `/data0`, `/data1`, ….
pub(crate) fn image(name: &str, seed: u64, sizes: &[usize]) -> Image {
    packed(name, seed, sizes, |layer| layer)
}

/// The same, with its layers put through something such as a compressor.
pub(crate) fn packed(
    name: &str,
    seed: u64,
    sizes: &[usize],
    pack: impl Fn(Vec<u8>) -> Vec<u8>,
) -> Image {
    let mut layers = vec![base_archive().unwrap()];
    for (at, size) in sizes.iter().enumerate() {
        let content = random(seed + u64::try_from(at).unwrap(), *size);
        layers.push(tar(&[(format!("data{at}"), content)]));
    }
    let diffs: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": diffs },
    });
    let config = config.to_string().into_bytes();
    let id = Digest::of(&config);
    let names: Vec<String> = (0..layers.len()).map(|at| format!("l{at}.tar")).collect();
    let manifest = json!([{ "Config": "config", "RepoTags": [name], "Layers": names }]);
    let layers = layers.into_iter().map(pack);
    let mut files: Vec<(String, Vec<u8>)> = names.into_iter().zip(layers).collect();
    files.push(("config".to_owned(), config));
    files.push((
        "manifest.json".to_owned(),
        manifest.to_string().into_bytes(),
    ));
    Image {
        id: id.to_string(),
        archive: tar(&files),
    }
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap());
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, &content[..])
            .unwrap();
    }
    archive.into_inner().unwrap()
}

/// Bytes that nothing can make smaller.
fn random(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size.div_ceil(8))
        .flat_map(|_| next())
        .take(size)
        .collect()
}

impl Image {
    pub(crate) fn load(&self, on: &Host) {
        let request = Request::new("POST", "/images/load?quiet=1")
            .header("Content-Type", "application/x-tar")
            .body(&self.archive[..]);
        let said = on.engine().request(&request).unwrap().success().unwrap();
        assert!(!said.text().contains("error"), "{}", said.text());
    }
}

/// The id of an image on a host; none if it is not there.
pub(crate) fn id_on(host: &Host, name: &str) -> Option<String> {
    let found = host
        .engine()
        .api("GET", &format!("/images/{name}/json"), None);
    Some(found.ok()?["Id"].as_str().unwrap().to_owned())
}
