//! What is taken for lost, and why; and what is done about it (RFC 9293, 3.8.3;
//! RFC 6298, 5681, 6582, 6675, 6937, 8985, 5682).
//!
//! A connection that loses nothing has no books. The first SACK block, duplicate
//! or time-out opens them ([`Recovery`]); while they are open, ACKs take the long
//! way. They are closed a round trip after the last trouble.

mod dsack;
mod dupack;
mod episode;
#[cfg(test)]
mod model;
mod prr;
mod rack;
mod repair;
mod runs;
mod scoreboard;
mod seen;
mod tlp;
mod undo;

pub(super) use rack::Reordering;
pub(super) use scoreboard::Board;
pub(super) use seen::{Newest, Seen};
pub(super) use tlp::Tail;
pub(super) use undo::Frto;

use super::config::LossDetection;
use super::connection::{Bits, Connection, Hot, Watch};
use super::rtt::PROBED;
use super::send_queue::Marks;
use super::seq;
use super::timers::{Mode, Slow, Timer};
use super::types::{Disposition, Env, Events, State};
use crate::errno::Errno;
use crate::time::{Duration, Instant};

/// Retransmissions after which the next hop is put in doubt (RFC 9293, 3.8.3;
/// SHLD-10).
const R1: u8 = 3;

const FLUSH: Disposition = Disposition { events: Events::empty(), flush: true };

/// The books of a connection in trouble.
#[derive(Debug)]
pub(super) struct Recovery {
    pub board: Board,
    pub rack: rack::Rack,
    pub prr: prr::Prr,
    pub undo: undo::Undo,
    pub frto: Frto,
    pub tail: Option<Tail>,
    /// When RACK looks again; never, where nothing waits for that.
    reorder_at: Instant,
    /// Losses came to light just now.
    is_detected: bool,
    /// Bytes of losses that congestion control has not heard of: time shows some
    /// between two ACKs.
    untold: u32,
    /// SND.NXT at the end of the last recovery.
    linger: u32,
}

impl Recovery {
    fn new(una: u32) -> Self {
        Self {
            board: Board::new(una),
            rack: rack::Rack::default(),
            prr: prr::Prr::default(),
            undo: undo::Undo::default(),
            frto: Frto::Off,
            tail: None,
            reorder_at: Instant::NEVER,
            is_detected: false,
            untold: 0,
            linger: una,
        }
    }
}

impl Connection {
    /// The books, opened if they are not.
    pub(super) fn books(&mut self) -> (&mut Hot, &mut Recovery) {
        self.hot.bits |= Bits::BOOKS;
        let una = self.hot.snd_una;
        let r = self.cold.recovery.get_or_insert_with(|| Box::new(Recovery::new(una)));
        (&mut self.hot, r)
    }

    fn take_books(&mut self) -> Box<Recovery> {
        let una = self.hot.snd_una;
        self.cold.recovery.take().unwrap_or_else(|| Box::new(Recovery::new(una)))
    }

    /// The oldest segment, or the FIN where only it is outstanding, is lost.
    fn front_is_lost(&mut self) {
        if self.hot.send.sent() > 0 {
            let (h, r) = self.books();
            r.board.lose(&mut h.send, 0);
        } else if self.hot.bits.contains(Bits::FIN_SENT) {
            self.hot.bits |= Bits::FIN_LOST;
        }
    }

    /// All that is outstanding is to be sent again, for another reason than
    /// congestion.
    pub(super) fn outstanding_is_lost(&mut self) {
        if self.hot.snd_una == self.hot.snd_nxt {
            return;
        }
        let (h, r) = self.books();
        for i in 0..h.send.sent() as usize {
            r.board.lose(&mut h.send, i);
        }
        self.fin_is_lost();
    }

    fn fin_is_lost(&mut self) {
        let h = &mut self.hot;
        let fin_out = h.bits.contains(Bits::FIN_SENT) && seq::le(h.snd_una, h.snd_end);
        h.bits.set(Bits::FIN_LOST, fin_out);
    }

    /// The outstanding segment that begins at `seq` is lost: it cannot get through.
    pub(super) fn one_is_lost(&mut self, seq: u32) -> Disposition {
        let (h, r) = self.books();
        let i = h.send.index_of(seq);
        if i < h.send.sent() as usize && h.send.get(i).seq == seq {
            r.board.lose(&mut h.send, i);
        }
        FLUSH
    }

    /// The sent segments of more than a segment's bytes are lost: they cannot get
    /// through any more.
    pub(super) fn larger_are_lost(&mut self) {
        let mss = u32::from(self.hot.mss);
        let (h, r) = self.books();
        for i in 0..h.send.sent() as usize {
            if h.send.get(i).len() > mss {
                r.board.lose(&mut h.send, i);
            }
        }
    }

