//! Short syntaxes: one string (or number) that stands for a structure.

use std::net::IpAddr;

use crate::node::{Entry, Map, Mark, Node, Value};

/// Expands a short form into one or more structures.
pub(crate) type Expand = fn(&str) -> Result<Vec<Node>, String>;

fn object<const N: usize>(entries: [(&str, Node); N]) -> Node {
    let map: Map = entries
        .into_iter()
        .map(|(k, node)| {
            (
                k.to_owned(),
                Entry {
                    key: Mark::default(),
                    node,
                },
            )
        })
        .collect();
    Value::Map(map).into()
}

fn flag(value: bool) -> Node {
    Value::Bool(value).into()
}

/// `include: [path]`.
pub(crate) fn include(text: &str) -> Result<Vec<Node>, String> {
    Ok(vec![object([(
        "path",
        Value::Seq(vec![text.into()]).into(),
    )])])
}

/// `build: context`.
pub(crate) fn build(text: &str) -> Result<Vec<Node>, String> {
    Ok(vec![object([("context", text.into())])])
}

/// `configs: [name]`, `secrets: [name]`.
pub(crate) fn file_reference(text: &str) -> Result<Vec<Node>, String> {
    Ok(vec![object([("source", text.into())])])
}

/// `env_file: path`.
pub(crate) fn env_file(text: &str) -> Result<Vec<Node>, String> {
    Ok(vec![object([
        ("path", text.into()),
        ("required", flag(true)),
    ])])
}

/// `extends: service`.
pub(crate) fn extends(text: &str) -> Result<Vec<Node>, String> {
    Ok(vec![object([("service", text.into())])])
}

/// What `depends_on: [name]` means.
pub(crate) fn dependency() -> Node {
    object([
        ("condition", "service_started".into()),
        ("required", flag(true)),
    ])
}

/// `devices: [source[:target[:permissions]]]`.
pub(crate) fn device(text: &str) -> Result<Vec<Node>, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => return Err(format!("confusing device {text:?}: use the long syntax")),
    };
    Ok(vec![object([
        ("source", source.into()),
        ("target", target.into()),
        ("permissions", permissions.into()),
    ])])
}

/// `volumes: [[source:]target[:options]]`; `C:\path` counts as one part.
pub(crate) fn volume(text: &str) -> Result<Vec<Node>, String> {
    let anonymous = |target: &str| object([("type", "volume".into()), ("target", target.into())]);
    if text.is_empty() {
        return Err("an empty volume".to_owned());
    }
    if text.len() <= 2 {
        return Ok(vec![anonymous(text)]);
    }
    let parts = volume_parts(text);
    if parts.iter().any(String::is_empty) {
        return Err(format!(
            "invalid volume {text:?}: empty section between colons"
        ));
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", target.as_str(), ""),
        [source, target] => (source.as_str(), target.as_str(), ""),
        [source, target, options] => (source.as_str(), target.as_str(), options.as_str()),
        _ => return Err(format!("invalid volume {text:?}: too many colons")),
    };
    let is_bind = is_file_path(source);
    let mut node = object([("type", if is_bind { "bind" } else { "volume" }.into())]);
    if !source.is_empty() {
        node.set("source", source.into());
    }
    node.set("target", target.into());
    let mut bind = object([]);
    let mut volume = object([]);
    let mut has_bind = is_bind;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => node.set("read_only", flag(true)),
            "rw" => {}
            "nocopy" => volume.set("nocopy", flag(true)),
            "z" | "Z" => {
                bind.set("selinux", option.into());
                has_bind = true;
            }
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                bind.set("propagation", option.into());
                has_bind = true;
            }
            // The reference ignores others too; the Engine knows some that it does not.
            _ => {}
        }
    }
    if is_bind {
        bind.set("create_host_path", flag(true));
    }
    if has_bind {
        node.set("bind", bind);
    }
    if !is_bind || volume.as_map().is_some_and(|m| !m.is_empty()) {
        node.set("volume", volume);
    }
    Ok(vec![node])
}

/// Splits at colons, but not behind a Windows drive letter.
fn volume_parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in text.chars() {
        let last = parts.len() - 1;
        let part = &mut parts[last];
        let is_drive = part.len() == 1 && part.starts_with(char::is_alphabetic);
        if c == ':' && !is_drive {
            parts.push(String::new());
        } else {
            part.push(c);
        }
    }
    parts
}

