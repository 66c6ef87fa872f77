//! Published ports in one line.

use std::collections::HashMap;

/// One port of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// Port in the container.
    pub(crate) private: u16,
    /// Host address it is published on; empty if it is not published.
    pub(crate) ip: String,
    /// Port on the host; 0 if it is not published.
    pub(crate) public: u16,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
}

/// The ports as `0.0.0.0:8080->80/tcp, 443/tcp`; neighbours are joined to ranges.
pub(crate) fn describe(ports: &[Port]) -> String {
    let mut ports = ports.to_vec();
    ports.sort();
    let mut groups: HashMap<(String, String), (u16, u16)> = HashMap::new();
    let mut order = Vec::new();
    let mut shown = Vec::new();
    let mut mapped = Vec::new();
    for port in ports {
        if !port.ip.is_empty() && port.public != port.private {
            let address = join(&port.ip, &port.public.to_string());
            mapped.push(format!("{address}->{}/{}", port.private, port.protocol));
            continue;
        }
        let key = (port.ip, port.protocol);
        match groups.get_mut(&key) {
            Some((_, last)) if port.private == *last + 1 => *last = port.private,
            Some(group) => {
                shown.push(describe_group(&key, *group));
                *group = (port.private, port.private);
            }
            None => {
                groups.insert(key.clone(), (port.private, port.private));
                order.push(key);
            }
        }
    }
    shown.extend(order.iter().map(|key| describe_group(key, groups[key])));
    shown.append(&mut mapped);
    shown.join(", ")
}

fn describe_group((ip, protocol): &(String, String), (first, last): (u16, u16)) -> String {
    let ports = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    if ip.is_empty() {
        format!("{ports}/{protocol}")
    } else {
        format!("{}->{ports}/{protocol}", join(ip, &ports))
    }
}

/// An address and a port, with brackets around IPv6.
pub(crate) fn join(ip: &str, port: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, public: u16, private: u16, protocol: &str) -> Port {
        Port {
            private,
            ip: ip.to_owned(),
            public,
            protocol: protocol.to_owned(),
        }
    }

    #[test]
    fn published_ports_have_arrows() {
        let ports = [
            port("::", 18081, 81, "udp"),
            port("0.0.0.0", 18081, 81, "udp"),
            port("127.0.0.1", 18080, 80, "tcp"),
        ];
        assert_eq!(
            describe(&ports),
            "127.0.0.1:18080->80/tcp, 0.0.0.0:18081->81/udp, [::]:18081->81/udp"
        );
    }

    #[test]
    fn neighbours_are_joined() {
        let ports = [
            port("0.0.0.0", 8001, 8001, "tcp"),
            port("0.0.0.0", 8000, 8000, "tcp"),
            port("", 0, 80, "tcp"),
            port("", 0, 81, "tcp"),
            port("", 0, 90, "tcp"),
        ];
        assert_eq!(
            describe(&ports),
            "80-81/tcp, 90/tcp, 0.0.0.0:8000-8001->8000-8001/tcp"
        );
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(describe(&[]), "");
    }
}
