//! Datagrams put together from fragments (RFC 791, 3.2; RFC 815; RFC 1122, 3.3.2).
//!
//! The bytes are copied into place in frames of the datagram's own, so that what
//! a sender can pin is what it sent, however small the pieces. Overlaps end the
//! datagram (RFC 5722's rule); a piece that came before is ignored.

use super::Core;
use super::config::FragmentConfig;
use super::lru::Lru;
use crate::frame::{Frame, Packet, Pool};
use crate::rng::Rng;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::{ethernet, icmpv4};
use crate::wire::ipv4::{self, MF, OFFSET_MASK};
use arrayvec::ArrayVec;
use core::hash::{Hash, Hasher};
use core::net::Ipv4Addr;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use zerocopy::IntoBytes;

/// What fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ident: u16,
    protocol: u8,
}

/// Before the last fragment came, the datagram may be as long as it likes.
const OPEN: usize = usize::MAX;
/// Congestion experienced (RFC 3168, 5).
const CE: u8 = 3;

#[derive(Debug)]
struct Datagram {
    key: Key,
    /// The first holds the header's room and then payload, the others payload alone.
    chunks: Vec<Option<Frame>>,
    /// What is missing, in no order.
    holes: Vec<(usize, usize)>,
    /// The payload's length, once the last fragment came.
    total: Option<usize>,
    expires: Instant,
    /// The first fragment's header and 8 bytes of its payload, once it came.
    first: ArrayVec<u8, 68>,
    congested: bool,
}

/// The datagrams under way.
#[derive(Debug)]
pub struct Reassembly {
    index: HashTable<u32>,
    slots: Vec<Option<Datagram>>,
    free: Vec<u32>,
    /// In the order in which they began, which is that of their ends.
    order: Lru,
    key: [u8; 16],
    frames: usize,
}

/// Where the pieces of a fragment go.
struct Piece {
    start: usize,
    end: usize,
    last: bool,
}

enum Fit {
    Fills(usize),
    Duplicate,
    Overlaps,
}

impl Datagram {
    /// Which hole the piece fills.
    fn fit(&self, p: &Piece) -> Fit {
        if self.total.is_some_and(|t| p.end > t || (p.last && p.end != t)) {
            return Fit::Overlaps;
        }
        if let Some(i) = self.holes.iter().position(|h| h.0 <= p.start && p.end <= h.1) {
            // The last one ends the datagram: nothing may have come beyond it.
            return if p.last && self.holes[i].1 != OPEN && self.total.is_none() {
                Fit::Overlaps
            } else {
                Fit::Fills(i)
            };
        }
        let touches = self.holes.iter().any(|h| p.start < h.1 && h.0 < p.end);
        // An end within what came before is another datagram's.
        if touches || (p.last && self.total.is_none()) { Fit::Overlaps } else { Fit::Duplicate }
    }

    fn fill(&mut self, hole: usize, p: &Piece) {
        let (start, end) = self.holes.swap_remove(hole);
        if start < p.start {
            self.holes.push((start, p.start));
        }
        if p.last {
            self.total = Some(p.end);
        } else if p.end < end {
            self.holes.push((p.end, end));
        }
    }
}

/// Chunk and place in its frame of a payload byte; `lead` bytes are kept free in
/// the first chunk.
fn place(at: usize, capacity: usize, lead: usize) -> (usize, usize) {
    let at = at + lead;
    (at / capacity, at % capacity)
}

