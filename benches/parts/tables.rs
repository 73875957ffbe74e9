//! What is looked up, waited for and handed over.

use crate::ours::{MESSAGE, Pair, SERVER};
use crate::time::{Duration, Instant};
use crate::wheel::Wheel;
use criterion::{BenchmarkId, Criterion, Throughput};
use ringroad::runtime::ring;
use ringroad::socket::Handle;
use ringroad::stack::tcp::{FlowKey, Keyed};
use std::hint::black_box;
use std::net::IpAddr;

/// Packets of a batch.
const BATCH: usize = 32;

/// The hash of a flow, and a batch of segments of as many connections of so many:
/// the lookup, and what a missed cache line of each connection costs.
pub fn demux(c: &mut Criterion) {
    let mut group = c.benchmark_group("demux");
    let keyed = Keyed::new([7; 16]);
    let [local, remote] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
    let key = FlowKey::new(local, 7, remote, 40_000);
    group.bench_function("hash of a flow", |b| b.iter(|| keyed.flow(black_box(&key))));
    group.throughput(Throughput::Elements(BATCH as u64));
    for connections in [BATCH, 256, 4096, 16_384] {
        let (mut pair, far) = many(connections);
        let mut next = 0;
        group.bench_function(BenchmarkId::new("a batch in, of connections", connections), |b| {
            b.iter_custom(|n| {
                let mut took = std::time::Duration::ZERO;
                for _ in 0..n {
                    for _ in 0..BATCH {
                        // Far apart in memory and time.
                        next = (next + 4999) % connections;
                        pair.far.send_message(far[next]);
                    }
                    pair.far_turn();
                    pair.carry_near(BATCH);
                    assert_eq!(pair.batch.len(), BATCH);
                    let begun = std::time::Instant::now();
                    pair.near_receive();
                    took += begun.elapsed();
                    pair.near.serve();
                    pair.near.sockets.turn(pair.now);
                    pair.carry_far(BATCH);
                    pair.far_receive();
                    assert_eq!(pair.far.drain(), BATCH * MESSAGE, "an answer for each");
                    // New connections acknowledge at once.
                    pair.far_turn();
                    pair.carry_near(64);
                    pair.near_turn();
                }
                took
            });
        });
    }
    group.finish();
}

/// So many connections of the far end to the near one.
fn many(connections: usize) -> (Pair, Vec<Handle>) {
    let mut pair = Pair::new();
    pair.near.listen();
    let mut far = Vec::with_capacity(connections);
    // The last one's ACK, and its acceptance, take two turns more.
    for i in 0..connections + 2 {
        if i < connections {
            let h = pair.far.connect(SERVER);
            pair.far.watch(h);
            far.push(h);
        }
        pair.far_turn();
        pair.carry_near(64);
        pair.near_serves();
        pair.carry_far(64);
        pair.far_receive();
    }
    (pair, far)
}

/// Timers: set, and worked off.
pub fn timers(c: &mut Criterion) {
    const TIMERS: u32 = 10_000;
    let mut group = c.benchmark_group("timer wheel");
    group.throughput(Throughput::Elements(TIMERS.into()));
    let mut now = Instant::ZERO + Duration::from_secs(1);
    let mut wheel = Wheel::new(now);
    let mut woken = Vec::with_capacity(TIMERS as usize);
    for (name, within) in [("within 40 ms", 40_000_000), ("within 2 s", 2_000_000_000), ("within 2 h", 7_200_000_000_000)] {
        group.bench_function(BenchmarkId::new("set and wake", name), |b| {
            b.iter(|| {
                for id in 0..TIMERS {
                    let after = (u64::from(id.wrapping_mul(2_654_435_761)) * within) >> 32;
                    wheel.schedule(id, now + Duration::from_nanos(after));
                }
                now += Duration::from_nanos(within + 2_000_000);
                woken.clear();
                wheel.advance(now, &mut woken);
                assert_eq!(woken.len(), TIMERS as usize);
            });
        });
    }
    group.bench_function("a turn with nothing due", |b| {
        wheel.schedule(1, now + Duration::from_secs(3600));
        b.iter(|| black_box(&wheel).is_due(black_box(now)));
    });
    group.finish();
}

/// Rings between threads, both sides on one: what the calls cost themselves.
pub fn ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("SPSC ring");
    let (mut producer, mut consumer) = ring::ring::<u64>(1024);
    group.bench_function("one in, one out", |b| {
        b.iter(|| {
            producer.push(black_box(7)).expect("room");
            consumer.pop()
        });
    });
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("32 in, 32 out", |b| {
        b.iter(|| {
            assert_eq!(producer.push_batch(&mut (0..BATCH as u64)), BATCH);
            let mut sum = 0;
            while let Some(value) = consumer.take() {
                sum += value;
            }
            consumer.release();
            sum
        });
    });
    group.finish();
}
