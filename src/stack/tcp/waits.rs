//! TIME-WAIT: compact entries, oldest first. One of IPv4 takes 48 bytes here and 12
//! at most in the flow index; there may be hundreds of thousands.

use super::hash::{FlowKey, FlowV4};
use super::ports::Reuse;
use crate::tcp::time_wait::Entry;
use crate::time::Instant;

/// No entry.
const END: u32 = u32::MAX;
/// In an entry's number: it is one of IPv6.
const V6: u32 = 1 << 30;
/// Entries that memory is taken for at a time. A table that doubles would have
/// nearly twice what it needs at times, and copy it all.
const CHUNK: u32 = 4096;

/// Its socket had set SO_REUSEADDR.
const REUSE_ADDR: u8 = 1;
/// Its socket had set SO_REUSEPORT.
const REUSE_PORT: u8 = 2;
/// The place is not taken.
const FREE: u8 = 4;

/// One connection in TIME-WAIT, between the one that ends before it and the one that
/// ends after it. (A free place has its next one in `after`.)
#[derive(Clone, Copy, Debug)]
struct Waiting<K> {
    key: K,
    entry: Entry,
    before: u32,
    after: u32,
}

const _: () = assert!(size_of::<Waiting<FlowV4>>() <= 48, "with its name in the index 64 bytes at most");

/// The entries of one IP version in the order of their ends: all last equally long,
/// so the order is that of their beginnings.
#[derive(Debug)]
struct Row<K> {
    chunks: Vec<Vec<Waiting<K>>>,
    len: u32,
    first: u32,
    last: u32,
    free: u32,
}

impl<K> Default for Row<K> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0, first: END, last: END, free: END }
    }
}

impl<K: Copy> Row<K> {
    #[inline]
    fn get(&self, id: u32) -> &Waiting<K> {
        &self.chunks[(id / CHUNK) as usize][(id % CHUNK) as usize]
    }

    #[inline]
    fn get_mut(&mut self, id: u32) -> &mut Waiting<K> {
        &mut self.chunks[(id / CHUNK) as usize][(id % CHUNK) as usize]
    }

    /// Puts an entry behind all others.
    fn insert(&mut self, key: K, entry: Entry) -> u32 {
        let waiting = Waiting { key, entry, before: END, after: END };
        let id = match self.free {
            END => self.grow(waiting),
            id => {
                let place = self.get_mut(id);
                debug_assert!(place.entry.mark & FREE != 0);
                let next = core::mem::replace(place, waiting).after;
                self.free = next;
                id
            }
        };
        self.link_last(id);
        self.len += 1;
        id
    }

    fn grow(&mut self, waiting: Waiting<K>) -> u32 {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK as usize => chunk.push(waiting),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK as usize);
                chunk.push(waiting);
                self.chunks.push(chunk);
            }
        }
        self.places() - 1
    }

    /// Places that memory was taken for, free ones included.
    fn places(&self) -> u32 {
        let Some(last) = self.chunks.last() else { return 0 };
        (self.chunks.len() as u32 - 1) * CHUNK + last.len() as u32
    }

    fn remove(&mut self, id: u32) {
        self.unlink(id);
        let free = self.free;
        let place = self.get_mut(id);
        debug_assert!(place.entry.mark & FREE == 0);
        (place.entry.mark, place.after) = (FREE, free);
        self.free = id;
        self.len -= 1;
    }

    fn link_last(&mut self, id: u32) {
        let last = core::mem::replace(&mut self.last, id);
        let place = self.get_mut(id);
        (place.before, place.after) = (last, END);
        match last {
            END => self.first = id,
            last => self.get_mut(last).after = id,
        }
    }

    fn unlink(&mut self, id: u32) {
        let Waiting { before, after, .. } = *self.get(id);
        match before {
            END => self.first = after,
            before => self.get_mut(before).after = after,
        }
        match after {
            END => self.last = before,
            after => self.get_mut(after).before = before,
        }
    }

    /// The entry whose time began first, and when it ends.
    fn oldest(&self, now: Instant) -> Option<(Instant, u32)> {
        let first = (self.first != END).then(|| self.get(self.first))?;
        Some((first.entry.expires(now), self.first))
    }

    /// Bytes that it takes, but for what the allocator adds.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|c| c.capacity() * size_of::<Waiting<K>>());
        chunks.sum::<usize>() + self.chunks.capacity() * size_of::<Vec<Waiting<K>>>()
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Waits {
    v4: Row<FlowV4>,
    v6: Row<FlowKey>,
}

