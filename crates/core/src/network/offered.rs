//! The ports that a service offers, as its file says: for names inside and outside, and for people.

use std::collections::BTreeMap;

use wharfie_compose::model::Service;

/// So many ports of ranges count: some expose tens of thousands, and nobody asks for the names of those.
const MOST: usize = 256;

/// A port that the containers of a service have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offered {
    /// Number.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// What it is called, in lower case: by the port's name, and what it speaks.
    pub names: Vec<String>,
}

/// Ports that a service publishes or exposes, by number and protocol.
#[must_use]
pub fn offered(service: &Service) -> Vec<Offered> {
    let mut all: BTreeMap<(u16, String), Vec<String>> = BTreeMap::new();
    for port in &service.ports {
        // What is spoken may be any text (`kubernetes.io/h2c`); a name is what its author wants it to be.
        let spoken = Some(&port.app_protocol).filter(|p| is_label(p));
        let names = Some(&port.name).filter(|n| !n.is_empty());
        let key = (port.target, protocol(&port.protocol));
        let known = all.entry(key).or_default();
        for name in names.into_iter().chain(spoken) {
            let name = name.to_ascii_lowercase();
            if !known.contains(&name) {
                known.push(name);
            }
        }
    }
    let exposed = service.expose.iter().flat_map(|entry| exposed(entry));
    for key in exposed.take(MOST) {
        all.entry(key).or_default();
    }
    let each = all.into_iter().filter(|((number, _), _)| *number != 0);
    each.map(|((number, protocol), names)| Offered {
        number,
        protocol,
        names,
    })
    .collect()
}

fn protocol(text: &str) -> String {
    match text {
        "" => "tcp".to_owned(),
        text => text.to_ascii_lowercase(),
    }
}

/// Ports of an entry of `expose`: `8080`, `53/udp`, `7000-7010`. What is none of these is refused with the file.
fn exposed(entry: &str) -> impl Iterator<Item = (u16, String)> + use<> {
    let (range, kind) = entry.split_once('/').unwrap_or((entry, ""));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let ends = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    let kind = protocol(kind);
    let numbers = ends.into_iter().flat_map(|(first, last)| first..=last);
    numbers.map(move |number| (number, kind.clone()))
}

/// Letters, digits and hyphens (RFC 952).
fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports as `number/protocol name…`, of a service in a file.
    fn of(yaml: &str) -> Vec<String> {
        let dir = std::env::temp_dir().join(format!("wharfie-ports-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join(format!("{:x}.yaml", crate::schedule::hash::text(yaml)));
        std::fs::write(&file, format!("services: {{web: {{image: x, {yaml}}}}}")).unwrap();
        let options = wharfie_compose::LoadOptions {
            files: vec![file.display().to_string()],
            working_dir: dir,
            project_name: Some("ports".to_owned()),
            ..Default::default()
        };
        let loaded = wharfie_compose::load(&options).unwrap();
        let ports = offered(&loaded.project.services["web"]).into_iter();
        ports
            .map(|p| {
                format!("{}/{} {}", p.number, p.protocol, p.names.join(" "))
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn both_forms_are_the_same() {
        assert_eq!(
            of("ports: ['8080:80', '127.0.0.1:53:53/udp', 443, '9000-9001:7000-7001/sctp']"),
            ["53/udp", "80/tcp", "443/tcp", "7000/sctp", "7001/sctp"]
        );
        assert_eq!(
            of(
                "ports: [{target: 80, published: 8080, name: WEB, app_protocol: http}, {target: 53, protocol: udp}]"
            ),
            ["53/udp", "80/tcp web http"]
        );
    }

    #[test]
    fn what_is_exposed_counts_and_ranges_do() {
        assert_eq!(
            of("expose: [80, '53/udp', '90-92', '90-91/udp'], ports: [{target: 80, name: http}]"),
            [
                "53/udp",
                "80/tcp http",
                "90/tcp",
                "90/udp",
                "91/tcp",
                "91/udp",
                "92/tcp"
            ]
        );
        let many = of("expose: ['1-65535'], ports: ['60000']");
        assert_eq!(many.len(), MOST + 1);
        assert_eq!(many.last().map(String::as_str), Some("60000/tcp"));
    }

    #[test]
    fn a_port_that_is_published_twice_is_one() {
        assert_eq!(
            of(
                "ports: ['81:80', '82:80', {target: 80, published: 83, name: a}, {target: 80, published: 84, name: b, app_protocol: kubernetes.io/h2c}]"
            ),
            ["80/tcp a b"]
        );
    }
}
