//! What a segment brings: its text, in order or ahead of a gap, and its FIN.

use super::assembler::{Insert, Limits};
use super::connection::{Bits, Connection};
use super::input::Arrival;
use super::seq;
use super::types::{Disposition, Env, Events, State};
use crate::frame::{Frame, Packet};
use crate::telemetry::DropReason;

/// Frames that may wait behind a gap however small the receive buffer is.
const LEAST_AHEAD: usize = 16;
/// Segments whose ACK waits for no more.
const BULK: u32 = 16;

impl Connection {
    /// Seventh: the text.
    pub(super) fn process_text(&mut self, env: &mut Env, a: &mut Arrival) -> Disposition {
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
        if packet.rest.is_some() {
            return self.take_chain(env, a.seq, packet);
        }
        self.take_text(env, a.seq, packet.head)
    }

    /// A segment of several frames: each is a piece of text by itself. What is
    /// counted by segments is counted once.
    #[cold]
    pub(super) fn take_chain(&mut self, env: &mut Env, mut at: u32, packet: Packet) -> Disposition {
        let len = packet.len().min(self.warm.adv_mss.into()) as u16;
        self.hot.rcv_mss = self.hot.rcv_mss.max(len);
        let (quick, dup_out) = (self.hot.quick, self.cold.dup_out);
        let mut d = Disposition::NONE;
        let Packet { head, rest } = packet;
        let mut take = |frame: Frame, env: &mut Env| {
            let len = frame.len() as u32;
            if len == 0 {
                // It held the headers alone.
                return env.pool.free(frame);
            }
            d = d.and(self.take_text(env, at, frame));
            at = at.wrapping_add(len);
        };
        take(head, env);
        if let Some(mut rest) = rest {
            rest.drain(..).for_each(|frame| take(frame, env));
            env.pool.keep_list(rest);
        }
        self.hot.quick = self.hot.quick.max(quick.saturating_sub(1));
        self.cold.dup_out = self.cold.dup_out.min(dup_out.saturating_add(1));
        d
    }

