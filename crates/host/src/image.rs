//! Images from registries.

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use crate::registry::{self, Login};
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
        let login = registry::credentials(registry::of_image(&named)).await?;
        let login = login.map(Login::header);
        let mut stream = self.docker.create_image(Some(options.build()), None, login);
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
