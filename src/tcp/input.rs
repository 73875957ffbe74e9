//! A segment arrives (RFC 9293, 3.10.7.4), in the RFC's own order. What is in
//! order and expected takes the short way at the top.

use super::connection::{Bits, Connection};
use super::seq;
use super::timers::{Slow, SlowTimers, Timers};
use super::types::{Disposition, Env, Events, State};
use crate::errno::Errno;
use crate::frame::{Frame, Packet};
use crate::telemetry::DropReason;
use crate::wire::tcp::{Flags, Segment};
use core::ops::ControlFlow::{self, Break, Continue};

/// A segment on its way through the steps. What a step does not take is freed at
/// the end.
pub(super) struct Arrival<'a> {
    pub seg: &'a Segment,
    /// Number of the first payload byte.
    pub seq: u32,
    pub payload: Option<Packet>,
}

impl Arrival<'_> {
    /// The SYN was taken: what follows begins behind it.
    pub fn pass_syn(&mut self) {
        self.seq = self.seg.seq.wrapping_add(1);
    }

    /// The number of the FIN, if the segment has one.
    pub(super) fn fin(&self) -> Option<u32> {
        let at = self.seq.wrapping_add(self.seg.payload_len as u32);
        self.seg.flags.contains(Flags::FIN).then_some(at)
    }
}

/// A segment as header prediction looks at it: ACK and perhaps PSH set and nothing
/// else, no option but perhaps a timestamp.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Window, not yet scaled.
    pub window: u16,
    /// Timestamp value and echo reply.
    pub timestamp: Option<(u32, u32)>,
    /// Bytes of payload.
    pub len: u32,
    /// ACKs of the same batch that this one stands for, besides itself.
    pub merged: u32,
}

impl Plain {
    /// The segment in short, if it is that plain.
    #[inline]
    fn of(seg: &Segment) -> Option<Self> {
        let rare = seg.ce || seg.options.user_timeout.is_some();
        if (seg.flags - Flags::PSH) != Flags::ACK || !seg.options.sack.is_empty() || rare {
            return None;
        }
        let (window, timestamp) = (seg.window, seg.options.timestamp);
        let len = seg.payload_len as u32;
        Some(Self { seq: seg.seq, ack: seg.ack, window, timestamp, len, merged: 0 })
    }
}

/// A check passes the segment on, or ends its processing.
pub(super) type Check = ControlFlow<Disposition>;
/// The same for a step that has something to report when it passes on.
type Step = ControlFlow<Disposition, Disposition>;


impl Connection {
    /// A segment of this connection came in; its checksum is right and `payload`
    /// is exactly its payload, in which the frames are queued or freed.
    #[inline]
    pub fn input(&mut self, env: &mut Env, seg: &Segment, payload: Option<Packet>) -> Disposition {
        env.counters.tcp_segments_in += 1;
        debug_assert_eq!(payload.as_ref().map_or(0, Packet::len), seg.payload_len);
        let payload = match payload {
            Some(packet) if seg.payload_len == 0 => {
                packet.free(env.pool);
                None
            }
            payload => payload,
        };
        if self.hot.state == State::Established
            && let Some(plain) = Plain::of(seg)
            && self.is_expected(&plain)
            && env.pool.available() >= env.config.frames_low
        {
            return match payload {
                Some(packet) if packet.rest.is_some() => self.chain_expected(env, &plain, packet),
                payload => self.input_expected(env, &plain, payload.map(|packet| packet.head)),
            };
        }
        self.input_any(env, seg, payload)
    }

    /// Header prediction: ESTABLISHED, nothing unusual under way, the next data
    /// or an acknowledgment of new data, or both.
    #[inline(always)]
    pub fn is_expected(&self, seg: &Plain) -> bool {
        let h = &self.hot;
        let acked = seg.ack.wrapping_sub(h.snd_una);
        h.state == State::Established
            && !h.bits.intersects(Bits::SLOW)
            && seg.seq == h.rcv_nxt
            && self.is_time_expected(seg)
            && acked <= h.snd_nxt.wrapping_sub(h.snd_una)
            && (acked > 0 || seg.len > 0)
            && seg.len <= seq::distance(h.rcv_nxt, h.rcv_edge)
            && h.snd_wnd > 0
    }

    /// It carries a timestamp as was agreed on, and none from before (RFC 7323, 5.3).
    #[inline(always)]
    pub(super) fn is_time_expected(&self, seg: &Plain) -> bool {
        let timestamps = self.hot.bits.contains(Bits::TIMESTAMPS);
        match seg.timestamp {
            Some((value, _)) => timestamps && seq::ge(value, self.hot.ts_recent),
            None => !timestamps,
        }
    }

