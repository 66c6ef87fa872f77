//! Packets that are no questions, or no good ones: whatever comes in, the next question is answered.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use wharfie_edge::zone::{Allowed, Key, RateLimit, Zones};

use super::here::{Here, SOON, ask, name, question, send_tcp, serve, serve_with, zone};

/// So many cases, or as many as `PROPTEST_CASES` says.
fn cases(usual: u32) -> ProptestConfig {
    // `with_cases` alone would not look there.
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(usual),
    }
}

async fn is_well(here: &Here) {
    let answer = ask(here.at, "www", RecordType::A).await;
    assert_eq!(answer.answers.len(), 1);
}

/// What comes back for bytes, knowing that something comes back for the question behind them.
async fn answered(here: &Here, bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(here.at).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut question = question("www", RecordType::A);
    question.metadata.id = 0xfefe;
    // One source has one socket at the other side: answers come in order.
    socket.send(&question.to_vec().unwrap()).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let mut first = None;
    loop {
        let received = timeout(SOON, socket.recv(&mut buffer)).await;
        let length = received.expect("the question is answered").unwrap();
        if buffer[..2] == [0xfe, 0xfe] && buffer[7] == 1 {
            return first;
        }
        first = Some(buffer[..length].to_vec());
    }
}

#[tokio::test]
async fn noise_is_not_answered_and_bad_questions_are_refused() {
    let here = serve(Zones::new(vec![zone(1)])).await;
    let good = question("www", RecordType::A).to_vec().unwrap();
    let code = |answer: Option<Vec<u8>>| answer.map(|a| a[3] & 15);
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(answered(&here, &response).await, None);
    assert_eq!(answered(&here, &good[..11]).await, None);
    assert_eq!(answered(&here, &[]).await, None);
    // Two questions; a pointer to itself, and one forward; a label of a reserved kind; a name too long.
    let mut two = good.clone();
    two[5] = 2;
    let tail = [0, 1, 0, 1];
    let header = &good[..12];
    let names: [&[u8]; 5] = [
        &[0xc0, 12],
        &[0xc0, 200],
        &[0x41, 1, 0],
        &[1, b'a', 0xc0, 12],
        &[[1, b'a'].repeat(128), vec![0]].concat(),
    ];
    assert_eq!(code(answered(&here, &two).await), Some(1));
    for name in names {
        let packet = [header, name, &tail].concat();
        assert_eq!(code(answered(&here, &packet).await), Some(1), "{name:?}");
    }
    // An answer in a question; two OPT; OPT whose options end early; a signature that is not last.
    let opt = [0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0];
    let mut with = good.clone();
    with[7] = 1;
    with.extend(opt);
    assert_eq!(code(answered(&here, &with).await), Some(1));
    let mut with = good.clone();
    with[11] = 2;
    with.extend([opt, opt].concat());
    assert_eq!(code(answered(&here, &with).await), Some(1));
    let mut with = good.clone();
    with[11] = 1;
    with.extend([0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0]);
    assert_eq!(code(answered(&here, &with).await), Some(1));
    let mut with = good.clone();
    with[11] = 2;
    with.extend([0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    with.extend(opt);
    assert_eq!(code(answered(&here, &with).await), Some(1));
    is_well(&here).await;
}

#[tokio::test]
async fn connections_that_say_nothing_good_end() {
    let here = serve(Zones::new(vec![zone(1)])).await;
    let mut stream = TcpStream::connect(here.at).await.unwrap();
    // A response: who sends noise is not talked to.
    stream
        .write_all(&[0, 12, 0, 7, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let closed = timeout(SOON, stream.read(&mut [0; 10])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    // One that has many connections does not keep others from theirs for ever.
    let mut many = Vec::new();
    for _ in 0..80 {
        many.push(TcpStream::connect(here.at).await.unwrap());
    }
    let mut closed = 0;
    for stream in &mut many {
        let read = timeout(Duration::from_millis(50), stream.read(&mut [0; 10])).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert!(closed >= 16, "{closed} of 80 were closed at once");
    is_well(&here).await;
}

#[tokio::test]
async fn many_questions_on_a_connection_are_answered_in_turn() {
    let here = serve(Zones::new(vec![zone(1)])).await;
    let mut packets = Vec::new();
    for id in 0..500 {
        let mut question = question(if id % 2 == 0 { "big" } else { "nope" }, RecordType::TXT);
        question.metadata.id = id;
        packets.push(question.to_vec().unwrap());
    }
    let answers = send_tcp(here.at, &packets, 500).await;
    for (id, answer) in answers.iter().enumerate() {
        let answer = Message::from_vec(answer).unwrap();
        assert_eq!(usize::from(answer.metadata.id), id);
        assert_eq!(answer.answers.len(), if id % 2 == 0 { 7 } else { 0 });
    }
}

#[tokio::test]
async fn what_was_asked_before_noise_is_answered() {
    let here = serve(Zones::new(vec![zone(1)])).await;
    let good = question("www", RecordType::A).to_vec().unwrap();
    let mut noise = good.clone();
    noise[2] |= 0x80;
    // Together, so that the answers wait for each other.
    let answers = send_tcp(here.at, &[good.clone(), good.clone(), noise, good], 2).await;
    assert_eq!(answers.len(), 2);
}

#[tokio::test]
async fn who_is_asked_for_by_many_gets_few_answers() {
    let rate = RateLimit {
        per_second: 20,
        slip: 2,
        exempt: Vec::new(),
    };
    let here = serve_with(Zones::new(vec![zone(1)]), rate, Vec::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(here.at).await.unwrap();
    let packet = question("multi", RecordType::A).to_vec().unwrap();
    for _ in 0..400 {
        socket.send(&packet).await.unwrap();
    }
    let end = question("www", RecordType::A).to_vec().unwrap();
    socket.send(&end).await.unwrap();
    let (mut whole, mut cut) = (0, 0);
    let mut buffer = [0; 1500];
    loop {
        let length = timeout(SOON, socket.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        match (answer.answers.len(), answer.metadata.truncation) {
            (1, _) => break,
            (3, false) => whole += 1,
            (0, true) => cut += 1,
            other => panic!("{other:?}"),
        }
    }
    // Twenty at once, and what a slow machine took longer for.
    assert!((20..100).contains(&whole), "{whole} answers");
    // By chance half of the others; one in three or two are far out.
    let limited = 400 - whole;
    assert!(
        (limited / 3..limited * 2 / 3).contains(&cut),
        "{cut} of {limited} answers were cut off"
    );
    assert_eq!(here.metric("rate_slipped"), cut);
    assert_eq!(here.metric("rate_limited"), limited - cut);
    // Who asks by TCP is who he says.
    let packets = vec![packet; 50];
    assert_eq!(send_tcp(here.at, &packets, 50).await.len(), 50);
}

#[test]
fn any_packet_is_survived() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let here = runtime.block_on(serve(Zones::new(vec![zone(1)])));
    let good = question("www", RecordType::A).to_vec().unwrap();
    let byte = prop_oneof![Just(0_u8), Just(1), Just(0xc0), Just(12), any::<u8>()];
    let changed = proptest::collection::vec((any::<prop::sample::Index>(), byte.clone()), 0..6);
    let tail = proptest::collection::vec(byte, 0..60);
    let mut runner = proptest::test_runner::TestRunner::default();
    let strategy = (changed, tail, any::<bool>());
    let result = runner.run(&strategy, |(changed, tail, by_tcp)| {
        let mut packet = good.clone();
        packet.extend(tail);
        for (at, byte) in changed {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        // An answer is never larger than it may be without the asker's word.
        runtime.block_on(async {
            if by_tcp {
                let mut stream = TcpStream::connect(here.at).await.unwrap();
                stream.write_u16(packet.len() as u16).await.unwrap();
                stream.write_all(&packet).await.unwrap();
            } else if let Some(answer) = answered(&here, &packet).await {
                assert!(answer.len() <= 1232);
            }
        });
        Ok(())
    });
    result.unwrap();
    runtime.block_on(is_well(&here));
}

/// What messages are made of, in any order: most of it leads far into the server.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        Just("www"),
        Just("wild"),
        Just("apps"),
        Just("example"),
        Just("org"),
        Just("to-it"),
        Just("hmac-sha256"),
    ];
    let label = label.prop_map(|l| [&[l.len() as u8], l.as_bytes()].concat());
    let whole = Just(name("www").wire().to_vec());
    // Into what stands before, to itself, and beyond the end.
    let pointer = (0_u16..80).prop_map(|at| (0xc000 | at).to_be_bytes().to_vec());
    let kind = prop_oneof![
        Just(1_u16),
        Just(2),
        Just(6),
        Just(16),
        Just(33),
        Just(41),
        Just(250),
        251_u16..256,
        any::<u16>()
    ];
    let kind = kind.prop_map(|k| [k.to_be_bytes(), [0, 1]].concat());
    // The rest of OPT, of a record, and of a signature.
    let option = Just(vec![0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 10, 0, 0]);
    let data = (0_u8..20).prop_map(|l| [0, 0, 0, 5, 0, l].to_vec());
    let signature = any::<[u8; 16]>().prop_map(|mac| {
        let head = [0, 250, 0, 255, 0, 0, 0, 0, 0, 61];
        let algorithm = b"\x0bhmac-sha256\0";
        let time = [0, 0, 0, 0, 0, 9, 1, 44, 0, 16];
        [b"\x05to-it\0", &head[..], algorithm, &time, &mac, &[0; 6]].concat()
    });
    let noise = proptest::collection::vec(any::<u8>(), 1..12);
    prop_oneof![
        4 => label, 4 => whole, 2 => pointer, 4 => kind, 2 => Just(vec![0]),
        1 => option, 1 => data, 1 => signature, 1 => noise
    ]
}

/// A header that says anything, and such pieces; or noise alone.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![6 => Just(0_u8), 1 => 0_u8..16].prop_map(|o| o << 3);
    let counts = [3_u16, 2, 2, 3].map(|most| 0..most);
    let header = (opcode, any::<u8>(), counts).prop_map(|(opcode, flags, counts)| {
        let counts = counts.into_iter().flat_map(u16::to_be_bytes);
        let mut header = vec![7, 7, opcode, flags];
        header.extend(counts);
        header
    });
    let pieces = proptest::collection::vec(piece(), 0..14);
    let made = (header, pieces).prop_map(|(mut packet, pieces)| {
        packet.extend(pieces.concat());
        packet
    });
    prop_oneof![9 => made, 1 => proptest::collection::vec(any::<u8>(), 0..1400)]
}

#[test]
fn messages_made_of_anything_are_survived() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==";
    let key = Arc::new(Key::new("to-it", "hmac-sha256", secret).unwrap());
    let mut zones = Zones::new(vec![zone(1)]);
    zones.allowed = [None, Some(key.name().clone())]
        .map(|key| Allowed {
            from: "127.0.0.0/8".parse().unwrap(),
            key,
        })
        .into();
    zones.keys.push(key);
    let here = runtime.block_on(serve(zones));
    let mut runner = proptest::test_runner::TestRunner::new(cases(400));
    let crowds = proptest::collection::vec(message(), 1..40);
    let result = runner.run(&(crowds, any::<bool>()), |(packets, by_tcp)| {
        runtime.block_on(async {
            if by_tcp {
                // It ends at the first that is none.
                let mut stream = TcpStream::connect(here.at).await.unwrap();
                for packet in &packets {
                    let framed = [&(packet.len() as u16).to_be_bytes(), &packet[..]].concat();
                    if stream.write_all(&framed).await.is_err() {
                        break;
                    }
                }
                return;
            }
            let (last, others) = packets.split_last().unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            for packet in others {
                socket.send_to(packet, here.at).await.unwrap();
            }
            answered(&here, last).await;
        });
        Ok(())
    });
    result.unwrap();
    runtime.block_on(is_well(&here));
}
