//! An ACK while something is not as usual: SACK blocks, duplicates, a recovery
//! that is under way or was a moment ago.

use super::{Frto, Recovery, Seen, dsack};
use crate::tcp::ack::Progress;
use crate::tcp::config::LossDetection;
use crate::tcp::connection::{Bits, Connection, Watch};
use crate::tcp::seq;
use crate::tcp::timers::{Mode, Timer};
use crate::tcp::types::{Disposition, Env};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Flags, Segment};

/// How things stood before the ACK.
struct Before {
    una: u32,
    pipe: u32,
    /// Bytes outstanding: the flight that a loss halves. One ACK may be for much
    /// of it, so that little is left of it afterwards.
    flight: u32,
    sacked: u32,
    queued: u32,
    in_recovery: bool,
}

impl Connection {
    /// A mere ACK that neither tells of anything that arrived nor moves the window.
    fn says_nothing_new(&self, seg: &Segment, seen: &Seen) -> bool {
        let bare = seg.payload_len == 0 && !seg.flags.intersects(Flags::SYN | Flags::FIN);
        bare && seen.delivered == 0 && u32::from(seg.window) << self.hot.snd_scale == self.hot.snd_wnd
    }

    /// True where the ACK field of this segment takes [`Self::ack_booked`].
    #[inline]
    pub(in crate::tcp) fn is_booked(&self, seg: &Segment) -> bool {
        let bits = self.hot.bits;
        bits.contains(Bits::BOOKS)
            || bits.contains(Bits::SACK) && !seg.options.sack.is_empty()
            || self.is_duplicate_ack(seg)
    }

    /// The ACK field and the SACK blocks of a segment, while there are books or
    /// when it begins some. The ACK field is not beyond what was sent.
    #[cold]
    pub(in crate::tcp) fn ack_booked(&mut self, env: &mut Env, seg: &Segment) -> Disposition {
        let una = self.hot.snd_una;
        let duplicate = self.is_duplicate_ack(seg);
        let mut r = match self.cold.recovery.take() {
            Some(r) => r,
            None if duplicate || !seg.options.sack.is_empty() => Box::new(Recovery::new(una)),
            None => return Disposition::NONE,
        };
        let before = Before {
            una,
            pipe: self.pipe(),
            flight: self.hot.snd_nxt.wrapping_sub(una),
            sacked: self.hot.send.sacked(),
            queued: self.queued(),
            in_recovery: self.hot.bits.contains(Bits::RECOVERY),
        };
        let mut seen = self.nothing_seen(env, &r, seg);
        if self.hot.bits.contains(Bits::SACK) {
            self.take_blocks(env, &mut r, seg, &mut seen);
        }
        if seq::gt(seg.ack, una) {
            self.take_cumulative(env, &mut r, seg, &mut seen);
        } else if duplicate {
            self.duplicate_arrives(&mut seen);
        }
        if r.frto == Frto::New && seg.ack == una && self.says_nothing_new(seg, &seen) {
            // RFC 5682, step 3a: the peer may have thrown away what came.
            r.frto = Frto::Off;
        }
        self.measure_booked(env, seg, &seen, self.hot.snd_una != una);
        self.note_reordering(&seen);
        r.rack.update(env.now, &seen);
        self.judge(env, &mut r, &seen, &before);
        self.tail_probe_answered(env, &mut r, seg, &seen);
        self.adjust_window(env, &mut r, &seen, &before);
        self.after_booked(env, r, self.hot.snd_una != una);
        Disposition { events: self.make_room(env, before.queued), flush: true }
    }

    fn nothing_seen(&self, env: &Env, r: &Recovery, seg: &Segment) -> Seen {
        let time = self.hot.bits.contains(Bits::TIMESTAMPS);
        let echo = seg.options.timestamp.filter(|_| time);
        Seen {
            min_rtt: self.least_rtt(),
            echo: echo.map(|t| t.1.wrapping_sub(self.warm.ts_offset)),
            ..Seen::nothing(env.now, r.board.fack, self.cold.recover)
        }
    }

