//! TIME-WAIT: a table of compact entries, oldest first.

use super::hash::FlowKey;
use super::ports::Reuse;
use crate::tcp::time_wait::Entry;
use crate::time::Instant;
use std::collections::VecDeque;

/// One connection in TIME-WAIT.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Its addresses and ports.
    pub key: FlowKey,
    /// What TCP has to remember.
    pub entry: Entry,
}

const _: () = assert!(size_of::<Waiting>() <= 64);

/// The entry is in the table.
const LIVE: u8 = 1;
/// Its socket had set SO_REUSEADDR.
const REUSE: u8 = 2;
/// Its time began anew after it was queued.
const ANEW: u8 = 4;
/// Its socket had set SO_REUSEPORT.
const PORT: u8 = 8;

/// Slots of ended entries that may stay beside as many as are live.
const SLACK: usize = 64;

/// The table. All entries last equally long, so the queue is in the order of
/// their ends, but for those that a repeated FIN made younger.
#[derive(Debug, Default)]
pub struct Waits {
    slots: Vec<Waiting>,
    flags: Vec<u8>,
    free: Vec<u32>,
    /// Every slot that is not free, dead ones included.
    queue: VecDeque<u32>,
    live: usize,
}

impl Waits {
    /// Entries.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True where there is none, dead ones included.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds an entry.
    pub fn insert(&mut self, waiting: Waiting, reuse: Reuse) -> u32 {
        let flag = |on, flag| if on { flag } else { 0 };
        let flags = LIVE | flag(reuse.addr, REUSE) | flag(reuse.port, PORT);
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = waiting;
                self.flags[id as usize] = flags;
                id
            }
            None => {
                self.slots.push(waiting);
                self.flags.push(flags);
                self.slots.len() as u32 - 1
            }
        };
        self.queue.push_back(id);
        self.live += 1;
        id
    }

    /// True where there is no entry, and every slot is free again.
    pub fn is_bare(&self) -> bool {
        self.live == 0 && self.queue.is_empty() && self.free.len() == self.slots.len()
    }

    /// The entry of this number.
    #[inline]
    pub fn get(&self, id: u32) -> &Waiting {
        &self.slots[id as usize]
    }

    /// The entry of this number, to change.
    #[inline]
    pub fn get_mut(&mut self, id: u32) -> &mut Waiting {
        &mut self.slots[id as usize]
    }

    /// SO_REUSEADDR and SO_REUSEPORT of the entry's socket.
    pub fn reuse(&self, id: u32) -> Reuse {
        let flags = self.flags[id as usize];
        Reuse { addr: flags & REUSE != 0, port: flags & PORT != 0 }
    }

    /// Ends an entry; its slot is free once the queue has come to it.
    pub fn remove(&mut self, id: u32) {
        debug_assert!(self.flags[id as usize] & LIVE != 0);
        self.flags[id as usize] &= !LIVE;
        self.live -= 1;
        if self.queue.len() > 2 * self.live + SLACK {
            self.compact();
        }
    }

    /// Frees the slots of entries that ended before their time: connections that
    /// are opened again and again would leave any number of them.
    #[cold]
    fn compact(&mut self) {
        let Self { queue, flags, free, .. } = self;
        queue.retain(|&id| {
            let live = flags[id as usize] & LIVE != 0;
            if !live {
                free.push(id);
            }
            live
        });
    }

    /// An entry whose time is over, if there is one, for the caller to remove.
    /// Costs by what is over, not by what is in the table.
    pub fn next_over(&mut self, now: Instant) -> Option<u32> {
        let id = self.oldest()?;
        self.slots[id as usize].entry.is_over(now).then_some(id)
    }

    /// The entry whose time began first.
    pub fn oldest(&mut self) -> Option<u32> {
        while let Some(&id) = self.queue.front() {
            let flags = &mut self.flags[id as usize];
            if *flags & (LIVE | ANEW) == LIVE {
                return Some(id);
            }
            self.queue.pop_front();
            if *flags & LIVE == 0 {
                self.free.push(id);
            } else {
                *flags &= !ANEW;
                self.queue.push_back(id);
            }
        }
        None
    }

    /// When the first in the queue ends, or would have.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.queue.front().map(|&id| self.slots[id as usize].entry.expires(now))
    }

    /// The time of an entry began anew: it goes behind the others.
    pub fn begin_anew(&mut self, id: u32) {
        self.flags[id as usize] |= ANEW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{Config, Link, Template};

    fn waiting() -> Waiting {
        let (local, remote) = ("10.0.0.1:80", "10.0.0.2:4000");
        let (local, remote): (core::net::SocketAddr, core::net::SocketAddr) =
            (local.parse().unwrap(), remote.parse().unwrap());
        let mut core = crate::stack::Stack::new(
            crate::stack::Config::default(),
            crate::frame::Pool::heap(4, 2048),
            1,
        )
        .core;
        let template = Template::new(Link::Raw, local, remote, 64, 0);
        let options = Config::default().options;
        let mut env = super::super::env(&mut core, false);
        let initial = Default::default();
        let conn = crate::tcp::Connection::connect(&mut env, template, &options, initial, 1500);
        let entry = conn.time_wait(Instant::ZERO, &Config::default());
        conn.dispose(&mut core.pool);
        Waiting { key: FlowKey::new(local.ip(), 80, remote.ip(), 4000), entry }
    }

    #[test]
    fn entries_that_end_before_their_time_leave_nothing_behind() {
        let (mut waits, waiting) = (Waits::default(), waiting());
        let oldest = waits.insert(waiting, Reuse::default());
        for _ in 0..10_000 {
            let id = waits.insert(waiting, Reuse::default());
            waits.remove(id);
        }
        assert!(waits.slots.len() < 200, "{} slots", waits.slots.len());
        assert_eq!((waits.len(), waits.oldest()), (1, Some(oldest)));
    }
}
