//! Whether a segment counts at all: timestamps, the window, and the answers to
//! what does not.

use super::connection::{Bits, Connection};
use super::input::{Arrival, Check};
use super::seq;
use super::timers::Slow;
use super::types::{Disposition, Env, Events, State};
use crate::telemetry::DropReason;
use crate::time::Duration;
use crate::wire::tcp::{Flags, Segment};
use core::ops::ControlFlow::{Break, Continue};

/// After so long without a segment a timestamp says nothing (RFC 7323, 5.5).
const STALE: Duration = Duration::from_secs(24 * 24 * 3600);

impl Connection {
    /// True for a segment that acknowledges our SYN, and so ends a handshake which
    /// began with the peer's, whatever else it is: a SYN again, or data from before
    /// the window. Where it does not count after all it is no loss.
    pub fn completes_handshake(&self, seg: &Segment) -> bool {
        let h = &self.hot;
        seg.flags & (Flags::RST | Flags::ACK) == Flags::ACK
            && h.state == State::SynReceived
            && h.snd_nxt != h.snd_una
            && seg.ack == h.snd_nxt
    }

    /// RFC 5961, 5.2: what a segment acknowledges was sent, and is not far too old.
    #[inline]
    pub(super) fn is_ack_acceptable(&self, seg: &Segment) -> bool {
        let oldest = self.hot.snd_una.wrapping_sub(self.warm.max_wnd);
        seq::le(seg.ack, self.hot.snd_nxt) && seq::ge(seg.ack, oldest)
    }

    /// In SYN-RECEIVED the peer's SYN may come again: alone where our SYN-ACK
    /// was lost, with an ACK in a simultaneous open (RFC 9293, figure 8).
    pub(super) fn check_handshake_repeat(&mut self, env: &Env, a: &mut Arrival) -> Check {
        let again = self.hot.state == State::SynReceived
            && a.seg.flags.contains(Flags::SYN)
            && !a.seg.flags.contains(Flags::RST)
            && a.seg.seq == self.cold.irs;
        if !again {
            return Continue(());
        }
        if !a.seg.flags.contains(Flags::ACK) {
            if self.answered_lately(env) {
                return Break(Disposition::NONE);
            }
            self.hot.bits |= Bits::SYN_DUE;
            return Break(Disposition { events: Events::empty(), flush: true });
        }
        a.pass_syn();
        self.hot.bits |= Bits::ACK_NOW;
        Continue(())
    }

    /// RFC 5961, 4.2: a SYN in a live connection is challenged whatever its number
    /// and its timestamp: its sender may have lost all it knew.
    pub(super) fn check_late_syn(&mut self, env: &mut Env, a: &Arrival) -> Check {
        let syn = a.seg.flags & (Flags::SYN | Flags::RST) == Flags::SYN;
        if !syn || !self.hot.state.is_synchronized() {
            return Continue(());
        }
        env.counters.drop(DropReason::TcpBadFlags);
        Break(self.challenge(env))
    }

    /// RFC 7323, 5.3, R1 (PAWS), and 3.2: a segment without the option.
    pub(super) fn check_timestamp(&mut self, env: &mut Env, a: &Arrival) -> Check {
        let h = &self.hot;
        if !h.bits.contains(Bits::TIMESTAMPS) || a.seg.flags.contains(Flags::RST) {
            return Continue(());
        }
        let old = match a.seg.options.timestamp {
            None if !env.config.require_timestamps => return Continue(()),
            None => {
                env.counters.drop(DropReason::TcpPaws);
                return Break(Disposition::NONE);
            }
            Some((value, _)) => seq::lt(value, h.ts_recent),
        };
        if !old || env.now.since(self.warm.last_recv) > STALE {
            return Continue(());
        }
        env.counters.drop(DropReason::TcpPaws);
        Break(self.answer_invalid(env, a.seg))
    }

    /// First: the sequence number (table 6).
    pub(super) fn check_sequence(&mut self, env: &mut Env, a: &mut Arrival) -> Check {
        let h = &self.hot;
        let (first, len) = (a.seq, a.seg.seq_len().wrapping_sub(a.seq.wrapping_sub(a.seg.seq)));
        let window = seq::distance(h.rcv_nxt, h.rcv_edge);
        let end = first.wrapping_add(len);
        let acceptable = if len == 0 {
            // The right edge itself is where the next byte would be of a peer
            // that used the whole window.
            seq::ge(first, h.rcv_nxt) && seq::le(first, h.rcv_edge)
        } else {
            seq::lt(first, h.rcv_edge) && seq::gt(end, h.rcv_nxt)
        };
        if acceptable {
            self.note_time(env, a.seg);
            self.warm.last_recv = env.now;
            self.cold.keep_probes = 0;
            return Continue(());
        }
        if a.seg.flags.contains(Flags::RST) && !(first == h.rcv_nxt && window == 0) {
            env.counters.drop(DropReason::TcpUnacceptableRst);
            return Break(Disposition::NONE);
        }
        if window == 0 && first == h.rcv_nxt {
            // A probe of our shut window: its data is refused, its ACK, URG and
            // RST count (MUST-66).
            self.warm.last_recv = env.now;
            self.cold.keep_probes = 0;
            self.hot.bits |= Bits::ACK_NOW;
            if let Some(packet) = a.payload.take() {
                env.counters.drop(DropReason::TcpReceiveBufferFull);
                packet.free(env.pool);
            }
            return Continue(());
        }
        if self.is_shortly_before(a.seg) {
            return self.hear_anyway(env);
        }
        let h = &self.hot;
        let duplicate = seq::le(end, h.rcv_nxt) && len > 0;
        if duplicate && end == h.last_ack {
            // Our ACK was lost, and this came again: the answer echoes the copy
            // (RFC 7323, 4.3, (2)). With the first one's timestamp the sender would
            // measure its own time-out as a round trip, and double it.
            self.note_time(env, a.seg);
        }
        let reason = if duplicate { DropReason::TcpDuplicate } else { DropReason::TcpOutOfWindow };
        env.counters.drop(reason);
        self.again_in_time_wait(env, a);
        Break(self.answer_invalid(env, a.seg))
    }

