//! The socket that a tunnel is configured by, from both sides.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::device::{Device, Running, TICK};
use crate::uapi::{Request, Set, State};
use crate::wait::{self, Ready};

/// So long may the other side take to say what it wants, or to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request: some ten thousand peers.
const LONGEST: u64 = 4 << 20;

/// What a tunnel is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The device's name, at most 15 bytes.
    pub name: String,
    /// Where it is configured.
    pub socket: PathBuf,
    /// The UDP port of VXLAN, whose packets are joined for the kernel as well.
    pub vxlan: Option<u16>,
    /// What it tells of itself.
    pub version: String,
}

/// A tunnel at work: until it is dropped, or told to end.
pub struct Tunnel {
    running: Running,
    listener: UnixListener,
    settings: Settings,
}

impl Tunnel {
    /// Makes the device and the socket. The device is neither up nor has it addresses; it has to be
    /// without ARP.
    pub fn start(settings: Settings) -> io::Result<Self> {
        if let Some(folder) = settings.socket.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if UnixStream::connect(&settings.socket).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another tunnel is at {}", settings.socket.display()),
            ));
        }
        let running = Running::start(&settings.name, settings.vxlan)?;
        match std::fs::remove_file(&settings.socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&settings.socket)?;
        std::fs::set_permissions(&settings.socket, PermissionsExt::from_mode(0o600))?;
        Ok(Self {
            running,
            listener,
            settings,
        })
    }

    /// Answers at its socket until it is told to end, or cannot go on.
    pub fn serve(self) -> io::Result<()> {
        while !self.running.device.is_over() {
            if !wait::until(self.listener.as_fd(), Ready::Read, TICK)? {
                continue;
            }
            let answered = self
                .listener
                .accept()
                .and_then(|(stream, _)| self.answer(&stream));
            if let Err(e) = answered {
                tracing::debug!("a request was not answered: {e}");
            }
        }
        Ok(())
    }

    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let device: &Device = &self.running.device;
        let request = Request::parse(&read(stream)?);
        let done = match &request {
            Ok(Request::Set(set)) => device.set(set),
            Err(errno) => Err(*errno),
            Ok(_) => Ok(()),
        };
        let mut answer = match request {
            Ok(Request::Get) => device.state().to_string(),
            Ok(Request::Version) => format!("version={}\n", self.settings.version),
            _ => String::new(),
        };
        let errno = done.err().map_or(0, |e| -e.raw_os_error());
        answer.push_str(&format!("errno={errno}\n\n"));
        let mut stream = stream;
        stream.write_all(answer.as_bytes())?;
        if matches!(request, Ok(Request::Stop)) {
            device.end();
        }
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Gone already is well, too.
        let _ = std::fs::remove_file(&self.settings.socket);
    }
}

/// Reads up to an empty line, or the end.
fn read(stream: impl Read) -> io::Result<String> {
    let mut lines = BufReader::new(stream.take(LONGEST));
    let mut text = String::new();
    loop {
        let before = text.len();
        if lines.read_line(&mut text)? == 0 || text[before..].trim().is_empty() {
            return Ok(text);
        }
    }
}

/// The way to a tunnel.
#[derive(Debug, Clone)]
pub struct Client(PathBuf);

impl Client {
    /// To the one at this socket.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// What it is.
    pub fn get(&self) -> io::Result<State> {
        State::parse(&self.ask("get=1\n\n")?).map_err(io::Error::from)
    }

    /// Has it be otherwise.
    pub fn set(&self, set: &Set) -> io::Result<()> {
        State::parse(&self.ask(&set.to_string())?)?;
        Ok(())
    }

    /// Its version.
    pub fn version(&self) -> io::Result<String> {
        let text = self.ask("version=1\n\n")?;
        let line = text.lines().find_map(|line| line.strip_prefix("version="));
        Ok(line.ok_or(Errno::PROTO)?.to_owned())
    }

    /// Ends it.
    pub fn stop(&self) -> io::Result<()> {
        self.ask("stop=1\n\n").map(drop)
    }

    fn ask(&self, request: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let text = read(&stream)?;
        if text.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(text)
    }
}
