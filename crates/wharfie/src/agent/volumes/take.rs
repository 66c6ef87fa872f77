//! The part of the node that a volume goes to.

use std::sync::Arc;

use tracing::{debug, info, warn};
use wharfie_host::{BoxedStream, Engine, LocalVolume, volume};

use super::super::keeper::with_replica;
use super::say::{Say, hear, tell};
use super::{PART, TAKING, Volumes, WHOLE};
use crate::failure::{Failure, Message};

/// Takes a volume that another node gives on a stream.
pub(super) async fn serve(volumes: Arc<Volumes>, mut peer: BoxedStream) {
    let offered = match hear(&mut peer).await {
        Ok(Say::Take { volume }) => volume,
        other => return debug!("nobody offers a volume: {other:?}"),
    };
    if let Err(failure) = take(&volumes, &offered, &mut peer).await {
        warn!(volume = offered.name, "not taken: {}", failure.text());
        let (why, help) = match failure {
            Failure::Failed(Message { what, help }) | Failure::NoEngine(Message { what, help }) => {
                (what, help)
            }
            other => (other.text(), None),
        };
        // Whoever gave it may be gone.
        let _ = tell(&mut peer, &Say::Failed { why, help }).await;
    }
}

async fn take(
    volumes: &Arc<Volumes>,
    offered: &LocalVolume,
    peer: &mut BoxedStream,
) -> Result<(), Failure> {
    let name = offered.name.as_str();
    let _claim = volumes.claim(name)?;
    let engine = volumes.keeper.engine().map_err(Failure::from)?;
    make_room(volumes, &engine, name).await?;
    let key = format!("{TAKING}{name}");
    // From before it is made: the next agent is to find it.
    volumes.note(key.clone(), Some(PART.to_vec())).await?;
    let digest = match fill(&engine, offered, peer).await {
        Ok(digest) => digest,
        Err(failure) => {
            discard(volumes, &engine, name).await?;
            return Err(failure);
        }
    };
    volumes.note(key.clone(), Some(WHOLE.to_vec())).await?;
    tell(peer, &Say::Whole { digest }).await?;
    match hear(peer).await {
        Ok(Say::Keep) => {
            volumes.note(key, None).await?;
            info!(volume = name, "taken");
            // Without an answer the old one is not removed.
            let _ = tell(peer, &Say::Kept).await;
            Ok(())
        }
        Ok(Say::Drop) => discard(volumes, &engine, name).await,
        // It may count already, and that is only not heard of yet.
        other => {
            warn!(
                volume = name,
                "all of it is here, but whoever gave it went away: {other:?}"
            );
            Ok(())
        }
    }
}

/// Makes sure that there is no volume of a name: one that is empty, or that was left by a move that
/// came to nothing, goes.
async fn make_room(volumes: &Volumes, engine: &Engine, name: &str) -> Result<(), Failure> {
    let Some(there) = engine.volume(name).await? else {
        return Ok(());
    };
    let me = volumes.keeper.fleet.me();
    let of = format!("{TAKING}{name}");
    let left = with_replica(&volumes.keeper.replica, move |r| r.store().local(&of)).await?;
    if left.is_some() && volumes.keeper.tied_to(name) != Some(me.id) {
        return discard(volumes, engine, name).await;
    }
    if there.foreign().is_some() || !there.is_empty()? {
        return Err(Failure::failed(format!(
            "node {} has a volume {name} already, with something in it",
            me.name
        ))
        .help(format!(
            "if nobody needs that one: `wharfie volume rm {name} --node {}`",
            me.name
        )));
    }
    engine.remove_volume(name).await?;
    Ok(())
}

/// Makes the volume and receives its content; the digest of what is there then.
async fn fill(
    engine: &Engine,
    offered: &LocalVolume,
    peer: &mut BoxedStream,
) -> Result<String, Failure> {
    let made = engine.create_volume_like(offered).await?;
    // Also finds out whether it can be written here at all.
    if !made.is_empty()? {
        return Err(Failure::failed(format!(
            "volume {} is not empty though it is new",
            offered.name
        )));
    }
    tell(peer, &Say::Ready).await?;
    let received = volume::receive(&made.path(), peer).await;
    received.map_err(|e| Failure::failed(format!("its content did not arrive: {e}")))
}

/// Removes a volume that does not count.
async fn discard(volumes: &Volumes, engine: &Engine, name: &str) -> Result<(), Failure> {
    engine.remove_volume(name).await?;
    info!(volume = name, "not needed: it stays where it was");
    volumes.note(format!("{TAKING}{name}"), None).await
}

/// Puts in order what a former agent was taking.
pub(super) async fn tidy(
    volumes: &Volumes,
    engine: &Engine,
    name: &str,
    how_far: &[u8],
) -> Result<(), Failure> {
    let tied_here = volumes.keeper.tied_to(name) == Some(volumes.keeper.fleet.id());
    match how_far {
        _ if tied_here => volumes.note(format!("{TAKING}{name}"), None).await,
        PART => discard(volumes, engine, name).await,
        _ => Ok(()),
    }
}
