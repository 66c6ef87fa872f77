//! A resolver of the outside, as good or as bad as a test wants it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// What it does with a question by UDP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Manner {
    /// Answers with one address that may be kept for so long.
    Answers(u32),
    /// Says that there is more, and answers by TCP with 100 addresses.
    ByTcp,
    /// Says that there is no such name, for so long.
    NoName(u32),
    /// Fails.
    Fails,
    /// Says nothing.
    Silent,
    /// Does not know EDNS.
    Old,
    /// Sends wrong numbers and questions before the right answer.
    Forged,
}

pub(crate) struct Outside {
    pub(crate) at: SocketAddr,
    asked: Arc<AtomicUsize>,
    asked_by_tcp: Arc<AtomicUsize>,
}

impl Outside {
    /// Questions by UDP.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn asked_by_tcp(&self) -> usize {
        self.asked_by_tcp.load(Ordering::SeqCst)
    }
}

/// The address that it answers with, as the first of many.
pub(crate) const FOUND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);

fn answer(question: &Message, addresses: u8, ttl: u32) -> Message {
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    let name = question.queries[0].name().clone();
    for i in 0..addresses {
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, i)));
        answer.add_answer(Record::from_rdata(name.clone(), ttl, data));
    }
    answer
}

fn negative(question: &Message, ttl: u32) -> Message {
    let mut answer = answer(question, 0, 0);
    answer.metadata.response_code = ResponseCode::NXDomain;
    let root = Name::root();
    let soa = SOA::new(root.clone(), root.clone(), 1, 2, 3, 4, ttl);
    answer.add_authority(Record::from_rdata(root, ttl, RData::SOA(soa)));
    answer
}

pub(crate) async fn resolver(manner: Manner) -> Outside {
    // A port that is free for both.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(at).await {
            break (udp, tcp);
        }
    };
    let outside = Outside {
        at: udp.local_addr().unwrap(),
        asked: Arc::default(),
        asked_by_tcp: Arc::default(),
    };
    let asked = Arc::clone(&outside.asked);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            asked.fetch_add(1, Ordering::SeqCst);
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let send = async |message: &Message| {
                udp.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            };
            match manner {
                Manner::Answers(ttl) => send(&answer(&question, 1, ttl)).await,
                Manner::ByTcp => {
                    let mut part = answer(&question, 0, 0);
                    part.metadata.truncation = true;
                    send(&part).await;
                }
                Manner::NoName(ttl) => send(&negative(&question, ttl)).await,
                Manner::Fails => {
                    let mut failed = answer(&question, 0, 0);
                    failed.metadata.response_code = ResponseCode::ServFail;
                    send(&failed).await;
                }
                Manner::Silent => {}
                Manner::Old if question.edns.is_some() => {
                    let mut odd = answer(&question, 0, 0);
                    odd.metadata.response_code = ResponseCode::FormErr;
                    odd.edns = None;
                    send(&odd).await;
                }
                Manner::Old => send(&answer(&question, 1, 60)).await,
                Manner::Forged => {
                    let mut number = answer(&question, 3, 60);
                    number.metadata.id = number.metadata.id.wrapping_add(1);
                    send(&number).await;
                    let mut name = answer(&question, 3, 60);
                    let other = Name::from_ascii("other.example.").unwrap();
                    name.queries[0].set_name(other);
                    send(&name).await;
                    udp.send_to(b"nonsense", from).await.unwrap();
                    let mut echo = question.clone();
                    echo.metadata.message_type = MessageType::Query;
                    send(&echo).await;
                    send(&answer(&question, 1, 60)).await;
                }
            }
        }
    });
    let asked = Arc::clone(&outside.asked_by_tcp);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            asked.fetch_add(1, Ordering::SeqCst);
            let length = stream.read_u16().await.unwrap();
            let mut packet = vec![0; length.into()];
            stream.read_exact(&mut packet).await.unwrap();
            let question = Message::from_vec(&packet).unwrap();
            let bytes = answer(&question, 100, 60).to_vec().unwrap();
            stream.write_u16(bytes.len() as u16).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    });
    outside
}
