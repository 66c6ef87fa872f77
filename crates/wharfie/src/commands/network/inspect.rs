//! `wharfie network inspect`.

use clap::Args;
use serde_json::{Map, Value, json};
use wharfie_core::network::bridge_name;

use super::known::Known;
use crate::api_network::NetworkInfo;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Shows all that is known of networks, as JSON.
///
/// Of a network of the cluster: who has which addresses of it on all nodes, addresses of services, and
/// what is not as it should be.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie network inspect shop_default")]
pub(super) struct Inspect {
    /// Names; or ids of networks of single nodes
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl Inspect {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let known = Known::look(context).await?;
        let mut all = Vec::new();
        for name in &self.names {
            if let Some(info) = known.of_cluster(name) {
                all.push(document(info));
                continue;
            }
            let mut found = false;
            for local in known.local.iter().filter(|l| l.is(name)) {
                let control = known.control.at_node(&local.node);
                let id = &local.network.id;
                let Some(mut value) = control.engine().network(id).await? else {
                    continue;
                };
                if !local.node.is_empty() {
                    value["Node"] = local.node.clone().into();
                }
                all.push(value);
                found = true;
            }
            if !found {
                return Err(Known::none(name));
            }
        }
        Ok(output::print(&pretty(&Value::Array(all))?)?)
    }
}

fn pretty(value: &Value) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map(|t| t + "\n")
        .map_err(|e| Failure::failed(e.to_string()))
}

/// A network of the cluster, with the Engine's words where it has any.
fn document(info: &NetworkInfo) -> Value {
    let object = &info.object;
    let pools: Vec<Value> = object
        .pools()
        .map(|pool| {
            let mut config = Map::new();
            config.insert("Subnet".to_owned(), pool.subnet.to_string().into());
            if let Some(range) = pool.range {
                config.insert("IPRange".to_owned(), range.to_string().into());
            }
            if let Some(gateway) = pool.gateway {
                config.insert("Gateway".to_owned(), gateway.to_string().into());
            }
            if !pool.kept.is_empty() {
                config.insert("AuxiliaryAddresses".to_owned(), json!(pool.kept));
            }
            config.into()
        })
        .collect();
    let containers: Map<String, Value> = info
        .containers
        .iter()
        .map(|c| {
            let value = json!({
                "Name": c.name,
                "Node": c.node,
                "Stack": c.stack,
                "Service": c.service,
                "State": c.state,
                "Addresses": c.addresses,
                "MacAddress": c.mac,
            });
            (c.id.clone(), value)
        })
        .collect();
    let bridge = bridge_name(object.vni);
    let nodes: Map<String, Value> = info
        .nodes
        .iter()
        .map(|(name, part)| {
            let value = json!({
                "Bridge": part.bridge.map(|_| &bridge),
                "MacAddress": part.bridge,
                "Slices": part.slices,
                "Gateway": part.gateway,
                "Addresses": part.own,
                "Away": part.away,
            });
            (name.clone(), value)
        })
        .collect();
    json!({
        "Name": info.name,
        "Scope": "cluster",
        "Driver": "overlay",
        "VNI": object.vni,
        "Stack": object.stack,
        "Stacks": info.stacks,
        "EnableIPv4": object.v4.is_some(),
        "EnableIPv6": object.v6.is_some(),
        "IPAM": {"Config": pools},
        "Internal": object.internal,
        "Attachable": object.attachable,
        "Encrypted": info.encrypted,
        "Options": object.options,
        "Labels": object.labels,
        "Nodes": nodes,
        "Services": info.services,
        "Containers": containers,
        "Faults": info.faults,
    })
}
