//! `wharfie watch`, and the part of `up --watch` that watches.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use wharfie_compose::Loaded;
use wharfie_compose::model::{Hook, MountKind, Service, WatchRule};
use wharfie_core::Intent;
use wharfie_core::reconcile::{self, UpOptions, lifecycle as plans};

use super::shape::Place;
use super::up::act;
use super::watch_rules::{Action, Batch, MAKING, NEVER, Patterns, Rule, decide};
use crate::changes::{self, Changes};
use crate::context::{self, Context};
use crate::control::{Container, Control, ExecOptions, Execution};
use crate::failure::Failure;
use crate::output::progress::Mode;
use crate::output::{self, say, warn, when};
use crate::signals::Interrupts;

/// Watches source files, and brings changes into the containers as "develop.watch" says.
///
/// Starts the services first. Ends with Ctrl-C; the containers go on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie watch\n  wharfie watch --no-up web      the service runs already\n  wharfie up --watch             the same with the output of the containers"
)]
pub(crate) struct Watch {
    /// Do not build and start the services first
    #[arg(long)]
    no_up: bool,
    /// Remove images that builds have left without a name
    #[arg(
        long,
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    prune: bool,
    /// Say nothing about builds
    #[arg(long)]
    quiet: bool,
    /// Services to watch [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Watch {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let loaded = context.load(&self.services)?;
        context::check_services(&loaded.project, &self.services)?;
        let watching = Watching::new(context, &loaded, &self.services, self.quiet, self.prune)?;
        if !self.no_up {
            let options = UpOptions {
                services: self.services.clone(),
                build: true,
                now: when::now(),
                ..UpOptions::default()
            };
            act(
                context,
                &loaded,
                Place::default(),
                &options,
                &watching.execution,
                None,
            )
            .await?;
        }
        if context.dry_run() {
            return watching.describe();
        }
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            end = watching.run() => end,
            () = interrupts.next() => {
                say(" ⦿ Watch disabled");
                Err(Failure::Exit(130))
            }
        }
    }
}

/// What is watched, and what with.
pub(crate) struct Watching<'a> {
    context: Context,
    loaded: &'a Loaded,
    rules: Vec<Rule>,
    /// For each rule: its command, and whether files are copied at the start.
    extras: Vec<(Hook, bool)>,
    execution: Execution,
    prune: bool,
}

impl<'a> Watching<'a> {
    /// The rules of services (of all if none is named).
    pub(crate) fn new(
        context: &Context,
        loaded: &'a Loaded,
        services: &[String],
        quiet: bool,
        prune: bool,
    ) -> Result<Self, Failure> {
        let mut context = context.clone();
        // Nothing moves here: what is said stands between what containers say.
        if matches!(context.global.progress, Mode::Auto | Mode::Tty) {
            context.global.progress = Mode::Plain;
        }
        if quiet {
            context.global.progress = Mode::Quiet;
        }
        let project = &loaded.project;
        let selection = reconcile::selection(project, services, true)
            .map_err(|r| Failure::usage(r.to_string()))?;
        let (mut rules, mut extras) = (Vec::new(), Vec::new());
        for service in selection.into_values() {
            let written = service.develop.iter().flat_map(|d| &d.watch);
            for (index, written) in written.enumerate() {
                let at = format!("services.{}.develop.watch[{index}]", service.name);
                let fault = |reason: String| {
                    Failure::Refused(loaded.fault_at(&at, format!("{at}: {reason}")).into())
                };
                if let Some(rule) = rule(service, written).map_err(fault)? {
                    rules.push(rule);
                    extras.push((written.exec.clone(), written.initial_sync));
                }
            }
        }
        if rules.is_empty() {
            return Err(Failure::failed(
                "nothing is to be watched: none of the services has rules",
            )
            .help("write them under `develop.watch` of a service"));
        }
        Ok(Self {
            context,
            loaded,
            rules,
            extras,
            execution: Execution {
                quiet_build: quiet,
                ..Execution::default()
            },
            prune,
        })
    }

    /// Whether a change makes an image anew.
    pub(crate) fn rebuilds(&self) -> bool {
        self.rules.iter().any(|r| r.action == Action::Rebuild)
    }

    fn describe(&self) -> Result<(), Failure> {
        Ok(output::lines(self.rules.iter().map(|r| {
            format!(
                "watch {} for {}: {:?}",
                r.path.display(),
                r.service,
                r.action
            )
        }))?)
    }