impl Reassembly {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            order: Lru::default(),
            key: rng.key(),
            frames: 0,
        }
    }

    /// Frames held.
    pub fn held_frames(&self) -> usize {
        self.frames
    }

    /// Datagrams under way.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    fn hash(key: &[u8; 16], k: &Key) -> u64 {
        let mut h = SipHasher13::new_with_key(key);
        k.hash(&mut h);
        h.finish()
    }

    fn datagram(&mut self, slot: u32) -> &mut Datagram {
        self.slots[slot as usize].as_mut().expect("a slot of the index is taken")
    }

    fn find(&self, key: &Key) -> Option<u32> {
        let found = self.index.find(Self::hash(&self.key, key), |&s| {
            self.slots[s as usize].as_ref().is_some_and(|d| d.key == *key)
        });
        found.copied()
    }

    fn insert(&mut self, key: Key, expires: Instant) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(Datagram {
            key,
            chunks: Vec::new(),
            holes: vec![(0, OPEN)],
            total: None,
            expires,
            first: ArrayVec::new(),
            congested: false,
        });
        let (secret, slots) = (self.key, &self.slots);
        self.index.insert_unique(Self::hash(&secret, &key), slot, |&s| {
            Self::hash(&secret, &slots[s as usize].as_ref().expect("indexed").key)
        });
        self.order.insert(slot);
        slot
    }

    /// Takes a datagram out; its frames are then the caller's.
    fn remove(&mut self, slot: u32) -> Datagram {
        let datagram = self.slots[slot as usize].take().expect("a slot of the index is taken");
        let found = self.index.find_entry(Self::hash(&self.key, &datagram.key), |&s| s == slot);
        found.expect("a datagram is indexed").remove();
        self.order.remove(slot);
        self.free.push(slot);
        self.frames -= datagram.chunks.iter().flatten().count();
        datagram
    }

    fn discard(&mut self, slot: u32, pool: &mut Pool) {
        self.remove(slot).chunks.into_iter().flatten().for_each(|f| pool.free(f));
    }

    pub(super) fn next_deadline(&self) -> Instant {
        let oldest = self.order.oldest().and_then(|s| self.slots[s as usize].as_ref());
        oldest.map_or(Instant::NEVER, |d| d.expires)
    }

    /// Sees to it that the datagram in `slot` has the chunks for a piece; the
    /// oldest others go for them.
    fn make_chunks(
        &mut self,
        slot: u32,
        first: usize,
        last: usize,
        limits: &FragmentConfig,
        pool: &mut Pool,
    ) -> Result<(), DropReason> {
        for i in first..=last {
            let chunks = &mut self.datagram(slot).chunks;
            if chunks.len() <= i {
                chunks.resize_with(i + 1, || None);
            }
            if chunks[i].is_some() {
                continue;
            }
            while self.frames >= limits.max_frames {
                match self.order.oldest() {
                    Some(other) if other != slot => self.discard(other, pool),
                    _ => return Err(DropReason::FragmentTableFull),
                }
            }
            let frame = pool.alloc().ok_or(DropReason::PoolExhausted)?;
            self.datagram(slot).chunks[i] = Some(frame);
            self.frames += 1;
        }
        Ok(())
    }

    /// Copies a fragment's payload to its place.
    fn copy(&mut self, slot: u32, start: usize, packet: &Packet, pool: &Pool, lead: usize) {
        let capacity = pool.arena().capacity();
        let datagram = self.datagram(slot);
        let mut at = start;
        for frame in packet.iter() {
            let mut bytes = pool.bytes(frame);
            while !bytes.is_empty() {
                let (chunk, offset) = place(at, capacity, lead);
                let n = bytes.len().min(capacity - offset);
                let to = datagram.chunks[chunk].as_mut().expect("made before");
                pool.buffer_mut(to)[offset..offset + n].copy_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                at += n;
            }
        }
    }

    /// The whole packet, its header made anew.
    fn complete(&mut self, slot: u32, pool: &mut Pool, lead: usize) -> Packet {
        let datagram = self.remove(slot);
        let total = datagram.total.unwrap_or(0);
        let h = &datagram.first;
        let tos = if datagram.congested { h[1] | CE } else { h[1] };
        let Key { src, dst, ident, protocol } = datagram.key;
        let ip = ipv4::Header::new(src, dst, protocol, total, h[8], tos, ident, 0);
        let capacity = pool.arena().capacity();
        let mut left = total + ipv4::HEADER_LEN;
        let mut offset = lead - ipv4::HEADER_LEN;
        let mut frames = datagram.chunks.into_iter().flatten().map(|mut frame| {
            let n = left.min(capacity - offset);
            frame.set_range(offset, n);
            left -= n;
            offset = 0;
            frame
        });
        let mut head = frames.next().expect("a complete datagram has a first chunk");
        pool.bytes_mut(&mut head)[..ipv4::HEADER_LEN].copy_from_slice(ip.as_bytes());
        let mut packet = Packet::single(head);
        frames.for_each(|frame| packet.push(frame, pool));
        packet
    }
}

