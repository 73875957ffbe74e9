//! A stack with a listener on port 80, and an attacker at the other end of its
//! wire who can write any packet.

use ringroad::frame::{Batch, Packet, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Sockets};
use ringroad::stack::{Config, Mode, Stack};
use ringroad::telemetry::{Counters, DropReason};
use ringroad::time::{Duration, Instant};
use ringroad::wire::tcp::{self, Flags, Options, Order, Segment};
use ringroad::wire::{checksum, ipv4};
use std::net::{Ipv4Addr, SocketAddr};
use zerocopy::IntoBytes;

pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const PORT: u16 = 80;

pub const SYN: Flags = Flags::SYN;
pub const ACK: Flags = Flags::ACK;
pub const RST: Flags = Flags::RST;
pub const FIN: Flags = Flags::FIN;
pub const PSH: Flags = Flags::PSH;

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A segment that left, with its data.
#[derive(Clone, Debug)]
pub struct Out {
    pub seg: Segment,
    pub data: Vec<u8>,
}

/// A segment from the peer's port 4000.
pub fn seg(flags: Flags, seq: u32, ack: u32) -> Segment {
    Segment {
        ce: false,
        src_port: 4000,
        dst_port: PORT,
        seq,
        ack,
        flags,
        window: 60_000,
        urgent: 0,
        options: Options::default(),
        header_len: 0,
        payload_len: 0,
    }
}

/// What a modern SYN offers.
pub fn modern(time: u32) -> Options {
    Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamp: Some((time, 0)),
        ..Default::default()
    }
}

/// The peer's side of an open connection.
#[derive(Clone, Debug)]
pub struct Conn {
    pub h: Handle,
    pub port: u16,
    pub seq: u32,
    pub ack: u32,
    /// Their timestamp and our last one, where in use.
    pub time: Option<(u32, u32)>,
}

impl Conn {
    pub fn seg(&self, flags: Flags) -> Segment {
        let options = Options { timestamp: self.time, ..Default::default() };
        Segment { src_port: self.port, options, ..seg(flags, self.seq, self.ack) }
    }
}

pub struct Bed {
    pub sockets: Sockets,
    pub listener: Handle,
    pub now: Instant,
}

