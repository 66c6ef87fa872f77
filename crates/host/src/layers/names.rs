//! Which file in an Engine's archive of an image is what (`GET /images/{name}/get`).
//!
//! The archive says so in `manifest.json`, which is its last file, while nothing is to be read
//! twice. Since Engine 25 a file is named by its digest. Engines before name a layer by an
//! identifier of Docker's first days, which they compute from the digests of the layer and all
//! below it: so do we. The last layer's comes from the whole configuration as Go writes it, which
//! we do not try: it is the one whose parent is the last but one.

use std::collections::HashMap;

use serde_json::Value;

use super::{Contents, Digest};

/// The most bytes that a file may have to be read here.
pub(super) const MOST: u64 = 1 << 20;
/// What the Engine writes of a layer that is not the last.
const CREATED: &str = "\"1970-01-01T00:00:00Z\"";
const CONTAINER: &str = "{\"Hostname\":\"\",\"Domainname\":\"\",\"User\":\"\",\
    \"AttachStdin\":false,\"AttachStdout\":false,\"AttachStderr\":false,\"Tty\":false,\
    \"OpenStdin\":false,\"StdinOnce\":false,\"Env\":null,\"Cmd\":null,\"Image\":\"\",\
    \"Volumes\":null,\"WorkingDir\":\"\",\"Entrypoint\":null,\"OnBuild\":null,\"Labels\":null}";

/// Knows the files of one image's archive.
#[derive(Debug)]
pub(super) struct Names {
    contents: Contents,
    paths: HashMap<String, Digest>,
    /// The old identifier of the last layer but one.
    parent: Option<String>,
}

impl Names {
    /// What can be known beforehand.
    pub(super) fn new(contents: &Contents) -> Self {
        let mut names = Self {
            contents: contents.clone(),
            paths: HashMap::new(),
            parent: None,
        };
        let config = &contents.config;
        names.put(format!("{}.json", config.hex()), config.clone());
        names.put(format!("blobs/sha256/{}", config.hex()), config.clone());
        for layer in &contents.layers {
            names.put(
                format!("blobs/sha256/{}", layer.blob.hex()),
                layer.blob.clone(),
            );
            // This is how Podman writes it.
            names.put(format!("{}.tar", layer.blob.hex()), layer.blob.clone());
        }
        names.compute(CREATED, CONTAINER);
        names
    }

    fn put(&mut self, path: String, digest: Digest) {
        self.paths.insert(path, digest);
    }

    /// What the file at a path is, if that is known.
    pub(super) fn find(&self, path: &str) -> Option<&Digest> {
        self.paths.get(path)
    }

    /// Whether a file tells what others are.
    pub(super) fn tells(path: &str) -> bool {
        path == "manifest.json" || path.ends_with("/json")
    }

    /// Reads a file that tells what others are.
    pub(super) fn learn(&mut self, path: &str, text: &[u8]) {
        let Ok(value) = serde_json::from_slice::<Value>(text) else {
            return;
        };
        match path.strip_suffix("/json") {
            Some(directory) => self.learn_layer(directory, &value),
            None => self.learn_manifest(&value),
        }
    }

    fn learn_layer(&mut self, directory: &str, layer: &Value) {
        let path = format!("{directory}/layer.tar");
        if self.paths.contains_key(&path) {
            return;
        }
        let parent = layer["parent"].as_str();
        if parent == self.parent.as_deref() {
            if let Some(last) = self.contents.layers.last() {
                let digest = last.blob.clone();
                self.put(path, digest);
            }
            return;
        }
        // An Engine that is not on UTC writes the beginning of time in its own zone.
        let (created, container) = (&layer["created"], &layer["container_config"]);
        if created
            .as_str()
            .is_some_and(|c| c.starts_with("1970-01-01") || c.starts_with("1969-12-31"))
        {
            self.compute(&created.to_string(), &container.to_string());
        }
    }

    fn learn_manifest(&mut self, manifest: &Value) {
        let Some(paths) = find_image(manifest, self.contents.layers.len()) else {
            return;
        };
        let known: Vec<Digest> = self
            .contents
            .layers
            .iter()
            .map(|l| l.blob.clone())
            .collect();
        for (path, digest) in paths.layers.into_iter().zip(known) {
            self.put(path, digest);
        }
        let config = self.contents.config.clone();
        self.put(paths.config, config);
    }

    /// The old identifiers of all layers but the last (moby's `v1.CreateID`).
    fn compute(&mut self, created: &str, container: &str) {
        let layers = self.contents.layers.clone();
        let Some((_, lower)) = layers.split_last() else {
            return;
        };
        let mut chain: Option<String> = None;
        let mut parent: Option<String> = None;
        for layer in lower {
            let this = match chain {
                None => layer.diff.to_string(),
                Some(below) => Digest::of(format!("{below} {}", layer.diff)).to_string(),
            };
            let above = match &parent {
                Some(parent) => format!(",\"parent\":\"sha256:{parent}\""),
                None => String::new(),
            };
            let id = Digest::of(format!(
                "{{\"container_config\":{container},\"created\":{created},\"layer_id\":\"{this}\"{above}}}"
            ));
            self.put(format!("{}/layer.tar", id.hex()), layer.blob.clone());
            parent = Some(id.hex().to_owned());
            chain = Some(this);
        }
        self.parent = parent;
    }
}

/// Where `manifest.json` says an image's files are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paths {
    /// The configuration.
    pub(super) config: String,
    /// The layers, the lowest first.
    pub(super) layers: Vec<String>,
}

/// The image with so many layers in a `manifest.json`: there may be one for each platform.
pub(super) fn find_image(manifest: &Value, layers: usize) -> Option<Paths> {
    manifest.as_array()?.iter().find_map(|image| {
        let paths = image["Layers"].as_array().map_or(&[][..], Vec::as_slice);
        let paths: Option<Vec<String>> = paths
            .iter()
            .map(|p| p.as_str().map(str::to_owned))
            .collect();
        let (paths, config) = (paths?, image["Config"].as_str()?);
        (paths.len() == layers).then(|| Paths {
            config: config.to_owned(),
            layers: paths,
        })
    })
}

/// The digest that a file's path is made of, as in `blobs/sha256/…` or `….json`.
pub(super) fn digest_in(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    Digest::from_hex(name.split('.').next()?)
}
