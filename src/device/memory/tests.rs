use super::*;
use crate::frame::{Arena, Frame};

const MS: Duration = Duration::from_millis(1);

/// Two ends with a pool each.
struct Bed {
    wire: Wire,
    a: MemoryDevice,
    b: MemoryDevice,
    pool_a: Pool,
    pool_b: Pool,
    queue: TxQueue,
}

fn bed(config: WireConfig, seed: u64) -> Bed {
    let (wire, a, b) = Wire::new(config, seed);
    let (pool_a, pool_b) = (Pool::heap(256, 2048), Pool::heap(256, 2048));
    Bed { wire, a, b, pool_a, pool_b, queue: TxQueue::new(256) }
}

impl Bed {
    fn send(&mut self, bytes: &[u8]) {
        let mut frame = self.pool_a.alloc().unwrap();
        frame.set_range(0, bytes.len());
        self.pool_a.bytes_mut(&mut frame).copy_from_slice(bytes);
        self.queue.push(self.pool_a.transmit_and_free(frame, bytes.len()));
        self.a.transmit(&mut self.pool_a, &mut self.queue);
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        loop {
            let mut batch = Batch::new();
            self.b.refill(&mut self.pool_b);
            self.b.receive(&mut self.pool_b, &mut batch);
            if batch.is_empty() {
                break;
            }
            for packet in batch {
                let frames = std::iter::once(&packet.head).chain(packet.rest.iter().flat_map(|r| r.iter()));
                got.push(frames.flat_map(|f: &Frame| self.pool_b.bytes(f).to_vec()).collect());
                packet.free(&mut self.pool_b);
            }
        }
        self.a.reap(&mut self.pool_a);
        self.pool_a.assert_conserved();
        self.pool_b.assert_conserved();
        got
    }
}

fn with(both: Impairments) -> WireConfig {
    WireConfig { both, ..Default::default() }
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

#[test]
fn a_perfect_wire_gives_what_it_was_given_in_order() {
    let mut bed = bed(WireConfig::default(), 1);
    let sent: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; 60 + usize::from(i)]).collect();
    for bytes in &sent {
        bed.send(bytes);
    }
    assert_eq!(bed.receive(), sent);
    assert_eq!(bed.wire.next_event(), None);
    assert_eq!(bed.pool_a.available(), 256);
}

#[test]
fn delay_holds_packets_back() {
    let mut bed = bed(with(Impairments { delay: Duration::from_millis(3), ..Default::default() }), 1);
    bed.send(&[1; 60]);
    assert_eq!(bed.wire.next_event(), Some(at(0)), "the completion");
    assert!(bed.receive().is_empty());
    assert_eq!(bed.wire.next_event(), Some(at(3)));
    bed.wire.advance(at(3));
    assert_eq!(bed.receive().len(), 1);
}

fn many(impairments: Impairments, seed: u64) -> (Vec<Vec<u8>>, LinkCounts) {
    let mut bed = bed(with(impairments), seed);
    let mut got = Vec::new();
    for i in 0..2000u32 {
        bed.wire.advance(at(u64::from(i)));
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&i.to_be_bytes());
        bed.send(&bytes);
        got.extend(bed.receive());
    }
    bed.wire.advance(at(10_000));
    got.extend(bed.receive());
    assert_eq!(bed.wire.in_flight(), 0);
    (got, bed.wire.counts(End::A))
}

