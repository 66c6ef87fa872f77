//! The LAN: a bridge in a namespace of its own, and a cable from it to every host.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};

use crate::faults::Faults;
use crate::layout::{BRIDGE, INTERFACE, Layout, Subnet, namespace_file};
use crate::state::MachineState;
use crate::tools;

/// Makes the bridge. It answers as the router, so that hosts have a default route as real ones do.
pub(crate) fn create(layout: &Layout, subnet: Subnet) -> Result<()> {
    let namespace = layout.lan_namespace();
    tools::ip_batch(None, &[format!("netns add {namespace}")])?;
    let lines = [
        "link set lo up".to_owned(),
        // Without a querier, snooping would stop multicast (mDNS) after some minutes.
        format!("link add {BRIDGE} type bridge mcast_snooping 0"),
        format!(
            "addr add {}/{} dev {BRIDGE}",
            subnet.router(),
            subnet.length()
        ),
        format!("link set {BRIDGE} up"),
    ];
    tools::ip_batch(Some(&namespace), &lines).context("cannot make the LAN")
}

/// Makes a machine's namespaces and plugs it in.
pub(crate) fn plug_in(layout: &Layout, subnet: Subnet, machine: &MachineState) -> Result<()> {
    let MachineState { name, address } = machine;
    let namespace = layout.namespace(name);
    tools::ip_batch(None, &[format!("netns add {namespace}")])?;
    tools::ip_batch(
        Some(&layout.lan_namespace()),
        &[
            format!(
                "link add {name} type veth peer name {INTERFACE} address {} netns {namespace}",
                hardware_address(*address)
            ),
            format!("link set {name} master {BRIDGE} up"),
        ],
    )?;
    let router = subnet.router();
    tools::ip_batch(
        Some(&namespace),
        &[
            "link set lo up".to_owned(),
            format!(
                "addr add {address}/{} brd + dev {INTERFACE}",
                subnet.length()
            ),
            format!("link set {INTERFACE} up"),
            format!("route add default via {router}"),
        ],
    )
    .with_context(|| format!("cannot plug {name} in"))
}

/// A locally administered address made from the IP address: a machine that boots again has the same
/// network card, and its neighbours' tables stay right.
fn hardware_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:4c:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Gives a machine a host name of its own, kept by a mount in its folder.
pub(crate) fn name_host(layout: &Layout, name: &str) -> Result<()> {
    let file = layout.machine_dir(name).join("uts");
    fs::write(&file, "").with_context(|| format!("cannot make {}", file.display()))?;
    let uts = format!("--uts={}", file.display());
    tools::run(tools::command("unshare").args([&uts, "hostname", name]))?;
    Ok(())
}

/// Sets a machine's cable in or takes it out; the host sees that its interface has no carrier.
pub(crate) fn set_carrier(layout: &Layout, name: &str, on: bool) -> Result<()> {
    let state = if on { "up" } else { "down" };
    let line = format!("link set {name} {state}");
    tools::ip_batch(Some(&layout.lan_namespace()), &[line])
}

/// Limits what a machine sends, in bytes a second. What is too much waits, a second at most, rather
/// than being lost. Only the sender's side: flows that share a narrow place may starve each other.
pub(crate) fn throttle(layout: &Layout, name: &str, rate: Option<u64>) -> Result<()> {
    let queue = match rate {
        Some(rate) => format!("tbf rate {rate}bps burst 128kb latency 1s"),
        None => "noqueue".to_owned(),
    };
    let mut tc = tools::command("nsenter");
    tc.arg(net_argument(&layout.namespace(name)))
        .args(["tc", "qdisc", "replace", "dev", INTERFACE, "root"])
        .args(queue.split(' '));
    tools::run(&mut tc)?;
    Ok(())
}

/// Takes a machine's cable away with both its ends, at once: the kernel frees a namespace, and what
/// is in it, some time later, and the name of the port must be free before.
pub(crate) fn unplug_for_good(layout: &Layout, name: &str) -> Result<()> {
    let line = format!("link delete {name}");
    tools::ip_batch(Some(&layout.lan_namespace()), &[line])
}

/// Puts the faults into effect, all at once.
pub(crate) fn apply(layout: &Layout, faults: &Faults) -> Result<()> {
    let mut nft = tools::command("nsenter");
    nft.arg(net_argument(&layout.lan_namespace()))
        .args(["nft", "-f", "-"]);
    tools::run_with_input(&mut nft, &faults.ruleset())?;
    Ok(())
}

/// `nsenter` into a machine's namespaces. Not `ip netns exec`: that mounts another /sys, in which
/// an Engine finds no cgroups.
pub(crate) fn nsenter(layout: &Layout, name: &str) -> Command {
    let program = tools::which("nsenter").unwrap_or_else(|| "nsenter".into());
    let uts = layout.machine_dir(name).join("uts");
    let mut command = Command::new(program);
    command
        .arg(net_argument(&layout.namespace(name)))
        .arg(format!("--uts={}", uts.display()))
        .arg("--");
    command
}

fn net_argument(namespace: &str) -> String {
    format!("--net={}", namespace_file(namespace).display())
}
