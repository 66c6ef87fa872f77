//! What an Engine has of a project, in as few requests as possible.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, PortSummary};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptionsBuilder,
};
use futures_util::future::{join_all, try_join_all};
use wharfie_compose::model::Project;
use wharfie_core::network::Attachment;
use wharfie_core::network::publish::PublishedPort;
use wharfie_core::seen::{Container, Health, Image, Network, PortBinding, Seen, State, Volume};
use wharfie_core::{labels, names};

use crate::{Engine, Error, podman};

/// The Engine waits for a container that hangs before it tells of it.
const SAYS: std::time::Duration = std::time::Duration::from_secs(2);

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// A project, with the images and external resources its services need.
    Project(&'a Project),
    /// Everything with a project's label.
    Name(&'a str),
}

impl<'a> Scope<'a> {
    fn name(&self) -> &'a str {
        match self {
            Self::Project(project) => &project.name,
            Self::Name(name) => name,
        }
    }

    fn project(&self) -> Option<&'a Project> {
        match self {
            Self::Project(project) => Some(project),
            Self::Name(_) => None,
        }
    }
}

/// One project, as `ls` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectSummary {
    /// Name.
    pub name: String,
    /// Number of containers by state, such as `running(2), exited(1)`.
    pub status: String,
    /// Paths of its files, comma-separated.
    pub config_files: String,
    /// Names of the nodes it has containers on; none where only one is looked at.
    pub nodes: Vec<String>,
}

fn filter(key: &str, value: String) -> HashMap<String, Vec<String>> {
    HashMap::from([(key.to_owned(), vec![value])])
}

