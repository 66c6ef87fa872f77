//! `wharfie doctor`.

use std::path::PathBuf;

use anstyle::Style;
use clap::Args;
use serde_json::json;
use wharfie_host::doctor::{self, Finding, Settings, Verdict};

use crate::agent::settings::default_state_dir;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Listing, style};

/// Checks whether this host is fit for Wharfie, and says how to mend what is not.
///
/// Nothing is changed. The exit code is 1 if something is broken; warnings do not count.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie doctor\n  wharfie doctor --format json | jq '.[] | select(.verdict != \"ok\")'"
)]
pub(crate) struct Doctor {
    /// Directory of the agent's state [default: /var/lib/wharfie]
    #[arg(
        long,
        env = "WHARFIE_STATE_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    state_dir: Option<PathBuf>,
    /// Socket of the agent [default: /run/wharfie/wharfie.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Listing,
}

impl Doctor {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let findings = doctor::examine(&Settings {
            engine: context.global.host.clone(),
            state_dir: self.state_dir.clone().unwrap_or_else(default_state_dir),
            socket: self.socket.clone().unwrap_or_else(|| context.socket()),
        })
        .await;
        match self.format {
            Listing::Json => output::json(&json!(findings))?,
            Listing::Table => output::print(&table(&findings))?,
        }
        match findings
            .iter()
            .filter(|f| f.verdict == Verdict::Broken)
            .count()
        {
            0 => Ok(()),
            1 => Err(Failure::failed(
                "something is broken: Wharfie cannot work like this",
            )),
            n => Err(Failure::failed(format!(
                "{n} things are broken: Wharfie cannot work like this"
            ))),
        }
    }
}

fn words(verdict: Verdict) -> (&'static str, Style) {
    match verdict {
        Verdict::Ok => ("ok", style::DONE),
        Verdict::Unknown => ("unknown", style::QUIET),
        Verdict::Warning => ("warning", style::WARNING),
        Verdict::Broken => ("broken", style::ERROR),
    }
}

/// A line each, and one more with what to do.
fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (word, style) = words(finding.verdict);
        let (on, off) = (style.render(), style.render_reset());
        text.push_str(&format!(
            "{on}{word:<8}{off} {:<width$}  {}\n",
            finding.check, finding.seen
        ));
        if let Some(mend) = &finding.mend {
            let (on, off) = (style::HELP.render(), style::HELP.render_reset());
            text.push_str(&format!("{:9}{:<width$}  {on}mend:{off} {mend}\n", "", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below() {
        let finding = |check: &str, verdict, mend: Option<&str>| Finding {
            check: check.to_owned(),
            verdict,
            seen: "seen".to_owned(),
            mend: mend.map(str::to_owned),
        };
        let findings = [
            finding("Engine", Verdict::Ok, None),
            finding("port 53/udp", Verdict::Warning, Some("stop it")),
        ];
        let plain = anstream::adapter::strip_str(&table(&findings)).to_string();
        assert_eq!(
            plain,
            "ok       Engine       seen\n\
             warning  port 53/udp  seen\n\
             \x20                     mend: stop it\n"
        );
    }
}
