//! A zone, a server for it, and somebody who asks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;
use wharfie_edge::dns::Upstreams;
use wharfie_edge::zone::{
    Content, Data, Name, RateLimit, Record, Server, Settings, Start, Version, Zone, Zones, import,
};

/// Far longer than anything takes, far shorter than a hang.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const ORIGIN: &str = "apps.example.org.";
const FILE: &str = include_str!("conformance.zone");

pub(crate) fn name(text: &str) -> Name {
    let origin = ORIGIN.parse().unwrap();
    Name::read(text, &origin).unwrap()
}

pub(crate) fn records() -> Vec<Record> {
    import(FILE, "conformance.zone", &name("@"), 300)
        .unwrap()
        .records
}

pub(crate) fn content(records: Vec<Record>) -> Content {
    let (content, words) = Content::new(Start::new(name("@")), &[name("ns")], records);
    assert!(words.is_empty(), "{words:?}");
    content
}

/// The zone of the file, with this serial.
pub(crate) fn zone(serial: u32) -> Arc<Zone> {
    let content = content(records());
    let digest = content.digest();
    Zone::new(content, Version { serial, digest })
}

/// The zone with one address more.
pub(crate) fn with(zone: &Arc<Zone>, label: &str, address: &str, changed: u64) -> Arc<Zone> {
    let mut records = zone.content().records().to_vec();
    // The servers of the zone are made again.
    records.retain(|r| !(r.name == name("@") && r.kind == 2));
    let data = Data::Address(address.parse().unwrap());
    records.push(Record::new(name(label), 5, &data));
    zone.then(content(records), changed, &[])
}

/// A server that is listening.
pub(crate) struct Here {
    pub(crate) server: Server,
    pub(crate) zones: watch::Sender<Arc<Zones>>,
    pub(crate) at: SocketAddr,
}

impl Here {
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let all = self.server.metrics().all();
        all.into_iter().find(|(n, _)| *n == name).unwrap().1
    }
}

pub(crate) async fn serve(zones: Zones) -> Here {
    let unlimited = RateLimit {
        per_second: 0,
        ..RateLimit::default()
    };
    serve_with(zones, unlimited, Vec::new()).await
}

pub(crate) async fn serve_with(zones: Zones, rate: RateLimit, upstreams: Vec<SocketAddr>) -> Here {
    let settings = Settings {
        sockets: 2,
        rate,
        upstreams: Upstreams::Fixed(upstreams),
        ..Settings::default()
    };
    let (zones, receiver) = watch::channel(Arc::new(zones));
    let server = Server::new(settings, receiver);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let failed = server.listen(&BTreeSet::from([any])).await;
    assert!(failed.is_empty(), "{failed:?}");
    let at = server.addresses().await[0];
    Here { server, zones, at }
}

pub(crate) fn question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    let name = hickory_proto::rr::Name::from_ascii(name(text).to_string()).unwrap();
    message.add_query(Query::query(name, kind));
    message
}

/// Sends bytes and takes what comes back, if anything does before the time is over.
pub(crate) async fn send_udp(to: SocketAddr, packet: &[u8], wait: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let length = timeout(wait, socket.recv(&mut buffer)).await.ok()?.unwrap();
    buffer.truncate(length);
    Some(buffer)
}

pub(crate) async fn ask(to: SocketAddr, text: &str, kind: RecordType) -> Message {
    let packet = question(text, kind).to_vec().unwrap();
    let answer = send_udp(to, &packet, SOON).await.expect("an answer");
    Message::from_vec(&answer).unwrap()
}

/// Sends messages on one connection, all at once, and reads so many.
pub(crate) async fn send_tcp(to: SocketAddr, packets: &[Vec<u8>], answers: usize) -> Vec<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut bytes = Vec::new();
    for packet in packets {
        bytes.extend((packet.len() as u16).to_be_bytes());
        bytes.extend(packet);
    }
    stream.write_all(&bytes).await.unwrap();
    let mut out = Vec::new();
    for _ in 0..answers {
        let read = async {
            let length = stream.read_u16().await.unwrap();
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await.unwrap();
            answer
        };
        out.push(timeout(SOON, read).await.expect("an answer"));
    }
    out
}
