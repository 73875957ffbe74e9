//! ICMP for IPv4 (RFC 792; RFC 1122, 3.2.2): echo, errors both ways.

use super::bucket::Bucket;
use super::config::IcmpConfig;
use super::interface::Class;
use super::ip_input::{IpMeta, is_host, packet_sum};
use super::ip_output::IpHeader;
use super::{Core, Stack};
use crate::errno::Errno;
use crate::frame::{Frame, Packet};
use crate::tcp::IcmpError;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::icmpv4::{self, Header};
use crate::wire::{checksum, ipv4};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use zerocopy::{FromBytes, IntoBytes};

/// How much ICMP we send.
#[derive(Debug)]
pub struct Limits {
    errors: Bucket,
    echo: Bucket,
}

impl Limits {
    pub(super) fn new(config: &IcmpConfig) -> Self {
        Self {
            errors: Bucket::new(config.error_rate, Instant::ZERO),
            echo: Bucket::new(config.echo_rate, Instant::ZERO),
        }
    }
}

/// Bytes of an ICMP error's IP packet, at most (RFC 1812, 4.3.2.3).
const MAX_ERROR: usize = 576;
/// Precedence "internetwork control" (RFC 1812, 4.3.2.5).
const CONTROL: u8 = 0xc0;
const SOURCE_QUENCH: u8 = 4;
const REDIRECT: u8 = 5;

/// The flow that an ICMP error is about, seen from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    pub protocol: u8,
    /// Source of the quoted packet; for ICMP the port is the echo's identifier.
    pub local: SocketAddr,
    /// Destination of it.
    pub remote: SocketAddr,
    /// TCP: sequence number.
    pub seq: u32,
    /// Total length of the quoted packet.
    pub len: u16,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub tcp: IcmpError,
    /// What a datagram socket's program is told.
    pub errno: Errno,
    /// Told to every connected datagram socket, not only to those that asked for
    /// all errors.
    pub hard: bool,
    /// Fragmentation needed: what the router said, else zero.
    pub mtu: Option<u16>,
}

impl Problem {
    /// A neighbour of ours that does not answer.
    const NEIGHBOR: Self =
        Self { tcp: IcmpError::Unreachable, errno: Errno::EHOSTUNREACH, hard: true, mtu: None };

    /// The meaning of type and code, with Linux's error numbers.
    fn new(kind: u8, code: u8, mtu: u16) -> Option<Self> {
        use IcmpError::*;
        let problem = |tcp, errno, hard| Some(Self { tcp, errno, hard, mtu: None });
        match (kind, code) {
            (icmpv4::UNREACHABLE, 0) => problem(NetworkUnreachable, Errno::ENETUNREACH, false),
            (icmpv4::UNREACHABLE, 1) => problem(Unreachable, Errno::EHOSTUNREACH, false),
            (icmpv4::UNREACHABLE, 2) => problem(ProtocolUnreachable, Errno::ENOPROTOOPT, true),
            (icmpv4::UNREACHABLE, 3) => problem(PortUnreachable, Errno::ECONNREFUSED, true),
            (icmpv4::UNREACHABLE, 4) => Some(Self {
                tcp: PacketTooBig { mtu },
                errno: Errno::EMSGSIZE,
                hard: false,
                mtu: Some(mtu),
            }),
            (icmpv4::UNREACHABLE, 5) => problem(Unreachable, Errno::EOPNOTSUPP, false),
            (icmpv4::UNREACHABLE, 6 | 9 | 11) => problem(Unreachable, Errno::ENETUNREACH, false),
            (icmpv4::UNREACHABLE, 7) => problem(Unreachable, Errno::EHOSTDOWN, true),
            (icmpv4::UNREACHABLE, 8 | 10 | 12..=15) => {
                problem(Unreachable, Errno::EHOSTUNREACH, code >= 13 || code == 10)
            }
            (icmpv4::TIME_EXCEEDED, 0 | 1) => problem(Unreachable, Errno::EHOSTUNREACH, false),
            (icmpv4::PARAMETER_PROBLEM, 0..=2) => problem(Unreachable, Errno::EPROTO, true),
            _ => None,
        }
    }
}

