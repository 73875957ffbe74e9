//! What an acknowledgment moves: the send queue, the round trip time, the
//! windows.

use super::congestion;
use super::connection::{Bits, Connection, Watch};
use super::rtt::PROBED;
use super::seq;
use super::timers::{Mode, Timer};
use super::types::{Disposition, Env, Events};
use crate::time::{Duration, Instant};

/// What a segment acknowledged, for congestion control.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Bytes acknowledged by the cumulative number.
    pub acked: u32,
    /// ACKs merged into this one; zero where it stands for itself.
    pub merged: u32,
    /// Bytes newly acknowledged or selectively acknowledged.
    pub delivered: u32,
    /// Bytes newly marked lost.
    pub lost: u32,
    /// The window held the sender back.
    pub limited: bool,
    /// When the last of the segments was sent, if that tells its round trip time.
    pub sent_at: Option<Instant>,
    /// When the last sent of what was delivered had left.
    pub newest: Option<Instant>,
}

impl Connection {
    /// SND.UNA < SEG.ACK <= SND.NXT: new data is acknowledged, and there are no
    /// books of losses.
    #[inline(always)]
    pub(super) fn acknowledged(
        &mut self,
        env: &mut Env,
        ack: u32,
        timestamp: Option<(u32, u32)>,
        merged: u32,
    ) -> Disposition {
        let queued = self.queued();
        let h = &mut self.hot;
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        let bytes = ack.wrapping_sub(h.snd_una);
        let sent_at = h.send.acknowledge(env.pool, ack);
        h.snd_una = ack;
        (h.dup_acks, h.retries) = (0, 0);
        // Of merged ACKs none need have been for as much.
        if bytes >= h.mss.into() && merged == 0 {
            self.cold.acked_mss = h.mss;
        }
        self.warm.watch -= Watch::STALLED;
        self.warm.bytes_acked += u64::from(bytes);
        self.measure(env, ack, timestamp, sent_at);
        self.open_window(env, (bytes, merged), flight, sent_at);
        let flush = self.hot.send.has_unsent();
        // RFC 6298, 5.2 and 5.3.
        if self.hot.snd_una == self.hot.snd_nxt {
            self.warm.timers.stop(Timer::Retransmit);
        } else {
            self.set_retransmit(env.now, env.config);
        }
        let events = self.make_room(env, queued);
        Disposition { events, flush: flush || self.owes_fin() }
    }

    /// What an ACK means to writers, where so many bytes were queued before it: above
    /// two thirds of the buffer, which may grow then, and not any more.
    #[inline(always)]
    pub(super) fn make_room(&mut self, env: &Env, queued: u32) -> Events {
        let was_full = self.was_full(queued);
        if was_full {
            self.tune_sent(env);
        }
        if was_full && self.writable() { Events::WRITABLE } else { Events::empty() }
    }

    /// With so many bytes queued no writer was told of room.
    #[inline(always)]
    pub(super) fn was_full(&self, queued: u32) -> bool {
        u64::from(queued) * 3 > u64::from(self.hot.snd_buf) * 2
    }

    /// Lets the congestion window grow, if it was what held the sender back.
    #[inline]
    pub(super) fn open_window(
        &mut self,
        env: &Env,
        (bytes, merged): (u32, u32),
        flight: u32,
        sent_at: Option<Instant>,
    ) {
        let limited = self.is_window_limited(flight);
        let congestion = &self.warm.congestion;
        if limited || congestion.wants_all() || self.warm.watch.contains(Watch::FLOW) {
            let most = self.most_under_way(self.hot.snd_una.wrapping_sub(bytes), flight);
            let limited = limited || self.is_window_limited(most);
            let progress = Progress { acked: bytes, merged, delivered: bytes, limited, ..Progress::default() };
            self.tell_congestion(env, &Progress { sent_at, newest: sent_at, ..progress });
        }
    }

    /// With so much under way the window was what held the sender back: in slow
    /// start half a window is enough, after it all of it.
    #[inline]
    pub(super) fn is_window_limited(&self, flight: u32) -> bool {
        let (congestion, mss) = (&self.warm.congestion, u32::from(self.hot.mss));
        flight.saturating_add(2 * mss) > congestion.window
            || flight.saturating_mul(2) > congestion.window
                && congestion.window < congestion.threshold()
    }

    /// The least round trip time lately; zero before the first.
    pub(super) fn least_rtt(&self) -> Duration {
        Duration::from_micros(self.warm.min_rtt.least().into())
    }

