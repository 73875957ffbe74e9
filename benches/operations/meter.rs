//! What is counted: callgrind collects from the call of a function whose name is
//! known to its return.

use std::hint::black_box;

/// An operation, step by step.
pub trait Operation {
    /// Does it once or a few times, and gives how often. What belongs to it goes
    /// through the meter; what the wire or the other end does goes beside it.
    fn step(&mut self, meter: &mut Meter) -> u64;
}

/// Hands over to callgrind what belongs to an operation.
#[derive(Default)]
pub struct Meter {
    /// Off while things warm up.
    on: bool,
    /// Calls of [`metered`], each of which costs what an empty one does.
    calls: u64,
}

/// Callgrind collects in here (`--toggle-collect=*meter::metered*`). It is not inlined,
/// and does not end in a jump, so that the name stays on the stack meanwhile.
#[inline(never)]
fn metered(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

impl Meter {
    /// Does a piece of work that belongs to the operation.
    pub fn count(&mut self, mut work: impl FnMut()) {
        if self.on {
            self.calls += 1;
            metered(&mut work);
        } else {
            work();
        }
    }

    /// As [`Meter::count`], where `mine` says that the work belongs to it.
    pub fn count_if(&mut self, mine: bool, mut work: impl FnMut()) {
        if mine { self.count(work) } else { work() }
    }

    /// Warms an operation up, then counts `steps` steps: how often it was done,
    /// and the calls of the meter.
    pub fn run(operation: &mut dyn Operation, warm: u64, steps: u64) -> (u64, u64) {
        let mut meter = Self::default();
        for _ in 0..warm {
            operation.step(&mut meter);
        }
        meter.on = true;
        let done = (0..steps).map(|_| operation.step(&mut meter)).sum();
        (done, meter.calls)
    }
}

/// Nothing at all: what the meter itself costs.
pub struct Empty;

impl Operation for Empty {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        meter.count(|| {});
        1
    }
}
