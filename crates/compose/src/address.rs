//! `x-wharfie.address`, and what goes with it: what cannot be.

use std::net::IpAddr;

use serde_json::Value;

use crate::model::{Extensions, Project, Service};

fn setting<'a>(extensions: &'a Extensions, key: &str) -> Option<&'a Value> {
    extensions.get("x-wharfie")?.get(key)
}

fn wanted(extensions: &Extensions) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match setting(extensions, "address") {
        None => Vec::new(),
        Some(Value::Array(values)) => values.iter().map(text).collect(),
        Some(value) => vec![text(value)],
    }
}

/// Checks what holds for all services: an address is one service's.
pub(crate) fn check_stack(project: &Project, fault: &mut dyn FnMut(String, String)) {
    for (i, text) in wanted(&project.extensions).iter().enumerate() {
        let path = format!("x-wharfie.address[{i}]");
        match text.parse::<IpAddr>() {
            Ok(_) => fault(
                path,
                format!(
                    "the address {text} is of all services here; only one can have it: say it there"
                ),
            ),
            Err(_) => check(path, text, fault),
        }
    }
    let mut taken: Vec<(IpAddr, &str)> = Vec::new();
    for (name, service) in &project.services {
        for (i, text) in wanted(&service.extensions).iter().enumerate() {
            let Ok(address) = text.parse::<IpAddr>() else {
                continue;
            };
            match taken
                .iter()
                .find(|(a, other)| *a == address && *other != name.as_str())
            {
                Some((_, other)) => fault(
                    format!("services.{name}.x-wharfie.address[{i}]"),
                    format!("services `{other}` and `{name}` want the same address {address}"),
                ),
                None => taken.push((address, name)),
            }
        }
    }
}

/// Checks one service.
pub(crate) fn check_service(name: &str, service: &Service, fault: &mut dyn FnMut(String, String)) {
    let wanted = wanted(&service.extensions);
    let path = format!("services.{name}.x-wharfie.address");
    for (i, text) in wanted.iter().enumerate() {
        check(format!("{path}[{i}]"), text, fault);
    }
    let all: Vec<IpAddr> = wanted.iter().filter_map(|t| t.parse().ok()).collect();
    let of = |ipv6| all.iter().filter(|a| a.is_ipv6() == ipv6).count();
    if of(false) > 1 || of(true) > 1 {
        fault(
            path.clone(),
            format!(
                "service `{name}` wants several addresses of one family; it has one of IPv4 and one of IPv6"
            ),
        );
    }
    let per_task =
        setting(&service.extensions, "address-per").and_then(Value::as_str) == Some("task");
    if per_task && !all.is_empty() {
        fault(
            path.clone(),
            format!(
                "service `{name}` wants an address for each task, and says which one; leave one of them out"
            ),
        );
    }
    let other = match service.network_mode.as_str() {
        "none" => Some("has no network".to_owned()),
        mode => {
            let other = mode
                .strip_prefix("service:")
                .or(mode.strip_prefix("container:"));
            other.map(|other| format!("shares the network of `{other}`; say it there"))
        }
    };
    if let Some(why) = other.filter(|_| wanted.iter().any(|t| t != "false")) {
        fault(
            path,
            format!("service `{name}` cannot have an address of its own: it {why}"),
        );
    }
}

fn check(path: String, text: &str, fault: &mut dyn FnMut(String, String)) {
    if !matches!(text, "true" | "false") && text.parse::<IpAddr>().is_err() {
        fault(
            path,
            format!("{text:?} is neither an address such as 192.168.122.15 nor true or false"),
        );
    }
}