impl Waits {
    /// Entries.
    pub fn len(&self) -> usize {
        (self.v4.len + self.v6.len) as usize
    }

    /// True where there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.v4.first & self.v6.first == END
    }

    /// Adds an entry; its number.
    pub fn insert(&mut self, key: &FlowKey, mut entry: Entry, reuse: Reuse) -> u32 {
        let mark = |on, mark| if on { mark } else { 0 };
        entry.mark = mark(reuse.addr, REUSE_ADDR) | mark(reuse.port, REUSE_PORT);
        match key.v4() {
            Some(v4) => self.v4.insert(v4, entry),
            None => self.v6.insert(*key, entry) | V6,
        }
    }

    /// True where there is no entry, and every place is free again.
    pub fn is_bare(&self) -> bool {
        let links = [self.v4.first, self.v4.last, self.v6.first, self.v6.last];
        (self.v4.len, self.v6.len) == (0, 0) && links == [END; 4]
    }

    /// What TCP has to remember.
    fn entry(&self, id: u32) -> &Entry {
        match id & V6 {
            0 => &self.v4.get(id).entry,
            _ => &self.v6.get(id & !V6).entry,
        }
    }

    /// The same, to change.
    pub fn entry_mut(&mut self, id: u32) -> &mut Entry {
        match id & V6 {
            0 => &mut self.v4.get_mut(id).entry,
            _ => &mut self.v6.get_mut(id & !V6).entry,
        }
    }

    /// Its addresses and ports.
    pub fn key(&self, id: u32) -> FlowKey {
        match id & V6 {
            0 => self.v4.get(id).key.into(),
            _ => self.v6.get(id & !V6).key,
        }
    }

    /// SO_REUSEADDR and SO_REUSEPORT of the entry's socket.
    pub fn reuse(&self, id: u32) -> Reuse {
        let mark = self.entry(id).mark;
        Reuse { addr: mark & REUSE_ADDR != 0, port: mark & REUSE_PORT != 0 }
    }

    /// Ends an entry.
    pub fn remove(&mut self, id: u32) {
        match id & V6 {
            0 => self.v4.remove(id),
            _ => self.v6.remove(id & !V6),
        }
    }

    /// The entry that ends first, of either version, and when.
    fn first(&self, now: Instant) -> Option<(Instant, u32)> {
        let v6 = self.v6.oldest(now).map(|(at, id)| (at, id | V6));
        self.v4.oldest(now).into_iter().chain(v6).min()
    }

    /// An entry whose time is over, if there is one, for the caller to remove.
    /// Costs by what is over, not by what is in the table.
    pub fn next_over(&self, now: Instant) -> Option<u32> {
        let (_, id) = self.first(now)?;
        self.entry(id).is_over(now).then_some(id)
    }

    /// The entry whose time began first.
    pub fn oldest(&self, now: Instant) -> Option<u32> {
        self.first(now).map(|(_, id)| id)
    }

    /// When the first of them ends.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.first(now).map(|(at, _)| at)
    }

    /// The time of an entry began anew: it goes behind the others.
    pub fn begin_anew(&mut self, id: u32) {
        match id & V6 {
            0 => {
                self.v4.unlink(id);
                self.v4.link_last(id);
            }
            _ => {
                self.v6.unlink(id & !V6);
                self.v6.link_last(id & !V6);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::Keyed;
    use super::*;
    use crate::tcp::{Config, Connection, Link, Template};
    use crate::time::Duration;
    use core::net::SocketAddr;
    use hashbrown::HashTable;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn key(n: u32, v6: bool) -> FlowKey {
        let remote = match v6 {
            false => core::net::Ipv4Addr::from(0x0a01_0000 + n / 50_000).into(),
            true => core::net::Ipv6Addr::from(1 << 96 | u128::from(n / 50_000)).into(),
        };
        let local = if v6 { "2001:db8::1" } else { "10.0.0.1" };
        FlowKey::new(local.parse().unwrap(), 80, remote, (n % 50_000) as u16)
    }

    /// What a connection leaves behind that begins to wait at `now`.
    fn entry(now: Instant) -> Entry {
        let (local, remote): (SocketAddr, SocketAddr) =
            ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:4000".parse().unwrap());
        let pool = crate::frame::Pool::heap(4, 2048);
        let mut core = crate::stack::Stack::new(crate::stack::Config::default(), pool, 1).core;
        let template = Template::new(Link::Raw, local, remote, 64, 0);
        let (mut env, options) = (super::super::env(&mut core, false), Config::default().options);
        let conn = Connection::connect(&mut env, template, &options, Default::default(), 1500);
        let entry = conn.time_wait(now, &Config::default());
        conn.dispose(&mut core.pool);
        entry
    }

    #[test]
    fn entries_that_end_before_their_time_leave_nothing_behind() {
        let (mut waits, entry) = (Waits::default(), entry(START));
        let oldest = waits.insert(&key(0, false), entry, Reuse::default());
        for n in 1..10_000 {
            let id = waits.insert(&key(n, n % 2 == 0), entry, Reuse::default());
            waits.remove(id);
        }
        assert_eq!((waits.v4.places(), waits.v6.places()), (2, 1));
        assert_eq!((waits.len(), waits.oldest(START)), (1, Some(oldest)));
        assert!(!waits.is_bare());
        waits.remove(oldest);
        assert!(waits.is_bare() && waits.is_empty() && waits.next_deadline(START).is_none());
    }

    #[test]
    fn the_oldest_of_both_versions_goes_first_and_one_that_began_anew_last() {
        let (mut waits, first) = (Waits::default(), entry(START));
        let wait = Config::default().time_wait;
        let at = |n: u32| START + Duration::from_millis(u64::from(n) * 10);
        let mut all: Vec<u32> = (0..100)
            .map(|n| {
                let mut entry = first;
                entry.begin(at(n), &Config::default());
                waits.insert(&key(n, n % 3 == 0), entry, Reuse { addr: n % 2 == 0, port: n % 5 == 0 })
            })
            .collect();
        for (n, &id) in (0..).zip(&all) {
            assert_eq!(waits.key(id), key(n, n % 3 == 0));
            assert_eq!(waits.reuse(id), Reuse { addr: n % 2 == 0, port: n % 5 == 0 });
        }
        // One from the middle, one from each end.
        for n in [50, 0, 98] {
            let id = all.remove(n);
            waits.entry_mut(id).begin(at(200), &Config::default());
            waits.begin_anew(id);
            all.push(id);
        }
        assert_eq!(waits.next_over(at(1) + wait - Duration::from_millis(1)), None);
        let mut over = Vec::new();
        while let Some(deadline) = waits.next_deadline(START) {
            let id = waits.next_over(deadline).expect("one is over at its deadline");
            assert_eq!(waits.oldest(deadline), Some(id));
            waits.remove(id);
            over.push(id);
        }
        // Of the last three, which end together, those of IPv4 come first.
        over[97..].sort_unstable();
        all[97..].sort_unstable();
        assert_eq!(over, all);
        assert!(waits.is_bare());
    }

    #[test]
    fn none_takes_more_than_64_bytes_all_told() {
        let keyed = Keyed::new(*b"0123456789abcdef");
        let (mut waits, mut index) = (Waits::default(), HashTable::<u32>::new());
        let entry = entry(START);
        for n in 1..=250_000 {
            let key = key(n, false);
            let id = waits.insert(&key, entry, Reuse::default());
            index.insert_unique(keyed.flow(&key), id, |&id| keyed.flow(&waits.key(id)));
            // Where little has to share what was taken at once, it is more.
            let bytes = waits.v4.bytes() + index.allocation_size();
            assert!(n < 50_000 || bytes <= 64 * n as usize, "{bytes} bytes for {n} entries");
        }
    }
}
