//! `config`: the files as they are understood.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use wharfie_compose::model::Project;
use wharfie_compose::{LoadOptions, Loaded, config_hash, output as compose_output};

use super::config_digests;
use super::config_select::{select, with_dependencies};
use crate::context::{self, Context};
use crate::failure::Failure;
use crate::output;
use crate::output::table::Table;

/// Shows the compose files as they are understood.
///
/// All files are merged, variables replaced, short forms expanded and defaults filled in.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").multiple(false),
    after_help = "Examples:\n  wharfie config                      the whole model, as YAML\n  wharfie config --format json web    one service and what it depends on\n  wharfie config --services           the names of the services\n  wharfie -f base.yaml -f prod.yaml config -q && echo valid"
)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub(crate) struct Config {
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Yaml, value_name = "FORMAT")]
    format: Format,

    /// Only the names of the services, dependencies first
    #[arg(long, group = "what")]
    services: bool,

    /// Only the names of the images
    #[arg(long, group = "what")]
    images: bool,

    /// Only the names of the volumes
    #[arg(long, group = "what")]
    volumes: bool,

    /// Only the names of the networks
    #[arg(long, group = "what")]
    networks: bool,

    /// Only the names of the profiles
    #[arg(long, group = "what")]
    profiles: bool,

    /// Only the names of the models
    #[arg(long, group = "what")]
    models: bool,

    /// Only the configuration hashes of services, separated by commas ("*" is all)
    #[arg(
        long,
        group = "what",
        value_name = "SERVICES",
        conflicts_with = "no_interpolate"
    )]
    hash: Option<String>,

    /// Only the environment that variables are taken from
    #[arg(long, group = "what", conflicts_with = "no_interpolate")]
    environment: bool,

    /// Only the variables that the files refer to, with their defaults
    #[arg(long, group = "what")]
    variables: bool,

    /// Name each image by the digest that its registry has under its name now
    #[arg(long, conflicts_with_all = ["no_interpolate", "hash"])]
    resolve_image_digests: bool,

    /// Only the images, with digests: a file to lay over the others with -f
    #[arg(long, group = "what", conflicts_with = "no_interpolate")]
    lock_image_digests: bool,

    /// Nothing: only check the files
    #[arg(short, long, group = "what")]
    quiet: bool,

    /// Leave variables as they are written
    #[arg(long)]
    no_interpolate: bool,

    /// Leave out defaults and implied parts
    #[arg(long)]
    no_normalize: bool,

    /// Leave paths as they are written
    #[arg(long)]
    no_path_resolution: bool,

    /// Do not check what refers to what
    #[arg(long)]
    no_consistency: bool,

    /// Do not read the services' env_file
    #[arg(long)]
    no_env_resolution: bool,

    /// File to write to, in place of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Services to show, with those they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// YAML
    Yaml,
    /// JSON
    Json,
}

