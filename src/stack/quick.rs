//! The short way in: an Ethernet frame with the next TCP segment of an open
//! connection over IPv4, nothing unusual about it. Everything is checked that the
//! long way checks, by one read of the headers and without building any; whatever
//! does not fit goes the long way untouched, and is counted there.

use super::Core;
use super::interface::Interface;
use super::ip_input::{be16, be32, link_destination};
use super::tcp::Table;
use crate::frame::{Frame, Packet, Pool};
use crate::tcp::Plain;
use crate::wire::checksum::{self, Sum};
use crate::wire::tcp::{Flags, Options, Segment};
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
    /// What its headers say, which are read but once.
    pub seg: Plain,
    /// It ends the stream: known here, but not for the short way.
    pub fin: bool,
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
        // The header's length and the flags: ACK, and perhaps PSH and FIN, alone.
        let kind = be16(head, TCP + 12);
        let (payload, timestamp) = match kind & !0x0009 {
            0x5010 => (HEADERS, None),
            0x8010 => (STAMPED, Some(timestamp(bytes.first_chunk()?)?)),
            _ => return None,
        };
        if end < payload {
            return None;
        }
        let pseudo = Sum::from_u16((end - TCP) as u16).add_u16(ipv4::TCP.into());
        if !checksum::is_right(summed, pseudo) {
            return None;
        }
        let (local, remote, ports) = flow_of(head);
        let id = table.find_quick(local, remote, ports)?;
        let seg = Plain {
            seq: be32(head, TCP + 4),
            ack: be32(head, TCP + 8),
            window: be16(head, TCP + 14),
            timestamp,
            len: (end - payload) as u32,
            merged: 0,
        };
        Some(Self { id, seg, fin: kind & 1 != 0, payload })
    }

    /// True for a segment without data or end.
    #[inline(always)]
    pub fn is_bare(&self) -> bool {
        self.seg.len == 0 && !self.fin
    }

    /// The segment as [`Connection::input`](crate::tcp::Connection::input) takes it,
    /// which may be the end of a handshake or of a stream, or out of place; the packet
    /// is its payload then. All has been checked that [`tcp::parse`] and the way to it
    /// look at.
    pub fn whole(&self, pool: &Pool, packet: &mut Packet) -> Option<Segment> {
        let (head, plain) = (pool.bytes(&packet.head).first_chunk::<HEADERS>()?, &self.seg);
        let segment = Segment {
            src_port: be16(head, TCP),
            dst_port: be16(head, TCP + 2),
            seq: plain.seq,
            ack: plain.ack,
            flags: Flags::from_bits_retain(head[TCP + 13]),
            window: plain.window,
            urgent: be16(head, TCP + 18),
            options: Options { timestamp: plain.timestamp, ..Options::default() },
            header_len: self.payload - TCP,
            payload_len: plain.len as usize,
            ce: false,
        };
        packet.head.set_range(packet.head.offset() + self.payload, segment.payload_len);
        Some(segment)
    }

    /// The payload's frame, whose range is the payload alone: of the padding behind a
    /// short packet nothing is left. `None` where there is none.
    #[inline(always)]
    pub fn payload(&self, pool: &mut Pool, mut packet: Packet) -> Option<Frame> {
        if self.is_bare() {
            pool.free(packet.head);
            return None;
        }
        packet.head.set_range(packet.head.offset() + self.payload, self.seg.len as usize);
        Some(packet.head)
    }
}

/// What the headers of a segment say that took the short way, as those of the segments
/// say that go on in its run: all but lengths, sums, IP's identification, PSH and the
/// sequence number.
pub(super) struct Run {
    /// The connection's slot.
    pub id: u32,
    /// Where the payload begins in a frame's range.
    payload: u32,
    said: [u64; 7],
}

/// A segment that goes on in a run.
pub(super) struct More {
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Where it ends in the frame's range.
    end: usize,
}

