//! Neighbours: which hardware address a next hop has, and what waits for it.
//!
//! On an owned address they are asked by ARP; on a shared one the kernel is
//! asked ([`Core::neighbor_requests`]) and its answers come by
//! [`Core::set_neighbor`].

use super::bucket::Bucket;
use super::config::{Mode, NeighborConfig};
use super::lru::Lru;
use super::{Config, Core};
use crate::frame::Frame;
use crate::rng::Rng;
use crate::telemetry::DropReason;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::Mac;
use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use std::collections::VecDeque;

/// Who waits for a neighbour: a number that means something to the one who gave
/// it (a connection's slot and generation, say).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter(pub u64);

/// Whether a next hop's hardware address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// It is.
    Ready(Mac),
    /// It was asked for; the waiter will be found in [`Core::resolved`].
    Pending,
    /// It cannot be had.
    Failed,
}

/// What somebody else (the kernel) knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbor {
    /// Its address; to be used until something else is said.
    Known(Mac),
    /// It does not answer.
    Failed,
    /// Nothing any more.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Asked, no answer yet.
    Incomplete,
    /// Usable; to be asked again when the deadline is over, at the next use.
    Reachable,
    /// Usable, and being asked again.
    Probe,
    /// Told from outside; usable without a limit.
    Told,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub ip: IpAddr,
    pub mac: Mac,
    pub state: State,
    /// Incomplete, probe: the next request. Reachable: the end of that.
    pub deadline: Instant,
    pub requests: u8,
    /// When `mac` was last set.
    pub changed: Instant,
    pub queue: VecDeque<Frame>,
    pub waiters: Vec<Waiter>,
}

/// The neighbours. An entry's slot is its number in `entries`.
#[derive(Debug)]
pub struct Table {
    index: HashTable<u32>,
    pub(super) entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    lru: Lru,
    key: [u8; 16],
    /// The slot that was found last.
    last: u32,
    /// Slots whose deadlines are timers: incomplete and probe.
    active: Vec<u32>,
    /// The earliest of them, or earlier.
    next: Instant,
    queued: usize,
    pub(super) rate: Bucket,
    /// Announcements still to be made, and when the next is due.
    pub(super) announce: (u8, Instant),
    /// When we last defended our address (RFC 5227, 2.4).
    pub(super) defended: Option<Instant>,
}

/// Timers are kept to this grain, so that many neighbours share a wake-up.
const GRAIN: u64 = 10_000_000;

