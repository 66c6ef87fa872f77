//! Which ports speak HTTP.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// So long is waited for an answer: a page must not take long.
const WAIT: Duration = Duration::from_millis(400);
/// The pause after nobody was there, or said anything.
const PAUSE: Duration = Duration::from_secs(30);
/// Who said nothing so often is not asked again: a database does not like such questions.
const QUIET: u8 = 3;
/// A port that nobody asked for is forgotten after so many others.
const MOST: usize = 10_000;
/// So many ports are asked at a time.
const AT_ONCE: usize = 32;
/// Bytes of an answer that are looked at.
const BEGIN: usize = 512;

/// A port, and the ids of the containers behind it: what they speak they speak for life.
pub(super) type Asked = (SocketAddr, Vec<String>);

/// What a port said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// This is spoken.
    Speaks(&'static str),
    /// Somebody is there, and does not answer.
    Nothing,
    /// Nobody is there, perhaps not yet.
    Away,
}

/// What is known of a port.
#[derive(Debug)]
struct Port {
    of: Vec<String>,
    at: Instant,
    said: Said,
    /// How often nothing was said.
    quiet: u8,
}

impl Port {
    /// After one more answer.
    fn after(before: Option<Self>, of: Vec<String>, said: Said) -> Self {
        let before = before.filter(|b| b.of == of).map_or(0, |b| b.quiet);
        let quiet = before + u8::from(said == Said::Nothing);
        Self {
            of,
            at: Instant::now(),
            said,
            quiet,
        }
    }

    /// What it speaks, if that counts still.
    fn speaks(&self, of: &[String], now: Instant) -> Option<&'static str> {
        let lasts = match self.said {
            Said::Speaks(_) => true,
            Said::Nothing if self.quiet >= QUIET => true,
            Said::Nothing | Said::Away => now.duration_since(self.at) < PAUSE,
        };
        (lasts && self.of == of).then(|| self.said.scheme())
    }
}

impl Said {
    fn scheme(self) -> &'static str {
        match self {
            Self::Speaks(scheme) => scheme,
            Self::Nothing | Self::Away => "tcp",
        }
    }
}

/// What is known of ports.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeMap<SocketAddr, Port>>);

impl Known {
    /// What each port speaks: `http`, `https` or `tcp`.
    pub(super) async fn schemes(&self, ports: Vec<Asked>) -> BTreeMap<SocketAddr, &'static str> {
        let (mut known, mut asked) = (BTreeMap::new(), Vec::new());
        {
            let (seen, now) = (self.seen(), Instant::now());
            for (port, of) in ports {
                match seen.get(&port).and_then(|p| p.speaks(&of, now)) {
                    Some(said) => drop(known.insert(port, said)),
                    None => asked.push((port, of)),
                }
            }
        }
        let ports: Vec<SocketAddr> = asked.iter().map(|(port, _)| *port).collect();
        let answers: Vec<Said> = stream::iter(ports)
            .map(ask)
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut seen = self.seen();
        if seen.len() > MOST {
            seen.clear();
        }
        for ((port, of), said) in asked.into_iter().zip(answers) {
            let before = seen.remove(&port);
            seen.insert(port, Port::after(before, of, said));
            known.insert(port, said.scheme());
        }
        known
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Port>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(port: SocketAddr) -> Said {
    let Ok(Ok(mut stream)) = timeout(WAIT, TcpStream::connect(port)).await else {
        return Said::Away;
    };
    let mut begin = vec![0; BEGIN];
    let mut had = 0;
    let talk = async {
        let host = match port.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\nUser-Agent: wharfie\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
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
        Ok::<_, std::io::Error>(())
    };
    // What was said before it broke off counts.
    let _ = timeout(WAIT, talk).await;
    match &begin[..had] {
        [] => Said::Nothing,
        said => Said::Speaks(scheme(said)),
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
    use tokio::net::TcpListener;

    use super::*;

    fn life(of: &str) -> Vec<String> {
        vec![of.to_owned()]
    }

    /// A database that hangs up at such a question is left alone, as is one that greets.
    #[tokio::test]
    async fn who_does_not_speak_http_is_not_asked_for_ever() {
        for (greeting, most) in [(&b""[..], usize::from(QUIET)), (b"+hello", 1)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
            let server = tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = asked.send(());
                    // What is left unread would break off what is said.
                    let _ = stream.read(&mut [0; BEGIN]).await;
                    let _ = stream.write_all(greeting).await;
                }
            });
            let known = Known::default();
            for _ in 0..10 {
                let said = known.schemes(vec![(at, life("a"))]).await;
                assert_eq!(said[&at], "tcp");
                // The pause is over.
                if let Some(port) = known.seen().get_mut(&at) {
                    port.at = port.at.checked_sub(PAUSE).unwrap();
                }
            }
            let count = |questions: &mut tokio::sync::mpsc::UnboundedReceiver<()>| {
                std::iter::from_fn(|| questions.try_recv().ok()).count()
            };
            assert_eq!(count(&mut questions), most);
            // Another container may speak something else.
            known.schemes(vec![(at, life("b"))]).await;
            assert_eq!(count(&mut questions), 1);
            server.abort();
        }
    }

    #[test]
    fn who_is_not_there_yet_is_asked_again() {
        let now = Instant::now();
        let port = Port::after(None, life("a"), Said::Away);
        assert_eq!(port.speaks(&life("a"), now), Some("tcp"));
        assert_eq!(port.speaks(&life("a"), now + 2 * PAUSE), None);
        let port = Port::after(Some(port), life("a"), Said::Speaks("http"));
        assert_eq!(port.speaks(&life("a"), now + 2 * PAUSE), Some("http"));
        assert_eq!(port.speaks(&life("b"), now), None);
    }

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
