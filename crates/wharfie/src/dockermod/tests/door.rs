//! The protocol over HTTP: who comes in, and what becomes of odd requests.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Cluster, Well, cluster};
use crate::dockermod::Door;
use crate::dockermod::listen::Token;
use crate::dockermod::serve::LARGEST;

const TOKEN: &str = "0123456789abcdef";

fn any_port() -> Option<SocketAddr> {
    Some(([127, 0, 0, 1], 0).into())
}

/// A door over one well node. The store goes with the second.
async fn door(name: &str, token: Option<&str>) -> (Door, super::Kept) {
    let Cluster { service, kept, .. } = cluster(name, &[Well]);
    let door = Door::new(service);
    let set = door.set(any_port(), token.map(Token::new), None).await;
    set.unwrap();
    (door, kept)
}

/// Sends text, and returns status and body.
async fn send(door: &Door, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(door.address().await.unwrap())
        .await
        .unwrap();
    // A server that has heard enough may close before all is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).map(|s| s.parse().unwrap());
    let body = answer.split_once("\r\n\r\n").map(|(_, b)| b.to_owned());
    (status.unwrap_or(0), body.unwrap_or_default())
}

async fn post(door: &Door, headers: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    let (status, body) = send(door, &request).await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

fn error(reply: &Value) -> &str {
    assert_eq!(reply["status"], "error", "{reply}");
    reply["message"].as_str().unwrap()
}

#[tokio::test]
async fn requests_are_taken_as_curl_sends_them() {
    let (door, _kept) = door("curl", None).await;
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let (status, reply) = post(&door, kind, r#"{"action": "list-containers"}"#).await;
    assert_eq!((status, &reply["statusCode"]), (200, &json!(200)));
    let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (status, said) = send(&door, get).await;
    assert_eq!(status, 200);
    assert!(said.starts_with("DockerMod HttpService"), "{said}");
    let elsewhere = get.replace("GET /", "GET /x");
    assert_eq!(send(&door, &elsewhere).await.0, 404);
    assert_eq!(send(&door, &get.replace("GET", "PUT")).await.0, 405);
}

#[tokio::test]
async fn odd_requests_have_one_answer() {
    let (door, _kept) = door("odd", None).await;
    for body in [
        "",
        "{",
        "no",
        r#"{"action": "#,
        "\u{0}",
        &"[".repeat(100_000),
    ] {
        let (status, reply) = post(&door, "", body).await;
        assert_eq!(status, 400, "{reply}");
        assert!(
            error(&reply).starts_with("the request is no JSON: "),
            "{reply}"
        );
    }
    for body in ["[]", "3", "null"] {
        let (status, reply) = post(&door, "", body).await;
        assert_eq!(
            (status, error(&reply)),
            (400, "the request is no JSON object")
        );
    }
    let (status, reply) = post(&door, "", r#"{"action": "dance"}"#).await;
    assert_eq!(
        (status, reply),
        (200, json!({"error": "no such action is supported"}))
    );
    let (status, reply) = post(&door, "", "{}").await;
    assert_eq!((status, error(&reply)), (200, "action must be specified"));
    let huge = format!(r#"{{"action": "{}"}}"#, "a".repeat(LARGEST));
    let (status, _) = post(&door, "", &huge).await;
    // The answer may be lost where the rest of the request is still on its way.
    assert!(matches!(status, 413 | 0), "{status}");
    let (status, _) = post(&door, "", r#"{"action": "list-images"}"#).await;
    assert_eq!(status, 200, "and it goes on");
}

#[tokio::test]
async fn who_has_no_token_does_not_come_in() {
    let (door, _kept) = door("token", Some(TOKEN)).await;
    let list = r#"{"action": "list-containers"}"#;
    for header in [
        String::new(),
        "Authorization: Bearer 0123456789abcdeg\r\n".to_owned(),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: x\r\n".to_owned(),
    ] {
        let (status, reply) = post(&door, &header, list).await;
        assert_eq!(status, 401, "{header}");
        assert!(error(&reply).contains("a token is required"));
    }
    let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(send(&door, get).await.0, 401);
    for scheme in ["Bearer", "bearer"] {
        let header = format!("Authorization: {scheme} {TOKEN}\r\n");
        assert_eq!(post(&door, &header, list).await.0, 200);
    }
    // Another one counts at once, at the same address.
    let other = Token::new("fedcba9876543210");
    door.set(any_port(), Some(other), None).await.unwrap();
    let header = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(post(&door, &header, list).await.0, 401);
}

#[tokio::test]
async fn pages_in_browsers_do_not_come_in() {
    let (door, _kept) = door("origin", None).await;
    let header = "Origin: http://example.org\r\nContent-Type: text/plain\r\n";
    let (status, reply) = post(&door, header, r#"{"action": "list-containers"}"#).await;
    assert_eq!(status, 403);
    assert!(error(&reply).contains("web pages"));
}

#[tokio::test]
async fn a_port_that_is_taken_has_an_owner() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap();
    let Cluster {
        service,
        kept: _kept,
        ..
    } = cluster("taken", &[Well]);
    let door = Door::new(service);
    let failure = door.set(Some(taken), None, None).await.unwrap_err().text();
    let port = format!("dockermod-listen: port {} is already taken: ", taken.port());
    assert!(failure.starts_with(&port), "{failure}");
    let pid = format!("(process {})", std::process::id());
    assert!(failure.contains(&pid), "{failure}");
    assert!(!door.is_open());
}

#[tokio::test]
async fn it_moves_and_closes_as_it_is_told() {
    let (door, _kept) = door("moves", None).await;
    let list = r#"{"action": "list-containers"}"#;
    let first = door.address().await.unwrap();
    // A place that cannot be had: it stays.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap();
    door.set(Some(taken), None, None).await.unwrap_err();
    assert_eq!(door.address().await, Some(first));
    assert_eq!(post(&door, "", list).await.0, 200);
    // Elsewhere, and at another address of the same port.
    drop(other);
    door.set(Some(taken), None, None).await.unwrap();
    assert_eq!(post(&door, "", list).await.0, 200);
    let everywhere = SocketAddr::from(([0, 0, 0, 0], taken.port()));
    let token = Some(Token::new(TOKEN));
    door.set(Some(everywhere), token, None).await.unwrap();
    assert_eq!(post(&door, "", list).await.0, 401);
    door.set(None, None, None).await.unwrap();
    assert!(!door.is_open());
    door.close().await;
}