    /// Tells congestion control of what was acknowledged, delivered and lost.
    #[inline(never)]
    pub(super) fn tell_congestion(&mut self, env: &Env, p: &Progress) {
        let (in_flight, recovery) = (self.pipe(), self.hot.bits.contains(Bits::RECOVERY));
        let rate = self.sample_rate(env, p);
        let (total, ece) = (self.delivered(), self.echoes());
        let h = &mut self.hot;
        let srtt = Duration::from_micros(self.warm.rtt.smoothed().into());
        self.warm.congestion.on_ack(&congestion::Ack {
            now: env.now,
            acked: p.acked,
            acks: p.merged + 1,
            delivered: p.delivered,
            lost: p.lost,
            in_flight,
            una: h.snd_una,
            nxt: h.snd_nxt,
            total,
            mss: h.mss.into(),
            rtt: p.sent_at.map(|at| env.now.since(at)),
            srtt,
            ece,
            recovery,
            window_limited: p.limited,
            rate,
        });
    }

    /// A round trip time from this ACK: one a round trip is enough (RFC 7323,
    /// 4.2). By our own note where the segment was sent once (Karn), else by the
    /// echoed timestamp.
    #[inline]
    pub(super) fn measure(
        &mut self,
        env: &Env,
        ack: u32,
        timestamp: Option<(u32, u32)>,
        sent_at: Option<Instant>,
    ) {
        if seq::lt(ack, self.warm.rtt_seq) {
            return;
        }
        let took = match sent_at {
            Some(at) => env.now.since(at),
            None => match self.echoed(env, timestamp.map(|t| t.1)) {
                // The clock of timestamps is no finer.
                Some(took) => took.max(Duration::from_millis(1)),
                None => return,
            },
        };
        self.warm.rtt.sample(took);
        self.warm.min_rtt.sample(took, env.now);
        self.warm.rtt_seq = self.hot.snd_nxt;
        // The backed-off RTO lasts until something was measured (Karn; RFC 6298, 5).
        self.hot.backoff = 0;
    }

    /// How long ago the echoed timestamp was ours.
    pub(super) fn echoed(&self, env: &Env, echo: Option<u32>) -> Option<Duration> {
        if !self.hot.bits.contains(Bits::TIMESTAMPS) {
            return None;
        }
        let ms = self.ts_now(env.now).wrapping_sub(echo?);
        (ms < 1 << 30).then(|| Duration::from_millis(ms.into()))
    }

    /// The peer's window, if this segment is newer than the one it was last
    /// taken from (SND.WL1, SND.WL2). True where something may leave now.
    #[inline]
    pub(super) fn take_window(&mut self, seq: u32, ack: u32, window: u16) -> bool {
        let h = &mut self.hot;
        let newer = seq::lt(h.snd_wl1, seq) || h.snd_wl1 == seq && seq::le(h.snd_wl2, ack);
        if !newer {
            return false;
        }
        (h.snd_wl1, h.snd_wl2) = (seq, ack);
        let window = u32::from(window) << h.snd_scale;
        let old = h.snd_wnd;
        if old == window {
            if window == 0 && !h.bits.contains(Bits::ORPHAN) {
                // The peer lives, and its window may stay shut (MUST-37), but not
                // for ever once the program is gone (RFC 6429, 4).
                h.retries = 0;
            }
            return false;
        }
        h.snd_wnd = window;
        self.warm.max_wnd = self.warm.max_wnd.max(window);
        if old == 0 || window == 0 {
            self.window_turned(window);
        }
        let waits = self.hot.send.has_unsent() || self.owes_fin() || self.hot.send.lost() > 0;
        // From nothing: the timer was stopped, too.
        window > old && (old == 0 || waits)
    }

    /// The window shut, or opened again.
    #[cold]
    fn window_turned(&mut self, window: u32) {
        let h = &mut self.hot;
        if !h.bits.contains(Bits::ORPHAN) {
            h.retries = 0;
            self.warm.watch -= Watch::STALLED;
        }
        if window == 0 {
            if matches!(self.warm.mode, Mode::Retransmit | Mode::Probe | Mode::Reorder) {
                self.warm.mode = Mode::Persist;
            }
            return;
        }
        let probed = h.backoff & !PROBED > 0;
        h.backoff &= PROBED;
        self.warm.timers.stop(Timer::Retransmit);
        if probed {
            // The probe met a shut window: it goes again, without waiting. Else a
            // window that flaps would buy all that is under way again and again.
            self.outstanding_is_lost();
        }
    }
}
