//! What `run` makes different from the service.

use std::path::PathBuf;

use clap::Args;
use wharfie_compose::model::{
    BindOptions, Mount, MountKind, Port, Project, Service, VolumeOptions,
};
use wharfie_compose::read_env_file;

use super::exec::environment;
use crate::failure::Failure;

/// What is different from the service.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Overrides {
    /// Set an environment variable (several are possible; without a value ours is taken)
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the variables of a file (several are possible; -e goes before them)
    #[arg(long = "env-from-file", value_name = "FILE")]
    env_from_file: Vec<PathBuf>,
    /// User to run as
    #[arg(short, long)]
    user: Option<String>,
    /// Directory to run in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Replace the entrypoint
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Add a label (several are possible)
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    labels: Vec<String>,
    /// Add a capability (several are possible)
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability (several are possible)
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Publish a port (several are possible)
    #[arg(short, long = "publish", value_name = "[[IP:]PORT:]PORT[/PROTOCOL]", value_parser = parse_port)]
    publish: Vec<Port>,
    /// Publish the service's ports
    #[arg(short = 'P', long, conflicts_with = "publish")]
    service_ports: bool,
    /// Mount a path or a volume (several are possible)
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    volumes: Vec<String>,
}

impl Overrides {
    /// The service as it is to run.
    pub(super) fn apply(
        &self,
        service: &Service,
        project: &Project,
        command: &[String],
    ) -> Result<Service, Failure> {
        let mut service = service.clone();
        // A fixed name or address can be had only once.
        service.container_name.clear();
        for network in service.networks.values_mut().flatten() {
            network.ipv4_address.clear();
            network.ipv6_address.clear();
        }
        if !self.service_ports {
            service.ports.clone_from(&self.publish);
        }
        for file in &self.env_from_file {
            let pairs = read_env_file(file).map_err(|fault| Failure::Invalid(fault.into()))?;
            let pairs = pairs.into_iter().map(|(name, value)| (name, Some(value)));
            service.environment.extend(pairs);
        }
        for entry in environment(&self.env) {
            if let Some((name, value)) = entry.split_once('=') {
                service
                    .environment
                    .insert(name.to_owned(), Some(value.to_owned()));
            }
        }
        for label in &self.labels {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            service.labels.insert(name.to_owned(), value.to_owned());
        }
        if let Some(user) = &self.user {
            service.user.clone_from(user);
        }
        if let Some(dir) = &self.workdir {
            service.working_dir.clone_from(dir);
        }
        if let Some(entrypoint) = &self.entrypoint {
            service.entrypoint = Some(words(entrypoint).map_err(Failure::usage)?);
            // The service's arguments are for its own entrypoint.
            service.command = Some(Vec::new());
        }
        if !command.is_empty() {
            service.command = Some(command.to_vec());
        }
        add(&mut service.cap_add, &mut service.cap_drop, &self.cap_add);
        add(&mut service.cap_drop, &mut service.cap_add, &self.cap_drop);
        for volume in &self.volumes {
            let mount = parse_mount(volume, project).map_err(Failure::usage)?;
            service.volumes.retain(|m| m.target != mount.target);
            service.volumes.push(mount);
        }
        Ok(service)
    }
}

/// Adds capabilities to one list and takes them off the other.
fn add(to: &mut Vec<String>, from: &mut Vec<String>, what: &[String]) {
    from.retain(|c| !what.contains(c));
    to.extend(what.iter().cloned());
}

/// Reads `[[IP:]PORT:]PORT[/PROTOCOL]`.
fn parse_port(text: &str) -> Result<Port, String> {
    let wrong = || {
        format!("{text:?} is no port to publish: write 8080:80, 127.0.0.1:8080:80, 80 or 53:53/udp")
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(wrong());
    }
    let (outside, target) = match ports.rsplit_once(':') {
        Some((outside, target)) => (outside, target),
        None => ("", ports),
    };
    let (host_ip, published) = match outside.rsplit_once(':') {
        Some((ip, published)) => (ip.trim_start_matches('[').trim_end_matches(']'), published),
        None => ("", outside),
    };
    let is_port = |p: &str| p.parse::<u16>().is_ok();
    let is_range = |p: &str| {
        p.split_once('-')
            .is_some_and(|(from, to)| is_port(from) && is_port(to))
    };
    if !(published.is_empty() || is_port(published) || is_range(published))
        || !(host_ip.is_empty() || host_ip.parse::<std::net::IpAddr>().is_ok())
    {
        return Err(wrong());
    }
    Ok(Port {
        mode: "ingress".to_owned(),
        host_ip: host_ip.to_owned(),
        target: target.parse().map_err(|_| wrong())?,
        published: published.to_owned(),
        protocol: protocol.to_owned(),
        ..Port::default()
    })
}

