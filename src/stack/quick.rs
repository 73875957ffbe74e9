//! The short way in: an Ethernet frame with the next TCP segment of an open
//! connection over IPv4, nothing unusual about it. Everything is checked that the
//! long way checks, by one read of the headers and without building any; whatever
//! does not fit goes the long way untouched, and is counted there.

use super::Core;
use super::interface::Interface;
use super::ip_input::{be16, be32, link_destination, rest_sum};
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

/// A flow over IPv4: our address, the peer's, and the ports as in a key.
pub(super) type Flow = (u32, u32, u32);

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
        let (head, end) = checked(core, packet, |kind| matches!(kind, UNSTAMPED | WITH_STAMPS))?;
        let stamped = be16(head, TCP + 12) & OPEN == WITH_STAMPS;
        let (payload, timestamp) = match stamped {
            false => (HEADERS, None),
            true => (STAMPED, timestamp(core.pool.bytes(&packet.head).first_chunk()?)),
        };
        if stamped != timestamp.is_some() || end < payload || !is_sum_right(&core.pool, packet, end) {
            return None;
        }
        let id = table.find_quick(flow_of(head))?;
        Some(Self::new(id, head, timestamp, payload, end))
    }

    #[inline(always)]
    fn new(id: u32, head: &[u8; HEADERS], timestamp: Option<(u32, u32)>, payload: usize, end: usize) -> Self {
        let seg = Plain {
            seq: be32(head, TCP + 4),
            ack: be32(head, TCP + 8),
            window: be16(head, TCP + 14),
            timestamp,
            len: (end - payload) as u32,
            merged: 0,
        };
        Self { id, seg, fin: head[TCP + 13] & 1 != 0, payload }
    }

    /// As [`Quick::of`], for a packet of several frames with nothing behind its end. (By
    /// itself: what the two had in common cost the other 10 instructions.)
    #[inline(never)]
    pub fn of_several(core: &Core, table: &Table, packet: &Packet) -> Option<Self> {
        let bytes = core.pool.bytes(&packet.head);
        let head = bytes.first_chunk::<HEADERS>()?;
        let end = packet.len();
        let whole = end == IP + usize::from(be16(head, IP + 2)) && core.pool.available() >= core.config.tcp.frames_low;
        if !whole || !is_plain(&core.interface, head) || !checksum::is_right(&head[IP..TCP], Sum::ZERO) {
            return None;
        }
        let (payload, timestamp) = match be16(head, TCP + 12) & OPEN {
            UNSTAMPED => (HEADERS, None),
            WITH_STAMPS => (STAMPED, Some(timestamp(bytes.first_chunk()?)?)),
            _ => return None,
        };
        let sum = checksum::sum(&bytes[TCP - 8..]).add(rest_sum(&core.pool, packet, bytes.len()));
        if sum.add(pseudo(end)).finish() != 0 {
            return None;
        }
        let id = table.find_quick(flow_of(head))?;
        Some(Self::new(id, head, timestamp, payload, end))
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

    /// Takes the headers off a packet of several frames, the first of which may hold no
    /// more than those.
    pub fn trim(&self, packet: &mut Packet) {
        packet.head.trim_front(self.payload);
    }

    /// The frame, whose range is the payload alone: of the padding behind a short packet
    /// nothing is left.
    #[inline(always)]
    pub fn payload(&self, mut packet: Packet) -> Frame {
        packet.head.set_range(packet.head.offset() + self.payload, self.seg.len as usize);
        packet.head
    }

    /// The same; `None`, and the frame is free, where it has no payload.
    #[inline(always)]
    pub fn any_payload(&self, pool: &mut Pool, packet: Packet) -> Option<Frame> {
        let frame = self.payload(packet);
        if self.seg.len == 0 {
            pool.free(frame);
            return None;
        }
        Some(frame)
    }
}

/// The only packet of a batch, if it is one for the short way and has a timestamp, so
/// that it is known where its payload begins. Nothing of it is read before it is needed:
/// what is looked at and what a connection asks of it then fit the registers (some 50
/// instructions of an echo's half).
pub(super) struct Lone<'a> {
    head: &'a [u8; STAMPED],
    end: usize,
}

impl<'a> Lone<'a> {
    /// Looks at all but what it is to its connection.
    #[inline(always)]
    pub fn of(core: &'a Core, packet: &'a Packet) -> Option<Self> {
        let (_, end) = checked(core, packet, |kind| kind == WITH_STAMPS)?;
        let head = core.pool.bytes(&packet.head).first_chunk()?;
        let right = end >= STAMPED && is_stamped(head) && is_sum_right(&core.pool, packet, end);
        right.then_some(Self { head, end })
    }

