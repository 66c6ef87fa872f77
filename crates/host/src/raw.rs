//! What the Engine says of a container word for word: the client's types would leave out what
//! they do not know, and bring the rest into another order.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Engine, Error};

/// Bytes of an answer that are read at most.
const MOST: u64 = 64 << 20;

impl Engine {
    /// All that the Engine knows of a container, as it writes it (`GET /containers/{id}/json`);
    /// with `size` also its sizes, which takes the Engine a while.
    ///
    /// # Errors
    /// The Engine cannot be reached or has no such container.
    pub async fn inspect_raw(&self, id: &str, size: bool) -> Result<Value, Error> {
        let size = if size { "?size=1" } else { "" };
        let path = format!("/v{}/containers/{id}/json{size}", self.api());
        self.get_json(&path, &format!("cannot inspect {id}")).await
    }

    /// The answer to a request, as it is written.
    pub(crate) async fn get_json(&self, path: &str, context: &str) -> Result<Value, Error> {
        let answer = self.get(path).await.map_err(|e| Error::Gone {
            reason: format!("{context}: {e}"),
        })?;
        let gone = |what: &str| Error::Gone {
            reason: format!("{context}: the answer {what}"),
        };
        let (status, body) = parts(&answer).ok_or_else(|| gone("was cut off"))?;
        let body: Value = serde_json::from_slice(body).map_err(|_| gone("is no JSON"))?;
        match status {
            200 => Ok(body),
            status => Err(Error::Refused {
                context: context.to_owned(),
                message: body["message"].as_str().unwrap_or_default().to_owned(),
                status,
            }),
        }
    }

    /// The answer to a request. HTTP 1.0 has it end with the connection, in one piece.
    async fn get(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = self.dial().await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// Status and body of an answer.
fn parts(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = b"HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\n{\"a\":1}";
        assert_eq!(parts(answer), Some((404, &b"{\"a\":1}"[..])));
        assert_eq!(parts(b"HTTP/1.0 200 OK\r\n"), None);
    }
}
