//! How fast data gets through (draft-cheng-iccrg-delivery-rate-estimation).
//!
//! What the draft notes with each segment is the same for all that leave in one
//! turn: it is noted once for each turn, and found again by the time at which an
//! acknowledged segment left.

use super::ack::Progress;
use super::congestion::RateSample;
use super::connection::Connection;
use super::types::Env;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// How things stood when segments left.
#[derive(Clone, Copy, Debug)]
struct Departure {
    at: Instant,
    delivered: u32,
    delivered_at: Instant,
    first_sent: Instant,
    lost: u32,
    in_flight: u32,
    app_limited: bool,
}

/// The last sample that said something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    pub delivered: u32,
    pub interval: Duration,
    pub app_limited: bool,
}

impl Measured {
    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        let ns = u128::from(self.interval.as_nanos().max(1));
        (u128::from(self.delivered) * 1_000_000_000 / ns) as u64
    }
}

/// The sampler.
#[derive(Debug, Default)]
pub(super) struct Rate {
    departures: VecDeque<Departure>,
    /// When something was last delivered.
    delivered_at: Instant,
    /// When what was last delivered had been sent.
    first_sent: Instant,
    /// Bytes marked lost since the beginning.
    lost: u32,
    /// What is delivered before this number was sent with a window not full.
    app_limited: Option<u32>,
    pub last: Measured,
}

impl Rate {
    /// Something left in this turn. `before`: what was under way then.
    fn on_sent(&mut self, now: Instant, delivered: u32, before: u32, in_flight: u32) {
        if let Some(last) = self.departures.back_mut().filter(|d| d.at == now) {
            last.in_flight = last.in_flight.max(in_flight);
            return;
        }
        if before == 0 {
            (self.first_sent, self.delivered_at) = (now, now);
            self.departures.clear();
        }
        self.departures.push_back(Departure {
            at: now,
            delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            lost: self.lost,
            in_flight,
            app_limited: self.app_limited.is_some(),
        });
    }

    #[cfg(test)]
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Something was delivered, the last sent of it at `sent_at`.
    fn on_delivered(
        &mut self,
        now: Instant,
        total: u32,
        sent_at: Instant,
        min_rtt: Duration,
    ) -> Option<RateSample> {
        self.delivered_at = now;
        if self.app_limited.is_some_and(|end| total.wrapping_sub(end) as i32 > 0) {
            self.app_limited = None;
        }
        let i = self.departures.partition_point(|d| d.at < sent_at);
        let d = *self.departures.get(i).filter(|d| d.at == sent_at)?;
        // Older ones say less: what still comes of them is late.
        self.departures.drain(..i);
        self.first_sent = sent_at;
        let sending = sent_at.since(d.first_sent);
        let interval = sending.max(now.since(d.delivered_at));
        if interval < min_rtt || interval == Duration::ZERO {
            // Sooner than the path can: an ACK for more than it was sent for.
            return None;
        }
        let delivered = total.wrapping_sub(d.delivered);
        if delivered as i32 <= 0 {
            // Duplicate ACKs had stood for more than there was, or the peer threw away.
            return None;
        }
        let sample = RateSample {
            prior_delivered: d.delivered,
            delivered,
            interval,
            lost: self.lost.wrapping_sub(d.lost),
            tx_in_flight: d.in_flight,
            app_limited: d.app_limited,
        };
        let measured = Measured { delivered, interval, app_limited: d.app_limited };
        if !d.app_limited || measured.rate() >= self.last.rate() {
            self.last = measured;
        }
        Some(sample)
    }
}

impl Connection {
    /// Bytes delivered since the beginning, modulo 2^32.
    pub(super) fn delivered(&self) -> u32 {
        (self.warm.bytes_acked as u32).wrapping_add(self.hot.send.sacked())
    }

    /// Called where a flush sent data: notes how things stood. `before`: what was
    /// under way before it.
    #[inline(never)]
    pub(super) fn note_departure(&mut self, env: &Env, before: u32) {
        let (delivered, in_flight) = (self.delivered(), self.pipe());
        let h = &self.hot;
        // 4.2 of the draft: nothing more is there to be sent, though it could.
        let idle = !h.send.has_unsent() && h.send.lost() == 0 && in_flight < self.warm.congestion.window;
        let idle = idle || self.warm.congestion.is_app_limited();
        let rate = &mut self.flow().rate;
        rate.on_sent(env.now, delivered, before, in_flight);
        if idle {
            rate.app_limited = Some(delivered.wrapping_add(in_flight));
        }
    }

