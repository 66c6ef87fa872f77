//! Healing, on a model of an Engine: whatever happens, what is wanted is there in the end; what was
//! stopped, or has ended for good, is left alone.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod model;

use std::collections::BTreeSet;

use model::{Model, any_project, images, project, running, service};
use proptest::prelude::*;
use wharfie_compose::model::{Condition, Dependency, Project};
use wharfie_core::heal::{self, Backoff, End, Ledger, Policy, Signs, heal};
use wharfie_core::reconcile::{UpOptions, lifecycle, up};
use wharfie_core::wanted::task;
use wharfie_core::{Health, Operation, Seen, Stack, State};

fn stack(project: &Project) -> Stack {
    Stack::after_up(None, project, &UpOptions::default(), &Seen::default()).unwrap()
}

/// A node: what it remembers, and its clock.
struct Node {
    model: Model,
    ledger: Ledger,
    signs: Signs,
    now: i64,
}

impl Node {
    fn new(project: &Project) -> Self {
        let mut node = Self {
            model: Model::new(running(project)),
            ledger: Ledger::default(),
            signs: Signs::default(),
            now: 1_000_000,
        };
        node.heal(&stack(project));
        node
    }

    /// Looks and heals once; what was done.
    fn heal(&mut self, stack: &Stack) -> Vec<Operation> {
        let backoff = Backoff::default();
        let seen = &self.model.seen;
        self.ledger
            .observe((stack, None), seen, &self.signs, &backoff, self.now);
        let healing = heal((stack, None), seen, &self.ledger, &self.signs, self.now).unwrap();
        for (task, reason) in &healing.attempts {
            self.ledger.attempt(task, reason, &backoff, self.now);
        }
        self.model.execute(&stack.project, &healing.plan);
        self.signs = Signs::default();
        let operations = healing.plan.steps.into_iter();
        operations.map(|s| s.operation).collect()
    }

    /// Lets so much time pass that nothing waits any more.
    fn wait(&mut self) {
        self.now += 61_000;
    }

    fn end(&mut self, index: usize, code: i64) -> Option<String> {
        let count = self.model.seen.containers.len();
        let container = self.model.seen.containers.get_mut(index % count.max(1))?;
        container.state = State::Exited;
        container.exit_code = Some(code);
        container.health = Health::None;
        Some(container.id.clone())
    }
}

fn tasks(seen: &Seen, state: State) -> BTreeSet<String> {
    let of = seen.containers.iter().filter(|c| c.state == state);
    of.map(|c| task(&c.service, c.number)).collect()
}

proptest! {
    /// Kills, removals, changes and lost networks, in any number and order.
    #[test]
    fn what_others_break_is_there_again(
        project in any_project(),
        blows in proptest::collection::vec((0_u8..7, any::<usize>()), 1..12),
    ) {
        let stack = stack(&project);
        let mut node = Node::new(&project);
        let whole = tasks(&node.model.seen, State::Running);
        for (kind, index) in blows {
            let count = node.model.seen.containers.len().max(1);
            match kind {
                0 => drop(node.end(index, 137)),
                1 => if let Some(id) = node.end(index, 0) {
                    node.signs.signalled.insert(id);
                },
                2 => {
                    let mut i = 0;
                    node.model.seen.containers.retain(|_| {
                        i += 1;
                        i - 1 != index % count
                    });
                }
                3 => if let Some(c) = node.model.seen.containers.get(index % count) {
                    node.signs.changed.insert(c.id.clone());
                },
                4 => if let Some(c) = node.model.seen.containers.get_mut(index % count) {
                    c.networks.clear();
                },
                5 => if let Some(c) = node.model.seen.containers.get_mut(index % count) {
                    c.health = Health::Unhealthy;
                },
                _ => if index % 3 == 0 {
                    node.heal(&stack);
                    node.wait();
                },
            }
        }
        for _ in 0..4 {
            node.heal(&stack);
            node.wait();
        }
        prop_assert_eq!(node.heal(&stack), vec![], "it does not come to rest");
        prop_assert_eq!(tasks(&node.model.seen, State::Running), whole);
    }

    /// What was stopped, and what ended by itself, stays; nothing else changes for it.
    #[test]
    fn what_is_meant_to_stay_stays(
        project in any_project(),
        choices in proptest::collection::vec(0_u8..4, 20),
    ) {
        let mut stack = stack(&project);
        let mut node = Node::new(&project);
        for (i, choice) in choices.iter().enumerate() {
            let Some(c) = node.model.seen.containers.get(i) else { break };
            let key = task(&c.service, c.number);
            match choice {
                0 => {
                    node.end(i, 143);
                    stack.halted.insert(key);
                }
                1 => drop(node.end(i, 0)),
                2 => drop(node.end(i, 3)),
                _ => {}
            }
        }
        let before = node.model.seen.containers.clone();
        for _ in 0..3 {
            prop_assert_eq!(node.heal(&stack), vec![]);
            node.wait();
        }
        prop_assert_eq!(&node.model.seen.containers, &before);
    }
}

