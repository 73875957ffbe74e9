//! What congestion control makes of a path: goodput in simulated time over loss
//! and delay, beside what theory says, as docs/goodput.md.
//!
//! `RINGROAD_WRITE_GOODPUT=1 cargo test --test goodput` writes the table.

use ringroad::device::Device;
use ringroad::device::memory::{End, Impairments, MemoryDevice, Wire, WireConfig};
use ringroad::errno::Errno;
use ringroad::frame::{Batch, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Sockets};
use ringroad::stack::{Config, Mode, Stack};
use ringroad::tcp::Algorithm;
use ringroad::time::{Duration, Instant};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// Payload bytes of a segment of 1,500 with timestamps.
const MSS: f64 = 1448.0;
/// Bytes a second that the wire takes, headers included: 50 Mbit/s.
const RATE: u64 = 6_250_000;
/// Simulated time of a flow, and how much of it at the start is not counted.
const SPAN: Duration = Duration::from_secs(20);
const WARM: Duration = Duration::from_secs(4);

/// A path and the flow over it.
struct Flow {
    algorithm: Algorithm,
    rate: u64,
    /// One way.
    delay: Duration,
    loss: f64,
    queue: usize,
    mtu: usize,
    buffer: u32,
    frames: u32,
}

struct Host {
    device: MemoryDevice,
    sockets: Sockets,
    batch: Batch,
}

impl Host {
    fn new(flow: &Flow, device: MemoryDevice, last: u8) -> Self {
        let mut config = Config {
            addresses: vec![([10, 0, 0, last].into(), 24)],
            mac: ringroad::wire::ethernet::Mac([2, 0, 0, 0, 0, last]),
            mode: Mode::Owned,
            mtu: flow.mtu,
            ..Config::default()
        };
        let tcp = &mut config.tcp;
        tcp.options.congestion = flow.algorithm;
        (tcp.max_send_buffer, tcp.max_receive_buffer) = (flow.buffer, flow.buffer);
        (tcp.options.send_buffer, tcp.options.receive_buffer) = (flow.buffer, flow.buffer);
        tcp.out_of_order_segments = flow.frames;
        let frame = (flow.mtu + 64).next_multiple_of(1024) as u16;
        let pool = Pool::heap(flow.frames, frame);
        let sockets = Sockets::new(Stack::new(config, pool, last.into()));
        Self { device, sockets, batch: Batch::new() }
    }

    fn input(&mut self, now: Instant) {
        self.device.reap(&mut self.sockets.stack.core.pool);
        loop {
            self.device.refill(&mut self.sockets.stack.core.pool);
            self.device.receive(&mut self.sockets.stack.core.pool, &mut self.batch);
            if self.batch.is_empty() {
                return;
            }
            self.sockets.receive(now, &mut self.batch);
        }
    }

    fn output(&mut self, now: Instant) {
        self.sockets.turn(now);
        let (pool, queue) = self.sockets.tx();
        self.device.transmit(pool, queue);
        self.device.refill(pool);
    }
}

impl Flow {
    fn over(algorithm: Algorithm, loss: f64, delay: Duration) -> Self {
        let product = (RATE * 2 * delay.as_nanos() / 1_000_000_000) as usize;
        let queue = product.max(128 << 10);
        Self { algorithm, rate: RATE, delay, loss, queue, mtu: 1500, buffer: 4 << 20, frames: 8192 }
    }

    fn wire(&self) -> (Wire, MemoryDevice, MemoryDevice) {
        let ring = self.frames as usize;
        let shape = WireConfig { mtu: self.mtu, tx_ring: ring, rx_ring: ring, ..Default::default() };
        let (wire, mut a, mut b) = Wire::new(shape, 7);
        a.set_mac([2, 0, 0, 0, 0, 1]);
        b.set_mac([2, 0, 0, 0, 0, 2]);
        let back = Impairments { delay: self.delay, ..Impairments::default() };
        let there = Impairments {
            loss: self.loss,
            bytes_per_second: self.rate,
            queue_bytes: self.queue,
            ..back.clone()
        };
        wire.set_impairments(End::A, there);
        wire.set_impairments(End::B, back);
        (wire, a, b)
    }

