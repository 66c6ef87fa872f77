//! Questions by UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use wharfie_core::network::Catalog;

use super::Shared;
use super::answer::{Outcome, Way};
use super::forward::Via;
use super::wire;

/// No question is larger.
const LARGEST: usize = 4096;
/// Packets that are answered before others get their turn.
const TURN: usize = 64;

/// Answers until the task is aborted.
pub(super) async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut names = shared.catalog.clone();
    let mut catalog: Arc<Catalog> = Arc::clone(&names.borrow_and_update());
    let mut spin: u32 = rand::random();
    let mut packet = vec![0; LARGEST];
    let mut out = Vec::with_capacity(wire::MOST_UDP);
    loop {
        if let Err(error) = socket.readable().await {
            tracing::error!(%error, "the socket of the DNS server is broken");
            return;
        }
        let mut turn = TURN;
        while turn > 0 {
            turn -= 1;
            let (length, source) = match socket.try_recv_from(&mut packet) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // That an earlier answer could not be delivered is no fault of the next question.
                Err(_) => continue,
            };
            // An error says that there will be no others; what was sent last may be new here.
            if names.has_changed().unwrap_or(true) {
                catalog = Arc::clone(&names.borrow_and_update());
            }
            spin = spin.wrapping_add(1);
            let question = &packet[..length];
            let desk = shared.desk(&catalog, Way::Udp);
            match desk.answer(question, source.ip(), spin, &mut out) {
                Outcome::Answered => send(&socket, &out, source),
                Outcome::Silence => {}
                Outcome::Elsewhere(query, via) => {
                    if shared.cached(&query, &via, Way::Udp, &mut out) {
                        send(&socket, &out, source);
                    } else {
                        let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
                        let packet = question.to_vec();
                        tokio::spawn(forward(shared, socket, (packet, via), source));
                    }
                }
            }
        }
        // Others on this thread get their turn, however many questions there are.
        if turn == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// An answer that cannot be sent at once is lost, as any packet may be: the asker asks again.
fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, to) {
        tracing::debug!(%to, %error, "an answer was not sent");
    }
}

async fn forward(
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    (packet, via): (Vec<u8>, Via),
    source: SocketAddr,
) {
    // It was read once already.
    let Ok(query) = wire::parse(&packet) else {
        return;
    };
    let mut out = Vec::new();
    shared
        .ask(&query, &via, source.ip(), Way::Udp, &mut out)
        .await;
    send(&socket, &out, source);
}
