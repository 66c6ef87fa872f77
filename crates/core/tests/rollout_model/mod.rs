//! A model of nodes that keep the tasks of one service, and of a coordinator that may die.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::collections::{BTreeMap, BTreeSet};

use wharfie_compose::model::{Deploy, Duration, Number, Project, Service, UpdateConfig};
use wharfie_core::assignment::{Assignment, Assignments, parts};
use wharfie_core::rollout::{Memory, Observed, Phase, Rollout, Step, begin, step};
use wharfie_core::wanted::task;
use wharfie_core::{Health, Share, Stack, shared};

pub const SECOND: i64 = 1_000;

/// A stack whose only service runs an image.
pub fn stack(image: &str, count: i64, update: &UpdateConfig, back: Option<&UpdateConfig>) -> Stack {
    let web = Service {
        name: "web".to_owned(),
        image: image.to_owned(),
        deploy: Some(Deploy {
            replicas: Some(count),
            update_config: Some(update.clone()),
            rollback_config: back.cloned(),
            ..Deploy::default()
        }),
        ..Service::default()
    };
    let project = Project {
        name: "shop".to_owned(),
        services: [("web".to_owned(), web)].into(),
        ..Project::default()
    };
    Stack {
        project,
        active: ["web".to_owned()].into(),
        ..Stack::default()
    }
}

pub fn config(parallelism: u64, action: &str) -> UpdateConfig {
    UpdateConfig {
        parallelism: Some(parallelism),
        failure_action: action.to_owned(),
        ..UpdateConfig::default()
    }
}

pub fn seconds(n: i64) -> Duration {
    Duration(n * 1_000_000_000)
}

pub fn ratio(config: UpdateConfig, ratio: f32) -> UpdateConfig {
    UpdateConfig {
        max_failure_ratio: Number(ratio),
        ..config
    }
}

pub fn revision(stack: &Stack) -> String {
    shared::revision(&stack.project, &stack.project.services["web"])
}

/// What becomes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It serves so long after it was begun.
    Serves(i64),
    /// It cannot be made: what was there before stays.
    NotMade,
    /// It ends so long after it ran, again and again.
    Ends(i64),
    /// It runs, and its check fails.
    Unhealthy,
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    pub revision: String,
    /// When it was begun.
    pub begun: i64,
}

pub struct World {
    pub stack: Stack,
    pub assignments: Assignments,
    pub containers: BTreeMap<u32, Container>,
    /// Since when a container cannot be made, by task.
    pub refused: BTreeMap<u32, i64>,
    /// Fates by revision and task, where it is not to serve after a second.
    pub fates: BTreeMap<(String, u32), Fate>,
    /// Nodes that the coordinator does not reach, and that do not hear of anything.
    pub away: BTreeSet<String>,
    /// What nodes keep of each task, as of what was written last.
    kept: Option<BTreeMap<u32, String>>,
    pub memory: Memory,
    pub now: i64,
    pub notes: Vec<String>,
    /// All phases, in their order.
    pub phases: Vec<Phase>,
    /// Revisions that each task was of, in their order.
    pub history: BTreeMap<u32, Vec<String>>,
}

impl World {
    /// All tasks run as the stack says; they are on nodes a, b and c in turn.
    pub fn new(stack: Stack, count: u32) -> Self {
        let node = |n: u32| ["a", "b", "c"][(n as usize - 1) % 3].to_owned();
        let tasks = (1..=count).map(|n| (n, node(n))).collect();
        let assignment = Assignment {
            tasks,
            rollout: None,
        };
        let mut world = Self {
            stack,
            assignments: [("web".to_owned(), assignment)].into(),
            containers: BTreeMap::new(),
            refused: BTreeMap::new(),
            fates: BTreeMap::new(),
            away: BTreeSet::new(),
            kept: None,
            memory: Memory::default(),
            now: 1_000_000,
            notes: Vec::new(),
            phases: Vec::new(),
            history: BTreeMap::new(),
        };
        for _ in 0..20 {
            world.nodes();
        }
        world
    }

    pub fn assignment(&self) -> &Assignment {
        &self.assignments["web"]
    }

    pub fn rollout(&self) -> &Rollout {
        self.assignment().rollout.as_ref().unwrap()
    }

    pub fn is_going(&self) -> bool {
        let rollout = self.rollout();
        !rollout.is_over() && !matches!(rollout.phase, Phase::Paused(_))
    }

    /// Somebody changes the stack.
    pub fn up(&mut self, after: Stack) {
        begin(Some(&self.stack), &after, &mut self.assignments, self.now);
        self.stack = after;
        self.kept = None;
    }

    /// All tasks of a revision have a fate.
    pub fn doom(&mut self, stack: &Stack, fate: Fate) {
        let numbers: Vec<u32> = self.assignment().tasks.keys().copied().collect();
        for number in numbers {
            self.fates.insert((revision(stack), number), fate);
        }
    }

