//! `wharfie ps`.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::pick::{self, Meant};
use crate::api::StackInfo;
use crate::context::{Context, Target};
use crate::control::{Container, Control};
use crate::failure::Failure;
use crate::output::ports::{self, Port};
use crate::output::table::Table;
use crate::output::{self, Listing, bytes, format, warn, when};

/// Lists the containers of a project.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie ps                        running containers\n  wharfie ps -a --status exited     those that have ended\n  wharfie ps --format json web      one service, a JSON object a line\n  wharfie -p demo ps -q             ids, by the project's name"
)]
#[allow(clippy::struct_excessive_bools)] // they are the options as typed
pub(crate) struct Ps {
    /// Show stopped containers too, and those made by "run"
    #[arg(short, long)]
    all: bool,
    /// Only containers in this state (several are possible)
    #[arg(long, value_enum, value_name = "STATE")]
    status: Vec<Status>,
    /// Only containers that fit ("status=STATE")
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_filter)]
    filter: Vec<Status>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print the names of services only
    #[arg(long, conflicts_with = "quiet")]
    services: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Show the sizes of the containers' files too
    #[arg(short, long)]
    size: bool,
    /// Show containers of services that are not in the files
    #[arg(
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    orphans: bool,
    /// List the containers of all projects and of none, wherever they are
    #[arg(short = 'A', long, conflicts_with_all = ["names", "orphans"])]
    all_projects: bool,
    /// Services to list, or containers by name or id [default: all of the project]
    #[arg(value_name = "SERVICE")]
    names: Vec<String>,
}

/// State of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    /// Halted
    Paused,
    /// About to be started again
    Restarting,
    /// Being removed
    Removing,
    /// Running
    Running,
    /// Could not be removed
    Dead,
    /// Never started
    Created,
    /// Ended
    Exited,
}

impl Status {
    fn of(container: &Container) -> Option<Self> {
        Self::from_str(container.state.as_str(), false).ok()
    }
}

fn parse_filter(text: &str) -> Result<Status, String> {
    match text.split_once('=') {
        Some(("status", status)) => {
            Status::from_str(status, false).map_err(|_| format!("{status:?} is no status"))
        }
        Some((key, _)) => Err(format!("cannot filter by {key:?}: write status=STATE")),
        None => Err("write status=STATE".to_owned()),
    }
}

