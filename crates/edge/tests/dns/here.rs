//! A small cluster on loopback addresses, a server for it, and somebody who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;
use wharfie_compose::model::{Deploy, Network as Wanted, Port, Project, Service};
use wharfie_core::network::{
    Attachment, Catalog, Network, Networks, Node, Outside, Pool, Running, Vip, VipKey, Vips, World,
};
use wharfie_core::{Stack, State};
use wharfie_edge::dns::{Limits, Server, Settings, Upstreams};

/// Far longer than anything takes, far shorter than a hang.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Where the web container asks from.
pub(crate) const WEB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 77, 0, 2));
/// Where the database asks from, on another network.
pub(crate) const DB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 78, 0, 3));
/// A program of the host.
pub(crate) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

pub(crate) fn service(networks: &[&str], dnsrr: bool) -> Service {
    Service {
        networks: networks.iter().map(|n| ((*n).to_owned(), None)).collect(),
        deploy: dnsrr.then(|| Deploy {
            endpoint_mode: "dnsrr".to_owned(),
            ..Deploy::default()
        }),
        ports: vec![Port {
            name: "http".to_owned(),
            target: 80,
            protocol: "tcp".to_owned(),
            ..Port::default()
        }],
        ..Service::default()
    }
}

fn running(service: &str, number: u32, at: &[(&str, [u8; 4])]) -> Running {
    let attachment = |address: [u8; 4]| Attachment {
        v4: Some(address.into()),
        ..Attachment::default()
    };
    let networks = at.iter().map(|(n, a)| ((*n).to_owned(), attachment(*a)));
    Running {
        id: format!("{service}{number}"),
        name: format!("shop-{service}-{number}"),
        stack: "shop".to_owned(),
        service: service.to_owned(),
        number,
        state: State::Running,
        networks: networks.collect(),
        ..Running::default()
    }
}

/// `web` (with an address of its own) and `many` (with so many tasks, without) on `front`, `db` on
/// `back`, which is internal.
pub(crate) fn catalog(many: u8) -> Arc<Catalog> {
    let mut project = Project {
        name: "shop".to_owned(),
        ..Project::default()
    };
    for (name, definition) in [
        ("web", service(&["front"], false)),
        ("many", service(&["front"], true)),
        ("db", service(&["back"], true)),
    ] {
        project.services.insert(name.to_owned(), definition);
    }
    let mut networks = Networks::new();
    for (key, subnet, internal) in [
        ("front", "127.77.0.0/16", false),
        ("back", "127.78.0.0/16", true),
    ] {
        let name = format!("shop_{key}");
        let wanted = Wanted {
            name: name.clone(),
            ..Wanted::default()
        };
        project.networks.insert(key.to_owned(), wanted);
        let network = Network {
            v4: Some(Pool::chosen(subnet.parse().unwrap())),
            internal,
            ..Network::default()
        };
        networks.insert(name, network);
    }
    let stack = Stack {
        active: project.services.keys().cloned().collect(),
        project,
        ..Stack::default()
    };
    let key = VipKey {
        network: "shop_front".to_owned(),
        stack: "shop".to_owned(),
        service: "web".to_owned(),
    };
    let vip = Vip {
        v4: Some(Ipv4Addr::new(127, 77, 255, 1)),
        ..Vip::default()
    };
    let mut containers = vec![
        running("web", 1, &[("shop_front", [127, 77, 0, 2])]),
        running("db", 1, &[("shop_back", [127, 78, 0, 3])]),
    ];
    for number in 1..=many {
        containers.push(running(
            "many",
            number.into(),
            &[("shop_front", [127, 77, 1, number])],
        ));
    }
    let node = Node {
        id: "h1".to_owned(),
        live: true,
        containers,
        ..Node::default()
    };
    let world = World {
        me: "h1",
        nodes: &[node],
        stacks: &[&stack],
        local: &BTreeMap::new(),
        networks: &networks,
        vips: &Vips::from([(key, vip)]),
    };
    Arc::new(Catalog::of(&world, Outside::default()))
}

/// A server that is listening.
pub(crate) struct Here {
    pub(crate) server: Server,
    pub(crate) names: watch::Sender<Arc<Catalog>>,
    pub(crate) at: SocketAddr,
}

pub(crate) async fn serve(upstreams: &[SocketAddr]) -> Here {
    // Tests wait for what is to come, but not for attempts that are meant to fail.
    let limits = Limits {
        attempt: Duration::from_millis(300),
        ..Limits::default()
    };
    serve_with(upstreams, limits, catalog(3)).await
}

pub(crate) async fn serve_with(
    upstreams: &[SocketAddr],
    limits: Limits,
    catalog: Arc<Catalog>,
) -> Here {
    let settings = Settings {
        upstreams: Upstreams::Fixed(upstreams.to_vec()),
        limits,
        sockets: 2,
    };
    let (names, receiver) = watch::channel(catalog);
    let server = Server::new(settings, receiver);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let failed = server.listen(&BTreeSet::from([any])).await;
    assert!(failed.is_empty(), "{failed:?}");
    let at = server.addresses().await[0];
    Here { server, names, at }
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let name = Name::from_str(&format!("{name}.")).unwrap();
    message.add_query(Query::query(name, kind));
    message
}

pub(crate) fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

/// Sends bytes and takes what comes back.
pub(crate) async fn send_udp(from: IpAddr, to: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let length = timeout(SOON, socket.recv(&mut buffer))
        .await
        .expect("an answer")
        .unwrap();
    buffer.truncate(length);
    buffer
}

pub(crate) async fn ask_udp(from: IpAddr, to: SocketAddr, message: &Message) -> Message {
    let answer = send_udp(from, to, &message.to_vec().unwrap()).await;
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.queries, message.queries);
    answer
}

pub(crate) async fn ask(from: IpAddr, to: SocketAddr, name: &str, kind: RecordType) -> Message {
    ask_udp(from, to, &question(name, kind)).await
}

pub(crate) async fn ask_tcp(from: IpAddr, to: SocketAddr, messages: &[Message]) -> Vec<Message> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream: TcpStream = socket.connect(to).await.unwrap();
    let mut answers = Vec::new();
    for message in messages {
        let packet = message.to_vec().unwrap();
        stream.write_u16(packet.len() as u16).await.unwrap();
        stream.write_all(&packet).await.unwrap();
        let read = async {
            let length = stream.read_u16().await.unwrap();
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await.unwrap();
            answer
        };
        let answer = timeout(SOON, read).await.expect("an answer");
        answers.push(Message::from_vec(&answer).unwrap());
    }
    answers
}

pub(crate) fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let address = |data: &RData| match data {
        RData::A(a) => Some(a.0),
        _ => None,
    };
    let mut found: Vec<_> = message
        .answers
        .iter()
        .filter_map(|r| address(&r.data))
        .collect();
    found.sort();
    found
}
