//! A connection's timers. The stack's wheel has one entry for all of them, at
//! the earliest; it may fire early or for a timer that has moved since.

use crate::time::Instant;
use core::marker::PhantomData;

/// Which timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Retransmission, window probes, or data held back: by [`Mode`].
    Retransmit,
    /// An acknowledgment is due.
    DelayedAck,
}

/// Which of those that are seldom set or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slow {
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

/// When each of `N` timers expires, which `K` names by its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set<K, const N: usize>([Instant; N], PhantomData<K>);

/// Those that requests and answers set and stop.
pub(super) type Timers = Set<Timer, 2>;
/// The others.
pub(super) type SlowTimers = Set<Slow, 3>;

impl From<Timer> for usize {
    #[inline(always)]
    fn from(timer: Timer) -> Self {
        timer as Self
    }
}

impl From<Slow> for usize {
    #[inline(always)]
    fn from(timer: Slow) -> Self {
        timer as Self
    }
}

impl<K: Into<usize>, const N: usize> Set<K, N> {
    pub const OFF: Self = Self([Instant::NEVER; N], PhantomData);

    #[inline]
    pub fn set(&mut self, timer: K, at: Instant) {
        self.0[timer.into()] = at;
    }

    #[inline]
    pub fn stop(&mut self, timer: K) {
        self.0[timer.into()] = Instant::NEVER;
    }

    #[inline]
    pub fn get(&self, timer: K) -> Instant {
        self.0[timer.into()]
    }

    #[inline]
    pub fn is_set(&self, timer: K) -> bool {
        self.0[timer.into()] != Instant::NEVER
    }

    /// True, once, when the timer has expired.
    pub fn take(&mut self, timer: K, now: Instant) -> bool {
        let at = &mut self.0[timer.into()];
        let due = *at <= now;
        if due {
            *at = Instant::NEVER;
        }
        due
    }

    /// The earliest, [`Instant::NEVER`] if none is set.
    #[inline]
    pub fn earliest(&self) -> Instant {
        self.0.into_iter().fold(Instant::NEVER, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_expires_once_at_its_time() {
        let at = Instant::from_nanos;
        let (mut timers, mut slow) = (Timers::OFF, SlowTimers::OFF);
        assert_eq!((timers.earliest(), slow.earliest()), (Instant::NEVER, Instant::NEVER));
        timers.set(Timer::Retransmit, at(9));
        timers.set(Timer::DelayedAck, at(5));
        assert_eq!(timers.earliest(), at(5));
        assert!(!timers.take(Timer::DelayedAck, at(4)));
        assert!(timers.take(Timer::DelayedAck, at(5)) && !timers.take(Timer::DelayedAck, at(5)));
        assert_eq!((timers.earliest(), timers.get(Timer::Retransmit)), (at(9), at(9)));
        timers.stop(Timer::Retransmit);
        assert!(!timers.is_set(Timer::Retransmit));
        for (i, timer) in [Slow::Pace, Slow::KeepAlive, Slow::Linger].into_iter().enumerate() {
            slow.set(timer, at(7 - i as u64));
            assert!(slow.is_set(timer));
            assert_eq!(slow.earliest(), at(7 - i as u64));
        }
    }
}
