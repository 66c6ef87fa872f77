//! Containers are made, and made anew in another's place.

use std::collections::BTreeMap;

use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::{CreateContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use wharfie_compose::model::{Condition, Project, Service};
use wharfie_core::labels;

use super::Executor;
use crate::memory::Kept;
use crate::translate::{self, Given, Wanted};
use crate::{Engine, Error, inject};

/// How a container is made anew.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recreation {
    /// Anonymous volumes are not taken over.
    pub(super) renew_volumes: bool,
    /// The new one runs before the old one is stopped.
    pub(super) start_first: bool,
    /// Seconds to stop in, in place of the service's own.
    pub(super) timeout: Option<i64>,
}

impl Executor<'_> {
    /// Of a container's anonymous volumes those that the file or the image still declares.
    async fn inheritable(
        &self,
        service: &str,
        mut volumes: BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Error> {
        let (project, service) = (self.project()?, self.known_service(service)?);
        let declared = |target: &str| {
            let mut mounts = service.volumes.iter();
            mounts.any(|m| m.source.is_empty() && m.target.trim_end_matches('/') == target)
        };
        if volumes.keys().all(|target| declared(target)) {
            return Ok(volumes);
        }
        let image = wharfie_core::names::image(project, service);
        let by_image = self.engine.image_volumes(&image).await?;
        let taken = |target: &str| {
            let tmpfs = service.tmpfs.iter().filter_map(|t| t.split(':').next());
            let mounts = service.volumes.iter().map(|m| m.target.as_str());
            let mut all = tmpfs.chain(mounts).map(|t| t.trim_end_matches('/'));
            all.any(|t| t == target)
        };
        volumes.retain(|target, _| declared(target) || by_image.contains(target) && !taken(target));
        Ok(volumes)
    }

    /// Makes a container anew as it is: the Engine cannot start this one any more.
    pub(super) async fn renew(&self, service: &str, name: &str) -> Result<(), Error> {
        let found = {
            let containers = self
                .containers
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            containers.get(service).and_then(|by_number| {
                let (number, other) = by_number.iter().find(|(_, other)| other.name == name)?;
                Some((*number, other.id.clone()))
            })
        };
        let Some((number, id)) = found else {
            return Err(Error::Local(format!("no such container: {name}")));
        };
        self.recreate(service, number, name, &id, Recreation::default())
            .await
    }

    /// Makes a container under the name `made_as`; `name` is what it is called in the end.
    pub(super) async fn create(
        &self,
        service: &str,
        number: u32,
        name: &str,
        made_as: &str,
        inherited: BTreeMap<String, String>,
        replaces: Option<&str>,
    ) -> Result<String, Error> {
        let project = self.project()?;
        let service = self.known_service(service)?;
        let others = self.others();
        let image = wharfie_core::names::image(project, service);
        let image_id = match self.context.seen.images.get(&image) {
            Some(image) => image.id.clone(),
            None => self
                .engine
                .image(&image)
                .await?
                .map(|i| i.id)
                .unwrap_or_default(),
        };
        let wanted = Wanted {
            given: self.given(project, service)?,
            project,
            service,
            number,
            oneoff: false,
            image_id,
            others: &others,
            inherited,
            socket: self.engine.socket(),
        };
        let mut request = translate::request(&wanted, name, self.engine.api);
        let kept = self.engine.keep_files(name, &mut request).await?;
        let made = self
            .create_of(request, service, name, made_as, replaces)
            .await;
        if let (Err(_), Some(kept)) = (&made, kept) {
            kept.discard();
        }
        made
    }

    /// What a container of a service gets on its networks.
    fn given(
        &self,
        project: &Project,
        service: &Service,
    ) -> Result<BTreeMap<String, Given>, Error> {
        let Some(addresses) = self.context.addresses else {
            return Ok(BTreeMap::new());
        };
        let networks = service.networks.keys();
        let names = networks.filter_map(|key| project.networks.get(key));
        let given = names.map(|n| Ok((n.name.clone(), addresses(&service.name, &n.name)?)));
        let given: Result<Vec<_>, String> = given.collect();
        let given = given.map_err(Error::Local)?.into_iter();
        Ok(given.filter_map(|(name, of)| Some((name, of?))).collect())
    }

    /// Makes a container of a finished request.
    async fn create_of(
        &self,
        mut request: translate::Request,
        service: &Service,
        name: &str,
        made_as: &str,
        replaces: Option<&str>,
    ) -> Result<String, Error> {
        if let (Some(old), Some(labels)) = (replaces, &mut request.body.labels) {
            labels.insert(labels::REPLACE.to_owned(), old.to_owned());
        }
        if replaces.is_some() || !request.needs_finishing() {
            let created = self
                .engine
                .create(made_as, name, &service.platform, request);
            return created.await;
        }
        // Until its secrets and configs are in it, it goes by a passing name: cut short, it is
        // not taken for complete.
        if let Some(labels) = &mut request.body.labels {
            labels.insert(labels::REPLACE.to_owned(), name.to_owned());
        }
        let temporary = format!("new_{name}");
        let created = self
            .engine
            .create(&temporary, name, &service.platform, request);
        let id = created.await?;
        if let Err(error) = self.engine.rename(&id, name).await {
            let _ = self.engine.remove(&id, true, true).await;
            return Err(error);
        }
        Ok(id)
    }

    pub(super) async fn recreate(
        &self,
        service: &str,
        number: u32,
        name: &str,
        old: &str,
        how: Recreation,
    ) -> Result<(), Error> {
        let engine = self.engine;
        let Recreation {
            renew_volumes,
            start_first,
            timeout,
        } = how;
        let inspected = match engine.inspect(old).await {
            // Somebody has just removed it.
            Err(e) if e.is_not_found() => {
                let made = self.create(service, number, name, name, BTreeMap::new(), None);
                let id = made.await?;
                self.remember(service, number, id, name);
                return Ok(());
            }
            inspected => inspected?,
        };
        let inherited = if renew_volumes {
            BTreeMap::new()
        } else {
            self.inheritable(service, anonymous_volumes(&inspected))
                .await?
        };
        let running = inspected
            .state
            .as_ref()
            .and_then(|s| s.running)
            .unwrap_or(false);
        let short = old.get(..12).unwrap_or(old);
        let temporary = format!("{short}_{name}");
        let id = self
            .create(service, number, name, &temporary, inherited, Some(old))
            .await?;
        let swap = async {
            if running && start_first {
                engine.start(&id).await?;
                // Healthy, if it has a health check.
                self.wait(&id, Condition::Started).await?;
            }
            if running {
                self.leave(old).await;
                self.hooks(service, old, |s| &s.pre_stop, "pre_stop")
                    .await?;
                self.stop(old, timeout).await?;
            }
            engine.remove_only(old, renew_volumes, true).await?;
            engine.rename(&id, name).await
        };
        if let Err(error) = swap.await {
            // The old one still has the place: take back the new one, so that nothing is doubled.
            if engine.inspect(old).await.is_ok() {
                let _ = engine.remove(&id, false, true).await;
            }
            return Err(error);
        }
        self.remember(service, number, id, name);
        Ok(())
    }
}

