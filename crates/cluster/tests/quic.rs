//! Links between nodes over sockets of this machine.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use wharfie_cluster::identity::Identity;
use wharfie_cluster::transport::{
    BindError, Ended, Link, Listen, Purpose, QuicTransport, Transport, Unreachable, Why,
};

const PATIENCE: Duration = Duration::from_secs(10);

async fn bind(gate: Result<(), Why>) -> (QuicTransport, SocketAddr) {
    bind_at(Ipv4Addr::LOCALHOST, gate).await
}

async fn bind_at(address: Ipv4Addr, gate: Result<(), Why>) -> (QuicTransport, SocketAddr) {
    let listen = Listen {
        address: (address, 0).into(),
        silence: Duration::from_secs(2),
        discover: false,
    };
    let gate = Arc::new(move |_, _| gate);
    let transport = QuicTransport::bind(Identity::new().secret(), &listen, gate).await;
    let transport = transport.unwrap();
    let at = transport.local_address();
    (transport, at)
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

async fn say(link: &dyn Link, word: &[u8]) {
    let mut stream = soon(link.open()).await.unwrap();
    stream.write_all(word).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn hear(link: &dyn Link) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut stream = soon(link.accept()).await.unwrap();
    soon(stream.read_to_end(&mut heard)).await.unwrap();
    heard
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let ((a, _), (b, at)) = (bind(Ok(())).await, bind(Ok(())).await);
    let link = soon(a.connect(b.id(), vec![at], Purpose::Member))
        .await
        .unwrap();
    say(&*link, b"one").await;
    say(&*link, b"two").await;
    let seen = soon(b.accept()).await.unwrap();
    assert_eq!((seen.peer(), link.peer()), (a.id(), b.id()));
    assert_eq!(seen.purpose(), Purpose::Member);
    // The first is not lost, though it was waited for.
    let mut words = [hear(&*seen).await, hear(&*seen).await];
    words.sort();
    assert_eq!(words, [b"one".to_vec(), b"two".to_vec()]);
    soon(a.close()).await;
    assert_eq!(soon(seen.ended()).await, Ended::ByPeer(Why::Leaving));
}

#[tokio::test]
async fn a_link_knows_where_it_comes_in() {
    let any = Ipv4Addr::UNSPECIFIED;
    let ((a, _), (b, at)) = (bind_at(any, Ok(())).await, bind_at(any, Ok(())).await);
    // All of these are this host's.
    let called = Ipv4Addr::new(127, 0, 0, 2);
    let link = soon(a.connect(b.id(), vec![(called, at.port()).into()], Purpose::Member))
        .await
        .unwrap();
    say(&*link, b"one").await;
    let seen = soon(b.accept()).await.unwrap();
    assert_eq!(seen.local(), Some(called.into()));
    assert!(link.local().is_some_and(|a| a.is_loopback()));
}

#[tokio::test]
async fn who_has_another_key_is_not_the_peer() {
    let ((a, _), (b, at)) = (bind(Ok(())).await, bind(Ok(())).await);
    let other = Identity::new().id();
    let error = soon(a.connect(other, vec![at], Purpose::Member)).await;
    assert!(matches!(error, Err(Unreachable::Silent(_))));
    let none = tokio::time::timeout(Duration::from_millis(100), b.accept()).await;
    assert!(none.is_err(), "nobody came");
}

#[tokio::test]
async fn who_may_not_come_in_hears_why() {
    let ((a, _), (b, at)) = (bind(Ok(())).await, bind(Err(Why::Removed)).await);
    let link = soon(a.connect(b.id(), vec![at], Purpose::Member))
        .await
        .unwrap();
    assert_eq!(soon(link.ended()).await, Ended::ByPeer(Why::Removed));
}

#[tokio::test]
async fn a_link_that_the_caller_does_not_want_takes_nobodys_place() {
    let ((a, _), (b, at)) = (bind(Ok(())).await, bind(Ok(())).await);
    // As where a second address answered a little later.
    let spare = soon(a.connect(b.id(), vec![at], Purpose::Member))
        .await
        .unwrap();
    spare.close(Why::Spare);
    let link = soon(a.connect(b.id(), vec![at], Purpose::Member))
        .await
        .unwrap();
    say(&*link, b"this one").await;
    let seen = soon(b.accept()).await.unwrap();
    assert_eq!(hear(&*seen).await, b"this one");
}

#[tokio::test]
async fn the_next_address_is_called_if_one_does_not_answer() {
    let ((a, _), (b, at)) = (bind(Ok(())).await, bind(Ok(())).await);
    // Somebody listens there and never answers.
    let deaf = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addresses = vec![deaf.local_addr().unwrap(), at];
    let link = soon(a.connect(b.id(), addresses, Purpose::Member))
        .await
        .unwrap();
    assert_eq!(link.address(), Some(at));
}

#[tokio::test]
async fn an_address_in_use_is_said() {
    let (_a, at) = bind(Ok(())).await;
    let listen = Listen {
        address: at,
        silence: Duration::from_secs(2),
        discover: false,
    };
    let error = QuicTransport::bind([7; 32], &listen, Arc::new(|_, _| Ok(()))).await;
    assert!(matches!(error, Err(BindError::InUse(seen)) if seen == at));
}

/// Passes on what comes, late, both ways; where it listens.
async fn slow_way(to: SocketAddr) -> SocketAddr {
    let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    far.connect(to).await.unwrap();
    let at = near.local_addr().unwrap();
    tokio::spawn(async move {
        let mut caller = None;
        let (mut one, mut other) = ([0; 2048], [0; 2048]);
        loop {
            let (bytes, from, to) = tokio::select! {
                came = near.recv_from(&mut one) => {
                    let (count, who) = came.unwrap();
                    caller = Some(who);
                    (one[..count].to_vec(), &far, to)
                }
                Ok(count) = far.recv(&mut other) => {
                    (other[..count].to_vec(), &near, caller.unwrap())
                }
            };
            let from = Arc::clone(from);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let _ = match from.peer_addr() {
                    Ok(_) => from.send(&bytes).await,
                    Err(_) => from.send_to(&bytes, to).await,
                };
            });
        }
    });
    at
}

#[tokio::test]
async fn the_address_of_one_that_ended_is_free_before_its_links_are_forgotten() {
    let ((a, at), (b, far)) = (bind(Ok(())).await, bind(Ok(())).await);
    let way = slow_way(far).await;
    let link = soon(a.connect(b.id(), vec![way], Purpose::Member))
        .await
        .unwrap();
    say(&*link, b"hello").await;
    let seen = soon(b.accept()).await.unwrap();
    assert_eq!(hear(&*seen).await, b"hello");
    soon(a.close()).await;
    drop((a, link));
    // With answers this late a connection is remembered for more than two seconds.
    let again = async {
        while std::net::UdpSocket::bind(at).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), again)
        .await
        .unwrap();
}
