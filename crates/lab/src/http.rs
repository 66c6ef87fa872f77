//! As much HTTP/1.1 as the lab needs: one request, one response, and the connection is closed.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail, ensure};

/// A request. The default is `GET /` with no headers beyond `Host` and `Connection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request of any method; `target` is the path with the query.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A `GET`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// Adds a header; a `Host` given here takes the place of the default one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body and its content type.
    #[must_use]
    pub fn json(self, value: &serde_json::Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(value.to_string())
    }

    /// Sends the request and reads the response to the end of the connection.
    pub(crate) fn send(&self, mut stream: impl Read + Write, host: &str) -> Result<Response> {
        let what = || format!("{} {}", self.method, self.target);
        let sent = stream
            .write_all(&self.head(host))
            .and_then(|()| stream.write_all(&self.body))
            .and_then(|()| stream.flush());
        let mut received = Vec::new();
        // A server that refuses a body early answers and closes: its answer is worth more.
        if let Err(error) = stream.read_to_end(&mut received)
            && received.is_empty()
        {
            return Err(error).with_context(|| format!("no response to {}", what()));
        }
        if received.is_empty() {
            sent.with_context(|| format!("cannot send {}", what()))?;
            bail!("the connection was closed without a response to {}", what());
        }
        Response::parse(&received).with_context(what)
    }

    fn head(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let named = |(name, _): &(String, String)| name.eq_ignore_ascii_case("host");
        if !self.headers.iter().any(named) {
            head += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n", self.body.len());
        head += "Connection: close\r\n\r\n";
        head.into_bytes()
    }
}

/// A response, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers in their order, names as received.
    pub headers: Vec<(String, String)>,
    /// The body, without transfer encoding.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(candidate, _): &&(String, String)| candidate.eq_ignore_ascii_case(name);
        self.headers.iter().find(same).map(|(_, value)| &**value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The response itself if the status is 2xx, else an error with the body.
    pub fn success(self) -> Result<Self> {
        ensure!(
            (200..300).contains(&self.status),
            "status {}: {}",
            self.status,
            self.text().trim()
        );
        Ok(self)
    }

    fn parse(received: &[u8]) -> Result<Self> {
        let end = find(received, b"\r\n\r\n").context("the response has no end of headers")?;
        let head = String::from_utf8_lossy(&received[..end]);
        let body = &received[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let code = status
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
            .with_context(|| format!("{status:?} is not a status line"))?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let mut response = Self {
            status: code,
            headers,
            body: Vec::new(),
        };
        response.body = match response.header("Transfer-Encoding") {
            Some(encoding) if encoding.eq_ignore_ascii_case("chunked") => unchunk(body)?,
            _ => whole(body, response.header("Content-Length"))?,
        };
        Ok(response)
    }
}

fn whole(body: &[u8], length: Option<&str>) -> Result<Vec<u8>> {
    let Some(length) = length else {
        return Ok(body.to_owned());
    };
    let length: usize = length.parse().context("Content-Length is not a number")?;
    // An answer without a body (to HEAD, or 304) may tell the length it would have.
    ensure!(
        body.is_empty() || body.len() >= length,
        "the body ends after {} of {length} bytes",
        body.len()
    );
    Ok(body[..length.min(body.len())].to_owned())
}

fn unchunk(mut body: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = find(body, b"\r\n").context("the body ends within a chunk")?;
        let line = String::from_utf8_lossy(&body[..end]);
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16)
            .with_context(|| format!("{size:?} is not a chunk's size"))?;
        body = &body[end + 2..];
        if size == 0 {
            return Ok(whole);
        }
        ensure!(body.len() >= size + 2, "the body ends within a chunk");
        whole.extend_from_slice(&body[..size]);
        body = &body[size + 2..];
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|part| part == needle)
}

/// An `http://` address taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// Host and port as written, for the `Host` header.
    pub(crate) authority: String,
    /// Host and port to connect to.
    pub(crate) address: String,
    pub(crate) target: String,
}

impl Url {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .with_context(|| format!("{url:?} does not begin with http://"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        ensure!(!authority.is_empty(), "{url:?} has no host");
        let port_after = authority.rfind(']').unwrap_or(0);
        let has_port = authority[port_after..].contains(':');
        Ok(Self {
            authority: authority.to_owned(),
            address: format!("{authority}{}", if has_port { "" } else { ":80" }),
            target: if path.is_empty() { "/" } else { path }.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_host_and_its_length() {
        let request = Request::new("POST", "/x")
            .header("host", "web.example")
            .body("abc");
        let head = String::from_utf8(request.head("10.0.0.1")).expect("text");
        assert!(head.starts_with("POST /x HTTP/1.1\r\nhost: web.example\r\n"));
        assert!(!head.contains("10.0.0.1"));
        assert!(head.contains("Content-Length: 3\r\n"));
    }

    #[test]
    fn chunks_are_put_together() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                     4;x=y\r\nwhar\r\n3\r\nfie\r\n0\r\n\r\n";
        let response = Response::parse(text).expect("valid");
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "wharfie")
        );
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
            "HTTP/1.1 200",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert!(Response::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_success_carries_the_body() {
        let response = Response::parse(b"HTTP/1.1 404 Not Found\r\n\r\nno such container\n");
        let error = response.and_then(Response::success).expect_err("404");
        assert!(format!("{error:#}").contains("no such container"));
    }

    #[test]
    fn urls_are_taken_apart() {
        let parts = |url: &str| {
            let url = Url::parse(url).expect("valid");
            (url.authority, url.address, url.target)
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            parts("http://10.0.0.1"),
            owned("10.0.0.1", "10.0.0.1:80", "/")
        );
        assert_eq!(
            parts("http://[::1]:81/a?b=c:1"),
            owned("[::1]:81", "[::1]:81", "/a?b=c:1")
        );
        assert_eq!(
            parts("http://[fe80::1]/"),
            owned("[fe80::1]", "[fe80::1]:80", "/")
        );
        assert!(Url::parse("https://10.0.0.1/").is_err());
        assert!(Url::parse("http:///x").is_err());
    }
}
