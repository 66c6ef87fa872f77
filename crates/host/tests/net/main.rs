//! The network of hosts and containers, made of network namespaces. Needs root: without, each test
//! says so and passes, unless `CI` is set, where that is a failure.
#![allow(clippy::unwrap_used)] // tests: what is not there is a failure

mod encryption;
mod firewall;
mod hold;
mod isolation;
mod lab;
mod lan;
mod overlay;
mod published;
mod purge;
mod shortcut;
mod talk;
mod vip;
mod watch;
