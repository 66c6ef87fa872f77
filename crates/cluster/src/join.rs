//! How a stranger becomes a member: it shows a token's secret to the node that issued it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tracing::{info, warn};

use crate::id::NodeId;
use crate::mesh::{Mesh, now_millis};
use crate::replica::{Batch, Key, Record, Replica};
use crate::roster::{MEMBER, Member, REMOVED, Roster};
use crate::token::{Token, fingerprint};
use crate::transport::{Ended, Link, Purpose, Transport, Unreachable, Why};
use crate::wire::{self, ClusterId, JoinReply, JoinRequest, WireError};

/// Clocks may differ by so much when a node joins, in milliseconds: what is written last counts.
pub const CLOCKS: u64 = 60_000;
/// How long the whole conversation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest request, in bytes: it comes from a stranger.
const LARGEST_REQUEST: u64 = 2 << 20;
/// Where tokens are kept in the store, by fingerprint.
const TOKENS: &str = "token/";

/// What the issuer remembers of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Until when it is good, in seconds since 1970.
    pub expires: u64,
    /// Who joined with it.
    pub used_by: Option<NodeId>,
}

/// Why a node could not join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Nobody answers.
    #[error(
        "node {0} does not answer at {1} ({2}): look whether the agent runs there, and whether UDP gets through to it"
    )]
    Unreachable(String, String, String),
    /// The token is not good, or the node is not welcome.
    #[error("{0}")]
    Refused(String),
    /// Something went wrong in between.
    #[error("the conversation with node {0} broke off ({1}): try again with the same token")]
    Broken(String, String),
}

/// Remembers a token. Old ones are forgotten.
///
/// # Errors
/// The store cannot be written.
pub fn remember(replica: &Replica, token: &Token, now: u64) -> Result<(), crate::store::Error> {
    let store = replica.store();
    for (key, bytes) in store.locals(TOKENS)? {
        let issued: Option<Issued> = serde_json::from_slice(&bytes).ok();
        // For a day it can be told apart why it is not good.
        let old = issued.is_none_or(|i| i.expires + 86_400 < now / 1000);
        if old {
            store.set_local(&format!("{TOKENS}{key}"), None)?;
        }
    }
    let issued = Issued {
        expires: token.expires,
        used_by: None,
    };
    let key = format!("{TOKENS}{}", token.fingerprint());
    let bytes = serde_json::to_vec(&issued).unwrap_or_default();
    store.set_local(&key, Some(&bytes))
}

/// Whether any token is good still.
///
/// # Errors
/// The store cannot be read.
pub fn any_open(replica: &Replica, now: u64) -> Result<bool, crate::store::Error> {
    let tokens = replica.store().locals(TOKENS)?;
    let open = tokens.iter().any(|(_, bytes)| {
        let issued: Option<Issued> = serde_json::from_slice(bytes).ok();
        // Who was let in may not have heard of it, and asks again; and who comes too late is told.
        issued.is_some_and(|i| i.expires + 3_600 > now / 1000)
    });
    Ok(open)
}

/// Forgets all tokens: they were for another cluster.
///
/// # Errors
/// The store cannot be written.
pub fn forget_tokens(replica: &Replica) -> Result<(), crate::store::Error> {
    let store = replica.store();
    for (key, _) in store.locals(TOKENS)? {
        store.set_local(&format!("{TOKENS}{key}"), None)?;
    }
    Ok(())
}

