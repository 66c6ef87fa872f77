//! One step of a rollout.

use std::collections::{BTreeMap, BTreeSet};

use super::back::back;
use super::observe::{Judged, NOTHING};
use super::pace::{Action, GRACE, LATE, Pace};
use super::{Memory, Observed, Phase, Rollout, begin, graft, revision};
use crate::assignment::{Assignment, Assignments};
use crate::heal::Millis;
use crate::wanted::{Stack, task};

/// What is to be done now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// What is to be written in place of the assignment: before `restore`.
    pub change: Option<Assignment>,
    /// What is to be wanted from now on: the stack with the service as it was before. It goes through
    /// [`super::begin`] like any change.
    pub restore: Option<Box<Stack>>,
    /// When to look again, even if nothing was reported.
    pub wake: Option<Millis>,
    /// What happened, for people to see.
    pub note: Option<String>,
}

/// Takes the next step of a service's rollout: to be called whenever something was reported, and at
/// [`Step::wake`]. `tasks` has what is seen of each; what is missing in it has no container.
pub fn step(
    stack: &Stack,
    service: &str,
    assignment: &Assignment,
    tasks: &BTreeMap<u32, Observed>,
    memory: &mut Memory,
    now: Millis,
) -> Step {
    let going = assignment.rollout.as_ref().filter(|r| !r.is_over());
    let (Some(rollout), Some(wanted)) = (going, revision(stack, service)) else {
        return Step::default();
    };
    if wanted != rollout.revision {
        // Either the former revision is not wanted again yet, or the stack was changed and `begin`
        // is about to be called.
        let late = rollout.restore.as_ref().filter(|_| wanted == rollout.from);
        if let Some(former) = late {
            return Step {
                restore: Some(Box::new(graft(stack, former, service))),
                ..Step::default()
            };
        }
        let since = memory.apart(&wanted, &rollout.revision, now);
        return meet(stack, service, assignment, since + LATE, now);
    }
    memory.observe(rollout, assignment, tasks, now);
    let mut round = Round {
        stack,
        service,
        assignment,
        tasks,
        memory,
        now,
        pace: Pace::of(stack, service, rollout),
        next: Rollout {
            restore: None,
            ..rollout.clone()
        },
        step: Step::default(),
        notes: Vec::new(),
    };
    if !matches!(rollout.phase, Phase::Paused(_)) {
        round.take();
    }
    let Round {
        next,
        mut step,
        notes,
        ..
    } = round;
    if next != *rollout {
        step.change = Some(Assignment {
            rollout: Some(next),
            ..assignment.clone()
        });
    }
    step.note = (!notes.is_empty()).then(|| notes.join("; "));
    step
}

/// What is wanted and the rollout do not go together. If they still do not by then, they come from the
/// two sides of a partition, and nothing that is on its way will make them: the rollout goes on to what
/// is wanted.
fn meet(stack: &Stack, service: &str, assignment: &Assignment, by: Millis, now: Millis) -> Step {
    if now < by {
        return Step {
            wake: Some(by),
            ..Step::default()
        };
    }
    let mut assignments = Assignments::from([(service.to_owned(), assignment.clone())]);
    begin(None, stack, &mut assignments, now);
    Step {
        change: assignments.remove(service),
        note: Some(format!(
            "rollout of {service} goes to what is wanted by now: it was changed on both sides of a partition"
        )),
        ..Step::default()
    }
}

/// A step in the making.
struct Round<'a> {
    stack: &'a Stack,
    service: &'a str,
    assignment: &'a Assignment,
    tasks: &'a BTreeMap<u32, Observed>,
    memory: &'a Memory,
    now: Millis,
    pace: Pace,
    next: Rollout,
    step: Step,
    notes: Vec<String>,
}

