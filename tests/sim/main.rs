//! The simulator: two stacks over a bad wire inside the process, driven by random
//! programs, all of it drawn from a seed.
//!
//! For every seed: each byte stream arrives whole and in order, or its connection
//! ends with an error; nobody waits for ever; and at every step no frame is lost
//! or in two hands. A failing seed prints its last packets, and runs alone with
//! `RINGROAD_SEED=n cargo test --test sim NAME`. `RINGROAD_SEEDS=n` sets how many
//! seeds each test tries.

mod program;
mod scenario;
mod world;

use scenario::Class;
use world::World;

/// Seeds that each test tries where the environment says nothing else.
const SEEDS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// Runs the seeds of one class of scenarios.
fn run(class: Class) {
    if let Some(seed) = number("RINGROAD_SEED") {
        World::new(class, seed).run();
        return;
    }
    for seed in 0..number("RINGROAD_SEEDS").unwrap_or(SEEDS) {
        World::new(class, seed).run();
    }
}

#[test]
fn a_perfect_wire() {
    run(Class::Perfect);
}

#[test]
fn a_bad_wire() {
    run(Class::Bad);
}

#[test]
fn a_very_bad_wire() {
    run(Class::Terrible);
}

#[test]
fn a_slow_wire_with_a_short_queue() {
    run(Class::Slow);
}

#[test]
fn few_frames() {
    run(Class::FewFrames);
}

#[test]
fn programs_that_abort() {
    run(Class::Aborts);
}

#[test]
fn a_wire_that_is_cut_for_a_while() {
    run(Class::Cut);
}

#[test]
fn a_wire_that_is_cut_for_ever() {
    run(Class::CutForEver);
}

#[test]
fn many_connections() {
    run(Class::Many);
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_the_wire() {
    for class in [Class::Bad, Class::Many, Class::Aborts] {
        let (first, again) = (World::new(class, 3).run(), World::new(class, 3).run());
        assert_eq!(first, again, "{class:?}");
        assert_ne!(first, World::new(class, 4).run(), "{class:?}");
    }
}
