//! Packets taken apart, and a connection without its table: segments in and out.

use criterion::{Criterion, Throughput};
use ringroad::frame::{Packet, Pool, TxDesc, TxQueue};
use ringroad::rng::Rng;
use ringroad::tcp::isn::Initial;
use ringroad::tcp::{Config, Connection, Disposition, Env, Flush, Link, State, Template};
use ringroad::telemetry::Counters;
use ringroad::time::{Duration, Instant};
use ringroad::wire::ethernet::Mac;
use ringroad::wire::tcp::Segment;
use ringroad::wire::{ethernet, ipv4, tcp, udp};
use std::hint::black_box;
use std::net::SocketAddr;

/// Segments of a burst.
const BURST: usize = 32;
/// Bytes of a full segment's payload.
const FULL: usize = 1448;

/// One end: a connection and what surrounds it.
struct End {
    conn: Option<Connection>,
    pool: Pool,
    tx: TxQueue,
    counters: Counters,
    config: Config,
    rng: Rng,
    now: Instant,
}

/// A segment as IP input hands it on.
fn segment(bytes: &[u8]) -> (Segment, usize) {
    let (_, packet) = ethernet::parse(bytes).expect("a header");
    let ip = ipv4::parse(packet).expect("IPv4");
    let segment = tcp::parse(ip.payload).expect("TCP");
    let before = ethernet::HEADER_LEN + ip.header.header_len() + segment.header_len;
    (segment, before)
}

impl End {
    fn new() -> Self {
        Self {
            conn: None,
            pool: Pool::heap(1024, 2048),
            tx: TxQueue::new(512),
            counters: Counters::default(),
            config: Config::default(),
            rng: Rng::new(5),
            now: Instant::ZERO + Duration::from_secs(1),
        }
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Option<Connection>, &mut Env) -> R) -> R {
        let Self { conn, pool, tx, counters, config, rng, now } = self;
        f(conn, &mut Env { now: *now, pool, tx, counters, config, rng })
    }

    /// Connects, or answers a SYN.
    fn begin(&mut self, host: u8, syn: Option<&Segment>) {
        let at = |host| SocketAddr::from(([10, 0, 0, host], 7));
        let mac = |host| Mac([2, 0, 0, 0, 0, host]);
        let link = Link::Ethernet { src: mac(host), dst: mac(3 - host) };
        let template = Template::new(link, at(host), at(3 - host), 64, 0);
        let initial = Initial { iss: 1000, ts_offset: 0 };
        self.with(|conn, env| {
            let options = env.config.options.clone();
            let mut new = match syn {
                None => Connection::connect(env, template, &options, initial, 1500),
                Some(syn) => Connection::accept(env, template, &options, initial, 1500, syn),
            };
            new.set_path(Some(mac(3 - host)));
            *conn = Some(new);
        });
    }

    fn flush(&mut self) {
        self.with(|conn, env| {
            let conn = conn.as_mut().expect("a connection");
            assert_eq!(conn.flush(env), Flush::Done);
        });
    }

    fn send(&mut self, data: &[u8]) {
        self.with(|conn, env| {
            let conn = conn.as_mut().expect("a connection");
            assert_eq!(conn.send(env, data), data.len());
        });
    }

    /// Takes prepared segments in.
    fn input(&mut self, arrivals: &mut Vec<(Segment, Option<Packet>)>) {
        self.with(|conn, env| {
            let conn = conn.as_mut().expect("a connection");
            for (segment, packet) in arrivals.drain(..) {
                let Disposition { .. } = conn.input(env, &segment, packet);
            }
        });
    }

    fn read(&mut self, out: &mut [u8]) -> usize {
        self.with(|conn, env| conn.as_mut().expect("a connection").recv(env, out, false))
    }

    /// A segment in a frame of this end's.
    fn arrival(&mut self, bytes: &[u8]) -> (Segment, Option<Packet>) {
        let (segment, before) = segment(bytes);
        if segment.payload_len == 0 {
            return (segment, None);
        }
        let mut frame = self.pool.alloc().expect("frames enough");
        self.pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_range(before, segment.payload_len);
        (segment, Some(Packet::single(frame)))
    }
}

/// What left one end, ready for the other's input.
fn cross(from: &mut End, to: &mut End) -> Vec<(Segment, Option<Packet>)> {
    let left: Vec<TxDesc> = std::iter::from_fn(|| from.tx.pop()).collect();
    let arrivals = left.into_iter().map(|desc| {
        let arrival = to.arrival(from.pool.tx_bytes(&desc));
        from.pool.complete(desc.index());
        arrival
    });
    arrivals.collect()
}

/// What left one end arrives at the other.
fn deliver(from: &mut End, to: &mut End) {
    let mut arrivals = cross(from, to);
    to.input(&mut arrivals);
}

/// Lets everything that waits cross, and time pass.
fn settle(a: &mut End, b: &mut End) {
    for _ in 0..4 {
        a.flush();
        deliver(a, b);
        b.flush();
        deliver(b, a);
    }
    a.now += Duration::from_millis(1);
    b.now = a.now;
}

