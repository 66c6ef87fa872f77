//! Changes of stacks whose home is out of reach: what is wanted is written down here, and done by
//! the home as soon as it hears of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{info, warn};
use wharfie_core::intent::Change;
use wharfie_core::reconcile::DownOptions;
use wharfie_core::wanted::Definition;
use wharfie_core::{Intent, Seen, Stack};

use super::keeper::{Keeper, STACK, with_replica};
use crate::api::{Durable, Fault, Node, Request};
use crate::failure::Failure;

impl Keeper {
    /// Writes down what is wanted of a stack whose home is away; its revision, and on how many
    /// nodes it is durable.
    pub(super) async fn note_for(
        self: &Arc<Self>,
        name: &str,
        home: &Node,
        request: Request,
    ) -> Result<(Option<u64>, Option<Durable>), Fault> {
        let slot = self.slot(name);
        let _asking = slot.ask();
        let mut kept = slot.kept.lock().await;
        self.check_replicated(request.replicated)?;
        let intent = self.intent(name, request.what).await?;
        let before = kept.stack.as_ref();
        let project = intent
            .project()
            .or_else(|| before.map(|s| s.project.clone()));
        let unseen = Seen::default();
        let change = match (&intent, &project) {
            (Intent::Restart { .. } | Intent::Kill { .. } | Intent::Remove { .. }, _) => {
                return Err(Failure::NoEngine(crate::failure::Message::new(format!(
                    "`{}` needs the containers, and {}",
                    intent.word(),
                    home.away()
                )))
                .into());
            }
            (Intent::Up { options, .. }, Some(project)) => {
                let stack = Stack::after_up(before, project, options, &unseen);
                Change::Put(Box::new(stack.map_err(Fault::from)?))
            }
            (intent, project) => {
                let decided = intent.decide(before, project.as_ref(), &unseen);
                decided.map_err(Fault::from)?.change
            }
        };
        let stack = match change {
            Change::Put(stack) => Some(Stack {
                home: home.id.clone(),
                ..*stack
            }),
            Change::Delete => None,
            Change::Keep => kept.stack.clone(),
        };
        if kept.stack == stack {
            let written = match request.replicated {
                Some(_) => self.current(name).await?,
                None => None,
            };
            let durable = match written {
                Some(record) => self.durable(record, request.replicated).await,
                None => None,
            };
            return Ok((Some(kept.revision), durable));
        }
        let record = self
            .put_stack(name, stack.as_ref(), intent.word(), None)
            .await?;
        kept.revision = record.revision;
        kept.stack = stack;
        self.show(&slot, &kept);
        info!(
            stack = name,
            home = home.name,
            "noted for its home, which is away"
        );
        let revision = kept.stack.as_ref().map(|_| kept.revision);
        drop(kept);
        let durable = self.durable(record, request.replicated).await;
        Ok((revision, durable))
    }

    /// Forgets the stacks of other nodes: this one was removed from among them. Another cluster must
    /// not get them from here, nor must they be in the way when it joins again.
    pub(super) async fn part(self: &Arc<Self>) -> Result<(), Failure> {
        for (name, _, stack) in self.stored().await? {
            if !self.is_here(&stack) {
                self.put_stack(&name, None, "node rm", None).await?;
                self.renew(&name).await?;
            }
        }
        Ok(())
    }

    /// What is wanted of a stack was written by another node: takes it over.
    pub(super) async fn renew(self: &Arc<Self>, name: &str) -> Result<(), Failure> {
        let slot = self.slot(name);
        let _asking = slot.ask();
        let mut kept = slot.kept.lock().await;
        // Read now that nobody acts: what was read while somebody did may be older than what they
        // wrote.
        let of = name.to_owned();
        let record = with_replica(&self.replica, move |s| s.get(STACK, &of)).await?;
        let Some(record) = record else { return Ok(()) };
        let stack: Option<Stack> = match record.value.map(serde_json::from_value).transpose() {
            Ok(stack) => stack,
            Err(e) => {
                return Err(Failure::failed(format!(
                    "what is wanted of {name} cannot be read: {e}"
                )));
            }
        };
        if kept.revision == record.revision && kept.stack == stack {
            return Ok(());
        }
        // What is wanted no longer is taken down by whoever ran it.
        let surplus = kept.stack.as_ref().filter(|s| self.is_here(s));
        let surplus = surplus.and_then(|old| surplus_of(old, stack.as_ref()));
        if let Some(down) = surplus {
            if let Err(e) = self.note_unfinished(name, &mut kept, Some(&down)).await {
                warn!(stack = name, "{}", e.text());
            }
            kept.unfinished = Some(down);
        }
        kept.stack = stack;
        kept.revision = record.revision;
        self.show(&slot, &kept);
        slot.wake.notify_one();
        Ok(())
    }
}

/// What takes down the services that are wanted no longer, or no longer here.
fn surplus_of(old: &Stack, new: Option<&Stack>) -> Option<Intent> {
    let new = new.filter(|n| n.home == old.home);
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

    fn stack(services: &[&str], home: &str) -> Stack {
        Stack {
            active: services.iter().map(|s| (*s).to_owned()).collect(),
            home: home.to_owned(),
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
        let old = stack(&["a", "b"], "h1");
        assert_eq!(taken_down(&old, Some(&stack(&["a", "b", "c"], "h1"))), None);
        let one = taken_down(&old, Some(&stack(&["a"], "h1")));
        assert_eq!(one, Some(vec!["b".to_owned()]));
        // The whole stack: it is gone, or elsewhere.
        assert_eq!(taken_down(&old, None), Some(Vec::new()));
        let moved = taken_down(&old, Some(&stack(&["a", "b"], "h2")));
        assert_eq!(moved, Some(Vec::new()));
    }
}
