//! Images, networks and volumes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};
use wharfie_compose::model::Network;
use wharfie_core::labels;
use wharfie_core::network::BRIDGE;

use super::Executor;
use crate::{Engine, Error, translate};

impl Executor<'_> {
    pub(super) async fn build(
        &self,
        service: &str,
        image: &str,
        note: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let request = crate::build::BuildRequest {
            project: self.project()?,
            service: self.known_service(service)?,
            image: image.to_owned(),
            flags: self.context.build.clone(),
        };
        let built = crate::build::build(self.engine, &request, &mut |line| note(line)).await;
        built
            .map(drop)
            .map_err(|e| Error::Build(format!("cannot build the image of {service}: {e}")))
    }

    pub(super) async fn create_network(&self, key: &str, name: &str) -> Result<(), Error> {
        let project = self.project()?;
        let Some(network) = project.networks.get(key) else {
            return Err(Error::Local(format!("no such network: {key}")));
        };
        debug_assert_eq!(network.name, name);
        self.engine.make_network(&project.name, key, network).await
    }

    /// Engines let go of a removed container's endpoint a moment later, and sometimes not at all:
    /// endpoints of containers that are gone are cut off by force. Engine 20.10 can lose count of
    /// them under many requests at a time: then nothing but its restart removes the network, which
    /// is empty and will serve the next `up`.
    pub(super) async fn remove_network(
        &self,
        name: &str,
        note: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        let mut pause = Duration::from_millis(20);
        loop {
            let result = self.engine.docker.remove_network(name).await;
            let error = match result {
                Ok(()) => return Ok(()),
                Err(e) => Error::from_engine(format!("cannot remove network {name}"), e),
            };
            match &error {
                e if e.is_not_found() => return Ok(()),
                Error::Refused { message, .. } if message.contains("active endpoints") => {
                    let left = self.release_endpoints(name).await;
                    if tokio::time::Instant::now() >= deadline {
                        if left == Some(0) {
                            note(&format!(
                                "network {name} stays: the Engine counts endpoints on it, but nothing is there; it can be removed once the Engine was restarted"
                            ));
                            return Ok(());
                        }
                        if left.is_some() {
                            note(&format!(
                                "network {name} stays: containers that are not of this stack are on it"
                            ));
                            return Ok(());
                        }
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(300));
                }
                _ => return Err(error),
            }
        }
    }

    /// Returns how many containers are on the network; `None` if that cannot be known.
    async fn release_endpoints(&self, network: &str) -> Option<usize> {
        let docker = &self.engine.docker;
        let options = None::<InspectNetworkOptions>;
        let inspected = docker.inspect_network(network, options).await.ok()?;
        let containers = inspected.containers.unwrap_or_default();
        let count = containers.len();
        for container in containers.into_keys() {
            let gone = self.engine.inspect(&container).await.err();
            if gone.is_some_and(|e| e.is_not_found()) {
                let request = bollard::models::NetworkDisconnectRequest {
                    container,
                    force: Some(true),
                };
                // The next try to remove the network says what is still wrong.
                let _ = docker.disconnect_network(network, request).await;
            }
        }
        Some(count)
    }

    pub(super) async fn create_volume(&self, key: &str, name: &str) -> Result<(), Error> {
        let project = self.project()?;
        let Some(volume) = project.volumes.get(key) else {
            return Err(Error::Local(format!("no such volume: {key}")));
        };
        let request = translate::volume_request(&project.name, key, volume);
        let result = self.engine.docker.create_volume(request).await;
        result
            .map(drop)
            .map_err(|e| Error::from_engine(format!("cannot create volume {name}"), e))
    }
}

impl Engine {
    /// Makes a network of a project, if it is not there (`POST /networks/create`).
    ///
    /// # Errors
    /// The Engine refuses it, or cannot be reached.
    pub async fn make_network(
        &self,
        project: &str,
        key: &str,
        network: &Network,
    ) -> Result<(), Error> {
        let name = network.name.as_str();
        let request = translate::network_request(project, key, network);
        match self.docker.create_network(request).await {
            Ok(_) => self.keep_one_network(project, name).await,
            Err(e) => match Error::from_engine(format!("cannot create network {name}"), e) {
                // Somebody else made it since we looked: the same project in another `up`.
                Error::Refused { status: 409, .. } => Ok(()),
                e => Err(e),
            },
        }
    }

    /// Names of the networks that are parts of networks over several hosts, by the names of their
    /// bridges (`GET /networks`, by label).
    ///
    /// # Errors
    /// The Engine cannot be reached.
    pub async fn bridged_networks(&self) -> Result<BTreeMap<String, String>, Error> {
        let filters = HashMap::from([("label".to_owned(), vec![labels::RESOLVER.to_owned()])]);
        let options = ListNetworksOptionsBuilder::default()
            .filters(&filters)
            .build();
        let list = self.docker.list_networks(Some(options)).await;
        let list = list.map_err(|e| Error::from_engine("cannot list networks", e))?;
        let bridged = list.into_iter().filter_map(|network| {
            let bridge = network.options?.remove(BRIDGE)?;
            Some((bridge, network.name?))
        });
        Ok(bridged.collect())
    }

    /// Removes a network that nobody is on; nothing happens if it is gone
    /// (`DELETE /networks/{name}`).
    ///
    /// # Errors
    /// Somebody is on it, or the Engine cannot be reached.
    pub async fn drop_network(&self, name: &str) -> Result<(), Error> {
        match self.docker.remove_network(name).await {
            Ok(()) => Ok(()),
            Err(e) => match Error::from_engine(format!("cannot remove network {name}"), e) {
                e if e.is_not_found() => Ok(()),
                e => Err(e),
            },
        }
    }

    /// Engines before API 1.44 make two networks of one name when asked twice at once, as when an
    /// interrupted `up` is begun again; then no container can be made on either. The older one of
    /// the project's stays.
    pub(super) async fn keep_one_network(&self, project: &str, name: &str) -> Result<(), Error> {
        let filters = HashMap::from([
            ("name".to_owned(), vec![name.to_owned()]),
            (
                "label".to_owned(),
                vec![format!("{}={project}", labels::PROJECT)],
            ),
        ]);
        let options = ListNetworksOptionsBuilder::default()
            .filters(&filters)
            .build();
        let list = self.docker.list_networks(Some(options)).await;
        let list = list.map_err(|e| Error::from_engine("cannot list networks", e))?;
        // The filter matches parts of names too.
        let mut same: Vec<_> = list
            .into_iter()
            .filter(|n| n.name.as_deref() == Some(name))
            .filter_map(|n| Some((n.created, n.id?)))
            .collect();
        same.sort();
        for (_, id) in same.into_iter().skip(1) {
            let removed = self.docker.remove_network(&id).await;
            removed.map_err(|e| {
                Error::from_engine(format!("cannot remove a second network {name}"), e)
            })?;
        }
        Ok(())
    }
}
