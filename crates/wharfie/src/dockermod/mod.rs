//! DockerMod's protocol: JSON actions over HTTP, answered for the whole cluster by any node.
//!
//! DockerMod (2014) was a masterless cluster for Docker. What was written for it works here: a
//! [`request`] is understood, [`act`] finds the nodes it concerns ([`find`], [`pool`]), asks their
//! Engines ([`engine`]) and hands back what they say, word for word ([`reply`]). [`nodes`] is the
//! way to the nodes, [`door`] where it listens, [`serve`] who may come in. [`dialect`] brings what
//! the Engine of 2014 took into the form that today's takes; [`import`] takes over a configuration.

mod act;
mod dialect;
mod door;
mod engine;
mod find;
pub(crate) mod import;
pub(crate) mod listen;
pub(crate) mod nodes;
mod pool;
mod reply;
mod request;
mod serve;
pub(crate) mod template;
pub(crate) mod templates;
#[cfg(test)]
mod tests;

pub(crate) use act::Service;
pub(crate) use door::Door;
