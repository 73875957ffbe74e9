//! A wire inside the process: two ends, and between them whatever a bad
//! network does to packets, drawn from a seed. Time is told, never asked for, so
//! that the same calls with the same seed give the same bytes.
//!
//! ```
//! use ringroad::device::memory::{End, Impairments, Wire, WireConfig};
//! use ringroad::device::Device;
//! use ringroad::frame::{Batch, Pool, TxQueue};
//! use ringroad::time::{Duration, Instant};
//!
//! let lossy = Impairments { loss: 0.1, delay: Duration::from_millis(2), ..Default::default() };
//! let (wire, mut a, mut b) = Wire::new(WireConfig { both: lossy, ..Default::default() }, 7);
//! let (mut pool_a, mut pool_b) = (Pool::heap(256, 2048), Pool::heap(256, 2048));
//! let mut queue = TxQueue::new(64);
//! let frame = pool_a.alloc().unwrap();
//! queue.push(pool_a.transmit_and_free(frame, 60));
//! a.transmit(&mut pool_a, &mut queue);
//! wire.advance(Instant::ZERO + Duration::from_millis(2));
//! let mut batch = Batch::new();
//! b.refill(&mut pool_b);
//! b.receive(&mut pool_b, &mut batch);
//! a.reap(&mut pool_a);
//! assert_eq!(batch.len() as u64, wire.counts(End::A).delivered);
//! # for packet in batch { packet.free(&mut pool_b) }
//! ```

mod link;

pub use link::{Filter, Impairments, Link, LinkCounts};

use super::{Capabilities, Device};
use crate::frame::{Batch, Frame, MOST_PIECES, Packet, Pool, TxDesc, TxQueue};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One of a wire's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The first.
    A,
    /// The second.
    B,
}

impl End {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How a wire and its two devices are made.
#[derive(Clone, Debug)]
pub struct WireConfig {
    /// Largest IP packet in bytes; the wire takes 18 more (Ethernet, one tag).
    pub mtu: usize,
    /// What happens in both directions ([`Wire::set_impairments`] for one alone).
    pub both: Impairments,
    /// Time from a transmission to its completion. Until it is over, the frame is
    /// pending; that its holder leaves it alone is checked.
    pub completion_delay: Duration,
    /// Transmissions of an end that may be pending at once (its TX ring).
    pub tx_ring: usize,
    /// Packets that may wait for an end (its RX ring).
    pub rx_ring: usize,
    /// Frames that each device keeps to receive into (its fill ring).
    pub fill: usize,
    /// Bytes left free in front of a received packet.
    pub headroom: usize,
    /// Whether the devices claim [`Capabilities::partial_checksums`].
    pub partial_checksums: bool,
}

impl Default for WireConfig {
    fn default() -> Self {
        Self {
            mtu: 1500,
            both: Impairments::default(),
            completion_delay: Duration::ZERO,
            tx_ring: 2048,
            rx_ring: 2048,
            fill: 64,
            headroom: 0,
            partial_checksums: false,
        }
    }
}

/// A packet as it was put on the wire, for traces and pcap files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When.
    pub at: Instant,
    /// By whom.
    pub from: End,
    /// Its bytes, before anything happened to them.
    pub bytes: Vec<u8>,
}

struct Shared {
    now: Instant,
    /// What A sends, and what B sends.
    links: [Link; 2],
    /// When the oldest pending transmission of each end completes.
    completions: [Option<Instant>; 2],
    capture: VecDeque<Captured>,
    capture_limit: usize,
}

impl Shared {
    fn send(&mut self, from: End, bytes: Vec<u8>) {
        if self.capture_limit > 0 {
            if self.capture.len() == self.capture_limit {
                self.capture.pop_front();
            }
            self.capture.push_back(Captured { at: self.now, from, bytes: bytes.clone() });
        }
        self.links[from as usize].send(self.now, bytes);
    }
}

/// The wire itself: it holds what is on the way, and the time.
#[derive(Clone)]
pub struct Wire {
    shared: Arc<Mutex<Shared>>,
}

