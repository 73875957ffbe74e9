//! CUBIC (RFC 9438), in integers: windows in bytes, times in milliseconds.

use super::Ack;
use super::hystart::{Hystart, Step};
use crate::time::Instant;

/// C is 0.4 segments a second cubed: with t in ms, mss * t^3 * 4 / 10^10 bytes.
const SCALE: i128 = 10_000_000_000;

/// What CUBIC keeps.
#[derive(Clone, Debug)]
pub struct Cubic {
    /// The window just before the last reduction, less for fast convergence.
    w_max: u32,
    /// The window just before the last reduction.
    prior: u32,
    /// When congestion avoidance began; [`Instant::NEVER`] outside of it. Time
    /// in which the window was not the limit is left out (5.8).
    epoch: Instant,
    /// Where the curve is flat: so many milliseconds after the epoch ...
    k: u32,
    /// ... and at this window.
    origin: u32,
    /// The window that Reno would have, in bytes times 2^16.
    w_est: u64,
    /// What the last steps left over of a byte, times the window.
    credit: u64,
    /// When an ACK last came while the window was the limit.
    limited: Instant,
    hystart: Option<Hystart>,
}

impl Cubic {
    /// Before the first loss; with HyStart++ or plain slow start.
    pub fn new(hystart: bool) -> Self {
        Self {
            w_max: 0,
            prior: 0,
            epoch: Instant::NEVER,
            k: 0,
            origin: 0,
            w_est: 0,
            credit: 0,
            limited: Instant::ZERO,
            hystart: hystart.then(Hystart::default),
        }
    }

    /// The same with the first HyStart.
    pub fn classic() -> Self {
        Self { hystart: Some(Hystart::classic()), ..Self::new(false) }
    }

    /// New data was acknowledged while the window was full.
    pub fn on_ack(&mut self, window: &mut u32, threshold: &mut u32, ack: &Ack, paced: bool) {
        if *window < *threshold {
            // The RFC's HyStart++ is for the first slow start; later ones know a
            // threshold.
            let step = match &mut self.hystart {
                Some(h) if *threshold == u32::MAX => h.on_ack(*window, ack, paced),
                _ => Step::Grow(ack.acked),
            };
            match step {
                Step::Grow(bytes) => {
                    *window = window.saturating_add(bytes).min(*threshold);
                    return;
                }
                Step::Done => *threshold = *window,
            }
        }
        self.avoid(window, ack);
    }

    fn avoid(&mut self, window: &mut u32, ack: &Ack) {
        if self.epoch == Instant::NEVER {
            self.begin(*window, ack);
        }
        let gap = ack.now.since(self.limited);
        let most = ack.srtt + ack.srtt;
        if gap > most {
            self.epoch += gap;
        }
        self.limited = ack.now;
        let t = ack.now.since(self.epoch).as_millis();
        let mss = u64::from(ack.mss);
        self.grow_estimate(u64::from(*window), ack);
        let reno = (self.w_est >> 16).min(u32::MAX.into());
        // 4.3: Reno would be ahead.
        if self.curve(t, mss) < reno {
            if reno as u32 > *window {
                *window = reno as u32;
            }
            return;
        }
        // 4.4 and 4.5: to where the curve is in a round trip.
        let now = u64::from(*window);
        let ahead = t + ack.srtt.as_millis();
        let target = self.curve(ahead, mss).clamp(now, now + now / 2);
        self.credit += u64::from(ack.acked) * (target - now);
        let steps = self.credit / now.max(1);
        self.credit -= steps * now;
        *window = window.saturating_add(steps.min(ack.acked.into()) as u32);
    }

    /// Congestion avoidance begins (4.2).
    fn begin(&mut self, window: u32, ack: &Ack) {
        (self.epoch, self.limited, self.credit) = (ack.now, ack.now, 0);
        self.w_est = u64::from(window) << 16;
        if window < self.w_max {
            // (W_max - cwnd) / C, in ms cubed.
            let span = u64::from(self.w_max - window) * 2_500_000_000 / u64::from(ack.mss);
            self.k = cube_root(span);
            self.origin = self.w_max;
        } else {
            (self.k, self.origin) = (0, window);
        }
    }

    /// W_est (4.3): slower than Reno, which is reduced more, until the window of
    /// the last reduction is reached.
    fn grow_estimate(&mut self, window: u64, ack: &Ack) {
        let step = (u64::from(ack.acked) << 16) * u64::from(ack.mss) / window.max(1);
        let below = self.w_est >> 16 < self.prior.into();
        // alpha = 3 (1 - 0.7) / (1 + 0.7).
        self.w_est += if below { step * 9 / 17 } else { step };
    }

    /// W_cubic(t) in bytes (figure 1).
    fn curve(&self, t: u64, mss: u64) -> u64 {
        let d = i128::from(t.min(1 << 32)) - i128::from(self.k);
        let off = i128::from(mss) * d * d * d * 4 / SCALE;
        (i128::from(self.origin) + off).clamp(0, u32::MAX.into()) as u64
    }

    /// A loss or a mark: returns the new threshold (4.6, 4.7).
    pub fn reduce(&mut self, window: u32, mss: u32) -> u32 {
        self.prior = window;
        self.w_max = if window < self.w_max {
            // Fast convergence: others have come, leave them room.
            (u64::from(window) * 17 / 20) as u32
        } else {
            window
        };
        self.epoch = Instant::NEVER;
        ((u64::from(window) * 7 / 10) as u32).max(2 * mss)
    }