impl Table {
    pub(super) fn new(config: &Config, rng: &mut Rng) -> Self {
        let announce = config.mode == Mode::Owned && config.neighbor.announce && !config.raw_ip;
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            lru: Lru::default(),
            key: rng.key(),
            last: 0,
            active: Vec::new(),
            next: Instant::NEVER,
            queued: 0,
            rate: Bucket::new(config.neighbor.rate, Instant::ZERO),
            announce: (if announce { 2 } else { 0 }, Instant::ZERO),
            defended: None,
        }
    }

    fn hash(key: &[u8; 16], ip: IpAddr) -> u64 {
        let mut h = SipHasher13::new_with_key(key);
        ip.hash(&mut h);
        h.finish()
    }

    /// Known neighbours and those being asked for.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Frames that wait for neighbours.
    pub fn held_frames(&self) -> usize {
        self.queued
    }

    #[inline]
    pub(super) fn find(&mut self, ip: IpAddr) -> Option<u32> {
        if let Some(Some(entry)) = self.entries.get(self.last as usize)
            && entry.ip == ip
        {
            return Some(self.last);
        }
        let slot = self.index.find(Self::hash(&self.key, ip), |&slot| {
            self.entries[slot as usize].as_ref().is_some_and(|e| e.ip == ip)
        });
        self.last = *slot?;
        Some(self.last)
    }

    /// A neighbour's hardware address, and until when it may be used without asking.
    pub(super) fn settled(&mut self, ip: IpAddr) -> Option<(Mac, Instant)> {
        let slot = self.find(ip)?;
        let entry = self.entry(slot);
        match entry.state {
            State::Reachable => Some((entry.mac, entry.deadline)),
            State::Told => Some((entry.mac, Instant::NEVER)),
            State::Incomplete | State::Probe => None,
        }
    }

    pub(super) fn entry(&mut self, slot: u32) -> &mut Entry {
        self.entries[slot as usize].as_mut().expect("a slot of the index is taken")
    }

    /// Adds an entry; the caller made room.
    fn insert(&mut self, ip: IpAddr, now: Instant) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.entries[slot as usize] = Some(Entry {
            ip,
            mac: Mac::default(),
            state: State::Incomplete,
            deadline: now,
            requests: 0,
            changed: now,
            queue: VecDeque::new(),
            waiters: Vec::new(),
        });
        let key = self.key;
        let entries = &self.entries;
        self.index.insert_unique(Self::hash(&key, ip), slot, |&s| {
            Self::hash(&key, entries[s as usize].as_ref().expect("indexed").ip)
        });
        self.lru.insert(slot);
        slot
    }

    fn remove(&mut self, slot: u32) -> Entry {
        let entry = self.entries[slot as usize].take().expect("a slot of the index is taken");
        let found = self.index.find_entry(Self::hash(&self.key, entry.ip), |&s| s == slot);
        found.expect("an entry is indexed").remove();
        self.lru.remove(slot);
        self.free.push(slot);
        self.active.retain(|&s| s != slot);
        self.queued -= entry.queue.len();
        entry
    }

    /// Sets the timer of an entry.
    fn arm(&mut self, slot: u32, at: Instant) {
        let at = Instant::from_nanos(at.as_nanos().next_multiple_of(GRAIN));
        self.entry(slot).deadline = at;
        if !self.active.contains(&slot) {
            self.active.push(slot);
        }
        self.next = self.next.min(at);
    }

    pub(super) fn next_deadline(&self) -> Instant {
        let announce = if self.announce.0 > 0 { self.announce.1 } else { Instant::NEVER };
        self.next.min(announce)
    }

    /// An incomplete entry whose next request is due, if there is one.
    fn take_due(&mut self, now: Instant) -> Option<u32> {
        if now < self.next {
            return None;
        }
        let mut next = Instant::NEVER;
        let mut due = None;
        for &slot in &self.active {
            let deadline = self.entries[slot as usize].as_ref().expect("active").deadline;
            if deadline <= now && due.is_none() {
                due = Some(slot);
            } else {
                next = next.min(deadline);
            }
        }
        if due.is_none() {
            self.next = next;
        }
        due
    }

    /// Puts a frame into an incomplete entry's queue; the frame that had to go
    /// for it comes back.
    fn enqueue(&mut self, slot: u32, frame: Frame, config: &NeighborConfig) -> Option<Frame> {
        if config.max_queue == 0 {
            return Some(frame);
        }
        let queue = &mut self.entry(slot).queue;
        let old = if queue.len() >= config.max_queue { queue.pop_front() } else { None };
        queue.push_back(frame);
        self.queued += usize::from(old.is_none());
        old
    }
}

impl Core {
    /// The hardware address of a next hop. Where it has to be asked for, `waiter`
    /// will be found in [`Core::resolved`] with the address, or with `None` if
    /// nobody answered.
    #[inline]
    pub fn resolve(&mut self, next_hop: IpAddr, waiter: Waiter) -> Resolve {
        match self.lookup(next_hop) {
            Lookup::Ready(mac) => Resolve::Ready(mac),
            Lookup::Failed => Resolve::Failed,
            Lookup::Wait(slot) => {
                let max = self.config.neighbor.max_waiters;
                let waiters = &mut self.neighbors.entry(slot).waiters;
                if waiters.last() == Some(&waiter) {
                    return Resolve::Pending;
                }
                if waiters.len() >= max {
                    return Resolve::Failed;
                }
                waiters.push(waiter);
                Resolve::Pending
            }
        }
    }

