//! ICMP for IPv4 (RFC 792, 1191, 1812).

use super::checksum;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header that all messages begin with.
pub const HEADER_LEN: usize = 8;
/// Type: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Unreachable: network.
pub const NET: u8 = 0;
/// Unreachable: host.
pub const HOST: u8 = 1;
/// Unreachable: protocol.
pub const PROTOCOL: u8 = 2;
/// Unreachable: port.
pub const PORT: u8 = 3;
/// Unreachable: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Unreachable: source route failed.
pub const SOURCE_ROUTE_FAILED: u8 = 5;

/// The header as it stands on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum of the whole message.
    pub checksum: U16,
    /// Echo: identifier. Unreachable: unused.
    pub word1: U16,
    /// Echo: sequence number. Fragmentation needed: next-hop MTU.
    pub word2: U16,
}

/// Checks length and checksum of a message.
pub fn parse(bytes: &[u8]) -> Option<(&Header, &[u8])> {
    let (header, body) = Header::ref_from_prefix(bytes).ok()?;
    (checksum::sum(bytes).finish() == 0).then_some((header, body))
}

/// Writes a message of this header and `body` to the front of `out`, with its
/// checksum, and says how long it is.
///
/// # Panics
/// If `out` is too short.
pub fn build(out: &mut [u8], kind: u8, code: u8, word1: u16, word2: u16, body: &[u8]) -> usize {
    let len = HEADER_LEN + body.len();
    let header = Header {
        kind,
        code,
        checksum: U16::ZERO,
        word1: U16::new(word1),
        word2: U16::new(word2),
    };
    out[..HEADER_LEN].copy_from_slice(header.as_bytes());
    out[HEADER_LEN..len].copy_from_slice(body);
    let c = checksum::sum(&out[..len]).finish();
    out[2..4].copy_from_slice(&c.to_be_bytes());
    len
}