    /// After a time-out the curve begins where the next congestion avoidance
    /// does (4.8).
    pub fn on_timeout(&mut self) {
        (self.w_max, self.epoch) = (0, Instant::NEVER);
    }
}

/// The integer cube root.
fn cube_root(n: u64) -> u32 {
    let mut root: u64 = 0;
    for bit in (0..22).rev() {
        let more = root | 1 << bit;
        if u128::from(more).pow(3) <= u128::from(n) {
            root = more;
        }
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::time::Duration;

    const MSS: u32 = 1000;

    #[test]
    fn the_cube_root_is_the_largest_whose_cube_is_not_more() {
        for n in [0, 1, 7, 8, 26, 27, 999, 1000, 12_345_678_901_234, u64::MAX] {
            let r = u128::from(cube_root(n));
            assert!(r.pow(3) <= n.into() && (r + 1).pow(3) > n.into(), "{n}");
        }
    }

    /// Acknowledges a whole window each round trip, for so long.
    fn run(c: &mut Cubic, window: &mut u32, from: u64, ms: u64, rtt: u64) {
        let mut threshold = 1;
        let mut now = from;
        while now < from + ms {
            let mut left = *window;
            while left > 0 {
                let acked = left.min(MSS);
                left -= acked;
                let ack = Ack {
                    now: Instant::ZERO + Duration::from_millis(now),
                    srtt: Duration::from_millis(rtt),
                    ..testing::ack(acked)
                };
                c.on_ack(window, &mut threshold, &ack, false);
            }
            now += rtt;
        }
    }

    #[test]
    fn the_window_is_back_after_k_and_grows_faster_the_longer_after_it() {
        let mut c = Cubic::new(true);
        let mut window = c.reduce(1000 * MSS, MSS);
        assert_eq!(window, 700 * MSS);
        // K = cbrt(300 / 0.4) = 9.0856 s.
        run(&mut c, &mut window, 0, 4500, 100);
        assert_eq!(c.k, 9085);
        let half = window;
        // W(4.6) = 0.4 * (4.6 - 9.0856)^3 + 1000 = 963.9
        assert!((955 * MSS..968 * MSS).contains(&half), "{half}");
        run(&mut c, &mut window, 4500, 4600, 100);
        assert!((998 * MSS..=1001 * MSS).contains(&window), "flat at W_max: {window}");
        run(&mut c, &mut window, 9100, 5000, 100);
        // 0.4 * 5^3 = 50 more.
        assert!((1045 * MSS..1056 * MSS).contains(&window), "{window}");
    }

    #[test]
    fn reductions_below_the_last_one_leave_room_for_others() {
        let mut c = Cubic::new(true);
        c.reduce(1000 * MSS, MSS);
        assert_eq!(c.w_max, 1000 * MSS);
        c.reduce(800 * MSS, MSS);
        assert_eq!(c.w_max, 680 * MSS);
        assert_eq!(c.reduce(2 * MSS, MSS), 2 * MSS, "no less than two segments");
    }

    #[test]
    fn over_short_paths_it_grows_as_reno_would() {
        // Ten segments, 1 ms: Reno gains 9/17 of a segment a round trip, then one.
        let mut c = Cubic::new(true);
        let mut window = c.reduce(14 * MSS, MSS);
        run(&mut c, &mut window, 0, 8, 1);
        assert!((13 * MSS..15 * MSS).contains(&window), "{window}");
        run(&mut c, &mut window, 8, 50, 1);
        assert!((58 * MSS..68 * MSS).contains(&window), "{window}");
    }

    #[test]
    fn time_without_a_full_window_does_not_count() {
        let mut c = Cubic::new(true);
        let mut window = c.reduce(1000 * MSS, MSS);
        run(&mut c, &mut window, 0, 1000, 100);
        let before = window;
        // An hour later: without the care the curve would be far above.
        run(&mut c, &mut window, 3_600_000, 100, 100);
        assert!(window - before < 15 * MSS, "{before} {window}");
    }

    #[test]
    fn after_a_timeout_the_curve_starts_flat() {
        let mut c = Cubic::new(true);
        c.reduce(1000 * MSS, MSS);
        c.on_timeout();
        let mut window = 500 * MSS;
        run(&mut c, &mut window, 0, 100, 100);
        assert_eq!((c.k, c.origin), (0, 500 * MSS));
    }

    #[test]
    fn slow_start_without_hystart_goes_on_whatever_the_delay() {
        for (hystart, done) in [(true, true), (false, false)] {
            let mut c = Cubic::new(hystart);
            let (mut window, mut threshold) = (10 * MSS, u32::MAX);
            for i in 0..100u32 {
                let ack = Ack {
                    una: i * MSS,
                    nxt: i * MSS + 10 * MSS,
                    rtt: Some(Duration::from_millis(20 + 2 * u64::from(i))),
                    ..testing::ack(MSS)
                };
                c.on_ack(&mut window, &mut threshold, &ack, false);
            }
            assert_eq!(threshold < u32::MAX, done);
        }
    }
}
