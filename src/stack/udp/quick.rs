//! The short ways of datagrams, about 370 instructions in and 350 out for 64 bytes,
//! their sums and the copy included: whole ones over Ethernet and IPv4 with nothing
//! unusual about them. In, everything is checked that the long way checks, by one read
//! of the headers. Out, route, neighbour and path MTU are one look-up (`ways.rs`), and
//! the headers are written in a straight line. Whatever does not fit goes the long way
//! untouched.

use super::io::takes;
use super::{Own, Table};
use crate::arch;
use crate::frame::{Frame, Packet};
use crate::stack::Core;
use crate::stack::datagram::{PathMtu, Received, SendMeta};
use crate::stack::ip_input::{be16, be32, is_plain};
use crate::stack::sockets::Socket;
use crate::telemetry::DropReason;
use crate::wire::checksum::{self, Sum};
use crate::wire::ethernet::{self, Mac};
use crate::wire::{ipv4, udp};
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Ethernet, IPv4 without options, UDP.
const IP: usize = ethernet::HEADER_LEN;
const UDP: usize = IP + ipv4::HEADER_LEN;
pub(super) const HEADERS: usize = UDP + udp::HEADER_LEN;

/// A datagram for a socket.
#[derive(Clone, Copy)]
pub(in crate::stack) struct Arrival {
    /// The socket's slot.
    id: u32,
    of: Received,
}

impl Arrival {
    /// Reads the packet, if it is one for the short way.
    #[inline(always)]
    pub fn of(core: &Core, table: &Table, packet: &Packet) -> Option<Self> {
        let bytes = core.pool.bytes(&packet.head);
        let head = bytes.first_chunk::<HEADERS>()?;
        if packet.rest.is_some() || head[IP + 9] != ipv4::UDP || !is_plain(&core.interface, head) {
            return None;
        }
        let end = IP + usize::from(be16(head, IP + 2));
        // From the addresses on, which are part of the pseudo-header.
        let summed = bytes.get(UDP - 8..end)?;
        let len = be16(head, UDP + 4);
        if end < HEADERS || usize::from(len) != end - UDP || be16(head, UDP + 6) == 0 {
            return None;
        }
        let pseudo = Sum::from_u16(len).add_u16(ipv4::UDP.into());
        let right = checksum::is_right(&head[IP..UDP], Sum::ZERO)
            && (checksum::is_right(summed, pseudo)
                || core.config.partial_checksums && is_partial(head, pseudo));
        if !right {
            return None;
        }
        let (src, dst) = (be32(head, IP + 12), be32(head, IP + 16));
        let (port, own) = (be16(head, UDP), be16(head, UDP + 2));
        let id = table.ports.find_v4((dst, own), (src, port))?;
        let of = Received {
            src: Ipv4Addr::from_bits(src),
            dst: Ipv4Addr::from_bits(dst),
            time: core.now,
            len: u32::from(len) - udp::HEADER_LEN as u32,
            port,
            tos: head[IP + 1],
            ttl: head[IP + 8],
        };
        Some(Self { id, of })
    }
}

/// Whether the checksum's field holds the pseudo-header's sum alone.
#[cold]
fn is_partial(head: &[u8; HEADERS], pseudo: Sum) -> bool {
    let addresses = checksum::sum(&head[UDP - 8..UDP]);
    be16(head, UDP + 6) == pseudo.add(addresses).fold()
}

/// What the headers of a datagram say that leaves the short way.
struct Out {
    mac: Mac,
    src: u32,
    dst: u32,
    /// Both ports.
    ports: u32,
    ttl: u8,
    tos: u8,
}

