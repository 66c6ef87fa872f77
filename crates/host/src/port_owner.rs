//! Who has a port that is already taken: a container, or a process of this host.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bollard::query_parameters::ListContainersOptionsBuilder;

use crate::{Engine, Error};

/// Adds the owner to an error that says a port is taken.
pub(crate) async fn explain(engine: &Engine, error: Error) -> Error {
    let Error::Refused {
        context,
        message,
        status,
    } = error
    else {
        return error;
    };
    let Some(port) = port_in(&message) else {
        return Error::Refused {
            context,
            message,
            status,
        };
    };
    let owner = owner(port, Some(engine)).await;
    Error::Refused {
        context,
        message: format!(
            "port {port} is already taken: {owner} has it; stop that, or publish another port"
        ),
        status,
    }
}

/// Who has a port of this host that is taken: `container web`, `nginx (process 12)`, or `another
/// program` if it cannot be seen. Containers are known if there is an Engine to ask.
pub async fn owner(port: u16, engine: Option<&Engine>) -> String {
    if let Some(engine) = engine
        && let Some(name) = container_with(engine, port).await
    {
        return format!("container {name}");
    }
    let here = engine.is_none_or(Engine::is_here);
    let process = here.then(|| process_with(port)).flatten();
    process.unwrap_or_else(|| "another program".to_owned())
}

/// The port in one of the Engine's messages about a port that is taken:
/// `Bind for 0.0.0.0:80 failed: port is already allocated`,
/// `listen tcp4 0.0.0.0:80: bind: address already in use`.
fn port_in(message: &str) -> Option<u16> {
    let taken = ["port is already allocated", "address already in use"];
    let end = taken.iter().filter_map(|t| message.find(t)).min()?;
    let before = &message[..end];
    // Newer Engines say `host port for 0.0.0.0:80:172.18.0.2:8080/tcp`: the first port counts.
    if let Some((_, binding)) = before.split_once("host port for ") {
        let host = binding.trim_start_matches('[').split_once([']', ':'])?.1;
        return host.trim_start_matches(':').split(':').next()?.parse().ok();
    }
    before
        .split(|c: char| c.is_whitespace() || c == '(' || c == ')')
        .filter_map(|word| {
            let (_, port) = word.trim_end_matches(':').rsplit_once(':')?;
            port.trim_end_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .ok()
        })
        .next_back()
}

async fn container_with(engine: &Engine, port: u16) -> Option<String> {
    let options = ListContainersOptionsBuilder::default().build();
    let list = engine.docker.list_containers(Some(options)).await.ok()?;
    list.into_iter()
        .find(|c| {
            c.ports
                .iter()
                .flatten()
                .any(|p| p.public_port == Some(port))
        })
        .and_then(|c| c.names?.into_iter().next())
        .map(|n| n.trim_start_matches('/').to_owned())
}

/// The tables of listening sockets: of TCP, and of UDP.
pub(crate) const TCP: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
pub(crate) const UDP: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];

/// The process that listens on a port: `nginx (process 123)`.
fn process_with(port: u16) -> Option<String> {
    match listener(port, &[TCP, UDP].concat())? {
        Listener::Process { name, pid } => Some(format!("{name} (process {pid})")),
        Listener::Kernel | Listener::Hidden => None,
    }
}

/// Who listens on a port of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listener {
    /// A process.
    Process {
        /// Its command's name.
        name: String,
        /// Its id.
        pid: String,
    },
    /// No process: an interface of the kernel's, such as VXLAN.
    Kernel,
    /// A process that we may not see.
    Hidden,
}

/// Who listens on a port, by the given tables, found through `/proc`.
pub(crate) fn listener(port: u16, tables: &[&str]) -> Option<Listener> {
    let mut sockets: BTreeSet<String> = tables
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| listeners(&table, port))
        .collect();
    let kernel = sockets.remove("0");
    if sockets.is_empty() {
        return kernel.then_some(Listener::Kernel);
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        if holds(&process.path().join("fd"), &sockets) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim().to_owned();
            return Some(Listener::Process { name, pid });
        }
    }
    Some(Listener::Hidden)
}

fn holds(fds: &Path, sockets: &BTreeSet<String>) -> bool {
    fs::read_dir(fds).into_iter().flatten().flatten().any(|fd| {
        fs::read_link(fd.path()).is_ok_and(|to| {
            to.to_str()
                .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'))
                .is_some_and(|inode| sockets.contains(inode))
        })
    })
}

/// Inodes of the sockets of a `/proc/net` table that listen on a port.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (*fields.get(1)?, *fields.get(3)?, *fields.get(9)?);
            // 0A is a listening TCP socket, 07 an unconnected UDP one.
            (local.ends_with(&wanted) && matches!(state, "0A" | "07")).then(|| inode.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_engines_messages() {
        for message in [
            "driver failed programming external connectivity on endpoint x (abc): Bind for 0.0.0.0:8080 failed: port is already allocated",
            "driver failed programming external connectivity on endpoint x (abc): Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: address already in use",
            "failed to bind host port for 0.0.0.0:8080:172.18.0.2:80/tcp: address already in use",
        ] {
            let found = port_in(message);
            assert_eq!(found, Some(8080), "{message}");
        }
        assert_eq!(port_in("no such image"), None);
    }

    #[test]
    fn listening_sockets() {
        let table = "  sl  local_address rem_address   st tx rx tr tm retr uid timeout inode\n\
             0: 00000000:1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711 1 0\n\
             1: 0100007F:1F90 0100007F:9999 01 0:0 0:0 0 0 0 4712 1 0\n";
        assert_eq!(listeners(table, 8080), ["4711"]);
        assert!(listeners(table, 80).is_empty());
    }
}
