//! The agent's systemd unit.

use std::path::Path;

/// The unit of an agent that a program runs.
pub(super) fn text(program: &Path) -> String {
    UNIT.replace("@PROGRAM@", &quoted(&program.display().to_string()))
}

/// A path as systemd reads it in a command line.
fn quoted(path: &str) -> String {
    let escaped = path
        .replace('%', "%%")
        .replace('\\', "\\\\")
        .replace('$', "$$");
    if escaped.contains([' ', '\t', '"', '\'', ';']) {
        format!("\"{}\"", escaped.replace('"', "\\\""))
    } else {
        escaped
    }
}

const UNIT: &str = "\
# Written by `wharfie install`. Changes go into a file of your own: systemctl edit wharfie
[Unit]
Description=Wharfie, orchestrator of Docker containers
Documentation=man:wharfie(1) man:wharfie-agent(1)
# It outlives the Engine, so it does not depend on it.
Wants=docker.service network-online.target
After=docker.service network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=@PROGRAM@ agent
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1s
TimeoutStopSec=20s
# Containers are the Engine's, and go on without the agent.
KillMode=process
OOMScoreAdjust=-500
LimitNOFILE=1048576
UMask=0077
StateDirectory=wharfie
StateDirectoryMode=0700
RuntimeDirectory=wharfie
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes

# Nothing here gives the agent file systems of its own (ProtectSystem=, PrivateTmp= and the like):
# what it mounts for containers would not be seen by the Engine.
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=net mnt
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @obsolete @reboot @swap
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SYS_PTRACE

[Install]
WantedBy=multi-user.target
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_named() {
        let text = text(Path::new("/usr/local/bin/wharfie"));
        assert!(text.contains("\nExecStart=/usr/local/bin/wharfie agent\n"));
        assert!(!text.contains('@') || text.contains("~@clock") && !text.contains("@PROGRAM"));
    }

    #[test]
    fn odd_paths_are_quoted() {
        assert_eq!(quoted("/a b/50%"), "\"/a b/50%%\"");
        assert_eq!(quoted("/a$b"), "/a$$b");
    }
}
