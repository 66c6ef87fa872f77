//! `wharfie install`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::network;
use crate::context::Context;
use crate::control::Client;
use crate::failure::Failure;
use crate::install::{self, Item, Outcome, What};
use crate::output;

/// Installs the program, its systemd unit, manual pages and completions.
///
/// The agent is to start at every boot. What is there already and right is left alone, so that the
/// same command upgrades. --uninstall removes what was written, and what networks left in the kernel, once
/// the agent is stopped; state and containers stay.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie install && systemctl daemon-reload && systemctl start wharfie\n  wharfie install --dry-run               what would be written\n  wharfie install --root /tmp/package     into a directory, to make a package of it\n  wharfie install --uninstall"
)]
pub(crate) struct Install {
    /// Write below this directory
    #[arg(long, default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// Do not let the agent start at boot
    #[arg(long)]
    no_enable: bool,
    /// Remove what was installed
    #[arg(long, conflicts_with = "no_enable")]
    uninstall: bool,
}

impl Install {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::failed(format!("cannot find this program: {e}")))?;
        let items = install::items(&program, !self.no_enable || self.uninstall)?;
        let before = self.installed();
        // All is done before anything is told: a reader that goes away must not stop it halfway.
        let mut told = Vec::new();
        let done = if self.uninstall {
            if self.root == Path::new("/") {
                sweep(context, &mut told).await?;
            }
            self.take_away(context, &items, before, &mut told)
        } else {
            self.put(context, &items, &before, &mut told)
        };
        let nothing = told.is_empty();
        output::lines(told)?;
        done?;
        if nothing {
            output::say("Nothing of Wharfie is installed here");
        } else {
            self.next(context.dry_run());
        }
        Ok(())
    }

    fn put(
        &self,
        context: &Context,
        items: &[Item],
        before: &[PathBuf],
        told: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let dry = context.dry_run();
        for item in items {
            let outcome = install::put(&self.root, item, dry)?;
            told.push(format!(
                "{} {}",
                verb(item, outcome),
                self.shown(&item.path)
            ));
        }
        // What an older version had, and this one has not.
        let wanted: BTreeSet<&PathBuf> = items.iter().map(|i| &i.path).collect();
        for path in before.iter().filter(|p| !wanted.contains(p)) {
            if install::remove(&self.root, path, dry)? {
                told.push(format!("remove {}", self.shown(path)));
            }
        }
        Ok(())
    }

    fn take_away(
        &self,
        context: &Context,
        items: &[Item],
        before: Vec<PathBuf>,
        told: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let mut done = BTreeSet::new();
        for path in before
            .into_iter()
            .chain(items.iter().map(|i| i.path.clone()))
        {
            if done.insert(path.clone()) && install::remove(&self.root, &path, context.dry_run())? {
                told.push(format!("remove {}", self.shown(&path)));
            }
        }
        Ok(())
    }

    /// What a former `install` wrote.
    fn installed(&self) -> Vec<PathBuf> {
        let list = self.root.join(install::LIST.trim_start_matches('/'));
        let text = fs::read_to_string(list).unwrap_or_default();
        text.lines().map(PathBuf::from).collect()
    }

    fn shown(&self, path: &Path) -> String {
        let inside = path.strip_prefix("/").unwrap_or(path);
        self.root.join(inside).display().to_string()
    }

    /// Says what is left to do, where there is a systemd to do it with.
    fn next(&self, dry: bool) {
        if dry || self.root != Path::new("/") {
            return;
        }
        let systemd = Path::new("/run/systemd/system").is_dir();
        match (systemd, self.uninstall) {
            (true, true) => output::say("Now: systemctl daemon-reload"),
            (true, false) => output::say("Now: systemctl daemon-reload && systemctl start wharfie"),
            (false, true) => {}
            (false, false) => {
                output::say("systemd does not run here: `wharfie agent` starts the agent");
            }
        }
    }
}

/// Takes away what networks left in the kernel: with the program gone nobody else could.
async fn sweep(context: &Context, told: &mut Vec<String>) -> Result<(), Failure> {
    let socket = context.socket();
    if Client::new(socket.clone()).info().await?.is_some() {
        return Err(
            Failure::failed(format!("the agent still runs, at {}", socket.display()))
                .help("`systemctl stop wharfie`, or end its process, first"),
        );
    }
    let swept = network::everything(context.global.host.as_deref(), context.dry_run()).await?;
    told.extend(swept.removed.iter().map(|r| format!("remove {r}")));
    told.extend(swept.kept.iter().map(|k| format!("keep {k}")));
    Ok(())
}

fn verb(item: &Item, outcome: Outcome) -> &'static str {
    match (outcome, &item.what) {
        (Outcome::Same, _) => "keep",
        (Outcome::Changed, _) => "replace",
        (Outcome::New, What::File(_)) => "write",
        (Outcome::New, What::Program(_)) => "copy",
        (Outcome::New, What::Link(_)) => "link",
    }
}
