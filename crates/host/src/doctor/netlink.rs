//! Questions to the kernel that only it can answer: a name in a list of modules says nothing on
//! a kernel that has everything built in.
//!
//! Links are tried out in a network namespace of their own, which nobody sees and which is gone
//! with the thread that made it.

use std::thread;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
    socket_with,
};
use rustix::thread::UnshareFlags;

/// Whether the kernel can do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Can {
    /// It can.
    Yes,
    /// It cannot.
    No,
    /// We may not ask.
    Unknown,
}

const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`.
const NFT_GETGEN: u16 = 10 << 8 | 16;

/// Whether the kernel makes links of these kinds, and whether it has nftables.
pub(super) fn try_out(kinds: &[&'static str]) -> (Vec<Can>, Can) {
    let kinds = kinds.to_vec();
    let all_unknown = (vec![Can::Unknown; kinds.len()], Can::Unknown);
    let tried = thread::spawn(move || {
        // Deprecated for what it does with the table of file descriptors: that stays shared.
        #[allow(deprecated)]
        rustix::thread::unshare(UnshareFlags::NEWNET)?;
        let links = kinds.iter().map(|kind| link(kind)).collect();
        Ok::<_, Errno>((links, nftables()))
    });
    match tried.join() {
        Ok(Ok(tried)) => tried,
        _ => all_unknown,
    }
}

fn link(kind: &str) -> Can {
    let mut body = vec![0_u8; 16]; // an ifinfomsg that leaves all to the kernel
    // Each has a name of its own: of a link that is there already it would be asked to change.
    let name: String = format!("try-{kind}").chars().take(15).collect();
    attribute(&mut body, IFLA_IFNAME, format!("{name}\0").as_bytes());
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    attribute(&mut body, IFLA_LINKINFO, &info);
    let message = message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE, &body);
    answer(None, &message).map_or(Can::Unknown, of_link)
}

fn nftables() -> Can {
    let message = message(NFT_GETGEN, 0, &[0; 4]);
    answer(Some(netlink::NETFILTER), &message).map_or(Can::Unknown, of_nftables)
}

/// What an answer about a link means. A kind that is known may lack settings (`EINVAL`).
fn of_link(error: Option<i32>) -> Can {
    match error.map(Errno::from_raw_os_error) {
        Some(Errno::OPNOTSUPP) => Can::No,
        Some(Errno::PERM | Errno::ACCESS) => Can::Unknown,
        _ => Can::Yes,
    }
}

/// What an answer of nfnetlink means: who has no nftables does not know the message.
fn of_nftables(error: Option<i32>) -> Can {
    match error.map(Errno::from_raw_os_error) {
        None => Can::Yes,
        Some(Errno::PERM | Errno::ACCESS) => Can::Unknown,
        Some(_) => Can::No,
    }
}

/// Sends a message and takes the first answer: its error number, or nothing if it is none.
fn answer(protocol: Option<Protocol>, message: &[u8]) -> Result<Option<i32>, Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    );
    let socket = match socket {
        // A kernel without the protocol is one without what is asked for.
        Err(Errno::PROTONOSUPPORT) => return Ok(Some(Errno::PROTONOSUPPORT.raw_os_error())),
        socket => socket?,
    };
    send(&socket, message, SendFlags::empty())?;
    let mut buffer = vec![0_u8; 8192];
    // The kernel has answered when sending returns.
    let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
    Ok(error_in(buffer.get(..length).unwrap_or_default()))
}

/// The error number in an answer; 0 is an acknowledgement, and no error.
fn error_in(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR && code != 0).then_some(-code)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut out = Vec::from(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    out.extend([0; 8]);
    out.extend(body);
    out
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        assert_eq!(of_link(None), Can::Yes);
        assert_eq!(of_link(Some(Errno::INVAL.raw_os_error())), Can::Yes);
        assert_eq!(of_link(Some(Errno::OPNOTSUPP.raw_os_error())), Can::No);
        assert_eq!(of_link(Some(Errno::PERM.raw_os_error())), Can::Unknown);
        assert_eq!(of_nftables(None), Can::Yes);
        assert_eq!(of_nftables(Some(Errno::INVAL.raw_os_error())), Can::No);
    }

    #[test]
    fn errors_are_found_in_answers() {
        let mut body = vec![0; 4];
        body.copy_from_slice(&(-95_i32).to_ne_bytes());
        assert_eq!(error_in(&message(NLMSG_ERROR, 0, &body)), Some(95));
        assert_eq!(error_in(&message(NLMSG_ERROR, 0, &[0; 4])), None);
        assert_eq!(error_in(&message(17, 0, &[1; 4])), None);
        assert_eq!(error_in(&[]), None);
    }

    #[test]
    fn attributes_are_aligned() {
        let mut out = Vec::new();
        attribute(&mut out, 1, b"veth");
        attribute(&mut out, 1, b"vxlan");
        assert_eq!((out.len(), out[0], out[8]), (20, 8, 9));
    }

    #[test]
    fn what_nobody_has_is_not_there() {
        // Also behind one that is there.
        let (links, _) = try_out(&["bridge", "no-such-kind"]);
        assert_ne!(links[1], Can::Yes);
    }
}
