//! What leaves, once a batch: what is lost, then new data, then at most one ACK.

use super::Config;
use super::burst::{Burst, Stop};
use super::connection::{Bits, Connection, Watch};
use super::send_queue::Marks;
use super::template::{Fields, timestamp_option};
use super::timers::{Mode, Timer};
use super::types::{Env, Flush, State};
use super::{sack, seq};
use crate::telemetry::{Counters, DropReason};
use crate::time::{Duration, Instant};
use crate::wire::tcp::Flags;

/// Whether a step of output got all it had through.
pub(super) type Sent = Result<(), Stop>;

/// What a segment carries besides what it is marked with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Along {
    /// The FIN.
    pub fin: bool,
    /// PSH, as the last of several (see burst.rs).
    pub push: bool,
}

impl Connection {
    /// Sends what may be sent: called once for each connection that a batch, a
    /// timer or the program touched.
    #[inline]
    pub fn flush(&mut self, env: &mut Env) -> Flush {
        match self.flush_lone(env.now, env.pool, env.tx, env.counters, env.config) {
            Some(_) => Flush::Done,
            None => self.flush_any(env),
        }
    }

    /// As [`flush`](Self::flush), for whom [`flush_lone`](Self::flush_lone) was none.
    #[inline(never)]
    pub fn flush_any(&mut self, env: &mut Env) -> Flush {
        if !self.hot.bits.contains(Bits::PATH) {
            self.arm(env);
            return Flush::Done;
        }
        let sent = match self.hot.state {
            State::Closed | State::Listen => return Flush::Done,
            State::SynSent | State::SynReceived => self.flush_handshake(env),
            _ => self.flush_counted(env),
        };
        self.arm(env);
        match sent {
            Ok(()) => Flush::Done,
            Err(Stop::Full) => Flush::Again,
            Err(Stop::Share) => Flush::More,
        }
    }

    /// Notes for the rate of delivery what left, where more than one segment is
    /// under way: a lone one, sent and answered, says nothing of it.
    #[inline]
    fn flush_counted(&mut self, env: &mut Env) -> Sent {
        let before = self.pipe();
        let sent = self.flush_synchronized(env);
        let bulk = self.hot.send.sent() > 1 || self.warm.watch.contains(Watch::FLOW);
        if bulk && self.warm.last_sent == env.now && self.pipe() > 0 {
            self.note_departure(env, before);
        }
        sent
    }

    #[inline]
    fn flush_synchronized(&mut self, env: &mut Env) -> Sent {
        if self.hot.bits.intersects(Bits::TROUBLE) {
            return self.flush_in_trouble(env);
        }
        self.flush_all(env)
    }

    #[inline]
    pub(super) fn flush_all(&mut self, env: &mut Env) -> Sent {
        if self.hot.send.lost() > 0 || self.hot.bits.intersects(Bits::FIN_LOST) {
            self.send_lost(env)?;
        }
        let mut sent = Ok(());
        if self.hot.send.has_unsent() || self.owes_fin() {
            sent = self.send_new(env);
        }
        let extra = Bits::ACK_NOW | Bits::KEEP_DUE;
        if self.hot.bits.intersects(extra) && sent != Err(Stop::Full) {
            self.send_acks(env)?;
        }
        sent
    }

    /// Bytes that are taken to be under way (RFC 6675's pipe; duplicate ACKs
    /// stand for the segments that caused them).
    #[inline]
    pub(super) fn pipe(&self) -> u32 {
        let flight = self.hot.snd_nxt.wrapping_sub(self.hot.snd_una);
        flight.saturating_sub(self.hot.send.lost() + self.hot.send.sacked())
    }