/// Reads the packet that an error quotes: the header and 8 bytes behind it.
fn read_quote(bytes: &[u8]) -> Option<Quote> {
    let (header, _) = ipv4::Header::ref_from_prefix(bytes).ok()?;
    let header_len = header.header_len();
    let ours = header.version() == 4
        && header_len >= ipv4::HEADER_LEN
        && header.fragment_offset() == 0;
    let body = bytes.get(header_len..header_len + 8).filter(|_| ours)?;
    let be16 = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let ports = match header.protocol {
        ipv4::ICMP if body[0] == icmpv4::ECHO_REQUEST => (be16(4), 0),
        ipv4::TCP | ipv4::UDP => (be16(0), be16(2)),
        _ => return None,
    };
    Some(Quote {
        protocol: header.protocol,
        local: SocketAddr::new(header.source().into(), ports.0),
        remote: SocketAddr::new(header.destination().into(), ports.1),
        seq: u32::from(be16(4)) << 16 | u32::from(be16(6)),
        len: header.total_len.get(),
    })
}

/// The next smaller MTU in use where a router does not say which (RFC 1191, 7.1).
fn plateau(len: u16) -> usize {
    const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    PLATEAUS.into_iter().find(|&p| p < len).unwrap_or(68).into()
}

impl Stack {
    /// An ICMP message; the packet's range is the message.
    #[cold]
    pub(super) fn icmp_input(&mut self, meta: &IpMeta, mut packet: Packet) {
        let core = &mut self.core;
        let header = match Header::ref_from_prefix(core.pool.bytes(&packet.head)) {
            Ok((header, _)) if packet_sum(&core.pool, &packet).finish() == 0 => *header,
            _ => return core.discard(packet, DropReason::IcmpMalformed),
        };
        let result = match header.kind {
            icmpv4::ECHO_REQUEST => core.echo(meta, &header, &packet),
            icmpv4::ECHO_REPLY => {
                let ident = header.word1.get();
                let found = self.icmp.reply(core, meta, ident, &packet);
                found.then_some(()).ok_or(DropReason::IcmpNoSocket)
            }
            REDIRECT | SOURCE_QUENCH => Err(DropReason::IcmpIgnored),
            icmpv4::UNREACHABLE | icmpv4::TIME_EXCEEDED | icmpv4::PARAMETER_PROBLEM => {
                self.icmp_error_input(&header, &packet)
            }
            _ => Err(DropReason::IcmpTypeUnknown),
        };
        if self.icmp.has_raw() {
            self.core.rewind(meta, &mut packet);
            self.icmp.raw_input(&mut self.core, meta, header.kind, &packet);
        }
        packet.free(&mut self.core.pool);
        if let Err(reason) = result {
            self.core.counters.drop(reason);
        }
    }

    /// An error about a packet of ours: believed only where the quoted header is
    /// that of a live flow (RFC 5927, 4.1).
    fn icmp_error_input(&mut self, header: &Header, packet: &Packet) -> Result<(), DropReason> {
        let problem = Problem::new(header.kind, header.code, header.word2.get())
            .ok_or(DropReason::IcmpTypeUnknown)?;
        let bytes = &self.core.pool.bytes(&packet.head)[icmpv4::HEADER_LEN..];
        let quote = read_quote(bytes).ok_or(DropReason::IcmpQuoteInvalid)?;
        if !self.core.interface.is_local(quote.local.ip()) || !self.deliver_problem(&quote, &problem) {
            return Err(DropReason::IcmpQuoteInvalid);
        }
        Ok(())
    }

    /// Tells the flow's owner; false where there is no such flow.
    fn deliver_problem(&mut self, quote: &Quote, problem: &Problem) -> bool {
        let known = match quote.protocol {
            ipv4::TCP => {
                let (local, remote) = (quote.local, quote.remote);
                return self.tcp.icmp_error(&mut self.core, local, remote, problem.tcp, quote.seq);
            }
            ipv4::UDP => self.udp.problem(quote, problem),
            ipv4::ICMP => self.icmp.problem(quote, problem),
            _ => false,
        };
        if known && let Some(mtu) = problem.mtu {
            let mtu = if mtu == 0 { plateau(quote.len) } else { mtu.into() };
            self.core.learn_path_mtu(quote.remote.ip(), mtu);
        }
        known
    }

    /// A packet could not be sent because its neighbour does not answer: its
    /// socket is told.
    #[cold]
    pub(super) fn neighbor_unreachable(&mut self, frame: Frame) {
        let bytes = self.core.pool.bytes(&frame);
        let quote = bytes.get(self.core.interface.link_len..).and_then(read_quote);
        if let Some(quote) = quote {
            self.deliver_problem(&quote, &Problem::NEIGHBOR);
        }
        self.core.pool.free(frame);
    }
}

