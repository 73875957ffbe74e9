//! Losses that were none: what shows it (D-SACK, RFC 2883 and 3708; Eifel, RFC
//! 3522; F-RTO, RFC 5682), and how all becomes what it was.

use super::{Recovery, Seen};
use crate::tcp::connection::{Bits, Connection};
use crate::tcp::seq;
use crate::tcp::types::Env;
use crate::time::Instant;

/// What one recovery sent again, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::tcp) struct Undo {
    /// SND.UNA when it began; none: there is nothing to undo.
    marker: Option<u32>,
    /// Transmissions that were not reported as duplicates; none before the first.
    left: Option<u32>,
    /// When the first of them left, in milliseconds.
    stamp: Option<u32>,
}

impl Undo {
    /// A recovery begins; so many segments under way were sent again before.
    pub fn begin(&mut self, una: u32, resent: u32) {
        let left = (resent > 0).then_some(resent);
        *self = Self { marker: Some(una), left, stamp: None };
    }

    /// Fast recovery begins. What the one before sent again, and is still under way,
    /// is no proof of a delay when it arrives.
    pub fn begin_fast(&mut self, una: u32, resent: u32) {
        let stamp = self.stamp.filter(|_| resent > 0);
        self.begin(una, resent);
        self.stamp = stamp;
    }

    /// A segment was sent again.
    pub fn resent(&mut self, now: Instant) {
        if self.marker.is_some() {
            self.left = Some(self.left.unwrap_or(0) + 1);
            self.stamp.get_or_insert(now.as_millis_wrapping());
        }
    }

    /// So many segments up to `right` came twice.
    pub fn duplicates(&mut self, right: u32, segments: u32) {
        if self.marker.is_some_and(|marker| seq::gt(right, marker)) {
            self.left = self.left.map(|left| left.saturating_sub(segments));
        }
    }

    /// All that was sent again came twice.
    pub fn is_complete(&self) -> bool {
        self.marker.is_some() && self.left == Some(0)
    }

    /// The news of this recovery may not all be in.
    pub fn is_open(&self) -> bool {
        self.marker.is_some()
    }

    /// What an ACK of new data is for arrived before anything that was sent again
    /// (RFC 3522), or nothing was sent again yet.
    pub fn is_delayed(&self, seen: &Seen) -> bool {
        match (self.stamp, seen.echo) {
            _ if self.marker.is_none() => false,
            (Some(stamp), Some(echo)) => seq::lt(echo, stamp),
            (Some(_), None) => false,
            (None, _) => self.left.is_none() && !seen.resent,
        }
    }
}

/// How far F-RTO is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::tcp) enum Frto {
    /// The time-out was real, or there was none.
    #[default]
    Off,
    /// The first segment was sent again; its ACK is waited for (step 1).
    Waiting,
    /// It moved the window: new data goes before what seems lost (step 2b).
    New,
}

impl Connection {
    /// An ACK after a time-out (RFC 5682, 2.1 and 3.1).
    pub(super) fn in_loss(&mut self, env: &mut Env, r: &mut Recovery, seen: &Seen, advanced: bool) {
        if r.undo.is_complete() || advanced && r.undo.is_delayed(seen) {
            return self.undo(env, r);
        }
        let over = advanced && seq::ge(self.hot.snd_una, self.cold.recover);
        if r.frto != Frto::Off {
            // Step 3b: what was sent once came through. Without SACK the segment
            // that was sent again may have set free what waited behind it.
            let sack = self.hot.bits.contains(Bits::SACK);
            if seen.fresh && (sack || !seen.resent) {
                return self.undo(env, r);
            }
            r.frto = self.next_frto(r.frto, seen, advanced);
        }
        if over {
            self.hot.bits -= Bits::LOSS;
            self.recovery_is_over(r);
        }
    }

    fn next_frto(&self, now: Frto, seen: &Seen, advanced: bool) -> Frto {
        let h = &self.hot;
        let duplicate = seen.sacked > 0 || h.dup_acks > 0;
        let edge = h.snd_una.wrapping_add(h.snd_wnd);
        match now {
            Frto::Waiting if advanced => {
                let more = h.send.has_unsent() && seq::lt(h.snd_nxt, edge);
                if more { Frto::New } else { Frto::Off }
            }
            Frto::Waiting if h.dup_acks == 0 => now,
            // Step 3a: a duplicate after new data, or instead of progress.
            _ if duplicate || now == Frto::Waiting => Frto::Off,
            _ => now,
        }
    }

    /// Nothing was lost: windows and marks are what they were.
    pub(super) fn undo(&mut self, env: &mut Env, r: &mut Recovery) {
        if !self.hot.bits.contains(Bits::LOSS) {
            // What was not lost was overtaken.
            let by = seq::distance(self.hot.snd_una, r.board.fack);
            self.cold.reordering.overtaken(by.div_ceil(self.hot.mss.into()));
        }
        let h = &mut self.hot;
        r.board.nothing_lost(&mut h.send);
        h.bits -= Bits::RECOVERY | Bits::LOSS | Bits::FIN_LOST;
        if !h.bits.contains(Bits::SACK) {
            h.send.set_sacked(0);
        }
        self.warm.congestion.undo();
        self.withdraw_reduction();
        env.counters.tcp_undone += 1;
        (r.undo, r.untold) = (Undo::default(), 0);
        self.recovery_is_over(r);
    }
}
