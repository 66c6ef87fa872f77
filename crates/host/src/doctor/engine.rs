//! The Engine: whether it answers, and how it is set up.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard::query_parameters::ListContainersOptionsBuilder;

use super::Finding;
use crate::{Engine, Error};

/// What an Engine says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Where it listens.
    pub(super) address: String,
    /// Its version.
    pub(super) version: String,
    /// The API in use.
    pub(super) api: String,
    /// How it stores images and containers.
    pub(super) driver: String,
    /// `1` or `2`.
    pub(super) cgroups: String,
    /// Whether containers outlive it.
    pub(super) live_restore: bool,
    /// Whether it runs without root's rights.
    pub(super) rootless: bool,
    /// Whether it is part of a swarm.
    pub(super) swarm: bool,
    /// Where it keeps everything.
    pub(super) data_root: PathBuf,
    /// Containers by the host ports they publish, as `80/tcp`.
    pub(super) published: BTreeMap<String, String>,
}

/// Asks the Engine.
pub(super) async fn probe(address: Option<&str>) -> Result<Facts, Error> {
    let engine = Engine::connect(address).await?;
    let failed = |e| Error::from_engine("cannot ask the Engine for its set-up", e);
    let info = engine.docker.info().await.map_err(failed)?;
    let options = ListContainersOptionsBuilder::default().build();
    let containers = engine.docker.list_containers(Some(options)).await;
    let published = containers
        .map_err(failed)?
        .into_iter()
        .flat_map(|c| {
            let name = c.names.into_iter().flatten().next().unwrap_or_default();
            let name = name.trim_start_matches('/').to_owned();
            c.ports.into_iter().flatten().filter_map(move |p| {
                let protocol = p.typ.map(|t| t.to_string()).unwrap_or_default();
                Some((format!("{}/{protocol}", p.public_port?), name.clone()))
            })
        })
        .collect();
    let swarm = info.swarm.and_then(|s| s.local_node_state);
    Ok(Facts {
        address: engine.address().to_owned(),
        version: engine.version().await?.engine,
        api: engine.api().to_string(),
        driver: info.driver.unwrap_or_default(),
        cgroups: info
            .cgroup_version
            .map(|v| v.to_string())
            .unwrap_or_default(),
        live_restore: info.live_restore_enabled.unwrap_or_default(),
        rootless: info
            .security_options
            .iter()
            .flatten()
            .any(|o| o == "name=rootless"),
        swarm: swarm.is_some_and(|s| s.to_string() == "active"),
        data_root: info.docker_root_dir.unwrap_or_default().into(),
        published,
    })
}

pub(super) fn judge(facts: &Result<Facts, Error>) -> Vec<Finding> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            let text = error.to_string();
            // What to do stands behind the last semicolon.
            let cut = match error {
                Error::NotPermitted { .. } => text.split_once(": run ").map(|(seen, _)| (seen, "run as root, or join the group of the socket: `usermod -aG docker $USER`, then log in again")),
                _ => text.rsplit_once("; "),
            };
            let finding = match cut {
                Some((seen, mend)) => Finding::broken("Engine", seen).mend(mend),
                None => Finding::broken("Engine", text),
            };
            return vec![finding];
        }
    };
    let mut findings = vec![Finding::ok(
        "Engine",
        format!("{} (API {}) at {}", facts.version, facts.api, facts.address),
    )];
    findings.push(storage(&facts.driver));
    findings.push(match facts.cgroups.as_str() {
        "2" => Finding::ok("cgroups", "version 2"),
        "" => Finding::unknown("cgroups", "the Engine does not say which version"),
        version => Finding::warning(
            "cgroups",
            format!("version {version}: it works, but kernels and Docker give it up"),
        )
        .mend("boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"),
    });
    findings.push(if facts.live_restore {
        Finding::ok("live restore", "containers outlive the Engine")
    } else {
        let mend = if facts.swarm {
            "leave the swarm (`docker swarm leave`), in which it cannot be had; then put \"live-restore\": true into /etc/docker/daemon.json and `systemctl reload docker`"
        } else {
            "put \"live-restore\": true into /etc/docker/daemon.json, then `systemctl reload docker`"
        };
        Finding::warning(
            "live restore",
            "off: every container stops when the Engine restarts or is upgraded",
        )
        .mend(mend)
    });
    if facts.rootless {
        findings.push(
            Finding::warning(
                "Engine's rights",
                "it runs without root: addresses of the network and networks over several hosts cannot be had",
            )
            .mend("run the Engine as root on hosts that are to be more than one"),
        );
    }
    findings
}

fn storage(driver: &str) -> Finding {
    match driver {
        "overlay2" | "overlayfs" | "btrfs" | "zfs" | "fuse-overlayfs" => {
            Finding::ok("storage driver", driver)
        }
        "vfs" => Finding::warning(
            "storage driver",
            "vfs: every container gets a whole copy of its image",
        )
        .mend("put \"storage-driver\": \"overlay2\" into /etc/docker/daemon.json (images must be pulled again)"),
        "" => Finding::unknown("storage driver", "the Engine does not say which"),
        other => Finding::warning(
            "storage driver",
            format!("{other}: newer Engines do not have it any more"),
        )
        .mend("put \"storage-driver\": \"overlay2\" into /etc/docker/daemon.json (images must be pulled again)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn good() -> Facts {
        Facts {
            version: "28.5.2".to_owned(),
            api: "1.51".to_owned(),
            driver: "overlay2".to_owned(),
            cgroups: "2".to_owned(),
            live_restore: true,
            ..Facts::default()
        }
    }

    fn verdict(facts: Facts, check: &str) -> (Verdict, bool) {
        let findings = judge(&Ok(facts));
        let finding = findings.iter().find(|f| f.check == check).unwrap();
        (finding.verdict, finding.mend.is_some())
    }

    #[test]
    fn a_good_engine_is_good() {
        assert!(judge(&Ok(good())).iter().all(|f| f.verdict == Verdict::Ok));
    }

    #[test]
    fn what_could_be_better_is_told_with_the_way() {
        let old = Facts {
            driver: "vfs".to_owned(),
            cgroups: "1".to_owned(),
            live_restore: false,
            rootless: true,
            ..good()
        };
        for check in [
            "storage driver",
            "cgroups",
            "live restore",
            "Engine's rights",
        ] {
            assert_eq!(
                verdict(old.clone(), check),
                (Verdict::Warning, true),
                "{check}"
            );
        }
    }

    #[test]
    fn without_an_engine_that_is_all() {
        let error = Error::NotRunning {
            address: "unix:///x".to_owned(),
        };
        let findings = judge(&Err(error));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Verdict::Broken);
        assert!(
            findings[0]
                .mend
                .as_deref()
                .unwrap()
                .contains("systemctl start docker")
        );
    }
}
