//! Which content a registry has under an image's name now.

use crate::registry::{self, Login};
use crate::{Engine, Error};

impl Engine {
    /// The image's full name with the digest of what its registry has under it now
    /// (`GET /distribution/{name}/json`): `docker.io/library/nginx:1@sha256:…`. A name that has
    /// a digest already is only written out.
    ///
    /// # Errors
    /// The registry does not have it, cannot be reached, or refuses.
    pub async fn pinned(&self, image: &str) -> Result<String, Error> {
        let name = full_name(image);
        if name.contains('@') {
            return Ok(name);
        }
        let login = registry::credentials(registry::of_image(image)).await?;
        let inspected = self
            .docker
            .inspect_registry_image(&name, login.map(Login::header))
            .await
            .map_err(|e| Error::from_engine(format!("cannot find the digest of {name}"), e))?;
        match inspected.descriptor.digest {
            Some(digest) if !digest.is_empty() => Ok(format!("{name}@{digest}")),
            _ => Err(Error::Refused {
                context: format!("cannot find the digest of {name}"),
                message: "its registry names none".to_owned(),
                status: 404,
            }),
        }
    }
}

/// A name with all that is implied: the registry, `library/`, and `:latest`. Where there is a
/// digest a tag says nothing more, and goes.
fn full_name(image: &str) -> String {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", name),
    };
    let registry = match registry {
        "index.docker.io" => "docker.io",
        other => other,
    };
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path, tag),
        None => (path, "latest"),
    };
    let library = if registry == "docker.io" && !path.contains('/') {
        "library/"
    } else {
        ""
    };
    match digest {
        Some(digest) => format!("{registry}/{library}{path}@{digest}"),
        None => format!("{registry}/{library}{path}:{tag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::full_name;

    #[test]
    fn names_are_written_out() {
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("me/app:2", "docker.io/me/app:2"),
            ("index.docker.io/me/app", "docker.io/me/app:latest"),
            ("localhost:5000/x/y", "localhost:5000/x/y:latest"),
            ("ghcr.io/a/b:1@sha256:00", "ghcr.io/a/b@sha256:00"),
            ("busybox@sha256:00", "docker.io/library/busybox@sha256:00"),
        ] {
            assert_eq!(full_name(short), full);
        }
    }
}
