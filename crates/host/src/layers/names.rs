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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Layer;
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::parse(text).unwrap()
    }

    /// An image, and what Engine 20.10 calls the first four of its layers.
    fn image() -> (Contents, [&'static str; 4]) {
        let layers = [
            "sha256:7d70688392207978bd3cccae76bc9eb7494b7d0b4aab8fe8a6c92c55d609d9ce",
            "sha256:ee49ecfbd454a407f9df29a5bb991b9e52e71a3cc7a05c9d48c1fe2a5f1c9630",
            "sha256:6391e3e14040c8081cece1ca5d3eea1ef6ff461275979077bbcc4414704c3a4c",
            "sha256:8aae7aa4b496e55a6c9450e58d1ab18a1d63e3298da59a19a35464109e8fc9d4",
            "sha256:da001698bc33eaddb0078f64536034c9abd3283a0b5ea4617c3c21949ce03340",
        ];
        let config = "sha256:6ae5f398d2386c10dcf89da6fe0b2c0a01c6c8d7a83ab96d94f4c8f2dd9a858c";
        let layer = |text: &str| Layer {
            diff: digest(text),
            blob: digest(text),
            size: 1,
        };
        let contents = Contents {
            id: digest(config),
            config: digest(config),
            layers: layers.iter().map(|l| layer(l)).collect(),
        };
        let names = [
            "5e2bf5aad9e4c7b4344df1e7e7571c5c02dfb2e81fc7086e6109b59234340af5",
            "234ac232aa2b4dbb65243c1a4abaa553c660e515c2c3720946db3430bbf078e9",
            "86b396e8a75f144db72bb3bfe345cf77d7e9944d0d46dc766ba4686d3882513d",
            "77c854e9c36c37b39fb6aa5c3a7c6863d391221e53240a33ba2821e0097f1585",
        ];
        (contents, names)
    }

    #[test]
    fn what_old_engines_call_layers_is_computed() {
        let (contents, old) = image();
        let mut names = Names::new(&contents);
        for (layer, name) in contents.layers.iter().zip(old) {
            let path = format!("{name}/layer.tar");
            assert_eq!(names.find(&path), Some(&layer.blob));
        }
        // The last one is known by the layer it stands on.
        let last = |parent: &str| json!({ "created": "2024-01-01T00:00:00Z", "parent": parent });
        names.learn("8ba9/json", last("0000").to_string().as_bytes());
        assert_eq!(names.find("8ba9/layer.tar"), None);
        names.learn("8ba9/json", last(old[3]).to_string().as_bytes());
        assert_eq!(names.find("8ba9/layer.tar"), Some(&contents.layers[4].blob));
    }

    #[test]
    fn an_engine_in_another_time_zone_is_understood_by_what_it_writes() {
        let (contents, _) = image();
        let created = "\"1970-01-01T01:00:00+01:00\"";
        let mut theirs = Names::new(&contents);
        theirs.paths.clear();
        theirs.compute(created, CONTAINER);
        let text = format!(
            "{{\"id\":\"x\",\"parent\":\"y\",\"created\":{created},\"container_config\":{CONTAINER}}}"
        );
        let mut names = Names::new(&contents);
        names.learn("any/json", text.as_bytes());
        assert_eq!(theirs.paths.len(), 4);
        for (path, digest) in &theirs.paths {
            assert_eq!(names.find(path), Some(digest));
        }
    }

    #[test]
    fn newer_engines_and_podman_name_files_by_digest() {
        let (contents, _) = image();
        let names = Names::new(&contents);
        let (config, layer) = (&contents.config, &contents.layers[1].blob);
        for path in [
            format!("blobs/sha256/{}", config.hex()),
            format!("{}.json", config.hex()),
        ] {
            assert_eq!(names.find(&path), Some(config));
        }
        for path in [
            format!("blobs/sha256/{}", layer.hex()),
            format!("{}.tar", layer.hex()),
        ] {
            assert_eq!(names.find(&path), Some(layer));
        }
    }

    #[test]
    fn the_manifest_tells_of_any_other_names() {
        let (contents, _) = image();
        let mut names = Names::new(&contents);
        let layers = ["a", "b", "c", "d", "e"];
        let other = json!({ "Config": "no", "Layers": ["a"] });
        let ours = json!({ "Config": "config", "Layers": layers });
        names.learn("manifest.json", json!([other, ours]).to_string().as_bytes());
        assert_eq!(names.find("config"), Some(&contents.config));
        for (path, layer) in layers.iter().zip(&contents.layers) {
            assert_eq!(names.find(path), Some(&layer.blob));
        }
    }

    #[test]
    fn what_makes_no_sense_teaches_nothing() {
        let (contents, _) = image();
        let mut names = Names::new(&contents);
        let before = names.paths.clone();
        for text in [
            "",
            "{",
            "[]",
            "{}",
            "[{}]",
            "[{\"Layers\":[1,2,3,4,5],\"Config\":\"c\"}]",
            "null",
        ] {
            names.learn("manifest.json", text.as_bytes());
        }
        names.learn("x/json", b"{\"parent\":1,\"created\":[]}");
        assert_eq!(names.paths, before);
        assert_eq!(digest_in("blobs/sha256/x"), None);
        let hex = contents.config.hex();
        assert_eq!(
            digest_in(&format!("{hex}.json")),
            Some(contents.config.clone())
        );
    }
}
