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
mod seen;
mod side_plan;
mod soak;
mod transfer;
mod world;

use features::Class;
use seen::{Seen, Tally};
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
fn run(class: Class) {
    let from = number("RINGROAD_FROM").unwrap_or(0);
    let asked = number("RINGROAD_SEEDS").unwrap_or(seeds(class));
    let (mut whole, mut tally) = (0, Tally::default());
    for seed in from..from + asked {
        let outcome = run_one(class, seed);
        whole += outcome.whole;
        tally.add(outcome.seen);
    }
    assert!(whole > 0 || class == Class::CutForEver, "no connection was whole");
    let missing = tally.missing(Seen::demanded(class));
    assert!(asked < seeds(class) || missing.is_empty(), "in no seed of {class:?} there was {missing:?}");
}

/// How many seeds of each class the tests below try.
const fn seeds(class: Class) -> u64 {
    match class {
        Class::Big => 10,
        Class::CutForEver | Class::Many => 50,
        Class::Upheaval => 150,
        Class::Swarm => 500,
        _ => 100,
    }
}

/// A second stretch of swarms.
const AGAIN: u64 = 500;

/// Together no fewer than two thousand.
const _: () = {
    let (mut i, mut sum) = (0, AGAIN);
    while i < Class::ALL.len() {
        sum += seeds(Class::ALL[i]);
        i += 1;
    }
    assert!(sum >= 2000);
};

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
fn sequence_numbers_across_2_to_the_32() {
    run(Class::Wrap);
}

#[test]
fn large_transfers() {
    run(Class::Big);
}

#[test]
fn hosts_addresses_and_routes_that_change() {
    run(Class::Upheaval);
}

#[test]
fn urgent_bytes_in_line_and_apart() {
    run(Class::Urgent);
}

#[test]
fn connections_that_begin_in_the_time_wait_of_others() {
    run(Class::Reuse);
}

#[test]
fn data_in_syns_cookies_and_ecn() {
    run(Class::Opens);
}

#[test]
fn timers_at_their_edges_and_options_that_change() {
    run(Class::Settings);
}

#[test]
fn any_of_it() {
    run(Class::Swarm);
}

/// A second stretch of the same, for the machine's second core.
#[test]
fn any_of_it_again() {
    for seed in seeds(Class::Swarm)..seeds(Class::Swarm) + AGAIN {
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
