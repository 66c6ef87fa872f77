//! Single operations on containers.

use bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
    RestartContainerOptionsBuilder, StopContainerOptionsBuilder, TopOptionsBuilder,
};
use futures_util::StreamExt;

use crate::{Engine, Error, podman};

impl Engine {
    /// Starts a container (`POST /containers/{id}/start`).
    ///
    /// # Errors
    /// The Engine refuses; a port that is taken is named with its owner.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        match self.docker.start_container(id, None).await {
            Ok(()) => Ok(()),
            Err(e) => {
                let error = Error::from_engine(format!("cannot start {id}"), e);
                Err(crate::port_owner::explain(self, error).await)
            }
        }
    }

    /// Stops a container: its stop signal, then after `timeout` seconds a kill.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn stop(&self, id: &str, timeout: Option<i64>) -> Result<(), Error> {
        let mut options = StopContainerOptionsBuilder::default();
        if let Some(seconds) = timeout {
            options = options.t(i32::try_from(seconds).unwrap_or(i32::MAX));
        }
        // Without a timeout the container's own counts, which may be long.
        let extra = timeout.map_or(3600, |s| u64::try_from(s).unwrap_or(u64::from(u32::MAX)));
        self.patient(extra)
            .stop_container(id, Some(options.build()))
            .await
            .map_err(|e| Error::from_engine(format!("cannot stop {id}"), e))
    }

    /// Stops and starts a container.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn restart(&self, id: &str, timeout: Option<i64>) -> Result<(), Error> {
        let mut options = RestartContainerOptionsBuilder::default();
        if let Some(seconds) = timeout {
            options = options.t(i32::try_from(seconds).unwrap_or(i32::MAX));
        }
        self.patient(3600)
            .restart_container(id, Some(options.build()))
            .await
            .map_err(|e| Error::from_engine(format!("cannot restart {id}"), e))
    }

    /// Sends a signal (`SIGKILL` unless named).
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn kill(&self, id: &str, signal: Option<&str>) -> Result<(), Error> {
        let options = KillContainerOptionsBuilder::default()
            .signal(signal.unwrap_or("SIGKILL"))
            .build();
        self.docker
            .kill_container(id, Some(options))
            .await
            .map_err(|e| Error::from_engine(format!("cannot kill {id}"), e))
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn pause(&self, id: &str) -> Result<(), Error> {
        let result = self.docker.pause_container(id).await;
        result.map_err(|e| Error::from_engine(format!("cannot pause {id}"), e))
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn unpause(&self, id: &str) -> Result<(), Error> {
        let result = self.docker.unpause_container(id).await;
        result.map_err(|e| Error::from_engine(format!("cannot unpause {id}"), e))
    }

    /// Removes a container, with its anonymous volumes if `volumes`, killing it first if `force`.
    ///
    /// # Errors
    /// The Engine refuses. A container that is gone or going is no error.
    pub async fn remove(&self, id: &str, volumes: bool, force: bool) -> Result<(), Error> {
        self.remove_only(id, volumes, force).await?;
        self.sweep().await;
        Ok(())
    }

    /// The same, while what it kept in memory is left to a later sweep.
    pub(crate) async fn remove_only(
        &self,
        id: &str,
        volumes: bool,
        force: bool,
    ) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default()
            .v(volumes)
            .force(force)
            .build();
        match self.patient(600).remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) => match Error::from_engine(format!("cannot remove {id}"), e) {
                e if e.is_not_found() => Ok(()),
                Error::Refused {
                    status: 409,
                    message,
                    ..
                } if message.contains("already in progress") => Ok(()),
                e => Err(e),
            },
        }
    }

    /// Renames a container.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn rename(&self, id: &str, name: &str) -> Result<(), Error> {
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        let result = self.docker.rename_container(id, options).await;
        result.map_err(|e| Error::from_engine(format!("cannot rename {id} to {name}"), e))
    }

    /// Waits until a container has ended; its exit code.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn wait(&self, id: &str) -> Result<i64, Error> {
        let options = None::<bollard::query_parameters::WaitContainerOptions>;
        let mut stream = self.docker.wait_container(id, options);
        match stream.next().await {
            Some(Ok(response)) => Ok(response.status_code),
            // The client calls any code but 0 an error.
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(e)) => Err(Error::from_engine(format!("cannot wait for {id}"), e)),
            None => Err(Error::Gone {
                reason: format!("the wait for {id} ended without an answer"),
            }),
        }
    }

    /// Everything the Engine knows of a container, as it writes it.
    ///
    /// # Errors
    /// The Engine cannot be reached or has no such container.
    pub async fn inspect(
        &self,
        id: &str,
    ) -> Result<bollard::models::ContainerInspectResponse, Error> {
        let options = None::<bollard::query_parameters::InspectContainerOptions>;
        let result = podman::settled(|| {
            let options = options.clone();
            self.docker.inspect_container(id, options)
        });
        let result = result.await;
        result.map_err(|e| Error::from_engine(format!("cannot inspect {id}"), e))
    }

    /// The first process of a container, by its number on the host; none if it does not run.
    ///
    /// # Errors
    /// The Engine cannot be reached or has no such container.
    pub async fn first_process(&self, id: &str) -> Result<Option<u32>, Error> {
        let pid = self.inspect(id).await?.state.and_then(|s| s.pid);
        // One that has ended has 0.
        Ok(pid.and_then(|p| u32::try_from(p).ok()).filter(|p| *p > 0))
    }

    /// Processes of a container: titles and rows.
    ///
    /// # Errors
    /// The Engine refuses.
    pub async fn top(&self, id: &str) -> Result<(Vec<String>, Vec<Vec<String>>), Error> {
        let options = TopOptionsBuilder::default().build();
        let result = self.docker.top_processes(id, Some(options)).await;
        let top = result
            .map_err(|e| Error::from_engine(format!("cannot list the processes of {id}"), e))?;
        Ok((
            top.titles.unwrap_or_default(),
            top.processes.unwrap_or_default(),
        ))
    }
}
