//! UDP headers (RFC 768).

use super::checksum::{self, Sum};
use crate::telemetry::DropReason;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a UDP header.
pub const HEADER_LEN: usize = 8;

/// The header as it stands on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port; zero if none.
    pub src_port: U16,
    /// Destination port.
    pub dst_port: U16,
    /// Bytes of header and payload.
    pub len: U16,
    /// Checksum; zero if the sender made none (IPv4 only).
    pub checksum: U16,
}

/// Splits a datagram into header and payload by the header's length.
///
/// # Errors
/// [`DropReason::UdpMalformed`].
#[inline]
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), DropReason> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| DropReason::UdpMalformed)?;
    let len = usize::from(header.len.get());
    if len < HEADER_LEN || len > bytes.len() {
        return Err(DropReason::UdpMalformed);
    }
    Ok((header, &bytes[HEADER_LEN..len]))
}

/// Writes a datagram to the front of `out`, with its checksum over `pseudo` (the
/// sum of the pseudo-header) and all of it, and says how long it is.
///
/// # Panics
/// If `out` is too short, or the datagram longer than 65,535 bytes.
pub fn build(out: &mut [u8], src_port: u16, dst_port: u16, pseudo: Sum, payload: &[u8]) -> usize {
    let len = HEADER_LEN + payload.len();
    let header = Header {
        src_port: U16::new(src_port),
        dst_port: U16::new(dst_port),
        len: U16::new(u16::try_from(len).expect("a datagram of at most 65,535 bytes")),
        checksum: U16::ZERO,
    };
    out[..HEADER_LEN].copy_from_slice(header.as_bytes());
    let sum = checksum::copy_and_sum(&mut out[HEADER_LEN..len], payload);
    let sum = pseudo.add(checksum::sum(header.as_bytes())).add(sum);
    out[6..8].copy_from_slice(&wire_checksum(sum).to_be_bytes());
    len
}

/// The checksum as it stands in the header: a sum that comes out as zero is sent
/// as all ones, since zero means that there is none.
#[inline]
pub const fn wire_checksum(sum: Sum) -> u16 {
    match sum.finish() {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_reads_back_with_a_good_checksum() {
        let mut out = [0; 32];
        let pseudo = checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 17, 13);
        let len = build(&mut out, 5, 53, pseudo, b"query");
        let (header, payload) = parse(&out[..len + 3]).unwrap();
        assert_eq!((header.dst_port.get(), payload), (53, &b"query"[..]));
        assert_eq!(pseudo.add(checksum::sum(&out[..len])).finish(), 0);
        assert_eq!(parse(&out[..len - 1]).unwrap_err(), DropReason::UdpMalformed);
        out[5] = 7;
        assert_eq!(parse(&out[..len]).unwrap_err(), DropReason::UdpMalformed);
    }

    #[test]
    fn no_checksum_is_sent_as_zero() {
        assert_eq!(wire_checksum(Sum::from_u16(0xffff)), 0xffff);
        assert_eq!(wire_checksum(Sum::from_u16(1)), 0xfffe);
    }
}
