//! The agent: keeps what is wanted, and answers the command line.
//!
//! *observe → World → decide → act*: the Engine's events and a look at everything now and then
//! ([`watch`]) wake the [`keeper`], which decides with `wharfie_core::heal` and acts through
//! `wharfie_host`. Requests ([`http`], [`act`]) write down what is wanted before anything is done.

mod act;
mod cluster_settings;
mod coordinate;
mod director;
mod elsewhere;
pub(crate) mod fleet;
mod glimpse;
mod home;
mod http;
mod images;
mod keeper;
mod log;
mod members;
mod network_settings;
mod networks;
mod nodes;
mod peers;
mod report;
mod rollouts;
pub(crate) mod settings;
mod slot;
mod spread;
mod templates;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tunnel;
mod volumes;
mod watch;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify};
use tracing::{info, warn};
use wharfie_cluster::swim::Timing;
use wharfie_cluster::{Cluster, Config, NodeId, Options, Replica, Store};
use wharfie_host::Engine;

use crate::dockermod::templates::Templates;
use crate::dockermod::{Door, Service};
use crate::failure::Failure;
use fleet::{Fleet, Peers};
use keeper::Keeper;
use peers::{Joined, Streams};
use settings::{Given, Settings};

/// How long requests at work may take to end when the agent ends.
const DRAIN: Duration = Duration::from_secs(5);
/// How long is waited for an agent that is just ending.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// How an agent is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// What was given on the command line.
    pub(crate) flags: Given,
    /// The file of settings; the usual one if unset.
    pub(crate) file: Option<PathBuf>,
    /// The socket.
    pub(crate) socket: PathBuf,
    /// Whether a command starts it in the background.
    pub(crate) background: bool,
}

impl Start {
    /// The settings as flags and file say now.
    fn settings(&self) -> Result<Settings, Failure> {
        let file = Given::read(self.file.as_deref())?;
        self.flags.clone().over(file).meant(self.socket.clone())
    }
}

/// A running agent.
pub(crate) struct Agent {
    start: Start,
    keeper: Arc<Keeper>,
    images: Arc<images::Images>,
    volumes: Arc<volumes::Volumes>,
    log: log::Log,
    /// The cluster; none in tests that have another way to other nodes.
    cluster: Option<Arc<Cluster>>,
    /// Where DockerMod's protocol is spoken.
    door: Door,
    /// Requests at work.
    at_work: Arc<AtomicUsize>,
    /// The agent is to end.
    end: Notify,
    /// Held while the settings are read anew.
    reloading: Mutex<()>,
}

impl Agent {
    /// Begins to keep what is wanted, and to tell the other nodes what is seen. Must be called in the
    /// runtime.
    fn begin(
        start: Start,
        settings: Settings,
        replica: Arc<Replica>,
        (cluster, peers): (Option<Arc<Cluster>>, Arc<dyn Peers>),
        log: log::Log,
    ) -> Result<Arc<Self>, Failure> {
        let report = tokio::sync::watch::Sender::default();
        let fleet = Arc::new(Fleet::new(peers, report.subscribe()));
        let templates = Templates::new(Arc::clone(&replica), Arc::clone(&fleet));
        let door = Door::new(Service::new(Arc::clone(&fleet) as _, templates));
        let keeper = Keeper::begin(replica, settings, fleet)?;
        let agent = Arc::new(Self {
            start,
            images: Arc::new(images::Images::new(Arc::clone(&keeper))),
            volumes: volumes::Volumes::new(Arc::clone(&keeper)),
            keeper: Arc::clone(&keeper),
            log,
            cluster,
            door,
            at_work: Arc::default(),
            end: Notify::new(),
            reloading: Mutex::default(),
        });
        // It is set once.
        let _ = keeper.images.set(Arc::downgrade(&agent.images));
        let of = Arc::clone(&keeper);
        tunnel::offer_engine(&keeper.fleet, move || of.engine_address());
        images::offer(&keeper.fleet, Arc::clone(&agent.images));
        volumes::offer(&keeper.fleet, &agent.volumes);
        tunnel::offer_agent(&keeper.fleet, http::router(Arc::clone(&agent)));
        tokio::spawn(watch::engine(Arc::clone(&keeper)));
        tokio::spawn(report::publish(Arc::clone(&keeper)));
        tokio::spawn(networks::keep(Arc::clone(&keeper)));
        tokio::spawn(networks::keep_underlay(Arc::clone(&keeper)));
        tokio::spawn(director::keep_zone(Arc::clone(&keeper)));
        tokio::spawn(director::keep(Arc::clone(&keeper)));
        tokio::spawn(report::keep(keeper, report));
        Ok(agent)
    }