impl Wire {
    /// A wire and the devices at its ends A and B. Their hardware addresses are
    /// 02:00:00:00:00:0a and 02:00:00:00:00:0b.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(config: WireConfig, seed: u64) -> (Self, MemoryDevice, MemoryDevice) {
        let max_len = config.mtu + 18;
        let link = |n: u64| Link::new(config.both.clone(), seed ^ (n << 63), config.rx_ring, max_len);
        let shared = Arc::new(Mutex::new(Shared {
            now: Instant::ZERO,
            links: [link(0), link(1)],
            completions: [None; 2],
            capture: VecDeque::new(),
            capture_limit: 0,
        }));
        let wire = Self { shared };
        let (a, b) = (wire.device(&config, End::A), wire.device(&config, End::B));
        (wire, a, b)
    }

    fn device(&self, config: &WireConfig, end: End) -> MemoryDevice {
        let last = match end {
            End::A => 0x0a,
            End::B => 0x0b,
        };
        MemoryDevice {
            capabilities: Capabilities {
                mtu: config.mtu,
                mac: [2, 0, 0, 0, 0, last],
                partial_checksums: config.partial_checksums,
            },
            wire: self.clone(),
            end,
            config: config.clone(),
            fill: VecDeque::new(),
            pending: VecDeque::new(),
            begun: Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time. It does not go back: an earlier time changes nothing.
    pub fn advance(&self, now: Instant) {
        let mut shared = self.lock();
        shared.now = shared.now.max(now);
        let now = shared.now;
        shared.links.iter_mut().for_each(|l| l.bound(now));
    }

    /// The time that was set.
    pub fn now(&self) -> Instant {
        self.lock().now
    }

    /// When the next packet arrives or the next transmission completes (perhaps
    /// in the past, where an end has not looked yet); `None` if nothing is due.
    pub fn next_event(&self) -> Option<Instant> {
        let shared = self.lock();
        let arrivals = shared.links.iter().filter_map(Link::next_arrival);
        arrivals.chain(shared.completions.iter().flatten().copied()).min()
    }

    /// Packets on the way in both directions, or waiting at an end.
    pub fn in_flight(&self) -> usize {
        self.lock().links.iter().map(Link::in_flight).sum()
    }

    /// What became of the packets sent by this end.
    pub fn counts(&self, from: End) -> LinkCounts {
        self.lock().links[from as usize].counts
    }

    /// Changes what happens from now on to what this end sends.
    pub fn set_impairments(&self, from: End, impairments: Impairments) {
        self.lock().links[from as usize].impairments = impairments;
    }

    /// Lets `filter` look at (and change) every packet that this end sends; where
    /// it says false, the packet is lost. `None` takes the filter away. The
    /// filter must not call the wire.
    pub fn set_filter(&self, from: End, filter: Option<Filter>) {
        self.lock().links[from as usize].filter = filter;
    }

    /// Sends bytes as if the device at this end had.
    pub fn send(&self, from: End, bytes: &[u8]) {
        self.lock().send(from, bytes.to_vec());
    }

    /// Takes the oldest packet that has arrived at this end, in place of its device.
    pub fn take(&self, at: End) -> Option<Vec<u8>> {
        let mut shared = self.lock();
        let now = shared.now;
        let link = &mut shared.links[at.other() as usize];
        link.peek(now)?;
        link.pop()
    }

    /// Keeps copies of the last `limit` packets put on the wire (0: of none).
    pub fn capture(&self, limit: usize) {
        let mut shared = self.lock();
        shared.capture_limit = limit;
        while shared.capture.len() > limit {
            shared.capture.pop_front();
        }
    }

    /// Takes the copies kept so far, oldest first.
    pub fn captured(&self) -> Vec<Captured> {
        self.lock().capture.drain(..).collect()
    }
}

/// A transmission that is not complete.
struct Pending {
    desc: TxDesc,
    due: Instant,
    print: u64,
}

/// The device at one end of a [`Wire`].
pub struct MemoryDevice {
    capabilities: Capabilities,
    wire: Wire,
    end: End,
    config: WireConfig,
    fill: VecDeque<u32>,
    pending: VecDeque<Pending>,
    /// The part of a jumbo packet that fitted into the ring.
    begun: Vec<u8>,
}

/// A fingerprint of bytes, to see that they were not changed (FNV-1a by words).
fn print(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|w| u64::from_le_bytes(*w));
    let rest = rest.iter().map(|b| u64::from(*b));
    words.chain(rest).fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}

impl MemoryDevice {
    /// Sets the hardware address that the device reports.
    pub fn set_mac(&mut self, mac: [u8; 6]) {
        self.capabilities.mac = mac;
    }

    /// Which end this is.
    pub fn end(&self) -> End {
        self.end
    }

    /// Bytes of a packet in each frame.
    fn room(&self, pool: &Pool) -> usize {
        pool.arena().capacity() - self.config.headroom
    }

    /// Puts a packet into filled frames: one, or more where it is larger than a
    /// frame. `None` if too few frames are there to be filled.
    fn fill_packet(&mut self, pool: &mut Pool, bytes: &[u8]) -> Option<Packet> {
        let room = self.room(pool);
        let needed = bytes.len().div_ceil(room).max(1);
        if self.fill.len() < needed {
            return None;
        }
        let mut packet = None::<Packet>;
        for part in bytes.chunks(room).chain(bytes.is_empty().then_some(bytes)) {
            let index = self.fill.pop_front().expect("counted above");
            let mut frame = pool
                .filled(index, self.config.headroom, part.len())
                .expect("a frame that the pool gave to be filled");
            pool.bytes_mut(&mut frame).copy_from_slice(part);
            match &mut packet {
                None => packet = Some(Packet::single(frame)),
                Some(packet) => packet.push(frame, pool),
            }
        }
        packet
    }
}

