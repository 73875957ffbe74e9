//! UDP over IPv4 over Ethernet by hand: as little as a frame needs to find its
//! way there and back.

use std::net::SocketAddrV4;

use ringroad::wire::checksum;

/// Bytes before the payload.
pub const HEADERS: usize = 14 + 20 + 8;
/// Bytes before the payload of a TCP segment with timestamps.
pub const TCP_HEADERS: usize = 14 + 20 + 32;

/// The two ends of a frame's way.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub from_mac: [u8; 6],
    pub to_mac: [u8; 6],
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
}

/// Write the headers of a frame of `len` bytes in all, which may be longer than
/// `frame`, where the rest is in other buffers. There is no UDP checksum.
pub fn headers(frame: &mut [u8], way: &Way, len: usize) {
    frame[..6].copy_from_slice(&way.to_mac);
    frame[6..12].copy_from_slice(&way.from_mac);
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let ip = &mut frame[14..34];
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ip[2..4].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    ip[12..16].copy_from_slice(&way.from.ip().octets());
    ip[16..20].copy_from_slice(&way.to.ip().octets());
    let sum = checksum::sum(ip).finish();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&way.from.port().to_be_bytes());
    frame[36..38].copy_from_slice(&way.to.port().to_be_bytes());
    frame[38..40].copy_from_slice(&((len - 34) as u16).to_be_bytes());
    frame[40..42].copy_from_slice(&[0, 0]);
}

/// True for UDP over IPv4 without IP options or fragmentation.
pub fn is_plain_udp(frame: &[u8]) -> bool {
    frame.len() >= HEADERS
        && frame[12..15] == [0x08, 0x00, 0x45]
        && frame[23] == 17
        && frame[20] & 0x3f == 0
        && frame[21] == 0
}

/// Turn a frame round: its addresses and ports change places. The IP header's
/// sum stays right by that; UDP's may never have been filled in (veth), so it is
/// taken out, as IPv4 allows (RFC 768).
#[inline]
pub fn turn_round(frame: &mut [u8]) {
    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
    let (from, to) = frame[26..34].split_at_mut(4);
    from.swap_with_slice(to);
    let (from, to) = frame[34..38].split_at_mut(2);
    from.swap_with_slice(to);
    frame[40..42].copy_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringroad::wire::{ethernet, ipv4, udp};

    fn way() -> Way {
        Way {
            from_mac: [2, 0, 0, 0, 0, 1],
            to_mac: [2, 0, 0, 0, 0, 2],
            from: "10.0.0.1:1000".parse().unwrap(),
            to: "10.0.0.2:7".parse().unwrap(),
        }
    }

    #[test]
    fn a_frame_is_what_the_stack_would_take_there_and_back() {
        let mut frame = vec![7; HEADERS + 20];
        headers(&mut frame, &way(), HEADERS + 20);
        let check = |frame: &[u8], from: &str, ports: (u16, u16), to_mac: [u8; 6]| {
            let (eth, rest) = ethernet::parse(frame).unwrap();
            assert_eq!(eth.dst.0, to_mac);
            let ip = ipv4::parse(rest).expect("right length and sum");
            assert_eq!(ip.header.source().to_string(), from);
            let (head, payload) = udp::parse(ip.payload).unwrap();
            assert_eq!((head.src_port.get(), head.dst_port.get(), head.checksum.get()), (ports.0, ports.1, 0));
            assert_eq!(payload, [7; 20]);
        };
        check(&frame, "10.0.0.1", (1000, 7), [2, 0, 0, 0, 0, 2]);
        assert!(is_plain_udp(&frame));
        frame[40] = 0xaa; // a checksum that somebody left partial
        turn_round(&mut frame);
        check(&frame, "10.0.0.2", (7, 1000), [2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn what_is_not_plain_udp_is_told_apart() {
        let mut frame = vec![0; HEADERS];
        headers(&mut frame, &way(), HEADERS);
        for (at, value) in [(12, 0x86), (14, 0x46), (23, 6), (20, 0x20), (21, 1)] {
            let mut other = frame.clone();
            other[at] = value;
            assert!(!is_plain_udp(&other), "byte {at}");
        }
        assert!(!is_plain_udp(&frame[..HEADERS - 1]));
    }
}
