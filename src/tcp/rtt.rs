//! Round trip time and the retransmission time-out (RFC 6298).

use super::Config;
use crate::time::{Duration, Instant};

/// The estimator. Microseconds in 32 bits: up to 71 minutes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    /// Smoothed RTT times 8; zero before the first measurement.
    srtt8: u32,
    /// Its variation times 4; before the first measurement the time-out until then.
    var4: u32,
}

/// Longest round trip that is believed, in microseconds.
const LONGEST: u32 = 1 << 27;
/// The clock's granularity G in nanoseconds.
const GRANULARITY: u64 = 1_000_000;
/// Stands beside the number of doublings: a tail's probe left, and nothing was
/// measured since (RFC 8985, 7.3).
pub(super) const PROBED: u8 = 0x80;

impl Rtt {
    /// Before any measurement (2.1).
    pub fn new(config: &Config) -> Self {
        Self { srtt8: 0, var4: micros(config.initial_rto.max(config.min_rto)) }
    }

    /// A measurement (2.2, 2.3). In line, as [`MinRtt::sample`] is: the two divide but once.
    #[inline(always)]
    pub fn sample(&mut self, took: Duration) {
        let r = took.as_micros().min(LONGEST.into()) as u32;
        if self.srtt8 == 0 {
            self.srtt8 = (r << 3).max(1);
            self.var4 = r << 1;
        } else {
            // Variation first, with the old smoothed value.
            let off = (self.srtt8 >> 3).abs_diff(r);
            self.var4 = self.var4 - (self.var4 >> 2) + off;
            self.srtt8 = (self.srtt8 - (self.srtt8 >> 3) + r).max(1);
        }
    }

    /// The SYN's timer expired and nothing was measured: 3 seconds for data (5.7).
    pub fn after_syn_timeout(&mut self) {
        if !self.is_measured() {
            self.var4 = self.var4.max(3_000_000);
        }
    }

    /// The time-out after `backoff` expirations (5.5), 16 at most, within the
    /// configured bounds (2.4, 2.5). The least time-out is a floor for the variation's
    /// share of it, as in Linux: so a delayed ACK is no time-out on a long path
    /// whose round trip never varies.
    #[inline]
    pub fn rto(&self, backoff: u8, config: &Config) -> Duration {
        let ns = if self.is_measured() {
            let least = config.min_rto.as_nanos().max(GRANULARITY);
            u64::from(self.srtt8 >> 3) * 1000 + (u64::from(self.var4) * 1000).max(least)
        } else {
            u64::from(self.var4) * 1000
        };
        // Less than 2^43, so that the doublings do not overflow.
        Duration::from_nanos((ns << (backoff & 31).min(16)).min(config.max_rto.as_nanos()))
    }

    /// Two smoothed round trips.
    #[inline(always)]
    pub fn twice(&self) -> Duration {
        let srtt = Duration::from_micros(self.smoothed().into());
        srtt + srtt
    }

    /// The time of the probe for a lone segment, where something was measured (RFC 8985, 7.2).
    #[inline(always)]
    pub fn lone_probe(&self, config: &Config) -> Duration {
        self.twice() + config.probe_ack_delay
    }

    /// Something was measured.
    pub fn is_measured(&self) -> bool {
        self.srtt8 > 0
    }

    /// Smoothed RTT in microseconds.
    pub fn smoothed(&self) -> u32 {
        self.srtt8 >> 3
    }

    /// RTT variation in microseconds.
    pub fn variation(&self) -> u32 {
        if self.is_measured() { self.var4 >> 2 } else { 0 }
    }
}

/// The least round trip of the last minutes, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MinRtt {
    least: u32,
    /// When it was measured, in units of 2^20 nanoseconds, a millisecond nearly.
    at: u32,
}

/// A measurement counts for 300 seconds, in those units.
const MIN_RTT_AGE: u32 = (300_000_000_000u64 >> 20) as u32;

impl MinRtt {
    /// A measurement.
    #[inline(always)]
    pub fn sample(&mut self, took: Duration, now: Instant) {
        let us = took.as_micros().clamp(1, LONGEST.into()) as u32;
        let at = (now.as_nanos() >> 20) as u32;
        if us <= self.least || self.least == 0 || at.wrapping_sub(self.at) > MIN_RTT_AGE {
            *self = Self { least: us, at };
        }
    }

