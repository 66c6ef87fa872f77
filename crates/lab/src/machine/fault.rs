//! Breaking a machine's connection to the others.

use anyhow::Result;

use super::Machine;
use crate::faults::{Direction, Faults};
use crate::lan;
use crate::state::State;

impl Machine {
    /// Cuts the machine off: nothing it sends arrives, nothing arrives at it. Its interface stays
    /// up, as when a switch fails.
    pub fn cut(&self) -> Result<()> {
        self.fault(|faults, name| faults.cut(name))
    }

    /// Cuts the machine off in one direction only.
    pub fn cut_one_way(&self, direction: Direction) -> Result<()> {
        self.fault(|faults, name| faults.cut_one_way(name, direction))
    }

    /// Parts this machine from another one; both still reach the others.
    pub fn cut_from(&self, other: &Machine) -> Result<()> {
        self.fault(|faults, name| faults.part(name, other.name()))
    }

    /// What this machine sends does not reach the other one; the way back is open.
    pub fn cut_one_way_to(&self, other: &Machine) -> Result<()> {
        self.fault(|faults, name| faults.part_one_way(name, other.name()))
    }

    /// Loses this percentage of packets in each direction, at random; 0 ends it.
    pub fn loss(&self, percent: u8) -> Result<()> {
        self.fault(|faults, name| faults.lose(name, percent))
    }

    /// This machine sends so many bytes a second at most, as through a slow cable: what a test is to
    /// break in the middle then has a middle. `None` ends it.
    pub fn throttle(&self, rate: Option<u64>) -> Result<()> {
        lan::throttle(self.layout(), self.name(), rate)
    }

    /// Takes away every fault this machine has a part in, and plugs its cable in.
    pub fn heal(&self) -> Result<()> {
        self.plug()?;
        self.throttle(None)?;
        self.fault(|faults, name| faults.heal(name))
    }

    /// Pulls the cable: the machine's interface loses its carrier, which it can notice.
    pub fn unplug(&self) -> Result<()> {
        lan::set_carrier(self.layout(), self.name(), false)
    }

    /// Puts the cable back in.
    pub fn plug(&self) -> Result<()> {
        lan::set_carrier(self.layout(), self.name(), true)
    }

    fn fault(&self, change: impl FnOnce(&mut Faults, &str)) -> Result<()> {
        State::update(self.layout(), |state| {
            change(&mut state.faults, self.name());
            lan::apply(self.layout(), &state.faults)
        })
    }
}
