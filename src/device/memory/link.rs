//! One direction of the wire: what happens to a packet between the ends.

use crate::rng::Rng;
use crate::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a direction of the wire does to packets. The default does nothing: no
/// loss, no delay, any rate.
///
/// Probabilities are from 0 (never) to 1 (always); each packet's fate is drawn
/// from the wire's seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairments {
    /// Probability that a packet is lost.
    pub loss: f64,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that a packet is held back by up to [`Self::reorder_by`], so
    /// that later ones overtake it.
    pub reorder: f64,
    /// The longest that a reordered packet is held back.
    pub reorder_by: Duration,
    /// Probability that one bit of a packet is turned over. ARP in Ethernet frames
    /// is spared: it has no checksum of its own, only the link's.
    pub corrupt: f64,
    /// Probability that a packet loses its tail.
    pub truncate: f64,
    /// Time on the way.
    pub delay: Duration,
    /// Added to the delay: a random span up to this, packets staying in order.
    pub jitter: Duration,
    /// Bytes per second; zero for no limit.
    pub bytes_per_second: u64,
    /// With a rate: bytes that may wait for their turn; what comes on top is lost.
    pub queue_bytes: usize,
}

impl Default for Impairments {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            corrupt: 0.0,
            truncate: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            bytes_per_second: 0,
            queue_bytes: 256 * 1024,
        }
    }
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Packets put on the wire.
    pub sent: u64,
    /// Packets that came out at the other end (duplicates included).
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Taken out by the test's filter.
    pub filtered: u64,
    /// Arriving twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// With a bit turned over.
    pub corrupted: u64,
    /// Without their tail.
    pub truncated: u64,
    /// Lost because the queue before the wire was full.
    pub queue_full: u64,
    /// Lost because too many waited for the receiving end.
    pub ring_full: u64,
    /// Lost because they were larger than the wire takes.
    pub too_large: u64,
}

/// Looks at a packet before it goes on the wire: false takes it out.
pub type Filter = Box<dyn FnMut(&mut Vec<u8>) -> bool + Send>;

/// A packet on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    arrives: Instant,
    number: u64,
    bytes: Vec<u8>,
}

/// One direction of a wire. A [`Wire`](super::Wire) has two; who builds a network
/// of another shape takes as many as it needs.
pub struct Link {
    /// What happens to packets from now on.
    pub impairments: Impairments,
    /// What became of them so far.
    pub counts: LinkCounts,
    pub(super) filter: Option<Filter>,
    /// Packets that wait at the far end, at most.
    pub(super) ring: usize,
    /// Bytes in a packet, at most.
    pub(super) max_len: usize,
    rng: Rng,
    flights: BinaryHeap<Reverse<Flight>>,
    number: u64,
    /// When the wire has sent what it was given.
    busy_until: Instant,
    /// Nothing in order arrives before this.
    in_order: Instant,
    spare: Vec<Vec<u8>>,
}

impl Link {
    /// A link with nothing on it. `ring`: packets that wait at its far end, at most;
    /// `max_len`: bytes in a packet, at most.
    pub fn new(impairments: Impairments, seed: u64, ring: usize, max_len: usize) -> Self {
        Self {
            impairments,
            counts: LinkCounts::default(),
            filter: None,
            ring,
            max_len,
            rng: Rng::new(seed),
            flights: BinaryHeap::new(),
            number: 0,
            busy_until: Instant::ZERO,
            in_order: Instant::ZERO,
            spare: Vec::new(),
        }
    }