impl Round<'_> {
    fn take(&mut self) {
        let (waits, failures) = self.judge();
        if !failures.is_empty() && self.stops(&failures) {
            return;
        }
        if !waits {
            self.go_on();
        }
    }

    /// Looks at what was let go on: whether something is waited for, and what failed.
    fn judge(&mut self) -> (bool, Vec<String>) {
        let watched: Vec<u32> = self.next.group.union(&self.next.skipped).copied().collect();
        let (mut waits, mut failures) = (false, Vec::new());
        for number in watched {
            let known = self.next.failed.contains(&number);
            if known || self.is_halted(number) || !self.assignment.tasks.contains_key(&number) {
                continue;
            }
            let key = task(self.service, number);
            let seen = self.seen(number);
            let judged = self
                .memory
                .judge(number, seen, &self.next, &self.pace, self.now);
            match judged {
                Judged::Done => {}
                Judged::Failed(why) => {
                    self.next.failed.insert(number);
                    failures.push(format!("{key}: {why}"));
                }
                Judged::Away => self.skip(number),
                // It was not waited for before, and still is not there.
                Judged::Waits(_) if self.next.skipped.contains(&number) && !seen.reachable => {}
                Judged::Waits(until) => {
                    waits = true;
                    self.wake(until);
                }
            }
        }
        (waits, failures)
    }

    /// What follows from failures: whether it is the end of the step.
    fn stops(&mut self, failures: &[String]) -> bool {
        let (service, why) = (self.service, failures.join(", "));
        let total = self.assignment.tasks.len();
        let failed = self.next.failed.iter();
        let failed = failed.filter(|n| self.assignment.tasks.contains_key(n));
        let failed = failed.count();
        let ratio = self.pace.ratio;
        let tolerated = failed as f32 / total.max(1) as f32 <= ratio;
        let goes_on = |of: String| format!("rollout of {service} goes on after {why}: {of}");
        if tolerated {
            self.notes.push(goes_on(format!(
                "{failed} of {total} failed, and max_failure_ratio is {ratio}"
            )));
            return false;
        }
        match self.pace.action {
            Action::Continue => {
                let of = "failure_action is `continue`".to_owned();
                self.notes.push(goes_on(of));
                return false;
            }
            Action::Rollback => {
                let (stack, assignment) = (self.stack, self.assignment);
                if let Some((next, restore)) =
                    back(stack, service, assignment, &self.next, &why, self.now)
                {
                    self.notes.push(format!(
                        "rollout of {service} goes back to revision {}: {why}",
                        next.revision
                    ));
                    self.next = next;
                    self.step = Step {
                        restore: Some(restore),
                        ..Step::default()
                    };
                    return true;
                }
            }
            Action::Pause => {}
        }
        self.notes.push(format!(
            "rollout of {service} is paused: {why}; `wharfie rollout resume` goes on with the next tasks, `wharfie rollout undo` goes back"
        ));
        self.next.phase = Phase::Paused(why);
        self.step.wake = None;
        true
    }

    /// Lets the next tasks go on, or ends the rollout.
    fn go_on(&mut self) {
        let numbers = self.assignment.tasks.keys().copied();
        let held: Vec<u32> = numbers.filter(|n| self.next.held(*n).is_some()).collect();
        // Nothing runs of what was stopped.
        let (stopped, held): (Vec<u32>, Vec<u32>) =
            held.into_iter().partition(|n| self.is_halted(*n));
        let (mut here, away): (Vec<u32>, Vec<u32>) =
            held.into_iter().partition(|n| self.seen(*n).reachable);
        if here.is_empty() {
            // Those that are away come last: until then they may be back.
            for number in &away {
                match self.memory.gone(*number) {
                    Some(time) if self.now < time => self.wake(Some(time)),
                    _ => {
                        self.next.updated.insert(*number);
                        self.skip(*number);
                    }
                }
            }
            if away.iter().all(|n| self.next.updated.contains(n)) {
                self.finish();
            }
            return;
        }
        let due = self.due();
        if self.now < due {
            self.wake(Some(due));
            return;
        }
        // What is not well now is not missed.
        here.sort_by_key(|n| (self.is_well_before(*n), *n));
        here.truncate(self.pace.parallelism);
        self.next.group = here.into_iter().collect();
        self.next.updated.extend(stopped);
        self.next.updated.extend(&self.next.group);
        self.next.stepped = self.now;
        self.wake(Some(self.now + GRACE));
        let tasks = self.names(&self.next.group);
        let verb = if self.next.back.is_some() {
            "takes back"
        } else {
            "updates"
        };
        self.notes.push(format!(
            "rollout of {} {verb} {tasks} to revision {}, {} of {}",
            self.service,
            self.next.revision,
            self.updated(),
            self.assignment.tasks.len()
        ));
    }

    /// When the next tasks may go on.
    fn due(&self) -> Millis {
        let group = &self.next.group;
        if group.is_empty() {
            return self.now;
        }
        let well = group.iter().filter_map(|n| self.memory.well(*n));
        let last = well.fold(self.next.stepped, Millis::max);
        last + self.pace.delay
    }

    /// All tasks are of the new revision.
    fn finish(&mut self) {
        let (total, to) = (self.assignment.tasks.len(), &self.next.revision);
        let assigned = |n: &u32| self.assignment.tasks.contains_key(n);
        let away = self.next.skipped.iter().filter(|n| assigned(n));
        let away = away.filter(|n| !self.seen(**n).is_well(to));
        let away: BTreeSet<u32> = away.copied().collect();
        let mut note = match &self.next.back {
            None => format!("rollout of {} is completed", self.service),
            Some(why) => format!("rollout of {} went back: {why}", self.service),
        };
        note += &format!(
            "; {} of {total} tasks are of revision {to}",
            total - away.len()
        );
        if !away.is_empty() {
            note += &format!(", {} will be when its node is back", self.names(&away));
        }
        self.notes.push(note);
        let phase = match &self.next.back {
            None => Phase::Completed,
            Some(why) => Phase::RolledBack(why.clone()),
        };
        self.next = Rollout {
            before: Vec::new(),
            updated: BTreeSet::new(),
            group: BTreeSet::new(),
            skipped: BTreeSet::new(),
            back: None,
            phase,
            ..self.next.clone()
        };
        self.step.wake = None;
    }

    /// Goes on without a task whose node is away.
    fn skip(&mut self, number: u32) {
        if self.next.skipped.insert(number) {
            self.notes.push(format!(
                "rollout of {} does not wait for {}: its node is away; it changes when its node is back",
                self.service,
                task(self.service, number)
            ));
        }
    }

    fn wake(&mut self, time: Option<Millis>) {
        let times = [self.step.wake, time].into_iter().flatten();
        self.step.wake = times.min();
    }

    fn seen(&self, number: u32) -> &Observed {
        self.tasks.get(&number).unwrap_or(&NOTHING)
    }

    fn is_halted(&self, number: u32) -> bool {
        let key = task(self.service, number);
        self.stack.halted.contains(&key)
    }

    fn is_well_before(&self, number: u32) -> bool {
        let version = self.next.held(number);
        version.is_some_and(|v| self.seen(number).is_well_before(&v.revision))
    }

    fn updated(&self) -> usize {
        let numbers = self.assignment.tasks.keys();
        numbers.filter(|n| self.next.held(**n).is_none()).count()
    }

    fn names(&self, numbers: &BTreeSet<u32>) -> String {
        let names: Vec<String> = numbers.iter().map(|n| task(self.service, *n)).collect();
        names.join(", ")
    }
}
