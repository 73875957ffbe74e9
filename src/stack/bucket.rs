//! A token bucket: at most so many a second, and so many at once.

use super::config::Rate;
use crate::time::Instant;

/// The bucket. It starts full.
#[derive(Debug)]
pub struct Bucket {
    /// Nanoseconds that a token costs.
    cost: u64,
    /// Nanoseconds saved, at most `limit`.
    credit: u64,
    limit: u64,
    last: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        // Nobody saves up for a token that costs more than time has.
        let cost = 1_000_000_000u64.checked_div(rate.per_second.into()).unwrap_or(u64::MAX).max(1);
        let limit = if rate.per_second == 0 { 0 } else { cost * u64::from(rate.burst) };
        Self { cost, credit: limit, limit, last: now }
    }

    /// Takes a token, if there is one.
    #[inline]
    pub fn take(&mut self, now: Instant) -> bool {
        let earned = now.since(self.last).as_nanos();
        self.last = now;
        self.credit = self.credit.saturating_add(earned).min(self.limit);
        if self.credit < self.cost {
            return false;
        }
        self.credit -= self.cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn burst_then_rate() {
        let start = Instant::from_nanos(5_000_000_000);
        let mut b = Bucket::new(Rate { per_second: 10, burst: 3 }, start);
        assert_eq!((0..10).filter(|_| b.take(start)).count(), 3);
        let mut passed = 0;
        for ms in 0..1000 {
            passed += u32::from(b.take(start + Duration::from_millis(ms + 1)));
        }
        assert_eq!(passed, 10);
        // A long rest fills it to the burst, no further.
        let late = start + Duration::from_secs(100);
        assert_eq!((0..10).filter(|_| b.take(late)).count(), 3);
        let mut none = Bucket::new(Rate { per_second: 0, burst: 5 }, start);
        assert!(!none.take(late));
    }
}