    /// Watches, and never ends by itself.
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let mut roots: Vec<PathBuf> = self.rules.iter().map(|r| r.path.clone()).collect();
        roots.sort();
        roots.dedup();
        // Watched before files are looked at: no change is lost in between.
        let mut changes = Changes::watch(roots)?;
        let name = &self.loaded.project.name;
        let control = Control::acting_for(&self.context, name, None).await?;
        self.first_copy(&control).await?;
        say(" ⦿ Watch enabled");
        loop {
            let changed = changes.next().await?;
            let batch = decide(&self.rules, &changed);
            match self.follow(&control, &batch).await {
                Ok(()) => {}
                Err(failure @ (Failure::NoEngine(_) | Failure::Interrupted(_))) => {
                    return Err(failure);
                }
                // The next change may mend it.
                Err(failure) => failure.report(),
            }
        }
    }

    /// Copies what rules with `initial_sync` watch.
    async fn first_copy(&self, control: &Control) -> Result<(), Failure> {
        let making = Patterns::parse(Path::new("/"), MAKING).map_err(Failure::failed)?;
        let mut batch = Batch::default();
        for (rule, (_, first)) in self.rules.iter().zip(&self.extras) {
            if !first || !rule.action.syncs() {
                continue;
            }
            let mut rule = rule.clone();
            rule.ignore.push(making.clone());
            let mut files = BTreeSet::new();
            changes::files(&rule.path, &mut files);
            let copies = decide(std::slice::from_ref(&rule), &files).sync;
            for (service, files) in copies {
                batch.sync.entry(service).or_default().extend(files);
            }
        }
        self.copy(control, &batch).await
    }

    /// Does what follows from a change.
    async fn follow(&self, control: &Control, batch: &Batch) -> Result<(), Failure> {
        if !batch.rebuild.is_empty() {
            self.rebuild(control, &batch.rebuild).await?;
        }
        self.copy(control, batch).await?;
        if !batch.restart.is_empty() {
            self.restart(control, &batch.restart).await?;
        }
        for index in &batch.exec {
            let (Some(rule), Some((hook, _))) = (self.rules.get(*index), self.extras.get(*index))
            else {
                continue;
            };
            self.exec(control, &rule.service, hook).await?;
        }
        Ok(())
    }

    async fn rebuild(&self, control: &Control, services: &BTreeSet<String>) -> Result<(), Failure> {
        let names = list(services);
        say(&format!(
            " ⦿ Rebuilding {names} after changes were detected..."
        ));
        let options = UpOptions {
            services: services.iter().cloned().collect(),
            build: true,
            no_deps: true,
            now: when::now(),
            ..UpOptions::default()
        };
        act(
            &self.context,
            self.loaded,
            Place::default(),
            &options,
            &self.execution,
            None,
        )
        .await?;
        say(&format!(" ⦿ {names} successfully built"));
        if self.prune {
            let project = &self.loaded.project.name;
            control.engine().prune_images(project).await?;
        }
        Ok(())
    }

    async fn restart(&self, control: &Control, services: &BTreeSet<String>) -> Result<(), Failure> {
        let name = &self.loaded.project.name;
        let seen = control.observe_name(name).await?;
        let services_named: Vec<String> = services.iter().cloned().collect();
        let plan = plans::restart(&seen, &services_named, None);
        let intent = Intent::Restart {
            services: services_named,
            timeout: None,
        };
        let progress = self.context.progress();
        control
            .act(name, intent, Some(self.loaded), &plan, &progress)
            .await?;
        say(&format!(" ⦿ {} restarted", list(services)));
        Ok(())
    }

    /// Copies files into all containers of their services, and removes those that are gone.
    async fn copy(&self, control: &Control, batch: &Batch) -> Result<(), Failure> {
        for (service, files) in &batch.sync {
            let count = files.len();
            say(&format!(
                " ⦿ Syncing service {service:?} after {count} changes were detected"
            ));
            let (there, gone): (Vec<_>, Vec<_>) = files
                .iter()
                .cloned()
                .partition(|(from, _)| std::fs::symlink_metadata(from).is_ok());
            // The place of a whole rule is never removed: it may be a directory of the image.
            let is_root = |path: &PathBuf| self.rules.iter().any(|r| r.path == *path);
            let gone: Vec<String> = gone
                .into_iter()
                .filter(|(from, _)| !is_root(from))
                .map(|(_, to)| to)
                .collect();
            let containers = self.running(control, service).await?;
            let work = containers.iter().map(|c| async {
                if !gone.is_empty() {
                    remove(control, c, &gone).await?;
                }
                if !there.is_empty() {
                    let copied = control.engine().copy_files_in(&c.id, there.clone());
                    copied.await?;
                }
                Ok::<(), Failure>(())
            });
            try_join_all(work).await?;
        }
        Ok(())
    }

    async fn exec(&self, control: &Control, service: &str, hook: &Hook) -> Result<(), Failure> {
        let environment = hook.environment.iter();
        let environment = environment.map(|(k, v)| match v {
            Some(v) => format!("{k}={v}"),
            None => k.clone(),
        });
        let options = ExecOptions {
            command: hook.command.clone().unwrap_or_default(),
            environment: environment.collect(),
            user: hook.user.clone(),
            working_dir: hook.working_dir.clone(),
            privileged: hook.privileged,
            ..ExecOptions::default()
        };
        let containers = self.running(control, service).await?;
        let work = containers.iter().map(|c| run(control, c, &options));
        let failures: Vec<Failure> = join_all(work)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Failure::all(failures)),
        }
    }

    async fn running(&self, control: &Control, service: &str) -> Result<Vec<Container>, Failure> {
        let mut containers = control.containers(&self.loaded.project.name).await?;
        containers.retain(|c| !c.oneoff && c.service == service && c.is_running());
        Ok(containers)
    }
}

