//! `x-wharfie.firewall`: what its rules refer to, and what cannot go together. Their types are in
//! the schema.

use std::net::IpAddr;

use serde_json::Value;

use crate::model::{Extensions, Project, Service};

const KEY: &str = "x-wharfie";

fn settings(extensions: &Extensions) -> Option<&Value> {
    extensions.get(KEY)?.get("firewall")
}

/// Checks the firewall of the stack.
pub(crate) fn check_stack(project: &Project, fault: &mut dyn FnMut(String, String)) {
    if let Some(firewall) = settings(&project.extensions) {
        check(project, "x-wharfie.firewall", firewall, fault);
    }
}

/// Checks the firewall of a service.
pub(crate) fn check_service(
    project: &Project,
    name: &str,
    service: &Service,
    fault: &mut dyn FnMut(String, String),
) {
    let Some(firewall) = settings(&service.extensions) else {
        return;
    };
    let path = format!("services.{name}.x-wharfie.firewall");
    let why = match service.network_mode.as_str() {
        "host" => Some("is on its host's network".to_owned()),
        mode => {
            let other = mode
                .strip_prefix("service:")
                .or(mode.strip_prefix("container:"));
            other.map(|other| format!("shares the network of `{other}`; say it there"))
        }
    };
    if let Some(why) = why {
        let message = format!("service `{name}` cannot have a firewall of its own: it {why}");
        fault(path.clone(), message);
    }
    check(project, &path, firewall, fault);
}

fn check(project: &Project, path: &str, firewall: &Value, fault: &mut dyn FnMut(String, String)) {
    for direction in ["ingress", "egress"] {
        let rules = firewall.get(direction).and_then(Value::as_array);
        for (i, rule) in rules.into_iter().flatten().enumerate() {
            let path = format!("{path}.{direction}[{i}]");
            check_rule(project, &path, rule, fault);
        }
    }
}

fn check_rule(project: &Project, path: &str, rule: &Value, fault: &mut dyn FnMut(String, String)) {
    let texts = |key: &str| -> Vec<String> {
        let values = rule.get(key).and_then(Value::as_array);
        let text = |v: &Value| match v {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        values.into_iter().flatten().map(text).collect()
    };
    for (i, service) in texts("service").iter().enumerate() {
        if project.any_service(service).is_none() {
            let message =
                format!("a firewall rule names service `{service}`, which is not defined");
            fault(format!("{path}.service[{i}]"), message);
        }
    }
    for (i, network) in texts("network").iter().enumerate() {
        if !project.networks.contains_key(network) {
            let message =
                format!("a firewall rule names network `{network}`, which is not defined");
            fault(format!("{path}.network[{i}]"), message);
        }
    }
    if rule.get("cidr").is_some() && ["service", "network"].iter().any(|k| rule.get(k).is_some()) {
        let message =
            "a firewall rule has both `cidr` and `service` or `network`; keep one".to_owned();
        fault(format!("{path}.cidr"), message);
    }
    let ports = texts("ports");
    if !ports.is_empty() && texts("protocol").iter().any(|p| p == "icmp") {
        let message = "a firewall rule has `ports`, which protocol icmp has not".to_owned();
        fault(format!("{path}.ports"), message);
    }
    for (i, port) in ports.iter().enumerate().filter(|(_, p)| !is_ports(p)) {
        let message = format!("{port:?} is no port or range of ports such as 8000-8010");
        fault(format!("{path}.ports[{i}]"), message);
    }
}

fn is_ports(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => first > 0 && first <= last,
        _ => false,
    }
}

/// Whether a text is an address, or a range of addresses.
pub(crate) fn is_range(text: &str) -> bool {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let width = if address.is_ipv4() { 32 } else { 128 };
    let is_prefix = |p: &str| {
        p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u8>().is_ok_and(|p| p <= width)
    };
    prefix.is_none_or(is_prefix)
}

/// Whether a text is the name of an interface, or the beginning of one and `*`: 15 bytes with it.
pub(crate) fn is_interface(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    let plain = |c: char| c.is_ascii_graphic() && !"/*\"\\".contains(c);
    !text.is_empty() && text.len() <= 15 && name.chars().all(plain)
}
