//! The short way in: an Ethernet frame with the next TCP segment of an open
//! connection over IPv4, nothing unusual about it. Everything is checked that the
//! long way checks, by one read of the headers and without building any; whatever
//! does not fit goes the long way untouched, and is counted there.

use super::Core;
use super::interface::Interface;
use super::tcp::Table;
use crate::frame::{Frame, Packet, Pool};
use crate::tcp::Plain;
use crate::wire::checksum::{self, Sum};
use crate::wire::{ethernet, ipv4, tcp};

/// Ethernet, IPv4 without options.
const IP: usize = ethernet::HEADER_LEN;
const TCP: usize = IP + ipv4::HEADER_LEN;
/// With the fixed part of TCP's header.
const HEADERS: usize = TCP + tcp::HEADER_LEN;
/// With the timestamp option, as everybody sends it.
const STAMPED: usize = HEADERS + tcp::TIMESTAMP_LEN;
/// Two NOPs, and the timestamp's kind and length.
const TIMESTAMP: [u8; 4] = [1, 1, 8, 10];

/// A segment of a connection, plain enough for the short way.
#[derive(Clone, Copy)]
pub(super) struct Quick {
    /// The connection's slot.
    pub id: u32,
    /// Where the payload begins in the frame's range.
    payload: usize,
    /// Where the IP packet ends there.
    end: usize,
    /// ACKs that it stands for, besides itself.
    pub merged: u32,
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
        let payload = match be16(head, TCP + 12) & !0x0008 {
            0x5010 => HEADERS,
            0x8010 if bytes.first_chunk::<STAMPED>()?[HEADERS..][..4] == TIMESTAMP => STAMPED,
            _ => return None,
        };
        if end < payload {
            return None;
        }
        let pseudo = Sum::from_u16((end - TCP) as u16).add_u16(ipv4::TCP.into());
        if !checksum::is_right(summed, pseudo) {
            return None;
        }
        let (remote, local) = (be32(head, IP + 12), be32(head, IP + 16));
        // The source's port comes first; in a key, ours does.
        let ports = be32(head, TCP).rotate_left(16);
        let id = table.find_quick(local, remote, ports)?;
        Some(Self { id, payload, end, merged: 0 })
    }

    /// True for a segment without data.
    #[inline(always)]
    pub fn is_bare(&self) -> bool {
        self.end == self.payload
    }

    /// The segment itself; `bytes` are the packet's.
    #[inline(always)]
    pub fn segment(&self, bytes: &[u8]) -> Option<Plain> {
        let head = bytes.first_chunk::<HEADERS>()?;
        let timestamp = match bytes.first_chunk::<STAMPED>() {
            Some(head) if self.payload == STAMPED => {
                Some((be32(head, HEADERS + 4), be32(head, HEADERS + 8)))
            }
            _ => None,
        };
        Some(Plain {
            seq: be32(head, TCP + 4),
            ack: be32(head, TCP + 8),
            window: be16(head, TCP + 14),
            timestamp,
            len: (self.end - self.payload) as u32,
            merged: self.merged,
        })
    }

    /// The payload's frame, whose range is the payload alone: of the padding behind a
    /// short packet nothing is left. `None` where there is none.
    #[inline(always)]
    pub fn payload(&self, pool: &mut Pool, mut packet: Packet) -> Option<Frame> {
        if self.is_bare() {
            pool.free(packet.head);
            return None;
        }
        let at = packet.head.offset() + self.payload;
        packet.head.set_range(at, self.end - self.payload);
        Some(packet.head)
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
    let [a, b, c, d, e, f, g, h, ..] = *head;
    let mac = u64::from_le_bytes([a, b, c, d, e, f, g, h]) << 16;
    // EtherType, version and header length, type of service.
    let kind = le32(head, 12);
    // Flags and fragment offset, time to live, protocol.
    let part = le32(head, IP + 6);
    mac == interface.quick_mac
        && kind << 8 == 0x4500_0800
        && kind >> 24 & 3 != 3
        && part & 0xff00_ff3f == u32::from(ipv4::TCP) << 24
        && be32(head, IP + 16) == interface.quick_own
}
