//! Networks of an Engine.

use std::collections::BTreeMap;

use bollard::query_parameters::ListNetworksOptions;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Engine, Error};

/// A network of an Engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalNetwork {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// `local`, or what the driver says.
    pub scope: String,
    /// No way out of it.
    pub internal: bool,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Subnets.
    pub subnets: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    /// All networks, by name (`GET /networks`).
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn local_networks(&self) -> Result<Vec<LocalNetwork>, Error> {
        let list = self.docker.list_networks(None::<ListNetworksOptions>).await;
        let list = list.map_err(|e| Error::from_engine("cannot list networks", e))?;
        let mut networks: Vec<LocalNetwork> = list
            .into_iter()
            .map(|n| {
                let pools = n.ipam.and_then(|i| i.config).unwrap_or_default();
                LocalNetwork {
                    id: n.id.unwrap_or_default(),
                    name: n.name.unwrap_or_default(),
                    driver: n.driver.unwrap_or_default(),
                    scope: n.scope.unwrap_or_default(),
                    internal: n.internal.unwrap_or(false),
                    ipv6: n.enable_ipv6.unwrap_or(false),
                    subnets: pools.into_iter().filter_map(|p| p.subnet).collect(),
                    labels: n.labels.unwrap_or_default().into_iter().collect(),
                }
            })
            .collect();
        networks.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(networks)
    }

    /// All that the Engine says of a network (`GET /networks/{id}`); `None` if there is none.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn network(&self, name: &str) -> Result<Option<Value>, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(plain) {
            // It goes into a path, and is none of the Engine's names.
            return Ok(None);
        }
        let context = format!("cannot inspect network {name}");
        let path = format!("/v{}/networks/{name}", self.api());
        match self.get_json(&path, &context).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes a network that no container is on (`DELETE /networks/{id}`); false if there was none.
    ///
    /// # Errors
    /// The Engine cannot be reached or refuses.
    pub async fn remove_local_network(&self, name: &str) -> Result<bool, Error> {
        let removed = self.docker.remove_network(name).await;
        match removed.map_err(|e| Error::from_engine(format!("cannot remove network {name}"), e)) {
            Ok(()) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }
}
