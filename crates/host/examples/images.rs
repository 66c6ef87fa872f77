//! Images between two Engines over plain TCP: what `scripts/bench-images` measures.
//!
//! ```sh
//! images serve unix:///a/docker.sock 10.0.0.1:7000
//! images fetch unix:///b/docker.sock /var/tmp/staging app:1 10.0.0.1:7000 [10.0.0.2:7000 …]
//! ```
#![allow(clippy::unwrap_used)] // an example for developers: what is not there is a failure

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use wharfie_host::layers::{Fetcher, Server, Source, Status};
use wharfie_host::{BoxedStream, Engine};

/// A server at an address.
struct At(String);

impl Source for At {
    fn name(&self) -> &str {
        &self.0
    }

    fn open(&self) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async {
            let stream = TcpStream::connect(&self.0).await?;
            Ok(Box::new(stream) as BoxedStream)
        }
        .boxed()
    }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match &args[..] {
        ["serve", engine, address] => {
            let server = Server::new(Engine::connect(Some(engine)).await.unwrap());
            let listener = TcpListener::bind(address).await.unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                tokio::spawn(async move {
                    if let Err(e) = server.serve(stream).await {
                        eprintln!("{e}");
                    }
                });
            }
        }
        ["fetch", engine, staging, image, sources @ ..] => {
            let engine = Engine::connect(Some(engine)).await.unwrap();
            let sources = sources
                .iter()
                .map(|s| Arc::new(At((*s).to_owned())) as Arc<dyn Source>);
            let mut last = String::new();
            let mut progress = |status: &Status| {
                let line = status.to_string();
                if line != last {
                    eprintln!("{line}");
                    last = line;
                }
            };
            let fetcher = Fetcher::new(engine, Path::new(staging));
            match fetcher.fetch(image, sources.collect(), &mut progress).await {
                Ok(fetched) => {
                    let all: u64 = fetched.from.values().sum();
                    println!("{} {all} bytes, {} layers kept", fetched.id, fetched.kept);
                }
                Err(e) => {
                    eprintln!("{e}");
                    std::process::exit(1);
                }
            }
        }
        _ => {
            eprintln!("see the beginning of examples/images.rs");
            std::process::exit(2);
        }
    }
}
