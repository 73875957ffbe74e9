//! Datagrams in and out.

use super::{Own, Table, quick, source};
use crate::errno::{Errno, Result};
use crate::frame::{Frame, Packet};
use crate::stack::datagram::{PathMtu, Received, SendMeta};
use crate::stack::ip_input::IpMeta;
use crate::stack::sockets::Socket;
use crate::stack::{Core, IpHeader, Path, Stack};
use crate::telemetry::DropReason;
use crate::wire::checksum::{self, Sum};
use crate::wire::udp::{HEADER_LEN, Header};
use crate::wire::{icmpv4, ipv4};
use core::net::{IpAddr, SocketAddr};
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

/// Payload bytes of the largest datagram over IPv4.
pub const MAX_PAYLOAD: usize = 65_507;

/// What one datagram is sent with.
struct Outgoing {
    path: Path,
    ip: IpHeader,
    ports: (u16, u16),
    discover: PathMtu,
}

impl Outgoing {
    /// The UDP header. A computed checksum of zero is sent as all ones (RFC 768).
    #[inline]
    fn header(&self, payload_len: usize, payload: Sum) -> Header {
        let len = (HEADER_LEN + payload_len) as u16;
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (self.ip.src, self.ip.dst) else {
            unreachable!("only IPv4 gets here")
        };
        let sum = checksum::pseudo_v4(src.octets(), dst.octets(), ipv4::UDP, len)
            .add_u16(self.ports.0)
            .add_u16(self.ports.1)
            .add_u16(len)
            .add(payload);
        let checksum = match sum.finish() {
            0 => 0xffff,
            c => c,
        };
        Header {
            src_port: U16::new(self.ports.0),
            dst_port: U16::new(self.ports.1),
            len: U16::new(len),
            checksum: U16::new(checksum),
        }
    }
}