    /// Sends again what is marked lost, as the window allows.
    #[cold]
    fn send_lost(&mut self, env: &mut Env) -> Sent {
        let mut train = None;
        while let Some(i) = self.next_lost(env) {
            let (seq, len) = (self.hot.send.get(i).seq, self.hot.send.get(i).len());
            let pipe = self.pipe();
            let probe = self.hot.bits.contains(Bits::PROBE_DUE);
            if pipe > 0 && pipe + len > self.warm.congestion.window && !probe && i > 0 {
                return Ok(());
            }
            let usable = seq::distance(seq, self.hot.snd_una.wrapping_add(self.hot.snd_wnd));
            let most = usable.max(u32::from(probe)).min(self.hot.mss.into());
            if most == 0 || self.is_held_back(env.now) {
                return Ok(());
            }
            if len > most {
                if !self.hot.send.split(env.pool, i, most as usize, self.room()) {
                    return Err(self.out_of_frames(env));
                }
                let (h, r) = self.books();
                r.board.on_split(&h.send, i);
            }
            train = self.send_again(env, i, train)?;
            self.hot.bits -= Bits::PROBE_DUE;
            self.cold.total_retrans += 1;
            env.counters.tcp_retransmits += 1;
        }
        if self.hot.bits.contains(Bits::FIN_LOST) {
            self.send_control(env, self.hot.snd_end, Flags::FIN | Flags::ACK)?;
            self.hot.bits -= Bits::FIN_LOST | Bits::PROBE_DUE;
            self.cold.total_retrans += 1;
            env.counters.tcp_retransmits += 1;
        }
        Ok(())
    }

    /// Sends new data, and the FIN after it, as windows, Nagle's algorithm and
    /// cork allow.
    #[inline]
    pub(super) fn send_new(&mut self, env: &mut Env) -> Sent {
        if self.hot.snd_una == self.hot.snd_nxt {
            self.restart_after_idle(env);
        }
        if self.hot.bits.contains(Bits::CARE) {
            self.look_after(env);
            if self.user_timeout_bytes().is_some() {
                // Ahead of the data: the first segment has it.
                self.hot.bits |= Bits::ACK_NOW;
                self.send_acks(env)?;
            }
            if self.search_path(env)? {
                return Ok(());
            }
        }
        let mut burst = Burst::default();
        if self.hot.send.unsent_segments() > 1 {
            self.send_row(env, &mut burst);
        }
        while let Some(i) = self.hot.send.first_unsent() {
            let seg = self.hot.send.get(i);
            let (len, pushed) = (seg.len(), seg.marks.contains(Marks::PUSH));
            let most = self.allowance(len, i);
            if most == 0 || self.is_held_back(env.now) {
                return Ok(());
            }
            let cut = len > most;
            if burst.is_over() {
                return Err(Stop::Share);
            }
            if cut && !self.hot.send.split(env.pool, i, most as usize, self.room()) {
                return Err(self.out_of_frames(env));
            }
            let fin = self.owes_fin() && self.hot.send.is_last(i);
            let push = self.ends_train(env.config.least_train, i, (len.min(most), pushed && !cut), &mut burst);
            self.send_fresh(env, i, Along { fin, push })?;
            self.hot.bits -= Bits::PROBE_DUE;
        }
        if self.owes_fin() { self.send_bare_fin(env) } else { Ok(()) }
    }

    fn send_bare_fin(&mut self, env: &mut Env) -> Sent {
        let edge = self.hot.snd_una.wrapping_add(self.hot.snd_wnd);
        if !seq::lt(self.hot.snd_nxt, edge) && !self.hot.bits.contains(Bits::PROBE_DUE) {
            return Ok(());
        }
        self.send_control(env, self.hot.snd_end, Flags::FIN | Flags::ACK)?;
        self.hot.bits -= Bits::PROBE_DUE;
        self.fin_left();
        Ok(())
    }

    fn fin_left(&mut self) {
        self.hot.bits |= Bits::FIN_SENT;
        self.hot.snd_nxt = self.hot.snd_end.wrapping_add(1);
    }

    /// How much of unsent segment `i` of `len` bytes may leave now; 0: nothing.
    #[inline]
    fn allowance(&mut self, len: u32, i: usize) -> u32 {
        let h = &self.hot;
        let mss = u32::from(h.mss);
        let len = len.min(mss);
        let pipe = self.pipe();
        if pipe + len > self.warm.congestion.window && pipe > 0 {
            return 0;
        }
        let edge = h.snd_una.wrapping_add(h.snd_wnd);
        let usable = seq::distance(h.snd_nxt, edge);
        if usable < len {
            return self.partial(usable);
        }
        // A full segment always leaves; the last one may wait for company.
        if len == mss || !h.send.is_last(i) {
            return len;
        }
        if !self.may_send_small() {
            return 0;
        }
        self.warm.small_end = self.hot.snd_nxt.wrapping_add(len);
        len
    }

