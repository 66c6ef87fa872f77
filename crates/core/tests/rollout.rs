//! Rollouts, on a model of nodes: they come to an end whatever happens, and do no more harm than the
//! file allows.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod rollout_model;

use std::collections::BTreeSet;

use proptest::prelude::*;
use rollout_model::{Fate, SECOND, World, config, ratio, revision, seconds, stack};
use wharfie_compose::model::{FileObject, FileReference, UpdateConfig};
use wharfie_core::assignment::Assignment;
use wharfie_core::rollout::{Memory, Phase, begin};
use wharfie_core::{Stack, shared};

/// What a run is tried with.
#[derive(Debug, Clone)]
struct Trial {
    count: u32,
    update: UpdateConfig,
    back: UpdateConfig,
    /// Fates of the new revision's tasks.
    fates: Vec<Fate>,
    /// Tasks that do not serve before.
    sick: Vec<bool>,
    /// What happens from look to look.
    events: Vec<u8>,
}

fn any_config(actions: &'static [&'static str]) -> impl Strategy<Value = UpdateConfig> {
    let ratios = prop_oneof![3 => Just(0.0_f32), 1 => Just(0.4)];
    let action = proptest::sample::select(actions);
    (0_u64..4, action, ratios, 0_i64..9, 0_i64..7).prop_map(
        |(parallelism, action, of, delay, monitor)| UpdateConfig {
            delay: seconds(delay),
            monitor: seconds(monitor),
            ..ratio(config(parallelism, action), of)
        },
    )
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => (1_i64..12).prop_map(|n| Fate::Serves(n * SECOND)),
        1 => Just(Fate::NotMade),
        1 => Just(Fate::Ends(SECOND / 2)),
        1 => Just(Fate::Unhealthy),
    ]
}

fn any_trial() -> impl Strategy<Value = Trial> {
    (
        1_u32..8,
        any_config(&["", "pause", "rollback", "continue"]),
        any_config(&["", "pause", "continue"]),
        proptest::collection::vec(any_fate(), 8),
        proptest::collection::vec(proptest::bool::weighted(0.1), 8),
        proptest::collection::vec(any::<u8>(), 1..60),
    )
        .prop_map(|(count, update, back, fates, sick, events)| Trial {
            count,
            update,
            back,
            fates,
            sick,
            events,
        })
}

impl Trial {
    fn world(&self) -> (World, String, String) {
        let of = |image| stack(image, self.count.into(), &self.update, Some(&self.back));
        let (old, new) = (of("web:1"), of("web:2"));
        let (from, to) = (revision(&old), revision(&new));
        let mut world = World::new(old, self.count);
        for n in 1..=self.count {
            let fate = self.fates[n as usize];
            world.fates.insert((to.clone(), n), fate);
            if self.sick[n as usize] {
                world.fates.insert((from.clone(), n), Fate::Unhealthy);
            }
        }
        world.up(new);
        (world, from, to)
    }

    /// How many may be down at a time.
    fn most(&self) -> usize {
        let of = |c: &UpdateConfig| match c.parallelism.unwrap() {
            0 => usize::MAX,
            n => n as usize,
        };
        of(&self.update).max(of(&self.back))
    }

    /// Whether tasks that failed may be left behind.
    fn tolerates(&self) -> bool {
        let of = |c: &UpdateConfig| c.failure_action == "continue" || c.max_failure_ratio.0 > 0.0;
        of(&self.update) || of(&self.back)
    }
}

