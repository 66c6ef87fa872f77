//! Ways to an Engine's socket: on this host, or through whatever carries bytes to another one.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bollard::errors::Error as ClientError;
use bollard::{BollardRequest, ClientVersion, Docker};
use http::header::HOST;
use http::{HeaderValue, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// A stream of bytes in both directions.
pub trait Bytestream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytestream for T {}

/// A stream of bytes in both directions, wherever it leads.
pub type BoxedStream = Box<dyn Bytestream>;

/// A stream that is being opened.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send>>;

/// Opens a new stream of bytes to an Engine's socket each time it is called.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Fn() -> Dialling + Send + Sync>);

impl Dialer {
    /// A way by this function. The words of its errors are shown to the user.
    pub fn new(dial: impl Fn() -> Dialling + Send + Sync + 'static) -> Self {
        Self(Arc::new(dial))
    }

    /// The way to a socket of this host.
    #[must_use]
    pub fn unix(path: &str) -> Self {
        let path: Arc<str> = path.into();
        Self::new(move || {
            let path = Arc::clone(&path);
            Box::pin(async move {
                let stream = UnixStream::connect(&*path).await?;
                Ok(Box::new(stream) as BoxedStream)
            })
        })
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// The Engine's socket cannot be reached.
    pub async fn dial(&self) -> io::Result<BoxedStream> {
        (self.0)().await
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// A client that opens a stream of its own for each request, which ends with the answer or is handed
/// over if that says so (exec, attach).
///
/// # Errors
/// None today.
pub(crate) fn client(
    dialer: Dialer,
    timeout: u64,
    version: &ClientVersion,
) -> Result<Docker, ClientError> {
    let transport = move |request: BollardRequest| request_over(dialer.clone(), request);
    Docker::connect_with_custom_transport(transport, Some("http://engine"), timeout, version)
}

async fn request_over(
    dialer: Dialer,
    mut request: BollardRequest,
) -> Result<http::Response<Incoming>, ClientError> {
    let stream = dialer.dial().await?;
    let failed = |e: hyper::Error| ClientError::from(io::Error::other(e));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // It ends with the answer.
    tokio::spawn(connection.with_upgrades());
    if let Some(path) = request.uri().path_and_query() {
        *request.uri_mut() = Uri::from(path.clone());
    }
    let host = HeaderValue::from_static("engine");
    request.headers_mut().insert(HOST, host);
    sender.send_request(request).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Error, ExecOptions};
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    /// Answers one request as an Engine would.
    async fn answer(mut stream: DuplexStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let path = path.strip_prefix("/v1.41").unwrap_or(path).to_owned();
        let with = |body: &str| {
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\napi-version: 1.41\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        };
        let reply = match path.as_str() {
            "/_ping" => with("OK"),
            p if p.starts_with("/containers/json") => {
                with(r#"[{"Id":"abc","Names":["/x"],"State":"running"}]"#)
            }
            "/containers/abc/json" => with(r#"{"Id":"abc"}"#),
            "/containers/abc/exec" => with(r#"{"Id":"e1"}"#),
            "/exec/e1/json" => with(r#"{"ExitCode":3}"#),
            "/exec/e1/start" => {
                let upgraded =
                    "HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n";
                stream.write_all(upgraded.as_bytes()).await?;
                // What comes in goes out in capitals.
                let mut byte = [0];
                let mut body = head.contains("content-length");
                while stream.read(&mut byte).await? == 1 {
                    // The request's body is JSON and ends with its brace.
                    if body {
                        body = byte[0] != b'}';
                        continue;
                    }
                    stream.write_all(&byte.to_ascii_uppercase()).await?;
                }
                return stream.shutdown().await;
            }
            _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        };
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await
    }

    fn dialer() -> Dialer {
        Dialer::new(|| {
            Box::pin(async {
                let (here, there) = tokio::io::duplex(4096);
                tokio::spawn(answer(there));
                Ok(Box::new(here) as BoxedStream)
            })
        })
    }

    #[tokio::test]
    async fn an_engine_is_used_over_any_stream() {
        let engine = Engine::connect_through(dialer(), "node beta")
            .await
            .unwrap();
        assert_eq!(engine.address(), "node beta");
        assert!(!engine.is_here());
        let containers = engine.containers("x", false).await.unwrap();
        assert_eq!(containers[0].name, "x");
        let raw = engine.inspect_raw("abc", false).await.unwrap();
        assert_eq!(raw["Id"], "abc");
    }

    #[tokio::test]
    async fn a_command_is_talked_to_over_any_stream() {
        let engine = Engine::connect_through(dialer(), "node beta")
            .await
            .unwrap();
        let options = ExecOptions {
            command: vec!["cat".to_owned()],
            tty: true,
            interactive: true,
            ..ExecOptions::default()
        };
        let mut session = engine.exec("abc", &options).await.unwrap().unwrap();
        session.input.write_all(b"hello").await.unwrap();
        session.input.shutdown().await.unwrap();
        let mut said = Vec::new();
        while let Some(piece) = session.output.next().await {
            said.extend_from_slice(&piece.unwrap().bytes);
        }
        assert_eq!(said, b"HELLO");
        assert_eq!(session.exit_code().await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_way_that_leads_nowhere_is_told_in_its_own_words() {
        let dialer = Dialer::new(|| {
            Box::pin(async { Err(io::Error::other("node beta has been away for 3 s")) })
        });
        let error = Engine::connect_through(dialer, "node beta")
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }));
        assert_eq!(
            error.to_string(),
            "cannot reach the Docker Engine of node beta: node beta has been away for 3 s"
        );
    }
}
