//! The checksum of the Internet (RFC 1071).

/// Adds bytes to a sum. Only the last ones added may be an odd number.
pub(crate) fn add(sum: u64, bytes: &[u8]) -> u64 {
    // In the machine's order: the sum is the same but for the order of its two bytes (RFC 1071, 2B).
    let mut four = bytes.chunks_exact(4);
    let mut sum = sum;
    let whole: u64 = four
        .by_ref()
        .map(|c| u64::from(u32::from_ne_bytes([c[0], c[1], c[2], c[3]])))
        .sum();
    sum += whole;
    let rest = four.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_ne_bytes(last))
}

/// The sum in 16 bits, not inverted: what stands in a header for the kernel to complete.
pub(crate) fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[allow(clippy::cast_possible_truncation)] // it is at most 0xffff
    u16::from_be(sum as u16)
}

/// What the addresses, the protocol and the length add to the checksum of TCP and UDP (RFC 9293,
/// 3.1; RFC 8200, 8.1). `ip` is the IP header.
pub(crate) fn pseudo(ip: &[u8], protocol: u8, length: usize) -> u64 {
    let addresses = if ip[0] >> 4 == 4 {
        &ip[12..20]
    } else {
        &ip[8..40]
    };
    #[allow(clippy::cast_possible_truncation)] // a packet's
    let length = (length as u32).to_be_bytes();
    add(add(add(0, addresses), &length), &[0, 0, 0, protocol])
}

/// What the checksum of a tunnel's UDP header covers, where the checksum inside is right: then what
/// that covers need not be summed up again ("local checksum offload",
/// `Documentation/networking/checksum-offloads.rst`). The packet begins with the tunnel's IP header.
pub(crate) fn outer(
    packet: &[u8],
    udp: usize,
    network: usize,
    transport: usize,
    protocol: u8,
) -> u64 {
    let sum = pseudo(packet, 17, packet.len() - udp);
    let sum = add(sum, &packet[udp..transport]);
    let inside = pseudo(&packet[network..], protocol, packet.len() - transport);
    let rest = !fold(inside);
    sum + u64::from(rest.to_be())
}

/// Writes the checksum of an IPv4 header without options.
pub(crate) fn of_ipv4(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = !fold(add(0, &header[..20]));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071, 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(add(0, &bytes)), 0xddf2);
        assert_eq!(fold(add(add(0, &bytes[..4]), &bytes[4..])), 0xddf2);
        assert_eq!(fold(add(0, &bytes[..3])), 0xf201);
    }

    #[test]
    fn an_ipv4_header() {
        let mut header = [0u8; 20];
        let known = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        header.copy_from_slice(&known);
        of_ipv4(&mut header);
        assert_eq!(header[10..12], [0xb8, 0x61]);
    }
}
