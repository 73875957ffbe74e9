//! A stack on a bench: packets are put in and taken out as bytes.

use super::{Config, Mode, Stack};
use crate::frame::{Batch, Packet, Pool};
use crate::telemetry::DropReason;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::{self, Mac};
use crate::wire::{arp, checksum, icmpv4, ipv4};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use zerocopy::IntoBytes;

pub const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Frames of a bed: more than `frames_low`, below which nothing takes the short ways.
pub const FRAMES: u32 = 1024;

pub fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

pub fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

pub fn owned() -> Config {
    let mut config = Config {
        mode: Mode::Owned,
        addresses: vec![(OURS.into(), 24)],
        mac: OUR_MAC,
        ..Config::default()
    };
    config.neighbor.announce = false;
    config
}

pub fn raw() -> Config {
    Config { raw_ip: true, ..owned() }
}

pub struct Bed {
    pub stack: Stack,
    pub now: Instant,
}

impl Bed {
    pub fn new(config: Config) -> Self {
        Self::with_pool(config, FRAMES, 2048)
    }

    pub fn with_pool(config: Config, frames: u32, capacity: u16) -> Self {
        let mut stack = Stack::new(config, Pool::heap(frames, capacity), 1);
        let now = Instant::from_nanos(1_000_000_000);
        stack.turn(now);
        Self { stack, now }
    }

    /// Puts a received frame in, at an offset as drivers do, in several frames if
    /// it is large.
    pub fn put(&mut self, bytes: &[u8]) {
        let pool = &mut self.stack.core.pool;
        let mut frames = Vec::new();
        let size = pool.arena().capacity() - 64;
        for part in bytes.chunks(size) {
            let mut frame = pool.alloc().expect("the bench has frames");
            frame.set_range(64, part.len());
            pool.bytes_mut(&mut frame).copy_from_slice(part);
            frames.push(frame);
        }
        let mut frames = frames.into_iter();
        let head = frames.next().unwrap();
        let rest: Vec<_> = frames.collect();
        let rest = (!rest.is_empty()).then(|| Box::new(rest));
        let mut batch = Batch::new();
        batch.push(Packet { head, rest });
        self.stack.receive(self.now, &mut batch);
        self.stack.assert_conserved();
    }

    /// What the stack sends now.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.stack.turn(self.now);
        let core = &mut self.stack.core;
        let mut out: Vec<Vec<u8>> = Vec::new();
        let mut goes_on = false;
        while let Some(desc) = core.tx.pop() {
            let bytes = core.pool.tx_bytes(&desc).to_vec();
            match out.last_mut() {
                Some(packet) if goes_on => packet.extend(bytes),
                _ => out.push(bytes),
            }
            goes_on = desc.more;
            core.pool.complete(desc.index());
        }
        self.stack.assert_conserved();
        out
    }

    /// The one packet that the stack sends now.
    pub fn one(&mut self) -> Vec<u8> {
        let mut out = self.take();
        assert_eq!(out.len(), 1, "one packet, not {out:x?}");
        out.pop().unwrap()
    }

    pub fn wait(&mut self, d: Duration) {
        self.now += d;
        self.stack.turn(self.now);
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.stack.core.counters.dropped(reason)
    }

    /// Puts a frame in and expects it to be dropped for a reason, without answer.
    pub fn refused(&mut self, bytes: &[u8], reason: DropReason) {
        let before = self.drops(reason);
        self.put(bytes);
        assert_eq!(self.drops(reason), before + 1, "{reason:?}: {:?}", self.all_drops());
        assert_eq!(self.take(), Vec::<Vec<u8>>::new(), "{reason:?}");
    }

    pub fn all_drops(&self) -> Vec<(DropReason, u64)> {
        self.stack.core.counters.drops().filter(|(_, n)| *n > 0).collect()
    }

    /// Makes the peer known.
    pub fn learn_peer(&mut self) {
        self.put(&arp(arp::REPLY, PEER_MAC, PEER, OUR_MAC, OURS, OUR_MAC));
    }
}