    /// Its sender may not know how far we are, as nothing of ours is acceptable to it
    /// either: were its ACK not heard, neither would ever learn more.
    #[cold]
    fn hear_anyway(&mut self, env: &mut Env) -> Check {
        env.counters.drop(DropReason::TcpOutOfWindow);
        self.warm.last_recv = env.now;
        self.cold.keep_probes = 0;
        if !self.answered_lately(env) {
            self.hot.bits |= Bits::ACK_NOW;
        }
        Continue(())
    }

    /// A mere ACK whose number is a little old: by what the window's scale hides of
    /// our right edge, up to which its sender counts (RFC 7323, 2.4), or by a probe
    /// that was taken, or by the one of a keepalive.
    fn is_shortly_before(&self, seg: &Segment) -> bool {
        let h = &self.hot;
        let kind = seg.flags & (Flags::SYN | Flags::FIN | Flags::RST | Flags::ACK);
        let behind = h.rcv_nxt.wrapping_sub(seg.seq);
        let open = h.state.is_synchronized() && h.state != State::TimeWait;
        open && kind == Flags::ACK && seg.payload_len == 0 && (1..=1 << h.rcv_scale).contains(&behind)
    }

    /// Takes a segment's timestamp. One whose ACK cannot be, or an RST, is perhaps
    /// not the peer's: its timestamp would shut out the peer's own.
    fn note_time(&mut self, env: &Env, seg: &Segment) {
        let kind = seg.flags & (Flags::RST | Flags::ACK);
        if kind != Flags::ACK || !self.is_ack_acceptable(seg) {
            return;
        }
        if env.now.since(self.warm.last_recv) > STALE
            && let Some((value, _)) = seg.options.timestamp
        {
            // What was noted so long ago compares with nothing any more.
            self.hot.ts_recent = value;
        }
        self.take_timestamp(seg.seq, seg.options.timestamp);
    }

    /// A FIN sent again starts TIME-WAIT anew (3.10.7.4, eighth).
    pub(super) fn again_in_time_wait(&mut self, env: &Env, a: &Arrival) {
        let fin = a.fin().map(|f| f.wrapping_add(1));
        if self.hot.state == State::TimeWait && fin == Some(self.hot.rcv_nxt) {
            self.cold.timers.set(Slow::Linger, env.now + env.config.time_wait);
        }
    }

    /// An ACK for a segment that cannot be taken; to empty ones only now and
    /// then, lest two ends acknowledge each other for ever.
    pub(super) fn answer_invalid(&mut self, env: &Env, seg: &Segment) -> Disposition {
        let end = seg.seq.wrapping_add(seg.payload_len as u32);
        self.note_duplicate(env, seg.seq, if seq::lt(end, self.hot.rcv_nxt) { end } else { self.hot.rcv_nxt });
        let empty = seg.payload_len == 0 && !seg.flags.contains(Flags::FIN);
        if empty && self.answered_lately(env) {
            return Disposition::NONE;
        }
        self.ack_now()
    }

    /// True where an empty segment out of place was answered a moment ago; else
    /// this one is.
    fn answered_lately(&mut self, env: &Env) -> bool {
        let ms = env.now.as_millis_wrapping();
        let pause = env.config.invalid_ack_interval.as_millis() as u32;
        let since = ms.wrapping_sub(self.cold.invalid_answered);
        if self.cold.invalid_answered != 0 && since < pause {
            return true;
        }
        self.cold.invalid_answered = ms.max(1);
        false
    }

    pub(super) fn ack_now(&mut self) -> Disposition {
        self.hot.bits |= Bits::ACK_NOW;
        Disposition { events: Events::empty(), flush: true }
    }

    /// RFC 5961, 7: so many in an interval; the limit of each is drawn, so that it
    /// cannot be measured from outside (CVE-2016-5696).
    pub(super) fn challenge(&mut self, env: &mut Env) -> Disposition {
        let length = env.config.challenge_interval.as_nanos().max(1);
        let span = ((env.now.as_nanos() / length) as u32).wrapping_add(1);
        if self.cold.challenge_span != span {
            self.cold.challenge_span = span;
            let limit = env.config.challenge_acks.max(1);
            self.cold.challenge_left = limit.div_ceil(2) + env.rng.below(limit);
        }
        if self.cold.challenge_left == 0 {
            return Disposition::NONE;
        }
        self.cold.challenge_left -= 1;
        env.counters.tcp_challenge_acks += 1;
        self.ack_now()
    }
}
