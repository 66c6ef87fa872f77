//! Names of the cluster.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use proptest::prelude::*;
use tokio::net::UdpSocket;
use wharfie_edge::dns::Limits;

use super::here::{
    DB, HOST, SOON, WEB, addresses, ask, ask_tcp, ask_udp, catalog, question, send_udp, serve,
    serve_with, with_edns,
};

#[tokio::test]
async fn everybody_sees_their_own_network() {
    let here = serve(&[]).await;
    let answer = ask(WEB, here.at, "web", RecordType::A).await;
    assert_eq!(addresses(&answer), [Ipv4Addr::new(127, 77, 255, 1)]);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(answer.answers[0].ttl, 5);
    let answer = ask(WEB, here.at, "Many.SHOP.Internal", RecordType::A).await;
    assert_eq!(addresses(&answer).len(), 3);
    assert_eq!(answer.answers[0].ttl, 0);
    let answer = ask(DB, here.at, "db", RecordType::A).await;
    assert_eq!(addresses(&answer), [Ipv4Addr::new(127, 78, 0, 3)]);
    for name in ["db", "db.shop.internal", "1.db.shop"] {
        let answer = ask(WEB, here.at, name, RecordType::A).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
        assert!(answer.answers.is_empty());
    }
}

#[tokio::test]
async fn there_is_nothing_of_that_kind_or_no_such_name() {
    let here = serve(&[]).await;
    let answer = ask(WEB, here.at, "web", RecordType::AAAA).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
    let answer = ask(WEB, here.at, "web.shop.internal", RecordType::MX).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let soa = |a: &hickory_proto::op::Message| a.authorities.first().map(|r| r.data.clone());
    assert!(matches!(soa(&answer), Some(RData::SOA(_))));
    let answer = ask(WEB, here.at, "nobody.shop.internal", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert!(matches!(soa(&answer), Some(RData::SOA(soa)) if soa.minimum == 0));
}

#[tokio::test]
async fn ports_and_addresses_have_names() {
    let here = serve(&[]).await;
    let answer = ask(
        WEB,
        here.at,
        "_http._tcp.many.shop.internal",
        RecordType::SRV,
    )
    .await;
    let mut targets: Vec<String> = answer
        .answers
        .iter()
        .map(|r| match &r.data {
            RData::SRV(srv) => format!("{}:{}", srv.target, srv.port),
            other => panic!("{other:?}"),
        })
        .collect();
    targets.sort();
    let expected = ["1", "2", "3"].map(|n| format!("{n}.many.shop.internal.:80"));
    assert_eq!(targets, expected);
    assert_eq!(answer.additionals.len(), 3);
    let answer = ask(WEB, here.at, "2.1.77.127.in-addr.arpa", RecordType::PTR).await;
    assert!(
        matches!(&answer.answers[0].data, RData::PTR(p) if p.0.to_utf8() == "2.many.shop.internal.")
    );
}

#[tokio::test]
async fn what_does_not_fit_is_asked_for_by_tcp() {
    let here = serve_with(&[], Limits::default(), catalog(200)).await;
    let asked = question("many", RecordType::A);
    let answer = ask_udp(WEB, here.at, &asked).await;
    assert!(answer.metadata.truncation);
    let part = addresses(&answer).len();
    assert!((1..200).contains(&part), "{part}");
    assert!(answer.to_vec().unwrap().len() <= 512);
    let larger = ask_udp(WEB, here.at, &with_edns(asked.clone(), 1232)).await;
    assert!(larger.metadata.truncation && addresses(&larger).len() > part);
    assert!(larger.edns.is_some());
    // An asker that takes more than fits into a packet does not get more.
    let most = send_udp(
        WEB,
        here.at,
        &with_edns(asked.clone(), 65_000).to_vec().unwrap(),
    )
    .await;
    assert!(most.len() <= 1232);
    // Several questions on one connection.
    let again = question("web", RecordType::A);
    let answers = ask_tcp(WEB, here.at, &[asked, again]).await;
    assert!(!answers[0].metadata.truncation);
    assert_eq!(addresses(&answers[0]).len(), 200);
    assert_eq!(addresses(&answers[1]).len(), 1);
}

#[tokio::test]
async fn the_next_question_sees_what_changed() {
    let here = serve(&[]).await;
    for many in [1, 5, 0, 2] {
        here.names.send_replace(catalog(many));
        let answer = ask(WEB, here.at, "many", RecordType::A).await;
        assert_eq!(addresses(&answer).len(), usize::from(many));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        let asked = here.server.query(WEB, "many.shop", 1).await.unwrap();
        assert_eq!(asked.addresses().len(), usize::from(many));
    }
    // The last names hold when there will be no others.
    drop(here.names);
    let answer = ask(WEB, here.at, "many", RecordType::A).await;
    assert_eq!(addresses(&answer).len(), 2);
}

#[tokio::test]
async fn addresses_come_and_go() {
    let here = serve(&[]).await;
    let other = SocketAddr::from(([127, 0, 0, 9], here.at.port()));
    let both = BTreeSet::from([SocketAddr::from(([127, 0, 0, 1], 0)), other]);
    for _ in 0..3 {
        assert!(here.server.listen(&both).await.is_empty());
        // The first one was left alone.
        assert_eq!(
            ask(WEB, here.at, "web", RecordType::A).await.answers.len(),
            1
        );
        assert_eq!(ask(WEB, other, "web", RecordType::A).await.answers.len(), 1);
        assert_eq!(
            ask_tcp(WEB, other, &[question("web", RecordType::A)])
                .await
                .len(),
            1
        );
        let one = BTreeSet::from([SocketAddr::from(([127, 0, 0, 1], 0))]);
        assert!(here.server.listen(&one).await.is_empty());
        // It is free again.
        drop(UdpSocket::bind(other).await.unwrap());
        drop(tokio::net::TcpListener::bind(other).await.unwrap());
    }
    // Somebody else's is refused, and does no harm.
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap();
    let _listening = tokio::net::TcpListener::bind(taken).await;
    let busy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let both = BTreeSet::from([
        SocketAddr::from(([127, 0, 0, 1], 0)),
        busy.local_addr().unwrap(),
    ]);
    let failed = here.server.listen(&both).await;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].1.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(
        ask(WEB, here.at, "web", RecordType::A).await.answers.len(),
        1
    );
    // An address that is nowhere yet is no reason to fail.
    let nowhere = BTreeSet::from([SocketAddr::from(([198, 51, 100, 7], 0))]);
    assert!(here.server.listen(&nowhere).await.is_empty());
}

