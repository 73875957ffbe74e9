//! Segments leave spaced out: at a rate that congestion control says, or no faster
//! than the program allows (SO_MAX_PACING_RATE).
//!
//! The stack's clock of timers ticks every millisecond: what a rate allows in that
//! time leaves together. ACKs and writes that come in between let more leave as
//! soon as it is due.

use super::connection::Connection;
use super::timers::Slow;
use crate::time::{Duration, Instant};

/// Time that can be saved up: the timers' tick, and that one may be late.
const SLACK: Duration = Duration::from_millis(2);

/// When the next segment may leave.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    next: Instant,
    /// The last flush ended because of it.
    held: bool,
    /// Bytes a second at most; zero: any.
    max_rate: u64,
    /// The rate that `next` was reckoned at.
    rate: u64,
}

impl Pacing {
    /// So many bytes leave now at this rate. Time that nobody used is lost, but
    /// for a little.
    fn spend(&mut self, now: Instant, bytes: u64, rate: u64) {
        let earliest = Instant::from_nanos(now.as_nanos().saturating_sub(SLACK.as_nanos()));
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        self.next = self.next.max(earliest) + Duration::from_nanos(cost.min(1 << 40) as u64);
        self.rate = rate;
    }

    /// The rate is this now: what waits at a lower one waits no longer than at this.
    /// (After a handshake that lost something the path looks a hundred times slower
    /// than its first ACK shows.)
    fn hasten(&mut self, now: Instant, rate: u64) {
        if rate > self.rate && self.next > now {
            let wait = u128::from(self.next.since(now).as_nanos()) * u128::from(self.rate);
            self.next = now + Duration::from_nanos((wait / u128::from(rate)) as u64);
            self.rate = rate;
        }
    }
}

impl Connection {
    /// Bytes a second at which segments leave; `None`: as fast as windows allow.
    pub fn pacing_rate(&self) -> Option<u64> {
        let srtt = Duration::from_micros(self.warm.rtt.smoothed().into());
        let most = self.cold.flow.as_ref().map_or(0, |f| f.pacing.max_rate);
        let rate = if self.warm.congestion.is_paced() { self.warm.congestion.pacing_rate(srtt) } else { None };
        match (rate, most) {
            (rate, 0) => rate,
            (rate, most) => Some(rate.map_or(most, |r| r.min(most))),
        }
    }

    /// Sets the largest rate, in bytes a second; zero: any. Always at least a
    /// byte a second.
    pub fn set_max_pacing_rate(&mut self, rate: u64) {
        if rate > 0 || self.cold.flow.is_some() {
            self.flow().pacing.max_rate = rate;
        }
        self.warm.congestion.set_capped(rate > 0);
    }

    /// The largest rate, zero where any will do.
    pub fn max_pacing_rate(&self) -> u64 {
        self.cold.flow.as_ref().map_or(0, |f| f.pacing.max_rate)
    }

    /// True where the next segment has to wait for its time.
    #[inline]
    pub(super) fn is_held_back(&mut self, now: Instant) -> bool {
        self.warm.congestion.is_spaced() && self.hold_back(now)
    }

    #[inline(never)]
    fn hold_back(&mut self, now: Instant) -> bool {
        let rate = self.pacing_rate().unwrap_or(0);
        let pacing = &mut self.flow().pacing;
        pacing.hasten(now, rate);
        pacing.held = pacing.next > now;
        pacing.held
    }

    /// This flush met a segment that has to wait for its time.
    pub(super) fn was_held_back(&self) -> bool {
        self.warm.congestion.is_spaced() && self.cold.flow.as_ref().is_some_and(|f| f.pacing.held)
    }

    /// A data segment left.
    #[inline]
    pub(super) fn count_paced(&mut self, now: Instant, bytes: usize) {
        if self.warm.congestion.is_spaced() {
            self.spend_time(now, bytes);
        }
    }

    #[inline(never)]
    fn spend_time(&mut self, now: Instant, bytes: usize) {
        if let Some(rate) = self.pacing_rate() {
            self.flow().pacing.spend(now, bytes as u64, rate);
        }
    }

    /// Sets the timer for what was held back.
    #[inline]
    pub(super) fn arm_pacing(&mut self) {
        if self.warm.congestion.is_spaced() {
            self.set_pacing_timer();
        }
    }

    #[inline(never)]
    fn set_pacing_timer(&mut self) {
        let pacing = &mut self.flow().pacing;
        let (held, next) = (core::mem::take(&mut pacing.held), pacing.next);
        if held {
            self.cold.timers.set(Slow::Pace, next);
        } else {
            self.cold.timers.stop(Slow::Pace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_saved_up_for_two_ticks_at_most() {
        let now = Instant::ZERO + Duration::from_secs(5);
        let mut p = Pacing::default();
        // A thousand bytes a millisecond: after two saved ones the third is in time.
        for waits in [false, false, false, true, true] {
            assert_eq!(p.next > now, waits);
            p.spend(now, 1000, 1_000_000);
        }
        assert_eq!(p.next.since(now).as_millis(), 3);
    }

    #[test]
    fn what_waits_at_a_low_rate_waits_less_when_a_higher_one_is_known() {
        let now = Instant::ZERO + Duration::from_secs(5);
        let mut p = Pacing { next: now, ..Pacing::default() };
        // A segment at a window in a second: it was the handshake that took so long.
        p.spend(now, 1000, 4000);
        assert_eq!(p.next.since(now).as_millis(), 250);
        let later = now + Duration::from_millis(50);
        p.hasten(later, 400_000);
        assert_eq!(p.next.since(later).as_millis(), 2);
        p.hasten(later, 100_000);
        assert_eq!(p.next.since(later).as_millis(), 2, "a lower rate is for what comes next");
    }
}