    /// The SACK option: perhaps a D-SACK block in front, then what the peer has.
    fn take_blocks(&mut self, env: &mut Env, r: &mut Recovery, seg: &Segment, seen: &mut Seen) {
        let mut blocks = &seg.options.sack[..];
        if let Some(block) = dsack::duplicate(blocks, seg.ack) {
            blocks = &blocks[1..];
            self.duplicate_reported(env, r, block, seen);
        }
        let h = &mut self.hot;
        for block in blocks {
            // RFC 2018: of what is outstanding. An old ACK may tell of what was
            // acknowledged since.
            let outside = seq::le(block.right, block.left)
                || seq::gt(block.right, h.snd_nxt)
                || seq::lt(block.left, h.snd_una.wrapping_sub(self.warm.max_wnd));
            if outside {
                env.counters.tcp_sack_discarded += 1;
                continue;
            }
            let left = seq::max(block.left, h.snd_una);
            if seq::lt(left, block.right) {
                r.board.tag(&mut h.send, left, block.right, seen);
            }
        }
    }

    fn take_cumulative(&mut self, env: &mut Env, r: &mut Recovery, seg: &Segment, seen: &mut Seen) {
        let h = &mut self.hot;
        let bytes = seg.ack.wrapping_sub(h.snd_una);
        let (sack, mss) = (h.bits.contains(Bits::SACK), u32::from(h.mss));
        h.send.acknowledge_booked(env.pool, seg.ack, &mut r.board, seen);
        h.snd_una = seg.ack;
        r.board.pass(&mut h.send, seg.ack, sack);
        if !sack {
            // The first was missing, what came behind it was told by duplicates.
            let told = bytes.saturating_sub(mss).min(h.send.sacked());
            let left = h.send.sacked() - told;
            h.send.set_sacked(if h.bits.contains(Bits::RECOVERY) { left } else { 0 });
            seen.delivered = seen.delivered.saturating_sub(told);
        }
        (h.dup_acks, h.retries) = (0, 0);
        self.warm.watch -= Watch::STALLED;
        self.warm.bytes_acked += u64::from(bytes);
    }

    /// By number, else by SACK, else by the echoed timestamp where new data was
    /// acknowledged.
    fn measure_booked(&mut self, env: &Env, seg: &Segment, seen: &Seen, advanced: bool) {
        let at = seen.sent_at.or(seen.sacked_at);
        if advanced || at.is_some() {
            let end = seen.newest.map_or(seg.ack, |n| seq::max(n.end, seg.ack));
            self.measure(env, end, seg.options.timestamp.filter(|_| advanced), at);
            if self.hot.bits.contains(Bits::LOSS) {
                // What was in flight takes many round trips to be acknowledged now:
                // with one measurement for all of them, an RTO that a long one drove
                // up would come down by an eighth with each expiry.
                self.warm.rtt_seq = self.hot.snd_una;
            }
        }
    }

    /// What the ACK says about losses, recovery and its end.
    fn judge(&mut self, env: &mut Env, r: &mut Recovery, seen: &Seen, before: &Before) {
        let advanced = self.hot.snd_una != before.una;
        let trouble = self.hot.bits.intersects(Bits::LOSS | Bits::RECOVERY);
        if self.hot.bits.contains(Bits::LOSS) {
            self.in_loss(env, r, seen, advanced);
        } else if self.hot.bits.contains(Bits::RECOVERY) {
            self.in_recovery(env, r, seen, before);
        } else if r.undo.is_complete() {
            // Recovery was over before it came out that there was no loss.
            self.undo(env, r);
        }
        self.detect(env, r, advanced);
        self.excuse_probe(env, r);
        let idle = !self.hot.bits.intersects(Bits::LOSS | Bits::RECOVERY);
        // What was sent since the last began, and was lost while it lasted, makes the
        // next, whether it went again or not.
        let left = trouble && r.undo.is_open() && r.board.retransmitted + r.board.lost_segments > 0;
        if idle && (left || self.hot.send.lost() > 0 && r.is_detected) {
            // Behind a hole more was outstanding than was under way.
            let now = (self.hot.snd_nxt.wrapping_sub(self.hot.snd_una), self.hot.send.sacked());
            let (flight, sacked) = if left { now } else { (before.flight, before.sacked) };
            self.enter_recovery(env, r, flight, sacked);
        }
    }

