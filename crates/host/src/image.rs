//! Images from registries.

use base64::Engine as _;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use crate::{Engine, Error};

impl Engine {
    /// Pulls an image (`POST /images/create`); `progress` gets each change of state.
    ///
    /// # Errors
    /// The registry does not have it, cannot be reached, or refuses.
    pub async fn pull(
        &self,
        image: &str,
        platform: &str,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Error> {
        // Without a tag the Engine would pull them all.
        let named =
            if image.contains('@') || image.rsplit('/').next().is_some_and(|n| n.contains(':')) {
                image.to_owned()
            } else {
                format!("{image}:latest")
            };
        let mut options = CreateImageOptionsBuilder::default().from_image(&named);
        if !platform.is_empty() {
            options = options.platform(platform);
        }
        let mut stream = self
            .docker
            .create_image(Some(options.build()), None, credentials(&named));
        let failed = |e| Error::from_engine(format!("cannot pull {image}"), e);
        while let Some(info) = stream.next().await {
            let info = info.map_err(failed)?;
            if let Some(message) = info.error_detail.and_then(|e| e.message) {
                return Err(Error::Refused {
                    context: format!("cannot pull {image}"),
                    message,
                    status: 500,
                });
            }
            if let Some(status) = info.status {
                let id = info.id.map(|id| format!("{id}: ")).unwrap_or_default();
                progress(&format!("{id}{status}"));
            }
        }
        Ok(())
    }
}

/// The registry of a reference, as `config.json` names it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "https://index.docker.io/v1/",
    }
}

/// What `docker login` left for a registry in `config.json`; credential helpers are not asked.
pub(crate) fn credentials(image: &str) -> Option<DockerCredentials> {
    let dir = std::env::var_os("DOCKER_CONFIG")
        .map(std::path::PathBuf::from)
        .or_else(|| {
            std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".docker"))
        })?;
    let text = std::fs::read_to_string(dir.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    let registry = registry(image);
    let entry = config.get("auths")?.get(registry)?;
    let auth = entry.get("auth")?.as_str()?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(auth)
        .ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(DockerCredentials {
        username: Some(username.to_owned()),
        password: Some(password.to_owned()),
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        assert_eq!(registry("nginx:1"), "https://index.docker.io/v1/");
        assert_eq!(registry("library/nginx"), "https://index.docker.io/v1/");
        assert_eq!(registry("ghcr.io/a/b:1"), "ghcr.io");
        assert_eq!(registry("localhost:5000/a"), "localhost:5000");
    }
}