/// Two established connections, the first's congestion window open.
fn pair() -> (End, End) {
    let (mut a, mut b) = (End::new(), End::new());
    a.begin(1, None);
    a.flush();
    let syn = cross(&mut a, &mut b).pop().expect("a SYN").0;
    b.begin(2, Some(&syn));
    b.flush();
    deliver(&mut b, &mut a);
    let mut out = vec![0; BURST * FULL];
    for _ in 0..100 {
        a.send(&out);
        let mut read = 0;
        while read < out.len() {
            settle(&mut a, &mut b);
            read += b.read(&mut out);
        }
        settle(&mut a, &mut b);
    }
    let established = |end: &End| end.conn.as_ref().is_some_and(|c| c.state() == State::Established);
    assert!(established(&a) && established(&b));
    (a, b)
}

/// Runs `n` rounds of which `part` is what is timed.
fn rounds(n: u64, mut round: impl FnMut(&mut dyn FnMut(&mut dyn FnMut()))) -> std::time::Duration {
    let mut took = std::time::Duration::ZERO;
    for _ in 0..n {
        round(&mut |part| {
            let begun = std::time::Instant::now();
            part();
            took += begun.elapsed();
        });
    }
    took
}

/// Headers of one packet, checked: Ethernet, IPv4 with its checksum, and TCP with
/// its options, or UDP.
pub fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let (mut a, mut b) = pair();
    a.send(&[7; 64]);
    a.flush();
    let desc = a.tx.pop().expect("a segment");
    let bytes = a.pool.tx_bytes(&desc).to_vec();
    a.pool.complete(desc.index());
    group.bench_function("TCP", |b| b.iter(|| segment(black_box(&bytes))));
    let mut arrivals = vec![b.arrival(&bytes)];
    b.input(&mut arrivals);
    let ends = [[10, 0, 0, 1], [10, 0, 0, 2]];
    let mut datagram = [7; udp::HEADER_LEN + 64];
    let pseudo = ringroad::wire::checksum::pseudo_v4(ends[0], ends[1], ipv4::UDP, datagram.len() as u16);
    udp::build(&mut datagram, 40_000, 7, pseudo, &[7; 64]);
    let header = ipv4::Header::new(ends[0].into(), ends[1].into(), ipv4::UDP, datagram.len(), 64, 0, 7, ipv4::DF);
    let bytes = [&bytes[..ethernet::HEADER_LEN], zerocopy::IntoBytes::as_bytes(&header), &datagram].concat();
    group.bench_function("UDP", |b| {
        b.iter(|| {
            let (_, packet) = ethernet::parse(black_box(&bytes)).expect("a header");
            let ip = ipv4::parse(packet).expect("IPv4");
            udp::parse(ip.payload).expect("UDP").1.len()
        });
    });
    group.finish();
}

/// Bursts of full segments, and of the ACKs for them.
pub fn input(c: &mut Criterion) {
    let mut group = c.benchmark_group("TCP input");
    let (mut a, mut b) = pair();
    let mut data = vec![7; BURST * FULL];
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("32 full segments", |bench| {
        bench.iter_custom(|n| {
            rounds(n, |time| {
                a.send(&data);
                a.flush();
                let mut arrivals = cross(&mut a, &mut b);
                assert_eq!(arrivals.len(), BURST);
                time(&mut || b.input(&mut arrivals));
                assert_eq!(b.read(&mut data), BURST * FULL);
                settle(&mut a, &mut b);
            })
        });
    });
    group.throughput(Throughput::Elements(BURST as u64 / 2));
    group.bench_function("16 ACKs of two segments each", |bench| {
        bench.iter_custom(|n| {
            rounds(n, |time| {
                a.send(&data);
                a.flush();
                let mut arrivals = cross(&mut a, &mut b);
                let mut acks = Vec::new();
                while !arrivals.is_empty() {
                    b.input(&mut arrivals.drain(..2).collect());
                    b.read(&mut data);
                    b.flush();
                    acks.extend(cross(&mut b, &mut a));
                }
                assert_eq!(acks.len(), BURST / 2);
                time(&mut || a.input(&mut acks));
                settle(&mut a, &mut b);
            })
        });
    });
    group.finish();
}

/// Bursts of full segments: written by the program, and put on the transmit queue.
pub fn output(c: &mut Criterion) {
    let mut group = c.benchmark_group("TCP output");
    let (mut a, mut b) = pair();
    let mut data = vec![7; BURST * FULL];
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, writing) in [("32 full segments written", true), ("32 full segments flushed", false)] {
        group.bench_function(name, |bench| {
            bench.iter_custom(|n| {
                rounds(n, |time| {
                    if writing {
                        time(&mut || a.send(&data));
                        a.flush();
                    } else {
                        a.send(&data);
                        time(&mut || a.flush());
                    }
                    deliver(&mut a, &mut b);
                    assert_eq!(b.read(&mut data), BURST * FULL);
                    settle(&mut a, &mut b);
                })
            });
        });
    }
    group.finish();
}
