//! What goes wrong, and when; and what people ask for meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt;
use rand::seq::IndexedRandom;
use wharfie_compose::model::Project;
use wharfie_core::report::Report;

use crate::ask::{Ask, What};
use crate::node::Node;
use crate::sim::{Event, Sim};
use crate::stacks;
use crate::time::{MS, Micros, SEC};

/// A fault, or its end.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A host loses its power; what was not on the disk is lost.
    Crash(usize),
    /// So does whichever host just writes what somebody asked for.
    CrashWriter,
    /// It is there again.
    Start(usize),
    /// All hosts are.
    StartAll,
    /// A host is gone for good, with its disk.
    Lose(usize),
    /// The agent alone is killed, or starts again.
    Kill(usize),
    Revive(usize),
    /// The agent ends in order, to be there again soon.
    Leave(usize),
    Left(usize),
    /// The Engine does not answer, or does again. What it ran may end with it.
    Engine(usize, bool),
    /// The network falls into parts.
    Part(Vec<u8>),
    /// A way is cut in one direction.
    Cut(usize, usize),
    /// A node is cut off, or is not any longer.
    Off(usize, bool),
    /// Messages are lost, come twice and late.
    Noise(u32, u32, Micros),
    /// All of the network works again.
    Network,
    /// A clock is set.
    Clock(usize, i64),
    /// A disk is slow, or full.
    Disk(usize, Micros, bool),
    /// A container's main process ends.
    End(usize),
    /// A host becomes a member.
    Join,
}

impl Sim {
    /// Notes that a fault touches a node.
    fn disturb(&mut self, node: usize) {
        self.nodes[node].disturbed = self.now;
        self.checks.disturbed = self.now;
    }

