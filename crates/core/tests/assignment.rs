//! What of a stack is one node's own.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeSet;

use wharfie_compose::model::{Deploy, Project, Service, UpdateConfig};
use wharfie_core::assignment::{Assignment, Assignments, Reported, share};
use wharfie_core::{Container, Health, Share, Stack, State};

fn stack(order: &str) -> Stack {
    let deploy = Deploy {
        update_config: Some(UpdateConfig {
            order: order.to_owned(),
            ..UpdateConfig::default()
        }),
        ..Deploy::default()
    };
    let web = Service {
        name: "web".to_owned(),
        deploy: Some(deploy),
        ..Service::default()
    };
    Stack {
        project: Project {
            services: [("web".to_owned(), web)].into(),
            ..Project::default()
        },
        active: ["web".to_owned()].into(),
        ..Stack::default()
    }
}

fn assigned(tasks: &[(u32, &str)]) -> Assignments {
    let tasks = tasks.iter().map(|(n, node)| (*n, (*node).to_owned()));
    let assignment = Assignment {
        tasks: tasks.collect(),
        rollout: None,
    };
    [("web".to_owned(), assignment)].into()
}

fn web(number: u32, state: State, health: Health) -> Container {
    Container {
        id: format!("web{number}"),
        name: format!("x-web-{number}"),
        service: "web".to_owned(),
        number,
        state,
        health,
        ..Container::default()
    }
}

/// The share of `me`; with its own containers, and one of `other`.
fn of_me(
    order: &str,
    tasks: &[(u32, &str)],
    own: &[Container],
    other: Option<(&Container, bool)>,
) -> Share {
    let others: Vec<Reported> = other
        .iter()
        .map(|(container, live)| Reported {
            node: "other",
            live: *live,
            container,
        })
        .collect();
    share(&stack(order), &assigned(tasks), "me", own, &others)
}

fn here(share: &Share) -> Vec<u32> {
    share.here("web").collect()
}

#[test]
fn a_node_runs_what_is_assigned_to_it() {
    let share = of_me("", &[(1, "me"), (2, "other"), (3, "me")], &[], None);
    assert_eq!(here(&share), [1, 3]);
    assert_eq!(
        share.elsewhere["web"].keys().copied().collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(share.all("web"), BTreeSet::from([1, 2, 3]));
    assert!(!share.is_empty());
    assert!(of_me("", &[(2, "other")], &[], None).is_empty());
}

#[test]
fn what_runs_before_anything_is_decided_goes_on() {
    let own = [web(1, State::Running, Health::None)];
    let share = share(&stack(""), &Assignments::new(), "me", &own, &[]);
    assert!(share.is_aside("web", 1));
    assert_eq!(here(&share), [0; 0]);
}

#[test]
fn a_task_that_moves_stops_there_before_it_starts_here() {
    let there = web(1, State::Running, Health::None);
    let share = of_me("stop-first", &[(1, "me")], &[], Some((&there, true)));
    assert_eq!(here(&share), [0; 0]);
    assert!(share.is_aside("web", 1));
    // It has stopped, or nobody can tell.
    let ended = web(1, State::Exited, Health::None);
    for gone in [(&ended, true), (&there, false)] {
        let share = of_me("stop-first", &[(1, "me")], &[], Some(gone));
        assert_eq!(here(&share), [1]);
    }
    // What runs here as well stays: it is the other one that goes.
    let own = [web(1, State::Running, Health::None)];
    let share = of_me("stop-first", &[(1, "me")], &own, Some((&there, true)));
    assert_eq!(here(&share), [1]);
    let share = of_me("start-first", &[(1, "me")], &[], Some((&there, true)));
    assert_eq!(here(&share), [1]);
}

#[test]
fn with_start_first_a_task_goes_once_it_is_well_elsewhere() {
    let own = [web(1, State::Running, Health::None)];
    let goes = |order: &str, there: Option<&Container>| {
        let share = of_me(order, &[(1, "other")], &own, there.map(|c| (c, true)));
        assert_eq!(here(&share), [0; 0]);
        !share.is_aside("web", 1)
    };
    assert!(goes("stop-first", None));
    assert!(!goes("start-first", None));
    let starting = web(1, State::Running, Health::Starting);
    assert!(!goes("start-first", Some(&starting)));
    let well = web(1, State::Running, Health::Healthy);
    assert!(goes("start-first", Some(&well)));
    // What is not there at all is not kept either.
    let share = of_me("start-first", &[(1, "other")], &[], None);
    assert!(share.is_empty());
}

#[test]
fn assignments_are_written_by_node() {
    let assignments = assigned(&[(1, "a"), (2, "b"), (3, "a")]);
    let text = serde_json::to_string(&assignments["web"]).unwrap();
    assert_eq!(text, r#"{"tasks":{"a":[1,3],"b":[2]}}"#);
    let back: Assignment = serde_json::from_str(&text).unwrap();
    assert_eq!(back, assignments["web"]);
}
