//! What other nodes write of stacks.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::warn;
use wharfie_core::reconcile::DownOptions;
use wharfie_core::wanted::Definition;
use wharfie_core::{Intent, Stack};

use super::director;
use super::keeper::{Keeper, STACK, with_replica};
use super::slot::Kept;
use super::world;
use crate::failure::Failure;

impl Keeper {
    /// Forgets the stacks that others have a part in: this node was removed from among them. Another
    /// cluster must not get them from here, nor must they be in the way when it joins again. What runs
    /// here of them goes on.
    pub(super) async fn part(self: &Arc<Self>) -> Result<(), Failure> {
        let me = self.fleet.id();
        for (name, _, stack) in self.stored().await? {
            let of = name.clone();
            let assigned = with_replica(&self.replica, move |r| world::assignments(r, &of)).await?;
            let home = stack.home.is_empty() || stack.home == me;
            let mut nodes = assigned.values().flat_map(|a| a.tasks.values());
            if home && nodes.all(|n| *n == me) {
                continue;
            }
            let slot = self.slot(&name);
            let _asking = slot.ask();
            let mut kept = slot.kept.lock().await;
            self.put_stack(&name, None, "node rm", None).await?;
            *kept = Kept::default();
            self.show(&slot, &kept);
        }
        let decided = |kind: &str| world::DECIDED.contains(&kind) || director::is_of_director(kind);
        let keys = self.replica.keys().into_iter();
        let gone = keys.filter(|k| decided(&k.kind)).map(|k| (k, None));
        self.put_all(gone.collect(), "node rm").await.map(drop)
    }

    /// What is wanted of a stack was written by another node: takes it over.
    pub(super) async fn renew(self: &Arc<Self>, name: &str) -> Result<(), Failure> {
        let slot = self.slot(name);
        let _asking = slot.ask();
        let mut kept = slot.kept.lock().await;
        let old = kept.stack.clone();
        // Read now that nobody acts: what was read while somebody did may be older than what they
        // wrote.
        if !self.read_kept(name, &mut kept).await? {
            return Ok(());
        }
        // What is wanted no longer is taken down by whoever runs it.
        let surplus = old.as_ref().filter(|_| self.runs_any(name));
        let surplus = surplus.and_then(|old| surplus_of(old, kept.stack.as_ref()));
        if let Some(down) = surplus {
            if let Err(e) = self.note_unfinished(name, &mut kept, Some(&down)).await {
                warn!(stack = name, "{}", e.text());
            }
            kept.unfinished = Some(down);
        }
        self.show(&slot, &kept);
        slot.wake.notify_one();
        Ok(())
    }

    /// Reads what is wanted of a stack and where its tasks are; whether that has changed.
    pub(super) async fn read_kept(&self, name: &str, kept: &mut Kept) -> Result<bool, Failure> {
        let of = name.to_owned();
        let (record, assignments) = with_replica(&self.replica, move |r| {
            Ok((r.get(STACK, &of)?, world::assignments(r, &of)?))
        })
        .await?;
        let Some(record) = record else {
            return Ok(false);
        };
        let stack: Option<Stack> = match record.value.map(serde_json::from_value).transpose() {
            Ok(stack) => stack,
            Err(e) => {
                return Err(Failure::failed(format!(
                    "what is wanted of {name} cannot be read: {e}"
                )));
            }
        };
        let same = kept.revision == record.revision
            && kept.stack == stack
            && (kept.assignments == assignments || self.is_alone());
        kept.stack = stack;
        kept.revision = record.revision;
        kept.assignments = assignments;
        self.book.set(name, kept.stack.as_ref(), &kept.assignments);
        Ok(!same)
    }
}

/// What takes down the services that are wanted no longer.
fn surplus_of(old: &Stack, new: Option<&Stack>) -> Option<Intent> {
    let wanted: BTreeSet<String> = new.map(|n| n.active.clone()).unwrap_or_default();
    let services: Vec<String> = old.active.difference(&wanted).cloned().collect();
    if services.is_empty() && new.is_some() {
        return None;
    }
    Some(Intent::Down {
        project: Some(Box::new(Definition::from(&old.project))),
        options: DownOptions {
            services: if new.is_some() { services } else { Vec::new() },
            ..DownOptions::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(services: &[&str]) -> Stack {
        Stack {
            active: services.iter().map(|s| (*s).to_owned()).collect(),
            ..Stack::default()
        }
    }

    fn taken_down(old: &Stack, new: Option<&Stack>) -> Option<Vec<String>> {
        match surplus_of(old, new) {
            Some(Intent::Down { options, .. }) => Some(options.services),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    #[test]
    fn what_is_wanted_no_longer_goes() {
        let old = stack(&["a", "b"]);
        assert_eq!(taken_down(&old, Some(&stack(&["a", "b", "c"]))), None);
        let one = taken_down(&old, Some(&stack(&["a"])));
        assert_eq!(one, Some(vec!["b".to_owned()]));
        // The whole stack.
        assert_eq!(taken_down(&old, None), Some(Vec::new()));
    }
}