impl Engine {
    /// Looks at a project.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn observe(&self, scope: Scope<'_>) -> Result<Seen, Error> {
        let (mut containers, networks, volumes, images) = tokio::try_join!(
            self.containers(scope.name(), false),
            self.networks(scope),
            self.volumes(scope),
            self.images(scope),
        )?;
        self.find_stranded(&mut containers).await;
        // Podman gives a network's name for its id in the list of containers.
        for (name, id) in containers.iter_mut().flat_map(|c| &mut c.networks) {
            if let Some(network) = networks.get(name).filter(|_| id == name) {
                id.clone_from(&network.id);
            }
        }
        Ok(Seen {
            containers,
            networks,
            volumes,
            images,
        })
    }

    /// Sees who was left in a namespace that its owner has left: the Engine gives an owner that it
    /// starts again another one, and leaves the others where they are. Where the Engine does not say
    /// soon, nobody was.
    async fn find_stranded(&self, containers: &mut [Container]) {
        let joined = |c: &Container| !c.joined.is_empty() && c.state == State::Running;
        let ids = containers.iter().filter(|c| joined(c));
        let ids: BTreeSet<String> = ids.flat_map(|c| [c.id.clone(), c.joined.clone()]).collect();
        let started = ids.into_iter().map(|id| async {
            let started = tokio::time::timeout(SAYS, self.started(&id)).await;
            (id, started.ok().flatten())
        });
        let started: BTreeMap<String, Option<jiff::Timestamp>> =
            join_all(started).await.into_iter().collect();
        let of = |id: &String| started.get(id).copied().flatten();
        for container in containers.iter_mut().filter(|c| joined(c)) {
            let times = of(&container.id).zip(of(&container.joined));
            container.stranded = times.is_some_and(|(own, owner)| own < owner);
        }
    }

    /// When a container that runs was started; none if it does not run, or the Engine does not say.
    async fn started(&self, id: &str) -> Option<jiff::Timestamp> {
        let state = self.inspect(id).await.ok()?.state?;
        let state = Some(state).filter(|s| s.running == Some(true));
        state?.started_at?.parse().ok()
    }

    /// Containers of a project, running or not. `size` asks for their sizes, which takes the
    /// Engine a while.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn containers(&self, project: &str, size: bool) -> Result<Vec<Container>, Error> {
        let filters = filter("label", format!("{}={project}", labels::PROJECT));
        let mut containers = self.list(&filters, size).await?;
        containers
            .sort_by(|a, b| (&a.service, a.number, &a.name).cmp(&(&b.service, b.number, &b.name)));
        Ok(containers)
    }

    /// All containers, also those of no project.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn all_containers(&self, size: bool) -> Result<Vec<Container>, Error> {
        let mut containers = self.list(&HashMap::new(), size).await?;
        containers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(containers)
    }

    /// Those of some containers that are there, by their ids (`GET /containers/json`, filter `id`).
    ///
    /// # Errors
    /// The Engine cannot be reached.
    pub async fn some_containers(&self, ids: &BTreeSet<String>) -> Result<Vec<Container>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.iter().cloned().collect();
        self.list(&HashMap::from([("id".to_owned(), ids)]), false)
            .await
    }

    async fn list(
        &self,
        filters: &HashMap<String, Vec<String>>,
        size: bool,
    ) -> Result<Vec<Container>, Error> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .size(size)
            .filters(filters)
            .build();
        let list = podman::settled(|| {
            let options = Some(options.clone());
            self.docker.list_containers(options)
        });
        let list = list
            .await
            .map_err(|e| Error::from_engine("cannot list containers", e))?;
        Ok(list.into_iter().map(container).collect())
    }

    async fn networks(&self, scope: Scope<'_>) -> Result<BTreeMap<String, Network>, Error> {
        let list = self
            .docker
            .list_networks(None::<ListNetworksOptions>)
            .await
            .map_err(|e| Error::from_engine("cannot list networks", e))?;
        let wanted = |name: &str| {
            scope
                .project()
                .is_some_and(|p| p.networks.values().any(|n| n.name == name))
        };
        Ok(list
            .into_iter()
            .filter_map(|n| {
                let name = n.name?;
                let labels: BTreeMap<String, String> =
                    n.labels.unwrap_or_default().into_iter().collect();
                let ours = labels
                    .get(labels::PROJECT)
                    .is_some_and(|p| p == scope.name());
                let network = Network {
                    id: n.id.unwrap_or_default(),
                    labels,
                };
                (ours || wanted(&name)).then_some((name, network))
            })
            .collect())
    }

    async fn volumes(&self, scope: Scope<'_>) -> Result<BTreeMap<String, Volume>, Error> {
        let filters = filter("label", format!("{}={}", labels::PROJECT, scope.name()));
        let options = ListVolumesOptionsBuilder::default()
            .filters(&filters)
            .build();
        let list = self
            .docker
            .list_volumes(Some(options))
            .await
            .map_err(|e| Error::from_engine("cannot list volumes", e))?;
        let volume = |v: bollard::models::Volume| Volume {
            labels: v.labels.into_iter().collect(),
        };
        let mut volumes: BTreeMap<String, Volume> = list
            .volumes
            .unwrap_or_default()
            .into_iter()
            .map(|v| (v.name.clone(), volume(v)))
            .collect();
        // Volumes under a name of the project's that somebody else made.
        let others: Vec<&str> = scope
            .project()
            .into_iter()
            .flat_map(|p| p.volumes.values())
            .map(|v| v.name.as_str())
            .filter(|n| !volumes.contains_key(*n))
            .collect();
        let found = join_all(others.iter().map(|n| self.docker.inspect_volume(n))).await;
        for (name, result) in others.into_iter().zip(found) {
            match result.map_err(|e| Error::from_engine(format!("cannot inspect volume {name}"), e))
            {
                Ok(v) => {
                    volumes.insert(name.to_owned(), volume(v));
                }
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(volumes)
    }

    async fn images(&self, scope: Scope<'_>) -> Result<BTreeMap<String, Image>, Error> {
        let Some(project) = scope.project() else {
            return Ok(BTreeMap::new());
        };
        let services = project
            .services
            .values()
            .chain(project.disabled_services.values());
        let mut wanted: Vec<String> = services.map(|s| names::image(project, s)).collect();
        wanted.sort();
        wanted.dedup();
        let found = try_join_all(wanted.iter().map(|name| self.image(name))).await?;
        Ok(wanted
            .into_iter()
            .zip(found)
            .filter_map(|(name, image)| Some((name, image?)))
            .collect())
    }

    /// An image by reference; `None` if it is not here.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        if reference.is_empty() {
            return Ok(None);
        }
        match self.docker.inspect_image(reference).await {
            Ok(image) => {
                let tagged = image.metadata.and_then(|m| m.last_tag_time);
                Ok(Some(Image {
                    id: image.id.unwrap_or_default(),
                    tagged: tagged.and_then(|t| seconds(&t)).unwrap_or(0),
                }))
            }
            Err(e) => match Error::from_engine(format!("cannot inspect image {reference}"), e) {
                e if e.is_not_found() => Ok(None),
                e => Err(e),
            },
        }
    }

    /// Paths that an image declares as volumes.
    pub(crate) async fn image_volumes(&self, reference: &str) -> Result<Vec<String>, Error> {
        let image = self.docker.inspect_image(reference).await;
        let image = image
            .map_err(|e| Error::from_engine(format!("cannot inspect image {reference}"), e))?;
        let paths = image.config.and_then(|c| c.volumes).unwrap_or_default();
        Ok(paths
            .iter()
            .map(|p| p.trim_end_matches('/').to_owned())
            .collect())
    }

    /// The containers of all projects.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn project_containers(&self) -> Result<Vec<Container>, Error> {
        let filters = filter("label", labels::PROJECT.to_owned());
        self.list(&filters, false).await
    }
}

