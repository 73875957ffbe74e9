//! The body of the fuzz target that feeds a whole stack with frames: bytes as
//! they are, and packets that are nearly right. Built for fuzzing and tests only.

use super::linux::*;
use super::{Handle, Sockets};
use crate::errno::Errno;
use crate::frame::{Batch, Packet, Pool};
use crate::stack::{Config, Mode, Stack};
use crate::tcp::fuzzing::Choices;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::Mac;
use crate::wire::tcp::{Flags, Options, Order, SackBlock, Segment};
use crate::wire::{arp, checksum, icmpv4, ipv4, tcp, udp};
use core::net::{Ipv4Addr, SocketAddr};
use zerocopy::IntoBytes;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const FRAMES: u32 = 256;

/// A host with a listener that echoes, a UDP socket that echoes, and a
/// connection that it opens itself.
struct Host {
    sockets: Sockets,
    now: Instant,
    raw_ip: bool,
    listener: Handle,
    udp: Handle,
    streams: Vec<Handle>,
    /// The last segment that left, and the packet it was in.
    last: Option<Segment>,
    quote: Vec<u8>,
}

/// Feeds a stack with what the choices say. It holds every frame that its pool
/// calls held, sends nothing that is not well formed, and when its programs have
/// closed and the wire is silent it comes to rest with no connection left.
pub fn ip_input(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut host = Host::new(&mut choices);
    while !choices.is_done() {
        let mut batch = Batch::new();
        for _ in 0..=choices.below(4) {
            let packet = host.packet(&mut choices);
            host.add(&mut batch, &packet);
        }
        host.sockets.receive(host.now, &mut batch);
        host.check();
        host.programs(&mut choices);
        host.turn();
        if choices.one_in(4) {
            let next = host.sockets.next_deadline().unwrap_or(host.now);
            let step = Duration::from_micros(u64::from(choices.short()) * 50);
            host.now = if choices.one_in(2) { next.max(host.now) } else { host.now + step };
            host.turn();
        }
    }
    host.end();
}

impl Host {
    fn new(choices: &mut Choices) -> Self {
        let raw_ip = choices.one_in(2);
        let mut config = Config {
            mode: choices.pick(&[Mode::Owned, Mode::Shared]),
            addresses: vec![(OURS.into(), 24)],
            mac: OUR_MAC,
            raw_ip,
            mtu: choices.pick(&[1500, 576, 9000]),
            ..Config::default()
        };
        (config.tcp.frame_reserve, config.tcp.frames_low) = (16, 32);
        config.tcp.options.nodelay = true;
        let mut sockets = Sockets::new(Stack::new(config, Pool::heap(FRAMES, 2048), 3));
        let tcp_socket = |s: &mut Sockets| s.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        let listener = tcp_socket(&mut sockets);
        sockets.bind(listener, SocketAddr::new(OURS.into(), 80)).expect("bind");
        sockets.listen(listener, 4).expect("listen");
        let udp = sockets.socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
        sockets.bind(udp, SocketAddr::new(OURS.into(), 53)).expect("bind");
        let client = tcp_socket(&mut sockets);
        sockets.bind(client, SocketAddr::new(OURS.into(), 4000)).expect("bind");
        let began = sockets.connect(client, SocketAddr::new(PEER.into(), 80));
        assert_eq!(began, Err(Errno::EINPROGRESS));
        let now = Instant::from_nanos(1_000_000_000);
        let (last, quote, streams) = (None, Vec::new(), vec![client]);
        let mut host = Self { sockets, now, raw_ip, listener, udp, streams, last, quote };
        host.turn();
        if !raw_ip {
            let reply = arp::Packet::new(arp::REPLY, PEER_MAC, PEER, OUR_MAC, OURS);
            let mut batch = Batch::new();
            let frame = link(OUR_MAC, 0x0806, reply.as_bytes());
            host.add(&mut batch, &frame);
            host.sockets.receive(host.now, &mut batch);
            host.turn();
        }
        host
    }

    fn add(&mut self, batch: &mut Batch, bytes: &[u8]) {
        let pool = &mut self.sockets.stack.core.pool;
        let mut frames = Vec::new();
        for part in bytes.chunks(pool.arena().capacity() - 64) {
            let Some(mut frame) = pool.alloc() else { break };
            frame.set_range(64, part.len());
            pool.bytes_mut(&mut frame).copy_from_slice(part);
            frames.push(frame);
        }
        let mut frames = frames.into_iter();
        let Some(head) = frames.next() else { return };
        let rest: Vec<_> = frames.collect();
        let rest = (!rest.is_empty()).then(|| Box::new(rest));
        batch.push(Packet { head, rest });
    }

