//! HyStart++ (RFC 9406): slow start ends before it loses, when round trips grow
//! longer; first by way of a slower growth that can be taken back.

use super::Ack;
use crate::tcp::seq;
use crate::time::Instant;

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
/// The first HyStart looks from a window of so many segments on ...
const LOW_WINDOW: u32 = 16;
/// ... and takes ACKs for neighbours that come within 2 ms.
const SPACING: u64 = 2_000_000;

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
    /// Of the first HyStart, where that is used.
    train: Option<Train>,
}

/// What the first HyStart keeps beside the round: the least round trip time ever,
/// when the round began, and when its last ACK came that followed hard on another.
#[derive(Clone, Copy, Debug)]
struct Train {
    least: u64,
    began: Instant,
    heard: Instant,
}

impl Default for Hystart {
    fn default() -> Self {
        let never = u64::MAX;
        Self { last: never, current: never, baseline: never, end: None, samples: 0, rounds: 0, train: None }
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
    /// As it was first (Ha and Rhee, 2011), and as Linux's CUBIC has it: a sign
    /// ends slow start at once.
    pub fn classic() -> Self {
        let train = Train { least: u64::MAX, began: Instant::ZERO, heard: Instant::ZERO };
        Self { train: Some(train), ..Self::default() }
    }

    /// The first HyStart: ACKs that follow one another for half a round trip, or a
    /// round trip that is an eighth longer than the least.
    fn on_ack_classic(&mut self, mut t: Train, window: u32, ack: &Ack, paced: bool) -> Step {
        t.least = t.least.min(ack.rtt.map_or(u64::MAX, |rtt| rtt.as_nanos()));
        let mut found = false;
        if window >= LOW_WINDOW * ack.mss {
            if self.end.is_none_or(|end| seq::gt(ack.una, end)) {
                (t.began, t.heard) = (ack.now, ack.now);
                self.end = Some(ack.nxt);
                (self.current, self.samples) = (u64::MAX, 0);
            }
            if ack.now.since(t.heard).as_nanos() <= SPACING {
                t.heard = ack.now;
                let most = if paced { t.least } else { t.least / 2 };
                found = ack.now.since(t.began).as_nanos() > most;
            }
            if let Some(rtt) = ack.rtt {
                self.current = self.current.min(rtt.as_nanos());
                if self.samples < SAMPLES {
                    self.samples = self.samples.saturating_add(ack.acks.min(255) as u8);
                } else {
                    let rise = (t.least / 8).clamp(MIN_THRESHOLD, MAX_THRESHOLD);
                    found |= self.current > t.least.saturating_add(rise);
                }
            }
        }
        self.train = Some(t);
        if found { Step::Done } else { Step::Grow(ack.acked) }
    }

    /// An ACK during slow start; `paced`: no burst can come of a large step.
    pub fn on_ack(&mut self, window: u32, ack: &Ack, paced: bool) -> Step {
        if let Some(train) = self.train {
            return self.on_ack_classic(train, window, ack, paced);
        }
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
            self.samples = self.samples.saturating_add(ack.acks.min(255) as u8);
            self.judge();
        }
        let most = if paced { u32::MAX } else { MOST * ack.mss * ack.acks };
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
        (0..acks).map(|i| h.on_ack(10_000, &ack(i), false)).collect()
    }

    /// Rounds of 40 ACKs, the delay ten times as long in the last two: by themselves, and
    /// in batches of ten that are merged to one each.
    #[test]
    fn a_rise_is_heard_of_through_merged_acks() {
        let slowed = |merged: u32| {
            let mut h = Hystart::default();
            for (number, ms) in [(0, 20), (1, 20), (2, 200), (3, 200)] {
                let base = number * 100_000;
                for i in 0..40 / merged {
                    let ack = Ack {
                        una: base + i * 1000 * merged,
                        nxt: base + 100_000,
                        acks: merged,
                        rtt: Some(Duration::from_millis(ms)),
                        ..testing::ack(1000 * merged)
                    };
                    h.on_ack(100_000, &ack, false);
                }
            }
            h.rounds > 0
        };
        assert!(slowed(1), "by themselves");
        assert!(slowed(10), "merged");
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
        assert_eq!(Hystart::default().on_ack(10_000, &ack, false), Step::Grow(8000));
        assert_eq!(Hystart::default().on_ack(10_000, &ack, true), Step::Grow(50_000));
    }

    /// One ACK of a round at this time, with a window of so many segments.
    fn classic(h: &mut Hystart, window: u32, at_ms: u64, rtt_ms: u64) -> Step {
        let ack = Ack {
            now: Instant::ZERO + Duration::from_millis(at_ms),
            una: 5000,
            nxt: 90_000,
            rtt: Some(Duration::from_millis(rtt_ms)),
            ..testing::ack(2000)
        };
        h.on_ack(window * 1000, &ack, false)
    }

    #[test]
    fn the_first_hystart_ends_at_the_ninth_sample_that_is_an_eighth_longer() {
        let mut h = Hystart::classic();
        assert_eq!(classic(&mut h, 15, 0, 100), Step::Grow(2000), "too small a window");
        for i in 1..9 {
            assert_eq!(classic(&mut h, 20, 100 * i, 117), Step::Grow(2000), "{i}");
        }
        assert_eq!(classic(&mut h, 20, 900, 117), Step::Done, "100 ms and an eighth, 16 ms at most");
        // A shorter one in the same round takes it back.
        let mut h = Hystart::classic();
        for i in 0..9 {
            assert_eq!(classic(&mut h, 20, 100 * i, 100 + i), Step::Grow(2000));
        }
        assert_eq!(classic(&mut h, 20, 1000, 30), Step::Grow(2000));
    }

    #[test]
    fn the_first_hystart_ends_where_acks_follow_one_another_for_half_a_round_trip() {
        let mut h = Hystart::classic();
        for i in 0..=25 {
            assert_eq!(classic(&mut h, 20, 2 * i, 100), Step::Grow(2000), "{i}");
        }
        assert_eq!(classic(&mut h, 20, 52, 100), Step::Done);
        let mut h = Hystart::classic();
        for i in 0..=100 {
            assert_eq!(classic(&mut h, 20, 3 * i, 100), Step::Grow(2000), "not so close: {i}");
        }
    }
}