    fn disturb_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.disturb(node);
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.tell(|| format!("fault: {fault:?}"));
        self.checks.disturbed = self.now;
        match fault {
            Fault::Crash(n) => self.crash(n),
            Fault::CrashWriter => {
                let writes = |n: &Node| n.agent.as_ref().is_some_and(|a| a.writing);
                if let Some(n) = self.nodes.iter().position(writes) {
                    self.crash(n);
                }
            }
            Fault::StartAll => {
                for n in 0..self.nodes.len() {
                    if !self.nodes[n].up {
                        self.fault(Fault::Start(n));
                    }
                }
            }
            Fault::Lose(n) => {
                self.crash(n);
                self.nodes[n].lost = true;
                self.forgive(n);
            }
            Fault::Start(n) => {
                self.disturb(n);
                if !self.nodes[n].lost {
                    self.nodes[n].up = true;
                    self.nodes[n].engine.up = true;
                    self.start_agent(n);
                }
            }
            Fault::Kill(n) => {
                self.disturb(n);
                self.nodes[n].agent = None;
            }
            Fault::Revive(n) => {
                self.disturb(n);
                self.start_agent(n);
            }
            Fault::Leave(n) => self.leave(n),
            Fault::Left(n) => self.gone(n),
            Fault::Engine(n, up) => self.set_engine(n, up),
            Fault::Part(parts) => {
                self.disturb_all();
                self.network.parts = parts;
                self.checks.parted = self.now;
            }
            Fault::Cut(a, b) => {
                self.disturb(a);
                self.disturb(b);
                self.network.cut.insert((a, b));
            }
            Fault::Off(n, off) => {
                self.disturb(n);
                match off {
                    true => self.network.off.insert(n),
                    false => self.network.off.remove(&n),
                };
            }
            Fault::Noise(loss, twice, jitter) => {
                self.disturb_all();
                (self.network.loss, self.network.twice) = (loss, twice);
                self.network.jitter = jitter;
            }
            Fault::Network => {
                self.disturb_all();
                self.network.heal();
            }
            Fault::Clock(n, skew) => {
                self.disturb(n);
                self.nodes[n].wall.skew = skew;
            }
            Fault::Disk(n, slowness, full) => {
                self.disturb(n);
                self.nodes[n].disk.slowness = slowness;
                self.nodes[n].disk.full = full;
            }
            Fault::End(n) => self.end_one(n),
            Fault::Join => self.join(),
        }
    }

    fn crash(&mut self, n: usize) {
        self.disturb(n);
        let host: &mut Node = &mut self.nodes[n];
        host.up = false;
        host.agent = None;
        host.falls += 1;
        host.engine.up = false;
        host.engine.die();
    }

    /// The agent says that it is expected back.
    fn leave(&mut self, n: usize) {
        let Some(agent) = self.nodes[n].agent.as_ref() else {
            return;
        };
        let report = Report {
            leaving: true,
            ..Report::clone(&agent.report)
        };
        self.send_report(n, report);
        self.after(50 * MS, Event::Fault(Fault::Left(n)));
    }

    /// The agent has ended: its peers notice by their links.
    fn gone(&mut self, n: usize) {
        let Some(agent) = self.nodes[n].agent.as_ref() else {
            return;
        };
        let peers: Vec<usize> = agent.links.keys().copied().collect();
        self.swim_leave(n);
        self.nodes[n].agent = None;
        for peer in peers {
            if self.network.is_open_both_ways(n, peer) {
                self.unlink(peer, n);
                self.swim_left(peer, n);
            }
        }
    }

    pub(crate) fn set_engine(&mut self, n: usize, up: bool) {
        if !self.nodes[n].up {
            return;
        }
        self.nodes[n].engine.up = up;
        let host = &mut self.nodes[n];
        if let Some(agent) = host.agent.as_mut() {
            for slot in agent.slots.values_mut().filter(|_| up) {
                slot.resumed = true;
                slot.wake = true;
            }
        }
        self.publish_soon(n);
        self.look_soon(n, 100 * MS);
    }

    fn end_one(&mut self, n: usize) {
        let running = self.nodes[n].engine.containers.iter();
        let running: Vec<(String, String)> = running
            .filter(|c| c.is_running())
            .map(|c| (c.id.clone(), c.project().to_owned()))
            .collect();
        let Some((id, stack)) = running.choose(&mut self.rng).cloned() else {
            return;
        };
        self.nodes[n].engine.end(&id, 1);
        self.publish_soon(n);
        self.wake(n, &stack);
    }

    fn join(&mut self) {
        let Some(at) = self.any_agent() else {
            return;
        };
        let n = self.add_host();
        self.asked(Ask {
            at,
            what: What::Join(n),
        });
        let memory = &self.nodes[at].disk.memory;
        let members = memory.list(wharfie_cluster::roster::MEMBER);
        let (key, value) = self.member(n);
        let wall = self.nodes[n].stamp(self.now);
        self.nodes[n].disk.memory.merge(&members, wall, None);
        // It knows that it is one; whoever let it in says the same.
        let memory = &self.nodes[n].disk.memory;
        let _ = memory.put(&key, Some(value), "join", wall);
        self.disturb(n);
        self.start_agent(n);
    }

    pub(crate) fn any_agent(&mut self) -> Option<usize> {
        let with = (0..self.nodes.len()).filter(|n| self.nodes[*n].agent.is_some());
        let with: Vec<usize> = with.collect();
        with.choose(&mut self.rng).copied()
    }

    /// Plans what is asked for and what goes wrong.
    pub(crate) fn plan(&mut self) {
        let stacks = 1 + self.setup.nodes.min(12) / 6 + usize::from(self.rng.random_bool(0.5));
        for i in 0..stacks {
            self.plan_stack(&format!("s{i}"));
        }
        if self.rng.random_bool(0.4) {
            let (n, at) = (self.any(), self.any());
            let time = self.moment(15, 40);
            self.at(time, ask(at, What::Drain(n, true)));
            if self.rng.random_bool(0.6) {
                let at = self.any();
                let pause = self.rng.random_range(2 * SEC..20 * SEC);
                self.at(time + pause, ask(at, What::Drain(n, false)));
            }
        }
        if !self.setup.faults {
            return;
        }
        if self.rng.random_bool(0.15) {
            // A partition and nothing else, long enough for all that it asks for.
            let time = self.moment(12, 20);
            let parts = (0..self.setup.nodes).map(|_| self.rng.random_range(0..2));
            let parts = parts.collect();
            self.at(time, Event::Fault(Fault::Part(parts)));
            return self.at(time + 35 * SEC, Event::Fault(Fault::Network));
        }
        let many = self.rng.random_range(1..=4 + self.setup.nodes / 5);
        for _ in 0..many {
            self.plan_fault();
        }
    }

    /// One stack is brought up, and that is all.
    pub(crate) fn plan_one(&mut self) {
        let project = stacks::project("s0", &mut self.rng);
        let at = self.moment(12, 13);
        self.ask_up(at, &project, &BTreeMap::new());
    }

    fn any(&mut self) -> usize {
        self.rng.random_range(0..self.setup.nodes)
    }

    fn moment(&mut self, from: u64, to: u64) -> Micros {
        let to = to.min(self.setup.seconds);
        SEC + self.rng.random_range(from * SEC..to.max(from + 1) * SEC)
    }

    fn plan_stack(&mut self, name: &str) {
        let mut project = stacks::project(name, &mut self.rng);
        let mut scale = BTreeMap::new();
        let mut time = self.moment(5, 8);
        for version in 2..self.rng.random_range(2..6) {
            self.ask_up(time, &project, &scale);
            time += self.rng.random_range(3 * SEC..30 * SEC);
            let bad = self.rng.random_bool(0.3);
            match self.rng.random_range(0..4) {
                0 => {
                    let count = self.rng.random_range(0..=8);
                    scale.insert("web".to_owned(), count);
                }
                _ => {
                    let image = stacks::image("web", version, bad, &mut self.rng);
                    if let Some(web) = project.services.get_mut("web") {
                        web.image = image;
                    }
                }
            }
        }
        match self.rng.random_bool(0.2) {
            true => {
                self.ask_up(time, &project, &scale);
                // Perhaps before all of it is there.
                time += self.rng.random_range(10 * MS..500 * MS);
                let at = self.any();
                self.at(time, ask(at, What::Down(name.to_owned())));
            }
            false => self.ask_up(time, &project, &scale),
        }
    }

    fn ask_up(&mut self, time: Micros, project: &Project, scale: &BTreeMap<String, u32>) {
        let at = self.any();
        if self.setup.faults && self.rng.random_bool(0.1) {
            // Just before it is on the disk, or just after.
            let soon = self.rng.random_range(MS..6 * MS);
            self.at(time + soon, Event::Fault(Fault::CrashWriter));
            let later = self.rng.random_range(SEC..10 * SEC);
            self.at(time + later, Event::Fault(Fault::StartAll));
        }
        let what = What::Up(Arc::new(project.clone()), scale.clone());
        self.at(time, ask(at, what));
    }

    fn plan_fault(&mut self) {
        let (n, time) = (self.any(), self.moment(8, 50));
        let pause = self.rng.random_range(500 * MS..30 * SEC);
        let pair = match self.rng.random_range(0..15) {
            0 => (Fault::Crash(n), Fault::Start(n), pause),
            1 => (Fault::Kill(n), Fault::Revive(n), pause),
            2 => (Fault::Leave(n), Fault::Revive(n), SEC + pause / 2),
            3 => (Fault::Engine(n, false), Fault::Engine(n, true), pause / 4),
            4 => (Fault::Off(n, true), Fault::Off(n, false), pause),
            5 => (
                Fault::Disk(n, SEC, false),
                Fault::Disk(n, 3 * MS, false),
                pause,
            ),
            6 => (
                Fault::Disk(n, MS, true),
                Fault::Disk(n, 3 * MS, false),
                pause,
            ),
            _ => return self.plan_more(n, time, pause),
        };
        self.at(time, Event::Fault(pair.0));
        self.at(time + pair.2, Event::Fault(pair.1));
    }

    fn plan_more(&mut self, n: usize, time: Micros, pause: Micros) {
        let other = self.any();
        let end = time + pause;
        match self.rng.random_range(0..8) {
            0 | 1 => {
                let parts = (0..self.setup.nodes).map(|_| self.rng.random_range(0..2));
                let parts = parts.collect();
                self.at(time, Event::Fault(Fault::Part(parts)));
                self.at(end + 10 * SEC, Event::Fault(Fault::Network));
            }
            2 => {
                self.at(time, Event::Fault(Fault::Cut(n, other)));
                self.at(end, Event::Fault(Fault::Network));
            }
            3 => {
                let loss = self.rng.random_range(5..200);
                let twice = self.rng.random_range(0..100);
                let jitter = self.rng.random_range(MS..100 * MS);
                self.at(time, Event::Fault(Fault::Noise(loss, twice, jitter)));
                self.at(end, Event::Fault(Fault::Network));
            }
            4 => {
                // Flapping.
                for i in 0..self.rng.random_range(2..6) {
                    let at = time + i * self.rng.random_range(SEC..6 * SEC);
                    let pause = self.rng.random_range(500 * MS..4 * SEC);
                    self.at(at, Event::Fault(Fault::Off(n, true)));
                    self.at(at + pause, Event::Fault(Fault::Off(n, false)));
                }
            }
            5 => {
                // Others take what is up to five minutes in the future.
                let skew = *[-3_600_000, -120_000, 120_000, 240_000]
                    .choose(&mut self.rng)
                    .unwrap_or(&0);
                self.at(time, Event::Fault(Fault::Clock(n, skew)));
                self.at(end, Event::Fault(Fault::Clock(n, 0)));
            }
            6 => self.at(time, Event::Fault(Fault::End(n))),
            _ => match self.rng.random_range(0..3) {
                0 => self.at(time, Event::Fault(Fault::Join)),
                1 if self.setup.nodes > 4 => self.at(time, ask(other, What::Remove(n))),
                _ if self.setup.nodes > 3 => self.at(time, Event::Fault(Fault::Lose(n))),
                _ => {}
            },
        }
    }
}

fn ask(at: usize, what: What) -> Event {
    Event::Ask(Ask { at, what })
}
