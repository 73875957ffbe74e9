//! What a socket may set on a connection, and read back.

use super::congestion::Algorithm;
use super::connection::{Bits, Connection};
use super::timers::Slow;
use super::types::{Disposition, Events, State};
use crate::time::Instant;

impl Connection {
    /// Nagle's algorithm off or on. Off, what is queued leaves in spite of a cork,
    /// as in Linux; what is written later waits for its end.
    pub fn set_nodelay(&mut self, on: bool) -> Disposition {
        self.hot.bits.set(Bits::NODELAY, on);
        if on && self.hot.bits.contains(Bits::CORK) && self.hot.send.has_unsent() {
            self.extra().pushed = Some(self.hot.snd_end);
        }
        self.flush_if_unsent()
    }

    /// Whether Nagle's algorithm is off.
    pub fn nodelay(&self) -> bool {
        self.hot.bits.contains(Bits::NODELAY)
    }

    /// Only full segments leave while this is on.
    pub fn set_cork(&mut self, on: bool) -> Disposition {
        self.hot.bits.set(Bits::CORK, on);
        self.flush_if_unsent()
    }

    /// Whether only full segments leave.
    pub fn cork(&self) -> bool {
        self.hot.bits.contains(Bits::CORK)
    }

    /// What was written so far is a record (MSG_EOR): what follows is in segments
    /// of its own.
    pub fn end_record(&mut self) {
        self.hot.send.record_mark();
    }

    /// True where the program pushed all that waits under the cork.
    pub(super) fn pushed_out(&self) -> bool {
        self.extra.as_ref().is_some_and(|e| e.pushed == Some(self.hot.snd_end))
    }

    pub(super) fn flush_if_unsent(&self) -> Disposition {
        Disposition { events: Events::empty(), flush: self.hot.send.has_unsent() }
    }

    /// ACKs at once, or delayed where RFC 9293 allows it.
    pub fn set_quick_ack(&mut self, on: bool) -> Disposition {
        self.hot.bits.set(Bits::QUICK_ACK, on);
        let flush = on && self.hot.bits.contains(Bits::ACK_PENDING);
        if flush {
            self.hot.bits |= Bits::ACK_NOW;
        }
        Disposition { events: Events::empty(), flush }
    }

    /// Keepalive on or off (MUST-24).
    pub fn set_keepalive(&mut self, now: Instant, on: bool) {
        self.hot.bits.set(Bits::KEEPALIVE, on);
        self.restart_keepalive(now);
    }

    /// Whether keepalive is on.
    pub fn keepalive(&self) -> bool {
        self.hot.bits.contains(Bits::KEEPALIVE)
    }

    /// Keepalive's idle and interval seconds and number of probes; all at least 1.
    pub fn set_keepalive_times(&mut self, now: Instant, idle: u32, interval: u32, count: u8) {
        self.cold.keep_idle = idle.max(1);
        self.cold.keep_interval = interval.max(1);
        self.cold.keep_count = count.max(1);
        self.restart_keepalive(now);
    }

    /// Keepalive's idle and interval seconds and number of probes.
    pub fn keepalive_times(&self) -> (u32, u32, u8) {
        (self.cold.keep_idle, self.cold.keep_interval, self.cold.keep_count)
    }

    pub(super) fn restart_keepalive(&mut self, now: Instant) {
        let synchronized = self.hot.state.is_synchronized() && self.hot.state != State::TimeWait;
        if synchronized && self.hot.bits.contains(Bits::KEEPALIVE) {
            let idle = crate::time::Duration::from_secs(self.cold.keep_idle.into());
            self.cold.timers.set(Slow::KeepAlive, now + idle);
        } else {
            self.cold.timers.stop(Slow::KeepAlive);
        }
    }

    /// How often a SYN is sent again; 0: as the stack has it.
    pub fn set_syn_retries(&mut self, retries: u8) {
        self.cold.syn_retries = retries;
    }

    /// The user timeout in milliseconds; 0: the retry limits alone.
    pub fn set_user_timeout(&mut self, ms: u32) {
        self.keep_user_timeout(ms);
        self.user_timeout_was_set(ms);
    }

    /// The user timeout in milliseconds.
    pub fn user_timeout(&self) -> u32 {
        self.cold.user_timeout
    }

    /// The receive buffer in bytes.
    pub fn receive_buffer(&self) -> u32 {
        self.hot.rcv_buf
    }

    /// Payload bytes of a full segment, options taken off (TCP_MAXSEG).
    pub fn segment_size(&self) -> u16 {
        self.hot.mss
    }

    /// Congestion control by this algorithm from now on.
    pub fn set_congestion(&mut self, algorithm: Algorithm) {
        self.warm.congestion.switch(algorithm);
    }

    /// The congestion control algorithm.
    pub fn congestion(&self) -> Algorithm {
        self.warm.congestion.algorithm()
    }
}
