//! What nodes say to each other on streams: frames of a length, a kind and a body.
//!
//! A frame of a kind that is not known is passed over, and fields behind those that are known are
//! not looked at: so a newer node and an older one understand what both know. What breaks this
//! gets another ALPN (see `transport::quic`), and then they refuse each other.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::clock::Stamp;
use crate::id::NodeId;
use crate::replica::{Key, Summary};
use crate::swim::Life;

/// The largest body of a frame, in bytes.
pub const LARGEST_FRAME: usize = 16 << 20;
/// The version of what is said, told in every greeting.
pub const VERSION: u16 = 1;

/// Something that nodes say.
pub trait Said: Serialize + DeserializeOwned {
    /// Its number on the wire.
    const KIND: u16;
}

macro_rules! said {
    ($($kind:literal $name:ident),* $(,)?) => {
        $(impl Said for $name { const KIND: u16 = $kind; })*
    };
}

said! {
    1 Opening, 2 Hello, 3 Records, 4 Durable, 5 Report, 6 Compare, 7 Differences, 8 Missing,
    9 JoinRequest, 10 JoinReply, 11 Opened, 12 Lives,
}

/// The first frame of a stream: which service it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Name of the service.
    pub service: String,
}

/// The answer to [`Opening`] of services that may fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Why not, if not.
    pub refusal: Option<String>,
}

/// What peers say first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u16,
    /// The version of the program, for people.
    pub software: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// This life of the node.
    pub life: Life,
    /// The time of its clock, in milliseconds since 1970.
    pub time: u64,
    /// It was away for so long that others may have forgotten deletions of which it has not heard.
    pub stale: bool,
    /// What it knows of others: state of each life, as SWIM has it. Nothing in a large cluster,
    /// where a comparison follows that tells it only if the two differ.
    pub known: Vec<foca::Member<Life>>,
}

/// Which cluster it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Versions of objects, as `replica::encode` writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records(pub Vec<u8>);

/// These versions are on the disk of the peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable(pub Vec<Stamp>);

/// What a node says of itself. Only its own agent writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose it is.
    pub node: NodeId,
    /// The life it is of, and its number in it.
    pub version: (u64, u64),
    /// The report.
    pub body: Vec<u8>,
}

/// Begins a reconciliation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Of all objects.
    pub summary: Summary,
    /// Of all reports.
    pub reports: Vec<(NodeId, (u64, u64))>,
    /// Of what is known of members.
    pub lives: u64,
}

/// The answer to [`Compare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// Buckets in which the summaries differ.
    pub buckets: Vec<u8>,
    /// What the answerer has in these.
    pub versions: Vec<(Key, Stamp)>,
    /// Reports of which it has a newer version; they follow.
    pub reports: u32,
    /// Reports of which it has an older version.
    pub wanted: Vec<NodeId>,
    /// What it knows of members, if that differs.
    pub known: Vec<foca::Member<Life>>,
}

/// What the one who began has not; what the other has not follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Objects whose versions are wanted.
    pub wanted: Vec<Key>,
    /// Batches of records that follow.
    pub batches: u32,
    /// Reports that follow.
    pub reports: u32,
    /// What it knows of members, if that differs.
    pub known: Vec<foca::Member<Life>>,
}

/// What has just become known of members; it is told further in large clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lives(pub Vec<foca::Member<Life>>);

