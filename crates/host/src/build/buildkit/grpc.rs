//! gRPC over HTTP/2, in both directions: the Engine hands a connection over for calls to BuildKit
//! (`POST /grpc`) and one on which BuildKit calls us (`POST /session`).

use std::future::poll_fn;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Engine;
use crate::dial::BoxedStream;

/// Largest message that is taken: BuildKit's own limit.
const LARGEST: usize = 16 << 20;
/// Bytes that may be on their way to us unread: the default of 64 KiB slows builds that say much.
pub(super) const WINDOW: u32 = 1 << 20;

/// Codes of a call's end that are used here.
pub(super) mod code {
    pub(in super::super) const UNKNOWN: u32 = 2;
    pub(in super::super) const NOT_FOUND: u32 = 5;
    pub(in super::super) const UNIMPLEMENTED: u32 = 12;
    pub(in super::super) const UNAVAILABLE: u32 = 14;
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Fault {
    /// A gRPC code.
    pub(super) code: u32,
    /// In words.
    pub(super) message: String,
}

impl Fault {
    /// A failure with this code.
    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<h2::Error> for Fault {
    fn from(error: h2::Error) -> Self {
        Self::new(code::UNAVAILABLE, error.to_string())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::new(code::UNAVAILABLE, error.to_string())
    }
}

/// Asks the Engine to turn a connection into HTTP/2.
///
/// # Errors
/// The Engine cannot be reached, or knows no such address (`NOT_FOUND`).
pub(super) async fn upgrade(
    engine: &Engine,
    path: &str,
    headers: &[(&str, String)],
) -> Result<BoxedStream, Fault> {
    let mut stream = engine.dial().await?;
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n"
    );
    for (name, value) in headers {
        // A line break would begin another header.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what comes behind the headers is HTTP/2's.
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < 16 << 10 {
        answer.push(stream.read_u8().await?);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let line = answer.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("101") => Ok(stream),
        Some("404") => Err(Fault::new(
            code::NOT_FOUND,
            format!("the Engine has no {path}"),
        )),
        _ => Err(Fault::new(
            code::UNAVAILABLE,
            format!("the Engine answered {line:?} to {path}"),
        )),
    }
}

/// Messages that come in on a stream.
pub(super) struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    fn new(body: RecvStream) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
        }
    }

    /// The next message; none at the end.
    ///
    /// # Errors
    /// The connection broke, or the caller failed.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if head[0] != 0 || length > LARGEST {
                    return Err(Fault::new(
                        code::UNIMPLEMENTED,
                        "compressed, or too large a message",
                    ));
                }
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
            }
            match self.body.data().await {
                Some(piece) => {
                    let piece = piece?;
                    self.body.flow_control().release_capacity(piece.len())?;
                    self.buffer.extend_from_slice(&piece);
                }
                None => return Ok(None),
            }
        }
    }

    /// How the call ended, behind its last message.
    async fn end(&mut self) -> Result<(), Fault> {
        match self.body.trailers().await? {
            Some(trailers) => status(&trailers).unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

/// The end of a call, if these headers tell it.
fn status(headers: &HeaderMap) -> Option<Result<(), Fault>> {
    let code: u32 = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers
        .get("grpc-message")
        .and_then(|m| m.to_str().ok())
        .unwrap_or_default();
    Some(if code == 0 {
        Ok(())
    } else {
        Err(Fault::new(code, percent_decoded(message)))
    })
}

/// A text without its `%xx`.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let decoded = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        match decoded {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                rest = &tail[2..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX)); // LARGEST is far below
    frame.put_slice(message);
    frame.freeze()
}

/// Sends a message as the other side has room for it.
async fn send(stream: &mut SendStream<Bytes>, message: &[u8]) -> Result<(), Fault> {
    let mut frame = framed(message);
    while !frame.is_empty() {
        stream.reserve_capacity(frame.len());
        let room = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(Fault::new(code::UNAVAILABLE, "the stream was closed")),
        };
        let piece = frame.split_to(room.min(frame.len()));
        stream.send_data(piece, false)?;
    }
    Ok(())
}

/// A connection on which we call.
#[derive(Clone)]
pub(super) struct Client(SendRequest<Bytes>);

impl Client {
    /// Begins HTTP/2 on a connection; the future must be polled while calls are made.
    pub(super) async fn new(
        stream: BoxedStream,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), Fault> {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let (send, connection) = builder.handshake(stream).await?;
        // A broken connection is told by the calls on it.
        Ok((Self(send), async move { drop(connection.await) }))
    }

