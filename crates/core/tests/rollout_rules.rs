//! Rules of rollouts one by one, with the words that people see.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod rollout_model;

use std::collections::{BTreeMap, BTreeSet};

use rollout_model::{Fate, SECOND, World, config, ratio, revision, seconds, stack};
use wharfie_compose::model::UpdateConfig;
use wharfie_core::Stack;
use wharfie_core::assignment::Assignment;
use wharfie_core::rollout::{Memory, Phase, Refused, pause, resume, status, undo};

/// Four tasks of `web:1`, and `web:2` is put up.
fn world(update: &UpdateConfig, back: Option<&UpdateConfig>) -> (World, Stack, Stack) {
    let (old, new) = (
        stack("web:1", 4, update, back),
        stack("web:2", 4, update, back),
    );
    let mut world = World::new(old.clone(), 4);
    world.up(new.clone());
    (world, old, new)
}

/// The notes, with names for revisions.
fn told(world: &World, old: &Stack, new: &Stack) -> Vec<String> {
    let notes = world.notes.iter();
    let named = |n: &String| {
        n.replace(&revision(old), "OLD")
            .replace(&revision(new), "NEW")
    };
    notes.map(named).collect()
}

fn look(world: &mut World) {
    let step = world.decide();
    world.write(step);
    world.nodes();
}

#[test]
fn tasks_go_one_by_one_unless_more_is_said() {
    let (mut world, old, new) = world(&UpdateConfig::default(), None);
    world.run();
    assert_eq!(
        told(&world, &old, &new),
        [
            "rollout of web updates web/1 to revision NEW, 1 of 4",
            "rollout of web updates web/2 to revision NEW, 2 of 4",
            "rollout of web updates web/3 to revision NEW, 3 of 4",
            "rollout of web updates web/4 to revision NEW, 4 of 4",
            "rollout of web is completed; 4 of 4 tasks are of revision NEW",
        ]
    );
    let (mut world, old, new) = self::world(&config(0, ""), None);
    world.run();
    assert_eq!(
        told(&world, &old, &new)[0],
        "rollout of web updates web/1, web/2, web/3, web/4 to revision NEW, 4 of 4"
    );
}

#[test]
fn the_next_wait_for_health_then_monitor_or_delay() {
    let time = |update: &UpdateConfig| {
        let (mut world, ..) = world(update, None);
        let began = world.now;
        while world.notes.len() < 2 {
            look(&mut world);
        }
        world.now - SECOND / 2 - began
    };
    let monitor = |n| UpdateConfig {
        monitor: seconds(n),
        ..config(1, "")
    };
    // It is healthy after a second, and watched for five.
    assert_eq!(time(&config(1, "")), 6 * SECOND);
    assert_eq!(time(&monitor(2)), 3 * SECOND);
    let delayed = UpdateConfig {
        delay: seconds(20),
        ..monitor(2)
    };
    assert_eq!(time(&delayed), 21 * SECOND);
}

#[test]
fn a_task_that_comes_up_slowly_is_waited_for() {
    let (mut world, _, new) = world(&config(2, ""), None);
    world.doom(&new, Fate::Serves(600 * SECOND));
    for _ in 0..1_000 {
        look(&mut world);
    }
    assert_eq!(world.rollout().updated, [1, 2].into());
    assert!(world.is_going());
}

#[test]
fn a_failure_pauses() {
    for (fate, why) in [
        (Fate::Ends(SECOND), "web/1: it ended with code 1"),
        (Fate::Unhealthy, "web/1: it is unhealthy"),
        (Fate::NotMade, "web/1: image shop/web:2 is not found"),
    ] {
        let (mut world, old, new) = world(&config(1, ""), None);
        world.doom(&new, fate);
        world.run();
        assert_eq!(world.rollout().phase, Phase::Paused(why.to_owned()));
        assert_eq!(
            told(&world, &old, &new)[1],
            format!(
                "rollout of web is paused: {why}; `wharfie rollout resume` goes on with the next tasks, `wharfie rollout undo` goes back"
            )
        );
        // Whoever looks next leaves it so.
        world.memory = Memory::default();
        assert_eq!(world.decide(), wharfie_core::rollout::Step::default());
        let seen = world.seen();
        let status = status(&world.stack, "web", world.assignment(), &seen).unwrap();
        assert_eq!((status.updated, status.tasks, status.well), (1, 4, 0));
        assert_eq!(status.failed[&1], why["web/1: ".len()..]);
        assert_eq!((status.from, status.to), (revision(&old), revision(&new)));
    }
}

