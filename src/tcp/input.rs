//! A segment arrives (RFC 9293, 3.10.7.4), in the RFC's own order. What is in
//! order and expected takes the short way at the top.

use super::connection::{Bits, Connection};
use super::seq;
use super::timers::{Timer, Timers};
use super::types::{Disposition, Env, Events, State};
use crate::errno::Errno;
use crate::frame::{Frame, Packet};
use crate::telemetry::DropReason;
use crate::time::Duration;
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
    fn fin(&self) -> Option<u32> {
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
}

impl Plain {
    /// The segment in short, if it is that plain.
    #[inline]
    fn of(seg: &Segment) -> Option<Self> {
        if (seg.flags - Flags::PSH) != Flags::ACK || !seg.options.sack.is_empty() {
            return None;
        }
        let (window, timestamp) = (seg.window, seg.options.timestamp);
        Some(Self { seq: seg.seq, ack: seg.ack, window, timestamp, len: seg.payload_len as u32 })
    }
}

/// A check passes the segment on, or ends its processing.
type Check = ControlFlow<Disposition>;
/// The same for a step that has something to report when it passes on.
type Step = ControlFlow<Disposition, Disposition>;

/// After so long without a segment a timestamp says nothing (RFC 7323, 5.5).
const STALE: Duration = Duration::from_secs(24 * 24 * 3600);

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
        if let Some(plain) = Plain::of(seg)
            && self.is_expected(&plain)
            && payload.as_ref().is_none_or(|packet| packet.rest.is_none())
            && env.pool.available() >= env.config.frames_low
        {
            return self.input_expected(env, &plain, payload.map(|packet| packet.head));
        }
        self.input_any(env, seg, payload)
    }

    /// Header prediction: ESTABLISHED, nothing unusual under way, the next data
    /// or an acknowledgment of new data, or both.
    #[inline(always)]
    pub fn is_expected(&self, seg: &Plain) -> bool {
        let h = &self.hot;
        let timestamps = h.bits.contains(Bits::TIMESTAMPS);
        let time_ok = match seg.timestamp {
            Some((value, _)) => timestamps && seq::ge(value, h.ts_recent),
            None => !timestamps,
        };
        let acked = seg.ack.wrapping_sub(h.snd_una);
        h.state == State::Established
            && !h.bits.intersects(Bits::SLOW)
            && seg.seq == h.rcv_nxt
            && time_ok
            && acked <= h.snd_nxt.wrapping_sub(h.snd_una)
            && (acked > 0 || seg.len > 0)
            && seg.len <= seq::distance(h.rcv_nxt, h.rcv_edge)
            && h.snd_wnd > 0
    }

    /// Takes a segment that [`is_expected`](Self::is_expected) while the pool is
    /// not low; the frame's range is its payload, `None` where it has none. All of the hot path's input is
    /// inlined here, so that nothing but the connection goes through memory.
    #[inline(always)]
    pub fn input_expected(&mut self, env: &mut Env, seg: &Plain, payload: Option<Frame>) -> Disposition {
        let mut d = Disposition::NONE;
        self.hot.last_recv = env.now;
        self.take_timestamp(seg.seq, seg.timestamp);
        if seg.ack != self.hot.snd_una {
            d = self.acknowledged(env, seg.ack, seg.timestamp);
        }
        d.flush |= self.take_window(seg.seq, seg.ack, seg.window);
        if let Some(frame) = payload {
            d = d.and(self.take_in_order(env, frame));
        }
        d
    }

    #[inline(never)]
    fn input_any(&mut self, env: &mut Env, seg: &Segment, payload: Option<Packet>) -> Disposition {
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
        self.check_handshake_repeat(a)?;
        self.check_timestamp(env, a)?;
        self.check_sequence(env, a)?;
        self.check_reset(env, a)?;
        self.check_syn(env, a)?;
        let d = self.check_ack(env, a)?;
        Continue(d.and(self.after_ack(env, a)))
    }

    /// Sixth to eighth: urgent pointer, text, FIN.
    pub(super) fn after_ack(&mut self, env: &mut Env, a: &mut Arrival) -> Disposition {
        self.note_urgent(a.seg);
        let d = self.process_text(env, a);
        if self.hot.state == State::Closed {
            return d;
        }
        d.and(self.process_fin(env, a))
    }

    /// In SYN-RECEIVED the peer's SYN may come again: alone where our SYN-ACK
    /// was lost, with an ACK in a simultaneous open (RFC 9293, figure 8).
    fn check_handshake_repeat(&mut self, a: &mut Arrival) -> Check {
        let again = self.hot.state == State::SynReceived
            && a.seg.flags.contains(Flags::SYN)
            && !a.seg.flags.contains(Flags::RST)
            && a.seg.seq == self.cold.irs;
        if !again {
            return Continue(());
        }
        if !a.seg.flags.contains(Flags::ACK) {
            self.hot.bits |= Bits::SYN_DUE;
            return Break(Disposition { events: Events::empty(), flush: true });
        }
        a.pass_syn();
        self.hot.bits |= Bits::ACK_NOW;
        Continue(())
    }

    /// RFC 7323, 5.3, R1 (PAWS), and 3.2: a segment without the option.
    fn check_timestamp(&mut self, env: &mut Env, a: &Arrival) -> Check {
        let h = &self.hot;
        if !h.bits.contains(Bits::TIMESTAMPS) || a.seg.flags.contains(Flags::RST) {
            return Continue(());
        }
        let old = match a.seg.options.timestamp {
            None => {
                env.counters.drop(DropReason::TcpPaws);
                return Break(Disposition::NONE);
            }
            Some((value, _)) => seq::lt(value, h.ts_recent),
        };
        if !old || env.now.since(h.last_recv) > STALE {
            return Continue(());
        }
        env.counters.drop(DropReason::TcpPaws);
        Break(self.answer_invalid(env, a.seg))
    }

    /// First: the sequence number (table 6).
    fn check_sequence(&mut self, env: &mut Env, a: &mut Arrival) -> Check {
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
            if env.now.since(self.hot.last_recv) > STALE
                && let Some((value, _)) = a.seg.options.timestamp
            {
                // What was noted so long ago compares with nothing any more.
                self.hot.ts_recent = value;
            }
            self.hot.last_recv = env.now;
            self.cold.keep_probes = 0;
            self.take_timestamp(a.seg.seq, a.seg.options.timestamp);
            return Continue(());
        }
        if a.seg.flags.contains(Flags::RST) && !(first == h.rcv_nxt && window == 0) {
            env.counters.drop(DropReason::TcpUnacceptableRst);
            return Break(Disposition::NONE);
        }
        if window == 0 && first == h.rcv_nxt {
            // A probe of our shut window: its data is refused, its ACK, URG and
            // RST count (MUST-66).
            self.hot.last_recv = env.now;
            self.cold.keep_probes = 0;
            self.hot.bits |= Bits::ACK_NOW;
            if let Some(packet) = a.payload.take() {
                env.counters.drop(DropReason::TcpReceiveBufferFull);
                packet.free(env.pool);
            }
            return Continue(());
        }
        let duplicate = seq::le(end, h.rcv_nxt) && len > 0;
        let reason = if duplicate { DropReason::TcpDuplicate } else { DropReason::TcpOutOfWindow };
        env.counters.drop(reason);
        self.again_in_time_wait(env, a);
        Break(self.answer_invalid(env, a.seg))
    }

    /// A FIN sent again starts TIME-WAIT anew (3.10.7.4, eighth).
    fn again_in_time_wait(&mut self, env: &Env, a: &Arrival) {
        let fin = a.fin().map(|f| f.wrapping_add(1));
        if self.hot.state == State::TimeWait && fin == Some(self.hot.rcv_nxt) {
            self.hot.timers.set(Timer::Linger, env.now + env.config.time_wait);
        }
    }

    /// An ACK for a segment that cannot be taken; to empty ones only now and
    /// then, lest two ends acknowledge each other for ever.
    fn answer_invalid(&mut self, env: &Env, seg: &Segment) -> Disposition {
        let ms = env.now.as_millis_wrapping();
        if seg.payload_len == 0 && !seg.flags.contains(Flags::FIN) {
            let pause = env.config.invalid_ack_interval.as_millis() as u32;
            let since = ms.wrapping_sub(self.cold.invalid_answered);
            if self.cold.invalid_answered != 0 && since < pause {
                return Disposition::NONE;
            }
            self.cold.invalid_answered = ms.max(1);
        }
        self.ack_now()
    }

    fn ack_now(&mut self) -> Disposition {
        self.hot.bits |= Bits::ACK_NOW;
        Disposition { events: Events::empty(), flush: true }
    }

    /// RFC 5961, 7: so many a second; the limit of each second is drawn, so that
    /// it cannot be measured from outside (CVE-2016-5696).
    fn challenge(&mut self, env: &mut Env) -> Disposition {
        let second = (env.now.as_nanos() / 1_000_000_000) as u32 + 1;
        if self.cold.challenge_second != second {
            self.cold.challenge_second = second;
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
            State::SynReceived if self.hot.bits.contains(Bits::PASSIVE) => None,
            State::SynReceived => Some(Errno::ECONNREFUSED),
            State::Closing | State::LastAck => None,
            State::CloseWait => Some(Errno::EPIPE),
            _ => Some(Errno::ECONNRESET),
        };
        env.counters.tcp_aborted += 1;
        Break(self.end(env, error))
    }

    /// Fourth: a SYN in a live connection is challenged (RFC 5961, 4.2); one in
    /// the window of a passive SYN-RECEIVED ends it.
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
        let h = &mut self.hot;
        if h.state == State::SynReceived {
            if !(seq::gt(seg.ack, h.snd_una) && seq::le(seg.ack, h.snd_nxt)) {
                env.counters.drop(DropReason::TcpBadAck);
                self.send_reset(env, seg.ack, None);
                return Break(Disposition::NONE);
            }
            let scale = if seg.flags.contains(Flags::SYN) { 0 } else { h.snd_scale };
            h.snd_wnd = u32::from(seg.window) << scale;
            h.max_wnd = h.max_wnd.max(h.snd_wnd);
            (h.snd_wl1, h.snd_wl2) = (seg.seq, seg.ack);
            d = self.establish(env, seg.ack, seg.options.timestamp.map(|t| t.1));
        }
        let h = &self.hot;
        // RFC 5961, 5.2: neither beyond what was sent nor far too old.
        let oldest = h.snd_una.wrapping_sub(h.max_wnd);
        if seq::gt(seg.ack, h.snd_nxt) || seq::lt(seg.ack, oldest) {
            env.counters.drop(DropReason::TcpBadAck);
            return Break(self.challenge(env));
        }
        if seq::gt(seg.ack, h.snd_una) {
            d = d.and(self.acknowledged(env, seg.ack, seg.options.timestamp));
        } else if self.is_duplicate_ack(seg) {
            d = d.and(self.duplicate_ack());
        }
        if seq::ge(seg.ack, self.hot.snd_una) {
            d.flush |= self.take_window(seg.seq, seg.ack, seg.window);
        }
        Continue(d.and(self.after_fin_acked(env)))
    }

    /// What the acknowledgment of our FIN brings about.
    fn after_fin_acked(&mut self, env: &mut Env) -> Disposition {
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
                    h.timers.set(Timer::Linger, env.now + env.config.fin_wait_2);
                }
                Disposition::NONE
            }
            State::Closing => self.enter_time_wait(env),
            State::LastAck => self.end(env, None),
            _ => Disposition::NONE,
        }
    }

    fn enter_time_wait(&mut self, env: &Env) -> Disposition {
        self.hot.state = State::TimeWait;
        self.hot.timers = Timers::OFF;
        self.hot.timers.set(Timer::Linger, env.now + env.config.time_wait);
        Disposition { events: Events::TIME_WAIT, flush: false }
    }

    /// RFC 7323, 4.3: what is echoed is the timestamp of the segment that the
    /// next ACK is for.
    #[inline]
    fn take_timestamp(&mut self, seq: u32, timestamp: Option<(u32, u32)>) {
        let h = &mut self.hot;
        if let Some((value, _)) = timestamp
            && h.bits.contains(Bits::TIMESTAMPS)
            && seq::le(seq, h.last_ack)
            && seq::ge(value, h.ts_recent)
        {
            h.ts_recent = value;
        }
    }

    /// Sixth: the urgent pointer (MUST-62; RFC 6093: the data stays in line).
    fn note_urgent(&mut self, seg: &Segment) {
        if !seg.flags.contains(Flags::URG) || !self.hot.state.can_receive() {
            return;
        }
        let end = seg.seq.wrapping_add(seg.urgent.into());
        let newer = !self.hot.bits.contains(Bits::URGENT) || seq::gt(end, self.cold.urgent_end);
        if newer && seq::gt(end, self.hot.rcv_nxt) {
            self.cold.urgent_end = end;
            self.hot.bits |= Bits::URGENT;
        }
    }

    /// Seventh: the text.
    fn process_text(&mut self, env: &mut Env, a: &mut Arrival) -> Disposition {
        let Some(packet) = a.payload.take() else { return Disposition::NONE };
        if !self.hot.state.can_receive() {
            packet.free(env.pool);
            return Disposition::NONE;
        }
        let end = a.seq.wrapping_add(packet.len() as u32);
        if self.hot.bits.contains(Bits::ORPHAN) && seq::gt(end, self.hot.rcv_nxt) {
            // Nobody will read it (RFC 9293, 3.6.1; SHLD-3).
            env.counters.drop(DropReason::TcpOldDataAfterClose);
            packet.free(env.pool);
            return self.abort(env);
        }
        let mut d = self.take_text(env, a.seq, packet.head);
        let mut seq = a.seq.wrapping_add(a.seg.payload_len as u32);
        if let Some(rest) = packet.rest {
            seq = seq.wrapping_sub(rest.iter().map(|f| f.len() as u32).sum());
            for frame in *rest {
                let len = frame.len() as u32;
                d = d.and(self.take_text(env, seq, frame));
                seq = seq.wrapping_add(len);
            }
        }
        d
    }

    /// One frame of text that begins at `first`.
    fn take_text(&mut self, env: &mut Env, first: u32, mut frame: Frame) -> Disposition {
        let h = &self.hot;
        let old = seq::distance(first, h.rcv_nxt);
        frame.truncate(seq::distance(first, h.rcv_edge) as usize);
        frame.trim_front(old as usize);
        if frame.is_empty() {
            env.pool.free(frame);
            return self.ack_now();
        }
        let first = first.wrapping_add(old);
        if first != h.rcv_nxt {
            return self.keep_ahead(env, first, frame);
        }
        if !self.recv.has_room(env, &frame) {
            env.counters.drop(DropReason::PoolExhausted);
            env.pool.free(frame);
            return self.ack_now();
        }
        let mut d = self.take_in_order(env, frame);
        if self.hot.bits.contains(Bits::GAP) {
            // RFC 5681, 4.2: what fills a gap is acknowledged at once.
            self.hot.bits |= Bits::ACK_NOW;
            d = d.and(self.close_gap(env));
        }
        d
    }

    /// Takes the next payload of the stream.
    #[inline(always)]
    fn take_in_order(&mut self, env: &mut Env, frame: Frame) -> Disposition {
        let n = frame.len() as u32;
        let h = &mut self.hot;
        h.rcv_nxt = h.rcv_nxt.wrapping_add(n);
        h.rcv_used += n;
        self.cold.bytes_received += u64::from(n);
        if n > u32::from(h.rcv_mss) {
            h.rcv_mss = n.min(self.cold.adv_mss.into()) as u16;
        }
        h.bits |= Bits::ACK_PENDING;
        // Every second full segment (SHLD-19), all at the start, else later.
        let due = h.rcv_nxt.wrapping_sub(h.last_ack) >= 2 * u32::from(h.rcv_mss);
        if due || h.quick > 0 || h.bits.contains(Bits::QUICK_ACK) {
            h.quick = h.quick.saturating_sub(1);
            h.bits |= Bits::ACK_NOW;
        }
        self.recv.push(env, frame);
        Disposition { events: Events::READABLE, flush: true }
    }

    /// Keeps what came ahead of a gap, within the bounds; the peer is told at
    /// once (RFC 5681, 4.2).
    #[cold]
    fn keep_ahead(&mut self, env: &mut Env, first: u32, frame: Frame) -> Disposition {
        self.hot.dup_out = self.hot.dup_out.saturating_add(1);
        self.hot.quick = self.hot.quick.max(2);
        if env.pool.available() < env.config.frames_low {
            env.counters.drop(DropReason::PoolExhausted);
            env.pool.free(frame);
            return self.ack_now();
        }
        let ahead = self.recv.ahead.get_or_insert_default();
        let limit = env.config.out_of_order_segments as usize;
        match ahead.insert(env.pool, first, frame, limit) {
            super::assembler::Insert::Kept => {}
            super::assembler::Insert::Duplicate => env.counters.drop(DropReason::TcpDuplicate),
            super::assembler::Insert::Full => env.counters.drop(DropReason::TcpOutOfOrderFull),
        }
        self.hot.bits |= Bits::GAP;
        self.ack_now()
    }

    /// Takes what is in order now of what waited.
    #[cold]
    fn close_gap(&mut self, env: &mut Env) -> Disposition {
        let mut d = Disposition::NONE;
        let Some(mut ahead) = self.recv.ahead.take() else { return d };
        while let Some(frame) = ahead.take(env.pool, self.hot.rcv_nxt) {
            d = d.and(self.take_in_order(env, frame));
        }
        if ahead.fin == Some(self.hot.rcv_nxt) {
            d = d.and(self.take_fin(env));
        }
        let empty = ahead.is_empty() || self.hot.bits.contains(Bits::PEER_CLOSED);
        if empty {
            ahead.clear(env.pool);
        } else {
            self.recv.ahead = Some(ahead);
        }
        self.hot.bits.set(Bits::GAP, !empty);
        d
    }

    /// Eighth: the FIN, if all before it is here.
    fn process_fin(&mut self, env: &mut Env, a: &Arrival) -> Disposition {
        let Some(fin) = a.fin() else { return Disposition::NONE };
        self.again_in_time_wait(env, a);
        if !self.hot.state.can_receive() || seq::gt(fin, self.hot.rcv_edge) {
            return Disposition::NONE;
        }
        if fin == self.hot.rcv_nxt {
            return self.take_fin(env);
        }
        if seq::gt(fin, self.hot.rcv_nxt) {
            self.recv.ahead.get_or_insert_default().fin = Some(fin);
            self.hot.bits |= Bits::GAP;
        }
        self.ack_now()
    }

    fn take_fin(&mut self, env: &mut Env) -> Disposition {
        let h = &mut self.hot;
        h.rcv_nxt = h.rcv_nxt.wrapping_add(1);
        h.rcv_edge = seq::max(h.rcv_edge, h.rcv_nxt);
        h.bits |= Bits::PEER_CLOSED | Bits::ACK_NOW;
        // Nothing comes after a FIN, whatever a peer sent ahead.
        h.bits -= Bits::GAP;
        self.recv.drop_ahead(env.pool);
        let h = &mut self.hot;
        let d = Disposition { events: Events::PEER_CLOSED | Events::READABLE, flush: true };
        match h.state {
            State::Established => h.state = State::CloseWait,
            // Our FIN is not acknowledged, else this were FIN-WAIT-2.
            State::FinWait1 => h.state = State::Closing,
            State::FinWait2 => return d.and(self.enter_time_wait(env)),
            _ => {}
        }
        d
    }
}
