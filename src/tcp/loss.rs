//! What is taken for lost, and why: duplicate ACKs (RFC 5681, 6582) and expired
//! timers (RFC 6298; RFC 9293, 3.8.3). Marks go on segments; output sends them.

use super::connection::{Bits, Connection};
use super::seq;
use super::timers::{Mode, Timer};
use super::types::{Disposition, Env, Events, State};
use crate::errno::Errno;
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Flags, Segment};

const FLUSH: Disposition = Disposition { events: Events::empty(), flush: true };

impl Connection {
    /// RFC 5681, 2: nothing new, something outstanding, the same window, no data;
    /// with SACK, a block ahead says the same whatever the window (RFC 6675, 2).
    pub(super) fn is_duplicate_ack(&self, seg: &Segment) -> bool {
        let h = &self.hot;
        let ahead = || {
            let blocks = &seg.options.sack;
            h.bits.contains(Bits::SACK) && blocks.iter().any(|b| seq::gt(b.left, seg.ack))
        };
        seg.ack == h.snd_una
            && h.snd_una != h.snd_nxt
            && seg.payload_len == 0
            && !seg.flags.intersects(Flags::SYN | Flags::FIN)
            && h.snd_wnd > 0
            && (u32::from(seg.window) << h.snd_scale == h.snd_wnd || ahead())
    }

    /// Counts a duplicate ACK; the third starts fast retransmit and recovery.
    pub(super) fn duplicate_ack(&mut self, env: &Env) -> Disposition {
        let h = &mut self.hot;
        h.dup_acks = h.dup_acks.saturating_add(1);
        let mss = u32::from(h.mss);
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        if h.bits.contains(Bits::RECOVERY) {
            // Another segment left the network. The first is the missing one.
            let most = flight.saturating_sub(mss);
            self.cold.sacked = (self.cold.sacked + mss).min(most);
            return FLUSH;
        }
        if h.bits.contains(Bits::LOSS) || h.dup_acks != 3 {
            // Limited transmit (RFC 3042) before the third.
            return FLUSH;
        }
        // RFC 6582, 3.2, step 2: not for what an earlier recovery sent.
        // `recover` is only valid where it lies in what is outstanding: once passed
        // it stays behind, by more than half the number space in the end.
        let sack = h.bits.contains(Bits::SACK);
        let new = self.cold.recover.wrapping_sub(h.snd_una) > flight;
        if !(new || sack && h.snd_una == self.cold.recover) {
            return FLUSH;
        }
        self.cold.recover = h.snd_nxt;
        h.congestion.on_recovery(env.now, flight, mss);
        h.bits |= Bits::RECOVERY;
        self.cold.sacked = (3 * mss).min(flight.saturating_sub(mss));
        self.front_is_lost();
        FLUSH
    }

    /// What limited transmit adds to the congestion window (RFC 3042).
    #[inline]
    pub(super) fn limited_transmit(&self) -> u32 {
        let h = &self.hot;
        if h.dup_acks == 0 || h.bits.intersects(Bits::RECOVERY | Bits::LOSS) {
            return 0;
        }
        u32::from(h.dup_acks.min(2)) * u32::from(h.mss)
    }

    /// New data is acknowledged during recovery. True where more may leave.
    #[cold]
    pub(super) fn acknowledged_in_recovery(
        &mut self,
        env: &Env,
        ack: u32,
        bytes: u32,
        flight: u32,
    ) -> bool {
        let h = &mut self.hot;
        let mss = u32::from(h.mss);
        let over = seq::ge(ack, self.cold.recover);
        if h.bits.contains(Bits::RECOVERY) {
            if over {
                h.bits -= Bits::RECOVERY;
                self.cold.sacked = 0;
                h.congestion.on_recovered(env.now, h.snd_nxt.wrapping_sub(ack), mss);
            } else {
                // A partial ACK: the next segment is missing too (RFC 6582, 3.2,
                // step 3), and the ones between had left the network.
                let gone = bytes.saturating_sub(mss);
                self.cold.sacked = self.cold.sacked.saturating_sub(gone);
                self.front_is_lost();
            }
            return true;
        }
        self.open_window(env, bytes, flight, None);
        if over {
            self.hot.bits -= Bits::LOSS;
        }
        true
    }

    /// The oldest segment, or the FIN where only it is outstanding, is lost.
    fn front_is_lost(&mut self) {
        let h = &mut self.hot;
        if h.send.sent() > 0 {
            h.send.mark_front_lost();
        } else if h.bits.contains(Bits::FIN_SENT) {
            h.bits |= Bits::FIN_LOST;
        }
    }