    /// Takes a segment that [`is_expected`](Self::is_expected) while the pool is
    /// not low; the frame's range is its payload, `None` where it has none. All of the hot path's input is
    /// inlined here, so that nothing but the connection goes through memory.
    #[inline(always)]
    pub fn input_expected(&mut self, env: &mut Env, seg: &Plain, payload: Option<Frame>) -> Disposition {
        let mut d = Disposition::NONE;
        self.warm.last_recv = env.now;
        self.take_timestamp(seg.seq, seg.timestamp);
        if seg.ack != self.hot.snd_una {
            d = self.acknowledged(env, seg.ack, seg.timestamp, seg.merged);
        }
        d.flush |= self.take_window(seg.seq, seg.ack, seg.window);
        if let Some(frame) = payload {
            d = d.and(self.take_in_order(env, frame));
            if seq::ge(self.hot.rcv_nxt, self.hot.tune_at) {
                d = d.and(self.tune_received(env, seg.timestamp.map(|t| t.1)));
            }
        }
        d
    }

    /// As [`input_expected`](Self::input_expected), with a payload in several frames.
    #[inline(never)]
    pub fn chain_expected(&mut self, env: &mut Env, seg: &Plain, packet: Packet) -> Disposition {
        let d = self.input_expected(env, seg, None).and(self.take_chain(env, seg.seq, packet));
        if seq::lt(self.hot.rcv_nxt, self.hot.tune_at) {
            return d;
        }
        d.and(self.tune_received(env, seg.timestamp.map(|t| t.1)))
    }

    #[inline(never)]
    pub(super) fn input_any(&mut self, env: &mut Env, seg: &Segment, payload: Option<Packet>) -> Disposition {
        let mut a = Arrival { seg, seq: seg.seq, payload };
        let d = match self.hot.state {
            State::Closed | State::Listen => Disposition::NONE,
            State::SynSent => self.in_syn_sent(env, &mut a),
            _ => match self.segment_arrives(env, &mut a) {
                Break(d) | Continue(d) => d,
            },
        };
        if let Some(packet) = a.payload {
            packet.free(env.pool);
        }
        d
    }

    /// The steps of 3.10.7.4 ("third", security, is not there).
    fn segment_arrives(&mut self, env: &mut Env, a: &mut Arrival) -> Step {
        self.check_handshake_repeat(env, a)?;
        self.check_late_syn(env, a)?;
        self.check_timestamp(env, a)?;
        self.check_sequence(env, a)?;
        self.check_reset(env, a)?;
        self.check_syn(env, a)?;
        let d = self.check_ack(env, a)?;
        if let Some(value) = a.seg.options.user_timeout {
            self.take_user_timeout(env.config, value);
        }
        Continue(d.and(self.after_ack(env, a)))
    }

    /// Sixth to eighth: urgent pointer, text, FIN.
    pub(super) fn after_ack(&mut self, env: &mut Env, a: &mut Arrival) -> Disposition {
        let d = self.note_urgent(env, a);
        let mut d = d.and(self.process_text(env, a));
        if seq::ge(self.hot.rcv_nxt, self.hot.tune_at) {
            d = d.and(self.tune_received(env, a.seg.options.timestamp.map(|t| t.1)));
        }
        if self.hot.state == State::Closed {
            return d;
        }
        d.and(self.process_fin(env, a))
    }

    /// Second: the RST (RFC 5961, 3.2): it counts at exactly the next number,
    /// elsewhere in the window it is challenged.
    fn check_reset(&mut self, env: &mut Env, a: &Arrival) -> Check {
        if !a.seg.flags.contains(Flags::RST) {
            return Continue(());
        }
        if a.seg.seq != self.hot.rcv_nxt {
            env.counters.drop(DropReason::TcpUnacceptableRst);
            return Break(self.challenge(env));
        }
        let error = match self.hot.state {
            // RFC 1337: TIME-WAIT is not cut short.
            State::TimeWait => return Break(Disposition::NONE),
            State::SynReceived if self.hot.bits.contains(Bits::PASSIVE) => self.early_error(),
            State::SynReceived => Some(Errno::ECONNREFUSED),
            State::Closing | State::LastAck => None,
            State::CloseWait => Some(Errno::EPIPE),
            _ => Some(Errno::ECONNRESET),
        };
        env.counters.tcp_aborted += 1;
        Break(self.end(env, error))
    }