impl Out {
    /// How a socket's datagram of `len` bytes leaves, if nothing speaks against the
    /// short way: no error waits, its destination was written to just before, it fits,
    /// there is room, and it has DF, so that it needs no identification.
    #[inline(always)]
    fn of(
        core: &Core,
        socket: &Socket<Own>,
        len: usize,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> Option<Self> {
        let own = &socket.own;
        let (SocketAddr::V4(to), SocketAddr::V4(local)) = (to.or(own.peer)?, own.local) else {
            return None;
        };
        let dst = to.ip().to_bits();
        let way = core.ways.get(dst, core.now)?;
        let options = &own.options;
        let good = meta.is_default()
            && socket.error.is_none()
            && !socket.shut_write
            && (to.port() != 0) & (local.port() != 0)
            && matches!(options.path_mtu, PathMtu::Want | PathMtu::Do)
            && ipv4::HEADER_LEN + udp::HEADER_LEN + len <= usize::from(way.mtu)
            && !core.is_jumbo(ipv4::HEADER_LEN + udp::HEADER_LEN + len)
            && core.tx.room() > 0;
        if !good {
            return None;
        }
        let (ttl, tos) = (options.ttl, options.tos);
        let ports = u32::from(local.port()) << 16 | u32::from(to.port());
        Some(Self { mac: way.mac, src: source(local, way.source)?, dst, ports, ttl, tos })
    }

    /// Writes all headers, before a payload of this sum.
    #[inline(always)]
    fn write(&self, head: &mut [u8; HEADERS], own: Mac, len: usize, payload: Sum) {
        let udp_len = (udp::HEADER_LEN + len) as u32;
        let first = 0x4500_0000 | u32::from(self.tos) << 16 | (ipv4::HEADER_LEN as u32 + udp_len);
        let df = u32::from(ipv4::DF);
        let third = u32::from(self.ttl) << 24 | u32::from(ipv4::UDP) << 16;
        let addresses = u64::from(self.src) + u64::from(self.dst);
        let ip = u64::from(first) + u64::from(df) + u64::from(third) + addresses;
        let ip = Sum::from_words(ip).finish();
        // The length counts twice: in the pseudo-header and in UDP's own.
        let pseudo = u64::from(self.ports) + u64::from(2 * udp_len + u32::from(ipv4::UDP));
        let sum = match Sum::from_words(addresses + pseudo).add(payload).finish() {
            // RFC 768: zero would mean that there is none.
            0 => 0xffff,
            sum => sum,
        };
        head[..6].copy_from_slice(&self.mac.0);
        head[6..12].copy_from_slice(&own.0);
        head[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        let words = [
            first,
            df,
            third | u32::from(ip),
            self.src,
            self.dst,
            self.ports,
            udp_len << 16 | u32::from(sum),
        ];
        for (to, word) in head[IP..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
    }
}

/// The source of a socket's datagrams; `None` where the long way has to look.
#[inline(always)]
fn source(local: SocketAddrV4, by_route: u32) -> Option<u32> {
    let local = *local.ip();
    if local.is_loopback() {
        return None;
    }
    let any = local.is_unspecified() || local.is_multicast();
    Some(if any { by_route } else { local.to_bits() })
}

impl Table {
    /// Takes in a datagram for one of the sockets.
    #[inline(always)]
    pub(in crate::stack) fn quick_input(&mut self, core: &mut Core, arrival: &Arrival, mut packet: Packet) {
        let (len, reports) = (arrival.of.len(), self.sockets.reports());
        let socket = self.sockets.get_mut(arrival.id);
        if !takes(core, socket, len) {
            return core.discard(packet, DropReason::UdpQueueFull);
        }
        let at = packet.head.offset() + HEADERS;
        packet.head.set_range(at, len);
        socket.queue.push(core, packet, arrival.of);
        socket.tell(core, reports);
    }

    /// Sends a datagram of a few bytes, not an empty one, as [`Table::send_quick`], without a call.
    #[inline(always)]
    pub(crate) fn send_lone(&self, core: &mut Core, id: u32, data: &[u8], to: SocketAddrV4) -> bool {
        let to = Some(SocketAddr::V4(to));
        (1..=arch::SHORT).contains(&data.len()) && self.send_by::<true>(core, id, data, to, &SendMeta::default())
    }

    /// Reads a small datagram that waits in one frame: its length and its sender.
    /// `None`, and nothing done, where it is not so.
    #[inline(always)]
    pub(crate) fn recv_lone(&mut self, core: &mut Core, id: u32, buf: &mut [u8]) -> Option<(usize, SocketAddrV4)> {
        let socket = self.sockets.get_mut(id);
        if socket.error.is_some() {
            return None;
        }
        let read = socket.queue.read_lone(&mut core.pool, buf)?;
        core.counters.rx_copied_bytes += read.0 as u64;
        Some(read)
    }

    /// Sends a datagram, if it can leave the short way; false, and nothing done,
    /// where not.
    #[inline(always)]
    pub(crate) fn send_quick(
        &self,
        core: &mut Core,
        id: u32,
        data: &[u8],
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> bool {
        self.send_by::<false>(core, id, data, to, meta)
    }

    /// `SHORT`: of at most [`arch::SHORT`] bytes.
    #[inline(always)]
    fn send_by<const SHORT: bool>(
        &self,
        core: &mut Core,
        id: u32,
        data: &[u8],
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> bool {
        let Some(out) = Out::of(core, self.sockets.get(id), data.len(), to, meta) else {
            return false;
        };
        let (len, mac) = (HEADERS + data.len(), core.interface.mac);
        let write = |buffer: &mut [u8]| {
            if let Some((head, body)) = buffer.split_first_chunk_mut() {
                let sum = match SHORT {
                    true => checksum::copy_and_sum_short(body, data),
                    false => checksum::copy_and_sum(body, data),
                };
                out.write(head, mac, data.len(), sum);
            }
        };
        let Some(desc) = core.pool.transmit_new(len, write) else { return false };
        core.tx.push(desc);
        core.counters.tx_copied_bytes += data.len() as u64;
        core.counters.tx_packets += 1;
        core.counters.tx_bytes += len as u64;
        true
    }

    /// Sends the payload that is a frame's range, as [`Table::send_quick`]. Gives the
    /// frame back where not; the range begins behind room for the headers.
    #[inline(always)]
    pub(super) fn send_frame_quick(
        &self,
        core: &mut Core,
        id: u32,
        mut frame: Frame,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> core::result::Result<(), Frame> {
        let len = frame.len();
        let Some(out) = Out::of(core, self.sockets.get(id), len, to, meta) else { return Err(frame) };
        let sum = checksum::sum(core.pool.bytes(&frame));
        let buffer = core.pool.buffer_mut(&mut frame);
        let Some(head) = buffer.first_chunk_mut::<HEADERS>() else { return Err(frame) };
        out.write(head, core.interface.mac, len, sum);
        core.transmit(frame, HEADERS + len);
        Ok(())
    }

    /// What [`Table::recv`] would give: the next datagram, if it waits in one frame and
    /// no error before it, to be read where it lies.
    #[inline(always)]
    pub(crate) fn front(&self, id: u32) -> Option<(&Frame, &Received)> {
        let socket = self.sockets.get(id);
        if socket.error.is_some() { None } else { socket.queue.front() }
    }

    /// Takes the datagram off that [`Table::front`] gave, `read` bytes of which were
    /// copied.
    #[inline(always)]
    pub(crate) fn pop_front(&mut self, core: &mut Core, id: u32, read: usize) {
        core.counters.rx_copied_bytes += read as u64;
        self.sockets.get_mut(id).queue.pop_single(&mut core.pool);
    }
}

#[cfg(test)]
mod tests;