/// Reads `SOURCE:TARGET[:ro]`; a source with a slash or a dot at its beginning is a path.
fn parse_mount(text: &str, project: &Project) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => ("", target, "rw"),
        [source, target] => (source, target, "rw"),
        [source, target, mode] => (source, target, mode),
        _ => {
            return Err(format!(
                "{text:?} is no mount: write SOURCE:TARGET or SOURCE:TARGET:ro"
            ));
        }
    };
    if !target.starts_with('/') {
        return Err(format!(
            "{text:?}: the target {target:?} must be an absolute path"
        ));
    }
    let read_only = match mode {
        "ro" => true,
        "rw" => false,
        other => {
            return Err(format!(
                "{text:?}: the mode {other:?} is neither \"rw\" nor \"ro\""
            ));
        }
    };
    let mount = Mount {
        target: target.to_owned(),
        read_only,
        ..Mount::default()
    };
    if source.starts_with(['/', '.', '~']) {
        let home = std::env::var("HOME").unwrap_or_default();
        let source = match source.strip_prefix('~') {
            Some(rest) => format!("{home}{rest}"),
            None => source.to_owned(),
        };
        let path =
            std::path::absolute(project.working_dir.join(source)).map_err(|e| e.to_string())?;
        return Ok(Mount {
            kind: MountKind::Bind,
            source: path
                .components()
                .collect::<std::path::PathBuf>()
                .display()
                .to_string(),
            bind: Some(BindOptions {
                selinux: String::new(),
                propagation: String::new(),
                create_host_path: true,
                recursive: String::new(),
                extensions: Default::default(),
            }),
            ..mount
        });
    }
    Ok(Mount {
        kind: MountKind::Volume,
        source: source.to_owned(),
        volume: Some(VolumeOptions::default()),
        ..mount
    })
}

/// The words of a line, with quotes and backslashes as in a shell.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or("a backslash at the end means nothing")?;
                word.get_or_insert_default().push(next);
            }
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("{line:?} has a quote without its end"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let port = parse_port("127.0.0.1:8080:80/udp").expect("a port");
        assert_eq!(
            (port.host_ip.as_str(), port.published.as_str(), port.target),
            ("127.0.0.1", "8080", 80)
        );
        assert_eq!(port.protocol, "udp");
        let port = parse_port("[::1]:8080:80").expect("a port");
        assert_eq!(
            (port.host_ip.as_str(), port.published.as_str()),
            ("::1", "8080")
        );
        let port = parse_port("80").expect("a port");
        assert_eq!(
            (port.published.as_str(), port.target, port.protocol.as_str()),
            ("", 80, "tcp")
        );
        for wrong in [
            "",
            "x",
            "80:x",
            "x:80",
            "1:2:3:4",
            "80/x",
            "a.b:80:80",
            "70000",
        ] {
            assert!(parse_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_are_read() {
        let project = Project {
            working_dir: "/p".into(),
            ..Project::default()
        };
        let mount = parse_mount("./a:/b:ro", &project).expect("a mount");
        assert_eq!(
            (mount.kind, mount.source.as_str(), mount.read_only),
            (MountKind::Bind, "/p/a", true)
        );
        let mount = parse_mount("data:/b", &project).expect("a mount");
        assert_eq!(
            (mount.kind, mount.source.as_str()),
            (MountKind::Volume, "data")
        );
        assert_eq!(parse_mount("/b", &project).expect("a mount").source, "");
        for wrong in ["", "a:b", "a:/b:x", "a:/b:ro:x"] {
            assert!(parse_mount(wrong, &project).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_are_cut_into_words() {
        let words = |line| words(line).expect("words");
        assert_eq!(
            words(r#"sh -c 'echo "a b"' c\ d "e\"f" '' "#),
            ["sh", "-c", "echo \"a b\"", "c d", "e\"f", ""]
        );
        assert_eq!(words(""), [""; 0]);
        assert!(super::words("'open").is_err() && super::words("\\").is_err());
    }

    #[test]
    fn the_service_is_changed() {
        let service = Service {
            container_name: "fixed".to_owned(),
            ports: vec![Port::default()],
            cap_drop: vec!["ALL".to_owned()],
            command: Some(vec!["serve".to_owned()]),
            ..Service::default()
        };
        let overrides = Overrides {
            env: vec!["A=1".to_owned()],
            labels: vec!["l".to_owned()],
            entrypoint: Some("sh -c".to_owned()),
            cap_add: vec!["ALL".to_owned()],
            ..Overrides::default()
        };
        let changed = overrides
            .apply(&service, &Project::default(), &[])
            .expect("a service");
        assert_eq!(changed.container_name, "");
        assert!(changed.ports.is_empty() && changed.cap_drop.is_empty());
        assert_eq!(changed.environment["A"].as_deref(), Some("1"));
        assert_eq!(changed.labels["l"], "");
        assert_eq!(
            changed.entrypoint,
            Some(vec!["sh".to_owned(), "-c".to_owned()])
        );
        assert_eq!(changed.command, Some(vec![]));
    }
}
