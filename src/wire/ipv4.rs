//! IPv4 headers (RFC 791).

use super::checksum;
use crate::telemetry::DropReason;
use core::net::Ipv4Addr;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Flag: don't fragment.
pub const DF: u16 = 0x4000;
/// Flag: more fragments follow.
pub const MF: u16 = 0x2000;
/// The fragment offset's bits, in units of 8 bytes.
pub const OFFSET_MASK: u16 = 0x1fff;
/// Protocol numbers.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// The fixed part of the header as it stands on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_ihl: u8,
    /// Type of service: precedence and D, T, R bits, or DSCP and ECN.
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: U16,
    /// Identification.
    pub ident: U16,
    /// DF, MF and the fragment offset.
    pub flags_offset: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Checksum of the header.
    pub checksum: U16,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

impl Header {
    /// A header without options whose checksum is right.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload_len: usize, ttl: u8, tos: u8, ident: u16, flags_offset: u16) -> Self {
        let mut h = Self {
            version_ihl: 0x45,
            tos,
            total_len: U16::new((HEADER_LEN + payload_len) as u16),
            ident: U16::new(ident),
            flags_offset: U16::new(flags_offset),
            ttl,
            protocol,
            checksum: U16::ZERO,
            src: src.octets(),
            dst: dst.octets(),
        };
        h.checksum = U16::new(checksum::sum(h.as_bytes()).finish());
        h
    }

    /// Bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0xf) * 4
    }

    /// Source address.
    pub fn source(&self) -> Ipv4Addr {
        self.src.into()
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv4Addr {
        self.dst.into()
    }

    /// True for every fragment of a datagram that is not whole.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_offset.get() & (MF | OFFSET_MASK) != 0
    }
}

/// A checked header, its options, and the payload without link padding.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The fixed part.
    pub header: &'a Header,
    /// The options' bytes, unchecked.
    pub options: &'a [u8],
    /// What the header's total length leaves.
    pub payload: &'a [u8],
}

/// Checks version, lengths and header checksum.
///
/// # Errors
/// The reason to drop the packet.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| DropReason::Ipv4Truncated)?;
    let (ihl, total) = (header.header_len(), usize::from(header.total_len.get()));
    if header.version_ihl >> 4 != 4 || ihl < HEADER_LEN || total < ihl {
        return Err(DropReason::Ipv4BadHeader);
    }
    if bytes.len() < total {
        return Err(DropReason::Ipv4Truncated);
    }
    if checksum::sum(&bytes[..ihl]).finish() != 0 {
        return Err(DropReason::Ipv4BadChecksum);
    }
    Ok(Packet { header, options: &bytes[HEADER_LEN..ihl], payload: &bytes[ihl..total] })
}