    fn check(&self) {
        let pool = &self.sockets.stack.core.pool;
        pool.assert_conserved();
        assert_eq!(pool.counts().held as usize, self.sockets.held_frames(), "frames leak");
    }

    fn turn(&mut self) {
        self.sockets.turn(self.now);
        let skip = if self.raw_ip { 0 } else { 14 };
        let (pool, queue) = self.sockets.tx();
        while let Some(desc) = queue.pop() {
            let bytes = pool.tx_bytes(&desc)[skip..].to_vec();
            pool.complete(desc.index());
            let is_ip = bytes.first().is_some_and(|b| b >> 4 == 4);
            if is_ip && let Some(segment) = well_formed(&bytes) {
                (self.last, self.quote) = (Some(segment), bytes);
            }
        }
        self.check();
    }

    /// The programs: take what comes, echo it, and close now and then.
    fn programs(&mut self, choices: &mut Choices) {
        let mut buf = [0; 4096];
        while let Ok((h, _)) = self.sockets.accept(self.listener) {
            self.streams.push(h);
        }
        if let Ok((n, meta)) = self.sockets.recv_from(self.udp, &mut buf, 0) {
            let to = meta.from;
            let _ = self.sockets.send_to(self.udp, &buf[..n], 0, to, &Default::default());
        }
        let act = choices.byte();
        for i in (0..self.streams.len()).rev() {
            let h = self.streams[i];
            if act & 3 != 3
                && let Ok(n) = self.sockets.recv(h, &mut buf, 0)
            {
                let _ = self.sockets.send(h, &buf[..n], MSG_NOSIGNAL);
            }
            match act >> 2 {
                0..=2 => drop(self.sockets.shutdown(h, SHUT_WR)),
                3 | 4 => {
                    self.sockets.close(h).expect("an open handle");
                    self.streams.swap_remove(i);
                }
                5 | 6 => drop(self.sockets.send(h, &buf, MSG_NOSIGNAL)),
                _ => {}
            }
        }
        self.check();
    }