    /// Fast recovery ends where all is acknowledged that was under way when it
    /// began, or where nothing was lost.
    fn in_recovery(&mut self, env: &mut Env, r: &mut Recovery, seen: &Seen, before: &Before) {
        let advanced = self.hot.snd_una != before.una;
        if r.undo.is_complete() || advanced && r.undo.is_delayed(seen) {
            return self.undo(env, r);
        }
        if advanced && seq::ge(self.hot.snd_una, self.cold.recover) {
            self.leave_recovery(env, r, before.pipe);
        }
    }

    /// Was only a probe of the path lost, that is not congestion (RFC 4821, 7.6.2).
    #[inline]
    pub(super) fn excuse_probe(&mut self, env: &mut Env, r: &mut Recovery) {
        if r.is_detected && self.hot.bits.contains(Bits::CARE) && self.is_probe_lost(env, r) {
            r.is_detected = false;
            r.untold = r.untold.saturating_sub(self.hot.send.lost());
        }
    }

    /// Losses that this ACK, or the passing of time, shows.
    pub(super) fn detect(&mut self, env: &mut Env, r: &mut Recovery, advanced: bool) {
        let before = self.hot.send.lost();
        r.reorder_at = Instant::NEVER;
        if !self.hot.bits.contains(Bits::SACK) {
            self.detect_newreno(r, advanced);
        } else if env.config.loss_detection == LossDetection::Rack {
            self.detect_rack(env, r);
        } else {
            self.detect_dupack(r);
        }
        r.is_detected = self.hot.send.lost() > before;
        r.untold = r.untold.saturating_add(self.hot.send.lost().saturating_sub(before));
    }

    /// Fast recovery begins: the window shrinks, step by step (RFC 6937).
    pub(super) fn enter_recovery(
        &mut self,
        env: &mut Env,
        r: &mut Recovery,
        flight: u32,
        sacked: u32,
    ) {
        let h = &mut self.hot;
        r.undo.begin_fast(h.snd_una, r.board.retransmitted);
        r.prr.begin(flight.saturating_sub(sacked));
        r.tail = None;
        self.cold.recover = h.snd_nxt;
        h.bits |= Bits::RECOVERY;
        env.counters.tcp_recoveries += 1;
        self.reduce_for_loss(env, flight);
    }

    /// With so much in the pipe until now: after the reduction step by step that is
    /// about the target, and no burst (RFC 6582, 3.2, step 3).
    fn leave_recovery(&mut self, env: &mut Env, r: &mut Recovery, pipe: u32) {
        let h = &mut self.hot;
        h.bits -= Bits::RECOVERY;
        if !h.bits.contains(Bits::SACK) {
            h.send.set_sacked(0);
        }
        self.warm.congestion.on_recovered(env.now, pipe, h.mss.into());
        self.recovery_is_over(r);
    }

    /// What happens at the end of recovery of either kind.
    pub(super) fn recovery_is_over(&mut self, r: &mut Recovery) {
        r.frto = Frto::Off;
        r.linger = self.hot.snd_nxt;
        self.cold.reordering.recovered();
    }

