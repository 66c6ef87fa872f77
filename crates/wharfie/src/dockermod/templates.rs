//! Where templates are kept: with what is wanted, so that every node has them.

use std::sync::Arc;

use serde_json::{Map, Value};
use wharfie_cluster::{Object, Options, Store};

use super::template;
use crate::api::TemplateInfo;
use crate::failure::Failure;

/// Kind of the objects.
const KIND: &str = "template";

/// The templates.
#[derive(Debug, Clone)]
pub(crate) struct Templates {
    store: Arc<Store>,
}

impl Templates {
    /// Those of a store.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn list(&self) -> Result<Vec<TemplateInfo>, Failure> {
        let list = self.with(|store| store.list(KIND)).await?;
        Ok(list
            .into_iter()
            .map(|(name, object)| info(name, &object))
            .collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Map<String, Value>>, Failure> {
        let name = name.to_owned();
        let object = self.with(move |store| store.get(KIND, &name)).await?;
        Ok(match object.and_then(|o| o.value) {
            Some(Value::Object(template)) => Some(template),
            _ => None,
        })
    }

    /// Keeps one under a name, in place of the one that had it; earlier versions are kept, up to a
    /// number. It tells what is kept now.
    ///
    /// # Errors
    /// Name or template is none, or the store cannot be written.
    pub(crate) async fn put(
        &self,
        name: &str,
        body: Map<String, Value>,
        history: usize,
    ) -> Result<TemplateInfo, Failure> {
        if let Some(fault) = template::name_fault(name) {
            return Err(Failure::usage(fault));
        }
        template::check(&body).map_err(|f| Failure::usage(f.of(&format!("template {name}"))))?;
        let name = name.to_owned();
        self.with(move |store| {
            let value = Some(Value::Object(body));
            let of = ("template put", now());
            store.put((KIND, &name), value, of, Options { history })?;
            let object = store.get(KIND, &name)?;
            Ok(object.map(|o| info(name, &o)).unwrap_or_default())
        })
        .await
    }

    /// Removes one; false if there is none.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn remove(&self, name: &str, history: usize) -> Result<bool, Failure> {
        let name = name.to_owned();
        self.with(move |store| {
            let there = store.get(KIND, &name)?;
            if there.is_none_or(|o| o.value.is_none()) {
                return Ok(false);
            }
            let of = ("template rm", now());
            store.put((KIND, &name), None, of, Options { history })?;
            Ok(true)
        })
        .await
    }

    /// Does something with the store where it may wait for the disk.
    async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Store) -> Result<T, wharfie_cluster::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || f(&store)).await;
        let done = done.map_err(|e| Failure::failed(format!("the store cannot be used: {e}")))?;
        done.map_err(Failure::from)
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn info(name: String, object: &Object) -> TemplateInfo {
    let image = object.value.as_ref().and_then(|v| v["Image"].as_str());
    TemplateInfo {
        name,
        image: image.unwrap_or_default().to_owned(),
        revision: object.revision,
        time: object.time,
    }
}
