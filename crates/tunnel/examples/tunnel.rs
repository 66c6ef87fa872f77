//! A tunnel in the foreground: `tunnel NAME SOCKET [VXLAN-PORT]`. What `wharfie tunnel` runs, for
//! measurements.

use std::path::PathBuf;
use std::process::ExitCode;

use wharfie_tunnel::{Settings, Tunnel};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(name), Some(socket)) = (arguments.first(), arguments.get(1)) else {
        eprintln!("tunnel NAME SOCKET [VXLAN-PORT]");
        return ExitCode::from(2);
    };
    let settings = Settings {
        name: name.clone(),
        socket: PathBuf::from(socket),
        vxlan: arguments.get(2).and_then(|port| port.parse().ok()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    match Tunnel::start(settings).and_then(Tunnel::serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
