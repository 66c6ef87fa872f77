//! Which addresses of this machine are those of container bridges: every host has the same ones, so
//! they are of no use to other nodes.

use std::net::IpAddr;

/// The networks of bridges for containers, as address and mask.
pub(crate) struct Bridges(Vec<(u32, u32)>);

impl Bridges {
    /// As the kernel's routes say now (`/proc/net/route`, proc(5)); none if they cannot be read.
    pub(crate) fn now() -> Self {
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        Self::read(&routes)
    }

    fn read(routes: &str) -> Self {
        let networks = routes.lines().skip(1).filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (name, destination, mask) = (columns.first()?, columns.get(1)?, columns.get(7)?);
            // The kernel writes them as its memory has them.
            let read = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
            let network = (read(destination)?, read(mask)?);
            (is_bridge(name) && network.1 != 0).then_some(network)
        });
        Self(networks.collect())
    }

    /// Whether an address is of one of them.
    pub(crate) fn have(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else {
            return false;
        };
        let bits = u32::from(address);
        self.0.iter().any(|(network, mask)| bits & mask == *network)
    }
}

/// Docker names its bridges `docker0`, `docker_gwbridge` and `br-` with twelve digits of the network's
/// id, Wharfie `wbr` with six digits; people name theirs otherwise.
fn is_bridge(name: &str) -> bool {
    let numbered = |prefix, digits| {
        let id = name.strip_prefix(prefix).unwrap_or_default();
        id.len() == digits && id.bytes().all(|b| b.is_ascii_hexdigit())
    };
    numbered("br-", 12)
        || numbered("wbr", 6)
        || ["docker", "podman", "virbr"]
            .iter()
            .any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn dockers_bridges_are_known_and_others_are_not() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
            eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            br-0123456789ab\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            wbr0a1b2c\t000013AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            br-lan\t0000630A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let bridges = Bridges::read(routes);
        let have = |address: [u8; 4]| bridges.have(Ipv4Addr::from(address).into());
        assert!(have([172, 17, 0, 1]) && have([172, 18, 0, 1]));
        assert!(have([172, 19, 0, 1]));
        assert!(!have([10, 99, 0, 1]) && !have([192, 168, 0, 7]));
        assert!(Bridges::read("nonsense").0.is_empty());
    }
}