    /// Congestion control hears of it; in fast recovery the window follows from
    /// what was delivered.
    fn adjust_window(&mut self, env: &mut Env, r: &mut Recovery, seen: &Seen, before: &Before) {
        let newly_lost = core::mem::take(&mut r.untold);
        let advanced = self.hot.snd_una.wrapping_sub(before.una);
        if seen.delivered > 0 || advanced > 0 || newly_lost > 0 {
            let ruled = before.in_recovery && !self.warm.congestion.owns_recovery();
            let limited = !ruled && self.is_window_limited(before.pipe);
            let progress = Progress {
                // What was known to be there before makes no window larger now.
                acked: advanced.min(seen.delivered),
                merged: 0,
                delivered: seen.delivered,
                lost: newly_lost,
                limited,
                sent_at: seen.sent_at.or(seen.sacked_at),
                newest: seen.newest.map(|newest| newest.at),
            };
            self.tell_congestion(env, &progress);
        }
        let h = &mut self.hot;
        if h.bits.contains(Bits::RECOVERY) && !self.warm.congestion.owns_recovery() && seen.delivered > 0 {
            let pipe = self.pipe();
            let h = &mut self.hot;
            let safe = advanced > 0 && !r.is_detected;
            let threshold = self.warm.congestion.threshold();
            let room = r.prr.room(seen.delivered, safe, pipe, threshold, h.mss.into());
            self.warm.congestion.window = pipe + room;
        }
    }

    /// Sets the timer, and puts the books back or away.
    pub(super) fn after_booked(
        &mut self,
        env: &mut Env,
        r: Box<Recovery>,
        advanced: bool,
    ) {
        let reorder_at = r.reorder_at;
        let reneging = self.hot.send.front().is_some_and(|s| {
            s.marks.contains(crate::tcp::send_queue::Marks::SACKED)
        });
        self.put_books(r);
        let h = &mut self.hot;
        if h.snd_una == h.snd_nxt {
            self.warm.timers.stop(Timer::Retransmit);
            if self.cold.recovery.is_some() {
                // Nothing is under way: the books are closed a while later.
                self.warm.timers.set(Timer::Retransmit, env.now + self.warm.rtt.rto(0, env.config));
                self.warm.mode = Mode::Settle;
            }
            return;
        }
        // RFC 6298, 5.3; and where the timer was set for what is no longer waited for.
        let trouble = Bits::NO_PROBE | Bits::RECOVERY | Bits::LOSS;
        let stale = match self.warm.mode {
            Mode::Probe => h.bits.intersects(trouble),
            Mode::Reorder => true,
            _ => false,
        };
        if advanced || stale {
            self.set_retransmit(env.now, env.config);
        }
        if reneging {
            // The peer has what it does not acknowledge: it may have thrown it
            // away (RFC 2018, 8). Not much time is lost until it is sent again.
            let soon = Duration::from_micros((self.warm.rtt.smoothed() / 2).into());
            self.warm.timers.set(Timer::Retransmit, env.now + soon.max(Duration::from_millis(10)));
            self.warm.mode = Mode::Retransmit;
        } else if reorder_at < Instant::NEVER {
            self.warm.timers.set(Timer::Retransmit, reorder_at);
            self.warm.mode = Mode::Reorder;
        }
    }

    /// The books go back to their place, or away if there is nothing in them: a
    /// round trip after the last recovery, since the news that it was not needed
    /// take as long.
    pub(super) fn put_books(&mut self, r: Box<Recovery>) {
        let h = &mut self.hot;
        let busy = h.bits.intersects(Bits::RECOVERY | Bits::LOSS)
            || !r.board.is_clear()
            || h.send.sacked() > 0
            || r.tail.is_some()
            || r.undo.is_open() && seq::le(h.snd_una, r.linger);
        h.bits.set(Bits::NO_PROBE, !r.board.sacked.is_empty() || r.tail.is_some());
        h.bits.set(Bits::BOOKS, busy);
        self.cold.recovery = busy.then_some(r);
    }
}
