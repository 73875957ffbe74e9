//! IPv6 headers and the extension headers before the payload (RFC 8200).

use crate::telemetry::DropReason;
use core::net::Ipv6Addr;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Bytes of a fragment header.
pub const FRAGMENT_LEN: usize = 8;
/// Extension headers in a packet, at most; more than a sane sender puts in one.
pub const MAX_EXTENSIONS: usize = 8;
/// The smallest MTU of an IPv6 link.
pub const MIN_MTU: usize = 1280;

/// Next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
pub const ROUTING: u8 = 43;
/// Next header: fragment.
pub const FRAGMENT: u8 = 44;
/// Next header: ICMPv6.
pub const ICMPV6: u8 = 58;
/// Next header: nothing follows.
pub const NONE: u8 = 59;
/// Next header: destination options.
pub const DESTINATION: u8 = 60;

/// The fixed header as it stands on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_class_flow: U32,
    /// Bytes behind this header.
    pub payload_len: U16,
    /// What follows this header.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

impl Header {
    /// A header of traffic class and flow label zero; `payload_len` is at most 65,535.
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr, next: u8, payload_len: usize, hop_limit: u8) -> Self {
        Self {
            version_class_flow: U32::new(6 << 28),
            payload_len: U16::new(payload_len as u16),
            next,
            hop_limit,
            src: src.octets(),
            dst: dst.octets(),
        }
    }

    /// This header with a traffic class (DSCP and ECN) and a flow label of 20 bits.
    #[must_use]
    pub fn with_class(mut self, class: u8, flow: u32) -> Self {
        let word = 6 << 28 | u32::from(class) << 20 | flow & 0xf_ffff;
        self.version_class_flow = U32::new(word);
        self
    }

    /// Traffic class: DSCP and ECN.
    #[inline]
    pub fn class(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    /// Flow label.
    pub fn flow(&self) -> u32 {
        self.version_class_flow.get() & 0xf_ffff
    }

    /// Source address.
    pub fn source(&self) -> Ipv6Addr {
        self.src.into()
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv6Addr {
        self.dst.into()
    }
}

/// What a fragment header says (RFC 8200, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where the piece stands in its datagram, in bytes.
    pub offset: usize,
    /// True where more pieces follow.
    pub more: bool,
    /// Identification.
    pub ident: u32,
}

impl Fragment {
    /// The header as it stands on the wire; the offset is a multiple of eight.
    pub fn encode(&self, next: u8) -> [u8; FRAGMENT_LEN] {
        let [a, b] = (self.offset as u16 & !7 | u16::from(self.more)).to_be_bytes();
        let [c, d, e, f] = self.ident.to_be_bytes();
        [next, 0, a, b, c, d, e, f]
    }
}

/// A checked header, the payload without link padding, and what the extension
/// headers between them say.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The fixed header.
    pub header: &'a Header,
    /// Protocol of the payload (in a fragment: of its datagram's).
    pub protocol: u8,
    /// Set where the packet is a fragment. An "atomic" one is a whole datagram
    /// (RFC 6946) and not set.
    pub fragment: Option<Fragment>,
    /// What follows the extension headers.
    pub payload: &'a [u8],
}

/// Checks version and lengths and walks over the extension headers, at most
/// [`MAX_EXTENSIONS`] of them.
///
/// # Errors
/// The reason to drop the packet. A routing header with segments left is refused
/// (RFC 5095 and the host's right): this end is no router.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| DropReason::Ipv6Truncated)?;
    if header.version_class_flow.get() >> 28 != 6 {
        return Err(DropReason::Ipv6BadHeader);
    }
    let payload = rest.get(..header.payload_len.get().into()).ok_or(DropReason::Ipv6Truncated)?;
    match header.next {
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION => walk(header, payload),
        protocol => Ok(Packet { header, protocol, fragment: None, payload }),
    }
}

