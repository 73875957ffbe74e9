//! The short way in: an Ethernet frame with the next TCP segment of an open
//! connection over IPv4, nothing unusual about it. Everything is checked that the
//! long way checks, by one read of the headers and without building any; whatever
//! does not fit goes the long way untouched, and is counted there.

use super::Core;
use super::interface::Interface;
use super::tcp::Table;
use crate::frame::Packet;
use crate::tcp::Plain;
use crate::wire::checksum::{self, Sum};
use crate::wire::{ethernet, ipv4, tcp};

/// Ethernet, IPv4 without options.
const IP: usize = ethernet::HEADER_LEN;
const TCP: usize = IP + ipv4::HEADER_LEN;
/// With the fixed part of TCP's header.
const HEADERS: usize = TCP + tcp::HEADER_LEN;
/// Two NOPs, and the timestamp's kind and length.
const TIMESTAMP: [u8; 4] = [1, 1, 8, 10];

/// A segment of a connection, plain enough for the short way.
#[derive(Clone, Copy)]
pub(super) struct Quick {
    /// The connection's slot.
    pub id: u32,
    pub segment: Plain,
    /// Where the payload begins in the frame's range.
    payload: usize,
}

impl Quick {
    /// Reads the packet, if it is one for the short way.
    #[inline(always)]
    pub fn of(core: &Core, table: &Table, packet: &Packet) -> Option<Self> {
        if packet.rest.is_some() || core.pool.available() < core.config.tcp.frames_low {
            return None;
        }
        let bytes = core.pool.bytes(&packet.head);
        let head = bytes.first_chunk::<HEADERS>()?;
        let end = IP + usize::from(be16(head, IP + 2));
        // From the addresses on, which are part of the pseudo-header.
        let summed = bytes.get(TCP - 8..end)?;
        if !is_plain(&core.interface, head) || !checksum::is_right(&head[IP..TCP], Sum::ZERO) {
            return None;
        }
        // The header's length and the flags: ACK, and perhaps PSH, alone.
        let (payload, timestamp) = match be16(head, TCP + 12) & !0x0008 {
            0x5010 => (HEADERS, None),
            0x8010 => (HEADERS + 12, Some(timestamp(&bytes[HEADERS..])?)),
            _ => return None,
        };
        let pseudo = Sum::from_u16((end - TCP) as u16).add_u16(ipv4::TCP.into());
        if end < payload || !checksum::is_right(summed, pseudo) {
            return None;
        }
        let segment = Plain {
            seq: be32(head, TCP + 4),
            ack: be32(head, TCP + 8),
            window: be16(head, TCP + 14),
            timestamp,
            len: (end - payload) as u32,
        };
        let (remote, local) = (be32(head, IP + 12), be32(head, IP + 16));
        // The source's port comes first; in a key, ours does.
        let ports = be32(head, TCP).rotate_left(16);
        let id = table.find_quick(local, remote, ports)?;
        Some(Self { id, segment, payload })
    }

    /// The payload alone, as the frame's range; of the padding behind a short
    /// packet nothing is left.
    #[inline(always)]
    pub fn trim(&self, packet: &mut Packet) {
        let at = packet.head.offset() + self.payload;
        packet.head.set_range(at, self.segment.len as usize);
    }
}

#[inline(always)]
fn le32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    be32(bytes, at).swap_bytes()
}

#[inline(always)]
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// To our hardware address and our first IPv4 address; IPv4 without options, whole,
/// not marked by a congested path; TCP. Whether the source may be one is answered by
/// the connection: none has a peer of an address that is no host's. Neighbouring
/// fields are compared together, as the words of a little-endian machine.
#[inline(always)]
fn is_plain(interface: &Interface, head: &[u8; HEADERS]) -> bool {
    let mac = u64::from(le32(head, 0)) << 16 | u64::from(le32(head, 4)) << 48;
    // EtherType, version and header length, type of service.
    let kind = le32(head, 12);
    // Flags and fragment offset, time to live, protocol.
    let part = le32(head, IP + 6);
    mac == interface.quick_mac
        && kind & 0x00ff_ffff == 0x0045_0008
        && kind & 0x0300_0000 != 0x0300_0000
        && part & 0xff00_ff3f == u32::from(ipv4::TCP) << 24
        && be32(head, IP + 16) == interface.quick_own
}

/// The timestamp option, aligned as everybody sends it.
#[inline(always)]
fn timestamp(options: &[u8]) -> Option<(u32, u32)> {
    let options = options.first_chunk::<{ tcp::TIMESTAMP_LEN }>()?;
    (options[..4] == TIMESTAMP).then(|| (be32(options, 4), be32(options, 8)))
}
