//! What others are asked for.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use wharfie_edge::dns::Limits;

use super::here::{
    DB, HOST, WEB, addresses, ask, ask_tcp, ask_udp, catalog, question, serve, serve_with,
    with_edns,
};
use super::outside::{FOUND, Manner, resolver};

const A: RecordType = RecordType::A;

#[tokio::test]
async fn names_of_the_outside_are_asked_for_once() {
    let outside = resolver(Manner::Answers(60)).await;
    let here = serve(&[outside.at]).await;
    for name in ["www.example.org", "WWW.Example.org", "www.example.org"] {
        let answer = ask(WEB, here.at, name, A).await;
        assert_eq!(addresses(&answer), [FOUND]);
        assert!(answer.answers[0].ttl <= 60 && !answer.metadata.authoritative);
        assert!(answer.edns.is_none());
    }
    assert_eq!(outside.asked(), 1);
    // The host's own programs may ask as well, by TCP too.
    let answers = ask_tcp(HOST, here.at, &[question("www.example.org", A)]).await;
    assert_eq!(addresses(&answers[0]), [FOUND]);
    let answer = ask_udp(
        WEB,
        here.at,
        &with_edns(question("www.example.org", A), 1232),
    )
    .await;
    assert!(answer.edns.is_some());
    assert_eq!(outside.asked(), 1);
    ask(WEB, here.at, "www.example.org", RecordType::AAAA).await;
    assert_eq!(outside.asked(), 2);
}

#[tokio::test]
async fn what_may_not_be_kept_is_not() {
    let outside = resolver(Manner::Answers(0)).await;
    let here = serve(&[outside.at]).await;
    for _ in 0..2 {
        assert_eq!(addresses(&ask(WEB, here.at, "a.example", A).await), [FOUND]);
    }
    assert_eq!(outside.asked(), 2);
}

#[tokio::test]
async fn that_there_is_no_name_is_kept_too() {
    let outside = resolver(Manner::NoName(60)).await;
    let here = serve(&[outside.at]).await;
    for _ in 0..2 {
        let answer = ask(WEB, here.at, "no.example", A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.authorities.len(), 1);
    }
    assert_eq!(outside.asked(), 1);
}