/// A newcomer asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// [`VERSION`].
    pub version: u16,
    /// The version of the program, for people.
    pub software: String,
    /// Of the token.
    pub secret: [u8; 16],
    /// Name of the newcomer.
    pub name: String,
    /// Port that it listens at.
    pub port: u16,
    /// Where it thinks it can be reached.
    pub addresses: Vec<std::net::SocketAddr>,
    /// The time of its clock, in milliseconds since 1970.
    pub time: u64,
    /// Objects that it brings with it, of which nobody else may have another version.
    pub brings: Vec<(Key, Stamp)>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinReply {
    /// It is a member now.
    Welcome {
        /// The cluster.
        cluster: ClusterId,
        /// Members and other objects, as `replica::encode` writes them.
        records: Vec<u8>,
    },
    /// It is not.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// A stream that does not carry what it should.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It ended, or the link did.
    #[error("the connection ended: {0}")]
    Ended(#[from] std::io::Error),
    /// A frame is larger than allowed.
    #[error("a message of {0} bytes is refused: {LARGEST_FRAME} are allowed")]
    Large(usize),
    /// A body cannot be read.
    #[error("a message cannot be understood: {0}")]
    Malformed(#[from] postcard::Error),
}

/// A frame whose body was not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    kind: u16,
    body: Vec<u8>,
}

impl Frame {
    /// What it says, if it is this.
    ///
    /// # Errors
    /// It is, but cannot be read.
    pub fn read<T: Said>(&self) -> Result<Option<T>, WireError> {
        if self.kind != T::KIND {
            return Ok(None);
        }
        Ok(Some(postcard::from_bytes(&self.body)?))
    }
}

/// The bytes of a frame.
///
/// # Errors
/// It would be too large.
pub fn encode<T: Said>(said: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0; 6];
    bytes = postcard::to_extend(said, bytes)?;
    let length = bytes.len() - 6;
    let announced = u32::try_from(length).ok();
    let announced = announced.filter(|_| length <= LARGEST_FRAME);
    let announced = announced.ok_or(WireError::Large(length))?;
    bytes[..4].copy_from_slice(&announced.to_be_bytes());
    bytes[4..6].copy_from_slice(&T::KIND.to_be_bytes());
    Ok(bytes)
}

/// Writes a frame.
///
/// # Errors
/// The stream ended, or the frame would be too large.
pub async fn send<T: Said>(
    stream: &mut (impl AsyncWrite + Unpin),
    said: &T,
) -> Result<(), WireError> {
    stream.write_all(&encode(said)?).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads the next frame.
///
/// # Errors
/// The stream ended, or the frame is too large.
pub async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Result<Frame, WireError> {
    let mut head = [0; 6];
    stream.read_exact(&mut head).await?;
    let [a, b, c, d, e, f] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > LARGEST_FRAME {
        return Err(WireError::Large(length));
    }
    // Memory is taken as it is filled: a length alone takes none.
    let mut body = Vec::with_capacity(length.min(64 << 10));
    let read = stream.take(length as u64).read_to_end(&mut body).await?;
    if read < length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Frame {
        kind: u16::from_be_bytes([e, f]),
        body,
    })
}

/// Reads frames until the one that is expected.
///
/// # Errors
/// The stream ends before, or a frame cannot be read.
pub async fn expect<T: Said>(stream: &mut (impl AsyncRead + Unpin)) -> Result<T, WireError> {
    loop {
        if let Some(said) = next(stream).await?.read()? {
            return Ok(said);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let opening = Opening {
            service: "engine".to_owned(),
        };
        let mut bytes = vec![0, 0, 0, 3, 99, 99, 1, 2, 3];
        bytes.extend(encode(&opening).unwrap());
        assert_eq!(
            block(expect::<Opening>(&mut bytes.as_slice())).unwrap(),
            opening
        );
    }

    #[test]
    fn a_newer_node_may_say_more() {
        let mut bytes = encode(&Opened { refusal: None }).unwrap();
        bytes.extend([1, 2]);
        bytes[3] += 2;
        let opened: Opened = block(expect(&mut bytes.as_slice())).unwrap();
        assert_eq!(opened.refusal, None);
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let bytes = [0xff_u8; 6];
        assert!(matches!(
            block(next(&mut &bytes[..])),
            Err(WireError::Large(_))
        ));
        let bytes = [0, 0xff, 0xff, 0xff, 0, 1];
        assert!(matches!(
            block(next(&mut &bytes[..])),
            Err(WireError::Ended(_))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, kind in 0_u16..14) {
            let frame = Frame { kind, body: bytes.clone() };
            let _ = frame.read::<Opening>();
            let _ = frame.read::<Hello>();
            let _ = frame.read::<Records>();
            let _ = frame.read::<Durable>();
            let _ = frame.read::<Report>();
            let _ = frame.read::<Compare>();
            let _ = frame.read::<Differences>();
            let _ = frame.read::<Missing>();
            let _ = frame.read::<JoinRequest>();
            let _ = frame.read::<JoinReply>();
            let _ = frame.read::<Opened>();
            let _ = frame.read::<Lives>();
            let _ = block(next(&mut bytes.as_slice()));
        }
    }
}
