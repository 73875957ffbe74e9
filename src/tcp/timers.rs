//! A connection's timers. The stack's wheel has one entry for all of them, at
//! the earliest; it may fire early or for a timer that has moved since.

use crate::time::Instant;

/// Which timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Retransmission, window probes, or data held back: by [`Mode`].
    Retransmit,
    /// An acknowledgment is due.
    DelayedAck,
    /// The connection has been idle.
    KeepAlive,
    /// TIME-WAIT or FIN-WAIT-2 ends.
    Linger,
    /// What is paced may leave.
    Pace,
}

/// What the [`Timer::Retransmit`] is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Something is outstanding.
    Retransmit,
    /// The peer's window is shut (RFC 9293, 3.8.6.1).
    Persist,
    /// A small segment is held back by cork or silly window avoidance.
    Hold,
    /// The tail is to be probed for (RFC 8985, 7).
    Probe,
    /// What may have been reordered is looked at again (RFC 8985, 6.2).
    Reorder,
    /// Nothing is outstanding, and the books of losses are to be closed.
    Settle,
}

/// When each of them expires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers([Instant; 5]);

impl Timers {
    pub const OFF: Self = Self([Instant::NEVER; 5]);

    #[inline]
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = at;
    }

    #[inline]
    pub fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = Instant::NEVER;
    }

    #[inline]
    pub fn get(&self, timer: Timer) -> Instant {
        self.0[timer as usize]
    }

    #[inline]
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize] != Instant::NEVER
    }

    /// True, once, when the timer has expired.
    pub fn take(&mut self, timer: Timer, now: Instant) -> bool {
        let due = self.0[timer as usize] <= now;
        if due {
            self.stop(timer);
        }
        due
    }

    /// The earliest, [`Instant::NEVER`] if none is set.
    #[inline]
    pub fn earliest(&self) -> Instant {
        let [a, b, c, d, e] = self.0;
        a.min(b).min(c.min(d)).min(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_expires_once_at_its_time() {
        let at = Instant::from_nanos;
        let mut timers = Timers::OFF;
        assert_eq!(timers.earliest(), Instant::NEVER);
        timers.set(Timer::KeepAlive, at(9));
        timers.set(Timer::DelayedAck, at(5));
        assert_eq!(timers.earliest(), at(5));
        assert!(!timers.take(Timer::DelayedAck, at(4)));
        assert!(timers.take(Timer::DelayedAck, at(5)) && !timers.take(Timer::DelayedAck, at(5)));
        assert_eq!(timers.earliest(), at(9));
        timers.stop(Timer::KeepAlive);
        assert!(!timers.is_set(Timer::KeepAlive));
    }
}