    fn fate(&self, container: &Container, number: u32) -> Fate {
        let key = (container.revision.clone(), number);
        let fate = self.fates.get(&key).copied();
        fate.unwrap_or(Fate::Serves(SECOND))
    }

    pub fn is_away(&self, number: u32) -> bool {
        self.away.contains(&self.assignment().tasks[&number])
    }

    /// Each node does what is its part, and half a second passes.
    pub fn nodes(&mut self) {
        let kept = self.kept.take().unwrap_or_else(|| self.parts());
        for (number, revision) in &kept {
            if !self.is_away(*number) {
                self.keep(*number, revision.clone());
            }
        }
        self.kept = Some(kept);
        self.now += SECOND / 2;
    }

    /// Revisions that nodes are to keep their tasks at.
    fn parts(&self) -> BTreeMap<u32, String> {
        let all = self.assignment().tasks.keys().copied().collect();
        let share = Share {
            here: [("web".to_owned(), all)].into(),
            ..Share::default()
        };
        let mut kept = BTreeMap::new();
        for part in parts(&self.stack, &self.assignments, &share) {
            for number in part.share.here("web") {
                if !part.stack.halted.contains(&task("web", number)) {
                    let twice = kept.insert(number, revision(&part.stack));
                    assert_eq!(twice, None, "{number} is in two parts");
                }
            }
        }
        kept
    }

    fn keep(&mut self, number: u32, revision: String) {
        let container = Container {
            revision,
            begun: self.now,
        };
        let fate = self.fate(&container, number);
        let there = self.containers.get(&number);
        if there.is_some_and(|c| c.revision == container.revision) {
            self.refused.remove(&number);
            // What has ended is started again after some time.
            if let (Some(c), Fate::Ends(after)) = (there, fate)
                && self.now > c.begun + SECOND + after + 3 * SECOND
            {
                self.containers.insert(number, container);
            }
        } else if fate == Fate::NotMade {
            self.refused.entry(number).or_insert(self.now);
        } else {
            self.refused.remove(&number);
            let history = self.history.entry(number).or_default();
            history.push(container.revision.clone());
            self.containers.insert(number, container);
        }
    }

    /// Whether a task serves.
    pub fn serves(&self, number: u32) -> bool {
        let seen = self.look(number);
        seen.running && matches!(seen.health, Health::None | Health::Healthy)
    }

    pub fn look(&self, number: u32) -> Observed {
        let mut seen = Observed {
            reachable: true,
            ..Observed::default()
        };
        if self
            .refused
            .get(&number)
            .is_some_and(|t| self.now - t > SECOND)
        {
            seen.trouble = Some("image shop/web:2 is not found".to_owned());
        }
        let Some(container) = self.containers.get(&number) else {
            return seen;
        };
        seen.revision.clone_from(&container.revision);
        let age = self.now - container.begun;
        match self.fate(container, number) {
            Fate::Serves(after) => {
                seen.running = age > after / 2;
                seen.health = match age >= after {
                    true => Health::Healthy,
                    false => Health::Starting,
                };
            }
            Fate::Ends(after) => {
                seen.running = age >= SECOND && age < SECOND + after;
                seen.exit_code = (age >= SECOND + after).then_some(1);
            }
            Fate::Unhealthy => {
                seen.running = age >= SECOND;
                seen.health = match age < 3 * SECOND {
                    true => Health::Starting,
                    false => Health::Unhealthy,
                };
            }
            Fate::NotMade => {}
        }
        seen
    }

    /// What the coordinator sees.
    pub fn seen(&self) -> BTreeMap<u32, Observed> {
        let tasks = self.assignment().tasks.keys();
        let see = |n: u32| Observed {
            reachable: !self.is_away(n),
            ..self.look(n)
        };
        tasks.map(|n| (*n, see(*n))).collect()
    }

    /// The coordinator's step; nothing is written yet.
    pub fn decide(&mut self) -> Step {
        let seen = self.seen();
        let assignment = &self.assignments["web"];
        step(
            &self.stack,
            "web",
            assignment,
            &seen,
            &mut self.memory,
            self.now,
        )
    }

    pub fn write(&mut self, step: Step) {
        if let Some(change) = step.change {
            self.assignments.insert("web".to_owned(), change);
            self.kept = None;
        }
        if let Some(restored) = step.restore {
            self.up(*restored);
        }
        self.notes.extend(step.note);
        let phase = self.rollout().phase.clone();
        if self.phases.last() != Some(&phase) {
            self.phases.push(phase);
        }
    }

    /// The coordinator and the nodes work until the rollout is over or paused.
    pub fn run(&mut self) {
        for _ in 0..2_000 {
            let step = self.decide();
            self.write(step);
            if !self.is_going() {
                return;
            }
            self.nodes();
        }
        panic!("no end: {:?}", self.rollout());
    }

    pub fn settle(&mut self) {
        for _ in 0..20 {
            self.nodes();
        }
    }

    /// Revisions that the tasks are of.
    pub fn revisions(&self) -> BTreeSet<String> {
        let containers = self.containers.values();
        containers.map(|c| c.revision.clone()).collect()
    }
}