impl Config {
    /// Writes what was asked for.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let options = LoadOptions {
            interpolate: !self.no_interpolate,
            normalize: !self.no_normalize,
            resolve_paths: !self.no_path_resolution,
            check_consistency: !self.no_consistency,
            resolve_environment: !self.no_env_resolution,
            ..context.load_options()?
        };
        let text = if self.variables {
            self.variables(&options)?
        } else {
            let loaded = context::load_with(&options, &self.names)?;
            if self.no_interpolate {
                self.of_model(loaded.model())?
            } else {
                self.of_project(context, loaded).await?
            }
        };
        match &self.output {
            _ if self.quiet => {}
            Some(file) if context.dry_run() => {
                output::lines([format!("write {}", file.display())])?
            }
            None => output::print_raw(&text)?,
            Some(file) => std::fs::write(file, text)
                .map_err(|e| Failure::failed(format!("cannot write {}: {e}", file.display())))?,
        }
        Ok(())
    }

    async fn of_project(&self, context: &Context, loaded: Loaded) -> Result<String, Failure> {
        // The process ends after this: to free a large model value by value takes a tenth of the
        // whole time.
        let mut loaded = std::mem::ManuallyDrop::new(loaded);
        let mut project = std::mem::ManuallyDrop::new(std::mem::take(&mut loaded.project));
        let profiles: BTreeSet<String> = all_services(&project)
            .flat_map(|s| s.profiles.clone())
            .collect();
        select(&mut project, &self.names, context.global.all_resources)?;
        if self.lock_image_digests || self.resolve_image_digests && !self.lists() {
            let images = project.services.values().map(|s| s.image.clone());
            let pinned = config_digests::pinned(context, images).await?;
            config_digests::pin(&mut project, &pinned);
        }
        Ok(if self.services {
            let mut names = wharfie_core::reconcile::dependents_first(&project);
            names.reverse();
            self.list(names)
        } else if self.images {
            self.list(
                project
                    .services
                    .values()
                    .map(|s| wharfie_core::names::image(&project, s)),
            )
        } else if self.volumes {
            self.list(project.volumes.keys())
        } else if self.networks {
            self.list(project.networks.keys())
        } else if self.profiles {
            self.list(profiles)
        } else if self.models {
            self.list(project.models.values().map(|m| &m.model))
        } else if self.lock_image_digests {
            let lock = config_digests::lock(&project);
            match self.format {
                Format::Yaml => compose_output::value_to_yaml(&lock),
                Format::Json => compose_output::value_to_json(&lock) + "\n",
            }
        } else if let Some(names) = &self.hash {
            self.hashes(&project, names)?
        } else if self.environment {
            self.list(project.environment.iter().map(|(k, v)| format!("{k}={v}")))
        } else {
            match self.format {
                Format::Yaml => compose_output::to_yaml(&project),
                Format::Json => compose_output::to_json(&project) + "\n",
            }
        })
    }

    /// Whether only names are printed.
    fn lists(&self) -> bool {
        self.services
            || self.images
            || self.volumes
            || self.networks
            || self.profiles
            || self.models
            || self.environment
    }

    /// Without interpolation values have no types: the answers come from the tree as written.
    fn of_model(&self, mut model: Value) -> Result<String, Failure> {
        let profiles: BTreeSet<String> = section(&model, "services")
            .flat_map(|(_, s)| strings(&s["profiles"]).map(str::to_owned))
            .collect();
        if !self.names.is_empty() {
            let kept = with_dependencies(&model, &self.names)?;
            if let Some(services) = model["services"].as_object_mut() {
                services.retain(|name, _| kept.contains(name));
            }
        }
        let project = model["name"].as_str().unwrap_or_default();
        let names = |of: &str| -> Vec<String> {
            section(&model, of).map(|(name, _)| name.clone()).collect()
        };
        Ok(if self.services {
            let all = names("services");
            self.list(with_dependencies(&model, &all)?)
        } else if self.images {
            self.list(section(&model, "services").map(|(name, service)| {
                match service["image"].as_str() {
                    Some(image) => image.to_owned(),
                    None => format!("{project}-{name}"),
                }
            }))
        } else if self.volumes {
            self.list(names("volumes"))
        } else if self.networks {
            self.list(names("networks"))
        } else if self.profiles {
            self.list(profiles)
        } else if self.models {
            self.list(section(&model, "models").filter_map(|(_, m)| m["model"].as_str()))
        } else {
            model.sort_all_objects();
            match self.format {
                Format::Yaml => compose_output::value_to_yaml(&model),
                Format::Json => compose_output::value_to_json(&model) + "\n",
            }
        })
    }

    /// A line each, or a JSON list.
    fn list<T: Into<String>>(&self, items: impl IntoIterator<Item = T>) -> String {
        let items = items.into_iter().map(Into::into);
        match self.format {
            Format::Yaml => items.map(|i: String| i + "\n").collect(),
            Format::Json => format!("{}\n", Value::from(items.collect::<Vec<String>>())),
        }
    }

    fn hashes(&self, project: &Project, names: &str) -> Result<String, Failure> {
        let mut wanted: Vec<&str> = names
            .split(',')
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .collect();
        if wanted.contains(&"*") {
            wanted = project.services.keys().map(String::as_str).collect();
        }
        wanted.sort_unstable();
        let mut lines = Vec::new();
        for name in wanted {
            context::check_services(project, &[name.to_owned()])?;
            let service = project.any_service(name);
            lines.extend(service.map(|s| format!("{name} {}", config_hash(s))));
        }
        Ok(self.list(lines))
    }

    fn variables(&self, options: &LoadOptions) -> Result<String, Failure> {
        let variables = wharfie_compose::variables(options)?;
        if self.format == Format::Json {
            let map: Map<String, Value> = variables
                .into_iter()
                .map(|(name, v)| {
                    let value = json!({
                        "Name": v.name,
                        "DefaultValue": v.default,
                        "PresenceValue": v.alternate,
                        "Required": v.required,
                    });
                    (name, value)
                })
                .collect();
            return Ok(compose_output::value_to_json(&Value::Object(map)) + "\n");
        }
        let mut table = Table::new(20, ["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"]);
        for variable in variables.into_values() {
            table.row([
                variable.name,
                variable.required.to_string(),
                variable.default,
                variable.alternate,
            ]);
        }
        Ok(table.render())
    }
}

fn all_services(project: &Project) -> impl Iterator<Item = &wharfie_compose::model::Service> {
    project
        .services
        .values()
        .chain(project.disabled_services.values())
}

fn section<'a>(model: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    model[name].as_object().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}
