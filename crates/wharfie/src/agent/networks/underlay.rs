//! The address of this host that packets between containers of nodes come from and go to: looked for
//! again and again, told to the others, and remembered once others were seen to reach it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};
use wharfie_cluster::Replica;
use wharfie_core::network::underlay::{Known, Underlay, choose, fault};
use wharfie_core::report::NetworkFault;

use super::faults::Round;
use crate::agent::keeper::{Keeper, with_replica};

/// Where the store remembers it.
const KEPT: &str = "underlay";
/// Who says what is wrong with it.
const SOURCE: &str = "underlay";
/// How often is looked: addresses that come and go tell nobody.
const LOOK: Duration = Duration::from_secs(5);
/// The same as long as something is wrong.
const SOON: Duration = Duration::from_secs(1);

/// This host's address among nodes.
#[derive(Debug, Default)]
pub(in crate::agent) struct Base(Mutex<Option<IpAddr>>);

impl Base {
    /// As it was when the agent ended: the others are not told another one for the moment in which
    /// nobody is linked yet.
    pub(in crate::agent) fn read(replica: &Replica) -> Result<Self, wharfie_cluster::Error> {
        Ok(Self(Mutex::new(kept(replica)?)))
    }

    fn set(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *own, address)
    }

    fn get(&self) -> Option<IpAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kept(replica: &Replica) -> Result<Option<IpAddr>, wharfie_cluster::Error> {
    let bytes = replica.store().local(KEPT)?;
    Ok(bytes.and_then(|b| std::str::from_utf8(&b).ok()?.parse().ok()))
}

impl Keeper {
    /// What the others are told.
    pub(in crate::agent) fn underlay(&self) -> Option<IpAddr> {
        let told = self.settings.borrow().network.address;
        told.or_else(|| self.base.get())
            .filter(|_| !self.is_alone())
    }

    /// What is known now; nothing while the node is alone.
    async fn known(self: &Arc<Self>) -> Option<Known> {
        let told = self.settings.borrow().network.address;
        let keeper = Arc::clone(self);
        let look = with_replica(&self.replica, move |replica| {
            let Some(place) = keeper.fleet.place() else {
                return Ok(None);
            };
            let others = keeper.fleet.remaining().len().saturating_sub(1);
            Ok(Some(Known {
                told,
                others,
                here: place.here,
                open: place.open,
                advertised: place.advertised,
                reached: place.reached,
                kept: kept(replica)?,
            }))
        });
        look.await.unwrap_or_else(|e| {
            warn!("this node's address cannot be looked up: {}", e.text());
            None
        })
    }

    /// Looks once; why nothing passes, if so.
    async fn find_underlay(self: &Arc<Self>) -> Option<NetworkFault> {
        let known = self.known().await?;
        let Underlay { address, stays } = choose(&known);
        if stays && address != known.kept {
            let text = address.map(|a| a.to_string()).unwrap_or_default();
            let wrote = with_replica(&self.replica, move |replica| {
                replica.store().set_local(KEPT, Some(text.as_bytes()))
            });
            if let Err(e) = wrote.await {
                warn!("this node's address is not remembered: {}", e.text());
            }
        }
        if self.base.set(address) != address {
            if let Some(address) = address {
                info!("packets between containers of nodes come from {address}");
            }
            self.news.send_modify(|news| news.tell());
        }
        if self.is_alone() {
            return None;
        }
        let members = self.fleet.remaining();
        let (mut name, mut others) = ("", Vec::new());
        for node in &members {
            match node.me {
                true => name = &node.name,
                // What is known of one that is away is old.
                false if !node.may_answer() => {}
                false => {
                    let said = self.fleet.report_of(node).and_then(|r| r.underlay);
                    others.extend(said.map(|a| (node.name.as_str(), a)));
                }
            }
        }
        fault(&known, (name, address), &others).map(|what| NetworkFault {
            between: true,
            what,
            ..NetworkFault::default()
        })
    }
}

/// Keeps it up to date, for ever.
pub(in crate::agent) async fn keep(keeper: Arc<Keeper>) {
    let mut settings = keeper.settings.subscribe();
    let mut round = Round::default();
    loop {
        let fault = keeper.find_underlay().await;
        let wrong = fault.is_some();
        fault.into_iter().for_each(|f| round.say(f));
        let (lasting, _) = round.end();
        keeper.set_network_faults(SOURCE, lasting);
        tokio::select! {
            // The sender is the keeper's own: it lives as long as this.
            Ok(()) = settings.changed() => {}
            () = tokio::time::sleep(if wrong { SOON } else { LOOK }) => {}
        }
    }
}