pub fn eth(dst: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(dst.0);
    frame.extend(PEER_MAC.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

pub fn arp(op: u16, sha: Mac, spa: Ipv4Addr, tha: Mac, tpa: Ipv4Addr, to: Mac) -> Vec<u8> {
    eth(to, ethernet::ARP, arp::Packet::new(op, sha, spa, tha, tpa).as_bytes())
}

/// An IPv4 packet from the peer to us.
pub fn ipv4_in(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_of(PEER, OURS, protocol, 0, payload)
}

pub fn ipv4_of(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
    let h = ipv4::Header::new(src, dst, protocol, payload.len(), 60, 0x10, 7, flags);
    [h.as_bytes(), payload].concat()
}

/// An IPv4 packet with options from the peer to us.
pub fn with_options(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = ipv4_in(ipv4::UDP, payload);
    bytes.splice(20..20, options.iter().copied());
    bytes[0] = 0x45 + (options.len() / 4) as u8;
    let total = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    fix_header(&mut bytes);
    bytes
}

/// Makes a changed IPv4 header's checksum right again.
pub fn fix_header(bytes: &mut [u8]) {
    let len = usize::from(bytes[0] & 15) * 4;
    bytes[10..12].fill(0);
    let sum = checksum::sum(&bytes[..len]).finish();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A UDP datagram with the right checksum.
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(s), IpAddr::V4(d)) = (src.ip(), dst.ip()) else { panic!("IPv4") };
    let len = 8 + payload.len() as u16;
    let mut bytes = Vec::new();
    bytes.extend(src.port().to_be_bytes());
    bytes.extend(dst.port().to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let sum = checksum::pseudo_v4(s.octets(), d.octets(), ipv4::UDP, len);
    let sum = sum.add(checksum::sum(&bytes)).finish();
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An IPv4 packet with a UDP datagram.
pub fn udp_packet(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (addr(src), addr(dst));
    let (IpAddr::V4(s), IpAddr::V4(d)) = (src.ip(), dst.ip()) else { panic!("IPv4") };
    ipv4_of(s, d, ipv4::UDP, 0, &udp(src, dst, payload))
}

pub fn icmp(kind: u8, code: u8, words: (u16, u16), body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; icmpv4::HEADER_LEN + body.len()];
    icmpv4::build(&mut message, kind, code, words.0, words.1, body);
    message
}

/// Cuts an IPv4 packet into fragments of at most `step` payload bytes.
pub fn fragments(packet: &[u8], step: usize) -> Vec<Vec<u8>> {
    let parsed = ipv4::parse(packet).unwrap();
    let (h, payload) = (parsed.header, parsed.payload);
    let cut = |(i, part): (usize, &[u8])| {
        let more = if (i + 1) * step < payload.len() { ipv4::MF } else { 0 };
        ipv4_of(h.source(), h.destination(), h.protocol, (i * step / 8) as u16 | more, part)
    };
    payload.chunks(step).enumerate().map(cut).collect()
}

/// An IPv4 packet that was sent, checked: header, ICMP or UDP checksum.
pub fn sent(bytes: &[u8]) -> (ipv4::Header, Vec<u8>) {
    let p = ipv4::parse(bytes).expect("what is sent is well formed");
    assert_eq!(p.payload.len() + 20, bytes.len());
    if !p.header.is_fragment() {
        match p.header.protocol {
            ipv4::ICMP => assert_eq!(checksum::sum(p.payload).finish(), 0),
            _ => {
                let (h, len) = (p.header, p.payload.len() as u16);
                let pseudo = checksum::pseudo_v4(h.src, h.dst, h.protocol, len);
                assert_eq!(pseudo.add(checksum::sum(p.payload)).finish(), 0);
            }
        }
    }
    (*p.header, p.payload.to_vec())
}
