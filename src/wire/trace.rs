//! Packets in the notation of tcpdump, for traces that people read. (The one part
//! of `wire` that allocates.)

use super::tcp::{Flags, Segment};
use super::{arp, ethernet, icmpv4, icmpv6, ipv4, ipv6, tcp, udp, vlan};
use crate::time::Instant;
use core::fmt::{self, Display, Write};
use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeMap;

/// What a packet's bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header.
    Ip,
}

/// How TCP segments are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// `Flags [P.], seq 1:6, ack 1, win 502, options [nop,nop,TS val 7 ecr 3], length 5`
    #[default]
    Modern,
    /// `P 1:6(5) ack 1 win 502 <nop,nop,timestamp 7 3>`, as in older books.
    Classic,
}

/// Conversations whose first sequence numbers are remembered.
const CONVERSATIONS: usize = 65_536;

type Endpoint = (IpAddr, u16);

/// Prints packets, one a line, and remembers where each TCP conversation began,
/// to print sequence numbers from there.
#[derive(Debug, Default)]
pub struct Tracer {
    style: Style,
    /// By the lower and the higher end: the first sequence number of each.
    conversations: BTreeMap<(Endpoint, Endpoint), (u32, u32)>,
}

/// What the sequence and acknowledgment numbers of a segment count from.
#[derive(Clone, Copy, Default)]
struct Base {
    seq: u32,
    ack: u32,
}

impl Tracer {
    /// A tracer that has seen nothing.
    pub fn new(style: Style) -> Self {
        Self { style, conversations: BTreeMap::new() }
    }

    /// A packet with the time in front, as `00:00:01.234567 IP …`.
    pub fn line(&mut self, at: Instant, begins: Begins, bytes: &[u8]) -> String {
        let us = at.as_nanos() / 1000;
        let (s, us) = (us / 1_000_000, us % 1_000_000);
        let (h, m, s) = (s / 3600 % 24, s / 60 % 60, s % 60);
        format!("{h:02}:{m:02}:{s:02}.{us:06} {}", self.packet(begins, bytes))
    }

