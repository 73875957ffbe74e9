//! RACK (RFC 8985): what was sent well before something that has arrived, and has
//! not arrived itself, is lost.
//!
//! The RFC looks at segments in the order of their last transmission. Here two
//! orders together give that one: segments sent once lie in the queue in the order
//! of time, and a cursor stands at the first of them that is under way; those
//! sent again have a log. Each step of either marks a segment lost, passes one by
//! for good, or is the last: an ACK costs O(log n) and what it changes.

use super::{Board, Newest, Recovery, Seen};
use crate::tcp::connection::{Bits, Connection};
use crate::tcp::seq;
use crate::tcp::types::Env;
use crate::time::{Duration, Instant};

/// What RACK knows of the latest delivery (RFC 8985, 5.3).
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::tcp) struct Rack {
    /// The last sent segment that has arrived.
    pub newest: Option<Newest>,
    /// How long that took.
    pub rtt: Duration,
}

impl Rack {
    /// RFC 8985, 6.2, steps 1 and 2.
    pub fn update(&mut self, now: Instant, seen: &Seen) {
        let Some(newest) = seen.newest else { return };
        self.rtt = now.since(newest.at);
        if self.newest.is_none_or(|n| newest.is_after(n.at, n.end)) {
            self.newest = Some(newest);
        }
    }
}

/// How the path reorders, as far as it was seen. It outlives recoveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) struct Reordering {
    /// How often later data came first.
    pub seen: u32,
    /// By how many segments at most, the late one counted: so many behind a
    /// missing one tell its loss.
    pub degree: u16,
    /// Quarters of the least round trip that RACK waits.
    pub quarters: u8,
    /// Recoveries until it waits for one quarter again.
    persist: u8,
    /// Another D-SACK counts when this is acknowledged, if it is outstanding.
    round: u32,
}

/// No degree beyond this is believed.
const MOST: u16 = 300;

impl Reordering {
    pub fn new(degree: u8) -> Self {
        Self { seen: 0, degree: degree.max(1).into(), quarters: 1, persist: 0, round: 0 }
    }

    /// Out of order by so many segments: the late one and those that overtook it.
    pub fn overtaken(&mut self, by: u32) {
        self.seen = self.seen.saturating_add(1);
        self.degree = self.degree.max(by.min(MOST.into()) as u16);
    }

    /// A segment was sent again for nothing: wait longer (RFC 8985, 6.2, step 4).
    fn was_hasty(&mut self) {
        self.quarters = self.quarters.saturating_add(1);
        self.persist = 16;
    }

    /// A recovery ended.
    pub fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }
}

impl Connection {
    /// RFC 8985, 6.2, step 3: later data was there before this, and this was sent
    /// once.
    pub(super) fn note_reordering(&mut self, seen: &Seen) {
        if let Some(first) = seen.overtaken {
            let by = seen.fack.wrapping_sub(first);
            self.cold.reordering.overtaken(by.div_ceil(self.hot.mss.into()));
        }
        if seen.duplicates > 0 && !seen.probe_duplicate {
            let (una, nxt) = (self.hot.snd_una, self.hot.snd_nxt);
            let how = &mut self.cold.reordering;
            if !(seq::lt(una, how.round) && seq::le(how.round, nxt)) {
                how.round = nxt;
                how.was_hasty();
            }
        }
    }

    /// RFC 8985, 6.2, step 4: how much later than the latest delivery a segment
    /// may be.
    fn reordering_window(&self, r: &Recovery) -> Duration {
        let how = &self.cold.reordering;
        if how.seen == 0 {
            let recovery = self.hot.bits.intersects(Bits::RECOVERY | Bits::LOSS);
            if recovery || r.board.sacked_segments >= how.degree.into() {
                return Duration::ZERO;
            }
        }
        let quarter = u64::from(self.warm.min_rtt.least()) / 4;
        let window = Duration::from_micros(quarter * u64::from(how.quarters));
        window.min(Duration::from_micros(self.warm.rtt.smoothed().into()))
    }

    /// RFC 8985, 6.2, step 5. What may still be under way is looked at again at
    /// `reorder_at`: when the first of it will be lost.
    pub(super) fn detect_rack(&mut self, env: &Env, r: &mut Recovery) {
        let Some(newest) = r.rack.newest else { return };
        let wait = r.rack.rtt + self.reordering_window(r);
        let (board, queue) = (&mut r.board, &mut self.hot.send);
        while let Some(&entry) = board.resent.front() {
            if let Some(i) = Board::entry(queue, &entry) {
                if !newest.is_after(entry.at, queue.get(i).end()) {
                    break;
                }
                if entry.at + wait > env.now {
                    r.reorder_at = r.reorder_at.min(entry.at + wait);
                    break;
                }
                board.lose(queue, i);
            }
            board.resent.pop_front();
        }
        while let Some(i) = board.next_fresh(queue, self.hot.snd_nxt) {
            let (at, end) = (queue.get(i).sent_at, queue.get(i).end());
            if !newest.is_after(at, end) {
                break;
            }
            if at + wait > env.now {
                r.reorder_at = r.reorder_at.min(at + wait);
                break;
            }
            board.lose(queue, i);
        }
    }

    /// RFC 8985, 6.3: at a time-out the first is lost, and all that was sent so
    /// long ago; what left a moment ago is not.
    pub(super) fn lose_on_timeout(&mut self, env: &Env, r: &mut Recovery) {
        // While there were no books the latest round trip was not noted.
        let smoothed = Duration::from_micros(self.warm.rtt.smoothed().into());
        let rtt = if r.rack.newest.is_some() { r.rack.rtt } else { smoothed };
        let wait = rtt + self.reordering_window(r);
        for i in 0..self.hot.send.sent() as usize {
            if i == 0 || self.hot.send.get(i).sent_at + wait <= env.now {
                r.board.lose(&mut self.hot.send, i);
            }
        }
    }
}
