//! Conditions that are waited for, and hooks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::models::{ContainerStateStatusEnum, HealthStatusEnum};
use wharfie_compose::model::{Condition, Hook, Service};

use super::Executor;
use crate::Error;
use crate::session::ExecOptions;

/// How often is looked at what other nodes report.
const ELSEWHERE: Duration = Duration::from_millis(30);

impl Executor<'_> {
    pub(super) async fn hooks(
        &self,
        service: &str,
        container: &str,
        which: impl Fn(&Service) -> &Vec<Hook>,
        kind: &str,
    ) -> Result<(), Error> {
        let Some(service) = self.service(service) else {
            return Ok(());
        };
        for hook in which(service) {
            let options = ExecOptions {
                command: hook.command.clone().unwrap_or_default(),
                environment: hook
                    .environment
                    .iter()
                    .map(|(k, v)| v.as_ref().map_or_else(|| k.clone(), |v| format!("{k}={v}")))
                    .collect(),
                user: hook.user.clone(),
                working_dir: hook.working_dir.clone(),
                privileged: hook.privileged,
                ..ExecOptions::default()
            };
            let (code, output) = self.engine.exec_to_end(container, &options).await?;
            if code != 0 {
                return Err(Error::Local(format!(
                    "{kind} of {}: `{}` ended with code {code}: {}",
                    service.name,
                    options.command.join(" "),
                    output.trim()
                )));
            }
        }
        Ok(())
    }

    /// Waits until a container of another node meets a condition, by what that node reports.
    pub(super) async fn wait_elsewhere(
        &self,
        name: &str,
        condition: Condition,
    ) -> Result<(), Error> {
        let find = self.context.elsewhere;
        loop {
            let container = find.and_then(|find| find(name));
            if container.is_some_and(|c| wharfie_core::reconcile::holds_there(condition, &c)) {
                return Ok(());
            }
            if self.failed.load(Ordering::Relaxed) || self.is_cancelled() {
                return Err(Error::Cancelled(format!("waiting for container {name}")));
            }
            tokio::time::sleep(ELSEWHERE).await;
        }
    }

    /// Waits until a container meets a condition. `Started` is what `--wait` waits for: it runs,
    /// and is healthy if it has a health check, be it the image's.
    pub(super) async fn wait(&self, name: &str, condition: Condition) -> Result<(), Error> {
        let mut pause = Duration::from_millis(20);
        loop {
            let state = self.engine.inspect(name).await?.state.unwrap_or_default();
            let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY);
            let code = state.exit_code.unwrap_or(0);
            let ended = matches!(
                status,
                ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD
            );
            let runs = matches!(
                status,
                ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED
            );
            let health = state.health.and_then(|h| h.status);
            match condition {
                Condition::CompletedSuccessfully if ended && code == 0 => return Ok(()),
                Condition::CompletedSuccessfully if ended => {
                    return Err(Error::Wait(format!(
                        "container {name} ended with code {code}, but it must end with 0"
                    )));
                }
                Condition::CompletedSuccessfully => {}
                _ if ended => {
                    return Err(Error::Wait(format!(
                        "container {name} ended with code {code} while it was waited for; see its log with `logs`"
                    )));
                }
                Condition::Started | Condition::Healthy => match health {
                    Some(HealthStatusEnum::HEALTHY) => return Ok(()),
                    Some(HealthStatusEnum::UNHEALTHY) => {
                        return Err(Error::Wait(format!(
                            "container {name} is unhealthy; see its log with `logs`"
                        )));
                    }
                    Some(HealthStatusEnum::STARTING) => {}
                    _ if !runs => {}
                    _ if condition == Condition::Started => return Ok(()),
                    _ => {
                        return Err(Error::Wait(format!(
                            "container {name} has no health check, but another service waits until it is healthy"
                        )));
                    }
                },
            }
            if self.failed.load(Ordering::Relaxed) || self.is_cancelled() {
                return Err(Error::Cancelled(format!("waiting for container {name}")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(300));
        }
    }
}