#[test]
fn every_impairment_happens_about_as_often_as_asked_for() {
    let about = |n: u64| (120..=280).contains(&n);
    let (got, c) = many(Impairments { loss: 0.1, ..Default::default() }, 3);
    assert!(about(c.lost) && got.len() as u64 == 2000 - c.lost, "{c:?}");
    let (got, c) = many(Impairments { duplicate: 0.1, ..Default::default() }, 3);
    assert!(about(c.duplicated) && got.len() as u64 == 2000 + c.duplicated, "{c:?}");
    let (got, c) = many(Impairments { reorder: 0.1, ..Default::default() }, 3);
    let turned = got.windows(2).filter(|w| w[0] > w[1]).count();
    assert!(about(c.reordered) && got.len() == 2000 && turned > 50, "{c:?} {turned}");
    let (got, c) = many(Impairments { corrupt: 0.1, ..Default::default() }, 3);
    let plain = (0..2000u32).zip(&got).filter(|(i, g)| g[..4] == i.to_be_bytes() && g[4..].iter().all(|b| *b == 0));
    assert!(about(c.corrupted) && plain.count() as u64 == 2000 - c.corrupted, "{c:?}");
    let (got, c) = many(Impairments { truncate: 0.1, ..Default::default() }, 3);
    let short = got.iter().filter(|g| g.len() < 64).count() as u64;
    assert!(about(c.truncated) && short == c.truncated, "{c:?}");
}

#[test]
fn jitter_alone_keeps_the_order() {
    let jitter = Impairments { jitter: Duration::from_millis(20), delay: MS, ..Default::default() };
    let (got, _) = many(jitter, 9);
    assert!(got.len() == 2000 && got.is_sorted());
}

#[test]
fn the_same_seed_gives_the_same_fate_and_another_another() {
    let bad = Impairments { loss: 0.1, duplicate: 0.1, reorder: 0.1, corrupt: 0.1, ..Default::default() };
    assert_eq!(many(bad.clone(), 5), many(bad.clone(), 5));
    assert_ne!(many(bad.clone(), 5).0, many(bad, 6).0);
}

#[test]
fn a_slow_wire_takes_its_time_and_its_queue_is_bounded() {
    let slow = Impairments { bytes_per_second: 1_000_000, queue_bytes: 10_000, ..Default::default() };
    let mut bed = bed(with(slow), 1);
    for _ in 0..20 {
        bed.send(&[7; 1000]); // a millisecond each
    }
    assert_eq!(bed.wire.counts(End::A).queue_full, 10);
    for ms in 1..=10 {
        assert!(bed.receive().is_empty());
        bed.wire.advance(at(ms));
        assert_eq!(bed.receive().len(), 1, "one a millisecond");
    }
    bed.wire.advance(at(100));
    assert!(bed.receive().is_empty());
}

#[test]
fn frames_stay_pending_until_the_completion() {
    let mut bed = bed(WireConfig { completion_delay: MS, tx_ring: 4, ..Default::default() }, 1);
    for _ in 0..6 {
        bed.send(&[1; 60]);
    }
    assert_eq!(bed.queue.len(), 2, "the ring holds four");
    bed.receive();
    assert_eq!(bed.pool_a.counts().tx, 6);
    bed.wire.advance(at(1));
    assert_eq!(bed.wire.next_event(), Some(at(1)));
    bed.receive();
    assert_eq!(bed.pool_a.counts().tx, 2);
    bed.a.transmit(&mut bed.pool_a, &mut bed.queue);
    bed.wire.advance(at(2));
    bed.receive();
    assert_eq!(bed.pool_a.counts().tx, 0);
    assert_eq!(bed.wire.counts(End::A).delivered, 6);
}

#[test]
#[should_panic(expected = "rewritten while its transmission was pending")]
fn a_pending_frame_that_is_rewritten_is_noticed() {
    let (wire, mut a, _) = Wire::new(WireConfig { completion_delay: MS, ..Default::default() }, 1);
    let mut pool = Pool::heap(4, 128);
    let mut queue = TxQueue::new(4);
    let mut frame = pool.alloc().unwrap();
    queue.push(pool.transmit(&frame, 64));
    a.transmit(&mut pool, &mut queue);
    pool.arena().buffer_mut(&mut frame)[7] = 1;
    wire.advance(at(1));
    a.reap(&mut pool);
}

#[test]
fn nobody_looks_and_the_ring_overflows() {
    let mut bed = bed(WireConfig { rx_ring: 8, ..Default::default() }, 1);
    for i in 0..20 {
        bed.send(&[i; 60]);
    }
    bed.wire.advance(at(1));
    let got = bed.receive();
    assert_eq!(got.iter().map(|g| g[0]).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>(), "the newest are lost");
    assert_eq!(bed.wire.counts(End::A).ring_full, 12);
}