    /// One frame of text that begins at `first`.
    pub(super) fn take_text(&mut self, env: &mut Env, first: u32, mut frame: Frame) -> Disposition {
        let h = &self.hot;
        let old = seq::distance(first, h.rcv_nxt);
        if old > 0 {
            let end = first.wrapping_add(old.min(frame.len() as u32));
            self.note_duplicate(env, first, end);
        }
        let h = &self.hot;
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
    pub(super) fn take_in_order(&mut self, env: &mut Env, frame: Frame) -> Disposition {
        self.note_in_order(frame.len() as u32);
        self.recv.push(env.pool, env.counters, env.config, frame);
        Disposition { events: Events::READABLE, flush: true }
    }

    /// So many bytes came in order; are they to be acknowledged at once?
    #[inline(always)]
    pub(super) fn note_in_order(&mut self, n: u32) {
        let h = &mut self.hot;
        h.rcv_nxt = h.rcv_nxt.wrapping_add(n);
        h.rcv_used += n;
        self.warm.bytes_received += u64::from(n);
        if n > u32::from(h.rcv_mss) {
            h.rcv_mss = n.min(self.warm.adv_mss.into()) as u16;
        }
        h.bits |= Bits::ACK_PENDING;
        // Every second full segment (SHLD-19), all at the start, else later.
        let due = h.rcv_nxt.wrapping_sub(h.last_ack) >= 2 * u32::from(h.rcv_mss);
        if due || h.quick > 0 || h.bits.contains(Bits::QUICK_ACK) {
            h.quick = h.quick.saturating_sub(1);
            h.bits |= Bits::ACK_NOW;
        }
    }

    /// True where nothing is to leave but the ACK of bulk data in order, which may wait a
    /// little for more of it: after the start, with no loss in sight, with less than 16
    /// segments and at most a quarter of the window to acknowledge. (What else may want an
    /// ACK then bears a wait of microseconds.)
    #[inline]
    pub fn owes_bulk_ack(&self) -> bool {
        let h = &self.hot;
        let due = Bits::ACK_PENDING | Bits::ACK_NOW;
        let urgent = Bits::SLOW | Bits::DSACK | Bits::QUICK_ACK | Bits::KEEP_DUE | Bits::TROUBLE | Bits::FIN_QUEUED;
        let bytes = h.rcv_nxt.wrapping_sub(h.last_ack);
        h.bits & (due | urgent) == due
            && h.state == State::Established
            && h.quick == 0
            && !h.send.has_unsent()
            && bytes >= 2 * u32::from(h.rcv_mss)
            && bytes < BULK * u32::from(h.rcv_mss)
            && bytes <= seq::distance(h.last_ack, h.rcv_edge) / 4
    }

    /// True where nothing is to leave but the ACK of the first segment with data, of which
    /// the program has read nothing.
    pub fn owes_first_ack(&self) -> bool {
        let h = &self.hot;
        let due = Bits::ACK_PENDING | Bits::ACK_NOW;
        let urgent = Bits::SLOW | Bits::DSACK | Bits::QUICK_ACK | Bits::KEEP_DUE | Bits::TROUBLE | Bits::FIN_QUEUED;
        h.bits & (due | urgent) == due
            && h.state == State::Established
            && !h.send.has_unsent()
            && u64::from(h.rcv_used) == self.warm.bytes_received
            && h.rcv_nxt.wrapping_sub(h.last_ack) < 2 * u32::from(h.rcv_mss)
    }

    /// Keeps what came ahead of a gap, within the bounds; the peer is told at
    /// once (RFC 5681, 4.2).
    #[cold]
    pub(super) fn keep_ahead(&mut self, env: &mut Env, first: u32, frame: Frame) -> Disposition {
        self.cold.dup_out = self.cold.dup_out.saturating_add(1);
        self.hot.quick = self.hot.quick.max(2);
        if env.pool.available() < env.config.frames_low {
            env.counters.drop(DropReason::PoolExhausted);
            env.pool.free(frame);
            return self.ack_now();
        }
        let limits = self.ahead_limits(env);
        let end = first.wrapping_add(frame.len() as u32);
        let ahead = self.recv.ahead.get_or_insert_default();
        let known = ahead.known(first, end);
        match ahead.insert(env.pool, first, frame, limits) {
            Insert::Kept => {}
            Insert::Duplicate => env.counters.drop(DropReason::TcpDuplicate),
            Insert::Full | Insert::Pruned => env.counters.drop(DropReason::TcpOutOfOrderFull),
        }
        self.hot.bits |= Bits::GAP;
        if let Some((left, right)) = known {
            self.note_duplicate(env, left, right);
        }
        self.ack_now()
    }

    /// How much may wait behind a gap: so many segments, and frames of twice the
    /// receive buffer, but a few whatever it is.
    fn ahead_limits(&self, env: &Env) -> Limits {
        let frame = env.pool.arena().capacity().max(1);
        let frames = (2 * self.hot.rcv_buf as usize).div_ceil(frame).max(LEAST_AHEAD);
        let pieces = frames.min(env.config.out_of_order_segments as usize);
        Limits { pieces, small: env.config.coalesce as usize }
    }

    /// Takes what is in order now of what waited.
    #[cold]
    pub(super) fn close_gap(&mut self, env: &mut Env) -> Disposition {
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
    pub(super) fn process_fin(&mut self, env: &mut Env, a: &Arrival) -> Disposition {
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

    pub(super) fn take_fin(&mut self, env: &mut Env) -> Disposition {
        let h = &mut self.hot;
        h.rcv_nxt = h.rcv_nxt.wrapping_add(1);
        h.rcv_edge = seq::max(h.rcv_edge, h.rcv_nxt);
        // Where data came before, the program's answer or FIN carries the ACK if it
        // comes soon, as in Linux.
        let due = h.rcv_nxt.wrapping_sub(h.last_ack) > 2 * u32::from(h.rcv_mss);
        let talked = h.quick < env.config.quick_acks && h.state == State::Established;
        let waits = talked && !due && !h.bits.contains(Bits::QUICK_ACK);
        h.bits |= Bits::PEER_CLOSED | if waits { Bits::ACK_PENDING } else { Bits::ACK_NOW };
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
