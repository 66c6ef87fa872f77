//! What people ask for, at any node (the agent's `act.rs` and `nodes.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use wharfie_cluster::Key;
use wharfie_cluster::roster::{MEMBER, REMOVED};
use wharfie_compose::model::Project;
use wharfie_core::intent::Change;
use wharfie_core::reconcile::UpOptions;
use wharfie_core::rollout;
use wharfie_core::wanted::Definition;
use wharfie_core::{Intent, Seen};

use crate::coordinate::{Assigned, Puts};
use crate::look::{Job, NODE, STACK};
use crate::mesh::Frame;
use crate::sim::Sim;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// The node that is asked.
    pub(crate) at: usize,
    pub(crate) what: What,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A project is brought up, with numbers of containers in place of the file's.
    Up(Arc<Project>, BTreeMap<String, u32>),
    /// A stack is taken down.
    Down(String),
    /// A node is to be empty, or is not to be any longer.
    Drain(usize, bool),
    /// A node becomes a member.
    Join(usize),
    /// A node is no longer a member.
    Remove(usize),
}

impl Sim {
    /// Somebody asks for something.
    pub(crate) fn asked(&mut self, ask: Ask) {
        let at = ask.at;
        if self.nodes[at].agent.is_none() {
            self.tell(|| format!("n{at} cannot be asked"));
            return;
        }
        let about = match &ask.what {
            What::Up(project, _) => Some(project.name.clone()),
            What::Down(name) => Some(name.clone()),
            _ => None,
        };
        let view = self.view(at);
        let who = about.and_then(|name| self.coordinator(&name, &view));
        let who = who.unwrap_or(at);
        let frame = Frame::Ask(ask);
        if who == at {
            self.arrive(at, at, frame);
        } else {
            self.say(at, who, &frame);
        }
    }

    /// Carries out what is asked for.
    pub(crate) fn carry_out(&mut self, node: usize, ask: Ask) {
        let (name, intent) = match ask.what {
            What::Up(project, scale) => {
                let intent = Intent::Up {
                    project: Box::new(Definition::from(&*project)),
                    options: UpOptions {
                        scale,
                        ..UpOptions::default()
                    },
                };
                (project.name.clone(), intent)
            }
            What::Down(name) => {
                let intent = Intent::Down {
                    project: None,
                    options: wharfie_core::reconcile::DownOptions::default(),
                };
                (name, intent)
            }
            What::Drain(of, drained) => {
                let key = Key::new(NODE, &self.nodes[of].name);
                let value = serde_json::json!({ "drained": drained });
                self.checks.drained(of, self.now);
                return self.put(node, vec![(key, Some(value))], "drain");
            }
            What::Join(of) => {
                let (key, value) = self.member(of);
                return self.put(node, vec![(key, Some(value))], "join");
            }
            What::Remove(of) => {
                let name = &self.nodes[of].name;
                let value = serde_json::json!({ "name": format!("n{of}") });
                let puts = vec![
                    (Key::new(REMOVED, name), Some(value)),
                    (Key::new(MEMBER, name), None),
                ];
                return self.put(node, puts, "node rm");
            }
        };
        self.change(node, &name, &intent);
    }

    fn put(&mut self, node: usize, puts: Puts, note: &'static str) {
        let asked = true;
        self.write(node, Job::Put { puts, note, asked });
    }

    /// Carries out a change of a stack.
    fn change(&mut self, node: usize, name: &str, intent: &Intent) {
        let millis = self.nodes[node].millis(self.now);
        let view = self.view(node);
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        let slot = agent.slots.entry(name.to_owned()).or_default();
        if let Some(work) = slot.work.as_mut() {
            // Healing gives way to people.
            work.cancelled = true;
        }
        let (before, current) = (slot.stack.clone(), slot.assignments.clone());
        let project = intent.project();
        let decided = intent.decide(before.as_ref(), project.as_ref(), &Seen::default(), None);
        let Ok(decision) = decided else {
            return;
        };
        slot.ledger.ask(&decision.anew);
        let mut after = match decision.change {
            Change::Put(stack) => Some(*stack),
            Change::Keep => return,
            Change::Delete => None,
        };
        if let Some(stack) = after.as_mut() {
            let home = before.as_ref().map(|b| b.home.clone());
            stack.home = home.unwrap_or_else(|| self.nodes[node].name.clone());
        }
        let mut assigned = match &after {
            Some(stack) => self.assign(node, name, stack, &current, &view),
            None => Assigned::default(),
        };
        if let Some(stack) = &after {
            let of = &mut assigned.assignments;
            rollout::begin(before.as_ref(), stack, of, millis);
        }
        let mut puts = self.puts_of(node, name, &current, &assigned, &view);
        if after != before {
            let value = after.as_ref().and_then(|s| serde_json::to_value(s).ok());
            puts.push((Key::new(STACK, name), value));
        }
        self.checks.asked(name, self.now);
        if let Some(stack) = &after {
            self.expect(name, before.as_ref(), stack);
            self.take_slot(node, name, Some(stack), &assigned.assignments);
        }
        if !puts.is_empty() {
            self.put(node, puts, intent.word());
        }
    }
}
