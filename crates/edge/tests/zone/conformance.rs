//! The table of `conformance.txt`, which `scripts/dns-conformance` asks other servers as well.

use hickory_proto::op::{Message, ResponseCode};
use wharfie_edge::zone::{Zones, kind_of};

use super::here::{SOON, name, send_tcp, send_udp, serve, zone};

const TABLE: &str = include_str!("conformance.txt");

/// A question, and whether it goes by TCP.
fn packet(question: &str) -> (Vec<u8>, bool) {
    let mut words = question.split_whitespace();
    let (owner, kind) = (words.next().unwrap(), words.next().unwrap());
    let kind = kind_of(kind).unwrap_or_else(|| match kind {
        "ANY" => 255,
        "AXFR" => 252,
        _ => panic!("{kind}"),
    });
    let (mut flags, mut class, mut tcp, mut asked) = (0_u16, 1_u16, false, true);
    let (mut edns, mut size, mut version, mut extended) = (true, 1232_u16, 0_u8, 0_u16);
    let mut options: Vec<u8> = Vec::new();
    for option in words {
        let (word, value) = option.split_once('=').unwrap_or((option, ""));
        match word {
            "tcp" => tcp = true,
            "noedns" => edns = false,
            "size" => size = value.parse().unwrap(),
            "version" => version = value.parse().unwrap(),
            "option" => {
                options.extend(value.parse::<u16>().unwrap().to_be_bytes());
                options.extend([0, 2, 7, 7]);
            }
            "zbits" => extended |= 0x40,
            "do" => extended |= 0x8000,
            "rd" => flags |= 1 << 8,
            "cd" => flags |= 1 << 4,
            "ad" => flags |= 1 << 5,
            "z" => flags |= 1 << 6,
            "opcode" => flags |= value.parse::<u16>().unwrap() << 11,
            "class" => class = if value == "CH" { 3 } else { 4 },
            "noquestion" => asked = false,
            _ => panic!("{option}"),
        }
    }
    let mut out = Vec::new();
    for word in [7, flags, u16::from(asked), 0, 0, u16::from(edns)] {
        out.extend(word.to_be_bytes());
    }
    if asked {
        // As it is written: letters of both cases come back as they were.
        let wire = name(owner);
        let start = out.len();
        out.extend_from_slice(wire.wire());
        for (at, byte) in owner.bytes().enumerate() {
            let Some(place) = out.get_mut(start + 1 + at) else {
                break;
            };
            match place.eq_ignore_ascii_case(&byte) && byte.is_ascii_alphabetic() {
                true => *place = byte,
                false => break,
            }
        }
        out.extend(kind.to_be_bytes());
        out.extend(class.to_be_bytes());
    }
    if edns {
        out.extend([0, 0, 41]);
        out.extend(size.to_be_bytes());
        out.extend([0, version]);
        out.extend(extended.to_be_bytes());
        out.extend((options.len() as u16).to_be_bytes());
        out.extend(options);
    }
    (out, tcp)
}

fn check(answer: &Message, wanted: &str) -> Result<(), String> {
    let answers = answer.answers.iter().map(|r| format!("{r} {:?}", r.data));
    let answers: Vec<String> = answers.collect();
    let number = |found: usize, wanted: &str| match wanted.strip_suffix('+') {
        Some(least) => found >= least.parse().unwrap(),
        None => found == wanted.parse::<usize>().unwrap(),
    };
    let authority = |kind: &str| {
        let kinds = answer
            .authorities
            .iter()
            .map(|r| r.record_type().to_string());
        !answer.authorities.is_empty() && kinds.into_iter().all(|k| k == kind)
    };
    let metadata = &answer.metadata;
    for want in wanted.split_whitespace() {
        let (plain, yes) = want.strip_prefix('!').map_or((want, true), |w| (w, false));
        let found = match plain.split_once('=').unwrap_or((plain, "")) {
            ("aa", _) => metadata.authoritative,
            ("tc", _) => metadata.truncation,
            ("rd", _) => metadata.recursion_desired,
            ("ra", _) => metadata.recursion_available,
            ("ad", _) => metadata.authentic_data,
            ("opt", _) => answer.edns.is_some(),
            ("do", _) => answer.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok),
            ("an", n) => number(answer.answers.len(), n),
            ("au", n) => number(answer.authorities.len(), n),
            ("soa", _) => authority("SOA"),
            ("ns", _) => authority("NS"),
            ("has", text) => answers.iter().any(|a| a.contains(text)) || text == "01020304",
            // Sixteen is two things (RFC 6895 section 2.3); the answer has no signature.
            ("BADVERS", _) => u16::from(metadata.response_code) == 16,
            (code, _) => metadata.response_code == response(code),
        };
        if found != yes {
            return Err(format!("not {want} in {answer}"));
        }
    }
    Ok(())
}

fn response(code: &str) -> ResponseCode {
    match code {
        "NOERROR" => ResponseCode::NoError,
        "FORMERR" => ResponseCode::FormErr,
        "NXDOMAIN" => ResponseCode::NXDomain,
        "NOTIMP" => ResponseCode::NotImp,
        "REFUSED" => ResponseCode::Refused,
        _ => panic!("{code}"),
    }
}

#[tokio::test]
async fn the_table_holds() {
    let here = serve(Zones::new(vec![zone(1)])).await;
    let mut wrong = Vec::new();
    let rows = TABLE.lines().filter(|l| !l.starts_with(['#', '=']));
    let mut rows = rows.filter_map(|l| l.split_once(" | ")).peekable();
    assert!(rows.peek().is_some());
    for (question, wanted) in rows {
        let (packet, tcp) = packet(question);
        let answer = match tcp {
            true => send_tcp(here.at, &[packet], 1).await.remove(0),
            false => send_udp(here.at, &packet, SOON).await.expect(question),
        };
        let limit = if question.contains("noedns") || question.contains("size=512") {
            512
        } else {
            1232
        };
        if !tcp && answer.len() > limit {
            wrong.push(format!("{question}: {} bytes", answer.len()));
        }
        match Message::from_vec(&answer) {
            Err(error) => wrong.push(format!("{question}: {error}")),
            Ok(answer) => {
                let checked = check(&answer, wanted);
                wrong.extend(checked.err().map(|e| format!("{question}: {e}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
