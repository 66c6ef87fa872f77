//! Networks, ports and links of a container.

use std::collections::HashMap;

use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkCreateRequest, NetworkingConfig,
    PortBinding, PortMap, VolumeCreateRequest,
};
use wharfie_compose::model::{self, Port, Service, ServiceNetwork};

use super::{Given, Wanted, list, map, shared_mode, text};
use crate::ApiVersion;

/// Networks of a service: key and attachment, highest priority first, then by name.
fn by_priority(service: &Service) -> Vec<(&str, ServiceNetwork)> {
    let mut networks: Vec<(&str, ServiceNetwork)> = service
        .networks
        .iter()
        .map(|(key, attachment)| (key.as_str(), attachment.clone().unwrap_or_default()))
        .collect();
    networks.sort_by_key(|(key, attachment)| (-attachment.priority, *key));
    networks
}

/// The network mode: the first network's name, or a mode the Engine knows.
pub(super) fn mode(wanted: &Wanted) -> String {
    let service = wanted.service;
    if !service.network_mode.is_empty() {
        return shared_mode(&service.network_mode, wanted);
    }
    match by_priority(service).first() {
        Some((key, _)) => network_name(wanted, key),
        None => "none".to_owned(),
    }
}

fn network_name(wanted: &Wanted, key: &str) -> String {
    wanted
        .project
        .networks
        .get(key)
        .map_or_else(|| key.to_owned(), |n| n.name.clone())
}

/// Who answers for names on the networks of a container, that of the first network first.
pub(super) fn resolvers(wanted: &Wanted) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    if wanted.service.network_mode.is_empty() {
        for (key, _) in by_priority(wanted.service) {
            let given = wanted.given.get(&network_name(wanted, key));
            let resolver = given.and_then(|g| g.resolver).map(|r| r.to_string());
            all.extend(resolver.filter(|r| !all.contains(r)));
        }
    }
    all
}

/// Endpoints in the create request, and those to be connected afterwards: before API 1.44 a
/// container is made with one network.
pub(super) fn networking(
    wanted: &Wanted,
    name: &str,
    api: ApiVersion,
) -> (Option<NetworkingConfig>, Vec<(String, EndpointSettings)>) {
    if !wanted.service.network_mode.is_empty() {
        return (None, Vec::new());
    }
    let mut endpoints = connections(wanted, name, api);
    let rest = if api >= ApiVersion(1, 44) || endpoints.is_empty() {
        Vec::new()
    } else {
        endpoints.split_off(1)
    };
    let config = NetworkingConfig {
        endpoints_config: (!endpoints.is_empty()).then(|| endpoints.into_iter().collect()),
    };
    (Some(config), rest)
}

/// Every endpoint of a container, by network name, in the order of connection.
#[must_use]
pub fn connections(
    wanted: &Wanted,
    name: &str,
    api: ApiVersion,
) -> Vec<(String, EndpointSettings)> {
    by_priority(wanted.service)
        .into_iter()
        .enumerate()
        .map(|(i, (key, attachment))| {
            let network = network_name(wanted, key);
            let given = wanted.given.get(&network);
            let endpoint = endpoint(wanted, name, (&attachment, given), i == 0, api);
            (network, endpoint)
        })
        .collect()
}

fn endpoint(
    wanted: &Wanted,
    name: &str,
    (attachment, given): (&ServiceNetwork, Option<&Given>),
    first: bool,
    api: ApiVersion,
) -> EndpointSettings {
    let service = wanted.service;
    let mut aliases = vec![name.to_owned()];
    // A one-off container does not answer for its service; and where tasks are on several nodes, the
    // node's own resolver does.
    if !wanted.oneoff && given.is_none() {
        aliases.push(service.name.clone());
        aliases.extend(attachment.aliases.iter().cloned());
    }
    aliases.dedup();
    let mut options: HashMap<String, String> = attachment.driver_opts.clone().into_iter().collect();
    if !attachment.interface_name.is_empty() {
        options.insert(
            "com.docker.network.endpoint.ifname".to_owned(),
            attachment.interface_name.clone(),
        );
    }
    let or_given = |said: &str, given: Option<String>| text(said).or(given);
    let v4 = given.and_then(|g| g.v4).map(|a| a.to_string());
    let v6 = given.and_then(|g| g.v6).map(|a| a.to_string());
    let ipam = EndpointIpamConfig {
        ipv4_address: or_given(&attachment.ipv4_address, v4),
        ipv6_address: or_given(&attachment.ipv6_address, v6),
        link_local_ips: list(attachment.link_local_ips.clone()),
    };
    let fixed = ipam != EndpointIpamConfig::default();
    let mac =
        text(&attachment.mac_address).or_else(|| text(&service.mac_address).filter(|_| first));
    EndpointSettings {
        aliases: Some(aliases),
        links: list(links(wanted)),
        mac_address: mac,
        driver_opts: map(options),
        gw_priority: (api >= ApiVersion(1, 48) && attachment.gw_priority != 0)
            .then_some(attachment.gw_priority),
        ipam_config: fixed.then_some(ipam),
        ..EndpointSettings::default()
    }
}

