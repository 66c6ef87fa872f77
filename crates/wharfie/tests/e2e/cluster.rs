//! A cluster under test: hosts of a lab, each with an agent that can be killed and started.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wharfie_lab::{Lab, LabBuilder, Spawned};

use crate::engines::several;
use crate::stack::{Stack, agent_of, ask_agent, soon, text, wharfie};

/// Hosts with an agent each.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
}

/// A host, a folder to run commands in, and the agent.
pub(crate) struct Node {
    stack: Stack,
    agent: Mutex<Option<Spawned>>,
}

impl Deref for Node {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

impl Cluster {
    /// Hosts that know nothing of each other; each has a folder of this name with this
    /// `compose.yaml`. None if there can be no lab here.
    pub(crate) fn apart(hosts: usize, name: &str, compose: &str) -> Option<Self> {
        Self::begun(Lab::builder().hosts(hosts), name, compose)
    }

    fn begun(lab: LabBuilder, name: &str, compose: &str) -> Option<Self> {
        let hosts = several(lab)?.into_iter();
        let nodes: Vec<Node> = hosts
            .map(|host| Node {
                stack: Stack::on_node(host, name, compose),
                agent: Mutex::default(),
            })
            .collect();
        nodes.iter().for_each(Node::begin);
        nodes.iter().for_each(Node::is_there);
        Some(Self { nodes })
    }

    /// Hosts that are one cluster.
    pub(crate) fn of(hosts: usize, name: &str, compose: &str) -> Option<Self> {
        Self::with(Lab::builder().hosts(hosts), name, compose)
    }

    /// Hosts of this lab that are one cluster.
    pub(crate) fn with(lab: LabBuilder, name: &str, compose: &str) -> Option<Self> {
        let cluster = Self::begun(lab, name, compose)?;
        let (first, others) = cluster.nodes.split_first()?;
        for other in others {
            other.join(first);
        }
        cluster.is_whole();
        Some(cluster)
    }

    /// Node `hN`.
    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The lab.
    pub(crate) fn lab(&self) -> &Lab {
        self.nodes[0].host.lab()
    }

    /// Waits until all nodes are up for all.
    #[track_caller]
    pub(crate) fn is_whole(&self) {
        let all: Vec<String> = self.nodes.iter().map(|n| n.name().to_owned()).collect();
        for node in &self.nodes {
            soon(|| {
                let states = node.states()?;
                let up = |name: &String| states.contains(&(name.clone(), "up".to_owned()));
                ensure!(
                    states.len() == all.len() && all.iter().all(up),
                    "seen from {}: {states:?}",
                    node.name()
                );
                Ok(())
            });
        }
    }
}

impl Node {
    /// Name of the node, which is the host's.
    pub(crate) fn name(&self) -> &str {
        self.stack.host.name()
    }

    /// Name of the stack in its folder.
    pub(crate) fn stack_name(&self) -> &str {
        &self.stack.name
    }

    /// Starts the agent, and waits until it answers.
    #[track_caller]
    pub(crate) fn start_agent(&self) {
        self.begin();
        self.is_there();
    }

    /// Starts the agent.
    pub(crate) fn begin(&self) {
        self.begin_with(&[]);
    }

    /// The same, with variables in its environment.
    pub(crate) fn begin_with(&self, environment: &[(&str, &str)]) {
        let mut command = self.host.command(wharfie());
        let engine = format!("unix://{}", self.host.engine().socket().display());
        command
            .args(["agent", "--engine", &engine, "--config"])
            .arg(self.path("wharfie.toml"))
            .env_remove("DOCKER_HOST")
            .envs(environment.iter().copied())
            .envs(agent_of(&self.host));
        if !self.path("wharfie.toml").exists() {
            self.write("wharfie.toml", "");
        }
        *self.agent() = Some(self.host.machine().spawn(command).unwrap());
    }

    #[track_caller]
    fn is_there(&self) {
        soon(|| {
            let info = self.ask("/v1/info")?;
            ensure!(info["engine_away"].is_null(), "{info}");
            Ok(())
        });
    }

    /// Kills the agent.
    pub(crate) fn kill_agent(&self) {
        self.agent().as_ref().unwrap().kill().unwrap();
    }

    /// Asks the agent to end, and waits until it has.
    pub(crate) fn end_agent(&self) {
        let agent = self.agent().clone().unwrap();
        agent.terminate(Duration::from_secs(20)).unwrap();
    }

    fn agent(&self) -> std::sync::MutexGuard<'_, Option<Spawned>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this life of the agent has logged.
    pub(crate) fn log(&self) -> String {
        self.agent().as_ref().map(Spawned::log).unwrap_or_default()
    }

    /// Asks the agent.
    pub(crate) fn ask(&self, path: &str) -> Result<Value> {
        let [(_, socket), _] = agent_of(&self.host);
        ask_agent(&socket, "GET", path)
    }

    /// Makes a token.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        self.ok("token").stdout.trim().to_owned()
    }

    /// Joins the cluster of another node.
    #[track_caller]
    pub(crate) fn join(&self, other: &Node) {
        let token = other.token();
        self.ok(["join", &token]);
    }

    /// The nodes' names and states, as seen from here.
    pub(crate) fn states(&self) -> Result<Vec<(String, String)>> {
        let nodes = self.ask("/v1/nodes")?;
        let nodes = nodes.as_array().context("no nodes")?;
        Ok(nodes
            .iter()
            .map(|n| (text(&n["name"]), text(&n["state"])))
            .collect())
    }

    /// Waits until another node is in a state, as seen from here.
    #[track_caller]
    pub(crate) fn sees(&self, other: &Node, state: &str) {
        soon(|| {
            let states = self.states()?;
            let wanted = (other.name().to_owned(), state.to_owned());
            ensure!(
                states.contains(&wanted),
                "{} is to see {wanted:?}: {states:?}",
                self.name()
            );
            Ok(())
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("──── the agent of {}\n{}", self.name(), self.log());
        }
    }
}
