//! UDP headers (RFC 768).

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