    /// A frame: arbitrary, or nearly right.
    fn packet(&mut self, choices: &mut Choices) -> Vec<u8> {
        let kind = choices.below(16);
        if kind == 0 {
            return choices.take(100).to_vec();
        }
        if kind == 1 {
            let op = choices.pick(&[arp::REQUEST, arp::REPLY, 9]);
            let from = choices.pick(&[PEER, OURS, Ipv4Addr::new(10, 0, 0, 9)]);
            return link(OUR_MAC, 0x0806, arp::Packet::new(op, PEER_MAC, from, OUR_MAC, OURS).as_bytes());
        }
        let (protocol, payload) = match kind {
            2 | 3 => (ipv4::UDP, self.datagram(choices)),
            4 | 5 => (ipv4::ICMP, self.icmp(choices)),
            _ => (ipv4::TCP, self.segment(choices)),
        };
        let src = if choices.one_in(16) { Ipv4Addr::from(choices.word()) } else { PEER };
        let flags = match choices.below(12) {
            10 => ipv4::MF | choices.below(64) as u16,
            11 => choices.below(64) as u16,
            _ => ipv4::DF,
        };
        let header = ipv4::Header::new(src, OURS, protocol, payload.len(), 60, choices.byte() & 3, 7, flags);
        let mut bytes = [header.as_bytes(), &payload].concat();
        if choices.one_in(10) {
            // A few bytes changed, the header's sum made right again or not.
            for _ in 0..=choices.below(3) {
                let at = usize::from(choices.short()) % bytes.len();
                bytes[at] = choices.byte();
            }
            let len = usize::from(bytes[0] & 15) * 4;
            if choices.one_in(2) && (20..=bytes.len()).contains(&len) {
                bytes[10..12].fill(0);
                let sum = checksum::sum(&bytes[..len]).finish();
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            bytes.truncate(bytes.len() - choices.below(16) as usize % bytes.len());
        }
        if self.raw_ip { bytes } else { link(OUR_MAC, 0x0800, &bytes) }
    }

    fn datagram(&self, choices: &mut Choices) -> Vec<u8> {
        let data = payload(choices);
        let mut out = vec![0; udp::HEADER_LEN + data.len()];
        let pseudo = checksum::pseudo_v4(PEER.octets(), OURS.octets(), ipv4::UDP, out.len() as u16);
        udp::build(&mut out, 999, choices.pick(&[53, 53, 54]), pseudo, data);
        out
    }

    fn icmp(&self, choices: &mut Choices) -> Vec<u8> {
        let quote = &self.quote[..self.quote.len().min(choices.pick(&[28, 48, 8, 1500]))];
        let (kind, code) = choices.pick(&[(3, 4), (3, 1), (3, 3), (8, 0), (11, 0), (12, 0), (0, 0)]);
        let mut out = vec![0; icmpv4::HEADER_LEN + quote.len()];
        icmpv4::build(&mut out, kind, code, choices.short(), choices.short(), quote);
        out
    }

    /// A segment that goes on where our last one was, nearly.
    fn segment(&self, choices: &mut Choices) -> Vec<u8> {
        let last = self.last.as_ref();
        let (seq, ack) = last.map_or((0, 0), |s| (s.ack, s.seq.wrapping_add(s.seq_len())));
        let flags = match choices.below(12) {
            0..=6 => Flags::ACK | Flags::PSH,
            7 => Flags::SYN,
            8 => Flags::SYN | Flags::ACK,
            9 => Flags::FIN | Flags::ACK,
            10 => Flags::RST,
            _ => Flags::from_bits_retain(choices.byte()),
        };
        let near = |choices: &mut Choices, base: u32| match choices.below(6) {
            0..=3 => base,
            4 => base.wrapping_add_signed((choices.short() as i16).into()),
            _ => choices.word(),
        };
        let (mine, theirs) = last.map_or((4000, 80), |s| (s.src_port, s.dst_port));
        let fresh = choices.one_in(4);
        let data = payload(choices);
        let mut options = Options::default();
        if flags.contains(Flags::SYN) {
            options.mss = Some(choices.short());
            options.window_scale = Some(choices.byte() & 15);
            options.sack_permitted = choices.one_in(2);
        }
        let time = last.and_then(|s| s.options.timestamp);
        if let Some((value, echo)) = time.or(flags.contains(Flags::SYN).then_some((0, 9))) {
            options.timestamp = Some((near(choices, echo), value));
        }
        if choices.one_in(6) {
            let left = near(choices, ack.wrapping_sub(100));
            options.sack.push(SackBlock { left, right: left.wrapping_add(choices.byte().into()) });
        }
        let segment = Segment {
            ce: false,
            src_port: if fresh { 5000 + choices.short() % 4 } else { theirs },
            dst_port: if fresh { 80 } else { mine },
            seq: near(choices, seq),
            ack: near(choices, ack),
            flags,
            window: choices.pick(&[60_000, 0, 100]),
            urgent: choices.byte().into(),
            options,
            header_len: 0,
            payload_len: 0,
        };
        let mut out = vec![0; tcp::MAX_HEADER_LEN + data.len()];
        let len = tcp::HEADER_LEN + segment.options.encode(Order::Linux).len() + data.len();
        let pseudo = checksum::pseudo_v4(PEER.octets(), OURS.octets(), ipv4::TCP, len as u16);
        let len = tcp::build(&mut out, &segment, Order::Linux, pseudo, data);
        out.truncate(len);
        out
    }

    /// All programs close; the peer says nothing more.
    fn end(mut self) {
        for h in self.streams.drain(..).chain([self.listener, self.udp]) {
            self.sockets.close(h).expect("an open handle");
        }
        for _ in 0..5000 {
            self.turn();
            match self.sockets.next_deadline() {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        let tcp = &self.sockets.stack.tcp;
        assert_eq!((tcp.connections(), tcp.waiting()), (0, 0), "connections stay for ever");
        let pool = &self.sockets.stack.core.pool;
        assert_eq!(pool.available(), FRAMES, "frames leak: {:?}", pool.counts());
    }
}

/// A payload of one of a few lengths.
fn payload<'a>(choices: &mut Choices<'a>) -> &'a [u8] {
    let len = choices.pick(&[0, 1, 64, 700]);
    choices.take(len)
}

fn link(dst: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &PEER_MAC.0[..], &kind.to_be_bytes()[..], payload].concat()
}

/// Checks an IPv4 packet of ours; gives its segment, if it has one.
fn well_formed(bytes: &[u8]) -> Option<Segment> {
    let packet = ipv4::parse(bytes).expect("what leaves is an IPv4 packet");
    let header = packet.header;
    assert_eq!(packet.payload.len() + header.header_len(), bytes.len());
    if header.protocol != ipv4::TCP || header.is_fragment() {
        return None;
    }
    let len = packet.payload.len() as u16;
    let sum = checksum::pseudo_v4(header.src, header.dst, ipv4::TCP, len);
    assert_eq!(sum.add(checksum::sum(packet.payload)).finish(), 0, "a wrong checksum");
    Some(tcp::parse(packet.payload).expect("what leaves is a segment"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::fuzzing::try_random;

    #[test]
    fn no_frames_break_a_stack() {
        try_random(ip_input, 3000, 1500);
    }
}
