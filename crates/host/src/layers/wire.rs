//! What is said between a node that has an image and one that takes it.
//!
//! A stream carries one request. Both sides first send a greeting with the protocol's version;
//! then come frames: a byte that says what it is, the length (four bytes, big-endian), and that
//! many bytes. Words are JSON; a layer's bytes follow the words that announce them, in as many
//! frames as its size needs. Every length is bounded, so that nobody can be made to keep more in
//! memory than a frame.

use std::io;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Contents, Digest};

/// Begins every stream; the last byte is the version of what follows.
const GREETING: [u8; 4] = [b'w', b'h', b'l', 1];
const WORDS: u8 = 1;
const DATA: u8 = 2;
/// Bytes of words at most.
const MOST_WORDS: usize = 1 << 20;
/// Bytes of a piece of a layer at most.
pub(super) const MOST_DATA: usize = 1 << 20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// What is in an image?
    Describe {
        /// A reference or an id.
        image: String,
    },
    /// Give me these.
    Send {
        /// The image's id, as the answer to `Describe` has it.
        image: String,
        /// Its configuration or layers, and from which byte on.
        parts: Vec<Part>,
    },
}

/// A file of an image that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The digest of the whole file.
    pub(super) digest: Digest,
    /// How many bytes of it are there already.
    pub(super) from: u64,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// What is in the image.
    Contents(Contents),
    /// The bytes of a file come next: `size` less `from` of them.
    Part {
        /// The digest of the whole file.
        digest: Digest,
        /// Size of the whole file.
        size: u64,
        /// The first byte that comes.
        from: u64,
    },
    /// It goes on, but the Engine takes its time.
    Working,
    /// That was all.
    Done,
    /// There is no such image here.
    Missing,
    /// It cannot be done.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// A frame that was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Words, still to be read.
    Words(Bytes),
    /// A piece of a file.
    Data(Bytes),
}

/// Sends our greeting.
pub(super) async fn greet(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(&GREETING).await
}

/// Reads the other side's greeting.
pub(super) async fn greeted(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).await?;
    let (name, version) = (&greeting[..3], greeting[3]);
    if name != &GREETING[..3] {
        return Err(invalid("the other side does not speak of images"));
    }
    if version != GREETING[3] {
        return Err(invalid(format!(
            "the other side has version {version} of the protocol for images, this one {}: update \
             the older one",
            GREETING[3]
        )));
    }
    Ok(())
}

/// Sends words.
pub(super) async fn say(
    stream: &mut (impl AsyncWrite + Unpin),
    words: &impl Serialize,
) -> io::Result<()> {
    let words = serde_json::to_vec(words)?;
    if words.len() > MOST_WORDS {
        return Err(invalid("more is to be said than a message can hold"));
    }
    frame(stream, WORDS, &words).await?;
    stream.flush().await
}

/// Sends a piece of a file, of at most [`MOST_DATA`] bytes.
pub(super) async fn give(stream: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> io::Result<()> {
    frame(stream, DATA, data).await
}

async fn frame(stream: &mut (impl AsyncWrite + Unpin), kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| invalid("a frame is too long"))?;
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&head).await?;
    stream.write_all(body).await
}

/// Receives a frame.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let most = match head[0] {
        WORDS => MOST_WORDS,
        DATA => MOST_DATA,
        other => return Err(invalid(format!("there is no frame of kind {other}"))),
    };
    if length > most {
        return Err(invalid(format!("a frame of {length} bytes is too long")));
    }
    let mut body = Vec::new();
    stream
        .take(u64::from(u32::from_be_bytes([
            head[1], head[2], head[3], head[4],
        ])))
        .read_to_end(&mut body)
        .await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let body = Bytes::from(body);
    Ok(match head[0] {
        WORDS => Frame::Words(body),
        _ => Frame::Data(body),
    })
}

/// Receives words.
pub(super) async fn hear<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    match receive(stream).await? {
        Frame::Words(words) => read(&words),
        Frame::Data(_) => Err(invalid("bytes came where words were expected")),
    }
}

/// Reads words.
pub(super) fn read<T: DeserializeOwned>(words: &[u8]) -> io::Result<T> {
    serde_json::from_slice(words).map_err(|e| invalid(format!("a message cannot be read: {e}")))
}

pub(super) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.build().unwrap()
    }

    #[test]
    fn what_is_said_is_heard() {
        runtime().block_on(async {
            let digest = Digest::of("x");
            let request = Request::Send {
                image: digest.to_string(),
                parts: vec![Part {
                    digest: digest.clone(),
                    from: u64::MAX,
                }],
            };
            let mut stream = Vec::new();
            greet(&mut stream).await.unwrap();
            say(&mut stream, &request).await.unwrap();
            give(&mut stream, b"bytes").await.unwrap();
            let mut stream = stream.as_slice();
            greeted(&mut stream).await.unwrap();
            assert_eq!(hear::<Request>(&mut stream).await.unwrap(), request);
            let bytes = Frame::Data(Bytes::from_static(b"bytes"));
            assert_eq!(receive(&mut stream).await.unwrap(), bytes);
            assert!(stream.is_empty());
        });
    }

    #[test]
    fn another_version_is_refused_with_what_to_do() {
        runtime().block_on(async {
            let error = greeted(&mut &b"whl\x02"[..]).await.unwrap_err();
            assert!(error.to_string().contains("version 2"), "{error}");
            assert!(error.to_string().contains("update"), "{error}");
            assert!(greeted(&mut &b"HTTP"[..]).await.is_err());
        });
    }

    #[test]
    fn long_and_strange_frames_are_refused_before_they_are_read() {
        runtime().block_on(async {
            for head in [
                [WORDS, 0, 16, 0, 1],
                [DATA, 255, 255, 255, 255],
                [3, 0, 0, 0, 0],
            ] {
                let mut stream = &head[..];
                let error = receive(&mut stream).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            }
            // What is announced and does not come takes no memory either.
            let error = receive(&mut &[DATA, 0, 16, 0, 0, 7][..]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, kind in 0_u8..4, length in 0_u8..64) {
            let mut framed = vec![kind, 0, 0, 0, length];
            framed.extend_from_slice(&bytes);
            for mut stream in [&bytes[..], &framed[..]] {
                if let Ok(Frame::Words(words)) = runtime().block_on(receive(&mut stream)) {
                    let _ = read::<Answer>(&words);
                    let _ = read::<Request>(&words);
                }
            }
        }

        #[test]
        fn digests_in_messages_are_digests(text in "[a-z0-9:/.]{0,80}") {
            let words = serde_json::json!({ "part": { "digest": text, "size": 1, "from": 0 } });
            if let Ok(Answer::Part { digest, .. }) = read(words.to_string().as_bytes()) {
                prop_assert!(!digest.hex().contains(['/', '.']));
                prop_assert_eq!(digest.hex().len(), 64);
            }
        }
    }
}
