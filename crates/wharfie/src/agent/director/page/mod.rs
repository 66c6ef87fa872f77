//! The index page: what runs here, for a browser. Every node has it.

mod html;
mod look;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wharfie_core::heal::Millis;
use wharfie_core::report::ReportedContainer;

use self::html::{Port, Row, page};
use self::look::Known;
use self::users::Users;
use crate::accept::{Limits, Room};
use crate::agent::keeper::Keeper;
use crate::api_director::DirectorLine;

/// What to do about a port that somebody else has.
const OTHER: &str = "`wharfie director init --page PORT` takes another port, 0 for none";
/// So many ports of a service are shown: an image may expose thousands.
const PORTS: usize = 32;
/// So many pages are made at a time.
const PAGES: usize = 8;
/// It is open to everybody: nobody has many connections, or one for long.
const LIMITS: Limits = Limits {
    all: 256,
    each: 16,
    silent: Duration::from_secs(5),
    life: Some(Duration::from_secs(30)),
};

/// What answers browsers on this node.
pub(super) struct Page {
    known: Arc<Known>,
    making: Arc<Semaphore>,
    room: Arc<Room>,
    listening: BTreeMap<SocketAddr, Listening>,
    began: Instant,
    users: Users,
    /// Who else is to have the port.
    owner: Option<String>,
}

/// What answers at one address.
struct Listening {
    end: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Answers that are under way come to their end.
        self.end.notify_one();
    }
}

impl Default for Page {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            making: Arc::new(Semaphore::new(PAGES)),
            room: Arc::new(Room::new("the index page", LIMITS)),
            listening: BTreeMap::new(),
            began: Instant::now(),
            users: Users::default(),
            owner: None,
        }
    }
}

#[derive(Clone)]
struct Shown {
    keeper: Arc<Keeper>,
    known: Arc<Known>,
    making: Arc<Semaphore>,
}

impl Page {
    /// Lets go of the port at once if a service or a container is to have it.
    pub(super) fn make_way(&mut self, keeper: &Keeper, port: u16) {
        let stacks = keeper.book.stacks();
        let stacks = stacks.values().map(|entry| &*entry.stack);
        let report = keeper.fleet.report().borrow().clone();
        let now = Millis::try_from(self.began.elapsed().as_millis()).unwrap_or(Millis::MAX);
        let owner = self.users.of(port, stacks, &report.containers, now);
        self.owner = owner.filter(|_| port != 0);
        if self.owner.is_some() {
            self.listening.clear();
        }
    }

    /// Answers at these addresses and no others; what could not be, in words.
    pub(super) async fn listen(
        &mut self,
        keeper: &Arc<Keeper>,
        addresses: &[IpAddr],
        port: u16,
    ) -> Vec<String> {
        self.make_way(keeper, port);
        if let Some(owner) = &self.owner {
            return vec![format!(
                "the index page is not at port {port}, which {owner} publishes: {OTHER}"
            )];
        }
        let of = addresses.iter().filter(|_| port != 0);
        let wanted: BTreeSet<SocketAddr> = of.map(|ip| SocketAddr::new(*ip, port)).collect();
        self.listening
            .retain(|at, listening| wanted.contains(at) && !listening.task.is_finished());
        let mut failed = Vec::new();
        let mut owner = None;
        for at in wanted {
            if self.listening.contains_key(&at) {
                continue;
            }
            match TcpListener::bind(at).await {
                Ok(listener) => {
                    let shown = Shown {
                        keeper: Arc::clone(keeper),
                        known: Arc::clone(&self.known),
                        making: Arc::clone(&self.making),
                    };
                    let router = Router::new().route("/", get(show)).with_state(shown);
                    let (room, end) = (Arc::clone(&self.room), Arc::new(Notify::new()));
                    let until = Arc::clone(&end);
                    let task =
                        tokio::spawn(async move { room.serve(listener, router, until).await });
                    self.listening.insert(at, Listening { end, task });
                }
                Err(e) => {
                    if owner.is_none() && e.kind() == ErrorKind::AddrInUse {
                        let engine = keeper.engine().ok();
                        owner = Some(wharfie_host::port_owner(port, engine.as_ref()).await);
                    }
                    let why = match &owner {
                        Some(owner) => format!("{owner} has the port"),
                        None => e.to_string(),
                    };
                    failed.push(format!("the index page is not at {at}: {why}; {OTHER}"));
                }
            }
        }
        failed
    }
}

async fn show(State(shown): State<Shown>) -> Response {
    let Shown {
        keeper,
        known,
        making,
    } = shown;
    let Ok(_one) = making.try_acquire() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let table = keeper.director_table();
    let title = table.settings.map(|s| s.title).unwrap_or_default();
    let lines: Vec<DirectorLine> = table.lines.into_iter().filter(|l| !l.reserved).collect();
    let exposed = keeper.exposed();
    let ports = |line: &DirectorLine| -> BTreeSet<(u16, String)> {
        // Of what the nodes publish only that can be reached.
        let of = line.containers.iter().filter(|_| !line.published);
        let of = of.filter_map(|c| exposed.get(&(c.node.clone(), c.name.clone())));
        let own = line.ports.iter().cloned();
        own.chain(of.flatten().cloned()).take(PORTS).collect()
    };
    let asked = lines.iter().flat_map(|line| {
        let at = line.addresses.first().copied();
        let life: Vec<String> = line.containers.iter().map(|c| c.id.clone()).collect();
        let tcp = ports(line)
            .into_iter()
            .filter(|(_, protocol)| protocol == "tcp");
        tcp.filter_map(move |(port, _)| Some((SocketAddr::new(at?, port), life.clone())))
    });
    let schemes = known.schemes(asked.collect()).await;
    let rows: Vec<Row> = lines
        .iter()
        .map(|line| {
            let at = line.addresses.first().copied();
            let scheme = |port: u16, protocol: &str| {
                let said = at.and_then(|at| schemes.get(&SocketAddr::new(at, port)));
                said.filter(|_| protocol == "tcp")
                    .copied()
                    .unwrap_or(protocol)
                    .to_owned()
            };
            let host = match line.dns_name.as_str() {
                "" => at.map(|a| a.to_string()).unwrap_or_default(),
                name => name.to_owned(),
            };
            let ready = line.containers.iter().filter(|c| c.ready).count();
            let nodes: BTreeSet<String> = line.containers.iter().map(|c| c.node.clone()).collect();
            Row {
                name: line.name.clone(),
                host,
                addresses: line.addresses.iter().map(ToString::to_string).collect(),
                ports: ports(line)
                    .iter()
                    .map(|(number, protocol)| Port {
                        number: *number,
                        scheme: scheme(*number, protocol),
                    })
                    .collect(),
                stack: line.stack.clone(),
                nodes: nodes.into_iter().collect(),
                state: line.state(),
                well: ready > 0 && ready == line.containers.len(),
            }
        })
        .collect();
    let mut answer = Html(page(&title, &rows)).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(policy),
    );
    answer
}

impl Keeper {
    /// Ports that containers expose, by node and name.
    fn exposed(&self) -> BTreeMap<(String, String), BTreeSet<(u16, String)>> {
        let ports = |c: &ReportedContainer| {
            c.ports
                .iter()
                .map(|p| (p.private, p.protocol.clone()))
                .collect()
        };
        let mut all = BTreeMap::new();
        for node in self.fleet.members() {
            let Some(report) = self.fleet.report_of(&node) else {
                continue;
            };
            for container in &report.containers {
                all.insert(
                    (node.name.clone(), container.name.clone()),
                    ports(container),
                );
            }
        }
        all
    }
}