    /// Fourth: a SYN in the window of a passive SYN-RECEIVED ends it. (Of an open
    /// connection's it was challenged before.)
    fn check_syn(&mut self, env: &mut Env, a: &Arrival) -> Check {
        if !a.seg.flags.contains(Flags::SYN) || a.seq != a.seg.seq {
            return Continue(());
        }
        env.counters.drop(DropReason::TcpBadFlags);
        if self.hot.state == State::SynReceived && self.hot.bits.contains(Bits::PASSIVE) {
            return Break(self.end(env, None));
        }
        Break(self.challenge(env))
    }

    /// Fifth: the ACK.
    fn check_ack(&mut self, env: &mut Env, a: &Arrival) -> Step {
        let seg = a.seg;
        if !seg.flags.contains(Flags::ACK) {
            env.counters.drop(DropReason::TcpBadFlags);
            return Break(Disposition::NONE);
        }
        let mut d = Disposition::NONE;
        let end = self.syn_end();
        let h = &mut self.hot;
        if h.state == State::SynReceived {
            if !(seq::gt(seg.ack, h.snd_una) && seq::le(seg.ack, end)) {
                env.counters.drop(DropReason::TcpBadAck);
                self.send_reset(env, seg.ack, None);
                return Break(Disposition::NONE);
            }
            let scale = if seg.flags.contains(Flags::SYN) { 0 } else { h.snd_scale };
            h.snd_wnd = u32::from(seg.window) << scale;
            self.warm.max_wnd = self.warm.max_wnd.max(h.snd_wnd);
            (h.snd_wl1, h.snd_wl2) = (seg.seq, seg.ack);
            // What else it acknowledges was sent early.
            d = self.establish(env, self.cold.iss.wrapping_add(1), seg.options.timestamp.map(|t| t.1));
            if self.has_fast_open() && !self.hot.bits.contains(Bits::PASSIVE) {
                d = d.and(self.fast_opened(env, seg));
            }
        }
        if !self.is_ack_acceptable(seg) {
            env.counters.drop(DropReason::TcpBadAck);
            return Break(self.challenge(env));
        }
        self.take_ecn(env, seg);
        self.take_echo(env, seg.ack);
        let h = &self.hot;
        if self.is_booked(seg) {
            d = d.and(self.ack_booked(env, seg));
        } else if seq::gt(seg.ack, h.snd_una) {
            d = d.and(self.acknowledged(env, seg.ack, seg.options.timestamp, 0));
        }
        if seq::ge(seg.ack, self.hot.snd_una) {
            d.flush |= self.take_window(seg.seq, seg.ack, seg.window);
        }
        self.forget_echo();
        Continue(d.and(self.after_fin_acked(env)))
    }

    /// What the acknowledgment of our FIN brings about.
    pub(super) fn after_fin_acked(&mut self, env: &mut Env) -> Disposition {
        let h = &mut self.hot;
        let acked = h.bits.contains(Bits::FIN_SENT) && h.snd_una == h.snd_end.wrapping_add(1);
        if !acked {
            return Disposition::NONE;
        }
        // A timer may have taken it for lost in the same turn.
        h.bits -= Bits::FIN_LOST;
        match h.state {
            State::FinWait1 => {
                h.state = State::FinWait2;
                if h.bits.contains(Bits::ORPHAN) {
                    self.cold.timers.set(Slow::Linger, env.now + env.config.fin_wait_2);
                }
                Disposition::NONE
            }
            State::Closing => self.enter_time_wait(env),
            State::LastAck => self.end(env, None),
            _ => Disposition::NONE,
        }
    }

    pub(super) fn enter_time_wait(&mut self, env: &Env) -> Disposition {
        self.hot.state = State::TimeWait;
        (self.warm.timers, self.cold.timers) = (Timers::OFF, SlowTimers::OFF);
        self.cold.timers.set(Slow::Linger, env.now + env.config.time_wait);
        Disposition { events: Events::TIME_WAIT, flush: false }
    }

    /// RFC 7323, 4.3: what is echoed is the timestamp of the segment that the
    /// next ACK is for.
    #[inline]
    pub(super) fn take_timestamp(&mut self, seq: u32, timestamp: Option<(u32, u32)>) {
        let h = &mut self.hot;
        if let Some((value, _)) = timestamp
            && h.bits.contains(Bits::TIMESTAMPS)
            && seq::le(seq, h.last_ack)
            && seq::ge(value, h.ts_recent)
        {
            h.ts_recent = value;
        }
    }
}
