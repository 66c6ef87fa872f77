//! Create requests of 2014 in the form that today's Engines take.
//!
//! DockerMod's templates were written for API 1.15. Since then limits and some others moved from
//! the request itself into its `HostConfig`, texts became lists, and `PortSpecs` went, which the
//! Engine of those days turned into `ExposedPorts`.

use serde_json::{Map, Value, json};

/// What stood beside `HostConfig` and belongs into it, and its name there.
const MOVED: [(&str, &str); 7] = [
    ("Memory", "Memory"),
    ("MemorySwap", "MemorySwap"),
    ("CpuShares", "CpuShares"),
    ("Cpuset", "CpusetCpus"),
    ("Dns", "Dns"),
    ("VolumesFrom", "VolumesFrom"),
    ("Privileged", "Privileged"),
];

/// What was a text and is a list.
const LISTS: [&str; 2] = ["Dns", "VolumesFrom"];

/// Brings a create request up to date; one that is stays as it is.
pub(super) fn modern(mut body: Map<String, Value>) -> Map<String, Value> {
    expose(&mut body);
    let moved: Vec<(&str, Value)> = MOVED
        .iter()
        .filter_map(|(old, new)| Some((*new, body.shift_remove(*old)?)))
        .filter(|(_, value)| says_something(value))
        .collect();
    if !moved.is_empty() {
        let host = body.entry("HostConfig").or_insert(Value::Null);
        if host.is_null() {
            *host = json!({});
        }
        if let Some(host) = host.as_object_mut() {
            for (name, value) in moved {
                if !host.get(name).is_some_and(says_something) {
                    host.insert(name.to_owned(), value);
                }
            }
        }
    }
    if let Some(host) = body.get_mut("HostConfig").and_then(Value::as_object_mut) {
        for name in LISTS {
            let Some(Value::String(text)) = host.get(name) else {
                continue;
            };
            let items: Vec<&str> = text.split(',').filter(|i| !i.is_empty()).collect();
            let items = json!(items);
            host.insert(name.to_owned(), items);
        }
    }
    body
}

/// Makes `ExposedPorts` of `PortSpecs`: `80`, `53/udp`, `8080:80`.
fn expose(body: &mut Map<String, Value>) {
    let Some(Value::Array(specs)) = body.shift_remove("PortSpecs") else {
        return;
    };
    let ports = specs.iter().filter_map(Value::as_str).map(|spec| {
        let port = spec.rsplit(':').next().unwrap_or(spec);
        if port.contains('/') {
            port.to_owned()
        } else {
            format!("{port}/tcp")
        }
    });
    let ports: Vec<String> = ports.collect();
    if ports.is_empty() {
        return;
    }
    let exposed = body.entry("ExposedPorts").or_insert(Value::Null);
    if exposed.is_null() {
        *exposed = json!({});
    }
    if let Some(exposed) = exposed.as_object_mut() {
        for port in ports {
            exposed.entry(port).or_insert_with(|| json!({}));
        }
    }
}

/// Whether a value is more than what the Engine takes anyway.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_modern(body: Value) -> Value {
        Value::Object(modern(body.as_object().cloned().unwrap()))
    }

    #[test]
    fn what_says_nothing_goes() {
        let old = json!({
            "Hostname": "a", "Memory": 0, "MemorySwap": 0, "PortSpecs": null, "Privileged": false,
            "Env": null, "Dns": null, "Image": "ubuntu", "VolumesFrom": "",
            "HostConfig": {"PublishAllPorts": true, "VolumesFrom": ""},
        });
        let new = json!({
            "Hostname": "a", "Env": null, "Image": "ubuntu",
            "HostConfig": {"PublishAllPorts": true, "VolumesFrom": []},
        });
        assert_eq!(made_modern(old), new);
    }

    #[test]
    fn what_says_something_moves() {
        let old = json!({
            "Image": "a", "Memory": 1024, "CpuShares": 2, "Cpuset": "0,1", "Dns": "1.1.1.1",
            "VolumesFrom": "a,b:ro", "Privileged": true, "PortSpecs": ["80", "53/udp", "8080:81"],
            "HostConfig": {"Memory": 0, "CpuShares": 9},
        });
        let new = json!({
            "Image": "a",
            "HostConfig": {
                "Memory": 1024, "CpuShares": 9, "CpusetCpus": "0,1", "Dns": ["1.1.1.1"],
                "VolumesFrom": ["a", "b:ro"], "Privileged": true,
            },
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "81/tcp": {}},
        });
        assert_eq!(made_modern(old), new);
        let without = json!({"Image": "a", "Memory": 1, "HostConfig": null});
        assert_eq!(made_modern(without)["HostConfig"], json!({"Memory": 1}));
    }

    #[test]
    fn what_is_of_today_stays() {
        let body = json!({
            "Image": "a", "Cmd": ["x"], "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {"Memory": 1024, "Dns": ["1.1.1.1"], "VolumesFrom": ["a"]},
            "NetworkingConfig": {},
        });
        assert_eq!(made_modern(body.clone()), body);
        let odd = json!({"Image": "a", "HostConfig": 3, "Memory": 5});
        assert_eq!(made_modern(odd), json!({"Image": "a", "HostConfig": 3}));
    }
}