fn list(services: &BTreeSet<String>) -> String {
    let names: Vec<String> = services.iter().map(|s| format!("{s:?}")).collect();
    format!("service(s) {}", names.join(", "))
}

/// A rule as it is used; nothing if what it copies is in the containers anyway.
fn rule(service: &Service, written: &WatchRule) -> Result<Option<Rule>, String> {
    let Some(action) = Action::parse(&written.action) else {
        return Err(format!("{:?} is no action", written.action));
    };
    if action == Action::Rebuild && service.build.is_none() {
        return Err("action rebuild needs a `build` section".to_owned());
    }
    if action == Action::SyncExec && written.exec.command.as_ref().is_none_or(Vec::is_empty) {
        return Err("action sync+exec needs a command under `exec`".to_owned());
    }
    let path =
        std::fs::canonicalize(&written.path).map_err(|e| format!("{}: {e}", written.path))?;
    if action.syncs() && is_mounted(service, &written.path) {
        warn(&format!(
            "{} is mounted into service {:?}: it is not watched",
            written.path, service.name
        ));
        return Ok(None);
    }
    let patterns = |lines: &[String]| Patterns::parse(&path, &lines.join("\n"));
    let mut ignore = vec![Patterns::parse(Path::new("/"), NEVER)?];
    ignore.extend(docker_ignore(service)?);
    if !written.ignore.is_empty() {
        ignore.push(patterns(&written.ignore)?);
    }
    let include = match written.include.is_empty() {
        true => None,
        false => Some(patterns(&written.include)?),
    };
    Ok(Some(Rule {
        service: service.name.clone(),
        action,
        target: written.target.clone(),
        include,
        ignore,
        path,
    }))
}

/// What stays out of the service's image: the Dockerfile's own ignore file, else the context's.
fn docker_ignore(service: &Service) -> Result<Option<Patterns>, String> {
    let Some(build) = &service.build else {
        return Ok(None);
    };
    let Ok(root) = std::fs::canonicalize(&build.context) else {
        // It is elsewhere: then there is nothing to be watched by it.
        return Ok(None);
    };
    let dockerfile = match build.dockerfile.as_str() {
        "" => "Dockerfile",
        name => name,
    };
    let own = root.join(format!("{dockerfile}.dockerignore"));
    for path in [own, root.join(".dockerignore")] {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let patterns = Patterns::parse(&root, &text);
                return patterns
                    .map(Some)
                    .map_err(|e| format!("{}: {e}", path.display()));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("{}: {e}", path.display())),
        }
    }
    Ok(None)
}

fn is_mounted(service: &Service, path: &str) -> bool {
    let binds = service.volumes.iter().filter(|m| m.kind == MountKind::Bind);
    binds
        .into_iter()
        .any(|m| !m.source.is_empty() && Path::new(path).starts_with(&m.source))
}

/// Removes paths in a container, with its own `rm`.
async fn remove(control: &Control, container: &Container, paths: &[String]) -> Result<(), Failure> {
    let command = ["rm", "-rf", "--"].map(str::to_owned);
    let options = ExecOptions {
        command: command.into_iter().chain(paths.iter().cloned()).collect(),
        // What a file's owner may not remove was put there by us.
        user: "0".to_owned(),
        ..ExecOptions::default()
    };
    run(control, container, &options).await
}

/// Runs a command in a container; what it says is shown.
async fn run(
    control: &Control,
    container: &Container,
    options: &ExecOptions,
) -> Result<(), Failure> {
    let Some(mut session) = control.exec(&container.id, options).await? else {
        return Ok(());
    };
    while let Some(piece) = session.output.next().await {
        output::print_raw(&String::from_utf8_lossy(&piece?.bytes))?;
    }
    match session.exit_code().await? {
        0 => Ok(()),
        code => Err(Failure::failed(format!(
            "{:?} ended with code {code} in {}",
            options.command.join(" "),
            container.name
        ))),
    }
}