/// Every project that containers are of, by name; `all` counts those without a running container too.
#[must_use]
pub fn summaries(containers: Vec<Container>, all: bool) -> Vec<ProjectSummary> {
    let mut by_name: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for container in containers.into_iter().filter(|c| !c.oneoff) {
        let name = container.project().to_owned();
        by_name.entry(name).or_default().push(container);
    }
    by_name
        .into_iter()
        .filter(|(_, cs)| all || cs.iter().any(Container::is_running))
        .map(|(name, containers)| {
            let mut states: BTreeMap<&str, usize> = BTreeMap::new();
            for container in &containers {
                *states.entry(container.state.as_str()).or_default() += 1;
            }
            let states: Vec<String> = states.iter().map(|(s, n)| format!("{s}({n})")).collect();
            let files = containers
                .iter()
                .filter_map(|c| c.labels.get(labels::CONFIG_FILES));
            let mut nodes: Vec<String> = containers.iter().map(|c| c.node.clone()).collect();
            nodes.retain(|n| !n.is_empty());
            nodes.sort();
            nodes.dedup();
            ProjectSummary {
                name,
                status: states.join(", "),
                config_files: files.max().cloned().unwrap_or_default(),
                nodes,
            }
        })
        .collect()
}

/// Seconds since 1970 of a time in RFC 3339.
fn seconds(time: &str) -> Option<i64> {
    Some(time.parse::<jiff::Timestamp>().ok()?.as_second())
}

/// How a container is on a network. One that does not run has the addresses that it was given.
fn attachment(endpoint: &EndpointSettings) -> Attachment {
    let given = endpoint.ipam_config.as_ref();
    let read = |address: Option<&String>, given: Option<&String>| {
        let stated = address.filter(|a| !a.is_empty()).or(given);
        stated.cloned()
    };
    let v4 = read(
        endpoint.ip_address.as_ref(),
        given.and_then(|g| g.ipv4_address.as_ref()),
    );
    let v6 = endpoint.global_ipv6_address.as_ref();
    let v6 = read(v6, given.and_then(|g| g.ipv6_address.as_ref()));
    let mac = endpoint.mac_address.as_ref();
    Attachment {
        v4: v4.and_then(|a| a.parse().ok()),
        v6: v6.and_then(|a| a.parse().ok()),
        mac: mac.and_then(|m| m.parse().ok()),
    }
}

