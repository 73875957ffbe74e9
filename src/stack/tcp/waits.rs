//! TIME-WAIT: a table of compact entries, oldest first.

use super::hash::FlowKey;
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

    /// Adds an entry.
    pub fn insert(&mut self, waiting: Waiting, reuse_addr: bool) -> u32 {
        let flags = LIVE | if reuse_addr { REUSE } else { 0 };
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

    /// SO_REUSEADDR was set on the entry's socket.
    pub fn reuse_addr(&self, id: u32) -> bool {
        self.flags[id as usize] & REUSE != 0
    }

    /// Ends an entry; its slot is free once the queue has come to it.
    pub fn remove(&mut self, id: u32) {
        debug_assert!(self.flags[id as usize] & LIVE != 0);
        self.flags[id as usize] &= !LIVE;
        self.live -= 1;
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
