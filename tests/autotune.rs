//! One flow over a simulated road of 10 Gbit/s and 50 ms: the buffers grow until
//! it is full.

use ringroad::errno::Errno;
use ringroad::frame::{Batch, Packet, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Sockets};
use ringroad::stack::{Config, Mode, Stack};
use ringroad::time::{Duration, Instant};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

const MTU: usize = 9000;
/// Bytes a tick of 100 us at 10 Gbit/s.
const TICK: Duration = Duration::from_micros(100);
const BYTES: usize = 125_000;
const ONE_WAY: Duration = Duration::from_millis(25);

fn host(n: u8, frames: u32, change: impl Fn(&mut Config)) -> Sockets {
    let mut config = Config {
        mode: Mode::Owned,
        addresses: vec![(IpAddr::from([10, 0, 0, n]), 24)],
        raw_ip: true,
        mtu: MTU,
        transmit_queue: 1 << 16,
        ..Config::default()
    };
    config.tcp.max_receive_buffer = 160 << 20;
    config.tcp.max_send_buffer = 160 << 20;
    config.tcp.tune_share = 160;
    change(&mut config);
    Sockets::new(Stack::new(config, Pool::heap(frames, 9216), n.into()))
}

/// A direction of the road.
#[derive(Default)]
struct Lane(VecDeque<(Instant, Vec<u8>)>);

impl Lane {
    fn load(&mut self, from: &mut Sockets, now: Instant) {
        let (pool, queue) = from.tx();
        let mut sent = 0;
        while sent < BYTES {
            let Some(desc) = queue.pop() else { break };
            let bytes = pool.tx_bytes(&desc).to_vec();
            pool.complete(desc.index());
            sent += bytes.len();
            self.0.push_back((now + ONE_WAY, bytes));
        }
    }

    fn unload(&mut self, to: &mut Sockets, now: Instant) {
        while self.0.front().is_some_and(|(at, _)| *at <= now) {
            let mut batch = Batch::new();
            while batch.remaining_capacity() > 0
                && self.0.front().is_some_and(|(at, _)| *at <= now)
                && let Some((_, bytes)) = self.0.pop_front()
            {
                let mut frame = to.stack.core.pool.alloc().expect("a frame");
                to.stack.core.pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
                frame.set_range(0, bytes.len());
                batch.push(Packet::single(frame));
            }
            to.receive(now, &mut batch);
        }
    }
}

struct Road {
    a: Sockets,
    b: Sockets,
    there: Lane,
    back: Lane,
    now: Instant,
}

impl Road {
    fn tick(&mut self) {
        for host in [&mut self.a, &mut self.b] {
            host.turn(self.now);
            // A tick is long: what a connection left for the next turn, which is due at
            // once, leaves in this one.
            while host.has_more_to_send() {
                host.turn(self.now);
            }
        }
        self.there.load(&mut self.a, self.now);
        self.back.load(&mut self.b, self.now);
        self.now += TICK;
        self.there.unload(&mut self.b, self.now);
        self.back.unload(&mut self.a, self.now);
    }

    fn open(change: impl Fn(&mut Config)) -> (Self, Handle, Handle) {
        let now = Instant::ZERO + Duration::from_secs(1);
        let (a, b) = (host(1, 24_000, &change), host(2, 24_000, &change));
        let mut road = Self { a, b, there: Lane::default(), back: Lane::default(), now };
        let listener = road.b.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        road.b.bind(listener, SocketAddr::from(([0, 0, 0, 0], 80))).unwrap();
        road.b.listen(listener, 1).unwrap();
        let client = road.a.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        let to = SocketAddr::from(([10, 0, 0, 2], 80));
        assert_eq!(road.a.connect(client, to), Err(Errno::EINPROGRESS));
        let server = loop {
            road.tick();
            if let Ok((server, _)) = road.b.accept(listener) {
                break server;
            }
        };
        (road, client, server)
    }

    /// Bytes that arrive in so many milliseconds.
    fn run(&mut self, client: Handle, server: Handle, ms: u64, buf: &mut [u8]) -> u64 {
        let (mut got, end) = (0, self.now + Duration::from_millis(ms));
        while self.now < end {
            while self.a.send(client, buf, 0).is_ok() {}
            self.tick();
            while let Ok(n) = self.b.recv(server, buf, 0) {
                got += n as u64;
            }
        }
        got
    }
}

fn size(s: &mut Sockets, h: Handle, name: i32) -> usize {
    let mut out = [0; 4];
    s.get_option(h, SOL_SOCKET, name, &mut out).unwrap();
    i32::from_ne_bytes(out) as usize
}

#[test]
fn one_flow_fills_ten_gigabits_at_fifty_milliseconds() {
    let (mut road, client, server) = Road::open(|_| ());
    let mut buf = vec![7; 1 << 18];
    assert!(size(&mut road.b, server, SO_RCVBUF) <= 128 << 10, "it begins small");
    road.run(client, server, 1500, &mut buf);
    let got = road.run(client, server, 500, &mut buf);
    // Of 625 MB, headers included.
    let part = got as f64 / 625e6;
    let (snd, rcv) = (size(&mut road.a, client, SO_SNDBUF), size(&mut road.b, server, SO_RCVBUF));
    eprintln!("{:.1} % of the link; send buffer {snd}, receive buffer {rcv}", 100.0 * part);
    assert!(part >= 0.9, "{part:.3} of the link, buffers {snd} and {rcv}");
    assert!(rcv >= 62_500_000 && snd >= 62_500_000);
}

#[test]
fn a_size_that_the_program_set_stays() {
    let (mut road, client, server) = Road::open(|c| {
        c.tcp.options.tune_send = true;
    });
    let mut buf = vec![7; 1 << 18];
    let bytes = (200_000i32).to_ne_bytes();
    road.b.set_option(server, SOL_SOCKET, SO_RCVBUF, &bytes).unwrap();
    road.a.set_option(client, SOL_SOCKET, SO_SNDBUF, &bytes).unwrap();
    let got = road.run(client, server, 600, &mut buf);
    // A window of 200,000 bytes each 50 ms.
    assert!(got <= 13 * 200_000, "{got}");
    assert_eq!(size(&mut road.b, server, SO_RCVBUF), 400_000);
}

#[test]
fn no_connection_grows_beyond_its_part_of_the_pool() {
    let (mut road, client, server) = Road::open(|c| c.tcp.tune_share = 8);
    let mut buf = vec![7; 1 << 18];
    road.run(client, server, 800, &mut buf);
    let most = 24_000 * 8 / 256 * 8960;
    let (snd, rcv) = (size(&mut road.a, client, SO_SNDBUF), size(&mut road.b, server, SO_RCVBUF));
    assert!(snd <= most && rcv <= most && rcv > 1 << 20, "{snd} {rcv} of {most}");
}