/// Anonymous volumes of a container: target to name. Their names are 64 hexadecimal digits.
fn anonymous_volumes(
    inspected: &bollard::models::ContainerInspectResponse,
) -> BTreeMap<String, String> {
    let is_anonymous = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    inspected
        .mounts
        .iter()
        .flatten()
        .filter_map(|m| {
            let name = m.name.clone().filter(|n| is_anonymous(n))?;
            Some((m.destination.clone()?, name))
        })
        .collect()
}

impl Engine {
    /// Keeps a request's files in memory and has them mounted, if that can be done here; else they
    /// stay to be copied in.
    pub(crate) async fn keep_files(
        &self,
        name: &str,
        request: &mut translate::Request,
    ) -> Result<Option<Kept>, Error> {
        if request.injected.is_empty() {
            return Ok(None);
        }
        let kept = self.keep(name, &request.injected).await?;
        let host = request.body.host_config.get_or_insert_default();
        match &kept {
            Some(kept) => {
                host.mounts
                    .get_or_insert_default()
                    .extend(kept.mounts.clone());
                request.injected.clear();
            }
            None if host.readonly_rootfs == Some(true) => {
                return Err(Error::Local(format!(
                    "{name} is read_only: nothing can be copied into it, and only root can keep its secrets and configs in memory and mount them"
                )));
            }
            None => {}
        }
        Ok(kept)
    }

    /// Makes a container with everything it needs before its start. If any of that fails the
    /// container is removed again. It gets the name `made_as`; `name` is what messages call it.
    pub(crate) async fn create(
        &self,
        made_as: &str,
        name: &str,
        platform: &str,
        request: translate::Request,
    ) -> Result<String, Error> {
        let mut options = CreateContainerOptionsBuilder::default().name(made_as);
        if !platform.is_empty() {
            options = options.platform(platform);
        }
        let options = options.build();
        let failed = |e| Error::from_engine(format!("cannot create {name}"), e);
        let made = self
            .docker
            .create_container(Some(options.clone()), request.body.clone());
        let created = match made.await.map_err(failed) {
            Err(Error::Refused { message, .. }) if message.contains("is ambiguous") => {
                self.unify_networks(&request.body).await?;
                let again = self.docker.create_container(Some(options), request.body);
                again.await.map_err(failed)?
            }
            made => made?,
        };
        let id = created.id;
        let finish = async {
            for (network, endpoint) in request.connections {
                let connect = NetworkConnectRequest {
                    container: id.clone(),
                    endpoint_config: Some(endpoint),
                };
                let result = self.docker.connect_network(&network, connect).await;
                result.map_err(|e| {
                    Error::from_engine(format!("cannot connect {name} to network {network}"), e)
                })?;
            }
            if !request.injected.is_empty() {
                let archive = inject::archive(&request.injected)?;
                let options = UploadToContainerOptionsBuilder::default().path("/").build();
                let body = bollard::body_full(archive.into());
                let result = self
                    .docker
                    .upload_to_container(&id, Some(options), body)
                    .await;
                result.map_err(|e| {
                    Error::from_engine(format!("cannot copy secrets and configs into {name}"), e)
                })?;
            }
            Ok(())
        };
        if let Err(error) = finish.await {
            let _ = self.remove(&id, true, true).await;
            return Err(error);
        }
        Ok(id)
    }

    /// Leaves one network of each name that a container is to be on.
    async fn unify_networks(
        &self,
        body: &bollard::models::ContainerCreateBody,
    ) -> Result<(), Error> {
        let project = body.labels.as_ref().and_then(|l| l.get(labels::PROJECT));
        let networks = body
            .networking_config
            .iter()
            .filter_map(|n| n.endpoints_config.as_ref());
        for name in networks.flat_map(|n| n.keys()) {
            self.keep_one_network(project.map_or("", String::as_str), name)
                .await?;
        }
        Ok(())
    }
}