    /// The next measurement counts, whatever it is.
    pub fn expire(&mut self, now: Instant) {
        self.at = ((now.as_nanos() >> 20) as u32).wrapping_sub(MIN_RTT_AGE + 1);
    }

    /// The least; zero before the first measurement.
    #[inline]
    pub fn least(&self) -> u32 {
        self.least
    }
}

fn micros(d: Duration) -> u32 {
    d.as_micros().min(u32::MAX.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_a_second_and_follows_the_formulas() {
        let config = Config { min_rto: Duration::from_millis(1), ..Config::default() };
        let mut rtt = Rtt::new(&config);
        assert_eq!(rtt.rto(0, &config), Duration::from_secs(1));
        rtt.sample(Duration::from_millis(100));
        // SRTT 100, RTTVAR 50, RTO 300.
        assert_eq!((rtt.smoothed(), rtt.variation()), (100_000, 50_000));
        assert_eq!(rtt.rto(0, &config), Duration::from_millis(300));
        rtt.sample(Duration::from_millis(200));
        // RTTVAR 3/4 * 50 + 1/4 * 100 = 62.5, SRTT 7/8 * 100 + 1/8 * 200 = 112.5.
        assert_eq!((rtt.smoothed(), rtt.variation()), (112_500, 62_500));
        assert_eq!(rtt.rto(0, &config), Duration::from_micros(362_500));
    }

    #[test]
    fn is_bounded_and_backs_off_exponentially() {
        let config = Config::default();
        let mut rtt = Rtt::new(&config);
        rtt.sample(Duration::from_micros(10));
        assert_eq!(rtt.rto(0, &config), config.min_rto + Duration::from_micros(10));
        assert_eq!(rtt.rto(3, &config), Duration::from_micros(1_600_080));
        assert_eq!(rtt.rto(16 | PROBED, &config), config.max_rto);
        rtt.sample(Duration::from_secs(1000));
        assert_eq!(rtt.rto(0, &config), config.max_rto);
    }

    #[test]
    fn a_long_path_that_never_varies_leaves_room_for_a_delayed_ack() {
        for floor in [1, 200] {
            let config = Config { min_rto: Duration::from_millis(floor), ..Config::default() };
            let mut rtt = Rtt::new(&config);
            for _ in 0..100 {
                rtt.sample(Duration::from_millis(250));
            }
            assert_eq!(rtt.rto(0, &config), Duration::from_millis(250 + floor));
        }
    }

    #[test]
    fn the_least_round_trip_is_forgotten_after_minutes() {
        let (mut least, ms) = (MinRtt::default(), |n: u64| Instant::from_nanos(n * 1_000_000));
        least.sample(Duration::from_millis(5), ms(0));
        least.sample(Duration::from_millis(9), ms(300_000));
        assert_eq!(least.least(), 5000);
        least.sample(Duration::from_millis(9), ms(300_001));
        assert_eq!(least.least(), 9000);
        least.sample(Duration::from_millis(2), ms(300_002));
        assert_eq!(least.least(), 2000);
        least.expire(ms(300_003));
        assert_eq!(least.least(), 2000, "until there is another");
        least.sample(Duration::from_millis(3), ms(300_003));
        least.sample(Duration::from_millis(4), ms(300_004));
        assert_eq!(least.least(), 3000);
    }

    #[test]
    fn three_seconds_after_a_syn_timed_out() {
        let config = Config::default();
        let mut rtt = Rtt::new(&config);
        rtt.after_syn_timeout();
        assert_eq!(rtt.rto(0, &config), Duration::from_secs(3));
        assert_eq!((rtt.smoothed(), rtt.variation()), (0, 0), "nothing was measured");
        rtt.sample(Duration::from_millis(100));
        let measured = rtt.rto(0, &config);
        rtt.after_syn_timeout();
        assert_eq!((rtt.rto(0, &config), rtt.variation()), (measured, 50_000), "too late");
    }
}
