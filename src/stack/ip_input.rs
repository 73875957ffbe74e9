//! The way in: link header, IPv4 header, checksums, and on to the protocol.

use super::Core;
use super::interface::{Class, Interface};
use super::{Mode, Stack};
use crate::frame::{Packet, Pool};
use crate::telemetry::DropReason;
use crate::wire::checksum::{self, Sum};
use crate::wire::ethernet::{self, Mac};
use crate::wire::{icmpv4, ipv4, tcp};
use core::net::{IpAddr, Ipv4Addr};
use zerocopy::{FromBytes, IntoBytes};

/// What the lower layers know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct IpMeta {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// It went to many: a broadcast or multicast address, of IP or of the link.
    pub to_group: bool,
    /// It came from ourselves by the loop queue.
    pub is_loop: bool,
    /// Where the IP header begins in the head frame, from the frame's first byte.
    pub(super) ip_offset: u16,
}

/// Ethernet, and IPv4 without options.
const IP: usize = ethernet::HEADER_LEN;
const PLAIN: usize = IP + ipv4::HEADER_LEN;

/// The 16 bits at a known place: one load (of bytes put together, each that is not
/// looked at makes the others loads of their own).
#[inline(always)]
pub(super) fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    let mut word = [0; 2];
    word.copy_from_slice(&bytes[at..at + 2]);
    u16::from_be_bytes(word)
}

/// The 32 bits at a known place, likewise.
#[inline(always)]
pub(super) fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

/// The hardware address that a frame is to, as [`Interface::quick_mac`] has ours.
#[inline(always)]
pub(super) fn link_destination<const N: usize>(head: &[u8; N]) -> u64 {
    let word = [head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]];
    u64::from_le_bytes(word) << 16
}

/// IPv4 without options over Ethernet, whole; to our hardware address and our first
/// IPv4 address, from one that a host can have.
#[inline(always)]
pub(super) fn is_plain<const N: usize>(interface: &Interface, head: &[u8; N]) -> bool {
    be32(head, 12) & 0xffff_ff00 == 0x0800_4500
        && be16(head, IP + 6) & (ipv4::MF | ipv4::OFFSET_MASK) == 0
        && link_destination(head) == interface.quick_mac
        && be32(head, IP + 16) == interface.quick_own
        && !matches!(head[IP + 12], 0 | 127 | 224..)
        && interface.is_other(be32(head, IP + 12))
}

/// The sum of all bytes of a packet.
#[inline]
pub(super) fn packet_sum(pool: &Pool, packet: &Packet) -> Sum {
    let head = checksum::sum(pool.bytes(&packet.head));
    if packet.rest.is_none() { head } else { head.add(rest_sum(pool, packet, packet.head.len())) }
}

/// The sum of a packet's frames behind the first, `at` bytes from where sums begin.
#[inline(never)]
pub(super) fn rest_sum(pool: &Pool, packet: &Packet, mut at: usize) -> Sum {
    let mut sum = Sum::ZERO;
    for frame in packet.iter().skip(1) {
        let part = checksum::sum(pool.bytes(frame));
        sum = Sum::from_u16(sum.add_at(at, part).fold());
        at += frame.len();
    }
    sum
}

impl Stack {
    /// A packet as the device, or the loop queue, gave it.
    #[inline]
    pub(super) fn link_input(&mut self, mut packet: Packet, is_loop: bool) {
        let core = &mut self.core;
        if !is_loop && let Some((meta, protocol)) = core.plain_header(&mut packet) {
            return self.deliver(&meta, protocol, packet);
        }
        if core.interface.link_len == 0 {
            return self.ipv4_input(packet, false, is_loop);
        }
        let Some((header, _)) = ethernet::parse(core.pool.bytes(&packet.head)) else {
            return core.discard(packet, DropReason::EthernetTruncated);
        };
        let (dst, ethertype) = (header.dst, header.ethertype.get());
        // What we sent ourselves is ours, also where our address has changed since.
        if dst != core.interface.mac && !dst.is_multicast() && !is_loop {
            return core.discard(packet, DropReason::EthernetNotForUs);
        }
        packet.head.trim_front(ethernet::HEADER_LEN);
        match ethertype {
            ethernet::IPV4 => self.ipv4_input(packet, dst.is_multicast(), is_loop),
            ethernet::ARP if dst == core.interface.mac || dst == Mac::BROADCAST => {
                core.arp_input(packet);
            }
            _ => core.discard(packet, DropReason::EtherTypeUnknown),
        }
    }

    #[inline]
    fn ipv4_input(&mut self, packet: Packet, link_group: bool, is_loop: bool) {
        match self.core.ipv4_header(packet, link_group, is_loop) {
            Ok((meta, protocol, packet)) => self.deliver(&meta, protocol, packet),
            Err(None) => {}
            Err(Some((reason, packet))) => self.core.discard(packet, reason),
        }
    }