#[tokio::test]
async fn odd_questions_get_odd_answers() {
    let here = serve(&[]).await;
    let code = async |from, packet: &[u8]| send_udp(from, here.at, packet).await[3] & 0xf;
    let good = question("web", RecordType::A).to_vec().unwrap();
    let changed = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    // Another opcode, two questions, a broken name, another class, a transfer.
    assert_eq!(code(WEB, &changed(2, 0x28)).await, 4);
    assert_eq!(code(WEB, &changed(5, 2)).await, 1);
    assert_eq!(code(WEB, &changed(12, 0x7f)).await, 1);
    let class = good.len() - 1;
    assert_eq!(code(WEB, &changed(class, 3)).await, 5);
    let transfer = question("shop.internal", RecordType::AXFR)
        .to_vec()
        .unwrap();
    assert_eq!(code(WEB, &transfer).await, 5);
    let mut version = with_edns(question("web", RecordType::A), 1232);
    version.edns.as_mut().unwrap().set_version(1);
    let answer = ask_udp(WEB, here.at, &version).await;
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    // Who is on no network sees nothing of it.
    let names = question("web.shop.internal", RecordType::A)
        .to_vec()
        .unwrap();
    assert_eq!(code(HOST, &names).await, 5);
    let all = here.server.metrics().all();
    let count = |name: &str| all.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!((count("malformed"), count("refused")), (3, 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is thrown at it, the next question is answered.
    #[test]
    fn no_bytes_harm_it(packets in proptest::collection::vec(
        (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..100)), 1..60,
    )) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let here = serve(&[]).await;
            let socket = UdpSocket::bind((WEB, 0)).await.unwrap();
            let good = question("many.shop", RecordType::SRV).to_vec().unwrap();
            for (place, bytes) in &packets {
                socket.send_to(bytes, here.at).await.unwrap();
                let mut spoilt = good.clone();
                for byte in bytes.iter().take(3) {
                    let at = usize::from(*place) % spoilt.len();
                    spoilt[at] = *byte;
                }
                socket.send_to(&spoilt, here.at).await.unwrap();
            }
            let asked = tokio::time::timeout(SOON, ask(WEB, here.at, "web", RecordType::A)).await;
            assert_eq!(asked.unwrap().answers.len(), 1);
        });
    }
}