impl Core {
    /// Takes a fragment (its range begins with the IP header, which was checked,
    /// and ends with the payload), and gives the datagram once it is whole.
    #[cold]
    pub(super) fn reassemble(&mut self, header: &ipv4::Header, mut packet: Packet) -> Option<Packet> {
        let header_len = header.header_len();
        let mut copy = ArrayVec::<u8, 60>::new();
        copy.extend(self.pool.bytes(&packet.head)[..header_len].iter().copied());
        packet.head.trim_front(header_len);
        let mut result = self.take_fragment(header, &copy, &packet);
        packet.free(&mut self.pool);
        if let (Ok(Some(whole)), true) = (&mut result, self.interface.link_len > 0) {
            // As if it had come whole: it may be another worker's.
            let mac = self.interface.mac.0;
            let at = whole.head.offset() - self.interface.link_len;
            let link = &mut self.pool.buffer_mut(&mut whole.head)[at..at + ethernet::HEADER_LEN];
            link[..6].copy_from_slice(&mac);
            link[6..12].copy_from_slice(&mac);
            link[12..].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        }
        result.unwrap_or_else(|reason| {
            self.counters.drop(reason);
            None
        })
    }

    fn take_fragment(
        &mut self,
        header: &ipv4::Header,
        bytes: &[u8],
        packet: &Packet,
    ) -> Result<Option<Packet>, DropReason> {
        let flags = header.flags_offset.get();
        let start = usize::from(flags & OFFSET_MASK) * 8;
        let piece = Piece { start, end: start + packet.len(), last: flags & MF == 0 };
        let size = piece.end - piece.start;
        if size == 0 || (!piece.last && !size.is_multiple_of(8)) || piece.end + bytes.len() > 65_535 {
            return Err(DropReason::FragmentTooLarge);
        }
        let key = Key {
            src: header.source(),
            dst: header.destination(),
            ident: header.ident.get(),
            protocol: header.protocol,
        };
        let lead = self.ip_room(false);
        let limits = &self.config.fragment;
        let (r, pool) = (&mut self.reassembly, &mut self.pool);
        let slot = match r.find(&key) {
            Some(slot) => slot,
            None => {
                while r.len() >= limits.max_datagrams.max(1) {
                    let Some(oldest) = r.order.oldest() else { break };
                    self.counters.drop(DropReason::FragmentTableFull);
                    r.discard(oldest, pool);
                }
                r.insert(key, self.now + limits.timeout)
            }
        };
        let hole = match r.datagram(slot).fit(&piece) {
            Fit::Fills(hole) => hole,
            Fit::Duplicate => return Err(DropReason::FragmentDuplicate),
            Fit::Overlaps => {
                r.discard(slot, pool);
                return Err(DropReason::FragmentOverlap);
            }
        };
        let capacity = pool.arena().capacity();
        let (first, _) = place(piece.start, capacity, lead);
        let (last, _) = place(piece.end - 1, capacity, lead);
        // The first chunk holds the header, whatever payload is in it.
        let made = r.make_chunks(slot, first, last, limits, pool);
        let datagram = r.datagram(slot);
        if made.is_ok() {
            datagram.fill(hole, &piece);
        }
        if made.is_err() || datagram.holes.len() > limits.max_holes {
            r.discard(slot, pool);
            return Err(made.err().unwrap_or(DropReason::FragmentTableFull));
        }
        if piece.start == 0 {
            let payload = pool.bytes(&packet.head).iter().take(8);
            datagram.first.extend(bytes.iter().chain(payload).copied());
        }
        datagram.congested |= header.tos & CE == CE;
        let whole = datagram.holes.is_empty();
        r.copy(slot, piece.start, packet, pool, lead);
        self.counters.rx_copied_bytes += size as u64;
        Ok(whole.then(|| r.complete(slot, pool, lead)))
    }

    /// Ends datagrams whose time is over; their senders are told where the first
    /// fragment had come (RFC 1122, 3.3.2).
    pub(super) fn fragment_timers(&mut self) {
        while self.reassembly.next_deadline() <= self.now {
            let Some(slot) = self.reassembly.order.oldest() else { return };
            let datagram = self.reassembly.remove(slot);
            self.counters.drop(DropReason::FragmentTimeout);
            datagram.chunks.into_iter().flatten().for_each(|f| self.pool.free(f));
            if !datagram.first.is_empty() {
                let (src, dst) = (datagram.key.src, datagram.key.dst);
                self.send_icmp_error(dst, src, icmpv4::TIME_EXCEEDED, 1, (0, 0), &datagram.first);
            }
        }
    }
}
