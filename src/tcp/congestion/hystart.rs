//! HyStart++ (RFC 9406): slow start ends before it loses, when round trips grow
//! longer; first by way of a slower growth that can be taken back.

use super::Ack;
use crate::tcp::seq;

const MIN_THRESHOLD: u64 = 4_000_000;
const MAX_THRESHOLD: u64 = 16_000_000;
/// Round trips that a round must have shown before it says anything.
const SAMPLES: u8 = 8;
/// Conservative slow start grows by this part of what slow start does ...
const DIVISOR: u32 = 4;
/// ... for so many rounds.
const ROUNDS: u8 = 5;
/// Segments that one ACK can add where sending is not paced (L).
const MOST: u32 = 8;

/// What it keeps: round trip times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Hystart {
    last: u64,
    current: u64,
    /// The round trip time that conservative slow start began with.
    baseline: u64,
    /// The round ends when this is acknowledged; none has begun without it.
    end: Option<u32>,
    samples: u8,
    /// Rounds of conservative slow start; zero outside of it.
    rounds: u8,
}

impl Default for Hystart {
    fn default() -> Self {
        let never = u64::MAX;
        Self { last: never, current: never, baseline: never, end: None, samples: 0, rounds: 0 }
    }
}

/// What slow start does with an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Grows by so many bytes.
    Grow(u32),
    /// Ends.
    Done,
}

impl Hystart {
    /// An ACK during slow start; `paced`: no burst can come of a large step.
    pub fn on_ack(&mut self, ack: &Ack, paced: bool) -> Step {
        match self.end {
            Some(end) if seq::lt(ack.una, end) => {}
            before => {
                self.end = Some(ack.nxt);
                self.last = self.current;
                (self.current, self.samples) = (u64::MAX, 0);
                if before.is_some() && self.rounds > 0 {
                    self.rounds += 1;
                    if self.rounds > ROUNDS {
                        return Step::Done;
                    }
                }
            }
        }
        if let Some(rtt) = ack.rtt {
            self.current = self.current.min(rtt.as_nanos());
            self.samples = self.samples.saturating_add(1);
            self.judge();
        }
        let most = if paced { u32::MAX } else { MOST * ack.mss };
        let grow = ack.acked.min(most);
        Step::Grow(if self.rounds > 0 { grow / DIVISOR } else { grow })
    }

    /// RFC 9406, 4.2: whether the delay went up, or the rise was none.
    fn judge(&mut self) {
        if self.samples < SAMPLES {
            return;
        }
        if self.rounds > 0 {
            if self.current < self.baseline {
                (self.baseline, self.rounds) = (u64::MAX, 0);
            }
        } else if self.last != u64::MAX {
            let threshold = (self.last / 8).clamp(MIN_THRESHOLD, MAX_THRESHOLD);
            if self.current >= self.last.saturating_add(threshold) {
                (self.baseline, self.rounds) = (self.current, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::time::Duration;

    /// A round of so many ACKs, each with this round trip time in milliseconds.
    fn round(h: &mut Hystart, number: u32, acks: u32, ms: u64) -> Vec<Step> {
        let base = number * 100_000;
        let ack = |i| Ack {
            una: base + i * 1000,
            nxt: base + 100_000,
            rtt: Some(Duration::from_millis(ms)),
            ..testing::ack(1000)
        };
        (0..acks).map(|i| h.on_ack(&ack(i), false)).collect()
    }

    #[test]
    fn steady_round_trips_leave_slow_start_alone() {
        let mut h = Hystart::default();
        for number in 0..20 {
            assert_eq!(round(&mut h, number, 10, 50), vec![Step::Grow(1000); 10]);
        }
    }

    #[test]
    fn a_longer_round_trip_slows_growth_to_a_quarter_and_ends_it_after_five_rounds() {
        let mut h = Hystart::default();
        round(&mut h, 0, 10, 40);
        // 40 ms and an eighth is 45.
        let steps = round(&mut h, 1, 10, 45);
        assert_eq!((steps[6], steps[7]), (Step::Grow(1000), Step::Grow(250)));
        for number in 2..6 {
            assert_eq!(round(&mut h, number, 10, 45), vec![Step::Grow(250); 10]);
        }
        assert_eq!(round(&mut h, 6, 1, 45), [Step::Done]);
    }

    #[test]
    fn a_rise_that_goes_away_was_none() {
        let mut h = Hystart::default();
        round(&mut h, 0, 10, 40);
        round(&mut h, 1, 10, 60);
        let steps = round(&mut h, 2, 10, 41);
        assert_eq!((steps[6], steps[7]), (Step::Grow(250), Step::Grow(1000)));
    }

    #[test]
    fn four_milliseconds_are_the_least_rise_and_seven_samples_are_too_few() {
        let mut h = Hystart::default();
        round(&mut h, 0, 10, 1);
        assert_eq!(round(&mut h, 1, 10, 4), vec![Step::Grow(1000); 10]);
        round(&mut h, 2, 10, 1);
        assert_eq!(round(&mut h, 3, 7, 90), vec![Step::Grow(1000); 7]);
        assert_eq!(round(&mut h, 4, 10, 9), vec![Step::Grow(1000); 10], "the last round saw 90");
    }

    #[test]
    fn one_ack_counts_for_eight_segments_at_most_unless_paced() {
        let ack = testing::ack(50_000);
        assert_eq!(Hystart::default().on_ack(&ack, false), Step::Grow(8000));
        assert_eq!(Hystart::default().on_ack(&ack, true), Step::Grow(50_000));
    }
}
