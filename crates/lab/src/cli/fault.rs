use anyhow::Result;
use clap::{Args, ValueEnum};
use wharfie_lab::Direction;

use super::{WhichLab, machine};

/// Cut a host or client off from the LAN
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  wharfie-lab cut h2\n  wharfie-lab cut h2 --one-way out\n  \
                        wharfie-lab cut h2 --from h3\n  wharfie-lab cut h2 --unplug"
)]
pub(super) struct Cut {
    #[command(flatten)]
    lab: WhichLab,
    /// The host or client
    name: String,
    /// Only what it would receive (in), or only what it sends (out)
    #[arg(long, value_enum, value_name = "DIRECTION")]
    one_way: Option<Way>,
    /// Only from this other machine
    #[arg(long, value_name = "OTHER")]
    from: Option<String>,
    /// Pull the cable, so that its interface has no carrier; else packets are dropped on the way
    #[arg(long, conflicts_with_all = ["one_way", "from"])]
    unplug: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    In,
    Out,
}

impl Cut {
    pub(super) fn run(self) -> Result<()> {
        let lab = self.lab.open()?;
        let one = machine(&lab, &self.name)?;
        let other = self.from.map(|name| machine(&lab, &name)).transpose()?;
        match (other, self.one_way) {
            _ if self.unplug => one.unplug(),
            (None, None) => one.cut(),
            (None, Some(Way::In)) => one.cut_one_way(Direction::In),
            (None, Some(Way::Out)) => one.cut_one_way(Direction::Out),
            (Some(other), None) => one.cut_from(&other),
            (Some(other), Some(Way::In)) => other.cut_one_way_to(&one),
            (Some(other), Some(Way::Out)) => one.cut_one_way_to(&other),
        }
    }
}

/// Take away all faults of a host or client, or of the whole lab
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab heal h2\n  wharfie-lab heal")]
pub(super) struct Heal {
    #[command(flatten)]
    lab: WhichLab,
    /// The host or client; all if not given
    name: Option<String>,
}

impl Heal {
    pub(super) fn run(self) -> Result<()> {
        let lab = self.lab.open()?;
        match self.name {
            Some(name) => machine(&lab, &name)?.heal(),
            None => lab.heal(),
        }
    }
}

/// Lose a percentage of the packets from and to a host or client
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfie-lab loss h2 30\n  wharfie-lab loss h2 0")]
pub(super) struct Loss {
    #[command(flatten)]
    lab: WhichLab,
    /// The host or client
    name: String,
    /// How many of a hundred, in each direction; 0 ends it
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    percent: u8,
}

impl Loss {
    pub(super) fn run(self) -> Result<()> {
        machine(&self.lab.open()?, &self.name)?.loss(self.percent)
    }
}
