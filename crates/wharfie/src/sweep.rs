//! Takes away what of networks nobody wants any more, so that nothing of ours is left behind: with the
//! agent only that, without it everything.

use wharfie_core::labels;
use wharfie_core::report::ReportedContainer;
use wharfie_host::net::{self, Namespace, Purged};
use wharfie_host::{Engine, LocalNetwork};

use crate::api_network::Swept;
use crate::failure::Failure;

/// What of this host may go.
pub(crate) struct Broom<'a> {
    /// Whether a network is wanted.
    pub(crate) wanted: &'a (dyn Fn(&LocalNetwork) -> bool + Sync),
    /// Whether a container's namespace is to be left alone.
    pub(crate) served: &'a (dyn Fn(&ReportedContainer) -> bool + Sync),
    /// Whether the host's own namespace is to be cleaned.
    pub(crate) host: bool,
    /// Only say what would go.
    pub(crate) dry_run: bool,
}

/// Whether a network of an Engine is one that we made as a node's part of a network of the cluster.
pub(crate) fn is_ours(network: &LocalNetwork) -> bool {
    network.labels.contains_key(labels::RESOLVER)
}

/// Takes away what may go: from the kernel first, so that a network that stays does no harm.
///
/// # Errors
/// The kernel or the Engine refuses.
pub(crate) async fn sweep(engine: Option<&Engine>, broom: &Broom<'_>) -> Result<Swept, Failure> {
    let mut swept = Swept::default();
    let containers: Vec<ReportedContainer> = match engine {
        Some(engine) => {
            let all = engine.all_containers(false).await?.into_iter();
            all.map(ReportedContainer::from).collect()
        }
        None => Vec::new(),
    };
    let own = Namespace::here().map_err(|e| Failure::failed(e.to_string()))?;
    for container in containers.iter().filter(|c| c.is_running()) {
        let Some(engine) = engine.filter(|_| !(broom.served)(container)) else {
            continue;
        };
        // It may have ended since.
        let pid = engine.first_process(&container.id).await.ok().flatten();
        let Some(namespace) = pid.map(Namespace::of_process) else {
            continue;
        };
        if let Ok(namespace) = namespace
            && !namespace.is_same(&own)
        {
            let of = format!("container {}", container.name);
            clean(namespace, &of, broom.dry_run, &mut swept).await?;
        }
    }
    if broom.host {
        clean(own, "this host", broom.dry_run, &mut swept).await?;
    }
    if let Some(engine) = engine {
        networks(engine, &containers, broom, &mut swept).await?;
    }
    Ok(swept)
}

/// Removes all of ours from a namespace.
async fn clean(
    namespace: Namespace,
    of: &str,
    dry_run: bool,
    swept: &mut Swept,
) -> Result<(), Failure> {
    let work = move || match dry_run {
        true => net::purgeable(&namespace),
        false => net::purge(&namespace),
    };
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|e| Failure::failed(e.to_string()))?;
    let purged = match done {
        Ok(purged) => purged,
        // Without nftables there is nothing of ours in it.
        Err(net::Error::NotSupported { .. }) => Purged::default(),
        Err(e) if e.is_gone() => Purged::default(),
        Err(e) => {
            return Err(Failure::failed(format!("{of}: {e}")).help("run as root"));
        }
    };
    let devices = purged.devices.iter().map(|d| format!("device {d} of {of}"));
    let tables = purged.tables.iter().map(|t| format!("table {t} of {of}"));
    let addresses = purged.addresses.iter();
    let addresses = addresses.map(|a| format!("address {a} of {of}"));
    swept.removed.extend(devices.chain(tables).chain(addresses));
    if purged.routes > 0 {
        swept
            .removed
            .push(format!("{} routes and rules of {of}", purged.routes));
    }
    if purged.neighbours > 0 {
        swept
            .removed
            .push(format!("{} neighbours of {of}", purged.neighbours));
    }
    Ok(())
}

/// Removes the Engine's networks that are ours and that nobody wants.
async fn networks(
    engine: &Engine,
    containers: &[ReportedContainer],
    broom: &Broom<'_>,
    swept: &mut Swept,
) -> Result<(), Failure> {
    let all = engine.local_networks().await?;
    for network in all.iter().filter(|n| is_ours(n) && !(broom.wanted)(n)) {
        let on = |c: &&ReportedContainer| c.attachments.contains_key(&network.name);
        let users: Vec<&str> = containers
            .iter()
            .filter(on)
            .map(|c| c.name.as_str())
            .collect();
        if !users.is_empty() {
            let name = &network.name;
            let line = format!("network {name}: containers are on it: {}", users.join(", "));
            swept.kept.push(line);
            continue;
        }
        if !broom.dry_run {
            engine.remove_local_network(&network.id).await?;
        }
        swept.removed.push(format!("network {}", network.name));
    }
    Ok(())
}
