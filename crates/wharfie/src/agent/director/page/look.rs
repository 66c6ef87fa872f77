//! Which ports speak HTTP.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// So long is waited for an answer: a page must not take long.
const WAIT: Duration = Duration::from_millis(400);
/// So long what was found counts.
const KEPT: Duration = Duration::from_secs(30);
/// A port that nobody asked for is forgotten after so many others.
const MOST: usize = 10_000;
/// So many ports are asked at a time.
const AT_ONCE: usize = 32;
/// Bytes of an answer that are looked at.
const BEGIN: usize = 512;

/// What is known of ports.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeMap<SocketAddr, (Instant, &'static str)>>);

impl Known {
    /// What each port speaks: `http`, `https` or `tcp`.
    pub(super) async fn schemes(
        &self,
        ports: Vec<SocketAddr>,
    ) -> BTreeMap<SocketAddr, &'static str> {
        let fresh = |(at, said): &(Instant, &'static str)| (at.elapsed() < KEPT).then_some(*said);
        let (mut known, mut asked) = (BTreeMap::new(), Vec::new());
        {
            let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for port in ports {
                match seen.get(&port).and_then(fresh) {
                    Some(said) => drop(known.insert(port, said)),
                    None => asked.push(port),
                }
            }
        }
        let answers: Vec<&str> = stream::iter(asked.clone())
            .map(ask)
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() > MOST {
            seen.clear();
        }
        for (port, said) in asked.into_iter().zip(answers) {
            seen.insert(port, (Instant::now(), said));
            known.insert(port, said);
        }
        known
    }
}

async fn ask(port: SocketAddr) -> &'static str {
    let talk = async {
        let mut stream = TcpStream::connect(port).await?;
        let host = match port.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\nUser-Agent: wharfie\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut begin = vec![0; BEGIN];
        let mut had = 0;
        while had < BEGIN {
            match stream.read(&mut begin[had..]).await? {
                0 => break,
                n => had += n,
            }
            if had >= 5
                && !begin.starts_with(b"HTTP/1.1 400")
                && !begin.starts_with(b"HTTP/1.0 400")
            {
                break;
            }
        }
        begin.truncate(had);
        Ok::<_, std::io::Error>(begin)
    };
    match timeout(WAIT, talk).await {
        Ok(Ok(begin)) => scheme(&begin),
        _ => "tcp",
    }
}

/// What speaks whoever answers a request without encryption like this.
fn scheme(begin: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(begin);
    match begin {
        // An alert of TLS (RFC 8446 section 5.1).
        [0x15, 3, ..] => "https",
        _ if !begin.starts_with(b"HTTP/") => "tcp",
        _ if text.contains(" 400 ") && text.contains("HTTPS") => "https",
        _ => "http",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_tell_what_is_spoken() {
        assert_eq!(scheme(b"HTTP/1.1 404 Not Found\r\n"), "http");
        assert_eq!(
            scheme(b"HTTP/1.1 400 Bad Request\r\n\r\nplain HTTP sent to HTTPS port"),
            "https"
        );
        assert_eq!(scheme(&[0x15, 3, 1, 0, 2, 2, 70]), "https");
        assert_eq!(scheme(b"SSH-2.0-OpenSSH"), "tcp");
        assert_eq!(scheme(b""), "tcp");
    }
}
