//! Another address for a container that runs.

use std::net::{Ipv4Addr, Ipv6Addr};

use bollard::models::{EndpointIpamConfig, NetworkConnectRequest, NetworkDisconnectRequest};

use crate::{Engine, Error};

impl Engine {
    /// Gives a container these addresses on a network that it is on: it is cut off and connected again
    /// (`POST /networks/{name}/disconnect` and `…/connect`), as it was otherwise.
    ///
    /// # Errors
    /// The Engine refuses it. The container may then be on the network no longer.
    pub async fn readdress(
        &self,
        network: &str,
        id: &str,
        (v4, v6): (Option<Ipv4Addr>, Option<Ipv6Addr>),
    ) -> Result<(), Error> {
        let inspected = self.inspect(id).await?;
        let endpoints = inspected.network_settings.and_then(|s| s.networks);
        let endpoint = endpoints.and_then(|mut all| all.remove(network));
        let mut endpoint = endpoint.unwrap_or_default();
        // What the Engine found out is not ours to say.
        endpoint.endpoint_id = None;
        endpoint.network_id = None;
        endpoint.gateway = None;
        endpoint.ip_address = None;
        endpoint.ip_prefix_len = None;
        endpoint.ipv6_gateway = None;
        endpoint.global_ipv6_address = None;
        endpoint.global_ipv6_prefix_len = None;
        endpoint.mac_address = None;
        endpoint.dns_names = None;
        endpoint.ipam_config = Some(EndpointIpamConfig {
            ipv4_address: v4.map(|a| a.to_string()),
            ipv6_address: v6.map(|a| a.to_string()),
            ..EndpointIpamConfig::default()
        });
        let doing = |what: &str| format!("cannot {what} {id} and network {network}");
        let request = NetworkDisconnectRequest {
            container: id.to_owned(),
            force: Some(true),
        };
        let done = self.docker.disconnect_network(network, request).await;
        done.map_err(|e| Error::from_engine(doing("part"), e))?;
        let request = NetworkConnectRequest {
            container: id.to_owned(),
            endpoint_config: Some(endpoint),
        };
        let done = self.docker.connect_network(network, request).await;
        done.map_err(|e| Error::from_engine(doing("join"), e))
    }
}