    /// A packet without the time.
    pub fn packet(&mut self, begins: Begins, bytes: &[u8]) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = match begins {
            Begins::Ethernet => self.ethernet(&mut out, bytes),
            Begins::Ip => self.ip(&mut out, bytes),
        };
        out
    }

    fn ethernet(&mut self, out: &mut String, bytes: &[u8]) -> fmt::Result {
        let Some((header, rest)) = ethernet::parse(bytes) else {
            return write!(out, "[|ether]");
        };
        if header.ethertype.get() != ethernet::VLAN {
            return self.ethertype(out, header.ethertype.get(), rest);
        }
        let Some((tag, rest)) = vlan::parse(rest) else { return write!(out, "[|vlan]") };
        write!(out, "vlan {}, p {}, ", tag.vlan(), tag.priority())?;
        self.ethertype(out, tag.ethertype.get(), rest)
    }

    fn ethertype(&mut self, out: &mut String, ethertype: u16, bytes: &[u8]) -> fmt::Result {
        match ethertype {
            ethernet::IPV4 | ethernet::IPV6 => self.ip(out, bytes),
            ethernet::ARP => trace_arp(out, bytes),
            other => write!(out, "ethertype {other:#06x}, length {}", bytes.len()),
        }
    }

    fn ip(&mut self, out: &mut String, bytes: &[u8]) -> fmt::Result {
        match bytes.first().map(|b| b >> 4) {
            Some(4) => self.ipv4(out, bytes),
            Some(6) => self.ipv6(out, bytes),
            _ => write!(out, "IP [|ip]"),
        }
    }

    fn ipv4(&mut self, out: &mut String, bytes: &[u8]) -> fmt::Result {
        let packet = match ipv4::parse(bytes) {
            Ok(packet) => packet,
            Err(reason) => return write!(out, "IP [{}], length {}", reason.text(), bytes.len()),
        };
        let h = packet.header;
        let ends = (IpAddr::V4(h.source()), IpAddr::V4(h.destination()));
        write!(out, "IP ")?;
        if h.fragment_offset() > 0 {
            return write!(out, "{} > {}: ip-proto-{}", ends.0, ends.1, h.protocol);
        }
        self.transport(out, ends, h.protocol, packet.payload, h.more_fragments())
    }

    fn ipv6(&mut self, out: &mut String, bytes: &[u8]) -> fmt::Result {
        let packet = match ipv6::parse(bytes) {
            Ok(packet) => packet,
            Err(reason) => return write!(out, "IP6 [{}], length {}", reason.text(), bytes.len()),
        };
        let h = packet.header;
        let ends = (IpAddr::V6(h.source()), IpAddr::V6(h.destination()));
        write!(out, "IP6 ")?;
        if let Some(fragment) = packet.fragment {
            let (at, len) = (fragment.offset, packet.payload.len());
            return write!(out, "{} > {}: frag ({at}|{len})", ends.0, ends.1);
        }
        self.transport(out, ends, packet.protocol, packet.payload, false)
    }

    fn transport(
        &mut self,
        out: &mut String,
        (src, dst): (IpAddr, IpAddr),
        protocol: u8,
        payload: &[u8],
        first_fragment: bool,
    ) -> fmt::Result {
        match (protocol, src) {
            (ipv4::TCP, _) => match tcp::parse(payload) {
                Ok(segment) => self.tcp(out, (src, dst), &segment),
                Err(reason) => write!(out, "{src} > {dst}: tcp [{}]", reason.text()),
            },
            (ipv4::UDP, _) => trace_udp(out, (src, dst), payload, first_fragment),
            (ipv4::ICMP, IpAddr::V4(_)) => {
                write!(out, "{src} > {dst}: ICMP ")?;
                trace_icmpv4(out, payload)?;
                write!(out, ", length {}", payload.len())
            }
            (ipv6::ICMPV6, IpAddr::V6(_)) => {
                write!(out, "{src} > {dst}: ICMP6, ")?;
                trace_icmpv6(out, payload)?;
                write!(out, ", length {}", payload.len())
            }
            (other, _) => write!(out, "{src} > {dst}: ip-proto-{other} {}", payload.len()),
        }
    }

    /// What the segment's numbers count from. A SYN, and the first segment of a
    /// conversation that was seen, are printed as they are.
    fn base(&mut self, src: Endpoint, dst: Endpoint, segment: &Segment) -> Base {
        let swapped = src > dst;
        let key = if swapped { (dst, src) } else { (src, dst) };
        if !segment.flags.contains(Flags::ACK) {
            if segment.flags.contains(Flags::SYN) {
                self.conversations.remove(&key);
            }
            return Base::default();
        }
        if let Some(&(low, high)) = self.conversations.get(&key)
            && !segment.flags.contains(Flags::SYN)
        {
            let (seq, ack) = if swapped { (high, low) } else { (low, high) };
            return Base { seq, ack };
        }
        let (seq, ack) = (segment.seq, segment.ack.wrapping_sub(1));
        if self.conversations.len() >= CONVERSATIONS {
            self.conversations.clear();
        }
        self.conversations.insert(key, if swapped { (ack, seq) } else { (seq, ack) });
        Base::default()
    }

    fn tcp(&mut self, out: &mut String, (src, dst): (IpAddr, IpAddr), s: &Segment) -> fmt::Result {
        write!(out, "{src}.{} > {dst}.{}: ", s.src_port, s.dst_port)?;
        let base = self.base((src, s.src_port), (dst, s.dst_port), s);
        match self.style {
            Style::Modern => trace_modern(out, s, base),
            Style::Classic => trace_classic(out, s, base),
        }
    }
}

/// The letters of a segment's flags.
fn letters(flags: Flags) -> String {
    let all = [
        (Flags::FIN, 'F'),
        (Flags::SYN, 'S'),
        (Flags::RST, 'R'),
        (Flags::PSH, 'P'),
        (Flags::ACK, '.'),
        (Flags::URG, 'U'),
        (Flags::ECE, 'E'),
        (Flags::CWR, 'W'),
    ];
    all.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| *letter).collect()
}