#[test]
fn attempts_are_made_with_growing_pauses_until_it_is_well() {
    let project = project(vec![service("web")]);
    let stack = stack(&project);
    let mut node = Node::new(&project);
    let mut times = Vec::new();
    for _ in 0..200 {
        node.end(0, 137);
        if !node.heal(&stack).is_empty() {
            times.push(node.now - 1_000_000);
        }
        node.now += 500;
    }
    assert_eq!(times, [0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000]);
    let troubles = heal::troubles(&node.ledger);
    assert_eq!(
        (troubles[0].task.as_str(), troubles[0].attempts),
        ("web/1", 7)
    );
    assert_eq!(troubles[0].reason, "it ended with code 137");
    // After some time in peace it is well.
    node.wait();
    node.heal(&stack);
    assert_eq!(node.heal(&stack), []);
    node.now += 9_999;
    node.heal(&stack);
    assert_eq!(heal::troubles(&node.ledger).len(), 1);
    node.now += 1;
    node.heal(&stack);
    assert_eq!(heal::troubles(&node.ledger), []);
}

#[test]
fn ends_are_judged_once_and_by_all_that_is_known() {
    let project = project(vec![service("web")]);
    let stack = stack(&project);
    let end = |code: i64, signs: Signs| {
        let mut node = Node::new(&project);
        node.end(0, code);
        node.ledger.observe(
            (&stack, None),
            &node.model.seen,
            &signs,
            &Backoff::default(),
            node.now,
        );
        // What is learned later does not change it.
        let later = Signs::default();
        node.ledger.observe(
            (&stack, None),
            &node.model.seen,
            &later,
            &Backoff::default(),
            node.now,
        );
        node.ledger.tasks["web/1"].end.unwrap()
    };
    let none = Signs::default;
    assert_eq!(end(0, none()), End::Own(0));
    assert_eq!(end(1, none()), End::Own(1));
    assert_eq!(end(137, none()), End::Cut(137));
    assert_eq!(end(143, none()), End::Cut(143));
    assert_eq!(end(255, none()), End::Own(255));
    let resumed = Signs {
        resumed: true,
        ..none()
    };
    assert_eq!(end(0, resumed), End::Cut(0));
    let fresh = || Signs {
        fresh: true,
        ..none()
    };
    assert_eq!(end(255, fresh()), End::Cut(255));
    assert_eq!(end(0, fresh()), End::Own(0));
}

#[test]
fn a_stop_that_is_learned_of_afterwards_counts() {
    let project = project(vec![service("web")]);
    let stack = stack(&project);
    let mut node = Node::new(&project);
    let id = node.end(0, 0).unwrap();
    assert_eq!(node.heal(&stack), []);
    node.signs.signalled.insert(id);
    assert_eq!(node.heal(&stack).len(), 1);
}

#[test]
fn who_was_left_in_a_dead_network_is_started_again() {
    let strand = |node: &mut Node| node.model.seen.containers[0].stranded = true;
    let again = |done: &[Operation]| match done {
        [] => false,
        [Operation::RestartContainer { service, .. }] => service == "app",
        other => panic!("{other:?}"),
    };
    let project_with = |restart: &str| {
        let mut app = service("app");
        restart.clone_into(&mut app.restart);
        project(vec![app])
    };
    let stack_of = |restart: &str| (stack(&project_with(restart)), project_with(restart));
    let (wanted, project) = stack_of("always");
    let mut node = Node::new(&project);
    strand(&mut node);
    assert!(again(&node.heal(&wanted)));
    assert!(!again(&node.heal(&wanted)), "it is where it belongs");
    // An owner that dies again and again is not followed each time.
    strand(&mut node);
    assert!(!again(&node.heal(&wanted)));
    node.wait();
    assert!(again(&node.heal(&wanted)));
    // Nor is who is to be left alone.
    let (wanted, project) = stack_of("no");
    let mut node = Node::new(&project);
    strand(&mut node);
    assert!(!again(&node.heal(&wanted)));
    let (mut wanted, project) = stack_of("");
    let mut node = Node::new(&project);
    strand(&mut node);
    wanted.halted.insert(task("app", 1));
    node.ledger.halt([&task("app", 1)]);
    assert!(!again(&node.heal(&wanted)));
}

