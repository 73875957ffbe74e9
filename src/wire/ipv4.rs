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

    /// The version: 4 in every IPv4 header.
    #[inline]
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
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

    /// Where the payload stands in its datagram, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.flags_offset.get() & OFFSET_MASK) * 8
    }

    /// True where more fragments follow.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.flags_offset.get() & MF != 0
    }

    /// True where the datagram must not be cut.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DF != 0
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

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_ROUTE: u8 = 131;
const OPTION_STRICT_ROUTE: u8 = 137;

/// Walks over a header's options. They are skipped, not acted on (RFC 1122,
/// 3.2.1.8); a source route is refused.
///
/// # Errors
/// [`DropReason::Ipv4BadOptions`] where an option runs past the end,
/// [`DropReason::Ipv4SourceRoute`] for either kind of source route; and where the
/// option begins, in bytes from the first.
pub fn check_options(options: &[u8]) -> Result<(), (DropReason, usize)> {
    let mut at = 0;
    while let [kind, rest @ ..] = &options[at..] {
        match *kind {
            OPTION_END => return Ok(()),
            OPTION_NOP => {
                at += 1;
                continue;
            }
            OPTION_LOOSE_ROUTE | OPTION_STRICT_ROUTE => {
                return Err((DropReason::Ipv4SourceRoute, at));
            }
            _ => {}
        }
        let len = rest.first().map_or(0, |l| usize::from(*l));
        if len < 2 || len > rest.len() + 1 {
            return Err((DropReason::Ipv4BadOptions, at));
        }
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(flags_offset: u16, payload: usize) -> Vec<u8> {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let header = Header::new(a, b, UDP, payload, 64, 0, 1, flags_offset);
        [header.as_bytes(), &vec![0; payload]].concat()
    }

    #[test]
    fn options_are_skipped_and_source_routes_refused() {
        let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
        assert_eq!(check_options(&record_route), Ok(()));
        assert_eq!(check_options(&[]), Ok(()));
        assert_eq!(check_options(&[1, 148, 4, 0, 0, 1, 1, 1]), Ok(()), "router alert");
        assert_eq!(check_options(&[0, 99, 99, 99]), Ok(()), "nothing counts after the end");
        for route in [131, 137] {
            let source_route = [1, route, 7, 4, 10, 0, 0, 1];
            assert_eq!(check_options(&source_route), Err((DropReason::Ipv4SourceRoute, 1)));
        }
        for (bad, at) in [([7, 9, 4, 0], 0), ([7, 1, 0, 0], 0), ([1, 7, 0, 0], 1), ([1, 1, 1, 7], 3)] {
            assert_eq!(check_options(&bad), Err((DropReason::Ipv4BadOptions, at)), "{bad:?}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_is_refused_by_its_reason() {
        let good = packet(0, 8);
        assert!(parse(&good).is_ok());
        assert_eq!(parse(&good[..19]).unwrap_err(), DropReason::Ipv4Truncated);
        assert_eq!(parse(&good[..27]).unwrap_err(), DropReason::Ipv4Truncated);
        for (at, value, reason) in [
            (0, 0x65, DropReason::Ipv4BadHeader),
            (0, 0x44, DropReason::Ipv4BadHeader),
            (3, 19, DropReason::Ipv4BadHeader),
            (8, 63, DropReason::Ipv4BadChecksum),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(parse(&bad).unwrap_err(), reason);
        }
        let padded = [&good[..], &[0; 18]].concat();
        assert_eq!(parse(&padded).unwrap().payload.len(), 8, "the link's padding is cut off");
    }
}