#[cold]
fn walk<'a>(header: &'a Header, mut payload: &'a [u8]) -> Result<Packet<'a>, DropReason> {
    const BAD: DropReason = DropReason::Ipv6BadExtension;
    let (mut protocol, mut fragment) = (header.next, None);
    for i in 0..=MAX_EXTENSIONS {
        let len = match protocol {
            FRAGMENT if fragment.is_some() => return Err(BAD),
            FRAGMENT => FRAGMENT_LEN,
            HOP_BY_HOP if i > 0 => return Err(BAD), // only right behind the header
            HOP_BY_HOP | ROUTING | DESTINATION => {
                (usize::from(*payload.get(1).ok_or(BAD)?) + 1) * 8
            }
            _ => return Ok(Packet { header, protocol, fragment, payload }),
        };
        let (extension, rest) = payload.split_at_checked(len).ok_or(BAD)?;
        match protocol {
            ROUTING if extension[3] != 0 => return Err(BAD),
            FRAGMENT => {
                let field = u16::from_be_bytes([extension[2], extension[3]]);
                let ident = [extension[4], extension[5], extension[6], extension[7]];
                let (offset, more) = (usize::from(field & !7), field & 1 != 0);
                if more || offset > 0 {
                    fragment = Some(Fragment { offset, more, ident: u32::from_be_bytes(ident) });
                }
            }
            _ => {}
        }
        (protocol, payload) = (extension[0], rest);
        if fragment.is_some_and(|f| f.offset > 0) {
            // What follows is the middle of a datagram, no header.
            return Ok(Packet { header, protocol, fragment, payload });
        }
    }
    Err(BAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4;

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        [Header::new(a, b, next, payload.len(), 64).as_bytes(), payload].concat()
    }

    #[test]
    fn a_header_reads_back() {
        let (a, b) = ("fe80::1".parse().unwrap(), "ff02::2".parse().unwrap());
        let header = Header::new(a, b, ipv4::TCP, 3, 255).with_class(0xb8, 0xabcde);
        let bytes = [header.as_bytes(), &[1, 2, 3, 0, 0]].concat();
        let read = parse(&bytes).unwrap();
        assert_eq!((read.header.source(), read.header.destination()), (a, b));
        assert_eq!((read.header.class(), read.header.flow()), (0xb8, 0xabcde));
        assert_eq!((read.protocol, read.payload, read.fragment), (ipv4::TCP, &[1, 2, 3][..], None));
    }

    #[test]
    fn a_header_that_cannot_be_is_refused_by_its_reason() {
        let good = packet(ipv4::UDP, &[0; 8]);
        assert!(parse(&good).is_ok());
        assert_eq!(parse(&good[..39]).unwrap_err(), DropReason::Ipv6Truncated);
        assert_eq!(parse(&good[..47]).unwrap_err(), DropReason::Ipv6Truncated);
        let mut bad = good;
        bad[0] = 0x45;
        assert_eq!(parse(&bad).unwrap_err(), DropReason::Ipv6BadHeader);
    }

    #[test]
    fn extension_headers_are_walked_over() {
        let mut chain = vec![DESTINATION, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop
        chain.extend([ROUTING, 1]);
        chain.extend([0; 14]); // destination options of 16 bytes
        chain.extend([FRAGMENT, 0, 0, 0, 0, 0, 0, 0]); // a routing header, no segments left
        let fragment = Fragment { offset: 0, more: true, ident: 7 };
        chain.extend(fragment.encode(ipv4::UDP));
        chain.extend([9; 8]);
        let bytes = packet(HOP_BY_HOP, &chain);
        let read = parse(&bytes).unwrap();
        assert_eq!((read.protocol, read.payload), (ipv4::UDP, &[9; 8][..]));
        assert_eq!(read.fragment, Some(fragment));
        for len in 0..chain.len() - 8 {
            assert_eq!(parse(&packet(HOP_BY_HOP, &chain[..len])).unwrap_err(), DropReason::Ipv6BadExtension);
        }
    }

    #[test]
    fn fragments_are_told_from_whole_datagrams() {
        let atomic = Fragment { offset: 0, more: false, ident: 1 };
        let bytes = packet(FRAGMENT, &[&atomic.encode(ipv4::TCP)[..], &[5; 4]].concat());
        assert_eq!(parse(&bytes).unwrap().fragment, None);
        let later = Fragment { offset: 1232, more: false, ident: 1 };
        // A middle part's bytes are not taken for headers.
        let bytes = packet(FRAGMENT, &[&later.encode(ROUTING)[..], &[5; 4]].concat());
        let read = parse(&bytes).unwrap();
        assert_eq!((read.fragment, read.protocol, read.payload), (Some(later), ROUTING, &[5; 4][..]));
    }

    #[test]
    fn strange_chains_are_refused() {
        let bad = Err(DropReason::Ipv6BadExtension);
        let segments_left = [ipv4::TCP, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(parse(&packet(ROUTING, &segments_left)).map(|_| ()), bad);
        let late = [HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0, ipv4::TCP, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&packet(DESTINATION, &late)).map(|_| ()), bad);
        let long = [DESTINATION, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 1);
        assert_eq!(parse(&packet(DESTINATION, &long)).map(|_| ()), bad);
    }
}