    /// Calls a method with one message; the answers come as a stream.
    pub(super) async fn call(&self, method: &str, message: &[u8]) -> Result<Messages, Fault> {
        let mut send_request = self.0.clone().ready().await?;
        let request = Request::post(format!("http://engine{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|e| Fault::new(code::UNKNOWN, e.to_string()))?;
        let (response, mut stream) = send_request.send_request(request, false)?;
        send(&mut stream, message).await?;
        stream.send_data(Bytes::new(), true)?;
        let response = response.await?;
        if let Some(Err(fault)) = status(response.headers()) {
            return Err(fault);
        }
        if !response.status().is_success() {
            return Err(Fault::new(
                code::UNAVAILABLE,
                format!("the Engine answered {}", response.status()),
            ));
        }
        Ok(Messages::new(response.into_body()))
    }

    /// Calls a method that gives one answer.
    pub(super) async fn ask(&self, method: &str, message: &[u8]) -> Result<Bytes, Fault> {
        let mut answers = self.call(method, message).await?;
        let answer = answers.next().await?;
        answers.end().await?;
        answer.ok_or_else(|| Fault::new(code::UNKNOWN, "there was no answer"))
    }
}

/// Answers to a call made to us.
pub(super) struct Replies(SendStream<Bytes>);

impl Replies {
    /// Sends an answer.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), Fault> {
        send(&mut self.0, message).await
    }

    /// Ends the call.
    fn finish(mut self, result: Result<(), Fault>) {
        let (code, message) = match result {
            Ok(()) => (0, String::new()),
            Err(fault) => (fault.code, percent_encoded(&fault.message)),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code));
        if let Ok(message) = HeaderValue::from_str(&message) {
            trailers.insert("grpc-message", message);
        }
        // The caller may have gone: there is nobody left to tell.
        let _ = self.0.send_trailers(trailers);
    }
}

/// A call made to us.
pub(super) struct Call {
    /// As `/package.Service/Method`.
    pub(super) method: String,
    /// What was said beside the messages.
    pub(super) headers: HeaderMap,
    /// What is asked.
    pub(super) messages: Messages,
}

/// Answers calls.
pub(super) trait Service: Send + Sync + 'static {
    /// Answers one call; what it returns is how the call ends.
    fn answer(
        &self,
        call: Call,
        replies: &mut Replies,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Answers the calls that come in on a connection, until it ends or the future is dropped.
pub(super) async fn serve(
    stream: BoxedStream,
    service: std::sync::Arc<impl Service>,
) -> Result<(), Fault> {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let mut connection = builder.handshake(stream).await?;
    let mut calls = tokio::task::JoinSet::new();
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let service = std::sync::Arc::clone(&service);
        while calls.try_join_next().is_some() {}
        calls.spawn(async move {
            let (parts, body) = request.into_parts();
            let head = Response::builder().header("content-type", "application/grpc");
            let Ok(head) = head.body(()) else { return };
            let Ok(stream) = respond.send_response(head, false) else {
                return;
            };
            let mut replies = Replies(stream);
            let call = Call {
                method: parts.uri.path().to_owned(),
                headers: parts.headers,
                messages: Messages::new(body),
            };
            let result = service.answer(call, &mut replies).await;
            replies.finish(result);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::net::UnixStream;

    struct Echo;

    impl Service for Echo {
        async fn answer(&self, mut call: Call, replies: &mut Replies) -> Result<(), Fault> {
            if call.method != "/echo.Echo/Say" {
                return Err(Fault::new(code::UNIMPLEMENTED, "ünknown\nmethod"));
            }
            while let Some(message) = call.messages.next().await? {
                replies.send(&message).await?;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn calls_are_answered() {
        let (here, there) = UnixStream::pair().unwrap();
        let server = tokio::spawn(serve(Box::new(there), Arc::new(Echo)));
        let (client, connection) = Client::new(Box::new(here)).await.unwrap();
        let connection = tokio::spawn(connection);
        // More than the windows hold.
        let long = vec![7; 3 << 20];
        assert_eq!(client.ask("/echo.Echo/Say", &long).await.unwrap(), long);
        assert_eq!(
            client.ask("/echo.Echo/Say", b"").await.unwrap(),
            Bytes::new()
        );
        let fault = client.ask("/echo.Echo/Shout", b"x").await.unwrap_err();
        assert_eq!(fault, Fault::new(code::UNIMPLEMENTED, "ünknown\nmethod"));
        drop(client);
        connection.await.unwrap();
        server.await.unwrap().unwrap();
    }

    #[test]
    fn percent() {
        assert_eq!(percent_decoded("a%20b%zz%"), "a b%zz%");
        assert_eq!(percent_decoded(&percent_encoded("ü%\n")), "ü%\n");
    }
}