impl Bed {
    pub fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_frames(4096, change)
    }

    pub fn with_frames(frames: u32, change: impl FnOnce(&mut Config)) -> Self {
        Self::make(frames, 1, change)
    }

    pub fn seeded(seed: u64) -> Self {
        Self::make(4096, seed, |_| ())
    }

    fn make(frames: u32, seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            mode: Mode::Owned,
            raw_ip: true,
            addresses: vec![(OURS.into(), 24)],
            ..Default::default()
        };
        change(&mut config);
        let mut sockets = Sockets::new(Stack::new(config, Pool::heap(frames, 2048), seed));
        let listener = sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        sockets.bind(listener, SocketAddr::new(OURS.into(), PORT)).unwrap();
        sockets.listen(listener, 8).unwrap();
        let now = Instant::from_nanos(1_000_000_000);
        let mut bed = Self { sockets, listener, now };
        bed.sockets.turn(now);
        bed
    }

    pub fn counters(&self) -> &Counters {
        &self.sockets.stack.core.counters
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.counters().dropped(reason)
    }

    pub fn connections(&self) -> usize {
        self.sockets.stack.tcp.connections()
    }

    pub fn set(&mut self, h: Handle, level: i32, name: i32, value: i32) {
        self.sockets.set_option(h, level, name, &value.to_ne_bytes()).unwrap();
    }

    pub fn get(&mut self, h: Handle, level: i32, name: i32) -> i32 {
        let mut out = [0; 4];
        self.sockets.get_option(h, level, name, &mut out).unwrap();
        i32::from_ne_bytes(out)
    }

    /// An IP packet comes in.
    pub fn packet(&mut self, bytes: &[u8]) {
        let pool = &mut self.sockets.stack.core.pool;
        let mut frame = pool.alloc().expect("a frame for what comes in");
        frame.set_range(64, bytes.len());
        pool.bytes_mut(&mut frame).copy_from_slice(bytes);
        let mut batch = Batch::new();
        batch.push(Packet::single(frame));
        self.sockets.receive(self.now, &mut batch);
    }

    pub fn put_from(&mut self, src: Ipv4Addr, segment: &Segment, payload: &[u8]) {
        let mut out = vec![0; tcp::MAX_HEADER_LEN + payload.len()];
        let options = segment.options.encode(Order::Linux).len();
        let len = (tcp::HEADER_LEN + options + payload.len()) as u16;
        let pseudo = checksum::pseudo_v4(src.octets(), OURS.octets(), ipv4::TCP, len);
        let len = tcp::build(&mut out, segment, Order::Linux, pseudo, payload);
        let h = ipv4::Header::new(src, OURS, ipv4::TCP, len, 64, 0, 7, 0);
        self.packet(&[h.as_bytes(), &out[..len]].concat());
    }

    pub fn put(&mut self, segment: &Segment, payload: &[u8]) {
        self.put_from(PEER, segment, payload);
    }

    /// What the stack sends now.
    pub fn take(&mut self) -> Vec<Out> {
        self.sockets.turn(self.now);
        let core = &mut self.sockets.stack.core;
        let mut out = Vec::new();
        while let Some(desc) = core.tx.pop() {
            let packet = ipv4::parse(core.pool.tx_bytes(&desc)).unwrap();
            if packet.header.protocol == ipv4::TCP {
                let seg = tcp::parse(packet.payload).unwrap();
                out.push(Out { data: packet.payload[seg.header_len..].to_vec(), seg });
            }
            core.pool.complete(desc.index());
        }
        self.sockets.stack.assert_conserved();
        out
    }

    #[track_caller]
    pub fn one(&mut self) -> Out {
        let mut out = self.take();
        assert_eq!(out.len(), 1, "one segment, not {out:?}");
        out.remove(0)
    }

    #[track_caller]
    pub fn silent(&mut self) {
        let out = self.take();
        assert!(out.is_empty(), "{out:?}");
    }

    /// Lets time go by in small steps; what is sent on the way is returned.
    pub fn wait(&mut self, time: Duration) -> Vec<Out> {
        let end = self.now + time;
        let mut out = Vec::new();
        while let Some(next) = self.sockets.next_deadline().filter(|at| *at <= end) {
            self.now = next.max(self.now + Duration::from_micros(1)).min(end);
            out.extend(self.take());
            if self.now == end {
                break;
            }
        }
        self.now = end;
        out.extend(self.take());
        out
    }

    /// A handshake from `port`; the connection is not accepted yet.
    pub fn handshake(&mut self, port: u16, options: Options) -> Conn {
        self.take();
        let theirs = options.timestamp;
        let syn = Segment { src_port: port, options, ..seg(SYN, 999, 0) };
        self.put(&syn, b"");
        let answer = self.one().seg;
        assert_eq!((answer.flags, answer.ack), (SYN | ACK, 1000));
        let time = theirs.zip(answer.options.timestamp).map(|(a, b)| (a.0, b.0));
        let conn = Conn { h: self.listener, port, seq: 1000, ack: answer.seq.wrapping_add(1), time };
        self.put(&conn.seg(ACK), b"");
        conn
    }

    /// An accepted connection.
    pub fn open(&mut self, port: u16, options: Options) -> Conn {
        let conn = self.handshake(port, options);
        let (h, _) = self.sockets.accept(self.listener).unwrap();
        self.take();
        Conn { h, ..conn }
    }

    /// A field of TCP_INFO.
    pub fn info(&mut self, h: Handle, at: usize) -> u32 {
        let mut out = [0; 248];
        self.sockets.get_option(h, IPPROTO_TCP, TCP_INFO, &mut out).unwrap();
        u32::from_ne_bytes(out[at..at + 4].try_into().unwrap())
    }

    /// The congestion window in segments.
    pub fn window(&mut self, h: Handle) -> u32 {
        self.info(h, 80)
    }

    /// Timestamps, SACK and window scaling; then both scales.
    pub fn agreed(&mut self, h: Handle) -> (u8, u8) {
        let bytes = self.info(h, 4).to_ne_bytes();
        (bytes[1] & 7, bytes[2])
    }
}