#[test]
fn a_rollout_is_rolled_back() {
    let (mut world, old, new) = world(&config(2, "rollback"), Some(&config(0, "")));
    world.fates.insert((revision(&new), 3), Fate::Unhealthy);
    world.run();
    assert_eq!(
        told(&world, &old, &new),
        [
            "rollout of web updates web/1, web/2 to revision NEW, 2 of 4",
            "rollout of web updates web/3, web/4 to revision NEW, 4 of 4",
            "rollout of web goes back to revision OLD: web/3: it is unhealthy",
            "rollout of web takes back web/1, web/2, web/3, web/4 to revision OLD, 4 of 4",
            "rollout of web went back: web/3: it is unhealthy; 4 of 4 tasks are of revision OLD",
        ]
    );
    assert_eq!(world.stack, old);
    assert_eq!(world.revisions(), [revision(&old)].into());
}

#[test]
fn the_way_back_has_a_pace_of_its_own_and_starts_with_what_failed() {
    let (mut world, old, new) = world(&config(2, "rollback"), None);
    world.fates.insert((revision(&new), 2), Fate::Ends(SECOND));
    // It fails on the way back as well: there is nothing behind it.
    world.fates.insert((revision(&old), 2), Fate::Ends(SECOND));
    world.run();
    assert_eq!(
        told(&world, &old, &new)[1..],
        [
            "rollout of web goes back to revision OLD: web/2: it ended with code 1",
            "rollout of web takes back web/2 to revision OLD, 3 of 4",
            "rollout of web is paused: web/2: it ended with code 1; `wharfie rollout resume` goes on with the next tasks, `wharfie rollout undo` goes back",
        ]
    );
    let step = resume("web", world.assignment()).unwrap();
    world.write(step);
    world.run();
    let end = Phase::RolledBack("web/2: it ended with code 1".to_owned());
    assert_eq!(world.rollout().phase, end);
}

#[test]
fn failures_are_tolerated_up_to_a_ratio() {
    let (mut world, old, new) = world(&ratio(config(1, ""), 0.25), None);
    world.fates.insert((revision(&new), 1), Fate::Unhealthy);
    world.fates.insert((revision(&new), 3), Fate::Unhealthy);
    world.run();
    let told = told(&world, &old, &new);
    assert_eq!(
        told[1],
        "rollout of web goes on after web/1: it is unhealthy: 1 of 4 failed, and max_failure_ratio is 0.25; rollout of web updates web/2 to revision NEW, 2 of 4"
    );
    let end = Phase::Paused("web/3: it is unhealthy".to_owned());
    assert_eq!(world.rollout().phase, end);

    let (mut world, old, new) = self::world(&config(1, "continue"), None);
    world.doom(&new, Fate::Ends(SECOND));
    world.run();
    assert_eq!(world.rollout().phase, Phase::Completed);
    assert_eq!(world.rollout().failed.len(), 4);
    assert!(self::told(&world, &old, &new)[1].starts_with(
        "rollout of web goes on after web/1: it ended with code 1: failure_action is `continue`"
    ));
}

#[test]
fn tasks_of_nodes_that_are_away_come_last_and_do_not_fail() {
    let (mut world, old, new) = world(&config(1, ""), None);
    // Task 2.
    world.away.insert("b".to_owned());
    let began = world.now;
    world.run();
    assert_eq!(
        told(&world, &old, &new)[3..],
        [
            "rollout of web does not wait for web/2: its node is away; it changes when its node is back; rollout of web is completed; 3 of 4 tasks are of revision NEW, web/2 will be when its node is back"
        ]
    );
    assert_eq!(world.now - began, 60 * SECOND);
    assert_eq!(world.revisions().len(), 2);
    world.away.clear();
    world.settle();
    assert_eq!(world.revisions(), [revision(&new)].into());

    // One that goes away on its way, and comes back.
    let (mut world, ..) = self::world(&config(2, ""), None);
    look(&mut world);
    world.away.insert("a".to_owned());
    while world.rollout().skipped.is_empty() {
        look(&mut world);
    }
    assert_eq!(world.rollout().skipped, [1].into());
    world.away.clear();
    world.run();
    assert_eq!(world.rollout().phase, Phase::Completed);
}

#[test]
fn what_is_not_well_goes_first_and_old_troubles_do_not_count() {
    let (mut world, old, _) = world(&config(1, ""), None);
    world.fates.insert((revision(&old), 3), Fate::Ends(SECOND));
    let (seen, mut memory) = (world.seen(), Memory::default());
    let first = |memory: &mut Memory, seen: &BTreeMap<_, _>| {
        let (assignment, now) = (world.assignment(), world.now);
        wharfie_core::rollout::step(&world.stack, "web", assignment, seen, memory, now)
    };
    let mut seen = seen;
    seen.get_mut(&3).unwrap().trouble = Some("image web:1 is not found".to_owned());
    let change = first(&mut memory, &seen).change.unwrap();
    assert_eq!(change.rollout.as_ref().unwrap().group, [3].into());
    // Its node still says so half a minute later, while it fetches the image.
    let now = world.now + 30 * SECOND;
    let step = |seen: &BTreeMap<_, _>, memory: &mut Memory| {
        wharfie_core::rollout::step(&world.stack, "web", &change, seen, memory, now)
    };
    assert_eq!(step(&seen, &mut memory).change, None);
    seen.get_mut(&3).unwrap().trouble = Some("image web:2 is not found".to_owned());
    let failed = step(&seen, &mut memory).change.unwrap().rollout.unwrap();
    let why = "web/3: image web:2 is not found".to_owned();
    assert_eq!(failed.phase, Phase::Paused(why));
}