    /// Sends an Ethernet frame of `len` bytes, complete but for the destination,
    /// to a next hop; it waits where the hop's address is not known yet.
    #[inline]
    pub(super) fn transmit_via(&mut self, next_hop: IpAddr, mut frame: Frame, len: usize) {
        match self.lookup(next_hop) {
            Lookup::Ready(mac) => {
                self.pool.buffer_mut(&mut frame)[..6].copy_from_slice(&mac.0);
                self.transmit(frame, len);
            }
            Lookup::Wait(slot) => {
                frame.set_range(0, len);
                if let Some(old) = self.neighbors.enqueue(slot, frame, &self.config.neighbor) {
                    self.counters.drop(DropReason::ArpQueueFull);
                    self.pool.free(old);
                }
            }
            Lookup::Failed => {
                self.counters.drop(DropReason::NeighborFailed);
                frame.set_range(0, len);
                self.undeliverable.push(frame);
            }
        }
    }

    #[inline]
    fn lookup(&mut self, next_hop: IpAddr) -> Lookup {
        if self.interface.link_len == 0 || self.interface.is_local(next_hop) {
            return Lookup::Ready(self.interface.mac);
        }
        if let Some(slot) = self.neighbors.find(next_hop) {
            self.neighbors.lru.touch(slot);
            let now = self.now;
            let entry = self.neighbors.entry(slot);
            return match entry.state {
                State::Incomplete => Lookup::Wait(slot),
                State::Reachable if now >= entry.deadline => self.probe(slot),
                _ => Lookup::Ready(entry.mac),
            };
        }
        self.lookup_unknown(next_hop)
    }

    /// The entry is old: it is used while its neighbour is asked again
    /// (RFC 1122, 2.3.2.1, unicast poll).
    #[cold]
    fn probe(&mut self, slot: u32) -> Lookup {
        let entry = self.neighbors.entry(slot);
        entry.state = State::Probe;
        entry.requests = 0;
        let mac = entry.mac;
        self.ask(slot);
        Lookup::Ready(mac)
    }

    #[cold]
    fn lookup_unknown(&mut self, next_hop: IpAddr) -> Lookup {
        if let Some(mac) = self.group_mac(next_hop) {
            return Lookup::Ready(mac);
        }
        let askable = self.config.mode == Mode::Shared || next_hop.is_ipv4();
        if !askable || !self.make_room() {
            return Lookup::Failed;
        }
        let slot = self.neighbors.insert(next_hop, self.now);
        self.neighbors.last = slot;
        self.ask(slot);
        Lookup::Wait(slot)
    }