impl Table {
    /// Sends a datagram, given in parts, to `to` or to the peer.
    ///
    /// # Errors
    /// `EINVAL`: not bound, port 0, or a source that is not ours. `EDESTADDRREQ`:
    /// nobody to send to. `EMSGSIZE`: larger than 65,507 bytes, or than the path
    /// takes where fragments are forbidden. `EACCES`: broadcast without
    /// SO_BROADCAST. `ENETUNREACH`: no route. `EPIPE`: shut down. `EAGAIN`: no
    /// room now; an event comes when there is. Or the error that waits.
    pub fn send(
        &mut self,
        core: &mut Core,
        id: u32,
        parts: &[&[u8]],
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> Result<usize> {
        if let [data] = parts
            && self.send_quick(core, id, data, to, meta)
        {
            return Ok(data.len());
        }
        let out = self.outgoing(core, id, to, meta)?;
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let sent = match core.fits(&out, len) {
            Ok(true) if core.is_jumbo(ipv4::HEADER_LEN + HEADER_LEN + len) => {
                core.send_jumbo(&out, parts, len)
            }
            Ok(true) => core.send_small(&out, parts, len).inspect(|()| core.note_destination(&out)),
            Ok(false) => core.send_large(&out, parts, len),
            Err(error) => Err(error),
        };
        if sent == Err(Errno::EAGAIN) {
            self.sockets.block(id);
        }
        sent.map(|()| len)
    }

    /// A frame for [`Table::send_frame`]: its range is all the room for payload.
    pub fn send_alloc(&mut self, core: &mut Core, id: u32) -> Option<Frame> {
        let room = core.ip_room(self.get(id).local.is_ipv6()) + HEADER_LEN;
        let mut frame = core.pool.alloc()?;
        frame.set_range(room, core.pool.arena().capacity() - room);
        Some(frame)
    }

    /// Sends the payload that is a frame's range, without copying it where the
    /// range begins where [`Table::send_alloc`] had it.
    ///
    /// # Errors
    /// As [`Table::send`]; the frame is given back.
    pub fn send_frame(
        &mut self,
        core: &mut Core,
        id: u32,
        mut frame: Frame,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> core::result::Result<(), (Errno, Frame)> {
        let room = core.ip_room(false) + HEADER_LEN;
        let len = frame.len();
        let writable = |core: &Core, frame: &Frame| {
            frame.offset() == room && core.pool.is_home(frame) && !core.pool.is_pending(frame)
        };
        if room == quick::HEADERS && writable(core, &frame) {
            frame = match self.send_frame_quick(core, id, frame, to, meta) {
                Ok(()) => return Ok(()),
                Err(frame) => frame,
            };
        }
        let out = match self.outgoing(core, id, to, meta) {
            Ok(out) => out,
            Err(error) => return Err((error, frame)),
        };
        let in_place = writable(core, &frame)
            && core.fits(&out, len) == Ok(true)
            && !core.is_jumbo(ipv4::HEADER_LEN + HEADER_LEN + len);
        if !in_place {
            let arena = core.pool.arena().clone();
            if let Err(error) = self.send(core, id, &[arena.bytes(&frame)], to, meta) {
                return Err((error, frame));
            }
            core.pool.free(frame);
            return Ok(());
        }
        if core.tx_room(&out.path) == 0 {
            self.sockets.block(id);
            return Err((Errno::EAGAIN, frame));
        }
        let header = out.header(len, checksum::sum(core.pool.bytes(&frame)));
        let buffer = core.pool.buffer_mut(&mut frame);
        buffer[room - HEADER_LEN..room].copy_from_slice(header.as_bytes());
        core.send_frame(&out.path, &out.ip, frame, HEADER_LEN + len);
        core.note_destination(&out);
        Ok(())
    }

    fn outgoing(
        &mut self,
        core: &mut Core,
        id: u32,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> Result<Outgoing> {
        let socket = self.sockets.get_mut(id);
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.shut_write {
            return Err(Errno::EPIPE);
        }
        let to = match to {
            Some(to) => self.destination(id, to)?,
            None => socket.own.peer.ok_or(Errno::EDESTADDRREQ)?,
        };
        let socket = self.get(id);
        if to.port() == 0 || socket.local.port() == 0 {
            return Err(Errno::EINVAL);
        }
        let path = core.route(to.ip())?;
        let options = &socket.options;
        if path.is_broadcast && !options.broadcast {
            return Err(Errno::EACCES);
        }
        let src = source(&path, socket.local.ip(), meta.source);
        let foreign = meta.source.is_some_and(|s| !s.is_unspecified() && !core.interface().is_local(s));
        if foreign || (src.is_loopback() && !path.is_local) {
            return Err(Errno::EINVAL);
        }
        if to.is_ipv6() {
            return Err(Errno::ENETUNREACH);
        }
        let ttl = if to.ip().is_multicast() { options.multicast_ttl } else { options.ttl };
        let ip = IpHeader {
            src,
            dst: to.ip(),
            protocol: ipv4::UDP,
            ttl: meta.ttl.unwrap_or(ttl),
            tos: meta.tos.unwrap_or(options.tos),
            df: options.path_mtu != PathMtu::Dont,
        };
        let ports = (socket.local.port(), to.port());
        Ok(Outgoing { path, ip, ports, discover: options.path_mtu })
    }
}

impl Core {
    /// Whether a payload fits one packet (else it goes in fragments).
    #[inline]
    fn fits(&mut self, out: &Outgoing, len: usize) -> Result<bool> {
        if len > MAX_PAYLOAD {
            return Err(Errno::EMSGSIZE);
        }
        let mtu = match out.discover {
            PathMtu::Probe => out.path.mtu,
            _ => self.path_mtu(&out.path, out.ip.dst),
        };
        let fits = ipv4::HEADER_LEN + HEADER_LEN + len <= mtu;
        if !fits && matches!(out.discover, PathMtu::Do | PathMtu::Probe) {
            return Err(Errno::EMSGSIZE);
        }
        Ok(fits)
    }

    /// Notes how the destination was reached, for the short way.
    fn note_destination(&mut self, out: &Outgoing) {
        if let IpAddr::V4(dst) = out.ip.dst {
            self.note_way(&out.path, dst);
        }
    }

    fn send_small(&mut self, out: &Outgoing, parts: &[&[u8]], len: usize) -> Result<()> {
        if !self.can_send(&out.path, 1) {
            return Err(Errno::EAGAIN);
        }
        let mut frame = self.pool.alloc().ok_or(Errno::EAGAIN)?;
        let room = self.ip_room(false);
        let buffer = &mut self.pool.buffer_mut(&mut frame)[room..room + HEADER_LEN + len];
        let (head, body) = buffer.split_at_mut(HEADER_LEN);
        let sum = match parts {
            [whole] => checksum::copy_and_sum(body, whole),
            _ => copy_parts(body, parts),
        };
        head.copy_from_slice(out.header(len, sum).as_bytes());
        self.counters.tx_copied_bytes += len as u64;
        self.send_frame(&out.path, &out.ip, frame, HEADER_LEN + len);
        Ok(())
    }

    /// In fragments.
    #[cold]
    fn send_large(&mut self, out: &Outgoing, parts: &[&[u8]], len: usize) -> Result<()> {
        let header = out.header(len, sum_parts(parts));
        self.send_ip(&out.path, &IpHeader { df: false, ..out.ip }, &behind(&header, parts))
    }

    /// As one packet of several frames.
    #[cold]
    fn send_jumbo(&mut self, out: &Outgoing, parts: &[&[u8]], len: usize) -> Result<()> {
        let header = out.header(len, sum_parts(parts));
        self.send_chain(&out.path, &out.ip, &behind(&header, parts), HEADER_LEN + len)
    }
}

fn behind<'a>(header: &'a Header, parts: &[&'a [u8]]) -> Vec<&'a [u8]> {
    core::iter::once(header.as_bytes()).chain(parts.iter().copied()).collect()
}

/// Copies and sums parts as if they were one.
fn copy_parts(mut to: &mut [u8], parts: &[&[u8]]) -> Sum {
    for part in parts {
        let (now, later) = to.split_at_mut(part.len());
        now.copy_from_slice(part);
        to = later;
    }
    sum_parts(parts)
}

fn sum_parts(parts: &[&[u8]]) -> Sum {
    let (mut sum, mut at) = (Sum::ZERO, 0);
    for part in parts {
        let s = checksum::sum(part);
        sum = Sum::from_u16(if at % 2 == 0 { sum.add(s) } else { sum.add_odd(s) }.fold());
        at += part.len();
    }
    sum
}

impl Stack {
    /// A datagram; the packet's range is UDP's header and payload.
    #[inline]
    pub(in crate::stack) fn udp_input(&mut self, meta: &IpMeta, mut packet: Packet) {
        let core = &mut self.core;
        let (src_port, dst_port, len, has_sum) =
            match Header::ref_from_prefix(core.pool.bytes(&packet.head)) {
                Ok((h, _)) => (h.src_port.get(), h.dst_port.get(), h.len.get(), h.checksum.get() != 0),
                Err(_) => return core.discard(packet, DropReason::UdpMalformed),
            };
        let len = usize::from(len);
        if len < HEADER_LEN || len > packet.len() {
            return core.discard(packet, DropReason::UdpMalformed);
        }
        packet.truncate(len, &mut core.pool);
        if has_sum && !core.transport_checksum(meta, ipv4::UDP, &packet, 6) {
            return core.discard(packet, DropReason::UdpBadChecksum);
        }
        let (local, peer) = (SocketAddr::new(meta.dst, dst_port), SocketAddr::new(meta.src, src_port));
        if meta.to_group {
            return self.udp_group(meta, packet, local, peer);
        }
        let Some(id) = self.udp.ports.find(local, peer) else {
            return self.udp_no_socket(meta, packet, (dst_port, src_port));
        };
        packet.head.trim_front(HEADER_LEN);
        self.udp.receive(&mut self.core, id, packet, meta, src_port);
    }

    #[cold]
    fn udp_no_socket(&mut self, meta: &IpMeta, packet: Packet, ports: (u16, u16)) {
        let core = &mut self.core;
        let Some(mut packet) = core.stray(17, meta, ports, packet) else { return };
        core.rewind(meta, &mut packet);
        core.icmp_error(meta, &packet, icmpv4::UNREACHABLE, icmpv4::PORT, (0, 0));
        core.discard(packet, DropReason::UdpNoSocket);
    }

    /// A datagram to many: everybody who matches gets one, all but one a copy.
    #[cold]
    fn udp_group(&mut self, meta: &IpMeta, mut packet: Packet, local: SocketAddr, peer: SocketAddr) {
        let (core, udp) = (&mut self.core, &mut self.udp);
        let mut matches = core::mem::take(&mut udp.matches);
        udp.ports.find_all(local, peer, &mut matches);
        packet.head.trim_front(HEADER_LEN);
        match matches.split_last() {
            None => core.discard(packet, DropReason::UdpNoSocket),
            Some((last, others)) => {
                for &id in others {
                    udp.receive_copy(core, id, &packet, meta, peer.port());
                }
                udp.receive(core, *last, packet, meta, peer.port());
            }
        }
        matches.clear();
        udp.matches = matches;
    }
}

/// Whether the socket takes a datagram of `len` bytes.
#[inline(always)]
pub(super) fn takes(core: &Core, socket: &Socket<Own>, len: usize) -> bool {
    let max = core.config.datagram.max_datagrams;
    !socket.shut_read && socket.queue.has_room(len, socket.own.options.receive_buffer, max)
}

impl Table {
    fn receive(&mut self, core: &mut Core, id: u32, packet: Packet, meta: &IpMeta, port: u16) {
        let len = packet.len();
        if !takes(core, self.sockets.get(id), len) {
            return core.discard(packet, DropReason::UdpQueueFull);
        }
        let of = Received::new(core, meta, port, len);
        self.sockets.get_mut(id).queue.push(core, packet, of);
        self.sockets.touch(id);
    }

    fn receive_copy(&mut self, core: &mut Core, id: u32, packet: &Packet, meta: &IpMeta, port: u16) {
        let len = packet.len();
        if !takes(core, self.sockets.get(id), len) {
            return core.counters.drop(DropReason::UdpQueueFull);
        }
        let of = Received::new(core, meta, port, len);
        self.sockets.get_mut(id).queue.push_copy(core, packet, of);
        self.sockets.touch(id);
    }
}
