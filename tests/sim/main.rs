//! The simulator: hosts on a bad network inside the process, driven by random
//! programs, all of it drawn from a seed.
//!
//! For every seed: each byte stream arrives whole and in order, or its connection
//! ends with an error that what happened allows; nobody waits for ever, or for
//! what is there; and at every step no frame is lost or in two hands. A failing
//! seed prints its last packets and the command that runs it alone.
//! `RINGROAD_SEEDS=n` sets how many seeds each test tries, and `RINGROAD_FROM=n`
//! from which on; `scripts/soak` runs many.

mod draw;
mod features;
mod gateway;
mod happen;
mod host;
mod host_plan;
mod memory;
mod model;
mod net;
mod program;
mod report;
mod scenario;
mod side_plan;
mod soak;
mod transfer;
mod world;

use features::Class;
use world::{Outcome, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// Runs one seed of a class; nothing of it is left in memory.
fn run_one(class: Class, seed: u64) -> Outcome {
    let before = memory::live();
    let outcome = World::new(class, seed).run();
    // Alone, what it printed is kept until the test's end.
    let left = memory::live() - before;
    assert!(left == 0 || report::alone(), "{class:?} {seed}: {left} bytes of memory are left");
    outcome
}

/// Runs the seeds of one class of scenarios.
fn run(class: Class, seeds: u64) {
    let from = number("RINGROAD_FROM").unwrap_or(0);
    let mut whole = 0;
    for seed in from..from + number("RINGROAD_SEEDS").unwrap_or(seeds) {
        whole += run_one(class, seed).whole;
    }
    assert!(whole > 0 || class == Class::CutForEver, "no connection was whole");
}

#[test]
fn a_perfect_wire() {
    run(Class::Perfect, 100);
}

#[test]
fn a_bad_wire() {
    run(Class::Bad, 100);
}

#[test]
fn a_very_bad_wire() {
    run(Class::Terrible, 100);
}

#[test]
fn a_slow_wire_with_a_short_queue() {
    run(Class::Slow, 100);
}

#[test]
fn few_frames() {
    run(Class::FewFrames, 100);
}

#[test]
fn programs_that_abort() {
    run(Class::Aborts, 100);
}

#[test]
fn a_wire_that_is_cut_for_a_while() {
    run(Class::Cut, 100);
}

#[test]
fn a_wire_that_is_cut_for_ever() {
    run(Class::CutForEver, 50);
}

#[test]
fn many_connections() {
    run(Class::Many, 50);
}

#[test]
fn sequence_numbers_across_2_to_the_32() {
    run(Class::Wrap, 100);
}

#[test]
fn large_transfers() {
    run(Class::Big, 10);
}

#[test]
fn hosts_addresses_and_routes_that_change() {
    run(Class::Upheaval, 150);
}

#[test]
fn any_of_it() {
    run(Class::Swarm, 500);
}

/// A second stretch of the same, for the machine's second core.
#[test]
fn any_of_it_again() {
    for seed in 500..1000 {
        run_one(Class::Swarm, seed);
    }
}

/// `RINGROAD_CLASS` and `RINGROAD_SEED` choose which.
#[test]
fn one_seed() {
    let class = std::env::var("RINGROAD_CLASS").ok().map_or(Class::Swarm, |name| {
        Class::of_name(&name).unwrap_or_else(|| panic!("no class {name}: {:?}", Class::ALL))
    });
    run_one(class, number("RINGROAD_SEED").unwrap_or(7));
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_the_wire() {
    for class in Class::ALL {
        let (first, again) = (run_one(class, 3), run_one(class, 3));
        assert_eq!(first, again, "{class:?}");
        assert_ne!(first.digest, run_one(class, 4).digest, "{class:?}");
    }
}
