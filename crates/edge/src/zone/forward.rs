//! What is not in the zones, for those for whom others are asked.

use std::net::IpAddr;
use std::time::Instant;

use super::answer::Way;
use super::metrics::Metrics;
use super::server::Shared;
use crate::dns::cache::Key;
use crate::dns::forward::Via;
use crate::dns::wire::{self, code};

/// Writes the answer of others; whether there is one.
pub(super) async fn ask(
    shared: &Shared,
    packet: &[u8],
    source: IpAddr,
    way: Way,
    out: &mut Vec<u8>,
) -> bool {
    let Ok(query) = wire::parse(packet) else {
        return false;
    };
    Metrics::add(&shared.metrics.forwarded);
    let limit = match way {
        Way::Udp => query.udp_size(),
        Way::Tcp => usize::from(u16::MAX),
    };
    let via = Via::default();
    let forwarder = &shared.forwarder;
    let kept = forwarder.cache.get(&Key::of(&query, &via), Instant::now());
    if let Some((answer, age)) = kept {
        answer.write(&query, limit, age, out);
        return true;
    }
    let answer = match forwarder.place(source) {
        Some(_place) => forwarder.ask(&query, &via, &shared.forwarded).await,
        None => None,
    };
    match answer {
        Some(answer) => {
            answer.write(&query, limit, 0, out);
        }
        None => crate::dns::reply::empty(&query, code::FAILED, out),
    }
    true
}