    /// Silly window avoidance (MUST-38; RFC 9293, 3.8.6.2.1): less than what is
    /// there leaves only where it is half the largest window seen.
    #[cold]
    fn partial(&self, usable: u32) -> u32 {
        let h = &self.hot;
        if h.bits.contains(Bits::PROBE_DUE) {
            return usable.max(1);
        }
        if usable > 0 && usable >= self.warm.max_wnd / 2 { usable } else { 0 }
    }

    /// Nagle's algorithm (SHLD-7) and cork, for a segment that is not full. As in
    /// Linux it waits for the ACK of another small one, not of full ones: one write
    /// of any length leaves at once.
    #[inline]
    fn may_send_small(&self) -> bool {
        let h = &self.hot;
        let over = Bits::FIN_QUEUED | Bits::PROBE_DUE;
        if h.bits.intersects(over) {
            return true;
        }
        if h.bits.contains(Bits::CORK) {
            return self.urgent_out() || self.pushed_out();
        }
        let small = self.warm.small_end;
        let other = seq::gt(small, h.snd_una) && seq::le(small, h.snd_nxt);
        let now = h.bits.contains(Bits::NODELAY) || !other;
        now || self.is_early() || self.urgent_out()
    }

    /// RFC 5681, 4.1: a window that was not used for an RTO says little.
    #[inline]
    fn restart_after_idle(&mut self, env: &Env) {
        let h = &mut self.hot;
        let initial = u32::from(env.config.initial_window) * u32::from(h.mss);
        if self.warm.congestion.window > initial && env.config.restart_idle {
            let idle = env.now.since(self.warm.last_sent);
            if idle > self.warm.rtt.rto(0, env.config) {
                self.warm.congestion.on_idle(env.now, initial);
            }
        }
    }

    /// Sends segment `i` of the queue, which was never sent, from its own frame.
    #[inline(always)]
    pub(super) fn send_fresh(&mut self, env: &mut Env, i: usize, with: Along) -> Sent {
        let (room, timestamp) = (self.room(), self.data_timestamp(env.now));
        let odd = self.hot.bits.intersects(Bits::PROBE_DUE | Bits::ECN_BUSY | Bits::CARE);
        let seg = self.hot.send.get(i);
        if odd || env.tx.room() == 0 || seg.frame.offset() != room || seg.more > 0 {
            return self.send_segment(env, i, with);
        }
        let window = self.window_now();
        let h = &mut self.hot;
        let seg = h.send.get_mut(i);
        let mut flags = Flags::ACK;
        flags.set(Flags::PSH, with.push || seg.marks.contains(Marks::PUSH));
        flags.set(Flags::FIN, with.fin);
        let fields = Fields { seq: seg.seq, ack: h.rcv_nxt, flags, window };
        let (len, sum, template) = (seg.frame.len(), seg.sum, &self.template);
        let stamp = |head: &mut [u8]| template.stamp_data(head, fields, timestamp, len, sum);
        if !env.pool.transmit_written(&mut seg.frame, room + len, env.tx, stamp) {
            return self.send_segment(env, i, with);
        }
        seg.sent_at = env.now;
        seg.marks.set(Marks::TRAIN, with.push);
        h.send.on_first_sent();
        h.snd_nxt = h.snd_nxt.wrapping_add(len as u32);
        self.warm.last_sent = env.now;
        self.count_paced(env.now, len);
        if with.fin {
            self.fin_left();
        }
        self.ack_left(env.counters, true);
        Ok(())
    }