    /// Timers that have expired act. Harmless when none has.
    pub fn on_timer(&mut self, env: &mut Env) -> Disposition {
        let mut d = Disposition::NONE;
        let h = &mut self.hot;
        if self.cold.timers.take(Slow::Linger, env.now) {
            return self.end(env, None);
        }
        if self.warm.timers.take(Timer::DelayedAck, env.now) && h.bits.contains(Bits::ACK_PENDING) {
            h.bits |= Bits::ACK_NOW;
            d.flush = true;
        }
        if self.warm.timers.take(Timer::Retransmit, env.now) {
            d = d.and(self.on_retransmit_timer(env));
        }
        d.flush |= self.cold.timers.take(Slow::Pace, env.now);
        if self.cold.timers.take(Slow::KeepAlive, env.now) {
            d = d.and(self.on_keepalive_timer(env));
        }
        self.hot.send.trim();
        self.recv.trim();
        d
    }

    fn on_retransmit_timer(&mut self, env: &mut Env) -> Disposition {
        let outstanding = self.hot.snd_una != self.hot.snd_nxt;
        match self.warm.mode {
            Mode::Hold if !outstanding => {
                self.hot.bits |= Bits::PROBE_DUE;
                return FLUSH;
            }
            Mode::Settle if !outstanding => {
                self.cold.recovery = None;
                self.hot.bits -= Bits::BOOKS | Bits::NO_PROBE;
                return Disposition::NONE;
            }
            Mode::Probe if outstanding => return self.on_probe_timer(env),
            Mode::Reorder if outstanding => return self.on_reorder_timer(env),
            _ => {}
        }
        let waiting = self.hot.send.has_unsent() || self.owes_fin();
        if !outstanding && !waiting {
            return Disposition::NONE;
        }
        if self.gives_up(env) {
            env.counters.tcp_aborted += 1;
            let error = self.soft_error().unwrap_or(Errno::ETIMEDOUT);
            return self.end(env, Some(error));
        }
        let h = &mut self.hot;
        let before = h.retries;
        let first = before == 0;
        h.retries = h.retries.saturating_add(1);
        // The first probe of a shut window goes out because its peer was heard.
        let probing = h.snd_wnd == 0 && !first;
        let unheard = probing || h.retries >= R1 || !h.state.is_synchronized();
        h.backoff = h.backoff & PROBED | ((h.backoff & !PROBED) + 1).min(16);
        match h.state {
            State::SynSent | State::SynReceived => self.resend_syn(env, before),
            _ if h.snd_wnd == 0 => self.probe_window(),
            // The next hop is waited for: that is no congestion.
            _ if !outstanding => env.counters.tcp_timeouts += 1,
            _ => {
                self.on_timeout(env, first);
                self.path_timeout(env);
            }
        }
        let events = if unheard { Events::UNHEARD } else { Events::empty() };
        Disposition { events, flush: true }
    }

    /// RFC 6298, 5.4 to 5.6, and RFC 5681, 3.1.
    fn on_timeout(&mut self, env: &mut Env, first: bool) {
        env.counters.tcp_timeouts += 1;
        let mut r = self.take_books();
        let h = &mut self.hot;
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        let recovery = h.bits.contains(Bits::RECOVERY);
        self.warm.congestion.on_timeout(flight, h.mss.into(), first, recovery);
        if first {
            r.undo.begin(h.snd_una, r.board.retransmitted);
        }
        let again = env.config.frto && !recovery;
        r.frto = if again { Frto::Waiting } else { Frto::Off };
        r.tail = None;
        h.bits -= Bits::RECOVERY | Bits::TAIL_DUE;
        h.bits |= Bits::LOSS;
        h.dup_acks = 0;
        self.cold.recover = h.snd_nxt;
        self.warm.rtt_seq = h.snd_una;
        if !h.bits.contains(Bits::SACK) {
            h.send.set_sacked(0);
        } else if h.send.front().is_some_and(|s| s.marks.contains(Marks::SACKED)) {
            // It was there, and is not acknowledged: the peer dropped it, and
            // perhaps more (RFC 2018, 8). Else what it has it keeps (RFC 6675, 5.1).
            r.board.reneged(&mut h.send);
        }
        if h.bits.contains(Bits::SACK) && env.config.loss_detection == LossDetection::Rack {
            self.lose_on_timeout(env, &mut r);
        } else {
            for i in 0..self.hot.send.sent() as usize {
                r.board.lose(&mut self.hot.send, i);
            }
        }
        self.fin_is_lost();
        self.tell_reduction();
        self.put_books(r);
    }