/// Whether the source of a short volume is a path of the host rather than a volume's name.
fn is_file_path(source: &str) -> bool {
    if source.starts_with(['.', '/', '~']) || source.starts_with(r"\\") {
        return true;
    }
    let mut chars = source.chars();
    chars.next().is_some_and(char::is_alphabetic) && chars.next() == Some(':')
}

/// `ports: [[[address:]published:]target[/protocol]]`, with ranges.
pub(crate) fn ports(text: &str) -> Result<Vec<Node>, String> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => (rest, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!(
            "invalid port {text:?}: the protocol must be tcp, udp or sctp"
        ));
    }
    let parts: Vec<&str> = rest.split(':').collect();
    let (address, published, target) = match parts.as_slice() {
        [target] => (String::new(), "", *target),
        [published, target] => (String::new(), *published, *target),
        [address @ .., published, target] => (address.join(":"), *published, *target),
        [] => (String::new(), "", ""),
    };
    let address = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(&address);
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!(
            "invalid port {text:?}: {address:?} is not an IP address"
        ));
    }
    if target.is_empty() {
        return Err(format!("invalid port {text:?}: no container port"));
    }
    let (first, last) = port_range(target, text)?;
    let (published_first, published_last) = if published.is_empty() {
        (0, 0)
    } else {
        port_range(published, text)?
    };
    if !published.is_empty() && last - first != published_last - published_first && first != last {
        return Err(format!(
            "invalid port {text:?}: the ranges {target} and {published} differ in length"
        ));
    }
    let mut targets: Vec<u16> = (first..=last).collect();
    // The reference orders a range by its text; lists are compared in order.
    targets.sort_by_key(|p| format!("{p}/{protocol}"));
    Ok(targets
        .into_iter()
        .map(|target| {
            let mut node = object([("mode", "ingress".into())]);
            if !address.is_empty() {
                node.set("host_ip", address.into());
            }
            node.set("target", Value::Int(i64::from(target)).into());
            if !published.is_empty() {
                let published = if first == last && published_first != published_last {
                    format!("{published_first}-{published_last}")
                } else {
                    (published_first + (target - first)).to_string()
                };
                node.set("published", published.as_str().into());
            }
            node.set("protocol", protocol.as_str().into());
            node
        })
        .collect())
}

fn port_range(range: &str, whole: &str) -> Result<(u16, u16), String> {
    let number = |s: &str| {
        s.parse::<u16>()
            .map_err(|_| format!("invalid port {whole:?}: {s:?} is not a port number (0 to 65535)"))
    };
    match range.split_once('-') {
        None => number(range).map(|n| (n, n)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(format!(
                    "invalid port {whole:?}: the range {range} runs backwards"
                ));
            }
            Ok((first, last))
        }
    }
}

/// A command line as words: quotes and backslashes as in a shell, nothing else of a shell.
/// The second value is what stands behind an unquoted `;`, `&`, `|`, `<` or `>`: the
/// reference drops it, and so the caller can say so.
pub(crate) fn words(line: &str) -> Result<(Vec<String>, Option<String>), String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices();
    while let Some((i, c)) = chars.next() {
        match (c, quote) {
            ('\\', Some('\'')) => word.get_or_insert_default().push(c),
            ('\\', _) => {
                let Some((_, next)) = chars.next() else {
                    return Err(format!("invalid command {line:?}: it ends in a backslash"));
                };
                word.get_or_insert_default().push(next);
            }
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, Some(q)) if q == c => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(c),
            (' ' | '\t' | '\r' | '\n', None) => words.extend(word.take()),
            (';' | '&' | '|' | '<' | '>', None) => {
                // `2>` begins a redirection: the digit is not a word.
                if c == '>'
                    && word
                        .as_ref()
                        .is_some_and(|w| w.starts_with(|d: char| d.is_ascii_digit()))
                {
                    word = None;
                }
                words.extend(word.take());
                return Ok((words, Some(line[i..].to_owned())));
            }
            (_, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("invalid command {line:?}: a quote is not closed"));
    }
    words.extend(word);
    Ok((words, None))
}
