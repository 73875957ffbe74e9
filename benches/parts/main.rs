//! Times of the parts, beside what they are to be held against: `cargo bench
//! --bench parts [-- NAME]`. Whole operations are counted in `operations`.

mod calls;
#[allow(dead_code, reason = "of the pair, what the parts need")]
#[path = "../operations/ours.rs"]
mod ours;
mod sums;
mod tables;
mod tcp;
#[allow(dead_code, unused_imports, reason = "the wheel's file as it is, tests and all")]
#[path = "../../src/stack/tcp/wheel.rs"]
mod wheel;

// What the wheel's file finds in its crate.
#[allow(unused_imports, reason = "its tests")]
use ringroad::{rng, time};

use criterion::Criterion;
use std::time::Duration;

const PARTS: [fn(&mut Criterion); 9] = [
    sums::checksum,
    sums::copy,
    tcp::parse,
    tcp::input,
    tcp::output,
    tables::demux,
    tables::timers,
    tables::ring,
    calls::calls,
];

fn main() {
    let quick = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let mut criterion = quick.configure_from_args();
    for part in PARTS {
        part(&mut criterion);
    }
    criterion.final_summary();
}