impl Quick {
    /// What more segments have to say to go on in this one's run, where `next` lies
    /// right behind it: some 15 instructions where it does not, as between other flows',
    /// and 20 more where it does. The program is told of data with the first, so that
    /// there is a run only behind data.
    #[inline(always)]
    pub fn run(&self, pool: &Pool, packet: &Packet, next: &Packet) -> Option<Run> {
        let follows = pool.bytes(&next.head).first_chunk::<HEADERS>()?;
        if self.seg.len == 0 || be32(follows, TCP + 4) != self.seg.seq.wrapping_add(self.seg.len) {
            return None;
        }
        let head = pool.bytes(&packet.head).first_chunk()?;
        Some(Run { id: self.id, payload: self.payload as u32, said: said(head, self.payload) })
    }
}

impl Run {
    /// The packet, if its headers say what those of the run say: all then holds for them
    /// that [`Quick::of`] looked at, but for the sums. There are frames.
    #[inline(always)]
    pub fn next(&self, core: &Core, packet: &Packet) -> Option<More> {
        let payload = self.payload as usize;
        let head: &[u8; STAMPED] = core.pool.bytes(&packet.head).first_chunk()?;
        let differs = self.said.iter().zip(said(head, payload)).fold(0, |all, (a, b)| all | (a ^ b));
        let low = core.pool.available() < core.config.tcp.frames_low;
        let end = IP + usize::from(be16(head, IP + 2));
        if differs != 0 || low || packet.rest.is_some() || end <= payload {
            return None;
        }
        Some(More { seq: be32(head, TCP + 4), len: (end - payload) as u32, end })
    }

    /// The frame of a segment's payload, whose range is that alone.
    #[inline(always)]
    pub fn payload(&self, seg: &More, mut packet: Packet) -> Frame {
        packet.head.set_range(packet.head.offset() + self.payload as usize, seg.len as usize);
        packet.head
    }
}

impl More {
    /// True where it is whole and both its sums are right.
    #[inline(always)]
    pub fn is_right(&self, pool: &Pool, packet: &Packet) -> bool {
        let bytes = pool.bytes(&packet.head);
        let (Some(header), Some(summed)) = (bytes.get(IP..TCP), bytes.get(TCP - 8..self.end)) else { return false };
        let pseudo = Sum::from_u16((self.end - TCP) as u16).add_u16(ipv4::TCP.into());
        checksum::is_right(header, Sum::ZERO) && checksum::is_right(summed, pseudo)
    }
}

/// What is the same in the headers of a run: hardware addresses, EtherType, version and
/// type of service; fragment and protocol, the addresses, the ports; acknowledgment,
/// the header's length, flags but PSH and window; the timestamp option, if there is one.
#[inline(always)]
fn said(head: &[u8; STAMPED], payload: usize) -> [u64; 7] {
    const PSH: u64 = 8 << 40;
    let half = |at| u64::from(le32(head, at));
    let (option, stamps) = if payload == STAMPED { (half(HEADERS), le64(head, HEADERS + 4)) } else { (0, 0) };
    [
        le64(head, 0),
        le64(head, 8),
        half(IP + 6) | half(TCP) << 32,
        le64(head, IP + 12),
        le64(head, TCP + 8) & !PSH,
        option,
        stamps,
    ]
}

#[inline(always)]
fn le64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

/// The value and the echo of a timestamp option as everybody sends it.
#[inline(always)]
fn timestamp(head: &[u8; STAMPED]) -> Option<(u32, u32)> {
    (le32(head, HEADERS) == u32::from_le_bytes(TIMESTAMP)).then(|| (be32(head, HEADERS + 4), be32(head, HEADERS + 8)))
}

/// The flow of a packet that looks like a TCP segment over IPv4, as far as is seen
/// without checking anything: our address, the peer's, and the ports as in a key.
#[inline(always)]
pub(super) fn flow(bytes: &[u8]) -> Option<(u32, u32, u32)> {
    let head = bytes.first_chunk::<HEADERS>()?;
    let is_tcp = le32(head, 12) << 8 == 0x4500_0800 && head[IP + 9] == ipv4::TCP;
    is_tcp.then(|| flow_of(head))
}

/// Our address, the peer's, and the ports: a key has ours first, a segment's header
/// the source's.
#[inline(always)]
fn flow_of(head: &[u8; HEADERS]) -> (u32, u32, u32) {
    (be32(head, IP + 16), be32(head, IP + 12), be32(head, TCP).rotate_left(16))
}