    /// Bytes a second that the program at the other end got.
    fn run(&self, span: Duration, warm: Duration) -> u64 {
        let (wire, a, b) = self.wire();
        let mut hosts = [Host::new(self, a, 1), Host::new(self, b, 2)];
        let mut now = Instant::ZERO;
        let listener = hosts[1].sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        hosts[1].sockets.bind(listener, SocketAddr::from(([10, 0, 0, 2], 80))).unwrap();
        hosts[1].sockets.listen(listener, 1).unwrap();
        let client = hosts[0].sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        let to = SocketAddr::from(([10, 0, 0, 2], 80));
        assert_eq!(hosts[0].sockets.connect(client, to), Err(Errno::EINPROGRESS));
        let (mut server, mut got, mut cold): (Option<Handle>, u64, u64) = (None, 0, 0);
        let data = vec![7; 256 << 10];
        let mut buf = vec![0; 1 << 20];
        let end = now + span;
        while now < end {
            hosts.iter_mut().for_each(|h| h.input(now));
            while hosts[0].sockets.send(client, &data, 0).is_ok_and(|n| n > 0) {}
            server = server.or_else(|| hosts[1].sockets.accept(listener).ok().map(|a| a.0));
            if let Some(server) = server {
                while let Ok(n) = hosts[1].sockets.recv(server, &mut buf, 0)
                    && n > 0
                {
                    got += n as u64;
                }
            }
            if now < Instant::ZERO + warm {
                cold = got;
            }
            hosts.iter_mut().for_each(|h| h.output(now));
            let timers = hosts.iter().filter_map(|h| h.sockets.next_deadline());
            let next = timers.chain(wire.next_event()).min().unwrap_or(end);
            now = next.max(now + Duration::from_micros(20));
            wire.advance(now);
        }
        (got - cold) * 1_000_000_000 / span.saturating_sub(warm).as_nanos()
    }

    fn link(&self) -> f64 {
        // Preamble and the like are not counted by the wire.
        self.rate as f64 * MSS / 1514.0
    }

    /// What theory says, in bytes a second: no more than the link.
    fn theory(&self) -> f64 {
        let rtt = 2.0 * self.delay.as_nanos() as f64 / 1e9;
        let p = self.loss;
        // Mathis et al.: C is the root of 3/2.
        let reno = 1.5f64.sqrt() / p.sqrt();
        // RFC 9438, 5.1, figure 6, with C of 0.4 and a beta of 0.7.
        let cubic = (0.4f64 * 3.7 / 1.2).powf(0.25) * rtt.powf(0.75) / p.powf(0.75);
        let segments = match self.algorithm {
            Algorithm::Bbr => f64::INFINITY,
            Algorithm::Cubic => cubic.max(reno),
            Algorithm::Reno | Algorithm::Dctcp => reno,
        };
        (segments * MSS / rtt).min(self.link())
    }
}

const HEAD: &str = "\
# Goodput in simulation

Made by `RINGROAD_WRITE_GOODPUT=1 cargo test --test goodput`, which otherwise
compares. One flow of 20 seconds, the first 4 not counted, over 50 Mbit/s with a
queue of a bandwidth-delay product (at least 128 KiB), 1,500 bytes of MTU, random
loss of packets towards the receiver. In Mbit/s of payload; beside it what theory
says: for Reno, and for DCTCP on a path without marks, Mathis' square root of 3/2p
segments a round trip; for CUBIC the larger of that and the response function of
RFC 9438, section 5.1; for BBR, and as a bound for all, the link.

| delay one way | loss | algorithm | goodput | theory | of it |
|---|---|---|---|---|---|
";

#[test]
fn goodput_is_what_theory_says_and_the_table_is_up_to_date() {
    let mut text = HEAD.to_string();
    let mut wrong = Vec::new();
    for ms in [1, 10, 50] {
        for loss in [0.0, 0.0001, 0.001, 0.01] {
            for algorithm in Algorithm::ALL {
                let flow = Flow::over(algorithm, loss, Duration::from_millis(ms));
                let got = flow.run(SPAN, WARM) as f64;
                let share = got / flow.theory();
                let (percent, name) = (loss * 100.0, algorithm.name());
                let (mbit, theory) = (got * 8e-6, flow.theory() * 8e-6);
                let line = format!("| {ms} ms | {percent} % | {name} | {mbit:.2} | {theory:.2} | {share:.2} |");
                writeln!(text, "{line}").unwrap();
                if !factors(algorithm).contains(&share) {
                    wrong.push(line);
                }
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/goodput.md");
    if std::env::var_os("RINGROAD_WRITE_GOODPUT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "docs/goodput.md is not what comes out:\n{text}");
}

/// Theory is for large windows and losses at even distances, without time-outs and
/// delayed ACKs: it holds to a quarter. The link is a bound.
fn factors(algorithm: Algorithm) -> std::ops::RangeInclusive<f64> {
    match algorithm {
        Algorithm::Bbr => 0.9..=1.0,
        _ => 0.8..=1.25,
    }
}

#[test]
fn one_flow_fills_ten_gigabits_over_fifty_milliseconds() {
    let flow = Flow {
        algorithm: Algorithm::Cubic,
        rate: 1_250_000_000,
        delay: Duration::from_millis(25),
        loss: 0.0,
        queue: 64 << 20,
        mtu: 9000,
        buffer: 192 << 20,
        frames: 32_768,
    };
    let got = flow.run(Duration::from_secs(3), Duration::from_secs(2));
    assert!(got > 1_125_000_000, "{got} bytes a second");
}
