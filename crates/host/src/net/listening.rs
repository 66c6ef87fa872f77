//! Who listens in a network namespace, as `/proc` says (proc_pid_net(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Protocol;

/// The state of a TCP socket that listens, and of a UDP socket that is not connected
/// (`include/net/tcp_states.h`).
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where.
    pub at: SocketAddr,
}

impl Listener {
    /// Whether it takes what is sent to an address.
    #[must_use]
    pub fn takes(&self, address: IpAddr) -> bool {
        let own = self.at.ip();
        // `::` takes IPv4 as well, unless a socket says otherwise, which is not seen here.
        own.to_canonical() == address
            || (own.is_unspecified() && (own.is_ipv6() || address.is_ipv4()))
    }
}

/// Who listens in the namespace of a process; nobody if it has ended.
#[must_use]
pub fn listeners(pid: Option<u32>) -> Vec<Listener> {
    let process = pid.map_or_else(|| "thread-self".to_owned(), |p| p.to_string());
    let mut found = Vec::new();
    for (name, protocol, state) in [
        ("tcp", Protocol::Tcp, LISTEN),
        ("tcp6", Protocol::Tcp, LISTEN),
        ("udp", Protocol::Udp, UNCONNECTED),
        ("udp6", Protocol::Udp, UNCONNECTED),
    ] {
        let text = std::fs::read_to_string(format!("/proc/{process}/net/{name}"));
        let text = text.unwrap_or_default();
        let sockets = text.lines().skip(1).filter_map(|l| socket(l, state));
        found.extend(sockets.map(|at| Listener { protocol, at }));
    }
    found
}

/// A line of the table: `sl local_address rem_address st …`.
fn socket(line: &str, wanted: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits in the byte order of the machine.
    let word = |i: usize| u32::from_str_radix(address.get(i * 8..i * 8 + 8)?, 16).ok();
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?.to_ne_bytes()).into(),
        32 => {
            let mut bytes = [0; 16];
            for (i, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(i)?.to_ne_bytes());
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    (state == wanted).then(|| SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000";
        assert_eq!(socket(line, LISTEN), "127.0.0.1:8080".parse().ok());
        assert_eq!(socket(line, UNCONNECTED), None);
        let line =
            "  1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A";
        assert_eq!(socket(line, LISTEN), "[::1]:80".parse().ok());
        assert_eq!(socket("", LISTEN), None);
    }

    #[test]
    fn a_socket_takes_what_is_sent_to_it() {
        let listener = |at: &str| Listener {
            protocol: Protocol::Tcp,
            at: at.parse().unwrap(),
        };
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        assert!(listener("0.0.0.0:80").takes(address));
        assert!(listener("[::]:80").takes(address));
        assert!(listener("10.0.0.2:80").takes(address));
        assert!(!listener("127.0.0.1:80").takes(address));
        assert!(!listener("0.0.0.0:80").takes("fd00::2".parse().unwrap()));
    }

    #[test]
    fn who_listens_here_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        assert!(listeners(None).iter().any(|l| l.at == at));
    }
}