    /// Its flow.
    #[inline(always)]
    pub fn flow(&self) -> Flow {
        flow_of(self.fixed())
    }

    /// What it says.
    #[inline(always)]
    pub fn read(&self, id: u32) -> Quick {
        Quick::new(id, self.fixed(), Some(stamps(self.head)), STAMPED, self.end)
    }

    /// The same of a packet of which all was looked at.
    pub fn again(core: &Core, packet: &Packet, id: u32) -> Option<Quick> {
        let head = core.pool.bytes(&packet.head).first_chunk()?;
        let end = IP + usize::from(be16(head, IP + 2));
        Some(Lone { head, end }.read(id))
    }

    #[inline(always)]
    fn fixed(&self) -> &'a [u8; HEADERS] {
        self.head.first_chunk().expect("there are as many bytes")
    }
}

/// The header's length and the flags of a segment without options, and with a timestamp.
const UNSTAMPED: u16 = 0x5010;
const WITH_STAMPS: u16 = 0x8010;
/// ACK alone stands beside the header's length then, perhaps with PSH or FIN.
const OPEN: u16 = !0x0009;

/// The headers of a packet for the short way, and where it ends; its TCP header is of a
/// kind that is looked for, and TCP's sum is to be looked at yet.
#[inline(always)]
fn checked<'a>(
    core: &'a Core,
    packet: &'a Packet,
    is: impl Fn(u16) -> bool,
) -> Option<(&'a [u8; HEADERS], usize)> {
    if packet.rest.is_some() || core.pool.available() < core.config.tcp.frames_low {
        return None;
    }
    let bytes = core.pool.bytes(&packet.head);
    let head = bytes.first_chunk::<HEADERS>()?;
    let end = IP + usize::from(be16(head, IP + 2));
    if end < HEADERS || end > bytes.len() || !is_plain(&core.interface, head) {
        return None;
    }
    let right = checksum::is_right(&head[IP..TCP], Sum::ZERO) && is(be16(head, TCP + 12) & OPEN);
    right.then_some((head, end))
}

/// TCP's sum of a segment in one frame that ends there.
#[inline(always)]
fn is_sum_right(pool: &Pool, packet: &Packet, end: usize) -> bool {
    // From the addresses on, which are part of the pseudo-header.
    pool.bytes(&packet.head).get(TCP - 8..end).is_some_and(|summed| checksum::is_right(summed, pseudo(end)))
}

/// Of the pseudo-header of a segment that ends there, what the addresses leave.
#[inline(always)]
fn pseudo(end: usize) -> Sum {
    Sum::from_u16((end - TCP) as u16).add_u16(ipv4::TCP.into())
}

/// True where a packet's TCP header, if it is one, has no options.
pub(super) fn is_unstamped(pool: &Pool, packet: &Packet) -> bool {
    pool.bytes(&packet.head).get(TCP + 12).is_some_and(|len| len >> 4 == 5)
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
        let header = pool.bytes(&packet.head).get(IP..TCP);
        header.is_some_and(|header| checksum::is_right(header, Sum::ZERO)) && is_sum_right(pool, packet, self.end)
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
    is_stamped(head).then(|| stamps(head))
}

#[inline(always)]
fn is_stamped(head: &[u8; STAMPED]) -> bool {
    le32(head, HEADERS) == u32::from_le_bytes(TIMESTAMP)
}

#[inline(always)]
fn stamps(head: &[u8; STAMPED]) -> (u32, u32) {
    (be32(head, HEADERS + 4), be32(head, HEADERS + 8))
}

/// The flow of a packet that looks like a TCP segment over IPv4, as far as is seen
/// without checking anything: our address, the peer's, and the ports as in a key.
#[inline(always)]
pub(super) fn flow(bytes: &[u8]) -> Option<Flow> {
    let head = bytes.first_chunk::<HEADERS>()?;
    let is_tcp = le32(head, 12) << 8 == 0x4500_0800 && head[IP + 9] == ipv4::TCP;
    is_tcp.then(|| flow_of(head))
}

/// Our address, the peer's, and the ports: a key has ours first, a segment's header
/// the source's.
#[inline(always)]
fn flow_of(head: &[u8; HEADERS]) -> Flow {
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