#[test]
fn stopped_tasks_are_not_waited_for() {
    let (mut world, ..) = world(&config(1, ""), None);
    world.stack.halted = ["web/1", "web/3"].map(str::to_owned).into();
    world.run();
    assert_eq!(world.rollout().phase, Phase::Completed);
    let updates = world.notes.iter().filter(|n| n.contains("updates"));
    assert_eq!(updates.count(), 2);
}

#[test]
fn people_pause_resume_and_undo() {
    let (mut world, old, new) = world(&config(1, ""), None);
    look(&mut world);
    assert_eq!(
        resume("web", world.assignment()).unwrap_err().to_string(),
        "the rollout of web is not paused: it goes on by itself"
    );
    let step = pause("web", world.assignment(), "asked for by anna").unwrap();
    world.write(step);
    assert_eq!(
        pause("web", world.assignment(), "")
            .unwrap_err()
            .to_string(),
        "the rollout of web is paused already: asked for by anna"
    );
    for _ in 0..100 {
        look(&mut world);
    }
    assert_eq!(world.rollout().updated, [1].into());
    let step = resume("web", world.assignment()).unwrap();
    world.write(step);
    look(&mut world);
    look(&mut world);
    assert_eq!(world.rollout().updated, [1, 2].into());
    let asked = |world: &World| {
        undo(
            &world.stack,
            "web",
            world.assignment(),
            "asked for",
            world.now,
        )
    };
    let step = asked(&world).unwrap();
    world.write(step);
    assert!(matches!(asked(&world), Err(Refused::GoingBack { .. })));
    world.run();
    assert_eq!(world.stack, old);
    let told = told(&world, &old, &new);
    assert_eq!(
        told.last().unwrap(),
        "rollout of web went back: asked for; 4 of 4 tasks are of revision OLD"
    );
    assert_eq!(asked(&world), Err(Refused::Over("web".to_owned())));
    let none = Assignment::default();
    assert_eq!(resume("web", &none), Err(Refused::None("web".to_owned())));
}

#[test]
fn to_put_up_what_ran_before_is_to_go_back() {
    let (mut world, old, _) = world(&config(1, ""), None);
    for _ in 0..16 {
        look(&mut world);
    }
    assert_eq!(world.rollout().updated, [1, 2].into());
    world.up(old.clone());
    assert_eq!(world.rollout().updated, [3, 4].into());
    world.run();
    assert!(matches!(world.rollout().phase, Phase::RolledBack(_)));
    assert_eq!(world.revisions(), [revision(&old)].into());
}

#[test]
fn a_change_midway_that_fails_goes_back_to_what_ran_as_a_whole() {
    let (mut world, old, _) = world(&config(1, "rollback"), None);
    for _ in 0..16 {
        look(&mut world);
    }
    let third = stack("web:3", 4, &config(1, "rollback"), None);
    world.doom(&third, Fate::Ends(SECOND));
    world.up(third);
    world.run();
    assert_eq!(world.stack, old);
    assert_eq!(world.revisions(), [revision(&old)].into());
}

#[test]
fn nodes_leave_alone_what_they_have_half_the_news_of() {
    let (mut world, old, new) = world(&config(1, ""), None);
    // The rollout has arrived, the stack has not.
    world.stack = old.clone();
    world.settle();
    assert_eq!(world.revisions(), [revision(&old)].into());
    let step = world.decide();
    assert_eq!((step.change, step.restore), (None, None));
    let asked = undo(&world.stack, "web", world.assignment(), "", 0);
    assert_eq!(asked, Err(Refused::Changing("web".to_owned())));
    world.stack = new.clone();
    world.run();
    let all: BTreeSet<String> = [revision(&new)].into();
    assert_eq!(world.revisions(), all);
}

/// Of a partition's two sides one wrote the stack last, and the other where the tasks are.
#[test]
fn what_was_changed_on_two_sides_comes_together() {
    for rounds in [0, 3, 20] {
        let (mut world, ..) = world(&config(1, ""), None);
        for _ in 0..rounds {
            let step = world.decide();
            world.write(step);
            world.nodes();
        }
        let other = stack("web:3", 4, &config(1, ""), None);
        world.stack = other.clone();
        world.run();
        world.settle();
        assert_eq!(world.rollout().phase, Phase::Completed);
        assert_eq!(world.revisions(), [revision(&other)].into());
    }
}