    /// The nodes.
    #[cfg(test)]
    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.keeper.fleet
    }

    fn engine_address(&self) -> String {
        self.keeper.engine_address()
    }

    /// Reads the settings anew and applies them; the names of those that changed.
    async fn reload(&self) -> Result<Vec<String>, Failure> {
        let _one = self.reloading.lock().await;
        let new = self.start.settings()?;
        let old = self.keeper.settings.borrow().clone();
        if new.state_dir != old.state_dir {
            return Err(Failure::usage(format!(
                "state-dir: an agent cannot change its state's place ({}) while it runs",
                old.state_dir.display()
            ))
            .help("stop the agent, move the directory, and start it again"));
        }
        let mut changed = Vec::new();
        let mut note = |name: &str, differs: bool| {
            if differs {
                changed.push(name.to_owned());
            }
        };
        note("engine", new.engine != old.engine);
        note("log-level", new.log_level != old.log_level);
        note("log-format", new.log_format != old.log_format);
        note("resync", new.resync != old.resync);
        note("backoff-first", new.backoff.first != old.backoff.first);
        note("backoff-most", new.backoff.most != old.backoff.most);
        note("stable-after", new.backoff.stable != old.backoff.stable);
        note("history", new.history != old.history);
        note("idle-exit", new.idle_exit != old.idle_exit);
        note("network-pool", new.network.pools != old.network.pools);
        note("network-prefix", new.network.prefix != old.network.prefix);
        note(
            "network-address",
            new.network.address != old.network.address,
        );
        note(
            "network-encrypt",
            new.network.encrypt != old.network.encrypt,
        );
        note(
            "network-private",
            new.network.private != old.network.private,
        );
        note(
            "network-key-lifetime",
            new.network.key_lifetime != old.network.key_lifetime,
        );
        note(
            "dockermod-listen",
            new.dockermod_listen != old.dockermod_listen,
        );
        note(
            "dockermod-token",
            new.dockermod_token != old.dockermod_token,
        );
        note(
            "node-name and cluster-… (when the agent is started anew)",
            new.cluster != old.cluster,
        );
        note("socket-group", new.socket_group != old.socket_group);
        if new.socket_group != old.socket_group {
            http::set_group(&new.socket, new.socket_group.as_deref())?;
        }
        self.open_door(&new).await?;
        self.log.apply(new.log_level, new.log_format);
        self.keeper.settings.send_replace(new);
        self.keeper.wake_all();
        // The others are told what this node demands.
        self.keeper.news.send_modify(|news| news.tell());
        self.keeper.wake_planes();
        info!(?changed, "settings read anew");
        Ok(changed)
    }
}

impl Agent {
    /// Speaks DockerMod's protocol where the settings say.
    async fn open_door(&self, settings: &Settings) -> Result<(), Failure> {
        let (listen, token) = (settings.dockermod_listen, settings.dockermod_token.clone());
        let engine = self.keeper.engine().ok();
        self.door.set(listen, token, engine.as_ref()).await
    }
}

