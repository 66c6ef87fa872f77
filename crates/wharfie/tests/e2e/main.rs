//! `wharfie` as users see it, against real Engines in labs. Needs root: without, each test says so
//! and passes, unless `CI` is set, where that is a failure.
#![allow(clippy::unwrap_used)] // tests: what is not there is a failure

mod applications;
mod asker;
mod attached;
mod attributes;
mod buildkit;
mod cluster;
mod cluster_commands;
mod cluster_dns;
mod cluster_encryption;
mod cluster_faults;
mod cluster_images;
mod cluster_names;
mod cluster_networks;
mod cluster_ports;
mod cluster_rollout;
mod cluster_rough;
mod cluster_security;
mod cluster_spread;
mod cluster_volumes;
mod commands;
mod dependencies;
mod director;
mod director_faults;
mod director_v6;
mod dockermod;
mod dockermod_readme;
mod doctor;
mod engines;
mod faults;
mod features;
mod flags;
mod healing;
mod life_cycle;
mod listing;
mod more_commands;
mod network_commands;
mod network_faults;
mod podman;
mod reference;
mod registry;
mod stack;
mod survival;
mod terminal;
mod ways;

use std::time::Duration;

/// How long what takes a moment may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);
