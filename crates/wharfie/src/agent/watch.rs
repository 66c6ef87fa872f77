//! The connection to the Engine: kept, renewed, and listened to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tracing::{info, warn};
use wharfie_host::Engine;

use super::keeper::Keeper;
use crate::api::Fault;

/// Pauses between attempts to reach an Engine that is away.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// Connects to the Engine, tells the keeper what happens on it, and connects again, for ever.
pub(super) async fn engine(keeper: Arc<Keeper>) {
    let mut settings = keeper.settings.subscribe();
    let mut pause = PAUSES[0];
    let mut was_away = false;
    let mut last_reason = String::new();
    loop {
        let host = settings.borrow_and_update().engine.clone();
        match Engine::connect(host.as_deref()).await {
            Ok(engine) => {
                let engine = match settings.borrow().socket.parent() {
                    Some(dir) => engine.with_runtime_dir(dir),
                    None => engine,
                };
                info!(address = engine.address(), api = %engine.api(), "the Engine answers");
                last_reason.clear();
                let began = tokio::time::Instant::now();
                let listening = listen(&keeper, &engine, was_away);
                let moved = tokio::select! {
                    () = listening => false,
                    () = changed(&mut settings, &host) => true,
                };
                let away = Fault::from(wharfie_host::Error::NotRunning {
                    address: engine.address().to_owned(),
                });
                keeper.set_engine(Err(away));
                was_away = true;
                // One that answers and tells nothing must not be asked without a pause.
                if began.elapsed() > PAUSES[1] {
                    pause = PAUSES[0];
                } else if !moved {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
                if moved {
                    info!("another Engine was set");
                } else {
                    warn!("the Engine went away; containers are looked at again when it is back");
                }
            }
            Err(e) => {
                let reason = e.to_string();
                if reason != last_reason {
                    warn!("{reason}");
                    last_reason = reason;
                }
                keeper.set_engine(Err(e.into()));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = changed(&mut settings, &host) => {}
                }
                pause = (pause * 2).min(PAUSES[1]);
            }
        }
    }
}

/// Returns when the settings name another Engine.
async fn changed(
    settings: &mut tokio::sync::watch::Receiver<super::Settings>,
    host: &Option<String>,
) {
    loop {
        if settings.changed().await.is_err() {
            return std::future::pending().await;
        }
        if settings.borrow_and_update().engine != *host {
            return;
        }
    }
}

/// Passes on what happens until the Engine goes away.
async fn listen(keeper: &Keeper, engine: &Engine, was_away: bool) {
    let mut happenings = std::pin::pin!(engine.happenings());
    // The stream begins a moment before now: nothing falls between it and the look.
    keeper.set_engine(Ok(engine.clone()));
    for slot in keeper.slots() {
        slot.away.fetch_or(was_away, Ordering::SeqCst);
        slot.wake.notify_one();
    }
    while let Some(Ok(happened)) = happenings.next().await {
        keeper.happened(&happened);
    }
}