/// Runs an agent until it is told to end.
pub(crate) async fn run(start: Start) -> Result<(), Failure> {
    let settings = start.settings()?;
    let log = log::begin(settings.log_level, settings.log_format);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    if !start.background {
        take_over(&settings.socket).await;
    }
    let store = open(&settings.state_dir).await?;
    let socket = settings.socket.clone();
    let listener = http::bind(&socket, settings.socket_group.as_deref()).await?;
    let time = u64::try_from(keeper::now()).unwrap_or(0);
    let replica = Arc::new(Replica::open(Arc::new(store), NodeId::NONE, time)?);
    replica.set_options(Options {
        history: settings.history,
    });
    for kind in world::DECIDED {
        // Only the newest matters.
        replica.set_history(kind, 1);
    }
    let streams = Arc::new(Streams::default());
    let config = cluster_config(&settings);
    let services = Arc::clone(&streams) as _;
    let cluster = Cluster::open(config, Arc::clone(&replica), services).await;
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(e) => return Err(members::failure(e).await),
    };
    // From before what is wanted is read: what others write meanwhile must not be missed.
    let events = cluster.events();
    let peers: Arc<dyn Peers> = Arc::new(Joined::new(Arc::clone(&cluster)));
    let ways = (Some(Arc::clone(&cluster)), peers);
    let agent = Agent::begin(start, settings.clone(), replica, ways, log)?;
    let keeper = Arc::clone(&agent.keeper);
    open_first(&agent.door, &settings).await?;
    tokio::spawn(peers::follow(
        Arc::clone(&cluster),
        events,
        Arc::clone(&keeper),
    ));
    streams.attach(&keeper.fleet);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        stacks = keeper.slots().len(),
        socket = %socket.display(),
        "agent started"
    );
    let over = Arc::new(Notify::new());
    let served = {
        let over = Arc::clone(&over);
        let router = http::router(Arc::clone(&agent));
        tokio::spawn(async move {
            let serve = axum::serve(listener, router);
            serve
                .with_graceful_shutdown(async move { over.notified().await })
                .await
        })
    };
    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            () = agent.end.notified() => break "asked to",
            () = agent.idle() => break "nothing is wanted",
            _ = hangup.recv() => {
                if let Err(failure) = agent.reload().await {
                    warn!("the settings stay as they were: {}", failure.text());
                }
            }
        }
    };
    info!(reason, "agent ends; containers go on");
    // First: whoever comes now must start another agent.
    let _ = std::fs::remove_file(&socket);
    over.notify_one();
    let drained = async {
        agent.keeper.close();
        director::leave(&agent.keeper).await;
        report::leave(&agent.keeper).await;
        tokio::join!(served, agent.door.close(), cluster.stop())
    };
    let _ = tokio::time::timeout(DRAIN, drained).await;
    Ok(())
}

impl Agent {
    /// Returns when nothing has been wanted for as long as the settings allow.
    async fn idle(&self) {
        let tick = Duration::from_millis(500);
        let mut idle = Duration::ZERO;
        loop {
            let Some(limit) = self.keeper.settings.borrow().idle_exit else {
                // The settings may change.
                tokio::time::sleep(Duration::from_secs(5)).await;
                continue;
            };
            tokio::time::sleep(tick).await;
            // Others may come, or be waiting for an answer.
            let others = self.cluster.as_ref().is_some_and(|c| c.mesh().is_some());
            if others
                || self.at_work.load(Ordering::SeqCst) > 0
                || !self.keeper.is_idle()
                || self.door.is_open()
            {
                idle = Duration::ZERO;
                continue;
            }
            idle += tick;
            if idle >= Duration::from_millis(limit) {
                return;
            }
        }
    }
}

/// Lets an agent end that a command started in the background: this one is there to stay.
async fn take_over(socket: &std::path::Path) {
    let other = crate::control::Client::new(socket.to_owned());
    if let Ok(Some(info)) = other.info().await
        && info.background
    {
        info!(
            pid = info.pid,
            "taking over from the agent in the background"
        );
        // It answers nothing; whether it has ended is seen by its store.
        let _ = other.post::<()>("/v1/stop").await;
    }
}

/// How the node takes part in a cluster.
fn cluster_config(settings: &Settings) -> Config {
    let cluster = &settings.cluster;
    Config {
        dir: settings.state_dir.clone(),
        name: cluster.name.clone(),
        listen: cluster.listen,
        advertise: cluster.advertise.clone(),
        discover: cluster.discover,
        timing: Timing {
            failure_timeout: cluster.failure_timeout,
        },
        software: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Speaks DockerMod's protocol where the settings say, or does not start at all. The Engine, which
/// knows whose a port is that is taken, was not asked for anything yet.
async fn open_first(door: &Door, settings: &Settings) -> Result<(), Failure> {
    let (listen, token) = (settings.dockermod_listen, settings.dockermod_token.clone());
    if door.set(listen, token.clone(), None).await.is_ok() {
        return Ok(());
    }
    let engine = Engine::connect(settings.engine.as_deref()).await.ok();
    door.set(listen, token, engine.as_ref()).await
}

/// Opens the store; an agent that is just ending is waited for.
async fn open(dir: &std::path::Path) -> Result<Store, Failure> {
    let deadline = tokio::time::Instant::now() + TAKE_OVER;
    loop {
        match Store::open(dir) {
            Err(wharfie_cluster::Error::InUse { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return Ok(other?),
        }
    }
}
