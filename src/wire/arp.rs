//! ARP for IPv4 over Ethernet (RFC 826).

use super::ethernet::Mac;
use core::net::Ipv4Addr;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an ARP packet for IPv4 over Ethernet.
pub const LEN: usize = 28;
/// Operation: request.
pub const REQUEST: u16 = 1;
/// Operation: reply.
pub const REPLY: u16 = 2;

/// The packet as it stands on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Packet {
    htype: U16,
    ptype: U16,
    hlen: u8,
    plen: u8,
    /// Operation.
    pub op: U16,
    /// Sender's hardware address.
    pub sha: Mac,
    spa: [u8; 4],
    /// Target's hardware address.
    pub tha: Mac,
    tpa: [u8; 4],
}

impl Packet {
    /// A packet of the given operation.
    pub fn new(op: u16, sha: Mac, spa: Ipv4Addr, tha: Mac, tpa: Ipv4Addr) -> Self {
        Self {
            htype: U16::new(1),
            ptype: U16::new(super::ethernet::IPV4),
            hlen: 6,
            plen: 4,
            op: U16::new(op),
            sha,
            spa: spa.octets(),
            tha,
            tpa: tpa.octets(),
        }
    }

    /// Sender's protocol address.
    pub fn spa(&self) -> Ipv4Addr {
        self.spa.into()
    }

    /// Target's protocol address.
    pub fn tpa(&self) -> Ipv4Addr {
        self.tpa.into()
    }
}

/// Reads a packet; `None` if it is too short or not for IPv4 over Ethernet.
pub fn parse(bytes: &[u8]) -> Option<&Packet> {
    let (p, _) = Packet::ref_from_prefix(bytes).ok()?;
    let ours = p.htype.get() == 1
        && p.ptype.get() == super::ethernet::IPV4
        && p.hlen == 6
        && p.plen == 4;
    ours.then_some(p)
}