impl Ps {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (control, meant) = match self.all_projects {
            true => (Control::connect(context).await?, None),
            false => {
                let (control, meant) = pick::look(context, &self.names).await?;
                (control, Some(meant))
            }
        };
        let project = meant.as_ref().map(Meant::project).filter(|p| !p.is_empty());
        let mut containers = control.list(project, self.size).await?;
        containers.retain(|c| self.wants(c, meant.as_ref()));
        let target = meant.as_ref().and_then(Meant::target);
        if let (Some(project), false) = (target.and_then(Target::project), self.orphans) {
            containers.retain(|c| project.any_service(&c.service).is_some());
        }
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(if self.services {
            output::lines(
                containers
                    .iter()
                    .map(|c| &c.service)
                    .collect::<BTreeSet<_>>(),
            )
        } else if self.quiet {
            output::lines(containers.iter().map(|c| self.id(c)))
        } else if self.format == Listing::Json {
            output::lines(
                containers
                    .iter()
                    .map(|c| format::html_safe(&self.json(c, c.project()))),
            )
        } else {
            output::print(&self.table(&containers, control.several()))?;
            if let Some(target) = target {
                troubles(&control, &target.name).await;
            }
            Ok(())
        }?)
    }

    fn wants(&self, c: &Container, meant: Option<&Meant>) -> bool {
        let named = meant.is_some_and(|m| m.named.iter().any(|n| n.id == c.id));
        let wanted: Vec<Status> = self.status.iter().chain(&self.filter).copied().collect();
        let in_state = if wanted.is_empty() {
            named || self.all || (c.is_running() && (!c.oneoff || self.all_projects))
        } else {
            Status::of(c).is_some_and(|s| wanted.contains(&s)) && (self.all || !c.oneoff)
        };
        let of_service = |m: &Meant| {
            let target = m.target().is_some_and(|t| t.name == c.project());
            target && (m.services.is_empty() || m.services.contains(&c.service))
        };
        in_state && (named || meant.is_none_or(of_service))
    }

    fn id<'c>(&self, c: &'c Container) -> &'c str {
        // As the reference does: --quiet gives whole ids, the rest short ones.
        if self.quiet || self.no_trunc {
            &c.id
        } else {
            short_id(c)
        }
    }

    fn command(&self, c: &Container) -> String {
        format::quote(&if self.no_trunc {
            c.command.clone()
        } else {
            format::shorten(&c.command, 20)
        })
    }

    fn table(&self, containers: &[Container], several: bool) -> String {
        let mut titles = vec![
            "NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS",
        ];
        titles.extend(self.size.then_some("SIZE"));
        if several {
            titles.insert(1, "NODE");
        }
        let titles = titles.into_iter().map(str::to_owned).collect();
        let mut table = Table::with(10, titles);
        let now = when::now();
        for c in containers {
            let mut cells = vec![
                c.name.clone(),
                c.image.clone(),
                self.command(c),
                c.service.clone(),
                format::ago(c.created, now),
                c.status.clone(),
                ports::describe(&ports_of(c)),
            ];
            cells.extend(self.size.then(|| size(c)));
            if several {
                cells.insert(1, c.node.clone());
            }
            table.add(cells);
        }
        table.render()
    }

    fn json(&self, c: &Container, project: &str) -> Value {
        let ports = ports_of(c);
        let mut published: Vec<&Port> = ports.iter().collect();
        published.sort();
        let publishers: Vec<Value> = published
            .iter()
            .map(|p| {
                json!({
                    "URL": p.ip,
                    "TargetPort": p.private,
                    "PublishedPort": p.public,
                    "Protocol": p.protocol,
                })
            })
            .collect();
        let labels: Vec<String> = c.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let networks: Vec<&str> = c.networks.keys().map(String::as_str).collect();
        let mounts: Vec<String> = c
            .mounts
            .iter()
            .map(|(source, _)| {
                if self.no_trunc {
                    source.clone()
                } else {
                    format::shorten(source, 15)
                }
            })
            .collect();
        let is_volume = |source: &str| !source.is_empty() && !source.starts_with('/');
        let volumes = c
            .mounts
            .iter()
            .filter(|(source, _)| is_volume(source))
            .count();
        let ago = format::ago(c.created, when::now());
        let mut object = json!({
            "Command": self.command(c),
            "CreatedAt": when::show(c.created, &TimeZone::system()),
            "ExitCode": c.exit_code.unwrap_or(0),
            "Health": health(c),
            "ID": if self.no_trunc { c.id.as_str() } else { short_id(c) },
            "Image": c.image,
            "Labels": labels.join(","),
            "LocalVolumes": volumes.to_string(),
            "Mounts": mounts.join(","),
            "Name": c.name,
            "Names": c.name,
            "Networks": networks.join(","),
            "Ports": ports::describe(&ports),
            "Project": project,
            "Publishers": publishers,
            "RunningFor": ago,
            "Service": c.service,
            "Size": size(c),
            "State": c.state.as_str(),
            "Status": c.status,
        });
        if !c.node.is_empty() {
            object["Node"] = c.node.as_str().into();
        }
        object
    }
}

/// Says which tasks are being healed, and why. Without an agent nobody heals.
async fn troubles(control: &Control, stack: &str) {
    let path = format!("/v1/stacks/{stack}");
    let Ok(info) = control.agent().get::<StackInfo>(&path).await else {
        return;
    };
    if let Some(trouble) = &info.trouble {
        warn(&format!("the agent cannot heal {stack}: {trouble}"));
    }
    let now = when::now_nanos() / 1_000_000;
    for t in &info.troubles {
        let next = match t.next - now {
            wait if wait > 0 => format!("; next in {} s at the earliest", wait / 1000 + 1),
            _ => String::new(),
        };
        warn(&format!(
            "{} was not well: {} (attempts to heal it: {}{next})",
            t.task, t.reason, t.attempts
        ));
    }
}

/// The first twelve digits of a container's id.
pub(crate) fn short_id(c: &Container) -> &str {
    c.id.get(..12).unwrap_or(&c.id)
}

