//! The page as a browser gets it.

use std::fmt::Write as _;

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    /// Number.
    pub(super) number: u16,
    /// `http` or `https` if it speaks that; else `tcp` or `udp`.
    pub(super) scheme: String,
}

/// A service on the page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// What it is called.
    pub(super) name: String,
    /// Where a browser finds it: a name, or an address; empty if nowhere.
    pub(super) host: String,
    /// Its addresses.
    pub(super) addresses: Vec<String>,
    /// Its ports.
    pub(super) ports: Vec<Port>,
    /// Its stack; empty if it is of none.
    pub(super) stack: String,
    /// Nodes that its containers are on.
    pub(super) nodes: Vec<String>,
    /// How it is.
    pub(super) state: String,
    /// Whether that is well.
    pub(super) well: bool,
}

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;\
    color:#222;background:#fff}table{border-collapse:collapse;width:100%}th,td{text-align:left;\
    padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}th{font-weight:600}\
    .no{color:#a00}small{color:#666}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}\
    th,td{border-color:#444}a{color:#8bf}.no{color:#f88}}";

/// Text as it stands in HTML.
fn text(of: &str) -> String {
    let mut out = String::with_capacity(of.len());
    for c in of.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn link(row: &Row, port: &Port) -> String {
    let number = port.number;
    let usual = matches!(
        (port.scheme.as_str(), number),
        ("http", 80) | ("https", 443)
    );
    let host = match row.host.contains(':') {
        true => format!("[{}]", row.host),
        false => row.host.clone(),
    };
    match port.scheme.as_str() {
        "http" | "https" if !row.host.is_empty() => {
            let behind = if usual {
                String::new()
            } else {
                format!(":{number}")
            };
            let to = text(&format!("{}://{host}{behind}/", port.scheme));
            format!("<a href=\"{to}\">{number}</a>")
        }
        scheme => format!("<small>{number}/{}</small>", text(scheme)),
    }
}

/// The page.
pub(super) fn page(title: &str, rows: &[Row]) -> String {
    let title = text(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}</h1>\n"
    );
    if rows.is_empty() {
        out.push_str("<p>Nothing runs here.</p>\n");
    } else {
        out.push_str("<table><tr><th>Service</th><th>Ports</th><th>Address</th><th>Stack</th><th>Node</th><th>State</th></tr>\n");
    }
    for row in rows {
        let first = row.ports.iter().find(|p| p.scheme.starts_with("http"));
        let name = match first.filter(|_| !row.host.is_empty()) {
            Some(port) => link(row, port).replace(
                &format!(">{}<", port.number),
                &format!(">{}<", text(&row.name)),
            ),
            None => text(&row.name),
        };
        let ports: Vec<String> = row.ports.iter().map(|p| link(row, p)).collect();
        let class = if row.well { "" } else { " class=\"no\"" };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "<tr><td>{name}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td{class}>{}</td></tr>",
            ports.join(" "),
            text(&row.addresses.join(" ")),
            text(&row.stack),
            text(&row.nodes.join(" ")),
            text(&row.state),
        );
    }
    if !rows.is_empty() {
        out.push_str("</table>\n");
    }
    out.push_str("</body></html>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16, scheme: &str) -> Port {
        Port {
            number,
            scheme: scheme.to_owned(),
        }
    }

    #[test]
    fn what_speaks_http_is_a_link() {
        let row = Row {
            name: "jenkins".to_owned(),
            host: "jenkins.toolbox.example.com".to_owned(),
            ports: vec![port(8080, "http"), port(50000, "tcp")],
            state: "ready".to_owned(),
            well: true,
            ..Row::default()
        };
        let html = page("Tools", &[row]);
        assert!(html.contains("<h1>Tools</h1>"), "{html}");
        assert!(
            html.contains("<a href=\"http://jenkins.toolbox.example.com:8080/\">jenkins</a>"),
            "{html}"
        );
        assert!(html.contains("<small>50000/tcp</small>"), "{html}");
        assert!(!html.contains("class=\"no\""), "{html}");
    }

    #[test]
    fn nothing_that_is_shown_is_markup() {
        let row = Row {
            name: "<script>alert(1)</script>".to_owned(),
            host: "fd00::1".to_owned(),
            ports: vec![port(80, "http"), port(443, "https")],
            stack: "a\"b".to_owned(),
            ..Row::default()
        };
        let html = page("<b>&", &[row]);
        assert!(
            !html.contains("<script>") && !html.contains("<b>"),
            "{html}"
        );
        assert!(
            html.contains("&lt;b&gt;&amp;") && html.contains("a&quot;b"),
            "{html}"
        );
        assert!(
            html.contains("http://[fd00::1]/\"") && html.contains("https://[fd00::1]/\""),
            "{html}"
        );
        assert!(page("x", &[]).contains("Nothing runs here"));
    }
}
