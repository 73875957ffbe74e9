//! Round trip time and the retransmission time-out (RFC 6298).

use super::Config;
use crate::time::Duration;

/// The estimator. Microseconds in 32 bits: up to 71 minutes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    /// Smoothed RTT times 8; zero before the first measurement.
    srtt8: u32,
    /// Its variation times 4.
    var4: u32,
    /// The time-out as the formulas have it, without its bounds.
    rto: u32,
}

/// Longest round trip that is believed, in microseconds.
const LONGEST: u32 = 1 << 27;
/// The clock's granularity G in microseconds.
const GRANULARITY: u32 = 1000;

impl Rtt {
    /// Before any measurement (2.1).
    pub fn new(config: &Config) -> Self {
        Self { srtt8: 0, var4: 0, rto: micros(config.initial_rto) }
    }

    /// A measurement (2.2, 2.3).
    #[inline]
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
        self.rto = (self.srtt8 >> 3) + self.var4.max(GRANULARITY);
    }

    /// The SYN's timer expired and nothing was measured: 3 seconds for data (5.7).
    pub fn after_syn_timeout(&mut self) {
        self.rto = self.rto.max(3_000_000);
    }

    /// The time-out after `backoff` expirations (5.5), within the configured
    /// bounds (2.4, 2.5).
    #[inline]
    pub fn rto(&self, backoff: u8, config: &Config) -> Duration {
        let us = u64::from(self.rto) << backoff.min(16);
        let least = config.min_rto.as_nanos().saturating_mul(1 << backoff.min(16));
        Duration::from_nanos((us * 1000).max(least).min(config.max_rto.as_nanos()))
    }

    /// Smoothed RTT in microseconds.
    pub fn smoothed(&self) -> u32 {
        self.srtt8 >> 3
    }

    /// RTT variation in microseconds.
    pub fn variation(&self) -> u32 {
        self.var4 >> 2
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
        assert_eq!(rtt.rto(0, &config), config.min_rto);
        assert_eq!(rtt.rto(3, &config), Duration::from_millis(1600));
        assert_eq!(rtt.rto(200, &config), config.max_rto);
        rtt.sample(Duration::from_secs(1000));
        assert_eq!(rtt.rto(0, &config), config.max_rto);
    }

    #[test]
    fn three_seconds_after_a_syn_timed_out() {
        let config = Config::default();
        let mut rtt = Rtt::new(&config);
        rtt.after_syn_timeout();
        assert_eq!(rtt.rto(0, &config), Duration::from_secs(3));
    }
}