fn container(summary: ContainerSummary) -> Container {
    let labels: BTreeMap<String, String> = summary.labels.unwrap_or_default().into_iter().collect();
    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let status = summary.status.unwrap_or_default();
    let name = summary
        .names
        .unwrap_or_default()
        .into_iter()
        // A link from another container shows as a second name with two slashes.
        .find(|n| n.matches('/').count() == 1)
        .map(|n| n.trim_start_matches('/').to_owned())
        .unwrap_or_default();
    let endpoints: HashMap<String, EndpointSettings> = summary
        .network_settings
        .and_then(|s| s.networks)
        .unwrap_or_default();
    let mode = summary.host_config.and_then(|h| h.network_mode);
    let joined = mode.and_then(|m| Some(m.strip_prefix("container:")?.to_owned()));
    Container {
        id: summary.id.unwrap_or_default(),
        name,
        service: label(labels::SERVICE),
        number: label(labels::NUMBER).parse().unwrap_or(0),
        oneoff: label(labels::ONEOFF).eq_ignore_ascii_case("true"),
        state: state(summary.state),
        health: health(&status),
        exit_code: exit_code(&status),
        config_hash: label(labels::CONFIG_HASH),
        image_id: summary.image_id.unwrap_or_default(),
        image: summary.image.unwrap_or_default(),
        addresses: endpoints
            .iter()
            .filter_map(|(name, e)| Some((name.clone(), e.ip_address.clone()?)))
            .filter(|(_, address)| !address.is_empty())
            .collect(),
        attachments: endpoints
            .iter()
            .map(|(name, e)| (name.clone(), attachment(e)))
            .filter(|(_, at)| *at != Attachment::default())
            .collect(),
        joined: joined.unwrap_or_default(),
        stranded: false,
        networks: endpoints
            .into_iter()
            .map(|(name, e)| (name, e.network_id.unwrap_or_default()))
            .collect(),
        depends_on: labels::dependencies(&label(labels::DEPENDS_ON))
            .map(str::to_owned)
            .collect(),
        created: summary.created.unwrap_or(0),
        command: summary.command.unwrap_or_default(),
        ports: ports(summary.ports.unwrap_or_default(), &label(labels::PORTS)),
        mounts: summary
            .mounts
            .unwrap_or_default()
            .into_iter()
            .map(|m| {
                let source = m
                    .name
                    .filter(|n| !n.is_empty())
                    .or(m.source)
                    .unwrap_or_default();
                (source, m.destination.unwrap_or_default())
            })
            .collect(),
        size: summary
            .size_rw
            .zip(summary.size_root_fs)
            .or(summary.size_root_fs.map(|s| (0, s))),
        status,
        labels,
        node: String::new(),
    }
}

fn state(state: Option<ContainerSummaryStateEnum>) -> State {
    use ContainerSummaryStateEnum as S;
    match state {
        Some(S::RUNNING | S::STOPPING) => State::Running,
        Some(S::PAUSED) => State::Paused,
        Some(S::RESTARTING) => State::Restarting,
        Some(S::EXITED) => State::Exited,
        Some(S::REMOVING) => State::Removing,
        Some(S::DEAD) => State::Dead,
        Some(S::CREATED | S::EMPTY) | None => State::Created,
    }
}

/// Health as the Engine's status text says it: the list has it nowhere else before API 1.52.
fn health(status: &str) -> Health {
    if status.contains("(healthy)") {
        Health::Healthy
    } else if status.contains("(unhealthy)") {
        Health::Unhealthy
    } else if status.contains("(health: starting)") {
        Health::Starting
    } else {
        Health::None
    }
}

/// The code in `Exited (137) 2 minutes ago`.
fn exit_code(status: &str) -> Option<i64> {
    let (_, rest) = status.split_once('(')?;
    let (code, _) = rest.split_once(')')?;
    code.parse().ok()
}

/// Ports that are published: those that the Engine lists, and those that every node publishes.
fn ports(engine: Vec<PortSummary>, clusters: &str) -> Vec<PortBinding> {
    let everywhere = PublishedPort::mappings(clusters);
    let everywhere = everywhere.map(|(public, private, protocol)| PortBinding {
        ip: "0.0.0.0".to_owned(),
        public: Some(public),
        private,
        protocol: protocol.to_owned(),
    });
    let everywhere: Vec<PortBinding> = everywhere.collect();
    let is_shown = |p: &PortSummary| {
        let same = |b: &PortBinding| b.private == p.private_port;
        p.public_port.is_none() && everywhere.iter().any(same)
    };
    let own = engine.iter().filter(|p| !is_shown(p));
    let own = own.map(|p| PortBinding {
        // Podman leaves out the address if it is all of them.
        ip: p.ip.clone().unwrap_or_else(|| match p.public_port {
            Some(_) => "0.0.0.0".to_owned(),
            None => String::new(),
        }),
        public: p.public_port,
        private: p.private_port,
        protocol: p.typ.map(|t| t.to_string()).unwrap_or_default(),
    });
    everywhere.iter().cloned().chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_texts() {
        assert_eq!(health("Up 2 minutes (healthy)"), Health::Healthy);
        assert_eq!(health("Up 1 second (health: starting)"), Health::Starting);
        assert_eq!(health("Up 1 second (unhealthy)"), Health::Unhealthy);
        assert_eq!(health("Up 2 minutes"), Health::None);
        assert_eq!(exit_code("Exited (137) 2 minutes ago"), Some(137));
        assert_eq!(exit_code("Up 2 minutes (healthy)"), None);
        assert_eq!(seconds("1970-01-01T00:01:00.5Z"), Some(60));
    }
}
