//! What every command starts from: the options, the project, the way to the containers.

use std::collections::BTreeMap;

use wharfie_compose::model::Project;
use wharfie_compose::{LoadOptions, Loaded};
use wharfie_core::wanted::Definition;

use crate::cli::Global;
use crate::failure::Failure;
use crate::output::progress::{Mode, Progress};
use crate::output::warn;

/// The options that hold for every command, and what follows from them.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The options.
    pub(crate) global: Global,
}

/// A project that a command works on: from files, or only a name whose containers exist.
#[derive(Debug)]
pub(crate) struct Target {
    /// The project's name.
    pub(crate) name: String,
    /// The files, if they were read.
    pub(crate) loaded: Option<Loaded>,
}

impl Target {
    /// The project, if files were read.
    pub(crate) fn project(&self) -> Option<&Project> {
        self.loaded.as_ref().map(|l| &l.project)
    }

    /// The project as it is sent to the agent.
    pub(crate) fn definition(&self) -> Option<Box<Definition>> {
        self.project().map(|p| Box::new(Definition::from(p)))
    }

    /// Checks that the services exist in the files, if files were read.
    fn check_services(&self, names: &[String]) -> Result<(), Failure> {
        match self.project() {
            Some(project) => check_services(project, names),
            None => Ok(()),
        }
    }
}

impl Context {
    /// From the options as typed.
    pub(crate) fn new(global: Global) -> Self {
        Self { global }
    }

    /// Whether nothing may be done.
    pub(crate) fn dry_run(&self) -> bool {
        self.global.dry_run
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> std::path::PathBuf {
        let given = self.global.socket.clone();
        given.unwrap_or_else(crate::agent::settings::default_socket)
    }

    /// A progress display.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.global.progress)
    }

    /// A progress display that is silent if `quiet`.
    pub(crate) fn progress_unless(&self, quiet: bool) -> Progress {
        let mode = if quiet {
            Mode::Quiet
        } else {
            self.global.progress
        };
        Progress::new(mode)
    }

    /// Where to load from.
    pub(crate) fn load_options(&self) -> Result<LoadOptions, Failure> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        let working_dir = std::env::current_dir().map_err(|e| {
            Failure::failed(format!("cannot tell the current directory: {e}"))
                .help("change to a directory that exists")
        })?;
        Ok(LoadOptions {
            files: self.global.files.clone(),
            project_directory: self.global.project_directory.clone(),
            project_name: self.global.project_name.clone(),
            profiles: self.global.profiles.clone(),
            env_files: self.global.env_files.clone(),
            working_dir,
            environment,
            all_resources: self.global.all_resources,
            ..LoadOptions::default()
        })
    }

    /// Loads the project and shows the warnings. The named services are there even if none of
    /// their profiles is active.
    pub(crate) fn load(&self, named: &[String]) -> Result<Loaded, Failure> {
        load_with(&self.load_options()?, named)
    }

    /// The project for commands that also work by name alone: files are read unless only a name
    /// is given. The services must be in the files.
    pub(crate) fn target(&self, services: &[String]) -> Result<Target, Failure> {
        let target = self.any_target()?;
        target.check_services(services)?;
        Ok(target)
    }

    /// A stack by name, or the files' project.
    pub(crate) fn stack(&self, named: Option<&String>) -> Result<String, Failure> {
        match named {
            Some(name) => Ok(name.clone()),
            None => Ok(self.any_target()?.name),
        }
    }

    /// The project, whatever services are named.
    pub(crate) fn any_target(&self) -> Result<Target, Failure> {
        if let (Some(name), true) = (&self.global.project_name, self.global.files.is_empty()) {
            return Ok(Target {
                name: name.clone(),
                loaded: None,
            });
        }
        match self.load(&[]) {
            Ok(loaded) => Ok(Target {
                name: loaded.project.name.clone(),
                loaded: Some(loaded),
            }),
            Err(failure) => match std::env::var("COMPOSE_PROJECT_NAME") {
                Ok(name) if !name.is_empty() => Ok(Target { name, loaded: None }),
                _ => Err(failure),
            },
        }
    }
}

/// Loads a project and shows the warnings. Services that are named are there even if none of
/// their profiles is active.
pub(crate) fn load_with(options: &LoadOptions, named: &[String]) -> Result<Loaded, Failure> {
    let loaded = wharfie_compose::load(&LoadOptions {
        services: named.to_vec(),
        ..options.clone()
    })?;
    loaded.warnings.iter().for_each(|w| warn(w));
    Ok(loaded)
}

/// Fails for the first name that is no service of the project.
pub(crate) fn check_services(project: &Project, names: &[String]) -> Result<(), Failure> {
    let Some(name) = names.iter().find(|n| project.any_service(n).is_none()) else {
        return Ok(());
    };
    let known: Vec<&str> = project.services.keys().map(String::as_str).collect();
    Err(
        Failure::usage(format!("no such service: {name}")).help(if known.is_empty() {
            format!("project {:?} has no services", project.name)
        } else {
            format!(
                "the services of project {:?} are: {}",
                project.name,
                known.join(", ")
            )
        }),
    )
}
