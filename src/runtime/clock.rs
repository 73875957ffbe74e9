//! The only clock: CLOCK_MONOTONIC.
//!
//! Reading it costs some 20 ns through the vDSO. Where the processor's counter
//! is what the kernel itself keeps time by, it is read directly and compared
//! with the kernel's clock every few milliseconds; the first time the two
//! disagree, the counter is given up for good.

use super::sys::monotonic_ns;
use crate::time::Instant;

/// One worker's clock. It never goes back.
#[derive(Debug)]
pub struct Clock {
    counter: Option<Counter>,
    last: u64,
}

impl Clock {
    /// A clock on the processor's counter where that is proven sane, else on
    /// the vDSO. Calibrating takes about 2 ms.
    pub fn new() -> Self {
        Self { counter: Counter::calibrate(), last: 0 }
    }

    /// A clock that asks the kernel every time.
    pub fn plain() -> Self {
        Self { counter: None, last: 0 }
    }

    /// The time, in nanoseconds of CLOCK_MONOTONIC.
    #[inline]
    pub fn now(&mut self) -> Instant {
        let ns = match &mut self.counter {
            Some(counter) => match counter.read() {
                Some(ns) => ns,
                None => {
                    self.counter = None;
                    monotonic_ns()
                }
            },
            None => monotonic_ns(),
        };
        self.last = self.last.max(ns);
        Instant::from_nanos(self.last)
    }

    /// True while the processor's counter is what is read.
    pub fn is_counter(&self) -> bool {
        self.counter.is_some()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The time of a program's thread: CLOCK_MONOTONIC through the vDSO.
pub fn now() -> Instant {
    Instant::from_nanos(monotonic_ns())
}

/// Ticks between two comparisons with the kernel's clock, as time: 4 ms.
const CHECK_NS: u64 = 4_000_000;
/// How far the two may be apart at a comparison: 20 us over 4 ms would be 0.5
/// percent, a hundred times what NTP slewing does.
const TOLERANCE_NS: u64 = 20_000;

#[derive(Debug)]
struct Counter {
    base_ticks: u64,
    base_ns: u64,
    /// Nanoseconds a tick, times 2^32.
    scale: u64,
    check_ticks: u64,
}

impl Counter {
    /// Measures the counter against the kernel's clock, twice; `None` where the
    /// kernel does not trust it or the two measurements differ.
    fn calibrate() -> Option<Self> {
        if !kernel_trusts_counter() {
            return None;
        }
        let mut scale = [0u64; 2];
        let (mut ticks, mut ns) = pair();
        for s in &mut scale {
            let begin = (ticks, ns);
            while ns - begin.1 < 1_000_000 {
                (ticks, ns) = pair();
            }
            let elapsed = ticks.checked_sub(begin.0).filter(|t| *t > 1000)?;
            *s = ((u128::from(ns - begin.1) << 32) / u128::from(elapsed)) as u64;
        }
        if scale[0].abs_diff(scale[1]) > scale[0] / 200 {
            return None;
        }
        let scale = scale[1];
        let check_ticks = ((u128::from(CHECK_NS) << 32) / u128::from(scale.max(1))) as u64;
        Some(Self { base_ticks: ticks, base_ns: ns, scale, check_ticks })
    }

    #[inline]
    fn read(&mut self) -> Option<u64> {
        let elapsed = ticks().wrapping_sub(self.base_ticks);
        if elapsed > self.check_ticks {
            return self.compare();
        }
        // At most CHECK_NS, so the product stays below 2^64.
        Some(self.base_ns + ((elapsed * self.scale) >> 32))
    }

    #[cold]
    fn compare(&mut self) -> Option<u64> {
        let (ticks, ns) = pair();
        let elapsed_ticks = ticks.checked_sub(self.base_ticks)?;
        let elapsed_ns = ns.checked_sub(self.base_ns)?;
        let told = ((u128::from(elapsed_ticks) * u128::from(self.scale)) >> 32) as u64;
        // A long sleep may drift by its length's share.
        if told.abs_diff(elapsed_ns) > TOLERANCE_NS + elapsed_ns / 1000 {
            return None;
        }
        if elapsed_ns >= CHECK_NS * 8 {
            // The longer the base line, the better the scale.
            self.scale = ((u128::from(elapsed_ns) << 32) / u128::from(elapsed_ticks)) as u64;
        }
        (self.base_ticks, self.base_ns) = (ticks, ns);
        Some(ns)
    }
}

/// Counter and clock read as close together as three tries allow.
fn pair() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..3 {
        let before = ticks();
        let ns = monotonic_ns();
        let after = ticks();
        let width = after.wrapping_sub(before);
        if width < best.0 {
            best = (width, before.wrapping_add(width / 2), ns);
        }
    }
    (best.1, best.2)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    0
}

/// Only where the kernel's own clock runs on this counter: it has checked that
/// it is constant, does not stop, and agrees between cores.
fn kernel_trusts_counter() -> bool {
    const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    cfg!(target_arch = "x86_64")
        && std::fs::read_to_string(SOURCE).is_ok_and(|source| source.trim() == "tsc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_kernel_and_never_goes_back() {
        for mut clock in [Clock::new(), Clock::plain()] {
            let mut last = Instant::ZERO;
            let end = monotonic_ns() + 30_000_000;
            loop {
                let before = monotonic_ns();
                let now = clock.now();
                let after = monotonic_ns();
                assert!(now >= last);
                last = now;
                // A thread can lose the processor between the readings, but not
                // on the side of being early.
                assert!(now.as_nanos() + 1_000_000 > before, "{} {before}", now.as_nanos());
                assert!(now.as_nanos() < after + 1_000_000);
                if after > end {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_counter_that_disagrees_is_given_up() {
        let Some(mut counter) = Counter::calibrate() else { return };
        counter.scale *= 2;
        counter.base_ns = monotonic_ns();
        counter.base_ticks = ticks();
        std::thread::sleep(std::time::Duration::from_millis(6));
        let mut clock = Clock { counter: Some(counter), last: 0 };
        clock.now();
        assert!(!clock.is_counter());
    }
}