#[inline(always)]
fn le32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    be32(bytes, at).swap_bytes()
}

/// To our hardware address and our first IPv4 address; IPv4 without options, whole,
/// not marked by a congested path; TCP. Whether the source may be one is answered by
/// the connection: none has a peer of an address that is no host's. Neighbouring
/// fields are compared together, as the words of a little-endian machine.
#[inline(always)]
fn is_plain(interface: &Interface, head: &[u8; HEADERS]) -> bool {
    // EtherType, version and header length, type of service.
    let kind = le32(head, 12);
    // Flags and fragment offset, time to live, protocol.
    let part = le32(head, IP + 6);
    link_destination(head) == interface.quick_mac
        && kind << 8 == 0x4500_0800
        && kind >> 24 & 3 != 3
        && part & 0xff00_ff3f == u32::from(ipv4::TCP) << 24
        && be32(head, IP + 16) == interface.quick_own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::tcp::Inherit;
    use crate::stack::testing::{Bed, OUR_MAC, OURS, PEER, addr, eth, ipv4_in, owned};
    use crate::wire::tcp::Order;

    /// A frame with a segment from the peer.
    fn frame(seg: &Segment, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; tcp::MAX_HEADER_LEN + payload.len()];
        let len = seg.options.encode(Order::Linux).len() + tcp::HEADER_LEN + payload.len();
        let pseudo = checksum::pseudo_v4(PEER.octets(), OURS.octets(), ipv4::TCP, len as u16);
        assert_eq!(tcp::build(&mut bytes, seg, Order::Linux, pseudo, payload), len);
        eth(OUR_MAC, ethernet::IPV4, &ipv4_in(ipv4::TCP, &bytes[..len]))
    }

    fn listening() -> Bed {
        let mut bed = Bed::new(owned());
        bed.learn_peer();
        let inherit = Inherit::plain();
        let stack = &mut bed.stack;
        stack.tcp.listen(&stack.core, addr("10.0.0.1:80"), 8, inherit, 0);
        bed
    }

    #[test]
    fn in_full_it_is_what_the_long_way_reads() {
        let mut bed = listening();
        let base = Segment {
            src_port: 4000,
            dst_port: 80,
            seq: 7,
            ack: 0,
            flags: Flags::SYN,
            window: 502,
            urgent: 0,
            options: Options::default(),
            header_len: 0,
            payload_len: 0,
            ce: false,
        };
        bed.put(&frame(&base, b""));
        assert_eq!(bed.stack.tcp.connections(), 1);
        let mut plain = 0;
        for bits in 0..=0xff {
            for timestamp in [None, Some((u32::MAX, 5))] {
                for payload in [&b""[..], b"some text"] {
                    let options = Options { timestamp, ..Options::default() };
                    let flags = Flags::from_bits_retain(bits);
                    let bytes = frame(&Segment { flags, seq: 8, ack: 99, options, ..base.clone() }, payload);
                    let Bed { stack, .. } = &mut bed;
                    let mut head = stack.core.pool.alloc().unwrap();
                    stack.core.pool.buffer_mut(&mut head)[64..64 + bytes.len()].copy_from_slice(&bytes);
                    head.set_range(64, bytes.len());
                    let mut packet = Packet::single(head);
                    let found = Quick::of(&stack.core, &stack.tcp, &packet);
                    let may = flags.contains(Flags::ACK) && (flags - (Flags::PSH | Flags::FIN)) == Flags::ACK;
                    assert_eq!(found.is_some(), may, "{flags:?}");
                    if let Some(quick) = found {
                        let bare = payload.is_empty() && !flags.contains(Flags::FIN);
                        assert_eq!((quick.is_bare(), quick.fin), (bare, flags.contains(Flags::FIN)));
                        let whole = quick.whole(&stack.core.pool, &mut packet).unwrap();
                        assert_eq!(whole, tcp::parse(&bytes[TCP..]).unwrap());
                        assert_eq!(stack.core.pool.bytes(&packet.head), payload);
                        plain += 1;
                    }
                    packet.free(&mut stack.core.pool);
                }
            }
        }
        assert_eq!(plain, 4 * 4);
    }
}