fn trace_modern(out: &mut String, s: &Segment, base: Base) -> fmt::Result {
    let flags = letters(s.flags);
    write!(out, "Flags [{}]", if flags.is_empty() { "none" } else { &flags })?;
    let seq = s.seq.wrapping_sub(base.seq);
    if s.payload_len > 0 {
        write!(out, ", seq {seq}:{}", seq.wrapping_add(s.payload_len as u32))?;
    } else if s.flags.intersects(Flags::SYN | Flags::FIN | Flags::RST) {
        write!(out, ", seq {seq}")?;
    }
    if s.flags.contains(Flags::ACK) {
        write!(out, ", ack {}", s.ack.wrapping_sub(base.ack))?;
    }
    write!(out, ", win {}", s.window)?;
    if s.flags.contains(Flags::URG) {
        write!(out, ", urg {}", s.urgent)?;
    }
    if s.header_len > tcp::HEADER_LEN {
        write!(out, ", options [{}]", OptionList { segment: s, base, style: Style::Modern })?;
    }
    write!(out, ", length {}", s.payload_len)
}

fn trace_classic(out: &mut String, s: &Segment, base: Base) -> fmt::Result {
    let letters = letters(s.flags.difference(Flags::ACK | Flags::URG));
    write!(out, "{}", if letters.is_empty() { "." } else { &letters })?;
    if s.payload_len > 0 || s.flags.intersects(Flags::SYN | Flags::FIN | Flags::RST) {
        let seq = s.seq.wrapping_sub(base.seq);
        let end = seq.wrapping_add(s.payload_len as u32);
        write!(out, " {seq}:{end}({})", s.payload_len)?;
    }
    if s.flags.contains(Flags::ACK) {
        write!(out, " ack {}", s.ack.wrapping_sub(base.ack))?;
    }
    write!(out, " win {}", s.window)?;
    if s.flags.contains(Flags::URG) {
        write!(out, " urg {}", s.urgent)?;
    }
    if s.header_len > tcp::HEADER_LEN {
        write!(out, " <{}>", OptionList { segment: s, base, style: Style::Classic })?;
    }
    Ok(())
}

/// The options that were read, in the order in which Linux sends them.
struct OptionList<'a> {
    segment: &'a Segment,
    base: Base,
    style: Style,
}

impl Display for OptionList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.segment.options;
        let mut parts = Vec::new();
        if let Some(mss) = o.mss {
            parts.push(format!("mss {mss}"));
        }
        if o.sack_permitted {
            if o.timestamp.is_none() {
                parts.extend(["nop".into(), "nop".into()]);
            }
            parts.push("sackOK".into());
        }
        if let Some((value, echo)) = o.timestamp {
            if !o.sack_permitted {
                parts.extend(["nop".into(), "nop".into()]);
            }
            parts.push(match self.style {
                Style::Modern => format!("TS val {value} ecr {echo}"),
                Style::Classic => format!("timestamp {value} {echo}"),
            });
        }
        if let Some(scale) = o.window_scale {
            parts.extend(["nop".into(), format!("wscale {scale}")]);
        }
        if !o.sack.is_empty() {
            let relative = |n: u32| n.wrapping_sub(self.base.ack);
            let block = |b: &tcp::SackBlock| format!("{{{}:{}}}", relative(b.left), relative(b.right));
            let blocks: String = o.sack.iter().map(block).collect();
            parts.extend(["nop".into(), "nop".into(), format!("sack {} {blocks}", o.sack.len())]);
        }
        f.write_str(&parts.join(","))
    }
}

fn trace_arp(out: &mut String, bytes: &[u8]) -> fmt::Result {
    let Some(p) = arp::parse(bytes) else { return write!(out, "[|ARP]") };
    match p.op.get() {
        arp::REQUEST => write!(out, "ARP, Request who-has {} tell {}", p.tpa(), p.spa())?,
        arp::REPLY => write!(out, "ARP, Reply {} is-at {}", p.spa(), p.sha)?,
        op => write!(out, "ARP, op {op}")?,
    }
    write!(out, ", length {}", bytes.len())
}

fn trace_protocol(out: &mut String, protocol: u8) -> fmt::Result {
    match protocol {
        ipv4::ICMP => write!(out, "icmp"),
        ipv4::TCP => write!(out, "tcp"),
        ipv4::UDP => write!(out, "udp"),
        other => write!(out, "ip-proto-{other}"),
    }
}