#[tokio::test]
async fn names_of_the_cluster_never_leave_it() {
    let outside = resolver(Manner::Answers(60)).await;
    let here = serve(&[outside.at]).await;
    for name in [
        "db",
        "db.shop",
        "db.shop.internal",
        "x.y.internal",
        "1.db.shop.internal",
        "web",
    ] {
        ask(WEB, here.at, name, A).await;
    }
    // Nor does anything from an internal network, or from strangers.
    let answer = ask(DB, here.at, "www.example.org", A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(outside.asked(), 0);
    // Clouds have names there.
    assert_eq!(
        addresses(&ask(WEB, here.at, "metadata.google.internal", A).await),
        [FOUND]
    );
}

#[tokio::test]
async fn large_answers_come_by_tcp() {
    let outside = resolver(Manner::ByTcp).await;
    let here = serve(&[outside.at]).await;
    let asked = question("large.example", A);
    let answer = ask_udp(WEB, here.at, &asked).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    let answers = ask_tcp(WEB, here.at, &[asked]).await;
    assert_eq!(addresses(&answers[0]).len(), 100);
    assert_eq!((outside.asked(), outside.asked_by_tcp()), (1, 1));
}

#[tokio::test]
async fn the_next_resolver_is_asked_if_one_fails() {
    let good = resolver(Manner::Answers(0)).await;
    for manner in [Manner::Fails, Manner::Silent] {
        let bad = resolver(manner).await;
        let before = good.asked();
        let here = serve(&[bad.at, good.at]).await;
        assert_eq!(addresses(&ask(WEB, here.at, "a.example", A).await), [FOUND]);
        assert_eq!((bad.asked(), good.asked()), (1, before + 1));
        if manner == Manner::Silent {
            // It rests: the good one is asked at once.
            assert_eq!(addresses(&ask(WEB, here.at, "b.example", A).await), [FOUND]);
            assert_eq!(bad.asked(), 1);
        }
    }
    // Nobody listens there.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = port.local_addr().unwrap();
    drop(port);
    let here = serve(&[nobody, good.at]).await;
    assert_eq!(addresses(&ask(WEB, here.at, "a.example", A).await), [FOUND]);
}

#[tokio::test]
async fn without_a_resolver_it_says_that_it_failed() {
    let silent = resolver(Manner::Silent).await;
    for upstreams in [vec![], vec![silent.at]] {
        let here = serve(&upstreams).await;
        let answer = ask(WEB, here.at, "a.example", A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        // Names of the cluster do not need one.
        assert_eq!(ask(WEB, here.at, "web", A).await.answers.len(), 1);
    }
}

#[tokio::test]
async fn a_resolver_that_is_this_server_is_not_asked() {
    let here = serve(&[]).await;
    let at = here.at;
    drop(here);
    let settings = wharfie_edge::dns::Settings {
        upstreams: wharfie_edge::dns::Upstreams::Fixed(vec![at]),
        ..Default::default()
    };
    let (_names, receiver) = tokio::sync::watch::channel(catalog(1));
    let server = wharfie_edge::dns::Server::new(settings, receiver);
    // Its tasks end soon after it is dropped.
    while let Some((_, error)) = server.listen(&[at].into()).await.pop() {
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = ask(WEB, at, "a.example", A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let all = server.metrics().all();
    assert!(all.contains(&("received", 1)), "{all:?}");
}

#[tokio::test]
async fn old_resolvers_and_forged_answers() {
    let old = resolver(Manner::Old).await;
    let here = serve(&[old.at]).await;
    let asked = with_edns(question("a.example", A), 1232);
    assert_eq!(addresses(&ask_udp(WEB, here.at, &asked).await), [FOUND]);
    assert_eq!(old.asked(), 2);
    let forged = resolver(Manner::Forged).await;
    let here = serve(&[forged.at]).await;
    assert_eq!(addresses(&ask(WEB, here.at, "a.example", A).await), [FOUND]);
}

#[tokio::test]
async fn one_asker_cannot_take_all_places() {
    let silent = resolver(Manner::Silent).await;
    let limits = Limits {
        waiting: 8,
        waiting_of_one: 4,
        attempt: Duration::from_secs(60),
        whole: Duration::from_secs(60),
        ..Limits::default()
    };
    let here = serve_with(&[silent.at], limits, catalog(1)).await;
    let socket = tokio::net::UdpSocket::bind((WEB, 0)).await.unwrap();
    let send = async |i: u8| {
        let message = question(&format!("n{i}.example"), A);
        socket
            .send_to(&message.to_vec().unwrap(), here.at)
            .await
            .unwrap();
    };
    for i in 0..10 {
        send(i).await;
    }
    // The first four wait; the others are told at once.
    let mut buffer = [0; 512];
    for _ in 0..6 {
        let received = tokio::time::timeout(super::here::SOON, socket.recv(&mut buffer)).await;
        received.expect("an answer").unwrap();
        assert_eq!(buffer[3] & 0xf, 2);
    }
    // Names of the cluster, and other askers, do not suffer.
    assert_eq!(ask(WEB, here.at, "web", A).await.answers.len(), 1);
    let other: SocketAddr = "127.77.9.9:0".parse().unwrap();
    let socket = tokio::net::UdpSocket::bind(other).await.unwrap();
    let message = question("m.example", A).to_vec().unwrap();
    socket.send_to(&message, here.at).await.unwrap();
    while silent.asked() < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_same_question_is_asked_once_for_all() {
    let outside = resolver(Manner::Silent).await;
    let here = serve(&[outside.at]).await;
    let asks = (0..20).map(|_| ask(WEB, here.at, "a.example", A));
    let mut all = tokio::task::JoinSet::new();
    for ask in asks {
        all.spawn(ask);
    }
    let answers = all.join_all().await;
    assert!(
        answers
            .iter()
            .all(|a| a.metadata.response_code == ResponseCode::ServFail)
    );
    // Each attempt is made once, however many wait: a few rounds at most.
    assert!(outside.asked() <= 6, "{}", outside.asked());
}