    /// What could have been reordered is late by now (RFC 8985, 6.2, step 5).
    fn on_reorder_timer(&mut self, env: &mut Env) -> Disposition {
        let mut r = self.take_books();
        self.detect(env, &mut r, false);
        self.excuse_probe(env, &mut r);
        if r.is_detected {
            if !self.hot.bits.intersects(Bits::LOSS | Bits::RECOVERY) {
                let h = &self.hot;
                let (flight, sacked) = (h.snd_nxt.wrapping_sub(h.snd_una), h.send.sacked());
                self.enter_recovery(env, &mut r, flight, sacked);
            }
            let h = &self.hot;
            if h.bits.contains(Bits::RECOVERY) && !self.warm.congestion.owns_recovery() {
                let (threshold, mss) = (self.warm.congestion.threshold(), u32::from(h.mss));
                let pipe = self.pipe();
                self.warm.congestion.window = pipe + r.prr.room(0, false, pipe, threshold, mss);
            }
        }
        self.set_retransmit(env.now, env.config);
        self.after_booked(env, r, false);
        FLUSH
    }

    /// RFC 9293, 3.8.6.1 (MUST-35, MUST-36): one byte goes to the shut window,
    /// the oldest that is outstanding, or the next.
    fn probe_window(&mut self) {
        self.hot.bits |= Bits::PROBE_DUE;
        self.front_is_lost();
    }

    /// R2 is reached (RFC 9293, 3.8.3, MUST-20), or the user timeout is over.
    fn gives_up(&mut self, env: &Env) -> bool {
        let (h, c) = (&self.hot, &mut self.cold);
        let opening = matches!(h.state, State::SynSent | State::SynReceived);
        if !self.warm.watch.contains(Watch::STALLED) {
            self.warm.watch |= Watch::STALLED;
            let front = h.send.front().filter(|_| h.send.sent() > 0);
            c.stalled = match front {
                Some(segment) => segment.sent_at,
                None if opening => self.warm.last_sent,
                // A FIN alone: it left when its timer was set.
                None => env.now - self.warm.rtt.rto(h.backoff, env.config),
            };
        }
        let limit = match h.state {
            State::SynSent if c.syn_retries > 0 => c.syn_retries,
            State::SynSent => env.config.syn_retries,
            State::SynReceived => env.config.synack_retries.max(c.deferred),
            _ if h.bits.contains(Bits::ORPHAN) => env.config.orphan_retries,
            _ => env.config.retries,
        };
        if c.user_timeout > 0 {
            // It counts from the first SYN on; once open, it alone.
            let longest = Duration::from_millis(c.user_timeout.into());
            return env.now.since(c.stalled) >= longest || opening && h.retries >= limit;
        }
        h.retries >= limit
    }

    /// The probes went unanswered; with a user timeout that says for how long
    /// they may, not their number (as in Linux).
    fn keepalive_is_over(&self, env: &Env) -> bool {
        let c = &self.cold;
        if c.user_timeout == 0 {
            return c.keep_probes >= c.keep_count;
        }
        let limit = Duration::from_millis(c.user_timeout.into());
        c.keep_probes > 0 && env.now.since(self.warm.last_recv) >= limit
    }

    /// RFC 9293, 3.8.4 (MUST-24 to MUST-29).
    fn on_keepalive_timer(&mut self, env: &mut Env) -> Disposition {
        let idle = Duration::from_secs(self.cold.keep_idle.into());
        let interval = Duration::from_secs(self.cold.keep_interval.into());
        let due = self.warm.last_recv + idle;
        if due > env.now || self.hot.snd_una != self.hot.snd_nxt {
            // Something came in since, or the retransmission timer watches.
            self.cold.keep_probes = 0;
            let next = if due > env.now { due } else { env.now + idle };
            self.cold.timers.set(Slow::KeepAlive, next);
            return Disposition::NONE;
        }
        if self.keepalive_is_over(env) {
            env.counters.tcp_aborted += 1;
            self.send_reset(env, self.acceptable_seq(), Some(self.hot.rcv_nxt));
            let error = self.soft_error().unwrap_or(Errno::ETIMEDOUT);
            return self.end(env, Some(error));
        }
        self.cold.keep_probes = self.cold.keep_probes.saturating_add(1);
        self.cold.timers.set(Slow::KeepAlive, env.now + interval);
        self.hot.bits |= Bits::KEEP_DUE;
        let unheard = self.cold.keep_probes > 1;
        let events = if unheard { Events::UNHEARD } else { Events::empty() };
        Disposition { events, flush: true }
    }
}
