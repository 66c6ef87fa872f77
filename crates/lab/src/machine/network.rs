//! Being on a machine's network, and reaching others from there.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Machine;
use crate::http::{Request, Response, Url};

/// How long a connection or a response may take in the `http` functions.
const PATIENCE: Duration = Duration::from_secs(10);

impl Machine {
    /// Calls a function in this machine's network namespace, in a thread made for it: sockets that
    /// it opens are this machine's, for as long as they live.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.namespace_file();
        let namespace =
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let in_thread = || -> Result<T> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter {}", path.display()))?;
            Ok(work())
        };
        std::thread::scope(|scope| {
            let result = scope.spawn(in_thread).join();
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects from this machine, within the time given.
    pub fn tcp_connect(&self, address: impl ToSocketAddrs, timeout: Duration) -> Result<TcpStream> {
        let addresses: Vec<SocketAddr> = address
            .to_socket_addrs()
            .context("not an address")?
            .collect();
        self.inside(|| connect(&addresses, timeout))?
    }

    /// Fetches an `http://` address from this machine: status and body.
    pub fn http_get(&self, url: &str) -> Result<(u16, String)> {
        let target = Url::parse(url)?.target;
        let response = self.http(url, &Request::get(&target))?;
        Ok((response.status, response.text()))
    }

    /// Sends any request from this machine to the server of an `http://` address; the request's own
    /// path counts, not the address's. A `Host` header in the request goes out as it is.
    pub fn http(&self, url: &str, request: &Request) -> Result<Response> {
        let url = Url::parse(url)?;
        let addresses: Vec<SocketAddr> = url
            .address
            .to_socket_addrs()
            .with_context(|| format!("{:?} is not an address", url.address))?
            .collect();
        self.inside(|| {
            let stream = connect(&addresses, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            request.send(stream, &url.authority)
        })?
        .with_context(|| format!("from {} to {}", self.name(), url.authority))
    }

    /// Whether one ping from this machine is answered within a second.
    pub fn reaches(&self, address: Ipv4Addr) -> Result<bool> {
        let status = self
            .command("busybox")
            .args(["ping", "-c", "1", "-W", "1", &address.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot run busybox")?;
        Ok(status.success())
    }
}

fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream> {
    let mut last = anyhow!("no address to connect to");
    for address in addresses {
        match TcpStream::connect_timeout(address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = anyhow!(error).context(format!("cannot connect to {address}")),
        }
    }
    Err(last)
}