    /// The hardware address of a broadcast or multicast destination (RFC 1112, 6.4).
    fn group_mac(&self, ip: IpAddr) -> Option<Mac> {
        match ip {
            IpAddr::V4(v4) if v4.is_multicast() => {
                let [_, b, c, d] = v4.octets();
                Some(Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
            }
            IpAddr::V4(v4) => (v4.is_broadcast() || self.interface.is_subnet_broadcast(v4))
                .then_some(Mac::BROADCAST),
            IpAddr::V6(v6) if v6.is_multicast() => {
                let o = v6.octets();
                Some(Mac([0x33, 0x33, o[12], o[13], o[14], o[15]]))
            }
            IpAddr::V6(_) => None,
        }
    }

    /// Makes room for one more entry; what waited for the one that goes fails.
    fn make_room(&mut self) -> bool {
        if self.config.neighbor.max_entries == 0 {
            return false;
        }
        while self.neighbors.len() >= self.config.neighbor.max_entries {
            let Some(oldest) = self.neighbors.lru.oldest() else { return false };
            self.forget(oldest);
        }
        true
    }

    /// Asks for an entry's address, and sets the timer for the next time.
    fn ask(&mut self, slot: u32) {
        let at = self.now + self.config.neighbor.retry;
        self.neighbors.arm(slot, at);
        let entry = self.neighbors.entry(slot);
        entry.requests = entry.requests.saturating_add(1);
        let (ip, state, mac) = (entry.ip, entry.state, entry.mac);
        match (self.config.mode, ip) {
            (Mode::Shared, _) => {
                if self.neighbor_requests.len() < self.config.neighbor.max_entries {
                    self.neighbor_requests.push(ip);
                }
            }
            (Mode::Owned, IpAddr::V4(v4)) => {
                let to = if state == State::Probe { mac } else { Mac::BROADCAST };
                self.send_arp_request(v4, to);
            }
            (Mode::Owned, IpAddr::V6(_)) => {}
        }
    }

    /// Ends an entry without an answer: what waited for it fails.
    fn forget(&mut self, slot: u32) {
        let entry = self.neighbors.remove(slot);
        self.ways.forget();
        for waiter in entry.waiters {
            self.resolved.push((waiter, None));
        }
        for frame in entry.queue {
            self.counters.drop(DropReason::NeighborFailed);
            self.undeliverable.push(frame);
        }
    }

    /// A neighbour's address is known: what waited for it goes on.
    pub(super) fn neighbor_found(&mut self, ip: IpAddr, mac: Mac, state: State) {
        let now = self.now;
        let fresh = now + self.config.neighbor.reachable;
        let slot = match self.neighbors.find(ip) {
            Some(slot) => slot,
            None if self.make_room() => self.neighbors.insert(ip, now),
            None => return,
        };
        self.neighbors.active.retain(|&s| s != slot);
        let entry = self.neighbors.entry(slot);
        let moved = entry.state != State::Incomplete && entry.mac != mac;
        if entry.state == State::Incomplete || moved {
            entry.changed = now;
        }
        if moved || (entry.state == State::Told && state != State::Told) {
            self.ways.forget();
        }
        entry.mac = mac;
        entry.state = state;
        entry.requests = 0;
        entry.deadline = if state == State::Told { Instant::NEVER } else { fresh };
        let waiters = core::mem::take(&mut entry.waiters);
        let queue = core::mem::take(&mut entry.queue);
        let own = self.interface.mac;
        self.neighbors.queued -= queue.len();
        if moved && self.moved.len() < self.config.neighbor.max_entries {
            self.moved.push((ip, mac));
        }
        self.resolved.extend(waiters.into_iter().map(|w| (w, Some(mac))));
        for mut frame in queue {
            let len = frame.len();
            let link = self.pool.buffer_mut(&mut frame);
            link[..6].copy_from_slice(&mac.0);
            link[6..12].copy_from_slice(&own.0); // it may have changed meanwhile
            self.transmit(frame, len);
        }
    }

    /// What the kernel says about a neighbour (shared addresses).
    pub fn set_neighbor(&mut self, ip: IpAddr, neighbor: Neighbor) {
        match neighbor {
            Neighbor::Known(mac) => self.neighbor_found(ip, mac, State::Told),
            Neighbor::Failed | Neighbor::Gone => {
                let Some(slot) = self.neighbors.find(ip) else { return };
                let waiting = self.neighbors.entry(slot).state == State::Incomplete;
                // A deleted entry is no answer to a question that is still open.
                if neighbor == Neighbor::Failed || !waiting {
                    self.forget(slot);
                }
            }
        }
    }

    /// Asks again for what did not answer in time, and gives up in the end.
    pub(super) fn neighbor_timers(&mut self) {
        self.announce();
        while let Some(slot) = self.neighbors.take_due(self.now) {
            let max = self.config.neighbor.max_requests;
            if self.neighbors.entry(slot).requests >= max {
                self.forget(slot);
            } else {
                self.ask(slot);
            }
        }
    }
}

enum Lookup {
    Ready(Mac),
    Wait(u32),
    Failed,
}

/// RFC 5227, 2.3: between announcements.
pub(super) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// RFC 5227, 2.4: between defences.
pub(super) const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
