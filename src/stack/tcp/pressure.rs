//! Where memory is short: connections whose peers take nothing are ended, those
//! that have stood still for the longest time first (sockstress); and there are no
//! more connections without a program than a bound.
//!
//! The memory is the pool's frames. Above `frames_low` free ones nothing is held
//! back. Below it payloads are copied together, nothing more is kept ahead of
//! gaps, and connections that have been stalled for `stall_grace` go until there
//! are enough again. Sending stops at `frame_reserve`, which is left for ACKs.

use super::{Marks, Table, env};
use crate::stack::core::Core;
use crate::time::Instant;
use std::collections::VecDeque;

/// Entries of slots that are used otherwise by now, which may stay beside as many
/// as there are connections.
const SLACK: usize = 64;

/// Connections in the order in which their peers' windows were found shut.
#[derive(Debug, Default)]
pub(super) struct Stalled {
    /// Slot, its generation, and since when.
    queue: VecDeque<(u32, u32, Instant)>,
}

impl Stalled {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Table {
    /// A timer of the connection expired: perhaps its peer takes nothing.
    #[cold]
    pub(super) fn note_stalled(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        let since = slot.conn.as_ref().and_then(|c| c.stalled_since());
        let Some(since) = since.filter(|_| !slot.marks.contains(Marks::STALLED)) else { return };
        slot.marks.insert(Marks::STALLED);
        self.stalled.queue.push_back((id, slot.generation, since));
        if self.stalled.queue.len() > 2 * self.live + SLACK {
            let slots = &self.slots;
            let live = |&(id, generation, _): &(u32, u32, Instant)| {
                let slot: &super::Slot = &slots[id as usize];
                slot.generation == generation && slot.conn.is_some()
            };
            self.stalled.queue.retain(live);
        }
    }

    /// Ends stalled connections, the oldest first, until there are frames again.
    #[cold]
    pub(super) fn relieve(&mut self, core: &mut Core) {
        while core.pool.available() < core.config.tcp.frames_low {
            let Some((id, generation, noted)) = self.stalled.queue.pop_front() else { return };
            let slot = &mut self.slots[id as usize];
            let Some(conn) = slot.conn.as_mut().filter(|_| slot.generation == generation) else {
                continue;
            };
            let Some(since) = conn.stalled_since() else {
                slot.marks.remove(Marks::STALLED);
                continue;
            };
            if since > noted {
                // It went on for a while, and stands again.
                self.stalled.queue.push_back((id, generation, since));
                continue;
            }
            if core.now.since(since) < core.config.table.stall_grace {
                return self.stalled.queue.push_front((id, generation, noted));
            }
            slot.marks.remove(Marks::STALLED);
            let looped = slot.marks.contains(Marks::LOOPED);
            let done = conn.starve(&mut env(core, looped));
            core.counters.tcp_stalled_ended += 1;
            self.touch(id);
            self.report(core, id, done.events);
        }
    }

    /// The program gives a connection up that is not over: one more that nobody
    /// has. False where there are too many of them.
    pub(super) fn orphan(&mut self, core: &mut Core, id: u32) -> bool {
        if self.orphans >= core.config.table.max_orphans {
            core.counters.tcp_orphans_reset += 1;
            return false;
        }
        self.orphans += 1;
        self.slots[id as usize].marks.insert(Marks::ORPHAN);
        true
    }
}