/// Links as `container:alias`: each container of the service by its own name, its number and
/// the alias, as docker compose does.
fn links(wanted: &Wanted) -> Vec<String> {
    let mut links = Vec::new();
    for link in &wanted.service.links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        for (container, number) in wanted.others.get(name).into_iter().flatten().zip(1..) {
            links.push(format!("{}:{alias}", container.name));
            links.push(format!("{}:{name}-{number}", container.name));
            links.push(format!("{}:{}", container.name, container.name));
        }
    }
    for link in &wanted.service.external_links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        links.push(format!("{name}:{alias}"));
    }
    links
}

/// Published ports by `port/protocol`.
pub(super) fn ports<'a>(ports: impl IntoIterator<Item = &'a Port>) -> PortMap {
    let mut map: PortMap = HashMap::new();
    for port in ports {
        let protocol = if port.protocol.is_empty() {
            "tcp"
        } else {
            &port.protocol
        };
        let binding = PortBinding {
            host_ip: text(&port.host_ip),
            host_port: text(&port.published),
        };
        map.entry(format!("{}/{protocol}", port.target))
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    map
}

/// Ports of an `expose` entry: one, or a range, as `port/protocol`.
pub(super) fn exposed(entry: &str) -> Vec<String> {
    let (range, protocol) = entry.split_once('/').unwrap_or((entry, "tcp"));
    match range.split_once('-') {
        Some((first, last)) => match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).map(|p| format!("{p}/{protocol}")).collect(),
            _ => vec![format!("{range}/{protocol}")],
        },
        None => vec![format!("{range}/{protocol}")],
    }
}

/// The request that makes a network of a project (`POST /networks/create`).
#[must_use]
pub fn network_request(project: &str, key: &str, network: &model::Network) -> NetworkCreateRequest {
    let hash = wharfie_compose::network_hash(network);
    let labels = wharfie_core::labels::resource(
        project,
        wharfie_core::labels::NETWORK,
        key,
        &hash,
        &network.labels,
    );
    let ipam = &network.ipam;
    let has_ipam = !ipam.driver.is_empty() || !ipam.config.is_empty() || !ipam.options.is_empty();
    NetworkCreateRequest {
        name: network.name.clone(),
        // On one host an overlay is a bridge.
        driver: text(&network.driver).filter(|d| d != "overlay"),
        internal: network.internal.then_some(true),
        attachable: network.attachable.then_some(true),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        options: map(network.driver_opts.clone().into_iter().collect()),
        ipam: has_ipam.then(|| Ipam {
            driver: text(&ipam.driver),
            options: map(ipam.options.clone().into_iter().collect()),
            config: list(
                ipam.config
                    .iter()
                    .map(|pool| IpamConfig {
                        subnet: text(&pool.subnet),
                        ip_range: text(&pool.ip_range),
                        gateway: text(&pool.gateway),
                        auxiliary_addresses: map(pool.aux_addresses.clone().into_iter().collect()),
                    })
                    .collect(),
            ),
        }),
        labels: Some(labels.into_iter().collect()),
        ..NetworkCreateRequest::default()
    }
}

/// The request that makes a volume of a project (`POST /volumes/create`).
#[must_use]
pub fn volume_request(project: &str, key: &str, volume: &model::Volume) -> VolumeCreateRequest {
    let hash = wharfie_compose::volume_hash(volume);
    let labels = wharfie_core::labels::resource(
        project,
        wharfie_core::labels::VOLUME,
        key,
        &hash,
        &volume.labels,
    );
    VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: text(&volume.driver),
        driver_opts: map(volume.driver_opts.clone().into_iter().collect()),
        labels: Some(labels.into_iter().collect()),
        ..VolumeCreateRequest::default()
    }
}
