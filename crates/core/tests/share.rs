//! A node's share of a stack, given what the others report.

use wharfie_compose::model::{Deploy, Project, Service};
use wharfie_core::assignment::{Assignment, Assignments, Reported, share};
use wharfie_core::{Container, Stack, State};

fn stack() -> Stack {
    let web = Service {
        name: "web".to_owned(),
        deploy: Some(Deploy {
            replicas: Some(1),
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

/// What a lost node said last must not hide that the task still runs on another.
#[test]
fn a_task_comes_when_it_runs_nowhere_else() {
    let assignment = Assignment {
        tasks: [(1, "me".to_owned())].into(),
        rollout: None,
    };
    let assignments: Assignments = [("web".to_owned(), assignment)].into();
    let container = Container {
        service: "web".to_owned(),
        number: 1,
        state: State::Running,
        ..Container::default()
    };
    let reported = |node, live| Reported {
        node,
        live,
        container: &container,
    };
    let is_here = |others: &[Reported<'_>]| {
        let share = share(&stack(), &assignments, "me", &[], others);
        share.is_here("web", 1)
    };
    assert!(is_here(&[]));
    assert!(is_here(&[reported("lost", false)]));
    assert!(!is_here(&[reported("drained", true)]));
    assert!(!is_here(&[
        reported("lost", false),
        reported("drained", true)
    ]));
}