#[test]
fn an_empty_pool_leaves_packets_waiting() {
    let (wire, _, mut b) = Wire::new(WireConfig::default(), 1);
    let mut pool = Pool::heap(2, 2048);
    let held = pool.alloc().unwrap();
    wire.send(End::A, &[1; 60]);
    wire.send(End::A, &[2; 60]);
    let mut batch = Batch::new();
    b.refill(&mut pool);
    b.receive(&mut pool, &mut batch);
    assert_eq!(batch.len(), 1);
    batch.drain(..).for_each(|p| p.free(&mut pool));
    pool.free(held);
    b.refill(&mut pool);
    b.receive(&mut pool, &mut batch);
    assert_eq!(batch.len(), 1);
    batch.drain(..).for_each(|p| p.free(&mut pool));
    pool.assert_conserved();
}

#[test]
fn large_packets_span_frames_both_ways() {
    let config = WireConfig { mtu: 9000, headroom: 128, tx_ring: 3, ..Default::default() };
    let mut bed = bed(config, 1);
    let parts = [[1u8; 2048], [2; 2048], [3; 2048], [4; 2048]];
    for (i, part) in parts.iter().enumerate() {
        let mut frame = bed.pool_a.alloc().unwrap();
        bed.pool_a.buffer_mut(&mut frame).copy_from_slice(part);
        let mut desc = bed.pool_a.transmit_and_free(frame, 2048);
        desc.more = i < 3;
        bed.queue.push(desc);
    }
    bed.a.transmit(&mut bed.pool_a, &mut bed.queue);
    assert!(bed.receive().is_empty(), "three of four are in the ring");
    bed.a.transmit(&mut bed.pool_a, &mut bed.queue);
    assert_eq!(bed.receive(), [parts.concat()]);
}

#[test]
fn a_filter_and_a_capture_see_what_is_sent() {
    let mut bed = bed(WireConfig::default(), 1);
    bed.wire.capture(2);
    bed.wire.set_filter(End::A, Some(Box::new(|bytes| { bytes[1] = 9; bytes[0] != 2 })));
    for i in 1..=3 {
        bed.send(&[i; 60]);
    }
    let got = bed.receive();
    assert_eq!(got.iter().map(|g| (g[0], g[1])).collect::<Vec<_>>(), [(1, 9), (3, 9)]);
    assert_eq!(bed.wire.counts(End::A).filtered, 1);
    let seen: Vec<_> = bed.wire.captured().into_iter().map(|c| (c.from, c.bytes[0])).collect();
    assert_eq!(seen, [(End::A, 2), (End::A, 3)]);
    bed.wire.set_filter(End::A, None);
    bed.send(&vec![0; 1519]);
    assert_eq!(bed.wire.counts(End::A).too_large, 1);
    bed.send(&[5; 60]);
    assert_eq!(bed.wire.take(End::B), Some(vec![5; 60]));
    assert_eq!(bed.wire.take(End::B), None);
}

#[test]
fn cross_moves_everything_with_one_copy() {
    let arena = Arena::heap(8, 256);
    let (mut one, mut two) = (Pool::new(arena, 0, 8), Pool::heap(3, 256));
    let mut queue = TxQueue::new(8);
    for i in 0..4u8 {
        let mut frame = one.alloc().unwrap();
        one.buffer_mut(&mut frame)[0] = i;
        queue.push(one.transmit_and_free(frame, 60));
    }
    let mut batch = Batch::new();
    cross(&mut one, &mut queue, &mut two, &mut batch);
    assert_eq!((batch.len(), queue.len()), (3, 1));
    assert_eq!(two.bytes(&batch[2].head)[0], 2);
    batch.drain(..).for_each(|p| p.free(&mut two));
    cross(&mut one, &mut queue, &mut two, &mut batch);
    assert_eq!(batch.len(), 1);
    batch.drain(..).for_each(|p| p.free(&mut two));
    one.assert_conserved();
    two.assert_conserved();
    assert_eq!(one.available(), 8);
}