    /// Timers that have expired act. Harmless when none has.
    pub fn on_timer(&mut self, env: &mut Env) -> Disposition {
        let mut d = Disposition::NONE;
        let h = &mut self.hot;
        if h.timers.take(Timer::Linger, env.now) {
            return self.end(env, None);
        }
        if h.timers.take(Timer::DelayedAck, env.now) && h.bits.contains(Bits::ACK_PENDING) {
            h.bits |= Bits::ACK_NOW;
            d.flush = true;
        }
        if h.timers.take(Timer::Retransmit, env.now) {
            d = d.and(self.on_retransmit_timer(env));
        }
        if self.hot.timers.take(Timer::KeepAlive, env.now) {
            d = d.and(self.on_keepalive_timer(env));
        }
        self.hot.send.trim();
        self.recv.trim();
        d
    }

    fn on_retransmit_timer(&mut self, env: &mut Env) -> Disposition {
        let outstanding = self.hot.snd_una != self.hot.snd_nxt;
        if self.cold.mode == Mode::Hold && !outstanding {
            self.hot.bits |= Bits::PROBE_DUE;
            return FLUSH;
        }
        let waiting = self.hot.send.has_unsent() || self.owes_fin();
        if !outstanding && !waiting {
            return Disposition::NONE;
        }
        if self.gives_up(env) {
            env.counters.tcp_aborted += 1;
            let error = self.cold.soft_error.unwrap_or(Errno::ETIMEDOUT);
            return self.end(env, Some(error));
        }
        let h = &mut self.hot;
        let before = h.retries;
        let first = before == 0;
        // The first probe of a shut window goes out because its peer was heard.
        let unheard = !first || h.snd_wnd > 0 || !h.state.is_synchronized();
        h.retries = h.retries.saturating_add(1);
        h.backoff = (h.backoff + 1).min(16);
        match h.state {
            State::SynSent | State::SynReceived => self.resend_syn(env, before),
            _ if h.snd_wnd == 0 => self.probe_window(),
            _ => self.on_timeout(env, first),
        }
        let events = if unheard { Events::UNHEARD } else { Events::empty() };
        Disposition { events, flush: true }
    }

    /// RFC 6298, 5.4 to 5.6, and RFC 5681, 3.1.
    fn on_timeout(&mut self, env: &mut Env, first: bool) {
        env.counters.tcp_timeouts += 1;
        let h = &mut self.hot;
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        h.congestion.on_timeout(env.now, flight, h.mss.into(), first);
        h.bits -= Bits::RECOVERY;
        h.bits |= Bits::LOSS;
        h.dup_acks = 0;
        self.cold.sacked = 0;
        self.cold.recover = h.snd_nxt;
        h.rtt_seq = h.snd_una;
        self.outstanding_is_lost();
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
        if c.stalled == Instant::NEVER {
            let front = h.send.front().filter(|_| h.send.sent() > 0);
            c.stalled = front.map_or(c.last_sent, |s| s.sent_at);
        }
        let opening = matches!(h.state, State::SynSent | State::SynReceived);
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
        c.keep_probes > 0 && env.now.since(self.cold.last_recv) >= limit
    }

    /// RFC 9293, 3.8.4 (MUST-24 to MUST-29).
    fn on_keepalive_timer(&mut self, env: &mut Env) -> Disposition {
        let idle = Duration::from_secs(self.cold.keep_idle.into());
        let interval = Duration::from_secs(self.cold.keep_interval.into());
        let due = self.cold.last_recv + idle;
        if due > env.now || self.hot.snd_una != self.hot.snd_nxt {
            // Something came in since, or the retransmission timer watches.
            self.cold.keep_probes = 0;
            let next = if due > env.now { due } else { env.now + idle };
            self.hot.timers.set(Timer::KeepAlive, next);
            return Disposition::NONE;
        }
        if self.keepalive_is_over(env) {
            env.counters.tcp_aborted += 1;
            self.send_reset(env, self.acceptable_seq(), Some(self.hot.rcv_nxt));
            let error = self.cold.soft_error.unwrap_or(Errno::ETIMEDOUT);
            return self.end(env, Some(error));
        }
        self.cold.keep_probes = self.cold.keep_probes.saturating_add(1);
        self.hot.timers.set(Timer::KeepAlive, env.now + interval);
        self.hot.bits |= Bits::KEEP_DUE;
        let unheard = self.cold.keep_probes > 1;
        let events = if unheard { Events::UNHEARD } else { Events::empty() };
        Disposition { events, flush: true }
    }
}
