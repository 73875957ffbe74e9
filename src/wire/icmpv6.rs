//! ICMP for IPv6 (RFC 4443).

use super::checksum;
use super::ipv6;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header that all messages begin with.
pub const HEADER_LEN: usize = 8;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type: echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Type: router solicitation (RFC 4861).
pub const ROUTER_SOLICITATION: u8 = 133;
/// Type: router advertisement (RFC 4861).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type: neighbour solicitation (RFC 4861).
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// Type: neighbour advertisement (RFC 4861).
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Unreachable: no route.
pub const NO_ROUTE: u8 = 0;
/// Unreachable: forbidden by a filter.
pub const PROHIBITED: u8 = 1;
/// Unreachable: address.
pub const ADDRESS: u8 = 3;
/// Unreachable: port.
pub const PORT: u8 = 4;

/// The header as it stands on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum of pseudo-header and message.
    pub checksum: U16,
    /// Echo: identifier and sequence number. Packet too big: MTU. Parameter
    /// problem: pointer.
    pub word: U32,
}

impl Header {
    /// True for error messages, which are never answered by another (RFC 4443, 2.4).
    pub fn is_error(&self) -> bool {
        self.kind < 128
    }

    /// Echo: identifier and sequence number.
    pub fn echo(&self) -> (u16, u16) {
        let word = self.word.get();
        ((word >> 16) as u16, word as u16)
    }
}

/// Checks length and checksum of a message that came from `src` to `dst`.
pub fn parse(src: [u8; 16], dst: [u8; 16], bytes: &[u8]) -> Option<(&Header, &[u8])> {
    let (header, body) = Header::ref_from_prefix(bytes).ok()?;
    let pseudo = checksum::pseudo_v6(src, dst, ipv6::ICMPV6, bytes.len() as u32);
    (pseudo.add(checksum::sum(bytes)).finish() == 0).then_some((header, body))
}

/// Writes a message of this header and `body` to the front of `out`, with its
/// checksum for the way from `src` to `dst`, and says how long it is.
///
/// # Panics
/// If `out` is too short.
pub fn build(
    out: &mut [u8],
    (src, dst): ([u8; 16], [u8; 16]),
    (kind, code): (u8, u8),
    word: u32,
    body: &[u8],
) -> usize {
    let len = HEADER_LEN + body.len();
    let header = Header { kind, code, checksum: U16::ZERO, word: U32::new(word) };
    out[..HEADER_LEN].copy_from_slice(header.as_bytes());
    out[HEADER_LEN..len].copy_from_slice(body);
    let pseudo = checksum::pseudo_v6(src, dst, ipv6::ICMPV6, len as u32);
    let sum = pseudo.add(checksum::sum(&out[..len])).finish();
    out[2..4].copy_from_slice(&sum.to_be_bytes());
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_and_a_changed_one_does_not() {
        let (src, dst) = ([1; 16], [2; 16]);
        let mut out = [0; 64];
        let len = build(&mut out, (src, dst), (ECHO_REQUEST, 0), 0x0007_0009, b"payload");
        let (header, body) = parse(src, dst, &out[..len]).unwrap();
        assert_eq!((header.kind, header.echo(), body), (ECHO_REQUEST, (7, 9), &b"payload"[..]));
        assert!(!header.is_error());
        assert!(parse(src, [3; 16], &out[..len]).is_none(), "another destination");
        assert!(parse(src, dst, &out[..7]).is_none());
        out[9] ^= 1;
        assert!(parse(src, dst, &out[..len]).is_none());
    }
}