    /// Sends segment `i` of the queue. Its own frame is used where the payload
    /// lies right and no transmission of it is pending, else a copy.
    #[inline(never)]
    pub(super) fn send_segment(&mut self, env: &mut Env, i: usize, with: Along) -> Sent {
        if env.tx.room() == 0 {
            return Err(self.out_of_queue(env));
        }
        let (window, room) = (self.window(), self.room());
        let timestamp = self.data_timestamp(env.now);
        let fresh = self.hot.send.first_unsent() == Some(i);
        // Not on what is sent again, and not on probes (RFC 3168, 6.1.5 and 6.1.6).
        let ect = fresh && !self.hot.bits.contains(Bits::PROBE_DUE);
        let ecn = self.ecn_flags(fresh);
        let urgent = self.urgent_pointer(self.hot.send.get(i).seq);
        let ident = self.next_ident();
        let h = &mut self.hot;
        let last_resent = !fresh && h.bits.contains(Bits::FIN_SENT) && h.send.is_last(i);
        let seg = h.send.get_mut(i);
        let mut flags = Flags::ACK | ecn;
        flags.set(Flags::PSH, with.push || seg.marks.contains(Marks::PUSH));
        flags.set(Flags::FIN, with.fin || last_resent);
        let fields = Fields { seq: seg.seq, ack: h.rcv_nxt, flags, window };
        let (len, sum) = (seg.len() as usize, seg.sum);
        let template = &self.template;
        let stamp = |buf: &mut [u8]| match ect {
            true => template.stamp_any(buf, fields, timestamp, len, sum),
            false => template.stamp_without_ect(buf, fields, timestamp, len, sum),
        };
        let in_place = seg.frame.offset() == room && !env.pool.is_pending(&seg.frame);
        if seg.more > 0 {
            seg.transmit_chain(env, room, |buf| {
                stamp(buf);
                template.mark_urgent(buf, urgent);
                template.identify(buf, ident);
            })?;
        } else if in_place {
            let buf = env.pool.buffer_mut(&mut seg.frame);
            stamp(buf);
            self.template.mark_urgent(buf, urgent);
            self.template.identify(buf, ident);
            let desc = env.pool.transmit(&seg.frame, room + len);
            env.tx.push(desc);
        } else {
            let Some(mut copy) = env.pool.alloc() else { return Err(Stop::Full) };
            let buf = env.pool.buffer_mut(&mut copy);
            buf[room..room + len].copy_from_slice(env.pool.bytes(&seg.frame));
            stamp(buf);
            self.template.mark_urgent(buf, urgent);
            self.template.identify(buf, ident);
            let desc = env.pool.transmit_and_free(copy, room + len);
            env.tx.push(desc);
            env.counters.tx_copied_bytes += len as u64;
        }
        if fresh {
            seg.sent_at = env.now;
            seg.marks.set(Marks::TRAIN, with.push);
            h.send.on_first_sent();
            h.snd_nxt = h.snd_nxt.wrapping_add(len as u32);
        } else {
            self.segment_resent(env, i, fields.seq);
        }
        if last_resent {
            self.hot.bits -= Bits::FIN_LOST;
        }
        self.warm.last_sent = env.now;
        self.count_paced(env.now, len);
        if with.fin {
            self.fin_left();
        }
        self.data_left(env, fresh);
        Ok(())
    }

    /// As [`ack_left`](Self::ack_left) with data; what goes again is no answer of the
    /// program's.
    fn data_left(&mut self, env: &mut Env, fresh: bool) {
        let quick = self.hot.quick;
        self.ack_left(env.counters, true);
        if !fresh {
            self.hot.quick = quick;
        }
    }

    /// Segment `i` of the queue, which begins at `seq`, left once more.
    fn segment_resent(&mut self, env: &Env, i: usize, seq: u32) {
        let (h, r) = self.books();
        r.board.on_resent(&mut h.send, i, env.now);
        r.undo.resent(env.now);
        if i == 0 && self.warm.mode == Mode::Retransmit {
            // Not again less than an RTO from now (RFC 6298, 5).
            self.set_retransmit(env.now, env.config);
        }
        if self.hot.bits.contains(Bits::CARE) {
            self.probe_resent(env, seq);
        }
    }

    /// Sends one segment without payload, with the options of a data segment.
    pub(super) fn send_control(&mut self, env: &mut Env, seq: u32, flags: Flags) -> Sent {
        if env.tx.room() == 0 {
            return Err(self.out_of_queue(env));
        }
        let flags = flags | self.ecn_flags(false);
        let fields = Fields { seq, ack: self.hot.rcv_nxt, flags, window: self.window() };
        let mut stamp = [0; 12];
        let options = self.data_options(env.now, &mut stamp);
        if !self.template.send_bare(env.pool, env.tx, fields, options) {
            return Err(self.out_of_frames(env));
        }
        self.ack_left(env.counters, true);
        Ok(())
    }