/// Runs until the rollout is over or paused, or fails.
fn run(trial: &Trial, world: &mut World) -> Result<(), TestCaseError> {
    // Sick before, away at some time, or failed and tolerated: not down because of the rollout.
    let mut excused: BTreeSet<u32> = (1..=trial.count)
        .filter(|n| trial.sick[*n as usize])
        .collect();
    for look in 0..3_000 {
        let event = trial.events.get(look / 2).copied().unwrap_or(255);
        match event {
            0..20 => drop(world.away.insert("b".to_owned())),
            20..40 => drop(world.away.remove("b")),
            40..50 => drop(world.away.insert("c".to_owned())),
            50..60 => drop(world.away.remove("c")),
            60..90 => world.memory = Memory::default(),
            _ => {}
        }
        let step = world.decide();
        match event {
            // It dies before it writes, or between two writes.
            90..110 => world.memory = Memory::default(),
            110..130 => {
                let restore = None;
                world.write(wharfie_core::rollout::Step { restore, ..step });
                world.memory = Memory::default();
            }
            // What it did is seen late.
            130..160 => {
                world.write(step);
                world.now += SECOND;
            }
            _ => world.write(step),
        }
        excused.extend((1..=trial.count).filter(|n| world.is_away(*n)));
        if trial.tolerates() {
            excused.extend(&world.rollout().failed);
        }
        if !world.is_going() {
            return Ok(());
        }
        world.nodes();
        let down: Vec<u32> = (1..=trial.count)
            .filter(|n| !world.serves(*n) && !excused.contains(n))
            .collect();
        let told = format!("{down:?} down, {:?}\n{:#?}", world.notes, world.rollout());
        prop_assert!(down.len() <= trial.most(), "{}", told);
    }
    Err(TestCaseError::fail(format!("no end: {:?}", world.notes)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Nodes come and go, coordinators die, tasks fail.
    #[test]
    fn a_rollout_comes_to_an_end_and_keeps_its_pace(trial in any_trial()) {
        let (mut world, from, to) = trial.world();
        run(&trial, &mut world)?;
        let end = match &world.rollout().phase {
            Phase::Completed => to,
            Phase::RolledBack(_) => from,
            Phase::Paused(_) => return Ok(()),
            going => return Err(TestCaseError::fail(format!("{going:?}"))),
        };
        prop_assert_eq!(revision(&world.stack), end.clone());
        prop_assert!(world.rollout().before.is_empty());
        world.away.clear();
        world.settle();
        for (number, container) in &world.containers {
            let made = world.fates.get(&(end.clone(), *number)) != Some(&Fate::NotMade);
            prop_assert!(!made || container.revision == end, "{} in {:?}", number, world.notes);
        }
    }

    /// Where all goes well, all tasks are updated.
    #[test]
    fn a_good_revision_is_completed(mut trial in any_trial()) {
        trial.fates = vec![Fate::Serves(2 * SECOND); 8];
        let (mut world, _, to) = trial.world();
        run(&trial, &mut world)?;
        prop_assert_eq!(&world.rollout().phase, &Phase::Completed);
        world.away.clear();
        world.settle();
        prop_assert_eq!(world.revisions(), [to].into());
    }

    /// A revision that fails everywhere is gone in the end.
    #[test]
    fn a_bad_revision_is_rolled_back(
        mut trial in any_trial(),
        fate in proptest::sample::select(vec![
            Fate::NotMade,
            Fate::Ends(SECOND / 2),
            Fate::Unhealthy,
        ]),
    ) {
        trial.update.failure_action = "rollback".to_owned();
        trial.update.max_failure_ratio.0 = 0.0;
        trial.fates = vec![fate; 8];
        trial.sick = vec![false; 8];
        let (mut world, from, _) = trial.world();
        run(&trial, &mut world)?;
        let phase = &world.rollout().phase;
        prop_assert!(matches!(phase, Phase::RolledBack(_)), "{:?}", world.notes);
        world.away.clear();
        world.settle();
        prop_assert_eq!(world.revisions(), [from].into());
    }

    /// However often a service is changed before all its tasks are updated: none goes back, and all
    /// end at the newest.
    #[test]
    fn changes_midway_go_forward(
        mut trial in any_trial(),
        times in proptest::collection::vec(0_usize..40, 1..4),
    ) {
        trial.fates = vec![Fate::Serves(2 * SECOND); 8];
        trial.events.clear();
        let (mut world, from, to) = trial.world();
        let mut order = vec![from, to];
        for (i, looks) in times.iter().enumerate() {
            for _ in 0..*looks {
                let step = world.decide();
                world.write(step);
                world.nodes();
            }
            let image = format!("web:{}", i + 3);
            let next = stack(&image, trial.count.into(), &trial.update, Some(&trial.back));
            order.push(revision(&next));
            world.up(next);
        }
        run(&trial, &mut world)?;
        prop_assert_eq!(&world.rollout().phase, &Phase::Completed);
        prop_assert_eq!(world.revisions(), [order.last().unwrap().clone()].into());
        let place = |r: &String| order.iter().position(|o| o == r).unwrap();
        for history in world.history.values() {
            let places: Vec<usize> = history.iter().map(place).collect();
            prop_assert!(places.is_sorted(), "{:?}", places);
        }
    }
}

#[test]
fn begin_leaves_alone_what_does_not_change() {
    let (one, two) = (
        stack("web:1", 2, &config(1, ""), None),
        stack("web:2", 3, &config(1, ""), None),
    );
    let mut plain = two.clone();
    let service = plain.project.services.get_mut("web").unwrap();
    service.deploy.as_mut().unwrap().update_config = None;
    let of = |before: Option<&Stack>, after: &Stack, world: &World| {
        let mut assignments = world.assignments.clone();
        begin(before, after, &mut assignments, 5);
        assignments["web"].rollout.clone()
    };
    let mut world = World::new(one.clone(), 2);
    assert_eq!(of(None, &one, &world), None);
    assert_eq!(of(Some(&Stack::default()), &one, &world), None);
    assert_eq!(of(Some(&one), &one, &world), None);
    assert_eq!(of(Some(&one), &plain, &world), None);
    // A task that is new is of the new revision at once.
    let rollout = of(Some(&one), &two, &world).unwrap();
    assert_eq!(
        (&rollout.updated, &rollout.group),
        (&[3].into(), &[3].into())
    );
    // Once more, or for a change of something else.
    world.up(two.clone());
    let going = world.assignment().rollout.clone();
    assert_eq!(of(Some(&one), &two, &world), going);
    assert_eq!(of(Some(&two), &two, &world), going);
    // A service that is wanted no longer has none.
    assert_eq!(of(Some(&two), &Stack::default(), &world), None);
    world.run();
    let last = world.assignment().rollout.clone();
    assert!(last.as_ref().unwrap().before.is_empty());
    assert_eq!(of(Some(&two), &two, &world), last);
    assert_eq!(of(None, &two, &world), None);
}

#[test]
fn what_a_revision_covers_comes_back_with_it() {
    let with = |image: &str, content: &str| {
        let mut stack = stack(image, 1, &config(1, "rollback"), None);
        stack.project.configs = [(
            "site".to_owned(),
            FileObject {
                content: content.to_owned(),
                ..FileObject::default()
            },
        )]
        .into();
        let web = stack.project.services.get_mut("web").unwrap();
        web.configs.push(FileReference {
            source: "site".to_owned(),
            ..FileReference::default()
        });
        stack
    };
    // Only the content of the config differs.
    let (old, new) = (with("web:1", "good"), with("web:1", "bad"));
    let mut world = World::new(old.clone(), 1);
    world.doom(&new, Fate::Unhealthy);
    world.up(new);
    let text = serde_json::to_string(world.assignment()).unwrap();
    let read: Assignment = serde_json::from_str(&text).unwrap();
    assert_eq!(&read, world.assignment());
    let before = &read.rollout.unwrap().before[0];
    let service = &before.stack.project.services["web"];
    assert_eq!(
        shared::revision(&before.stack.project, service),
        before.revision
    );
    world.run();
    assert!(matches!(world.rollout().phase, Phase::RolledBack(_)));
    assert_eq!(world.stack, old);
}
