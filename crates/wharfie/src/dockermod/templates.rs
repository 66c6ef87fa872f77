//! Where templates are kept: with what is wanted, so that every node has them.

use std::sync::Arc;

use serde_json::{Map, Value};
use wharfie_cluster::{Options, Record, Replica};

use super::template;
use crate::agent::fleet::Fleet;
use crate::api::TemplateInfo;
use crate::failure::Failure;

/// Kind of the objects.
const KIND: &str = "template";

/// The templates.
#[derive(Clone)]
pub(crate) struct Templates {
    replica: Arc<Replica>,
    fleet: Arc<Fleet>,
}

impl Templates {
    /// Those that are replicated; the other nodes are told of changes.
    pub(crate) fn new(replica: Arc<Replica>, fleet: Arc<Fleet>) -> Self {
        Self { replica, fleet }
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn list(&self) -> Result<Vec<TemplateInfo>, Failure> {
        let list = self.with(|replica| replica.list(KIND)).await?;
        Ok(list.into_iter().map(|record| info(&record)).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Map<String, Value>>, Failure> {
        let name = name.to_owned();
        let object = self.with(move |replica| replica.get(KIND, &name)).await?;
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
        let written = self.with(move |replica| {
            let value = Some(Value::Object(body));
            let of = ("template put", now());
            replica.put((KIND, &name), value, of, Options { history }, None)
        });
        let record = written.await?;
        let shown = info(&record);
        self.fleet.tell(vec![record]);
        Ok(shown)
    }

    /// Removes one; false if there is none.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn remove(&self, name: &str, history: usize) -> Result<bool, Failure> {
        let name = name.to_owned();
        let removed = self.with(move |replica| {
            let there = replica.get(KIND, &name)?;
            if there.is_none_or(|o| o.value.is_none()) {
                return Ok(None);
            }
            let of = ("template rm", now());
            let options = Options { history };
            replica
                .put((KIND, &name), None, of, options, None)
                .map(Some)
        });
        let removed = removed.await?;
        let there = removed.is_some();
        self.fleet.tell(removed.into_iter().collect());
        Ok(there)
    }

    /// Does something with the store where it may wait for the disk.
    async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Replica) -> Result<T, wharfie_cluster::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let replica = Arc::clone(&self.replica);
        let done = tokio::task::spawn_blocking(move || f(&replica)).await;
        let done = done.map_err(|e| Failure::failed(format!("the store cannot be used: {e}")))?;
        done.map_err(Failure::from)
    }
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

fn info(record: &Record) -> TemplateInfo {
    let image = record.value.as_ref().and_then(|v| v["Image"].as_str());
    TemplateInfo {
        name: record.name.clone(),
        image: image.unwrap_or_default().to_owned(),
        revision: record.revision,
        time: record.time(),
    }
}
