//! What the machine itself takes away: threads that do nothing but read the clock,
//! one on each of the cores that are measured on, and how long they stood still. A
//! request that needs both cores waits at least as long, whatever stack it meets.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A shorter pause is no pause, but the reading of the clock.
const LEAST: Duration = Duration::from_micros(1);
/// More are not kept: then a machine has no time for anything else.
const MOST: usize = 1 << 20;

/// Spin on these cores and time the pauses.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(long, value_delimiter = ',', required = true)]
    cores: Vec<usize>,
    #[arg(long)]
    seconds: f64,
}

/// What it prints: how long one waits, in nanoseconds.
#[derive(Serialize, Deserialize, Debug)]
pub struct Waits {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// The pauses of this thread, in nanoseconds.
fn look(time: Duration) -> Vec<u64> {
    let begun = Instant::now();
    let mut last = begun;
    let mut pauses = Vec::new();
    while last.duration_since(begun) < time && pauses.len() < MOST {
        let now = Instant::now();
        let pause = now.duration_since(last);
        if pause >= LEAST {
            pauses.push(pause.as_nanos() as u64);
        }
        last = now;
    }
    pauses
}

/// How long, at the given part of random moments, one waits for the end of a pause:
/// in nanoseconds, for pauses of threads that ran together for `time` nanoseconds.
fn wait(pauses: &[u64], time: f64, part: f64) -> u64 {
    // Who comes in a pause of p waits longer than w in max(0, p - w) of its time.
    let longer = |w: u64| pauses.iter().map(|p| p.saturating_sub(w)).sum::<u64>() as f64 / time;
    let (mut least, mut most) = (0, pauses.iter().copied().max().unwrap_or(0));
    while least < most {
        let middle = least + (most - least) / 2;
        if longer(middle) > 1.0 - part { least = middle + 1 } else { most = middle }
    }
    least
}

/// Measure and print.
pub fn run(args: &Args) -> Result<(), String> {
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|e| format!("--seconds: {e}"))?;
    let on_core = |&core: &usize| {
        thread::spawn(move || {
            let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
            pinned.then(|| look(time)).ok_or(format!("core {core} is not ours"))
        })
    };
    let threads: Vec<_> = args.cores.iter().map(on_core).collect();
    let mut pauses = Vec::new();
    for thread in threads {
        pauses.extend(thread.join().map_err(|_| "a thread panicked")??);
    }
    let at = |part| wait(&pauses, time.as_nanos() as f64, part) as f64;
    let waits = Waits { p50: at(0.5), p99: at(0.99), p999: at(0.999) };
    println!("{}", serde_json::to_string(&waits).map_err(|e| e.to_string())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_in_a_pause_waits_for_its_end() {
        // A tenth of the time is one pause: half of those who come in it wait for
        // more than half of it.
        assert_eq!(wait(&[100], 1000.0, 0.95), 50);
        assert_eq!(wait(&[100], 1000.0, 0.5), 0);
        assert_eq!(wait(&[], 1000.0, 0.999), 0);
        // As much in shorter ones does not take as long.
        assert_eq!(wait(&[20, 20, 20, 20, 20], 1000.0, 0.95), 10);
    }

    #[test]
    fn what_is_no_pause_is_not_noted() {
        let begun = Instant::now();
        let pauses = look(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert!(pauses.iter().all(|p| *p >= 1000) && pauses.iter().sum::<u64>() <= begun.elapsed().as_nanos() as u64);
    }
}
