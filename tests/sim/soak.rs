//! Many seeds of all classes on all cores, with a summary: what `scripts/soak`
//! runs.

use crate::features::Class;
use crate::seen::Tally;
use crate::world::Outcome;
use crate::{number, run_one};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Seeds where the environment says nothing else: enough to see that this works.
const SEEDS: u64 = 40;
/// Each so manieth seed runs twice, and must give the same packets.
const TWICE: u64 = 50;
/// Of so many seeds, those that are not swarms; the classes take turns.
const CLASSES: u64 = 4;

#[derive(Default)]
struct Sums {
    seeds: u64,
    nanos: u128,
    slowest: u128,
    all: Outcome,
    tally: Tally,
    failed: Vec<u64>,
}

/// The class of a seed: three of four are swarms.
fn class_of(seed: u64) -> Class {
    let others = Class::ALL.len() as u64 - 1;
    if seed.is_multiple_of(CLASSES) { Class::ALL[(seed / CLASSES % others) as usize] } else { Class::Swarm }
}

impl Sums {
    fn add(&mut self, seed: u64, result: Option<Outcome>, nanos: u128) {
        self.seeds += 1;
        self.nanos += nanos;
        self.slowest = self.slowest.max(nanos);
        let Some(o) = result else { return self.failed.push(seed) };
        self.all.packets += o.packets;
        self.all.connections += o.connections;
        self.all.whole += o.whole;
        self.all.bytes += o.bytes;
        self.all.errors += o.errors;
        self.tally.add(o.seen);
    }
}

/// One seed, and each so manieth twice; `None` if it fails.
fn attempt(seed: u64) -> Option<Outcome> {
    let class = class_of(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| run_one(class, seed))).ok()?;
    if seed.is_multiple_of(TWICE) {
        let again = catch_unwind(AssertUnwindSafe(|| run_one(class, seed))).ok()?;
        if again != outcome {
            eprintln!("{class:?} {seed}: {outcome:?}, and then {again:?}");
            return None;
        }
    }
    Some(outcome)
}

#[test]
fn soak() {
    let first = number("RINGROAD_SOAK_FROM").unwrap_or(0);
    let count = number("RINGROAD_SOAK").unwrap_or(SEEDS);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let threads = number("RINGROAD_SOAK_THREADS").unwrap_or(cores);
    let sums: Mutex<BTreeMap<Class, Sums>> = Mutex::default();
    let (next, start) = (AtomicU64::new(first), Instant::now());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + count {
                return;
            }
            let begin = Instant::now();
            let result = attempt(seed);
            if number("RINGROAD_SOAK_SLOW").is_some_and(|ms| begin.elapsed().as_millis() as u64 >= ms) {
                eprintln!("slow: {:?} {seed}: {} ms", class_of(seed), begin.elapsed().as_millis());
            }
            let mut sums = sums.lock().expect("nobody panics with the sums");
            sums.entry(class_of(seed)).or_default().add(seed, result, begin.elapsed().as_nanos());
            if (seed + 1 - first).is_multiple_of(5000) {
                let rate = (seed + 1 - first) as f64 / start.elapsed().as_secs_f64();
                eprintln!("{} seeds, {rate:.0} a second", seed + 1 - first);
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    summary(&sums.into_inner().expect("nobody panics with the sums"), start);
}

/// Prints what was run; fails if any seed did.
fn summary(sums: &BTreeMap<Class, Sums>, start: Instant) {
    let (mut seeds, mut failed) = (0, 0);
    println!("{:<12}{:>9}{:>8}{:>9}{:>9}{:>9}{:>9}{:>10}{:>9}", "class", "seeds", "failed", "ms/seed", "slowest", "conns", "whole", "packets", "MB");
    for (class, s) in sums {
        let ms = s.nanos as f64 / 1e6 / s.seeds.max(1) as f64;
        println!(
            "{:<12}{:>9}{:>8}{ms:>9.2}{:>9}{:>9}{:>9}{:>10}{:>9}",
            format!("{class:?}"), s.seeds, s.failed.len(), s.slowest / 1_000_000,
            s.all.connections, s.all.whole, s.all.packets, s.all.bytes >> 20,
        );
        seeds += s.seeds;
        failed += s.failed.len();
    }
    sums.values().fold(Tally::default(), |all, s| all.plus(&s.tally)).print();
    let seconds = start.elapsed().as_secs_f64();
    println!("{seeds} seeds in {seconds:.0} s, {:.1} a second; {failed} failed", seeds as f64 / seconds);
    for (class, s) in sums.iter().filter(|(_, s)| !s.failed.is_empty()) {
        println!("failed, RINGROAD_CLASS={}: {:?}", format!("{class:?}").to_lowercase(), s.failed);
    }
    assert_eq!(failed, 0, "seeds failed");
}
