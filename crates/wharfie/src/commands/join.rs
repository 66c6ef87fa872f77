//! `wharfie join`.

use clap::Args;

use crate::api::{JoinRequest, Node};
use crate::context::Context;
use crate::control::Control;
use crate::failure::Failure;
use crate::output;

/// Makes this host a node of a cluster.
///
/// `wharfie token` on any node of the cluster makes the token. What this host runs already goes on,
/// and is known to all from then on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfie join wharfie-1-…\n  wharfie join --name rack2-7 wharfie-1-…\n  ssh first wharfie token | wharfie join -"
)]
pub(crate) struct Join {
    /// The token ("-" is standard input)
    #[arg(value_name = "TOKEN")]
    token: String,

    /// Name of this node [default: the agent's setting, else the host's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Join with a new key, as a node that was never seen: after a removal, or on a copy of a machine
    #[arg(long)]
    new_key: bool,
}

impl Join {
    /// Does it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let token = match self.token.as_str() {
            "-" => {
                let text = std::io::read_to_string(std::io::stdin());
                text.map_err(|e| Failure::failed(format!("cannot read the token: {e}")))?
            }
            token => token.to_owned(),
        };
        // What is no token needs no agent.
        let parsed: Result<wharfie_cluster::Token, _> = token.parse();
        parsed.map_err(|e| Failure::usage(e.to_string()))?;
        let control = Control::acting(context).await?;
        let request = JoinRequest {
            token,
            name: self.name.clone(),
            new_key: self.new_key,
        };
        let nodes: Vec<Node> = control.agent().tell("/v1/cluster/join", &request).await?;
        let me = nodes.iter().find(|n| n.me).map(|n| n.name.as_str());
        output::say(&format!(
            "Joined as {}: the cluster has {} nodes now",
            me.unwrap_or_default(),
            nodes.len()
        ));
        Ok(())
    }
}