/// Decides on a request. `issued` is what is remembered of its token, `conflicts` the objects
/// that exist on both sides.
///
/// # Errors
/// Why not, in words for people.
fn admit(
    request: &JoinRequest,
    peer: NodeId,
    issued: Option<&Issued>,
    roster: &Roster,
    conflicts: &[Key],
    now: u64,
) -> Result<(), String> {
    if request.version != wire::VERSION {
        return Err(format!(
            "the node runs wharfie {}, and this cluster another version of the protocol ({} here, {} there): install the same version",
            request.software,
            wire::VERSION,
            request.version
        ));
    }
    let Some(issued) = issued else {
        return Err(
            "the token is not known here: make a new one with `wharfie token`, and use it once"
                .to_owned(),
        );
    };
    if roster.removed.contains(&peer) {
        return Err(
            "a node with this key was removed from the cluster; `wharfie join --new-key TOKEN` joins with a new one"
                .to_owned(),
        );
    }
    let again = issued.used_by == Some(peer) && roster.members.contains_key(&peer);
    if again {
        return Ok(());
    }
    if let Some(by) = issued.used_by {
        let member = roster.members.get(&by);
        let by = member.map_or_else(|| by.short(), |m| m.name.clone());
        return Err(format!(
            "the token was used by node {by}, and lets in one node only: make a new one with `wharfie token`"
        ));
    }
    if issued.expires <= now / 1000 {
        return Err(format!(
            "the token expired {} s ago: make a new one with `wharfie token`",
            now / 1000 - issued.expires
        ));
    }
    let ahead = i128::from(request.time) - i128::from(now);
    if ahead.unsigned_abs() > u128::from(CLOCKS) {
        return Err(format!(
            "the clock of the new node is {} s {}: set it (`timedatectl set-ntp true`), because what is written last counts",
            ahead.unsigned_abs() / 1000,
            if ahead > 0 { "ahead" } else { "behind" }
        ));
    }
    if let Some(member) = roster.members.get(&peer) {
        return Err(format!(
            "a node with this key is a member already, as {:?}: if this machine is a copy of it, use `wharfie join --new-key TOKEN`",
            member.name
        ));
    }
    if request.name.is_empty() || request.name.len() > 63 || !request.name.chars().all(is_of_name) {
        return Err(format!(
            "{:?} is no name for a node: letters, digits and hyphens, 63 at most (--name)",
            request.name
        ));
    }
    if let Some(other) = roster.named(&request.name) {
        return Err(format!(
            "the name {:?} is taken by node {}: choose another with --name",
            request.name,
            other.short()
        ));
    }
    if !conflicts.is_empty() {
        let names: Vec<String> = conflicts
            .iter()
            .map(|k| format!("{} {}", k.kind, k.name))
            .collect();
        return Err(format!(
            "both the new node and the cluster have {}: take it down on one side, or give it another name",
            names.join(", ")
        ));
    }
    Ok(())
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

/// The issuer's part.
pub(crate) async fn answer(mesh: &Arc<Mesh>, link: &dyn Link) {
    let peer = link.peer();
    let talk = async {
        let ended = |_| std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let mut stream = link.accept().await.map_err(ended)?;
        let mut bounded = (&mut stream).take(LARGEST_REQUEST);
        let request: JoinRequest = wire::expect(&mut bounded).await?;
        let (of, seen_at) = (Arc::clone(mesh), link.address());
        // Who is let in is told to the others, even if the newcomer has gone.
        let decided = tokio::spawn(async move { decide(&of, peer, seen_at, request).await });
        let reply = decided
            .await
            .unwrap_or_else(|_| JoinReply::Refused { reason: ends() });
        if let JoinReply::Refused { reason } = &reply {
            warn!(peer = peer.short(), "not let in: {reason}");
        }
        wire::send(&mut stream, &reply).await?;
        // The newcomer closes the link when it has read the answer.
        link.ended().await;
        Ok::<(), WireError>(())
    };
    let _ = tokio::time::timeout(PATIENCE, talk).await;
    link.close(Why::Spare);
}

async fn decide(
    mesh: &Arc<Mesh>,
    peer: NodeId,
    seen_at: Option<SocketAddr>,
    request: JoinRequest,
) -> JoinReply {
    let now = now_millis();
    let me = mesh.me();
    let of = Arc::clone(mesh);
    let outcome = mesh.with_replica(move |replica| -> Result<_, String> {
        let failed = |e: crate::store::Error| format!("the issuer cannot use its store: {e}");
        let one = of.admitting.lock();
        let _one = one.unwrap_or_else(PoisonError::into_inner);
        let roster = Roster::read(replica).map_err(failed)?;
        let key = format!("{TOKENS}{}", fingerprint(&request.secret));
        let bytes = replica.store().local(&key).map_err(failed)?;
        let issued: Option<Issued> = bytes.and_then(|b| serde_json::from_slice(&b).ok());
        // A stranger does not make this node look at anything else.
        admit(&request, peer, issued.as_ref(), &roster, &[], now)?;
        let mut conflicts = Vec::new();
        for (key, stamp) in &request.brings {
            // It may come back with what it had of this cluster.
            if replica.newest(key).is_some_and(|ours| ours != *stamp)
                && let Some(ours) = replica.get(&key.kind, &key.name).map_err(failed)?
                && ours.value.is_some()
            {
                conflicts.push(key.clone());
            }
        }
        admit(&request, peer, issued.as_ref(), &roster, &conflicts, now)?;
        let mut written = None;
        if !roster.members.contains_key(&peer) {
            let used = Issued {
                expires: issued.map_or(0, |i| i.expires),
                used_by: Some(peer),
            };
            let used = serde_json::to_vec(&used).unwrap_or_default();
            let member = Member {
                name: request.name.clone(),
                addresses: addresses(seen_at, request.port, &request.addresses),
                labels: BTreeMap::new(),
                joined: now,
            };
            let value = serde_json::to_value(&member).unwrap_or_default();
            // Both or neither: a token that is used up has let somebody in.
            let record = replica.put(
                (MEMBER, &peer.to_string()),
                Some(value),
                (&format!("join by {}", me.short()), now),
                crate::Options::default(),
                Some((&key, Some(&used))),
            );
            written = Some(record.map_err(failed)?);
        }
        let keys: Vec<Key> = [MEMBER, REMOVED]
            .into_iter()
            .map(|kind| replica.list(kind).map(|all| (kind, all)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?
            .into_iter()
            .flat_map(|(kind, all)| {
                all.into_iter()
                    .map(move |record| Key::new(kind, record.name))
            })
            .collect();
        let records = replica
            .records(&keys, wire::LARGEST_FRAME / 2)
            .map_err(failed)?;
        Ok((written, records, request.name))
    });
    match outcome.await {
        Some(Ok((written, records, name))) => {
            if let Some(record) = written {
                info!(peer = peer.short(), name, "a node joined");
                mesh.follow(&[record.key()]).await;
                mesh.push(&[record]);
            }
            JoinReply::Welcome {
                cluster: mesh.cluster(),
                records: crate::replica::encode(&records),
            }
        }
        Some(Err(reason)) => JoinReply::Refused { reason },
        None => JoinReply::Refused { reason: ends() },
    }
}

fn ends() -> String {
    "the issuer ends just now: try again".to_owned()
}

/// Where a newcomer can be reached: where it was seen first, then where it says.
fn addresses(seen_at: Option<SocketAddr>, port: u16, said: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    let seen = seen_at.map(|a| SocketAddr::new(a.ip(), port));
    for address in seen.into_iter().chain(said.iter().copied()).take(16) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// The newcomer's part: what it is let into.
///
/// # Errors
/// It is not, and nothing has changed here.
pub async fn ask(
    transport: &dyn Transport,
    token: &Token,
    request: &JoinRequest,
) -> Result<(ClusterId, Vec<Record>), JoinError> {
    let issuer = token.issuer.short();
    let at: Vec<String> = token.addresses.iter().map(ToString::to_string).collect();
    let unreachable = |why: String| JoinError::Unreachable(issuer.clone(), at.join(", "), why);
    let broken = |why: &dyn std::fmt::Display| JoinError::Broken(issuer.clone(), why.to_string());
    let link = transport
        .connect(token.issuer, token.addresses.clone(), Purpose::Join)
        .await
        .map_err(|e| match e {
            Unreachable::Refused(_) => JoinError::Refused(closed_door()),
            Unreachable::Silent(why) => unreachable(why),
        })?;
    let ended = |link: &dyn Link, why: &dyn std::fmt::Display| match link.has_ended() {
        Some(Ended::ByPeer(Why::Stranger | Why::Removed)) => JoinError::Refused(closed_door()),
        _ => broken(why),
    };
    let talk = async {
        let mut stream = link.open().await.map_err(|_| ended(&*link, &"no stream"))?;
        wire::send(&mut stream, request)
            .await
            .map_err(|e| ended(&*link, &e))?;
        let reply: JoinReply = wire::expect(&mut stream)
            .await
            .map_err(|e| ended(&*link, &e))?;
        match reply {
            JoinReply::Welcome { cluster, records } => {
                let Batch { records, .. } =
                    crate::replica::decode(&records).map_err(|e| broken(&e))?;
                Ok((cluster, records))
            }
            JoinReply::Refused { reason } => Err(JoinError::Refused(reason)),
        }
    };
    let outcome = match tokio::time::timeout(PATIENCE, talk).await {
        Ok(outcome) => outcome,
        // It may have let this node in all the same.
        Err(_) => Err(broken(&"no answer")),
    };
    link.close(Why::Spare);
    outcome
}

/// The door is shut for strangers as long as there is no token.
fn closed_door() -> String {
    "the node that issued the token lets nobody in: the token has expired or was made elsewhere; make a new one with `wharfie token`"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn request() -> JoinRequest {
        JoinRequest {
            version: wire::VERSION,
            software: "1".to_owned(),
            secret: [1; 16],
            name: "b".to_owned(),
            port: 7700,
            addresses: vec!["10.0.0.2:7700".parse().unwrap()],
            time: NOW,
            brings: Vec::new(),
        }
    }

    fn good() -> Issued {
        Issued {
            expires: NOW / 1000 + 60,
            used_by: None,
        }
    }

    fn refusal(request: &JoinRequest, issued: Option<&Issued>, roster: &Roster) -> String {
        let peer = NodeId([2; 32]);
        admit(request, peer, issued, roster, &[], NOW).unwrap_err()
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let roster = Roster::default();
        let peer = NodeId([2; 32]);
        assert_eq!(
            admit(&request(), peer, Some(&good()), &roster, &[], NOW),
            Ok(())
        );
        assert!(refusal(&request(), None, &roster).contains("not known"));
        let expired = Issued {
            expires: NOW / 1000 - 5,
            ..good()
        };
        assert!(refusal(&request(), Some(&expired), &roster).contains("expired 5 s ago"));
        let used = Issued {
            used_by: Some(NodeId([9; 32])),
            ..good()
        };
        assert!(refusal(&request(), Some(&used), &roster).contains("was used by node 0909"));
        let late = JoinRequest {
            time: NOW - 120_000,
            ..request()
        };
        assert!(refusal(&late, Some(&good()), &roster).contains("120 s behind"));
        let newer = JoinRequest {
            version: 9,
            ..request()
        };
        assert!(refusal(&newer, Some(&good()), &roster).contains("9 there"));
        let bad = JoinRequest {
            name: "a b".to_owned(),
            ..request()
        };
        assert!(refusal(&bad, Some(&good()), &roster).contains("no name for a node"));
    }

    #[test]
    fn nobody_takes_the_place_of_another() {
        let peer = NodeId([2; 32]);
        let member = |name: &str| Member {
            name: name.to_owned(),
            ..Member::default()
        };
        let taken = Roster {
            members: [(NodeId([3; 32]), member("b"))].into(),
            ..Roster::default()
        };
        assert!(refusal(&request(), Some(&good()), &taken).contains("is taken by node"));
        let twice = Roster {
            members: [(peer, member("x"))].into(),
            ..Roster::default()
        };
        assert!(refusal(&request(), Some(&good()), &twice).contains("is a member already"));
        let removed = Roster {
            removed: [peer].into(),
            ..Roster::default()
        };
        assert!(refusal(&request(), Some(&good()), &removed).contains("was removed"));
        let key = [Key::new("stack", "web")];
        let both = admit(
            &request(),
            peer,
            Some(&good()),
            &Roster::default(),
            &key,
            NOW,
        );
        assert!(both.unwrap_err().contains("stack web"));
        // Whose answer was lost may ask again.
        let used = Issued {
            used_by: Some(peer),
            ..good()
        };
        assert_eq!(
            admit(&request(), peer, Some(&used), &twice, &[], NOW),
            Ok(())
        );
    }
}