/// What a container wrote, and what it has with its image: `12kB (virtual 1.99MB)`.
fn size(c: &Container) -> String {
    let count = |n: i64| bytes::decimal(u64::try_from(n).unwrap_or(0));
    match c.size {
        Some((own, all)) if all > 0 => format!("{} (virtual {})", count(own), count(all)),
        Some((own, _)) => count(own),
        None => count(0),
    }
}

fn health(c: &Container) -> &'static str {
    use wharfie_core::Health;
    match c.health {
        Health::None => "",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

/// The ports of a container.
pub(crate) fn ports_of(c: &Container) -> Vec<Port> {
    let ports = c.ports.iter().map(|p| Port {
        private: p.private,
        ip: p.ip.clone(),
        public: p.public.unwrap_or(0),
        protocol: p.protocol.clone(),
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ps(all: bool) -> Ps {
        Ps {
            all,
            status: Vec::new(),
            filter: Vec::new(),
            format: Listing::Table,
            quiet: false,
            services: false,
            no_trunc: false,
            size: false,
            orphans: true,
            all_projects: false,
            names: Vec::new(),
        }
    }

    fn container() -> Container {
        Container {
            id: "0123456789abcdef".to_owned(),
            name: "x-web-1".to_owned(),
            service: "web".to_owned(),
            image: "busybox".to_owned(),
            command: "sh -c 'trap 'exit 0' TERM; sleep 1'".to_owned(),
            created: when::now() - 120,
            status: "Up 2 minutes (healthy)".to_owned(),
            state: crate::control::State::Running,
            health: wharfie_core::Health::Healthy,
            ports: vec![wharfie_core::seen::PortBinding {
                ip: "0.0.0.0".to_owned(),
                public: Some(8080),
                private: 80,
                protocol: "tcp".to_owned(),
            }],
            mounts: vec![
                ("x_data".to_owned(), "/data".to_owned()),
                ("/etc/x".to_owned(), "/x".to_owned()),
            ],
            ..Container::default()
        }
    }

    #[test]
    fn the_table_is_docker_composes() {
        assert_eq!(
            ps(false).table(&[container()], false),
            "NAME      IMAGE     COMMAND                  SERVICE   CREATED         STATUS                   PORTS\n\
             x-web-1   busybox   \"sh -c 'trap 'exit 0…\"   web       2 minutes ago   Up 2 minutes (healthy)   0.0.0.0:8080->80/tcp\n"
        );
    }

    #[test]
    fn sizes_are_shown_on_request() {
        let ps = Ps {
            size: true,
            ..ps(false)
        };
        let container = Container {
            size: Some((12_000, 1_985_599)),
            ..container()
        };
        let table = ps.table(std::slice::from_ref(&container), false);
        assert!(
            table.ends_with("0.0.0.0:8080->80/tcp   12kB (virtual 1.99MB)\n"),
            "{table}"
        );
        assert_eq!(ps.json(&container, "x")["Size"], "12kB (virtual 1.99MB)");
    }

    #[test]
    fn json_has_docker_composes_keys() {
        let value = ps(false).json(&container(), "x");
        assert_eq!(value["ID"], "0123456789ab");
        assert_eq!(value["Health"], "healthy");
        assert_eq!(value["LocalVolumes"], "1");
        assert_eq!(value["Publishers"][0]["PublishedPort"], 8080);
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(20));
    }

    #[test]
    fn stopped_and_one_off_containers_are_shown_on_request() {
        let mut stopped = container();
        stopped.state = crate::control::State::Exited;
        let one_off = Container {
            oneoff: true,
            ..container()
        };
        assert!(!ps(false).wants(&stopped, None) && !ps(false).wants(&one_off, None));
        assert!(ps(true).wants(&stopped, None) && ps(true).wants(&one_off, None));
        let exited = Ps {
            status: vec![Status::Exited],
            ..ps(false)
        };
        assert!(exited.wants(&stopped, None) && !exited.wants(&container(), None));
    }

    #[test]
    fn filters_are_checked() {
        assert_eq!(parse_filter("status=running"), Ok(Status::Running));
        assert!(parse_filter("status=asleep").is_err());
        assert!(parse_filter("name=x").is_err());
    }
}