    /// Hands a whole datagram's payload to its protocol.
    #[inline]
    fn deliver(&mut self, meta: &IpMeta, protocol: u8, packet: Packet) {
        match protocol {
            ipv4::TCP => self.tcp_input(meta, packet),
            ipv4::UDP => self.udp_input(meta, packet),
            ipv4::ICMP => self.icmp_input(meta, packet),
            _ => self.protocol_unknown(meta, packet),
        }
    }

    #[cold]
    fn protocol_unknown(&mut self, meta: &IpMeta, mut packet: Packet) {
        self.core.rewind(meta, &mut packet);
        let core = &mut self.core;
        core.icmp_error(meta, &packet, icmpv4::UNREACHABLE, icmpv4::PROTOCOL, (0, 0));
        core.discard(packet, DropReason::Ipv4ProtocolUnknown);
    }

    #[inline]
    fn tcp_input(&mut self, meta: &IpMeta, mut packet: Packet) {
        let core = &mut self.core;
        if meta.to_group {
            // RFC 9293, MUST-57.
            return core.discard(packet, DropReason::TcpMalformed);
        }
        let mut segment = match tcp::parse(core.pool.bytes(&packet.head)) {
            Ok(segment) => segment,
            Err(reason) => return core.discard(packet, reason),
        };
        if !core.transport_checksum(meta, ipv4::TCP, &packet, 16) {
            return core.discard(packet, DropReason::TcpBadChecksum);
        }
        segment.payload_len = packet.len() - segment.header_len;
        segment.ce = meta.tos & 3 == 3;
        packet.head.trim_front(segment.header_len);
        self.tcp.input(core, meta, &segment, packet);
    }
}

/// The sum of a header of this length; of one without options in a straight line.
#[inline]
fn header_sum(header: &ipv4::Header, bytes: &[u8], header_len: usize) -> Sum {
    if header_len == ipv4::HEADER_LEN {
        checksum::sum(header.as_bytes())
    } else {
        checksum::sum(&bytes[..header_len])
    }
}

type Headed = Result<(IpMeta, u8, Packet), Option<(DropReason, Packet)>>;

impl Core {
    /// Gives a packet back and counts why.
    #[inline]
    pub(super) fn discard(&mut self, packet: Packet, reason: DropReason) {
        self.counters.drop(reason);
        packet.free(&mut self.pool);
    }

    /// Sets the head frame's range to begin with the IP header again.
    pub(super) fn rewind(&mut self, meta: &IpMeta, packet: &mut Packet) {
        let end = packet.head.offset() + packet.head.len();
        let start = usize::from(meta.ip_offset);
        packet.head.set_range(start, end - start);
    }

    /// Checks headers that [`is_plain`] and IPv4's checksum find good, as nearly all
    /// are, by one read of them, and takes them off. `None`: nothing is done yet, and
    /// whatever is wrong is found out step by step.
    #[inline]
    fn plain_header(&mut self, packet: &mut Packet) -> Option<(IpMeta, u8)> {
        let bytes = self.pool.bytes(&packet.head);
        let head = bytes.first_chunk::<PLAIN>()?;
        let (total, at) = (usize::from(be16(head, IP + 2)), packet.head.offset());
        let good = packet.rest.is_none()
            && is_plain(&self.interface, head)
            && (ipv4::HEADER_LEN..=bytes.len() - IP).contains(&total)
            && checksum::is_right(&head[IP..], Sum::ZERO);
        if !good {
            return None;
        }
        let meta = IpMeta {
            src: IpAddr::V4(Ipv4Addr::from_bits(be32(head, IP + 12))),
            dst: IpAddr::V4(Ipv4Addr::from_bits(be32(head, IP + 16))),
            ttl: head[IP + 8],
            tos: head[IP + 1],
            to_group: false,
            is_loop: false,
            ip_offset: (at + IP) as u16,
        };
        let protocol = head[IP + 9];
        packet.head.set_range(at + PLAIN, total - ipv4::HEADER_LEN);
        Some((meta, protocol))
    }

