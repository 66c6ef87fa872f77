//! A registry that takes every image: as much of the protocol as a push needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use wharfie_lab::Machine;

/// A registry on the loopback of a host, which needs no certificate there. It answers as long as
/// the test process lives.
pub(crate) struct Registry {
    pub(crate) address: String,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    manifests: Vec<Seen>,
    /// Digests.
    blobs: Vec<String>,
}

/// A manifest that was pushed: its path, and who pushed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) manifest: String,
    pub(crate) authorization: String,
}

impl Registry {
    /// Starts one.
    pub(crate) fn start(on: &Machine) -> Self {
        let listener = on
            .inside(|| TcpListener::bind("127.0.0.1:0"))
            .unwrap()
            .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let taken = Arc::<Mutex<Taken>>::default();
        let noted = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || {
                    // A client that goes away is no concern of ours.
                    let _ = answer(stream, &noted);
                });
            }
        });
        Self { address, taken }
    }

    /// The manifests that were pushed so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.manifests.clone()
    }
}

/// Reads one request, whatever its body, and answers it.
fn answer(stream: TcpStream, taken: &Mutex<Taken>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (mut length, mut chunked, mut authorization) = (0, false, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "transfer-encoding" => chunked = true,
            "authorization" => authorization = value.trim().to_owned(),
            _ => {}
        }
    }
    let body = if chunked {
        chunks(&mut reader)?
    } else {
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        body
    };
    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
    let digest = path
        .rsplit(['/', '='])
        .next()
        .unwrap_or("")
        .replace("%3A", ":");
    let (status, more) = match method {
        "GET" if authorization.is_empty() && path == "/v2/" => (
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"test\"\r\n".to_owned(),
        ),
        "GET" => ("200 OK", String::new()),
        "HEAD" if taken.blobs.contains(&digest) => {
            ("200 OK", format!("Docker-Content-Digest: {digest}\r\n"))
        }
        "HEAD" => ("404 Not Found", String::new()),
        "POST" => ("202 Accepted", "Location: /v2/upload/1\r\n".to_owned()),
        "PATCH" => {
            let last = body.len().saturating_sub(1);
            let more = format!("Location: /v2/upload/1\r\nRange: 0-{last}\r\n");
            ("202 Accepted", more)
        }
        _ => {
            if path.contains("/manifests/") {
                assert!(body.starts_with(b"{"), "a manifest is JSON");
                let manifest = path.to_owned();
                taken.manifests.push(Seen {
                    manifest,
                    authorization,
                });
            } else {
                taken.blobs.push(digest);
            }
            // A client wants one, and does not compare it.
            let digest = "0".repeat(64);
            (
                "201 Created",
                format!("Docker-Content-Digest: sha256:{digest}\r\n"),
            )
        }
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

fn chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        // Each piece has the end of a line behind it.
        let mut piece = vec![0; size + 2];
        reader.read_exact(&mut piece)?;
        body.extend_from_slice(&piece[..size]);
        if size == 0 {
            return Ok(body);
        }
    }
}