impl Core {
    /// Answers an echo request with all its data (RFC 1122, 3.2.2.6). On a shared
    /// address the kernel does; to groups nobody should (it would be amplified).
    fn echo(&mut self, meta: &IpMeta, header: &Header, packet: &Packet) -> Result<(), DropReason> {
        if self.is_shared() || meta.to_group {
            return Err(DropReason::IcmpIgnored);
        }
        if !self.limits.echo.take(self.now) {
            return Err(DropReason::IcmpRateLimited);
        }
        let path = self.route(meta.src).map_err(|_| DropReason::NoRoute)?;
        // The reply differs from the request only in its type.
        let sum = checksum::Sum::from_u16(!header.checksum.get()).add_u16(!(u16::from(icmpv4::ECHO_REQUEST) << 8));
        let mut reply = *header;
        reply.kind = icmpv4::ECHO_REPLY;
        reply.checksum.set(sum.finish());
        let h = IpHeader {
            src: meta.dst,
            dst: meta.src,
            protocol: ipv4::ICMP,
            ttl: self.config.ttl,
            tos: meta.tos,
            df: false,
        };
        let arena = self.pool.arena().clone();
        let head = &arena.bytes(&packet.head)[icmpv4::HEADER_LEN..];
        let sent = match &packet.rest {
            None => self.send_ip(&path, &h, &[reply.as_bytes(), head]),
            Some(rest) => {
                let mut parts = vec![reply.as_bytes(), head];
                parts.extend(rest.iter().map(|f| arena.bytes(f)));
                self.send_ip(&path, &h, &parts)
            }
        };
        sent.map_err(|_| self.why_unsent(&path))
    }

    /// Tells the sender of a packet (its range begins with the IP header) what is
    /// wrong with it, unless RFC 1122, 3.2.2 forbids: no error about an error,
    /// about what went to many, or to what is no host's address.
    #[cold]
    pub(super) fn icmp_error(
        &mut self,
        meta: &IpMeta,
        packet: &Packet,
        kind: u8,
        code: u8,
        words: (u16, u16),
    ) {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (meta.src, meta.dst) else { return };
        // Whether a port or protocol is there the kernel knows better, where the
        // address is its own too.
        if meta.to_group || (self.is_shared() && kind == icmpv4::UNREACHABLE && !meta.is_loop) {
            return;
        }
        let arena = self.pool.arena().clone();
        let bytes = arena.bytes(&packet.head);
        let max = MAX_ERROR - ipv4::HEADER_LEN - icmpv4::HEADER_LEN;
        self.send_icmp_error(dst, src, kind, code, words, &bytes[..bytes.len().min(max)]);
    }

    /// As [`Core::icmp_error`], about `quoted`, from our address `src` to its
    /// sender `dst`.
    pub(super) fn send_icmp_error(
        &mut self,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        kind: u8,
        code: u8,
        words: (u16, u16),
        quoted: &[u8],
    ) {
        let Ok((header, _)) = ipv4::Header::ref_from_prefix(quoted) else { return };
        let about_error = header.protocol == ipv4::ICMP
            && (quoted.get(header.header_len())).is_none_or(|&k| {
                !matches!(k, icmpv4::ECHO_REPLY | icmpv4::ECHO_REQUEST | 13..=18)
            });
        let single = is_host(dst) && self.interface.class(dst) != Class::Broadcast;
        if about_error || header.fragment_offset() != 0 || !single {
            return;
        }
        if !self.limits.errors.take(self.now) {
            return self.counters.drop(DropReason::IcmpRateLimited);
        }
        let Ok(path) = self.route(dst.into()) else {
            return self.counters.drop(DropReason::NoRoute);
        };
        let src = if self.interface.is_local(src.into()) { src.into() } else { path.source };
        let mut message = [0; MAX_ERROR];
        let len = icmpv4::build(&mut message, kind, code, words.0, words.1, quoted);
        let h = IpHeader {
            src,
            dst: dst.into(),
            protocol: ipv4::ICMP,
            ttl: self.config.ttl,
            tos: CONTROL,
            df: false,
        };
        if self.send_ip(&path, &h, &[&message[..len]]).is_err() {
            let reason = self.why_unsent(&path);
            self.counters.drop(reason);
        }
    }
}