    /// The sample of what an ACK delivered, where there is one.
    #[inline(never)]
    pub(super) fn sample_rate(&mut self, env: &Env, p: &Progress) -> Option<RateSample> {
        let total = self.delivered();
        let min_rtt = self.least_rtt();
        let rate = &mut self.cold.flow.as_mut()?.rate;
        rate.lost = rate.lost.wrapping_add(p.lost);
        if p.delivered == 0 {
            return None;
        }
        rate.on_delivered(env.now, total, p.newest?, min_rtt)
    }

    /// The last measured rate of delivery.
    pub(super) fn measured_rate(&self) -> Measured {
        self.cold.flow.as_ref().map_or(Measured::default(), |f| f.rate.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(1000 + ms)
    }

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn a_sample_is_what_came_through_since_the_segment_left() {
        let mut r = Rate::default();
        r.on_sent(at(0), 0, 0, 10_000);
        r.on_sent(at(5), 0, 10_000, 20_000);
        let s = r.on_delivered(at(20), 10_000, at(0), NONE).unwrap();
        assert_eq!((s.prior_delivered, s.delivered, s.tx_in_flight), (0, 10_000, 10_000));
        assert_eq!(s.interval.as_millis(), 20);
        r.lost += 700;
        let s = r.on_delivered(at(25), 20_000, at(5), NONE).unwrap();
        assert_eq!((s.delivered, s.lost, s.interval.as_millis()), (20_000, 700, 25));
        assert_eq!(r.last.rate(), 800_000);
    }

    #[test]
    fn acks_that_come_in_a_heap_count_over_the_time_of_sending() {
        let mut r = Rate::default();
        r.on_sent(at(0), 0, 0, 1000);
        r.on_sent(at(40), 0, 1000, 2000);
        r.on_delivered(at(41), 1000, at(0), NONE);
        // Sent over 40 ms; that it came 1 ms after the last says nothing.
        let s = r.on_delivered(at(42), 2000, at(40), NONE).unwrap();
        assert_eq!(s.interval.as_millis(), 42);
    }

    #[test]
    fn a_sample_of_less_than_the_least_round_trip_is_none() {
        let mut r = Rate::default();
        r.on_sent(at(0), 0, 0, 1000);
        assert_eq!(r.on_delivered(at(5), 1000, at(0), Duration::from_millis(6)), None);
        r.on_sent(at(10), 1000, 0, 1000);
        assert!(r.on_delivered(at(16), 2000, at(10), Duration::from_millis(6)).is_some());
    }

    #[test]
    fn samples_of_an_idle_program_only_count_upward() {
        let mut r = Rate::default();
        r.on_sent(at(0), 0, 0, 10_000);
        r.on_delivered(at(10), 10_000, at(0), NONE);
        assert_eq!(r.last.rate(), 1_000_000);
        r.app_limited = Some(10_500);
        r.on_sent(at(20), 10_000, 0, 500);
        let s = r.on_delivered(at(30), 10_500, at(20), NONE).unwrap();
        assert!(s.app_limited && r.app_limited.is_some());
        assert_eq!(r.last.rate(), 1_000_000, "a lower one is the program's, not the path's");
        r.on_sent(at(40), 10_500, 0, 1000);
        r.on_delivered(at(50), 11_500, at(40), NONE);
        assert!(r.app_limited.is_none(), "what was sent idly is through");
    }

    #[test]
    fn departures_do_not_pile_up() {
        let mut r = Rate::default();
        for i in 0..1000 {
            r.on_sent(at(i), 0, 1, 1000);
            r.on_sent(at(i), 0, 1, 1500);
        }
        assert_eq!(r.departures.len(), 1000);
        assert_eq!(r.departures[3].in_flight, 1500, "one for a turn");
        r.on_delivered(at(1100), 1000, at(900), NONE);
        assert_eq!(r.departures.len(), 100);
        r.on_sent(at(1200), 2000, 0, 1000);
        assert_eq!(r.departures.len(), 1, "nothing was under way");
    }
}