    /// True with probability `p`. A probability of zero draws nothing.
    fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && ((self.rng.next_u64() >> 11) as f64) < p * (1u64 << 53) as f64
    }

    fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.rng.next_u64() % n }
    }

    /// An empty buffer, used before where there is one.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps a buffer for later use.
    pub fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < 256 {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// Puts a packet on the wire.
    pub fn send(&mut self, now: Instant, mut bytes: Vec<u8>) {
        self.counts.sent += 1;
        if bytes.len() > self.max_len {
            self.counts.too_large += 1;
            return self.recycle(bytes);
        }
        if let Some(filter) = &mut self.filter
            && !filter(&mut bytes)
        {
            self.counts.filtered += 1;
            return self.recycle(bytes);
        }
        let Some(leaves) = self.departure(now, bytes.len()) else {
            self.counts.queue_full += 1;
            return self.recycle(bytes);
        };
        if self.chance(self.impairments.loss) {
            self.counts.lost += 1;
            return self.recycle(bytes);
        }
        self.damage(&mut bytes);
        if self.chance(self.impairments.duplicate) {
            self.counts.duplicated += 1;
            let mut copy = self.buffer();
            copy.extend_from_slice(&bytes);
            self.fly(leaves, copy);
        }
        self.fly(leaves, bytes);
    }

    /// When the packet's last byte has left, or `None` if the queue is full.
    fn departure(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let rate = self.impairments.bytes_per_second;
        if rate == 0 {
            return Some(now);
        }
        let start = now.max(self.busy_until);
        let waiting = u128::from(start.since(now).as_nanos()) * u128::from(rate) / 1_000_000_000;
        if waiting + len as u128 > self.impairments.queue_bytes as u128 {
            return None;
        }
        let span = (len as u64).saturating_mul(1_000_000_000).div_ceil(rate);
        self.busy_until = start + Duration::from_nanos(span);
        Some(self.busy_until)
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let arp = bytes.get(12..14) == Some(&[0x08, 0x06]);
        if self.chance(self.impairments.corrupt) && !arp && !bytes.is_empty() {
            let bit = self.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            self.counts.corrupted += 1;
        }
        if self.chance(self.impairments.truncate) {
            let len = self.below(bytes.len() as u64) as usize;
            bytes.truncate(len);
            self.counts.truncated += 1;
        }
    }

    fn fly(&mut self, leaves: Instant, bytes: Vec<u8>) {
        let jitter = self.impairments.jitter.as_nanos();
        let jitter = if jitter == 0 { 0 } else { self.below(jitter + 1) };
        let mut arrives = leaves + self.impairments.delay + Duration::from_nanos(jitter);
        if self.chance(self.impairments.reorder) {
            self.counts.reordered += 1;
            let held = 1 + self.below(self.impairments.reorder_by.as_nanos());
            arrives = arrives.max(self.in_order) + Duration::from_nanos(held);
        } else {
            arrives = arrives.max(self.in_order);
            self.in_order = arrives;
        }
        self.number += 1;
        self.flights.push(Reverse(Flight { arrives, number: self.number, bytes }));
    }

    /// The oldest packet that has arrived, left in place.
    pub fn peek(&mut self, now: Instant) -> Option<&[u8]> {
        let Reverse(flight) = self.flights.peek()?;
        (flight.arrives <= now).then_some(flight.bytes.as_slice())
    }

    /// Takes what [`Link::peek`] showed.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let Reverse(flight) = self.flights.pop()?;
        self.counts.delivered += 1;
        Some(flight.bytes)
    }

    /// Takes what [`Link::peek`] showed, which is more than the far end takes.
    pub(super) fn drop_too_large(&mut self) {
        if let Some(Reverse(flight)) = self.flights.pop() {
            self.counts.too_large += 1;
            self.recycle(flight.bytes);
        }
    }

    /// Drops the newest of what has arrived and nobody took, beyond the ring's bound.
    pub fn bound(&mut self, now: Instant) {
        if self.flights.len() <= self.ring {
            return;
        }
        let waiting = self.flights.iter().filter(|f| f.0.arrives <= now).count();
        if waiting <= self.ring {
            return;
        }
        let all = std::mem::take(&mut self.flights).into_sorted_vec(); // latest first
        let beyond = all.len() - waiting;
        for (i, flight) in all.into_iter().enumerate() {
            if (beyond..beyond + waiting - self.ring).contains(&i) {
                self.counts.ring_full += 1;
            } else {
                self.flights.push(flight);
            }
        }
    }

    /// When the next packet arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.flights.peek().map(|f| f.0.arrives)
    }

    /// Packets on the way or waiting at the far end.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }
}