    /// Sends the ACK that is due: one, with SACK as many as tell all that is new,
    /// without it one for each segment out of order (RFC 5681, 4.2). A keepalive probe is an ACK for a
    /// byte that was acknowledged long ago (RFC 9293, 3.8.4).
    pub(super) fn send_acks(&mut self, env: &mut Env) -> Sent {
        let h = &self.hot;
        let mut bytes = sack::Bytes::new();
        if h.bits.contains(Bits::TIMESTAMPS) {
            let _ = bytes.try_extend_from_slice(&timestamp_option(self.ts_now(env.now), h.ts_recent));
        }
        if h.bits.contains(Bits::SACK) {
            let gap = h.bits.intersects(Bits::GAP | Bits::DSACK);
            if gap && h.bits.contains(Bits::ACK_NOW) {
                self.send_sacks(env, &mut bytes)?;
            }
        }
        // SACK blocks may need the room.
        if let Some(option) = self.user_timeout_bytes().filter(|_| bytes.len() <= 12) {
            let _ = bytes.try_extend_from_slice(&option);
            self.user_timeout_left();
        }
        let h = &self.hot;
        if h.bits.contains(Bits::ACK_NOW) {
            let copies = if h.bits.contains(Bits::SACK) { 1 } else { self.cold.dup_out.max(1) };
            for _ in 0..copies {
                self.send_ack(env, self.acceptable_seq(), &bytes)?;
                self.cold.dup_out = self.cold.dup_out.saturating_sub(1);
            }
        }
        if self.hot.bits.contains(Bits::KEEP_DUE) {
            self.send_ack(env, self.hot.snd_una.wrapping_sub(1), &bytes)?;
            self.hot.bits -= Bits::KEEP_DUE;
        }
        self.cold.dup_out = 0;
        Ok(())
    }

    /// The number of a segment without text. What was sent beyond the window (a
    /// probe, or before it shrank) is not counted: a peer whose window is shut
    /// takes nothing in front of its edge, an ACK that opens our window neither.
    pub(super) fn acceptable_seq(&self) -> u32 {
        let h = &self.hot;
        let edge = h.snd_una.wrapping_add(h.snd_wnd);
        if seq::lt(edge, h.snd_nxt) { edge } else { h.snd_nxt }
    }

    pub(super) fn send_ack(&mut self, env: &mut Env, seq: u32, options: &[u8]) -> Sent {
        if env.tx.room() == 0 {
            return Err(self.out_of_queue(env));
        }
        let flags = Flags::ACK | self.ecn_flags(false);
        let fields = Fields { seq, ack: self.hot.rcv_nxt, flags, window: self.window() };
        let urgent = self.urgent_pointer(seq);
        if !self.template.send_bare_urgent(env.pool, env.tx, fields, options, urgent) {
            return Err(self.out_of_frames(env));
        }
        self.ack_left(env.counters, false);
        Ok(())
    }

    /// A segment with our acknowledgment left.
    #[inline]
    pub(super) fn ack_left(&mut self, counters: &mut Counters, with_data: bool) {
        counters.tcp_segments_out += 1;
        let h = &mut self.hot;
        h.last_ack = h.rcv_nxt;
        if with_data {
            // The program answers at once: ACKs can travel with its data.
            if h.bits.intersects(Bits::ACK_PENDING | Bits::ACK_NOW) {
                h.quick = 0;
            }
            // A gap is told apart, in an ACK with SACK blocks or a duplicate.
            if h.bits.intersects(Bits::GAP | Bits::DSACK) {
                return;
            }
        }
        h.bits -= Bits::ACK_PENDING | Bits::ACK_NOW;
        self.warm.timers.stop(Timer::DelayedAck);
    }

    /// The timestamp clock: milliseconds, and an offset of the connection's own.
    #[inline]
    pub(super) fn ts_now(&self, now: Instant) -> u32 {
        now.as_millis_wrapping().wrapping_add(self.warm.ts_offset)
    }