impl Device for MemoryDevice {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let wire = self.wire.clone();
        let mut shared = wire.lock();
        let now = shared.now;
        let link = &mut shared.links[self.end.other() as usize];
        while !batch.is_full() {
            let Some(bytes) = link.peek(now) else { break };
            if bytes.len() > MOST_PIECES * self.room(pool) {
                link.drop_too_large();
                continue;
            }
            let Some(packet) = self.fill_packet(pool, bytes) else { break };
            batch.push(packet);
            if let Some(bytes) = link.pop() {
                link.recycle(bytes);
            }
        }
    }

    fn transmit(&mut self, pool: &mut Pool, queue: &mut TxQueue) {
        if queue.is_empty() {
            return;
        }
        let wire = self.wire.clone();
        let mut shared = wire.lock();
        let due = shared.now + self.config.completion_delay;
        let delayed = self.config.completion_delay > Duration::ZERO;
        let mut bytes = std::mem::take(&mut self.begun);
        while self.pending.len() < self.config.tx_ring
            && let Some(desc) = queue.pop()
        {
            let part = pool.tx_bytes(&desc);
            bytes.extend_from_slice(part);
            let print = if delayed { print(part) } else { 0 };
            if !desc.more {
                shared.send(self.end, bytes);
                bytes = shared.links[self.end as usize].buffer();
            }
            self.pending.push_back(Pending { desc, due, print });
        }
        self.begun = bytes;
        shared.completions[self.end as usize] = self.pending.front().map(|p| p.due);
    }

    fn reap(&mut self, pool: &mut Pool) {
        if self.pending.is_empty() {
            return;
        }
        let mut shared = self.wire.lock();
        let delayed = self.config.completion_delay > Duration::ZERO;
        while let Some(pending) = self.pending.pop_front_if(|p| p.due <= shared.now) {
            if delayed {
                let same = print(pool.tx_bytes(&pending.desc)) == pending.print;
                assert!(same, "a frame was rewritten while its transmission was pending");
            }
            pool.complete(pending.desc.index());
        }
        shared.completions[self.end as usize] = self.pending.front().map(|p| p.due);
    }

    fn refill(&mut self, pool: &mut Pool) {
        while self.fill.len() < self.config.fill {
            let taken = pool.take_for_fill::<64>(self.config.fill - self.fill.len());
            if taken.is_empty() {
                return;
            }
            self.fill.extend(taken);
        }
    }
}

/// Carries everything that waits in `queue` straight into `batch`, as a perfect
/// wire would, with one copy and nothing else: for measuring a stack alone. It
/// stops when the batch is full or the receiver's pool is empty.
pub fn cross(from: &mut Pool, queue: &mut TxQueue, to: &mut Pool, batch: &mut Batch) {
    while !batch.is_full()
        && let Some(desc) = queue.pop()
    {
        if desc.more {
            if !cross_chain(from, queue, to, batch, desc) {
                return;
            }
            continue;
        }
        let Some(frame) = carry(from, to, &desc) else { return queue.unpop(desc) };
        from.complete(desc.index());
        batch.push(Packet::single(frame));
    }
}

/// A frame with the bytes of a descriptor.
#[inline(always)]
fn carry(from: &Pool, to: &mut Pool, desc: &TxDesc) -> Option<Frame> {
    let mut frame = to.alloc()?;
    frame.set_range(0, desc.len());
    to.bytes_mut(&mut frame).copy_from_slice(from.tx_bytes(desc));
    Some(frame)
}

/// A packet of several descriptors, of which this is the first. False, and nothing
/// done, where the receiver has too few frames.
#[inline(never)]
fn cross_chain(from: &mut Pool, queue: &mut TxQueue, to: &mut Pool, batch: &mut Batch, first: TxDesc) -> bool {
    if (to.available() as usize) < 1 + queue.rest_of_packet() {
        queue.unpop(first);
        return false;
    }
    let (mut more, mut packet) = (Some(first), None);
    while let Some(desc) = more {
        match (carry(from, to, &desc), &mut packet) {
            (Some(frame), None) => packet = Some(Packet::single(frame)),
            (Some(frame), Some(packet)) => packet.push(frame, to),
            (None, _) => {} // counted above
        }
        from.complete(desc.index());
        more = if desc.more { queue.pop() } else { None };
    }
    batch.extend(packet);
    true
}

#[cfg(test)]
mod tests;