#[test]
fn what_was_stopped_elsewhere_is_stopped_once() {
    let project = project(vec![service("a"), service("b")]);
    let mut node = Node::new(&project);
    let mut stack = stack(&project);
    let stopped = |operations: &[Operation]| match operations {
        [Operation::StopContainer { service, .. }] => service.clone(),
        _ => format!("{operations:?}"),
    };
    // It was written down by another node, while this one was not to be reached.
    stack.halted.insert(task("a", 1));
    assert_eq!(stopped(&node.heal(&stack)), "a");
    assert_eq!(node.heal(&stack), []);
    // Whoever starts it by hand is left alone, as is whoever is stopping it here.
    let plan = lifecycle::start(Some(&project), &node.model.seen, &["a".to_owned()]);
    node.model.execute(&project, &plan);
    assert_eq!(node.heal(&stack), []);
    stack.halted.insert(task("b", 1));
    node.ledger.halt([&task("b", 1)]);
    assert_eq!(node.heal(&stack), []);
    // A new life, a new stop.
    stack.halted.clear();
    node.heal(&stack);
    stack.halted.insert(task("a", 1));
    assert_eq!(stopped(&node.heal(&stack)), "a");
}

#[test]
fn a_job_that_is_done_is_not_done_again_when_it_is_removed() {
    let project = project(vec![service("job")]);
    let stack = stack(&project);
    let mut node = Node::new(&project);
    node.end(0, 0);
    node.heal(&stack);
    node.model.seen.containers.clear();
    assert_eq!(node.heal(&stack), []);
    // Unless it is asked for.
    let job = ["job".to_owned()];
    node.ledger.ask(&job);
    assert_eq!(node.heal(&stack).len(), 2);
    // Once.
    node.ledger.answered(&job);
    node.end(0, 0);
    node.wait();
    assert_eq!(node.heal(&stack), []);
}

/// A service that starts once a job has ended well.
fn app_behind_job() -> Project {
    let mut app = service("app");
    let dependency = Dependency {
        condition: Condition::CompletedSuccessfully,
        required: true,
        ..Dependency::default()
    };
    app.depends_on.insert("job".to_owned(), dependency);
    project(vec![service("job"), app])
}

#[test]
fn what_waited_for_a_job_comes_back_when_the_job_was_tidied_away() {
    let project = app_behind_job();
    let stack = stack(&project);
    let mut model = Model::new(images(&project));
    let plan = up(&project, &model.seen, &UpOptions::default()).unwrap();
    // The model's jobs run for ever.
    let plan = lifecycle::filter_map(&plan, |o| {
        (!matches!(o, Operation::Wait { .. })).then(|| o.clone())
    });
    model.execute(&project, &plan);
    let mut node = Node {
        model,
        ledger: Ledger::default(),
        signs: Signs::default(),
        now: 1_000_000,
    };
    let job = node
        .model
        .seen
        .containers
        .iter()
        .position(|c| c.service == "job");
    node.end(job.unwrap(), 0);
    assert_eq!(node.heal(&stack), []);
    node.model.seen.containers.retain(|c| c.service == "app");
    node.end(0, 137);
    let done: Vec<String> = node.heal(&stack).iter().map(ToString::to_string).collect();
    assert_eq!(done, ["start container demo-app-1"]);
}

#[test]
fn what_waits_for_a_job_that_failed_goes_on_waiting() {
    let project = app_behind_job();
    let stack = stack(&project);
    let container = |service: &str, state: State, exit_code: Option<i64>| wharfie_core::Container {
        state,
        exit_code,
        ..model::container(
            &project,
            &project.services[service],
            1,
            service,
            &Seen::default(),
        )
    };
    let mut seen = images(&project);
    let network = wharfie_core::Network {
        id: "n".to_owned(),
        labels: [(wharfie_core::labels::PROJECT.to_owned(), "demo".to_owned())].into(),
    };
    seen.networks.insert("demo_default".to_owned(), network);
    seen.containers = vec![
        container("app", State::Created, None),
        container("job", State::Exited, Some(3)),
    ];
    for c in &mut seen.containers {
        c.networks.insert("demo_default".to_owned(), "n".to_owned());
    }
    let mut ledger = Ledger::default();
    let signs = Signs::default();
    ledger.observe((&stack, None), &seen, &signs, &Backoff::default(), 0);
    let healing = heal((&stack, None), &seen, &ledger, &signs, 0).unwrap();
    let done: Vec<String> = healing
        .plan
        .steps
        .iter()
        .map(|s| s.operation.to_string())
        .collect();
    assert_eq!(
        done,
        [
            "wait until container demo-job-1 has ended well",
            "start container demo-app-1"
        ]
    );
}

#[test]
fn policies_are_read_from_both_places() {
    let of = |restart: &str| {
        let mut s = service("web");
        s.restart = restart.to_owned();
        Policy::of(&s)
    };
    assert_eq!(of(""), Policy::Unset);
    assert_eq!(of("no"), Policy::Never);
    assert_eq!(of("always"), Policy::Always);
    assert_eq!(of("unless-stopped"), Policy::Always);
    assert_eq!(of("on-failure"), Policy::OnFailure(None));
    assert_eq!(of("on-failure:3"), Policy::OnFailure(Some(3)));
    assert!(Policy::OnFailure(Some(3)).accepts(1) && !Policy::OnFailure(None).accepts(1));
}