    /// The timestamp and its echo that a segment carries now.
    #[inline]
    pub(super) fn data_timestamp(&self, now: Instant) -> Option<(u32, u32)> {
        let on = self.hot.bits.contains(Bits::TIMESTAMPS);
        on.then(|| (self.ts_now(now), self.hot.ts_recent))
    }

    fn data_options<'a>(&self, now: Instant, buf: &'a mut [u8; 12]) -> &'a [u8] {
        let Some((value, echo)) = self.data_timestamp(now) else { return &[] };
        *buf = timestamp_option(value, echo);
        buf
    }

    #[cold]
    pub(super) fn out_of_frames(&self, env: &mut Env) -> Stop {
        env.counters.drop(DropReason::PoolExhausted);
        Stop::Full
    }

    #[cold]
    pub(super) fn out_of_queue(&self, env: &mut Env) -> Stop {
        env.counters.drop(DropReason::TransmitQueueFull);
        Stop::Full
    }

    /// Sets the timers that what was sent, and what was not, asks for.
    #[inline]
    fn arm(&mut self, env: &Env) {
        let h = &mut self.hot;
        if h.bits.contains(Bits::ACK_PENDING) && !self.warm.timers.is_set(Timer::DelayedAck) {
            self.warm.timers.set(Timer::DelayedAck, env.now + env.config.delayed_ack);
        }
        if h.snd_una != h.snd_nxt {
            let mode = self.warm.mode;
            if !self.warm.timers.is_set(Timer::Retransmit) || mode == Mode::Hold || mode == Mode::Settle {
                self.set_retransmit(env.now, env.config);
            } else if mode == Mode::Probe && self.warm.last_sent == env.now {
                self.set_probe(env);
            }
        } else if h.send.has_unsent() || self.owes_fin() {
            self.arm_waiting(env);
        }
        self.arm_pacing();
    }

    /// Nothing is outstanding, and something is held back: by a window that is
    /// shut or too small (persist), or by cork.
    #[cold]
    fn arm_waiting(&mut self, env: &Env) {
        let h = &mut self.hot;
        let set = self.warm.timers.is_set(Timer::Retransmit) && self.warm.mode != Mode::Settle;
        if set || !h.state.is_synchronized() {
            return;
        }
        if h.snd_wnd == 0 || !h.bits.contains(Bits::PATH) {
            // With no next hop either: its time-outs end the connection, or have
            // the neighbour asked for again.
            self.warm.mode = Mode::Persist;
            let at = env.now + self.warm.rtt.rto(h.backoff, env.config);
            self.warm.timers.set(Timer::Retransmit, at);
        } else {
            self.warm.mode = Mode::Hold;
            let corked = h.bits.contains(Bits::CORK);
            let wait = if corked { env.config.cork } else { env.config.override_sws };
            self.warm.timers.set(Timer::Retransmit, env.now + wait);
        }
    }

    /// Starts the retransmission timer anew (RFC 6298, 5.1 and 5.3), or that of
    /// the tail's probe, which comes before it (RFC 8985, 7.2).
    #[inline]
    pub(super) fn set_retransmit(&mut self, now: Instant, config: &Config) {
        let h = &self.hot;
        let mut wait = self.warm.rtt.rto(h.backoff, config);
        let none = Bits::NO_PROBE | Bits::TAIL_DUE | Bits::RECOVERY | Bits::LOSS;
        let trouble = Bits::TAIL | none;
        let mode = if h.snd_wnd == 0 && h.state.is_synchronized() {
            Mode::Persist
        } else if h.bits & trouble == Bits::TAIL {
            wait = wait.min(self.probe_timeout(config));
            Mode::Probe
        } else {
            Mode::Retransmit
        };
        let mut at = now + wait;
        if self.warm.watch.contains(Watch::USER_TIMEOUT) {
            let limit = Duration::from_millis(self.cold.user_timeout.into());
            at = at.min(self.stalled().min(now) + limit);
        }
        self.warm.timers.set(Timer::Retransmit, at);
        self.warm.mode = mode;
    }
}
