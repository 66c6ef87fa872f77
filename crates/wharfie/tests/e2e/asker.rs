//! A server that says who asks, and who it is.

use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use wharfie_lab::Machine;

use crate::cluster::Node;

/// Where an [`Echo`] answers, unless it is to be elsewhere.
pub(crate) const UDP: u16 = 9000;

/// The part of a compose file with that server, as `*serve`; its shell ends with what is said.
macro_rules! serves {
    ($ends:literal) => {
        concat!(
            "
x-serve: &serve
  image: busybox
  init: true
  stop_grace_period: 0s
  command:
    - sh
    - -c
    - |
      mkdir -p /w/cgi-bin
      cat >/w/cgi-bin/who <<'END'
      #!/bin/sh
      printf 'Content-Type: text/plain\\r\\n\\r\\n%s %s\\n' $$REMOTE_ADDR $$(hostname)
      END
      chmod +x /w/cgi-bin/who
      ",
            $ends,
            "\n"
        )
    };
}
pub(crate) use serves;

/// Who a server says it is, and who it says asks.
pub(crate) fn who(from: &Machine, at: impl Into<IpAddr>, port: u16) -> Result<(String, String)> {
    let at = at.into();
    let (status, said) = from.http_get(&format!("http://{at}:{port}/cgi-bin/who"))?;
    ensure!(status == 200, "{status}: {said}");
    let mut words = said.split_whitespace().map(str::to_owned);
    let asker = words.next().context("nobody asks")?;
    let asker = asker.trim_start_matches("[::ffff:").trim_end_matches(']');
    Ok((words.next().context("nobody answers")?, asker.to_owned()))
}

/// The network namespace of a node's container.
fn namespace(node: &Node, container: &str) -> Result<File> {
    let engine = node.host.engine();
    let seen = engine.api("GET", &format!("/containers/{container}/json"), None)?;
    let pid = seen["State"]["Pid"].as_u64();
    let pid = pid.filter(|p| *p != 0).context("it does not run")?;
    Ok(File::open(format!("/proc/{pid}/ns/net"))?)
}

fn socket(inside: &File, port: u16) -> Result<UdpSocket> {
    move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network))?;
    let socket = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

/// A UDP socket in a node's container.
pub(crate) fn socket_in(node: &Node, container: &str) -> Result<UdpSocket> {
    let inside = namespace(node, container)?;
    let made = std::thread::spawn(move || socket(&inside, 0));
    made.join().expect("it does not panic")
}

/// Says by UDP who asks and who it is, in a container of a node.
pub(crate) struct Echo {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn begin(node: &Node, container: &str, port: u16) -> Result<Self> {
        let inside = namespace(node, container)?;
        let ended = Arc::new(AtomicBool::new(false));
        let (end, name) = (Arc::clone(&ended), container.to_owned());
        let thread = std::thread::spawn(move || {
            let socket = socket(&inside, port).unwrap();
            let mut asked = [0; 100];
            while !end.load(Ordering::Relaxed) {
                if let Ok((_, by)) = socket.recv_from(&mut asked) {
                    let said = format!("{} {name}", by.ip().to_canonical());
                    let _ = socket.send_to(said.as_bytes(), by);
                }
            }
        });
        Ok(Self {
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