fn trace_udp(
    out: &mut String,
    (src, dst): (IpAddr, IpAddr),
    bytes: &[u8],
    first_fragment: bool,
) -> fmt::Result {
    let ports = match udp::parse(bytes) {
        Ok((h, payload)) => Some((h.src_port.get(), h.dst_port.get(), payload.len())),
        Err(_) if first_fragment && bytes.len() >= udp::HEADER_LEN => {
            let word = |i: usize| u16::from_be_bytes([bytes[i], bytes[i + 1]]);
            Some((word(0), word(2), usize::from(word(4)).saturating_sub(udp::HEADER_LEN)))
        }
        Err(_) => None,
    };
    match ports {
        Some((from, to, len)) => write!(out, "{src}.{from} > {dst}.{to}: UDP, length {len}"),
        None => write!(out, "{src} > {dst}: [|udp]"),
    }
}

fn trace_icmpv4(out: &mut String, bytes: &[u8]) -> fmt::Result {
    let Some((h, body)) = icmpv4::parse(bytes) else { return write!(out, "[|icmp]") };
    let (id, seq) = (h.word1.get(), h.word2.get());
    match h.kind {
        icmpv4::ECHO_REQUEST => write!(out, "echo request, id {id}, seq {seq}"),
        icmpv4::ECHO_REPLY => write!(out, "echo reply, id {id}, seq {seq}"),
        icmpv4::UNREACHABLE => trace_unreachable(out, h.code, seq, body),
        icmpv4::TIME_EXCEEDED if h.code == 0 => write!(out, "time exceeded in-transit"),
        icmpv4::TIME_EXCEEDED => write!(out, "ip reassembly time exceeded"),
        icmpv4::PARAMETER_PROBLEM => write!(out, "parameter problem - octet {}", id >> 8),
        kind => write!(out, "type-#{kind}, code {}", h.code),
    }
}

/// What a "destination unreachable" says of the packet that it quotes.
fn trace_unreachable(out: &mut String, code: u8, mtu: u16, quoted: &[u8]) -> fmt::Result {
    // The quoted packet is cut short, so its header is read without its lengths.
    let quoted_ip = quoted.first_chunk::<{ ipv4::HEADER_LEN }>();
    let Some(ip) = quoted_ip else { return write!(out, "unreachable (code {code})") };
    let host = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
    match code {
        icmpv4::NET => write!(out, "net {host} unreachable"),
        icmpv4::HOST => write!(out, "host {host} unreachable"),
        icmpv4::PROTOCOL => write!(out, "{host} protocol {} unreachable", ip[9]),
        icmpv4::PORT => {
            let header = usize::from(ip[0] & 0xf) * 4;
            let port = quoted.get(header + 2..header + 4);
            let port = port.map_or(0, |p| u16::from_be_bytes([p[0], p[1]]));
            write!(out, "{host} ")?;
            trace_protocol(out, ip[9])?;
            write!(out, " port {port} unreachable")
        }
        icmpv4::FRAGMENTATION_NEEDED => {
            write!(out, "{host} unreachable - need to frag (mtu {mtu})")
        }
        icmpv4::SOURCE_ROUTE_FAILED => write!(out, "{host} unreachable - source route failed"),
        code => write!(out, "{host} unreachable - #{code}"),
    }
}

fn trace_icmpv6(out: &mut String, bytes: &[u8]) -> fmt::Result {
    let Some(head) = bytes.first_chunk::<{ icmpv6::HEADER_LEN }>() else {
        return write!(out, "[|icmp6]");
    };
    let word = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    match head[0] {
        icmpv6::ECHO_REQUEST => write!(out, "echo request, id {}, seq {}", word(4), word(6)),
        icmpv6::ECHO_REPLY => write!(out, "echo reply, id {}, seq {}", word(4), word(6)),
        icmpv6::UNREACHABLE => write!(out, "destination unreachable, unreachable code {}", head[1]),
        icmpv6::PACKET_TOO_BIG => write!(out, "packet too big, mtu {}", word(6)),
        icmpv6::TIME_EXCEEDED => write!(out, "time exceeded in-transit"),
        icmpv6::PARAMETER_PROBLEM => write!(out, "parameter problem, code {}", head[1]),
        icmpv6::ROUTER_SOLICITATION => write!(out, "router solicitation"),
        icmpv6::ROUTER_ADVERTISEMENT => write!(out, "router advertisement"),
        icmpv6::NEIGHBOR_SOLICITATION => write!(out, "neighbor solicitation"),
        icmpv6::NEIGHBOR_ADVERTISEMENT => write!(out, "neighbor advertisement"),
        kind => write!(out, "type-#{kind}, code {}", head[1]),
    }
}

#[cfg(test)]
mod tests;