    /// Checks the IPv4 header and takes it off. `Err(None)`: the packet waits for
    /// more fragments.
    #[inline]
    fn ipv4_header(&mut self, mut packet: Packet, link_group: bool, is_loop: bool) -> Headed {
        let bytes = self.pool.bytes(&packet.head);
        let header = match ipv4::Header::ref_from_prefix(bytes) {
            Ok((header, _)) => *header,
            Err(_) => return Err(Some((DropReason::Ipv4Truncated, packet))),
        };
        let (header_len, total) = (header.header_len(), usize::from(header.total_len.get()));
        let fault = if header.version() != 4 || header_len < ipv4::HEADER_LEN || total < header_len {
            Some(DropReason::Ipv4BadHeader)
        } else if bytes.len() < header_len || packet.len() < total {
            Some(DropReason::Ipv4Truncated)
        } else if header_sum(&header, bytes, header_len).finish() != 0 {
            Some(DropReason::Ipv4BadChecksum)
        } else {
            self.address_fault(&header, link_group, is_loop)
        };
        if let Some(reason) = fault {
            return Err(Some((reason, packet)));
        }
        packet.truncate(total, &mut self.pool);
        let (src, dst) = (header.source(), header.destination());
        let mut meta = IpMeta {
            src: IpAddr::V4(src),
            dst: IpAddr::V4(dst),
            ttl: header.ttl,
            tos: header.tos,
            to_group: link_group || (self.interface.class(dst) != Class::Own && !dst.is_loopback()),
            is_loop,
            ip_offset: packet.head.offset() as u16,
        };
        if header_len > ipv4::HEADER_LEN
            && let Err(reason) = self.check_options(&meta, &packet, header_len)
        {
            return Err(Some((reason, packet)));
        }
        if header.is_fragment() {
            packet = self.reassemble(&header, packet).ok_or(None)?;
            meta.ip_offset = packet.head.offset() as u16;
            meta.tos = self.pool.bytes(&packet.head)[1];
            packet.head.trim_front(ipv4::HEADER_LEN);
        } else {
            packet.head.trim_front(header_len);
        }
        Ok((meta, header.protocol, packet))
    }

    /// Why a packet of these addresses is not taken in (RFC 1122, 3.2.1.3 and 3.3.6).
    #[inline]
    fn address_fault(
        &self,
        header: &ipv4::Header,
        link_group: bool,
        is_loop: bool,
    ) -> Option<DropReason> {
        let (src, dst) = (header.source(), header.destination());
        if is_loop {
            return None;
        }
        let [first, ..] = header.src;
        // 0/8, 127/8, multicast, class E and broadcast are no host's address.
        if first == 0 || first == 127 || first >= 224 || self.interface.class(src) != Class::Other {
            return Some(DropReason::Ipv4Martian);
        }
        match self.interface.class(dst) {
            Class::Own if link_group => Some(DropReason::Ipv4LinkBroadcast),
            Class::Own | Class::Broadcast => None,
            Class::Multicast => Some(DropReason::Ipv4NotForUs),
            Class::Other if dst.is_loopback() || dst.is_unspecified() => {
                Some(DropReason::Ipv4Martian)
            }
            Class::Other => Some(DropReason::Ipv4NotForUs),
        }
    }

    /// Walks over the options. Source routes are refused, whatever else is well
    /// formed is skipped (RFC 1122, 3.2.1.8; RFC 7126).
    #[cold]
    fn check_options(
        &mut self,
        meta: &IpMeta,
        packet: &Packet,
        header_len: usize,
    ) -> Result<(), DropReason> {
        let options = &self.pool.bytes(&packet.head)[ipv4::HEADER_LEN..header_len];
        let Err((reason, at)) = ipv4::check_options(options) else { return Ok(()) };
        if reason == DropReason::Ipv4BadOptions {
            let pointer = ((ipv4::HEADER_LEN + at) as u16) << 8;
            self.icmp_error(meta, packet, icmpv4::PARAMETER_PROBLEM, 0, (pointer, 0));
        }
        Err(reason)
    }

    /// Whether the checksum of a TCP or UDP packet is right. `field` is where it
    /// stands. Where the device is known for it, a field that holds exactly the
    /// pseudo-header's sum is right too: the sender left the rest to hardware
    /// that is not there.
    #[inline]
    pub(super) fn transport_checksum(
        &self,
        meta: &IpMeta,
        protocol: u8,
        packet: &Packet,
        field: usize,
    ) -> bool {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (meta.src, meta.dst) else { return false };
        let pseudo =
            checksum::pseudo_v4(src.octets(), dst.octets(), protocol, packet.len() as u16);
        let bytes = self.pool.bytes(&packet.head);
        packet.rest.is_none() && checksum::is_right(bytes, pseudo)
            || self.config.partial_checksums && bytes[field..field + 2] == pseudo.fold().to_be_bytes()
            || packet.rest.is_some() && packet_sum(&self.pool, packet).add(pseudo).finish() == 0
    }

    /// True where the kernel has the address too, and answers for it.
    #[inline]
    pub(super) fn is_shared(&self) -> bool {
        self.config.mode == Mode::Shared
    }
}

/// True for addresses that one host can have (RFC 1122, 3.2.1.3).
pub(super) fn is_host(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    first != 0 && first < 224
}

#[cfg(test)]
mod tests;
